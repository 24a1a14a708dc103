package event

import (
	"bytes"
	"errors"
	"time"
)

var errSkim = errors.New("stored line is not an object with time and at")

// Times returns the times time and at of a stored line. It trusts the line,
// as one that Parse took and Check passed may be trusted, and looks at nothing
// else: it is for those who read millions of lines. A line that is not what it
// trusts in gives an error or a wrong time, never a panic.
func Times(line []byte) (claimed, at time.Time, err error) {
	var quotedTime, quotedAt []byte
	for pos := 1; pos < len(line) && (quotedTime == nil || quotedAt == nil); {
		for pos < len(line) && (line[pos] == ' ' || line[pos] == '\t' || line[pos] == ',' || line[pos] == '\r') {
			pos++
		}
		name, next := skimValue(line, pos)
		for next < len(line) && line[next] != ':' {
			next++
		}
		for next++; next < len(line) && (line[next] == ' ' || line[next] == '\t' || line[next] == '\r'); {
			next++
		}
		if next >= len(line) {
			break
		}
		var value []byte
		value, pos = skimValue(line, next)
		switch {
		case len(value) < 2 || value[0] != '"':
		case string(name) == `"at"`:
			quotedAt = value
		case string(name) == `"time"`, bytes.IndexByte(name, '\\') >= 0 && unquote(name) == "time":
			quotedTime = value
		}
	}
	if quotedTime == nil || quotedAt == nil {
		return claimed, at, errSkim
	}
	if claimed, err = parseTime(quotedTime); err != nil {
		return claimed, at, err
	}
	at, err = parseTime(quotedAt)
	return claimed, at, err
}

// skimValue returns the value that starts at line[pos], and where it ends.
func skimValue(line []byte, pos int) ([]byte, int) {
	start, depth := pos, 0
	for pos < len(line) {
		switch c := line[pos]; c {
		case '"':
			pos++
			for pos < len(line) {
				q := bytes.IndexByte(line[pos:], '"')
				if q < 0 {
					return line[start:], len(line)
				}
				pos += q
				slashes := 0
				for line[pos-1-slashes] == '\\' {
					slashes++
				}
				pos++
				if slashes%2 == 0 {
					break
				}
			}
			if depth == 0 {
				return line[start:pos], pos
			}
		case '{', '[':
			depth++
			pos++
		case '}', ']':
			if depth == 0 {
				return line[start:pos], pos + 1
			}
			depth--
			pos++
			if depth == 0 {
				return line[start:pos], pos
			}
		case ',', ':':
			if depth == 0 {
				return line[start:pos], pos
			}
			pos++
		default:
			pos++
		}
	}
	return line[start:], len(line)
}

// A TimeReader reads the times of one stored line after another, quicker than
// Times: events that were written together have the same ones. It is for one
// goroutine; the zero value is ready.
type TimeReader struct {
	quotedTime, quotedAt []byte // as they stood in the line before
	claimed, at          time.Time

	// suffix is what stood in a line between the time that the log gave it and
	// its checksum: the host and so on. It has no escape and no bracket, so
	// that in a line of JSON which ends with it the time before it is the
	// line's own.
	suffix []byte
}

// Times is the function Times.
func (r *TimeReader) Times(line []byte) (claimed, at time.Time, err error) {
	if len(r.suffix) > 0 && len(r.quotedAt) > 0 && r.given(line) {
		return r.at, r.at, nil
	}
	quotedTime, quotedAt, ok := plainTimes(line)
	if !ok {
		return Times(line)
	}
	if !bytes.Equal(quotedAt, r.quotedAt) {
		if r.at, err = parseTime(quotedAt); err != nil {
			r.quotedAt = nil
			return claimed, at, err
		}
		r.quotedAt = append(r.quotedAt[:0], quotedAt...)
	}
	if bytes.Equal(quotedTime, quotedAt) {
		r.learn(line, quotedTime)
		return r.at, r.at, nil
	}
	if !bytes.Equal(quotedTime, r.quotedTime) {
		if r.claimed, err = parseTime(quotedTime); err != nil {
			r.quotedTime = nil
			return claimed, at, err
		}
		r.quotedTime = append(r.quotedTime[:0], quotedTime...)
	}
	return r.claimed, r.at, nil
}

// crcValue is what a line ends with behind its checksum's key.
const crcValue = len(`00000000"}`)

const timeKey = `,"time":`

// given says whether line has the at of the line before, and ends with that as
// its time and with suffix.
func (r *TimeReader) given(line []byte) bool {
	const atKey = `,"at":`
	comma := bytes.IndexByte(line, ',')
	n := len(line) - crcValue - len(r.suffix) - len(r.quotedAt) - len(timeKey)
	if comma < 0 || n < comma+len(atKey)+len(r.quotedAt) {
		return false
	}
	head, tail := line[comma:], line[n:]
	return string(head[:len(atKey)]) == atKey && bytes.Equal(head[len(atKey):len(atKey)+len(r.quotedAt)], r.quotedAt) &&
		string(tail[:len(timeKey)]) == timeKey && bytes.Equal(tail[len(timeKey):len(timeKey)+len(r.quotedAt)], r.quotedAt) &&
		bytes.Equal(tail[len(timeKey)+len(r.quotedAt):len(tail)-crcValue], r.suffix)
}

// learn takes the suffix of a line of which quotedTime is a part.
func (r *TimeReader) learn(line, quotedTime []byte) {
	end := cap(line) - cap(quotedTime) + len(quotedTime) // quotedTime is a part of line
	if end > len(line)-crcValue {
		return
	}
	suffix := line[end : len(line)-crcValue]
	if !bytes.ContainsAny(suffix, `\{}[]`) {
		r.suffix = append(r.suffix[:0], suffix...)
	}
}

// plainTimes finds both times in a line in which no escape can hide a key and
// "time" stands once: then it is the key that every line has. ok is false for
// all other lines.
func plainTimes(line []byte) (quotedTime, quotedAt []byte, ok bool) {
	comma := bytes.IndexByte(line, ',')
	if comma < 0 || bytes.IndexByte(line, '\\') >= 0 {
		return nil, nil, false
	}
	const key = `,"at":`
	rest := line[comma:]
	if len(rest) < len(key)+2 || string(rest[:len(key)]) != key || rest[len(key)] != '"' {
		return nil, nil, false
	}
	rest = rest[len(key):]
	end := bytes.IndexByte(rest[1:], '"')
	if end < 0 {
		return nil, nil, false
	}
	quotedAt = rest[:end+2]
	// The search begins with a letter that is rarer than a quote.
	found := -1
	for pos := comma; ; {
		m := bytes.Index(line[pos:], timeMark)
		if m < 0 {
			break
		}
		pos += m
		if pos >= 3 && string(line[pos-3:pos]) == `"ti` {
			if found >= 0 {
				return nil, nil, false
			}
			found = pos + len(timeMark)
		}
		pos += len(timeMark)
	}
	if found < 0 || found+2 >= len(line) || line[found] != ':' || line[found+1] != '"' {
		return nil, nil, false
	}
	rest = line[found+1:]
	if end = bytes.IndexByte(rest[1:], '"'); end < 0 {
		return nil, nil, false
	}
	return rest[:end+2], quotedAt, true
}

var timeMark = []byte(`me"`)
