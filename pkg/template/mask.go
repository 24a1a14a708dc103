// Package template finds what is constant in log lines: it masks the values in
// a line, and groups masked lines that differ in a few words.
//
// Mask replaces values by placeholders: <time>, <uuid>, <mac>, <ip>, <path>,
// <str>, <hex> and <num>. It looks at one line alone and keeps no state, so
// that the same line gives the same masked line everywhere; ids may be made
// from it. How it masks is fixed by Version.
//
// Drain groups masked lines (He et al., "Drain: An Online Log Parsing Approach
// with Fixed Depth Tree", ICWS 2017). What it says of a line depends on the
// lines before it, so it is for showing, never for ids.
package template

import (
	"net/netip"
	"strings"
)

// Version changes whenever Mask gives another result for some line.
const Version = 1

// A Kind says what a value is.
type Kind uint8

// The kinds of values, in the order in which they are tried.
const (
	String Kind = iota // quoted text, without the quotes
	Time               // date, time of day, RFC 3339 time
	UUID
	MAC
	IP   // IPv4 or IPv6 address, also with a prefix length or port
	Path // file path or URL
	Hex  // 0x and hex digits, or at least 8 hex digits of which one is a letter and one a digit
	Number
	Name // a word that has numbers within: eth0, nginx-2.service
)

var placeholders = [...]string{"<str>", "<time>", "<uuid>", "<mac>", "<ip>", "<path>", "<hex>", "<num>"}

// A Param is a value of a line.
type Param struct {
	Kind  Kind
	Value string
}

// maxQuoted is the longest quoted text that is taken for one value.
const maxQuoted = 512

// keep are words with digits that name a thing, not one of many.
var keep = func() map[string]bool {
	m := make(map[string]bool)
	for _, w := range strings.Fields(`ext2 ext3 ext4 ipv4 ipv6 ip4 ip6 ip6tables dhcp4 dhcp6 dhcpv4 dhcpv6 md5 sha1 sha256 sha512 x86 x86_64
		amd64 arm64 i386 i686 utf8 http2 base64 ed25519 raid0 raid1 raid5 raid6 raid10 ntfs3 nfs3 nfs4 nfsv3 nfsv4 smb2 smb3 usb2 usb3 oauth2 ieee80211 80211 ssh2
		l2 l3 v4 v6 python3 perl5 udp4 udp6 tcp4 tcp6 edns0 systemd1 login1 hostname1 timedate1 network1 resolve1 machine1 policykit1 udisks2 jbd2 fletcher4 crc32c
		x509 pkcs11 s3 k8s ec2 io1 igmp3 mldv2 ipv6ll icmp6 icmpv6`) {
		m[w] = true
	}
	return m
}()

// Mask appends the masked form of line to dst and the values that it masked to
// params. Control characters and runs of white space become one space.
// Work and memory are proportional to the line.
func Mask(dst []byte, params []Param, line string) ([]byte, []Param) {
	start := len(dst)
	for i := 0; i < len(line); {
		c := line[i]
		switch {
		case c <= ' ' || c == 0x7f:
			if len(dst) > start && dst[len(dst)-1] != ' ' {
				dst = append(dst, ' ')
			}
			i++
		case (c == '"' || c == '\'' || c == '`') && (i == 0 || !wordByte(line[i-1])):
			if end := quoted(line, i); end > 0 {
				if v := line[i+1 : end]; v != "" {
					params = append(params, Param{String, v})
					dst = append(dst, c)
					dst = append(dst, placeholders[String]...)
				} else {
					dst = append(dst, c)
				}
				dst = append(dst, line[end])
				i = end + 1
				continue
			}
			dst = append(dst, c)
			i++
		case delimiter(c):
			dst = append(dst, c)
			i++
		default:
			end := i + 1
			for end < len(line) && line[end] > ' ' && line[end] != 0x7f && !delimiter(line[end]) && line[end] != '"' {
				end++
			}
			dst, params = word(dst, params, line[i:end])
			i = end
		}
	}
	if len(dst) > start && dst[len(dst)-1] == ' ' {
		dst = dst[:len(dst)-1]
	}
	return dst, params
}

