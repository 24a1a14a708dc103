package dbusjson

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// MaxInput is the length of the longest JSON text that is read: what holds the
// largest message.
const MaxInput = 256 << 20

var (
	// ErrDescriptor says that a file descriptor was asked for, which JSON can't
	// give.
	ErrDescriptor = errors.New("a file descriptor can't be given as JSON")

	errBareNumber = errors.New(`a variant needs its type: {"t":"u","v":7}`)
)

// Unmarshal reads a value of type t from JSON.
func Unmarshal(data []byte, t *Type) (any, error) {
	if err := checkText(data); err != nil {
		return nil, err
	}
	return value(data, t, 0)
}

// UnmarshalArgs reads values of types from a JSON array.
func UnmarshalArgs(data []byte, types []*Type) ([]any, error) {
	if err := checkText(data); err != nil {
		return nil, err
	}
	items, err := array(data)
	if err != nil {
		return nil, fmt.Errorf("arguments: %w", err)
	}
	if len(items) != len(types) {
		return nil, fmt.Errorf("%d arguments, want %d of signature %q", len(items), len(types), JoinSignature(types))
	}
	values := make([]any, len(items))
	for i, item := range items {
		if values[i], err = value(item, types[i], 0); err != nil {
			return nil, within("["+strconv.Itoa(i)+"]", err)
		}
	}
	return values, nil
}

// checkText refuses what encoding/json would mend in silence: bytes that are
// not UTF-8 and halves of surrogate pairs.
func checkText(data []byte) error {
	if len(data) > MaxInput {
		return fmt.Errorf("JSON of %d bytes, more than %d", len(data), MaxInput)
	}
	if !utf8.Valid(data) {
		return errors.New("JSON is not UTF-8")
	}
	if !json.Valid(data) {
		var v json.RawMessage
		if err := json.Unmarshal(data, &v); err != nil {
			return fmt.Errorf("not JSON: %w", err)
		}
		return errors.New("not JSON")
	}
	for i := bytes.IndexByte(data, '\\'); i >= 0 && i < len(data); i++ {
		if data[i] != '\\' {
			continue
		}
		i++
		if data[i] != 'u' {
			continue
		}
		switch r := hex4(data[i+1:]); {
		case r >= 0xd800 && r < 0xdc00:
			if i+6 >= len(data) || data[i+5] != '\\' || data[i+6] != 'u' || hex4(data[i+7:])>>10 != 0xdc00>>10 {
				return errors.New("half a surrogate pair in a string")
			}
			i += 10
		case r >= 0xdc00 && r < 0xe000:
			return errors.New("half a surrogate pair in a string")
		default:
			i += 4
		}
	}
	return nil
}

func hex4(b []byte) uint64 {
	if len(b) < 4 {
		return 0
	}
	n, _ := strconv.ParseUint(string(b[:4]), 16, 16) // json.Valid has looked
	return n
}

// array returns the elements of a JSON array, which checkText has looked at:
// only strings and brackets matter.
func array(data []byte) ([]json.RawMessage, error) {
	if first(data) != '[' {
		return nil, fmt.Errorf("want an array, have %s", kind(data))
	}
	data = bytes.TrimSpace(data)
	data = data[1 : len(data)-1]
	if first(data) == 0 {
		return nil, nil
	}
	var items []json.RawMessage
	depth, start := 0, 0
	for i := 0; i < len(data); i++ {
		switch data[i] {
		case '"':
			for i++; data[i] != '"'; i++ {
				if data[i] == '\\' {
					i++
				}
			}
		case '[', '{':
			depth++
		case ']', '}':
			depth--
		case ',':
			if depth == 0 {
				items = append(items, bytes.TrimSpace(data[start:i]))
				start = i + 1
			}
		}
	}
	return append(items, bytes.TrimSpace(data[start:])), nil
}

// unquote returns the string of a JSON text that is one, which checkText has
// looked at.
func unquote(data []byte) (s string, err error) {
	data = bytes.TrimSpace(data)
	if inner := data[1 : len(data)-1]; bytes.IndexByte(inner, '\\') < 0 {
		return string(inner), nil
	}
	err = json.Unmarshal(data, &s)
	return s, err
}

func first(data []byte) byte {
	if d := bytes.TrimLeft(data, " \t\r\n"); len(d) > 0 {
		return d[0]
	}
	return 0
}

func kind(data []byte) string {
	switch first(data) {
	case '{':
		return "an object"
	case '[':
		return "an array"
	case '"':
		return "a string"
	case 't', 'f':
		return "a boolean"
	case 'n':
		return "null"
	}
	return "a number"
}

type pair struct {
	key   string
	value json.RawMessage
}

