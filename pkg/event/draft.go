package event

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A Draft is a producer's line that the log takes, not yet stamped.
type Draft struct {
	inner []byte // the producer's keys, without braces
	data  [3]int // where data's key and value start and its value ends in inner
	has   keySet

	Source string
	Type   string
	Time   time.Time // the producer's claim, zero if it made none
}

// A Stamp is what the log adds to a draft.
type Stamp struct {
	Index int64
	At    time.Time
	Peer  Peer
	Host  string // for drafts without one

	shared []byte // what appendShared appends, if Share was called
}

// Share returns s ready for many drafts that differ in their Index only: what
// their lines have in common is made once, in buf's memory.
func (s Stamp) Share(buf []byte) Stamp {
	s.shared = s.appendShared(buf[:0])
	return s
}

// appendShared appends what stands in a line between its index and its draft.
func (s Stamp) appendShared(dst []byte) []byte {
	dst = append(dst, stampAt...)
	dst = appendTime(dst, s.At)
	dst = append(dst, `","peer":{"uid":`...)
	dst = strconv.AppendUint(dst, uint64(s.Peer.UID), 10)
	if s.Peer.Unit != "" {
		dst = append(dst, `,"unit":`...)
		dst = appendString(dst, s.Peer.Unit)
	}
	return append(dst, `},`...)
}

const stampAt = `,"at":"`

// Line returns the producer's line again, as one object.
func (d Draft) Line() []byte { return fmt.Appendf(nil, "{%s}", d.inner) }

// Len returns the length of the producer's part of the line.
func (d Draft) Len() int { return len(d.inner) }

var errTooLong = errors.New("stored line too long")

// Parse reads a producer's line. The Draft refers to line's bytes.
func (p *Parser) Parse(line []byte) (Draft, error) {
	d, err := p.draft(line)
	if err != nil {
		return Draft{}, err
	}
	if d.Type == "log" || strings.HasPrefix(d.Type, "log.") {
		return Draft{}, fmt.Errorf("type %q is the log's own", d.Type)
	}
	return d, nil
}

// Own makes the draft of one of the log's own events, type log.*; data is
// marshalled with encoding/json.
func Own(typ string, severity Severity, message string, data any) (Draft, error) {
	line, err := json.Marshal(struct {
		Source   string `json:"source"`
		Type     string `json:"type"`
		Severity string `json:"severity"`
		Message  string `json:"message"`
		Data     any    `json:"data,omitempty"`
	}{"log", typ, severity.String(), message, data})
	if err != nil {
		return Draft{}, fmt.Errorf("event %s: %w", typ, err)
	}
	var p Parser
	return p.draft(line)
}

func (p *Parser) draft(line []byte) (Draft, error) {
	if len(line) > MaxInput {
		return Draft{}, fmt.Errorf("line of %d bytes, more than %d", len(line), MaxInput)
	}
	f, inner, err := p.parse(line, producerKeys)
	if err != nil {
		return Draft{}, err
	}
	d := Draft{inner: inner, data: p.data}
	for k, v := range f {
		if v == nil {
			continue
		}
		d.has |= 1 << k
		if key(k) == keyData {
			if v[0] != '{' {
				return Draft{}, errors.New("data is not an object")
			}
		} else if v[0] != '"' {
			return Draft{}, fmt.Errorf("%s is not a string", keyNames[k])
		}
	}
	for _, k := range [...]key{keySource, keyType} {
		if f[k] == nil {
			return Draft{}, fmt.Errorf("%s is missing", keyNames[k])
		}
		if err := checkName(unquote(f[k])); err != nil {
			return Draft{}, fmt.Errorf("%s %w", keyNames[k], err)
		}
	}
	if f[keyMessage] == nil && f[keyData] == nil {
		return Draft{}, errors.New("message and data are missing, one is required")
	}
	d.Source, d.Type = unquote(f[keySource]), unquote(f[keyType])
	if f[keySeverity] != nil {
		if _, err := ParseSeverity(unquote(f[keySeverity])); err != nil {
			return Draft{}, err
		}
	}
	if f[keyTime] != nil {
		if d.Time, err = parseTime(f[keyTime]); err != nil {
			return Draft{}, fmt.Errorf("time: %w", err)
		}
	}
	return d, nil
}

