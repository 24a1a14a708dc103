package mcp

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"nginx: started":                    "nginx: started",
		"a\nb\tc":                           "a b c",
		"\x1b[31mred\x1b[0m":                "red",
		"\x1b]0;title\x07text":              "text",
		"\x1b]8;;http://x\x1b\\link":        "link",
		"\x1b]never ended":                  "never ended",
		"\u009b1mbold":                      "bold",
		"\x1b(Bx":                           "x",
		"a\u202egnp.exe":                    "agnp.exe",
		"a\u200bb\u2060c\ufeffd":            "abcd",
		"hi\U000e0049\U000e0067":            "hi", // tags
		"v\ufe0f\U000e0100":                 "v",
		"\u3164\uffa0\u115f\u2800filler":    "filler",
		"caf\u00e9 \u4e2d\u6587 \U0001f600": "caf\u00e9 \u4e2d\u6587 \U0001f600",
		"bad \xff\xfe utf8":                 "bad \uFFFD\uFFFD utf8",
		"password=hunter2 rest":             "password=[redacted] rest",
		"x\u2028y":                          "x y",
	} {
		if got := clean(in, 100); got != want {
			t.Errorf("clean(%q) = %q, want %q", in, got, want)
		}
	}
	if got := clean(strings.Repeat("ä", 100), 11); got != strings.Repeat("ä", 5)+"..." {
		t.Errorf("%q", got)
	}
}

func FuzzCleanIsVisibleValidAndBounded(f *testing.F) {
	f.Add("\x1b]\x1b[\u202e")
	f.Fuzz(func(t *testing.T, s string) {
		got := clean(s, 64)
		if len(got) > 64+3+len("[redacted]") || !utf8.ValidString(got) {
			t.Errorf("%q", got)
		}
		for _, r := range got {
			if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) {
				t.Errorf("%q has %U", got, r)
			}
		}
	})
}

func TestCleanValue(t *testing.T) {
	for _, c := range []struct{ key, in, want string }{
		{"Description", `{"t":"s","v":"Web\u001b[1m server"}`, `{"t":"s","v":"Web server"}`},
		{"Environment", `{"t":"as","v":["A=b"]}`, `"[redacted]"`},
		{"", `{"802-11-wireless-security":{"psk":{"t":"s","v":"x"},"key-mgmt":{"t":"s","v":"wpa-psk"}}}`, `{"802-11-wireless-security":{"key-mgmt":{"t":"s","v":"wpa-psk"},"psk":"[redacted]"}}`},
		{"", `[["Password",{"t":"s","v":"x"}],["Environment",{"t":"as","v":["B=c"]}],["Count",3]]`, `[["Password","[redacted]"],["Environment","[redacted]"],["Count",3]]`},
		{"HasPassword", `true`, `true`},
		{"", `18446744073709551615`, `18446744073709551615`},
		{"", `"` + strings.Repeat("x", maxValue) + `"`, `{"bytes":32770,"left_out":"the value is too long"}`},
	} {
		got, err := json.Marshal(cleanValue(json.RawMessage(c.in), c.key))
		if err != nil || string(got) != c.want {
			t.Errorf("%.60s: %.200s, %v; want %s", c.in, got, err, c.want)
		}
	}
}
