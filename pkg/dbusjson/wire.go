package dbusjson

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
	"unicode/utf8"
)

// Wire limits of the D-Bus specification.
const (
	maxArray   = 64 << 20
	MaxMessage = 128 << 20
)

// Encode returns values of types in D-Bus wire format (D-Bus Specification,
// "Marshaling"), little endian, as the body of a message. File descriptors are
// written as their index.
func Encode(types []*Type, values []any) ([]byte, error) {
	if len(types) != len(values) {
		return nil, fmt.Errorf("%d values of %d types", len(values), len(types))
	}
	var e encoder
	for i, v := range values {
		if err := e.value(types[i], v, 0); err != nil {
			return nil, within(fmt.Sprintf("[%d]", i), err)
		}
	}
	if len(e.b) > MaxMessage {
		return nil, fmt.Errorf("body of %d bytes, more than %d", len(e.b), MaxMessage)
	}
	return e.b, nil
}

type encoder struct{ b []byte }

func (e *encoder) align(n int) {
	for len(e.b)%n != 0 {
		e.b = append(e.b, 0)
	}
}

func (e *encoder) u16(x uint16) { e.align(2); e.b = binary.LittleEndian.AppendUint16(e.b, x) }
func (e *encoder) u32(x uint32) { e.align(4); e.b = binary.LittleEndian.AppendUint32(e.b, x) }
func (e *encoder) u64(x uint64) { e.align(8); e.b = binary.LittleEndian.AppendUint64(e.b, x) }

// alignment of the wire format.
func alignment(code byte) int {
	switch code {
	case 'n', 'q':
		return 2
	case 'b', 'i', 'u', 's', 'o', 'a', 'h':
		return 4
	case 'x', 't', 'd', '(', '{':
		return 8
	}
	return 1
}

func (e *encoder) value(t *Type, v any, depth int) error {
	if depth > MaxDepth {
		return fmt.Errorf("nested deeper than %d", MaxDepth)
	}
	ok := true
	switch x := v.(type) {
	case uint8:
		ok = t.Code == 'y'
		e.b = append(e.b, x)
	case bool:
		ok = t.Code == 'b'
		if x {
			e.u32(1)
		} else {
			e.u32(0)
		}
	case int16:
		ok = t.Code == 'n'
		e.u16(uint16(x))
	case uint16:
		ok = t.Code == 'q'
		e.u16(x)
	case int32:
		ok = t.Code == 'i'
		e.u32(uint32(x))
	case uint32:
		ok = t.Code == 'u'
		e.u32(x)
	case int64:
		ok = t.Code == 'x'
		e.u64(uint64(x))
	case uint64:
		ok = t.Code == 't'
		e.u64(x)
	case float64:
		ok = t.Code == 'd'
		e.u64(math.Float64bits(x))
	case FD:
		ok = t.Code == 'h'
		e.u32(x.Index)
	case string, Path, Signature:
		s, err := text(t.Code, v)
		if err != nil {
			return err
		}
		if t.Code == 'g' {
			e.b = append(e.b, byte(len(s)))
		} else {
			e.u32(uint32(len(s)))
		}
		e.b = append(append(e.b, s...), 0)
	case Variant:
		if ok = t.Code == 'v' && x.Type != nil; !ok {
			break
		}
		s := x.Type.String()
		if len(s) > MaxSignature {
			return fmt.Errorf("signature of a variant is %d bytes long", len(s))
		}
		e.b = append(append(append(e.b, byte(len(s))), s...), 0)
		if err := e.value(x.Type, x.Value, depth+1); err != nil {
			return within(".v", err)
		}
	case []byte:
		if ok = t.IsBytes(); !ok {
			break
		}
		if len(x) > maxArray {
			return errors.New("array larger than 64 MiB")
		}
		e.u32(uint32(len(x)))
		e.b = append(e.b, x...)
	case Dict:
		if ok = t.IsDict(); !ok {
			break
		}
		return e.array('{', func() error {
			for i, entry := range x {
				e.align(8)
				if err := e.value(t.Elem[0].Elem[0], entry.Key, depth+1); err != nil {
					return within(fmt.Sprintf("[%d][0]", i), err)
				}
				if err := e.value(t.Elem[0].Elem[1], entry.Value, depth+1); err != nil {
					return within(fmt.Sprintf("[%d][1]", i), err)
				}
			}
			return nil
		})
	case []any:
		if t.Code == '(' && len(x) == len(t.Elem) {
			e.align(8)
			for i, f := range x {
				if err := e.value(t.Elem[i], f, depth+1); err != nil {
					return within(fmt.Sprintf("[%d]", i), err)
				}
			}
			return nil
		}
		if ok = t.Code == 'a' && !t.IsBytes() && !t.IsDict(); !ok {
			break
		}
		return e.array(t.Elem[0].Code, func() error {
			for i, f := range x {
				if err := e.value(t.Elem[0], f, depth+1); err != nil {
					return within(fmt.Sprintf("[%d]", i), err)
				}
			}
			return nil
		})
	default:
		ok = false
	}
	if !ok {
		return fmt.Errorf("a %T is no value of type %s", v, t)
	}
	return nil
}

func (e *encoder) array(elem byte, items func() error) error {
	e.u32(0)
	at := len(e.b) - 4
	e.align(alignment(elem))
	start := len(e.b)
	if err := items(); err != nil {
		return err
	}
	n := len(e.b) - start
	if n > maxArray {
		return errors.New("array larger than 64 MiB")
	}
	binary.LittleEndian.PutUint32(e.b[at:], uint32(n))
	return nil
}