func checkName(s string) error {
	if s == "" {
		return errors.New("is empty")
	}
	if len(s) > 128 {
		return errors.New("is longer than 128 bytes")
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte("._-:/@+", c) >= 0:
		default:
			return fmt.Errorf("%q has a character other than letters, digits and ._-:/@+", s)
		}
	}
	return nil
}

// Append appends the stored line of d, without a newline, to dst. On an error
// (the line would pass MaxLine) dst is returned unchanged.
func (d Draft) Append(dst []byte, s Stamp) ([]byte, error) {
	start := len(dst)
	dst = append(dst, `{"i":`...)
	dst = strconv.AppendInt(dst, s.Index, 10)
	shared := len(dst)
	if s.shared != nil {
		dst = append(dst, s.shared...)
	} else {
		dst = s.appendShared(dst)
	}
	dst = append(dst, d.inner...)
	if d.has&(1<<keyTime) == 0 {
		at := dst[shared+len(stampAt):]
		dst = append(dst, `,"time":"`...)
		dst = append(dst, at[:bytes.IndexByte(at, '"')+1]...)
	}
	if d.has&(1<<keyHost) == 0 {
		dst = append(dst, `,"host":`...)
		dst = appendString(dst, s.Host)
	}
	if d.has&(1<<keySeverity) == 0 {
		dst = append(dst, `,"severity":"info"`...)
	}
	if d.has&(1<<keyActor) == 0 {
		dst = append(dst, `,"actor":"uid:`...)
		dst = strconv.AppendUint(dst, uint64(s.Peer.UID), 10)
		dst = append(dst, '"')
	}
	dst = appendCRC(dst, start)
	if n := len(dst) - start; n > MaxLine {
		return dst[:start], fmt.Errorf("%w: %d bytes, more than %d", errTooLong, n, MaxLine)
	}
	return dst, nil
}

// TooLong says whether err means that a stored line would pass MaxLine.
func TooLong(err error) bool { return errors.Is(err, errTooLong) }

// Externalize returns d with its data moved out of the line, and that data,
// which the caller must make durable under its SHA-256 before it stores the
// line. ok is false if d has no data to move.
func (d Draft) Externalize() (moved Draft, data []byte, ok bool) {
	if d.has&(1<<keyData) == 0 {
		return d, nil, false
	}
	data = d.inner[d.data[1]:d.data[2]]
	sum := sha256.Sum256(data)
	moved = d
	moved.inner = fmt.Appendf(nil, `%s"blob":{"sha256":"%x","size":%d}%s`, d.inner[:d.data[0]], sum, len(data), d.inner[d.data[2]:])
	moved.has = d.has&^(1<<keyData) | 1<<keyBlob
	return moved, data, true
}

// appendTime appends t in TimeFormat, in a third of the time that AppendFormat
// takes.
func appendTime(dst []byte, t time.Time) []byte {
	t = t.UTC()
	year, month, day := t.Date()
	if year < 0 || year > 9999 {
		return t.AppendFormat(dst, TimeFormat)
	}
	hour, minute, second := t.Clock()
	digits := func(n, width int) {
		at := len(dst)
		dst = append(dst, "000000000"[:width]...)
		for i := at + width - 1; n > 0; i-- {
			dst[i] = byte('0' + n%10)
			n /= 10
		}
	}
	digits(year, 4)
	dst = append(dst, '-')
	digits(int(month), 2)
	dst = append(dst, '-')
	digits(day, 2)
	dst = append(dst, 'T')
	digits(hour, 2)
	dst = append(dst, ':')
	digits(minute, 2)
	dst = append(dst, ':')
	digits(second, 2)
	dst = append(dst, '.')
	digits(t.Nanosecond(), 9)
	return append(dst, 'Z')
}

// appendString appends s as JSON, with bytes that are no UTF-8 replaced.
func appendString(dst []byte, s string) []byte {
	if plain(s) {
		dst = append(dst, '"')
		dst = append(dst, s...)
		return append(dst, '"')
	}
	b, err := json.Marshal(strings.ToValidUTF8(s, "\uFFFD"))
	if err != nil { // a string always marshals
		return append(dst, `""`...)
	}
	return append(dst, b...)
}

// plain says whether s stands in JSON as it is.
func plain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c > 0x7e || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			return false
		}
	}
	return true
}