// quoted returns where the quote that begins at i ends, 0 if it does not.
func quoted(line string, i int) int {
	q := line[i]
	closing := q
	if q == '`' {
		closing = '\'' // as older GNU programs quote
	}
	for j := i + 1; j < len(line) && j-i <= maxQuoted; j++ {
		switch line[j] {
		case '\\':
			j++
		case '\n':
			return 0
		case closing, q:
			if q == '\'' && j+1 < len(line) && wordByte(line[j+1]) {
				continue // it's, don't
			}
			return j
		}
	}
	return 0
}

func delimiter(c byte) bool {
	switch c {
	case ',', ';', '(', ')', '[', ']', '{', '}', '=', '<', '>', '|', '@', '?', '&', '!', '$', '*', '`', '#':
		return true
	}
	return false
}

func wordByte(c byte) bool { return letter(c) || digit(c) || c == '_' || c >= 0x80 }
func letter(c byte) bool   { return 'a' <= c|0x20 && c|0x20 <= 'z' }
func digit(c byte) bool    { return '0' <= c && c <= '9' }
func hexDigit(c byte) bool { return digit(c) || 'a' <= c|0x20 && c|0x20 <= 'f' }

// word masks w, which has no white space and no delimiter.
func word(dst []byte, params []Param, w string) ([]byte, []Param) {
	core := strings.TrimRight(w, `.:'"-`)
	if strings.HasSuffix(w, "::") && len(core) < len(w) {
		core = strings.TrimRight(w, `.'"-`) // fe80::
	}
	head := core[:len(core)-len(strings.TrimLeft(core, `'"+-`))]
	core = core[len(head):]
	tail := w[len(head)+len(core):]
	dst = append(dst, head...)
	if kind, rest, ok := whole(core); ok {
		params = append(params, Param{kind, core[:len(core)-len(rest)]})
		dst = append(dst, placeholders[kind]...)
		if rest != "" {
			dst = append(dst, ":<num>"...)
			params = append(params, Param{Number, rest[1:]})
		}
		return append(dst, tail...), params
	}
	if !strings.ContainsAny(core, "0123456789") {
		return append(append(dst, core...), tail...), params
	}
	before := len(dst)
	dst, n, only := parts(dst, core)
	switch {
	case n == 0:
	case only:
		kind := Number
		if string(dst[before:]) == placeholders[Hex] {
			kind = Hex
		}
		params = append(params, Param{kind, core})
	default:
		params = append(params, Param{Name, core})
	}
	return append(dst, tail...), params
}

// whole recognises a word that is one value as it stands; rest is a port that
// follows an address.
func whole(w string) (kind Kind, rest string, ok bool) {
	if len(w) < 2 {
		return 0, "", false
	}
	if w[0] == '/' || strings.HasPrefix(w, "~/") || strings.HasPrefix(w, "./") || strings.HasPrefix(w, "../") {
		return Path, "", strings.ContainsFunc(w, func(r rune) bool { return r != '/' && r != '.' })
	}
	if i := strings.Index(w, "://"); i > 0 && i < 16 && i+3 < len(w) {
		return Path, "", true
	}
	if !hexDigit(w[0]) && w[0] != ':' {
		return 0, "", false
	}
	switch {
	case isTime(w):
		return Time, "", true
	case isUUID(w):
		return UUID, "", true
	case isMAC(w):
		return MAC, "", true
	}
	if digit(w[0]) && strings.Count(w, ".") == 3 {
		addr := w
		if i := strings.IndexAny(w, ":/"); i > 0 {
			addr = w[:i]
			if w[i] == ':' {
				rest = w[i:]
			}
			if !digits(w[i+1:]) {
				return 0, "", false
			}
		}
		if a, err := netip.ParseAddr(addr); err == nil && a.Is4() {
			return IP, rest, true
		}
		return 0, "", false
	}
	if strings.Count(w, ":") >= 2 && len(w) <= 48 {
		addr, _, _ := strings.Cut(w, "/")
		if a, err := netip.ParseAddr(addr); err == nil && a.Is6() {
			return IP, "", true
		}
	}
	return 0, "", false
}

