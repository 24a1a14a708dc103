// Package event is the line format of the log: one JSON object a line.
//
// A producer gives a line with these keys, of which source, type and one of
// message and data are required:
//
//	time      string, RFC 3339 with at most 9 fractional digits; the producer's claim
//	host      string
//	source    string, 1 to 128 bytes of letters, digits and ._-:/@+
//	type      likewise, dotted: bridge.created; log and log.* are the log's alone
//	subject   string: what it happened to
//	severity  string, an RFC 5424 name (see Severity)
//	actor     string: who did it; the producer's claim
//	message   string, for people
//	data      object, for programs
//
// Any other key, a key that occurs twice in one object at any depth, a value
// of another type, text that is not UTF-8, and an escape of half a surrogate
// pair are refused, since two readers could see two different events in them.
//
// The log stores the producer's bytes as they came, between its own:
//
//	{"i":7,"at":"2026-01-02T03:04:05.000000006Z","peer":{"uid":0,"unit":"a.service"},<the producer's keys>,<what it left out>,"c":"89abcdef"}
//
// i is the index, at the log's clock, peer who wrote it as the kernel tells;
// what a producer leaves out of time, host, severity and actor is filled in
// behind its keys. Where data was too large for a line, "blob" stands in its
// place: {"sha256":"<hex>","size":<bytes>} names a file with the bytes of
// data. c is the CRC-32C (Castagnoli) of the line up to, not including,
// `,"c":`, as 8 lower-case hex digits. A stored line is at most MaxLine bytes
// without its newline and is never marshalled again.
//
// Compatibility: keys may be added to what the log writes; none is removed or
// changes its meaning.
package event

import (
	"encoding/json"
	"fmt"
	"hash/crc32"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// MaxLine is the length of the longest stored line, without its newline:
	// the largest entry of a C2SP tlog-tiles bundle.
	MaxLine = 65535

	// MaxInput is the length of the longest line that a producer may give.
	MaxInput = 16 << 20

	// MaxDepth is how deep objects and arrays may be nested in a line.
	MaxDepth = 256
)

// TimeFormat is how the log writes times: RFC 3339 in UTC with all nine
// digits, so that they sort as text.
const TimeFormat = "2006-01-02T15:04:05.000000000Z"

// A Peer is who wrote an event, as the kernel said.
type Peer struct {
	UID  uint32 `json:"uid"`
	Unit string `json:"unit,omitempty"` // systemd unit, if any
}

// A Blob names data that is kept outside of the line.
type Blob struct {
	SHA256 string `json:"sha256"` // lower-case hex
	Size   int64  `json:"size"`   // bytes
}

// An Event is a stored line, decoded.
type Event struct {
	Index    int64
	At       time.Time
	Peer     Peer
	Time     time.Time
	Host     string
	Source   string
	Type     string
	Subject  string
	Severity Severity
	Actor    string
	Message  string
	Data     json.RawMessage // nil if there is none
	Blob     *Blob           // set if data was moved out of the line
}

// A Severity is one of RFC 5424's eight, 0 the gravest.
type Severity int

// The severities of RFC 5424, section 6.2.1.
const (
	Emergency Severity = iota
	Alert
	Critical
	Error
	Warning
	Notice
	Info
	Debug
)

var severityNames = [...]string{"emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"}

// SeverityNames returns the short names, the gravest first.
func SeverityNames() []string { return slices.Clone(severityNames[:]) }

// String returns the short name, as syslog.h spells it.
func (s Severity) String() string {
	if s < 0 || int(s) >= len(severityNames) {
		return "severity(" + strconv.Itoa(int(s)) + ")"
	}
	return severityNames[s]
}