// object returns the members of a JSON object in order, twins included.
func object(data []byte) ([]pair, error) {
	if first(data) != '{' {
		return nil, fmt.Errorf("want an object, have %s", kind(data))
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	if _, err := dec.Token(); err != nil {
		return nil, err
	}
	var list []pair
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, err
		}
		var v json.RawMessage
		if err := dec.Decode(&v); err != nil {
			return nil, err
		}
		list = append(list, pair{key.(string), v})
	}
	if _, err := dec.Token(); err != nil && err != io.EOF {
		return nil, err
	}
	return list, nil
}

func value(data []byte, t *Type, depth int) (any, error) {
	if depth > MaxDepth {
		return nil, fmt.Errorf("nested deeper than %d", MaxDepth)
	}
	switch t.Code {
	case 'y', 'n', 'q', 'i', 'u', 'x', 't':
		return integer(data, t.Code)
	case 'b':
		var b bool
		if c := first(data); c != 't' && c != 'f' {
			return nil, fmt.Errorf("want true or false, have %s", kind(data))
		}
		err := json.Unmarshal(data, &b)
		return b, err
	case 'd':
		return float(data)
	case 's', 'o', 'g':
		if first(data) != '"' {
			return nil, fmt.Errorf("want a string, have %s", kind(data))
		}
		s, err := unquote(data)
		if err != nil {
			return nil, err
		}
		return asText(t.Code, s)
	case 'h':
		return nil, ErrDescriptor
	case 'v':
		return variant(data, depth)
	case '(':
		items, err := array(data)
		if err != nil {
			return nil, err
		}
		if len(items) != len(t.Elem) {
			return nil, fmt.Errorf("%d fields, want %d of %s", len(items), len(t.Elem), t)
		}
		return list(items, func(i int) *Type { return t.Elem[i] }, depth+1)
	}
	switch {
	case t.IsBytes():
		return octets(data)
	case t.IsDict():
		return dict(data, t.Elem[0], depth+1)
	}
	items, err := array(data)
	if err != nil {
		return nil, err
	}
	return list(items, func(int) *Type { return t.Elem[0] }, depth+1)
}

func list(items []json.RawMessage, typ func(int) *Type, depth int) ([]any, error) {
	values := make([]any, len(items))
	for i, item := range items {
		var err error
		if values[i], err = value(item, typ(i), depth); err != nil {
			return nil, within("["+strconv.Itoa(i)+"]", err)
		}
	}
	return values, nil
}

func asText(code byte, s string) (any, error) {
	switch code {
	case 'o':
		return Path(s), checkPath(s)
	case 'g':
		_, err := ParseSignature(s)
		return Signature(s), err
	}
	return s, checkString(s)
}

// wholeNumbers says how wide the types of whole numbers are, and what that means.
var wholeNumbers = [256]struct {
	bits int
	name string
}{
	'y': {8, "0 to 255"}, 'n': {16, "-32768 to 32767"}, 'q': {16, "0 to 65535"}, 'i': {32, "-2147483648 to 2147483647"},
	'u': {32, "0 to 4294967295"}, 'x': {64, "64 bits"}, 't': {64, "64 bits without a sign"},
}

func integer(data []byte, code byte) (any, error) {
	s := string(bytes.Trim(data, " \t\r\n"))
	if first(data) == '"' {
		if code != 'x' && code != 't' {
			return nil, fmt.Errorf("want a number, have a string")
		}
		if err := json.Unmarshal(data, &s); err != nil {
			return nil, err
		}
		if strings.HasPrefix(s, "+") {
			return nil, fmt.Errorf("%.40q is no decimal number", s)
		}
	} else if c := first(data); c != '-' && (c < '0' || c > '9') {
		return nil, fmt.Errorf("want a number, have %s", kind(data))
	}
	bits, name := wholeNumbers[code].bits, wholeNumbers[code].name
	if code == 'n' || code == 'i' || code == 'x' {
		n, err := strconv.ParseInt(s, 10, bits)
		if err != nil {
			return nil, fmt.Errorf("%.40q is no whole number of %s", s, name)
		}
		switch code {
		case 'n':
			return int16(n), nil
		case 'i':
			return int32(n), nil
		}
		return n, nil
	}
	n, err := strconv.ParseUint(s, 10, bits)
	if err != nil {
		return nil, fmt.Errorf("%.40q is no whole number of %s", s, name)
	}
	switch code {
	case 'y':
		return uint8(n), nil
	case 'q':
		return uint16(n), nil
	case 'u':
		return uint32(n), nil
	}
	return n, nil
}

