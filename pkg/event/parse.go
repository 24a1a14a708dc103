package event

import (
	"bytes"
	"encoding/json"
	"fmt"
	"unicode/utf8"
)

type key int

const (
	keyI key = iota
	keyAt
	keyPeer
	keyTime
	keyHost
	keySource
	keyType
	keySubject
	keySeverity
	keyActor
	keyMessage
	keyData
	keyBlob
	keyC
	numKeys
)

var keyNames = [numKeys]string{"i", "at", "peer", "time", "host", "source", "type", "subject", "severity", "actor", "message", "data", "blob", "c"}

// keySet is a bit for each key.
type keySet uint32

const (
	producerKeys keySet = 1<<keyTime | 1<<keyHost | 1<<keySource | 1<<keyType | 1<<keySubject |
		1<<keySeverity | 1<<keyActor | 1<<keyMessage | 1<<keyData
	storedKeys keySet = 1<<numKeys - 1
)

// fields holds the raw value of each key, nil where it is absent.
type fields [numKeys][]byte

// A SyntaxError says where a line stops being JSON that the log takes.
type SyntaxError struct {
	Offset int // bytes into the line
	Reason string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("not JSON at byte %d: %s", e.Offset+1, e.Reason)
}

// A Parser reads lines. It keeps scratch space between them; the zero value
// is ready, and it is for one goroutine.
type Parser struct {
	line  []byte
	pos   int
	stack []container
	keys  [][]byte // keys of the open objects, decoded, innermost last
	data  [3]int   // where data's key and value start and its value ends in inner
}

// container is an open object or array.
type container struct {
	object bool
	first  int                 // index into Parser.keys of its first key
	set    map[string]struct{} // its keys, once there are many
}

// parse reads line, which must be one object with keys of allowed. inner is
// what stands between its braces, white space trimmed.
func (p *Parser) parse(line []byte, allowed keySet) (f fields, inner []byte, err error) {
	if !utf8.Valid(line) {
		for i := 0; i < len(line); {
			r, n := utf8.DecodeRune(line[i:])
			if r == utf8.RuneError && n == 1 {
				return f, nil, &SyntaxError{i, "invalid UTF-8"}
			}
			i += n
		}
	}
	p.line, p.pos, p.stack, p.keys = line, 0, p.stack[:0], p.keys[:0]
	defer func() { p.line = nil }()
	p.space()
	if p.pos == len(line) {
		return f, nil, &SyntaxError{p.pos, "empty line"}
	}
	if line[p.pos] != '{' {
		if err := p.value(); err != nil {
			return f, nil, err
		}
		return f, nil, fmt.Errorf("not an object")
	}
	p.pos++
	p.space()
	start := p.pos
	if p.peek() == '}' {
		p.pos++
	} else {
		for {
			p.space()
			keyStart := p.pos
			name, err := p.key()
			if err != nil {
				return f, nil, err
			}
			k := key(0)
			for k < numKeys && keyNames[k] != string(name) {
				k++
			}
			if k == numKeys || allowed&(1<<k) == 0 {
				return f, nil, fmt.Errorf("unknown key %q", clip(name))
			}
			if f[k] != nil {
				return f, nil, fmt.Errorf("duplicate key %q", name)
			}
			p.space()
			if p.peek() != ':' {
				return f, nil, p.unexpected("':'")
			}
			p.pos++
			p.space()
			from := p.pos
			if err := p.value(); err != nil {
				return f, nil, err
			}
			f[k] = line[from:p.pos:p.pos]
			if k == keyData {
				p.data = [3]int{keyStart - start, from - start, p.pos - start}
			}
			p.space()
			c := p.peek()
			p.pos++
			if c == '}' {
				break
			}
			if c != ',' {
				p.pos--
				return f, nil, p.unexpected("',' or '}'")
			}
		}
	}
	end := p.pos - 1
	p.space()
	if p.pos != len(line) {
		return f, nil, &SyntaxError{p.pos, "more after the object"}
	}
	return f, bytes.TrimRight(line[start:end], " \t\r\n"), nil
}

func clip(b []byte) []byte {
	if len(b) > 64 {
		b = b[:64]
	}
	return b
}

func (p *Parser) space() {
	for p.pos < len(p.line) {
		switch p.line[p.pos] {
		case ' ', '\t', '\r', '\n':
			p.pos++
		default:
			return
		}
	}
}

// peek returns the next byte, 0 at the end of the line.
func (p *Parser) peek() byte {
	if p.pos < len(p.line) {
		return p.line[p.pos]
	}
	return 0
}

func (p *Parser) unexpected(want string) error {
	if p.pos >= len(p.line) {
		return &SyntaxError{p.pos, "ends before " + want}
	}
	r, _ := utf8.DecodeRune(p.line[p.pos:])
	return &SyntaxError{p.pos, fmt.Sprintf("%q where %s should be", r, want)}
}

// value skips one value of any kind. It keeps its own stack, so that nesting
// costs memory in proportion to the line and never the goroutine's stack.
func (p *Parser) value() error {
	base := len(p.stack)
	for {
		// One value, or the opening of a container.
		switch c := p.peek(); {
		case c == '"':
			if _, err := p.str(); err != nil {
				return err
			}
		case c == '{' || c == '[':
			p.pos++
			if len(p.stack) >= MaxDepth-1 {
				return fmt.Errorf("nested deeper than %d", MaxDepth)
			}
			p.stack = append(p.stack, container{object: c == '{', first: len(p.keys)})
			p.space()
			if c == '[' {
				if p.peek() != ']' {
					continue
				}
				p.pos++
				p.close()
				break
			}
			if p.peek() != '}' {
				if err := p.member(); err != nil {
					return err
				}
				continue
			}
			p.pos++
			p.close()
		case c == '-' || c >= '0' && c <= '9':
			if err := p.number(); err != nil {
				return err
			}
		default:
			if err := p.literal(); err != nil {
				return err
			}
		}
		// What follows it, closing what ends here.
		for {
			if len(p.stack) == base {
				return nil
			}
			top := &p.stack[len(p.stack)-1]
			p.space()
			switch c := p.peek(); {
			case c == ',':
				p.pos++
				p.space()
				if top.object {
					if err := p.member(); err != nil {
						return err
					}
				}
			case c == '}' && top.object, c == ']' && !top.object:
				p.pos++
				p.close()
				continue
			case top.object:
				return p.unexpected("',' or '}'")
			default:
				return p.unexpected("',' or ']'")
			}
			break
		}
	}
}

