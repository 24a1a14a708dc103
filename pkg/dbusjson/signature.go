package dbusjson

import (
	"fmt"
	"strings"
)

// Limits of the D-Bus specification.
const (
	MaxSignature = 255 // bytes
	maxNesting   = 32  // arrays, and structs, within each other
	MaxDepth     = 64  // containers within each other, variants included
	maxName      = 255
)

// A Type is one complete type. Types are not changed after they are made and
// may be shared.
type Type struct {
	Code byte    // one of ybnqiuxtdsoghv, 'a', '(' and, in an array only, '{'
	Elem []*Type // of an array one, of a dict entry two, of a struct one or more
}

// String returns the type's signature.
func (t *Type) String() string {
	var b strings.Builder
	t.write(&b)
	return b.String()
}

func (t *Type) write(b *strings.Builder) {
	b.WriteByte(t.Code)
	for _, e := range t.Elem {
		e.write(b)
	}
	switch t.Code {
	case '(':
		b.WriteByte(')')
	case '{':
		b.WriteByte('}')
	}
}

// IsDict says whether t is an array of dict entries.
func (t *Type) IsDict() bool { return t.Code == 'a' && t.Elem[0].Code == '{' }

// IsBytes says whether t is ay.
func (t *Type) IsBytes() bool { return t.Code == 'a' && t.Elem[0].Code == 'y' }

// A SignatureError says what is wrong with a signature.
type SignatureError struct {
	Signature string
	Reason    string
}

func (e *SignatureError) Error() string {
	return fmt.Sprintf("signature %.260q: %s", e.Signature, e.Reason)
}

const basic = "ybnqiuxtdsogh"

// ParseSignature parses zero or more complete types.
func ParseSignature(s string) ([]*Type, error) {
	if len(s) > MaxSignature {
		return nil, &SignatureError{s, fmt.Sprintf("longer than %d bytes", MaxSignature)}
	}
	p := signatureParser{s: s}
	var list []*Type
	for p.pos < len(s) {
		t, err := p.one(0, 0)
		if err != nil {
			return nil, &SignatureError{s, err.Error()}
		}
		list = append(list, t)
	}
	return list, nil
}

// ParseType parses exactly one complete type.
func ParseType(s string) (*Type, error) {
	list, err := ParseSignature(s)
	if err != nil {
		return nil, err
	}
	if len(list) != 1 {
		return nil, &SignatureError{s, fmt.Sprintf("%d types, want one", len(list))}
	}
	return list[0], nil
}

// JoinSignature returns the signature of types, one after the other.
func JoinSignature(types []*Type) string {
	var b strings.Builder
	for _, t := range types {
		t.write(&b)
	}
	return b.String()
}

type signatureParser struct {
	s   string
	pos int
}

// simple holds the types without elements, of which one each is enough.
var simple = func() (t [256]*Type) {
	for _, c := range []byte(basic + "v") {
		t[c] = &Type{Code: c}
	}
	return t
}()

func (p *signatureParser) one(arrays, structs int) (*Type, error) {
	if p.pos >= len(p.s) {
		return nil, fmt.Errorf("it ends within a type")
	}
	c := p.s[p.pos]
	p.pos++
	switch {
	case simple[c] != nil:
		return simple[c], nil
	case c == 'a':
		if arrays++; arrays > maxNesting {
			return nil, fmt.Errorf("more than %d arrays within each other", maxNesting)
		}
		if p.pos < len(p.s) && p.s[p.pos] == '{' {
			p.pos++
			return p.dict(arrays, structs)
		}
		e, err := p.one(arrays, structs)
		if err != nil {
			return nil, err
		}
		return &Type{'a', []*Type{e}}, nil
	case c == '(':
		if structs++; structs > maxNesting {
			return nil, fmt.Errorf("more than %d structs within each other", maxNesting)
		}
		t := &Type{Code: '('}
		for {
			if p.pos < len(p.s) && p.s[p.pos] == ')' {
				p.pos++
				if len(t.Elem) == 0 {
					return nil, fmt.Errorf("a struct without a field")
				}
				return t, nil
			}
			e, err := p.one(arrays, structs)
			if err != nil {
				return nil, err
			}
			t.Elem = append(t.Elem, e)
		}
	case c == '{':
		return nil, fmt.Errorf("a dict entry outside of an array")
	}
	return nil, fmt.Errorf("%q at %d is no type", c, p.pos-1)
}

func (p *signatureParser) dict(arrays, structs int) (*Type, error) {
	// A dict entry counts as a struct.
	if structs++; structs > maxNesting {
		return nil, fmt.Errorf("more than %d structs within each other", maxNesting)
	}
	key, err := p.one(arrays, structs)
	if err != nil {
		return nil, err
	}
	if strings.IndexByte(basic, key.Code) < 0 {
		return nil, fmt.Errorf("the key of a dict entry is a container")
	}
	value, err := p.one(arrays, structs)
	if err != nil {
		return nil, err
	}
	if p.pos >= len(p.s) || p.s[p.pos] != '}' {
		return nil, fmt.Errorf("a dict entry has two types")
	}
	p.pos++
	return &Type{'a', []*Type{{'{', []*Type{key, value}}}}, nil
}
