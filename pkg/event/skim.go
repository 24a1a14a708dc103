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
