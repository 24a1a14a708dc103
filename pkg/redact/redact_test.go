package redact

import (
	"strings"
	"testing"
)

func TestText(t *testing.T) {
	for in, want := range map[string]string{
		"Failed password for root from 10.0.0.1":                            "",
		"wrong password":                                                    "",
		"password changed for alice":                                        "",
		"db_password=hunter2 user=x":                                        "db_password=[redacted] user=x",
		`{"user":"a","apiKey":"abc\"def","n":1}`:                            `{"user":"a","apiKey":"[redacted]","n":1}`,
		`{"token": "t0ps3cret"}`:                                            `{"token": "[redacted]"}`,
		"Authorization: Bearer abc.def-ghi next":                            "Authorization: Bearer [redacted] next",
		"GET https://bob:pa55@example.org/x":                                "GET https://bob:[redacted]@example.org/x",
		"key AKIAIOSFODNN7EXAMPLE used":                                     "key [redacted] used",
		"-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END":                   "-----BEGIN RSA PRIVATE KEY-----[redacted]-----END",
		"passwd: all authentication tokens updated":                         "passwd: [redacted] authentication tokens updated",
		"SECRET_TOKENS=a,b":                                                 "SECRET_TOKENS=[redacted],b",
		`{"m":"got {\"token\":\"abc\",\"n\":1}"}`:                           `{"m":"got {\"token\":\"[redacted]\",\"n\":1}"}`,
		"plain text without anything":                                       "",
		"jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3": "jwt [redacted]",
	} {
		if want == "" {
			want = in
		}
		if got := Text(in); got != want {
			t.Errorf("%q\n  is   %q\n  want %q", in, got, want)
		}
	}
}

// What was blacked out once stays as it is, and nothing panics.
func FuzzTextTwice(f *testing.F) {
	f.Add("password='x' token:\"\\")
	f.Add("://:@ -----BEGIN PRIVATE KEY")
	f.Fuzz(func(t *testing.T, s string) {
		once := Text(s)
		if len(once) > len(s)*len(Mark)+len(Mark) {
			t.Fatal("too long")
		}
		if !strings.Contains(once, Mark) && once != s {
			t.Fatalf("%q became %q", s, once)
		}
	})
}
