package dbusjson

import (
	"encoding/base64"
	"fmt"
	"math"
	"strconv"
)

// canonicalNaN is the one that C and the FPU make.
const canonicalNaN = 0x7ff8000000000000

// A ValueError says which part of a value does not fit its type.
type ValueError struct {
	Where string // like [0].v[3]; empty for the value itself
	Err   error
}

func (e *ValueError) Error() string {
	if e.Where == "" {
		return e.Err.Error()
	}
	return "at " + e.Where + ": " + e.Err.Error()
}
func (e *ValueError) Unwrap() error { return e.Err }

// within puts a step before the place of err.
func within(step string, err error) error {
	if v, ok := err.(*ValueError); ok {
		return &ValueError{step + v.Where, v.Err}
	}
	return &ValueError{step, err}
}

// Marshal returns v, a value of type t, as JSON.
func Marshal(t *Type, v any) ([]byte, error) { return Append(nil, t, v) }

// MarshalArgs returns the values of types as a JSON array.
func MarshalArgs(types []*Type, values []any) ([]byte, error) {
	if len(types) != len(values) {
		return nil, fmt.Errorf("%d values of %d types", len(values), len(types))
	}
	return appendList([]byte{}, func(i int) *Type { return types[i] }, values, 0)
}

// Append appends v as JSON to dst.
func Append(dst []byte, t *Type, v any) ([]byte, error) { return appendValue(dst, t, v, 0) }

func appendList(dst []byte, typ func(int) *Type, values []any, depth int) ([]byte, error) {
	dst = append(dst, '[')
	for i, v := range values {
		if i > 0 {
			dst = append(dst, ',')
		}
		var err error
		if dst, err = appendValue(dst, typ(i), v, depth); err != nil {
			return nil, within("["+strconv.Itoa(i)+"]", err)
		}
	}
	return append(dst, ']'), nil
}

func appendValue(dst []byte, t *Type, v any, depth int) ([]byte, error) {
	bad := func() ([]byte, error) { return nil, fmt.Errorf("a %T is no value of type %s", v, t) }
	if depth > MaxDepth {
		return nil, fmt.Errorf("nested deeper than %d", MaxDepth)
	}
	switch t.Code {
	case 'y', 'n', 'q', 'i', 'u':
		n, ok := smallInt(t.Code, v)
		if !ok {
			return bad()
		}
		return strconv.AppendInt(dst, n, 10), nil
	case 'x':
		x, ok := v.(int64)
		if !ok {
			return bad()
		}
		return append(strconv.AppendInt(append(dst, '"'), x, 10), '"'), nil
	case 't':
		x, ok := v.(uint64)
		if !ok {
			return bad()
		}
		return append(strconv.AppendUint(append(dst, '"'), x, 10), '"'), nil
	case 'b':
		x, ok := v.(bool)
		if !ok {
			return bad()
		}
		return strconv.AppendBool(dst, x), nil
	case 'd':
		x, ok := v.(float64)
		if !ok {
			return bad()
		}
		return appendFloat(dst, x), nil
	case 's', 'o', 'g':
		s, err := text(t.Code, v)
		if err != nil {
			return nil, err
		}
		return AppendString(dst, s), nil
	case 'h':
		x, ok := v.(FD)
		if !ok {
			return bad()
		}
		dst = strconv.AppendUint(append(dst, `{"fd":`...), uint64(x.Index), 10)
		if x.Kind != "" {
			dst = AppendString(append(dst, `,"kind":`...), x.Kind)
		}
		return append(dst, '}'), nil
	case 'v':
		x, ok := v.(Variant)
		if !ok || x.Type == nil {
			return bad()
		}
		dst = append(dst, `{"t":`...)
		dst = AppendString(dst, x.Type.String())
		dst = append(dst, `,"v":`...)
		dst, err := appendValue(dst, x.Type, x.Value, depth+1)
		if err != nil {
			return nil, within(".v", err)
		}
		return append(dst, '}'), nil
	case '(':
		x, ok := v.([]any)
		if !ok || len(x) != len(t.Elem) {
			return bad()
		}
		return appendList(dst, func(i int) *Type { return t.Elem[i] }, x, depth+1)
	case 'a':
		if t.IsBytes() {
			x, ok := v.([]byte)
			if !ok {
				return bad()
			}
			dst = append(dst, `{"b64":"`...)
			dst = base64.StdEncoding.AppendEncode(dst, x)
			return append(dst, `"}`...), nil
		}
		if t.IsDict() {
			x, ok := v.(Dict)
			if !ok {
				return bad()
			}
			return appendDict(dst, t.Elem[0], x, depth+1)
		}
		x, ok := v.([]any)
		if !ok {
			return bad()
		}
		return appendList(dst, func(int) *Type { return t.Elem[0] }, x, depth+1)
	}
	return bad()
}

