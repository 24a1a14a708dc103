package ovsdb

import (
	"bufio"
	"fmt"
)

// MaxMessage is how long a message may be, in bytes.
const MaxMessage = 64 << 20

// frame reads one JSON object. The protocol has no newlines between messages
// and no lengths: an object ends where its braces close.
func frame(r *bufio.Reader, limit int) ([]byte, error) {
	var b []byte
	depth, inString, escaped := 0, false, false
	for {
		c, err := r.ReadByte()
		if err != nil {
			return nil, err
		}
		if depth == 0 && c != '{' {
			switch c {
			case ' ', '\t', '\r', '\n':
				continue
			}
			return nil, fmt.Errorf("a message begins with %q", c)
		}
		if len(b) == limit {
			return nil, fmt.Errorf("a message is longer than %d bytes", limit)
		}
		b = append(b, c)
		switch {
		case inString:
			switch {
			case escaped:
				escaped = false
			case c == '\\':
				escaped = true
			case c == '"':
				inString = false
			}
		case c == '"':
			inString = true
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			if depth--; depth == 0 {
				return b, nil
			}
		}
	}
}
