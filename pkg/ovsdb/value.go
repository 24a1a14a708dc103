package ovsdb

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// A Value is a column's value: an atom (string, int64, float64, bool, UUID,
// Named), a Set or a Map.
type Value any

// A UUID names a row.
type UUID string

// Named is the uuid-name of a row that the same transaction inserts.
type Named string

// A Set is a set of atoms, in no order.
type Set []Value

// A Map maps atoms to atoms.
type Map map[Value]Value

// A Row maps columns to values.
type Row map[string]Value

// MarshalJSON writes the notation of RFC 7047, section 5.1.
func (u UUID) MarshalJSON() ([]byte, error) { return json.Marshal([2]string{"uuid", string(u)}) }

// MarshalJSON writes the notation of RFC 7047, section 5.1.
func (n Named) MarshalJSON() ([]byte, error) {
	return json.Marshal([2]string{"named-uuid", string(n)})
}

// MarshalJSON writes the notation of RFC 7047, section 5.1.
func (s Set) MarshalJSON() ([]byte, error) {
	if s == nil {
		s = Set{}
	}
	return json.Marshal([2]any{"set", []Value(s)})
}

// MarshalJSON writes the notation of RFC 7047, section 5.1, sorted by key.
func (m Map) MarshalJSON() ([]byte, error) {
	pairs := make([][2]Value, 0, len(m))
	for k, v := range m {
		pairs = append(pairs, [2]Value{k, v})
	}
	slices.SortFunc(pairs, func(a, b [2]Value) int { return strings.Compare(Text(a[0]), Text(b[0])) })
	return json.Marshal([2]any{"map", pairs})
}

// UnmarshalJSON reads a row in the notation of RFC 7047, section 5.1.
func (r *Row) UnmarshalJSON(data []byte) error {
	if string(data) == "null" {
		return nil
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	var raw map[string]any
	if err := dec.Decode(&raw); err != nil {
		return err
	}
	*r = make(Row, len(raw))
	for column, v := range raw {
		value, err := decode(v)
		if err != nil {
			return fmt.Errorf("column %s: %w", column, err)
		}
		(*r)[column] = value
	}
	return nil
}

// decode turns what encoding/json made of a value into a Value.
func decode(v any) (Value, error) {
	list, ok := v.([]any)
	if !ok {
		return decodeAtom(v)
	}
	if len(list) != 2 {
		return nil, fmt.Errorf("an array of %d elements is no value", len(list))
	}
	switch list[0] {
	case "uuid", "named-uuid":
		return decodeAtom(v)
	case "set":
		elements, ok := list[1].([]any)
		if !ok {
			return nil, fmt.Errorf("a set of %T", list[1])
		}
		set := make(Set, 0, len(elements))
		for _, e := range elements {
			atom, err := decodeAtom(e)
			if err != nil {
				return nil, err
			}
			set = append(set, atom)
		}
		return set, nil
	case "map":
		pairs, ok := list[1].([]any)
		if !ok {
			return nil, fmt.Errorf("a map of %T", list[1])
		}
		m := make(Map, len(pairs))
		for _, p := range pairs {
			pair, ok := p.([]any)
			if !ok || len(pair) != 2 {
				return nil, fmt.Errorf("a map's pair is %v", p)
			}
			k, err := decodeAtom(pair[0])
			if err != nil {
				return nil, err
			}
			if m[k], err = decodeAtom(pair[1]); err != nil {
				return nil, err
			}
		}
		return m, nil
	}
	return nil, fmt.Errorf("unknown kind of value %v", list[0])
}

func decodeAtom(v any) (Value, error) {
	switch v := v.(type) {
	case string, bool:
		return v, nil
	case json.Number:
		if n, err := strconv.ParseInt(string(v), 10, 64); err == nil {
			return n, nil
		}
		f, err := v.Float64()
		if err == nil && f == math.Trunc(f) && math.Abs(f) < 1<<53 {
			return int64(f), nil // 1.0 and 1 are the same number
		}
		return f, err
	case []any:
		if len(v) == 2 {
			if s, ok := v[1].(string); ok && v[0] == "uuid" {
				return UUID(s), nil
			} else if ok && v[0] == "named-uuid" {
				return Named(s), nil
			}
		}
	}
	return nil, fmt.Errorf("%v is no atom", v)
}

// Text returns v as one canonical string: equal values have equal texts. A set
// of one element is that element, as the protocol has it.
func Text(v Value) string {
	switch v := v.(type) {
	case nil:
		return "[]"
	case string:
		return strconv.Quote(v)
	case int64:
		return strconv.FormatInt(v, 10)
	case int:
		return strconv.Itoa(v)
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64)
	case bool:
		return strconv.FormatBool(v)
	case UUID:
		return "uuid:" + string(v)
	case Named:
		return "named:" + string(v)
	case Set:
		if len(v) == 1 {
			return Text(v[0])
		}
		texts := make([]string, len(v))
		for i, e := range v {
			texts[i] = Text(e)
		}
		slices.Sort(texts)
		return "[" + strings.Join(texts, ", ") + "]"
	case Map:
		texts := make([]string, 0, len(v))
		for k, e := range v {
			texts = append(texts, Text(k)+": "+Text(e))
		}
		slices.Sort(texts)
		return "{" + strings.Join(texts, ", ") + "}"
	}
	return fmt.Sprintf("?%T", v)
}

// Equal says whether a and b are the same value.
func Equal(a, b Value) bool { return Text(a) == Text(b) }

// Elements returns the elements of a set; an atom is a set of itself.
func Elements(v Value) []Value {
	switch v := v.(type) {
	case nil:
		return nil
	case Set:
		return v
	}
	return []Value{v}
}

// UUIDs returns the rows that a column names.
func (r Row) UUIDs(column string) []UUID {
	var ids []UUID
	for _, e := range Elements(r[column]) {
		if id, ok := e.(UUID); ok {
			ids = append(ids, id)
		}
	}
	return ids
}

// String returns a column that is a string or an optional one.
func (r Row) String(column string) string {
	for _, e := range Elements(r[column]) {
		if s, ok := e.(string); ok {
			return s
		}
	}
	return ""
}

// Int returns a column that is an integer or an optional one, and whether it
// is there.
func (r Row) Int(column string) (int64, bool) {
	for _, e := range Elements(r[column]) {
		if n, ok := e.(int64); ok {
			return n, true
		}
	}
	return 0, false
}

// Strings returns a column that is a map of strings.
func (r Row) Strings(column string) map[string]string {
	m, _ := r[column].(Map)
	out := make(map[string]string, len(m))
	for k, v := range m {
		ks, ok1 := k.(string)
		vs, ok2 := v.(string)
		if ok1 && ok2 {
			out[ks] = vs
		}
	}
	return out
}

// ID returns the row's own UUID, where _uuid was among the columns read.
func (r Row) ID() UUID {
	id, _ := r["_uuid"].(UUID)
	return id
}

// StringMap returns m as a value.
func StringMap(m map[string]string) Map {
	out := make(Map, len(m))
	for k, v := range m {
		out[k] = v
	}
	return out
}