func float(data []byte) (any, error) {
	if first(data) != '"' {
		if c := first(data); c != '-' && (c < '0' || c > '9') {
			return nil, fmt.Errorf("want a number, have %s", kind(data))
		}
		s := string(bytes.Trim(data, " \t\r\n"))
		x, err := strconv.ParseFloat(s, 64)
		if err != nil {
			return nil, fmt.Errorf("%.40q is not in the range of a double", s)
		}
		return x, nil
	}
	var s string
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, err
	}
	switch s {
	case "Infinity":
		return math.Inf(1), nil
	case "-Infinity":
		return math.Inf(-1), nil
	case "NaN":
		return math.Float64frombits(canonicalNaN), nil
	}
	if h, ok := strings.CutPrefix(s, "NaN:"); ok && len(h) == 16 {
		if bits, err := strconv.ParseUint(h, 16, 64); err == nil && math.IsNaN(math.Float64frombits(bits)) {
			return math.Float64frombits(bits), nil
		}
	}
	return nil, fmt.Errorf(`%.40q is no number; "Infinity", "-Infinity" and "NaN" are`, s)
}

func variant(data []byte, depth int) (any, error) {
	switch first(data) {
	case '"':
		v, err := value(data, simple['s'], depth+1)
		return Variant{simple['s'], v}, err
	case 't', 'f':
		v, err := value(data, simple['b'], depth+1)
		return Variant{simple['b'], v}, err
	case '{':
	default:
		return nil, errBareNumber
	}
	pairs, err := object(data)
	if err != nil {
		return nil, err
	}
	var sig string
	var inner json.RawMessage
	for _, p := range pairs {
		switch {
		case p.key == "t" && sig == "" && first(p.value) == '"':
			if err := json.Unmarshal(p.value, &sig); err != nil {
				return nil, err
			}
		case p.key == "v" && inner == nil:
			inner = p.value
		default:
			return nil, errBareNumber
		}
	}
	if sig == "" || inner == nil {
		return nil, errBareNumber
	}
	t, err := ParseType(sig)
	if err != nil {
		return nil, err
	}
	v, err := value(inner, t, depth+1)
	if err != nil {
		return nil, within(".v", err)
	}
	return Variant{t, v}, nil
}

func octets(data []byte) (any, error) {
	if first(data) == '[' {
		items, err := array(data)
		if err != nil {
			return nil, err
		}
		b := make([]byte, len(items))
		for i, item := range items {
			v, err := integer(item, 'y')
			if err != nil {
				return nil, within("["+strconv.Itoa(i)+"]", err)
			}
			b[i] = v.(uint8)
		}
		return b, nil
	}
	pairs, err := object(data)
	if err != nil {
		return nil, err
	}
	if len(pairs) != 1 || pairs[0].key != "b64" || first(pairs[0].value) != '"' {
		return nil, errors.New(`bytes are {"b64":"..."} or an array of numbers`)
	}
	var s string
	if err := json.Unmarshal(pairs[0].value, &s); err != nil {
		return nil, err
	}
	if strings.ContainsAny(s, "\r\n") {
		return nil, errors.New("base64 with a line break")
	}
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil {
		return nil, fmt.Errorf("base64: %w", err)
	}
	return b, nil
}

func dict(data []byte, entry *Type, depth int) (any, error) {
	d := Dict{}
	if first(data) == '{' {
		code := entry.Elem[0].Code
		if code != 's' && code != 'o' && code != 'g' {
			return nil, fmt.Errorf("a dict whose keys are no strings is an array of [key,value]")
		}
		pairs, err := object(data)
		if err != nil {
			return nil, err
		}
		for _, p := range pairs {
			key, err := asText(code, p.key)
			if err != nil {
				return nil, within("."+p.key, err)
			}
			v, err := value(p.value, entry.Elem[1], depth+1)
			if err != nil {
				return nil, within("."+p.key, err)
			}
			d = append(d, Entry{key, v})
		}
		if !asObject(code, d) {
			return nil, errors.New("a key stands twice in an object")
		}
		return d, nil
	}
	items, err := array(data)
	if err != nil {
		return nil, err
	}
	for i, item := range items {
		kv, err := array(item)
		if err == nil && len(kv) != 2 {
			err = errors.New("want [key,value]")
		}
		if err != nil {
			return nil, within("["+strconv.Itoa(i)+"]", err)
		}
		key, err := value(kv[0], entry.Elem[0], depth+1)
		if err != nil {
			return nil, within("["+strconv.Itoa(i)+"][0]", err)
		}
		v, err := value(kv[1], entry.Elem[1], depth+1)
		if err != nil {
			return nil, within("["+strconv.Itoa(i)+"][1]", err)
		}
		d = append(d, Entry{key, v})
	}
	return d, nil
}