func (p *Parser) close() {
	p.keys = p.keys[:p.stack[len(p.stack)-1].first]
	p.stack = p.stack[:len(p.stack)-1]
}

// member reads a key and its colon in the innermost object.
func (p *Parser) member() error {
	name, err := p.key()
	if err != nil {
		return err
	}
	top := &p.stack[len(p.stack)-1]
	mine := p.keys[top.first:]
	switch {
	case top.set != nil:
		if _, twice := top.set[string(name)]; twice {
			return fmt.Errorf("duplicate key %q", clip(name))
		}
		top.set[string(name)] = struct{}{}
	default:
		for _, k := range mine {
			if bytes.Equal(k, name) {
				return fmt.Errorf("duplicate key %q", clip(name))
			}
		}
		p.keys = append(p.keys, name)
		if len(mine) >= 32 {
			top.set = make(map[string]struct{}, 128)
			for _, k := range p.keys[top.first:] {
				top.set[string(k)] = struct{}{}
			}
		}
	}
	p.space()
	if p.peek() != ':' {
		return p.unexpected("':'")
	}
	p.pos++
	p.space()
	return nil
}

// key reads a string and returns what it stands for.
func (p *Parser) key() ([]byte, error) {
	if p.peek() != '"' {
		return nil, p.unexpected("a key")
	}
	raw, err := p.str()
	if err != nil {
		return nil, err
	}
	if bytes.IndexByte(raw, '\\') < 0 {
		return raw[1 : len(raw)-1], nil
	}
	return []byte(unquote(raw)), nil
}

// str skips a string and returns it with its quotes.
func (p *Parser) str() ([]byte, error) {
	start := p.pos
	p.pos++
	for p.pos < len(p.line) {
		c := p.line[p.pos]
		switch {
		case c == '"':
			p.pos++
			return p.line[start:p.pos], nil
		case c == '\\':
			if err := p.escape(); err != nil {
				return nil, err
			}
		case c < 0x20:
			return nil, &SyntaxError{p.pos, "control character in a string"}
		default:
			p.pos++
		}
	}
	return nil, &SyntaxError{p.pos, "ends in a string"}
}

func (p *Parser) escape() error {
	if p.pos+1 >= len(p.line) {
		return &SyntaxError{p.pos, "ends in a string"}
	}
	switch p.line[p.pos+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		p.pos += 2
		return nil
	case 'u':
		r, ok := p.hex4(p.pos)
		if !ok {
			return &SyntaxError{p.pos, `\u wants four hex digits`}
		}
		if r >= 0xdc00 && r < 0xe000 {
			return &SyntaxError{p.pos, "half a surrogate pair"}
		}
		if r >= 0xd800 && r < 0xdc00 {
			low, ok := p.hex4(p.pos + 6)
			if !ok || low < 0xdc00 || low >= 0xe000 {
				return &SyntaxError{p.pos, "half a surrogate pair"}
			}
			p.pos += 6
		}
		p.pos += 6
		return nil
	}
	return &SyntaxError{p.pos, "unknown escape"}
}

// hex4 reads the \uXXXX at pos.
func (p *Parser) hex4(pos int) (r rune, ok bool) {
	if pos+6 > len(p.line) || p.line[pos] != '\\' || p.line[pos+1] != 'u' {
		return 0, false
	}
	for _, c := range p.line[pos+2 : pos+6] {
		switch {
		case c >= '0' && c <= '9':
			r = r<<4 | rune(c-'0')
		case c >= 'a' && c <= 'f':
			r = r<<4 | rune(c-'a'+10)
		case c >= 'A' && c <= 'F':
			r = r<<4 | rune(c-'A'+10)
		default:
			return 0, false
		}
	}
	return r, true
}

func (p *Parser) digits() bool {
	start := p.pos
	for c := p.peek(); c >= '0' && c <= '9'; c = p.peek() {
		p.pos++
	}
	return p.pos > start
}

func (p *Parser) number() error {
	if p.peek() == '-' {
		p.pos++
	}
	if p.peek() == '0' {
		p.pos++
	} else if !p.digits() {
		return p.unexpected("a digit")
	}
	if p.peek() == '.' {
		p.pos++
		if !p.digits() {
			return p.unexpected("a digit")
		}
	}
	if c := p.peek(); c == 'e' || c == 'E' {
		p.pos++
		if c := p.peek(); c == '+' || c == '-' {
			p.pos++
		}
		if !p.digits() {
			return p.unexpected("a digit")
		}
	}
	return nil
}

func (p *Parser) literal() error {
	for _, word := range [...]string{"true", "false", "null"} {
		if bytes.HasPrefix(p.line[p.pos:], []byte(word)) {
			p.pos += len(word)
			return nil
		}
	}
	return p.unexpected("a value")
}

// unquote returns what a string that str has passed stands for, "" for nil.
func unquote(raw []byte) string {
	if raw == nil {
		return ""
	}
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw[1 : len(raw)-1])
	}
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return ""
	}
	return s
}