// Decode reads values of types from the body of a message, which it must fill.
// order is binary.LittleEndian or binary.BigEndian; kinds says what the
// message's file descriptors are. The values do not refer to data.
func Decode(data []byte, order binary.ByteOrder, types []*Type, kinds []string) ([]any, error) {
	d := decoder{data: data, order: order, kinds: kinds}
	values := make([]any, len(types))
	for i, t := range types {
		var err error
		if values[i], err = d.value(t, 0); err != nil {
			return nil, within(fmt.Sprintf("[%d]", i), err)
		}
	}
	if d.pos != len(data) {
		return nil, fmt.Errorf("%d bytes behind the values", len(data)-d.pos)
	}
	return values, nil
}

type decoder struct {
	data  []byte
	pos   int
	order binary.ByteOrder
	kinds []string
}

var errShort = errors.New("the message ends within a value")

func (d *decoder) align(n int) error {
	for d.pos%n != 0 {
		if d.pos >= len(d.data) {
			return errShort
		}
		if d.data[d.pos] != 0 {
			return errors.New("padding is not zero")
		}
		d.pos++
	}
	return nil
}

// take returns n bytes, aligned to their number if it is that of a number.
func (d *decoder) take(n int) ([]byte, error) {
	if n < 0 || n > len(d.data)-d.pos {
		return nil, errShort
	}
	b := d.data[d.pos : d.pos+n]
	d.pos += n
	return b, nil
}

func (d *decoder) number(n int) (uint64, error) {
	if err := d.align(n); err != nil {
		return 0, err
	}
	b, err := d.take(n)
	if err != nil {
		return 0, err
	}
	switch n {
	case 2:
		return uint64(d.order.Uint16(b)), nil
	case 4:
		return uint64(d.order.Uint32(b)), nil
	}
	return d.order.Uint64(b), nil
}

func (d *decoder) text(n int) (string, error) {
	b, err := d.take(n + 1)
	if err != nil {
		return "", err
	}
	if b[n] != 0 {
		return "", errors.New("text without its zero byte")
	}
	if !utf8.Valid(b[:n]) || strings.IndexByte(string(b[:n]), 0) >= 0 {
		return "", errors.New("text is not UTF-8 or has a zero byte")
	}
	return string(b[:n]), nil
}

func (d *decoder) signature() (string, error) {
	n, err := d.take(1)
	if err != nil {
		return "", err
	}
	return d.text(int(n[0]))
}

func (d *decoder) value(t *Type, depth int) (any, error) {
	if depth > MaxDepth {
		return nil, fmt.Errorf("nested deeper than %d", MaxDepth)
	}
	switch t.Code {
	case 'y':
		b, err := d.take(1)
		if err != nil {
			return nil, err
		}
		return b[0], nil
	case 'b':
		n, err := d.number(4)
		if n > 1 && err == nil {
			err = errors.New("a boolean that is neither 0 nor 1")
		}
		return n == 1, err
	case 'n', 'q':
		n, err := d.number(2)
		if t.Code == 'n' {
			return int16(n), err
		}
		return uint16(n), err
	case 'i', 'u', 'h':
		n, err := d.number(4)
		switch t.Code {
		case 'i':
			return int32(n), err
		case 'u':
			return uint32(n), err
		}
		fd := FD{Index: uint32(n)}
		if n < uint64(len(d.kinds)) {
			fd.Kind = d.kinds[n]
		}
		return fd, err
	case 'x', 't', 'd':
		n, err := d.number(8)
		switch t.Code {
		case 'x':
			return int64(n), err
		case 't':
			return n, err
		}
		return math.Float64frombits(n), err
	case 's', 'o':
		n, err := d.number(4)
		if err != nil {
			return nil, err
		}
		s, err := d.text(int(n))
		if err != nil {
			return nil, err
		}
		return asText(t.Code, s)
	case 'g':
		s, err := d.signature()
		if err != nil {
			return nil, err
		}
		return asText('g', s)
	case 'v':
		s, err := d.signature()
		if err != nil {
			return nil, err
		}
		inner, err := ParseType(s)
		if err != nil {
			return nil, err
		}
		v, err := d.value(inner, depth+1)
		return Variant{inner, v}, err
	case '(':
		if err := d.align(8); err != nil {
			return nil, err
		}
		s := make([]any, len(t.Elem))
		for i, e := range t.Elem {
			var err error
			if s[i], err = d.value(e, depth+1); err != nil {
				return nil, err
			}
		}
		return s, nil
	}
	n, err := d.number(4)
	if err != nil {
		return nil, err
	}
	elem := t.Elem[0]
	if err := d.align(alignment(elem.Code)); err != nil {
		return nil, err
	}
	if n > maxArray || int(n) > len(d.data)-d.pos {
		return nil, errShort
	}
	end := d.pos + int(n)
	if t.IsBytes() {
		b, err := d.take(int(n))
		return append([]byte{}, b...), err
	}
	if t.IsDict() {
		list := Dict{}
		for d.pos < end {
			if err := d.align(8); err != nil {
				return nil, err
			}
			k, err := d.value(elem.Elem[0], depth+1)
			if err != nil {
				return nil, err
			}
			v, err := d.value(elem.Elem[1], depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, Entry{k, v})
		}
		return list, d.endsAt(end)
	}
	list := []any{}
	for d.pos < end {
		v, err := d.value(elem, depth+1)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, d.endsAt(end)
}

func (d *decoder) endsAt(end int) error {
	if d.pos != end {
		return errors.New("an array's last element passes its end")
	}
	return nil
}