func smallInt(code byte, v any) (int64, bool) {
	switch x := v.(type) {
	case uint8:
		return int64(x), code == 'y'
	case int16:
		return int64(x), code == 'n'
	case uint16:
		return int64(x), code == 'q'
	case int32:
		return int64(x), code == 'i'
	case uint32:
		return int64(x), code == 'u'
	}
	return 0, false
}

// text returns the text of a string-like value, checked.
func text(code byte, v any) (string, error) {
	switch x := v.(type) {
	case string:
		if code == 's' {
			return x, checkString(x)
		}
	case Path:
		if code == 'o' {
			return string(x), checkPath(string(x))
		}
	case Signature:
		if code == 'g' {
			_, err := ParseSignature(string(x))
			return string(x), err
		}
	}
	return "", fmt.Errorf("a %T is no value of type %c", v, code)
}

func checkPath(s string) error {
	if !ValidPath(s) {
		return fmt.Errorf("%.300q is no object path", s)
	}
	return nil
}

func appendFloat(dst []byte, x float64) []byte {
	switch {
	case math.IsInf(x, 1):
		return append(dst, `"Infinity"`...)
	case math.IsInf(x, -1):
		return append(dst, `"-Infinity"`...)
	case math.IsNaN(x):
		if bits := math.Float64bits(x); bits != canonicalNaN {
			return fmt.Appendf(dst, `"NaN:%016x"`, bits)
		}
		return append(dst, `"NaN"`...)
	}
	// The shortest text that reads back as x.
	format := byte('f')
	if a := math.Abs(x); a != 0 && (a < 1e-6 || a >= 1e21) {
		format = 'e'
	}
	return strconv.AppendFloat(dst, x, format, -1, 64)
}

// AppendString appends s as a JSON string. Only what must be is escaped: the
// bytes are the same whatever the Go version.
func AppendString(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c == '\n':
			dst = append(dst, '\\', 'n')
		case c == '\r':
			dst = append(dst, '\\', 'r')
		case c == '\t':
			dst = append(dst, '\\', 't')
		case c < 0x20:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			dst = append(dst, c)
		}
	}
	return append(dst, '"')
}

func appendDict(dst []byte, entry *Type, d Dict, depth int) ([]byte, error) {
	if asObject(entry.Elem[0].Code, d) {
		dst = append(dst, '{')
		for i, e := range d {
			if i > 0 {
				dst = append(dst, ',')
			}
			key, err := text(entry.Elem[0].Code, e.Key)
			if err != nil {
				return nil, within(fmt.Sprintf("{%d}", i), err)
			}
			dst = append(AppendString(dst, key), ':')
			if dst, err = appendValue(dst, entry.Elem[1], e.Value, depth+1); err != nil {
				return nil, within("."+key, err)
			}
		}
		return append(dst, '}'), nil
	}
	dst = append(dst, '[')
	for i, e := range d {
		if i > 0 {
			dst = append(dst, ',')
		}
		var err error
		if dst, err = appendValue(append(dst, '['), entry.Elem[0], e.Key, depth+1); err != nil {
			return nil, within(fmt.Sprintf("[%d][0]", i), err)
		}
		if dst, err = appendValue(append(dst, ','), entry.Elem[1], e.Value, depth+1); err != nil {
			return nil, within(fmt.Sprintf("[%d][1]", i), err)
		}
		dst = append(dst, ']')
	}
	return append(dst, ']'), nil
}

// asObject says whether d is written as an object: its keys are text and none
// stands twice.
func asObject(code byte, d Dict) bool {
	if code != 's' && code != 'o' && code != 'g' {
		return false
	}
	seen := make(map[any]struct{}, len(d))
	for _, e := range d {
		if _, twice := seen[e.Key]; twice {
			return false
		}
		seen[e.Key] = struct{}{}
	}
	return true
}
