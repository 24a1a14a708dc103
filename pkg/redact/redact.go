// Package redact blacks out secrets in texts that others wrote: values after
// names such as password, token or api_key, the credentials of Authorization
// headers and of URLs, private keys in PEM, JSON Web Tokens, and keys that are
// known by how they begin. It errs towards blacking out.
//
// BUG: a secret that nothing marks as one, as in "use hunter2 to log in", is
// not found.
package redact

import (
	"strings"
)

// Mark stands where a secret was.
const Mark = "[redacted]"

// names are how secrets are called, in lower case without separators.
var names = []string{"password", "passwd", "passphrase", "secret", "token", "apikey", "accesskey", "privatekey", "credential", "authorization",
	"cookie", "pwd", "psk", "sessionid", "presharedkey", "encryptionkey"}

// prefixes begin keys of well-known issuers; the number is the least length.
var prefixes = []struct {
	text string
	size int
}{{"AKIA", 20}, {"ASIA", 20}, {"ghp_", 30}, {"gho_", 30}, {"ghs_", 30}, {"github_pat_", 30}, {"glpat-", 20}, {"xoxb-", 20}, {"xoxp-", 20}, {"sk-", 24},
	{"eyJ", 15}, {"AGE-SECRET-KEY-", 40}, {"hf_", 30}, {"AIza", 35}}

// Text returns s with its secrets replaced by Mark, s itself if it has none.
func Text(s string) string {
	if !suspicious(s) {
		return s
	}
	var out strings.Builder
	last := 0
	cut := func(from, to int) {
		if from < last || from >= to {
			return
		}
		out.WriteString(s[last:from])
		out.WriteString(Mark)
		last = to
	}
	for i := 0; i < len(s); {
		switch {
		case strings.HasPrefix(s[i:], "-----BEGIN ") && strings.Contains(line(s[i:]), "PRIVATE KEY"):
			from := i + len(line(s[i:]))
			to := len(s)
			if end := strings.Index(s[from:], "-----END"); end >= 0 {
				to = from + end
			}
			cut(from, to)
			i = to + 1
		case i > 0 && s[i] == ':' && strings.HasPrefix(s[i:], "://"):
			rest := s[i+3:]
			if stop := strings.IndexAny(rest, "/ \t\n\"'"); stop >= 0 {
				rest = rest[:stop]
			}
			if at := strings.LastIndexByte(rest, '@'); at > 0 {
				if colon := strings.IndexByte(rest[:at], ':'); colon >= 0 {
					cut(i+3+colon+1, i+3+at)
				}
			}
			i += 3
		case wordByte(s[i]):
			end := i
			for end < len(s) && (wordByte(s[end]) || s[end] == '-') {
				end++
			}
			w := s[i:end]
			if issued(w) {
				for end < len(s) && (wordByte(s[end]) || s[end] == '-' || s[end] == '.') {
					end++
				}
				cut(i, end)
			} else if secret(w) {
				if from, to := value(s, end); to > from {
					cut(from, to)
					end = max(end, to)
				}
			}
			i = end
		default:
			i++
		}
	}
	if last == 0 {
		return s
	}
	out.WriteString(s[last:])
	return out.String()
}

// suspicious is a quick look whether there is anything to look at.
func suspicious(s string) bool {
	if strings.ContainsAny(s, "=:\"") || strings.Contains(s, "-----BEGIN") {
		return true
	}
	for _, p := range prefixes {
		if strings.Contains(s, p.text) {
			return true
		}
	}
	return false
}

func line(s string) string {
	if i := strings.IndexByte(s, '\n'); i >= 0 {
		return s[:i]
	}
	return s
}

func wordByte(c byte) bool {
	return 'a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9' || c == '_'
}

func issued(w string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(w, p.text) && len(w) >= p.size {
			return true
		}
	}
	return false
}

// secret says whether w names a secret: it ends in one of the names.
func secret(w string) bool {
	if len(w) < 3 || len(w) > 64 {
		return false
	}
	var buf [64]byte
	n := 0
	for i := range len(w) {
		if c := w[i]; c != '_' && c != '-' {
			if 'A' <= c && c <= 'Z' {
				c |= 0x20
			}
			buf[n] = c
			n++
		}
	}
	low := string(buf[:n])
	for _, name := range names {
		if strings.HasSuffix(low, name) || strings.HasSuffix(low, name+"s") {
			return true
		}
	}
	return false
}

// value returns where the value stands that follows a name which ends at i:
// after = or :, maybe in quotes, maybe after an authentication scheme.
func value(s string, i int) (from, to int) {
	skip := func(set string) bool {
		was := i
		for i < len(s) && strings.IndexByte(set, s[i]) >= 0 {
			i++
		}
		return i > was
	}
	skip(`"'\ `)
	if i >= len(s) || s[i] != '=' && s[i] != ':' {
		return 0, 0
	}
	i++
	skip(" \t\\")
	if i < len(s) && (s[i] == '"' || s[i] == '\'') {
		q, escaped := s[i], s[i-1] == '\\'
		from = i + 1
		for to = from; to < len(s) && s[to] != q; to++ {
			if s[to] == '\\' {
				if escaped && to+1 < len(s) && s[to+1] == q { // JSON within a string
					break
				}
				to++
			}
		}
		return from, min(to, len(s))
	}
	from = i
	end := func() {
		for to = i; to < len(s) && strings.IndexByte(" \t\r\n,;&\"'<>)}]", s[to]) < 0; to++ {
		}
	}
	end()
	switch strings.ToLower(s[from:to]) {
	case "bearer", "basic", "digest", "token", "negotiate":
		if to < len(s) && s[to] == ' ' {
			i = to + 1
			from = i
			end()
		}
	}
	return from, to
}