func digits(s string) bool {
	for i := range len(s) {
		if !digit(s[i]) {
			return false
		}
	}
	return s != ""
}

// like says whether s has the shape of pattern, in which 0 stands for a digit
// and x for a hex digit.
func like(s, pattern string) bool {
	if len(s) < len(pattern) {
		return false
	}
	for i := range len(pattern) {
		switch p := pattern[i]; {
		case p == '0' && digit(s[i]), p == 'x' && hexDigit(s[i]), p == s[i]:
		default:
			return false
		}
	}
	return true
}

func isTime(w string) bool {
	if like(w, "0000-00-00") || like(w, "0000/00/00") {
		if len(w) == 10 {
			return true
		}
		return (w[10] == 'T' || w[10] == '_') && isTime(w[11:])
	}
	if !like(w, "00:00:00") {
		return false
	}
	return strings.Trim(w[8:], "0123456789.,:+-Z") == "" && !strings.Contains(w[8:], "::") && strings.Count(w, ":") < 5
}

func isUUID(w string) bool {
	return len(w) == 36 && like(w, "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx")
}

func isMAC(w string) bool {
	return len(w) == 17 && (like(w, "xx:xx:xx:xx:xx:xx") || like(w, "xx-xx-xx-xx-xx-xx"))
}

// parts masks the numbers within a word. n is how many there were; only says
// that the word is nothing but one.
func parts(dst []byte, w string) (_ []byte, n int, only bool) {
	for i := 0; i < len(w); {
		if !letter(w[i]) && !digit(w[i]) {
			dst = append(dst, w[i])
			i++
			continue
		}
		end := i + 1
		for end < len(w) && (letter(w[end]) || digit(w[end]) || w[end] == '_' && end+1 < len(w) && keep[strings.ToLower(w[i:min(end+3, len(w))])]) {
			end++
		}
		part := w[i:end]
		switch {
		case !strings.ContainsAny(part, "0123456789"), len(part) <= 12 && keep[strings.ToLower(part)]:
			dst = append(dst, part...)
		case isHex(part):
			dst = append(dst, placeholders[Hex]...)
			n, only = n+1, n == 0 && len(part) == len(w)
		case digits(part):
			// 1.2.3 is one number.
			for end+1 < len(w) && w[end] == '.' && digit(w[end+1]) {
				next := end + 2
				for next < len(w) && digit(w[next]) {
					next++
				}
				if next < len(w) && letter(w[next]) {
					break
				}
				end = next
			}
			dst = append(dst, placeholders[Number]...)
			n, only = n+1, n == 0 && end-i == len(w)
		default:
			for j := 0; j < len(part); {
				if !digit(part[j]) {
					dst = append(dst, part[j])
					j++
					continue
				}
				for j < len(part) && digit(part[j]) {
					j++
				}
				dst = append(dst, placeholders[Number]...)
			}
			n++
		}
		i = end
	}
	return dst, n, only
}

func isHex(s string) bool {
	if len(s) > 2 && s[0] == '0' && s[1]|0x20 == 'x' {
		s = s[2:]
		for i := range len(s) {
			if !hexDigit(s[i]) {
				return false
			}
		}
		return true
	}
	if len(s) < 8 {
		return false
	}
	letters, numbers := false, false
	for i := range len(s) {
		if !hexDigit(s[i]) {
			return false
		}
		if digit(s[i]) {
			numbers = true
		} else {
			letters = true
		}
	}
	return letters && numbers
}