// ParseSeverity takes the names of syslog.h and of RFC 5424 itself.
func ParseSeverity(name string) (Severity, error) {
	switch name {
	case "emerg", "emergency":
		return Emergency, nil
	case "alert":
		return Alert, nil
	case "crit", "critical":
		return Critical, nil
	case "err", "error":
		return Error, nil
	case "warning", "warn":
		return Warning, nil
	case "notice":
		return Notice, nil
	case "info", "informational":
		return Info, nil
	case "debug":
		return Debug, nil
	}
	return 0, fmt.Errorf("severity %q: want emerg, alert, crit, err, warning, notice, info or debug", name)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const crcTail = len(`,"c":"01234567"}`)

// appendCRC closes the line that starts at dst[start:].
func appendCRC(dst []byte, start int) []byte {
	sum := crc32.Checksum(dst[start:], castagnoli)
	dst = append(dst, `,"c":"`...)
	const hex = "0123456789abcdef"
	for shift := 28; shift >= 0; shift -= 4 {
		dst = append(dst, hex[sum>>shift&15])
	}
	return append(dst, `"}`...)
}

// Close returns the stored line that begins with start, which is everything up
// to the checksum: for those who make lines to test a reader with.
func Close(start []byte) []byte { return appendCRC(start[:len(start):len(start)], 0) }

// Check does the cheap half of Decode: it says whether line is closed by its
// right CRC and starts with an index, and returns that index.
func Check(line []byte) (index int64, err error) {
	if len(line) > MaxLine {
		return 0, fmt.Errorf("line of %d bytes, more than %d", len(line), MaxLine)
	}
	n := len(line) - crcTail
	if n < 0 || string(line[n:n+6]) != `,"c":"` || string(line[len(line)-2:]) != `"}` {
		return 0, fmt.Errorf("line has no checksum at its end")
	}
	var want uint32
	for _, d := range line[n+6 : n+14] {
		switch {
		case d >= '0' && d <= '9':
			want = want<<4 | uint32(d-'0')
		case d >= 'a' && d <= 'f':
			want = want<<4 | uint32(d-'a'+10)
		default:
			return 0, fmt.Errorf("line has no checksum at its end")
		}
	}
	if crc32.Checksum(line[:n], castagnoli) != want {
		return 0, fmt.Errorf("checksum does not match the line")
	}
	return Index(line)
}

// Index returns the index that a stored line starts with. Unlike Check it does
// not compute the line's checksum: it is for those who compare its hash.
func Index(line []byte) (index int64, err error) {
	n := len(line)
	const head = `{"i":`
	if n < len(head) || string(line[:len(head)]) != head {
		return 0, fmt.Errorf("line does not start with its index")
	}
	pos := len(head)
	for pos < n && line[pos] >= '0' && line[pos] <= '9' {
		if pos-len(head) >= 18 || pos > len(head) && line[len(head)] == '0' {
			return 0, fmt.Errorf("line does not start with its index")
		}
		index = index*10 + int64(line[pos]-'0')
		pos++
	}
	if pos == len(head) || pos == n || line[pos] != ',' {
		return 0, fmt.Errorf("line does not start with its index")
	}
	return index, nil
}

// Decode checks a stored line (without its newline) and decodes it. The Event
// does not refer to line.
func Decode(line []byte) (*Event, error) {
	if _, err := Check(line); err != nil {
		return nil, err
	}
	var p Parser
	f, _, err := p.parse(line, storedKeys)
	if err != nil {
		return nil, err
	}
	for _, k := range [...]key{keyI, keyAt, keyTime, keyHost, keySource, keyType, keySeverity} {
		if f[k] == nil {
			return nil, fmt.Errorf("stored line has no %q", keyNames[k])
		}
	}
	e := &Event{
		Host: unquote(f[keyHost]), Source: unquote(f[keySource]), Type: unquote(f[keyType]),
		Subject: unquote(f[keySubject]), Actor: unquote(f[keyActor]), Message: unquote(f[keyMessage]),
	}
	if e.Index, err = strconv.ParseInt(string(f[keyI]), 10, 64); err != nil {
		return nil, fmt.Errorf("index: %w", err)
	}
	if e.At, err = parseTime(f[keyAt]); err != nil {
		return nil, fmt.Errorf("at: %w", err)
	}
	if e.Time, err = parseTime(f[keyTime]); err != nil {
		return nil, fmt.Errorf("time: %w", err)
	}
	if e.Severity, err = ParseSeverity(unquote(f[keySeverity])); err != nil {
		return nil, err
	}
	if f[keyPeer] != nil {
		if err := json.Unmarshal(f[keyPeer], &e.Peer); err != nil {
			return nil, fmt.Errorf("peer: %w", err)
		}
	}
	if f[keyData] != nil {
		e.Data = append(json.RawMessage{}, f[keyData]...)
	}
	if f[keyBlob] != nil {
		e.Blob = new(Blob)
		if err := json.Unmarshal(f[keyBlob], e.Blob); err != nil {
			return nil, fmt.Errorf("blob: %w", err)
		}
	}
	return e, nil
}

func parseTime(quoted []byte) (time.Time, error) {
	s := unquote(quoted)
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return t, fmt.Errorf("%q is not an RFC 3339 time", s)
	}
	// time.Parse also takes a comma, and digits beyond what it can hold.
	if len(s) > 19 && (s[19] == ',' || s[19] == '.' && len(strings.TrimLeft(s[20:], "0123456789")) < len(s)-20-9) {
		return t, fmt.Errorf("%q is not an RFC 3339 time in nanoseconds", s)
	}
	return t, nil
}
