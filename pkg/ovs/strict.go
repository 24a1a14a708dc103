package ovs

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// MaxConfig is how long a desired state may be, in bytes.
const MaxConfig = 4 << 20

// decodeStrict reads one JSON object into v, a pointer to a struct, and holds
// it to the tags of its fields.
func decodeStrict(data []byte, v any) error {
	if len(data) > MaxConfig {
		return wrong("", "longer than %d bytes", MaxConfig)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	tree, err := readTree(dec, "", 0)
	if err != nil {
		return err
	}
	if _, err := dec.Token(); err != io.EOF {
		return wrong("", "text behind the object, at byte %d", dec.InputOffset())
	}
	if _, ok := tree.(map[string]any); !ok {
		return wrong("", "want one JSON object")
	}
	if err := checkTree("", tree, reflect.TypeOf(v).Elem(), ""); err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return wrong("", "%v", err)
	}
	return nil
}

// readTree reads a value like encoding/json, but refuses duplicate keys.
func readTree(dec *json.Decoder, path string, depth int) (any, error) {
	if depth > 32 {
		return nil, wrong(path, "nested too deeply")
	}
	tok, err := dec.Token()
	if err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, wrong(path, "byte %d: %v", dec.InputOffset(), err)
	}
	switch tok {
	case json.Delim('{'):
		m := make(map[string]any)
		for dec.More() {
			tok, err := dec.Token()
			if err != nil {
				return nil, wrong(path, "byte %d: %v", dec.InputOffset(), err)
			}
			key, ok := tok.(string)
			if !ok {
				return nil, wrong(path, "byte %d: a key must be a string", dec.InputOffset())
			}
			if _, twice := m[key]; twice {
				return nil, wrong(join(path, key), "stands twice")
			}
			if m[key], err = readTree(dec, join(path, key), depth+1); err != nil {
				return nil, err
			}
		}
		if _, err := dec.Token(); err != nil {
			return nil, wrong(path, "byte %d: %v", dec.InputOffset(), err)
		}
		return m, nil
	case json.Delim('['):
		list := []any{}
		for dec.More() {
			e, err := readTree(dec, fmt.Sprintf("%s[%d]", path, len(list)), depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, e)
		}
		if _, err := dec.Token(); err != nil {
			return nil, wrong(path, "byte %d: %v", dec.InputOffset(), err)
		}
		return list, nil
	}
	return tok, nil
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// checkTree holds a value to a Go type and a field's tags.
func checkTree(path string, v any, t reflect.Type, tag reflect.StructTag) error {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	mismatch := func(want string) error { return wrong(path, "want %s, not %s", want, kindOf(v)) }
	switch t.Kind() {
	case reflect.Struct:
		m, ok := v.(map[string]any)
		if !ok {
			return mismatch("an object")
		}
		return checkStruct(path, m, t)
	case reflect.Map:
		m, ok := v.(map[string]any)
		if !ok {
			return mismatch("an object")
		}
		for _, k := range names(m) {
			if tag.Get("key") == "ifname" && !validName(k) {
				return wrong(join(path, k), "%q can't name a network interface: at most 15 letters, digits and ._-@", k)
			}
			if err := checkTree(join(path, k), m[k], t.Elem(), tag); err != nil {
				return err
			}
		}
	case reflect.Slice:
		list, ok := v.([]any)
		if !ok {
			return mismatch("a list")
		}
		for i, e := range list {
			if err := checkTree(fmt.Sprintf("%s[%d]", path, i), e, t.Elem(), tag); err != nil {
				return err
			}
		}
	case reflect.Bool:
		if _, ok := v.(bool); !ok {
			return mismatch("true or false")
		}
	case reflect.Int:
		n, ok := v.(json.Number)
		if !ok {
			return mismatch("a number")
		}
		i, err := strconv.Atoi(string(n))
		if err != nil {
			return wrong(path, "want a whole number, not %s", n)
		}
		if low, err := strconv.Atoi(tag.Get("min")); err == nil && i < low {
			return wrong(path, "%d is less than %d", i, low)
		}
		if high, err := strconv.Atoi(tag.Get("max")); err == nil && i > high {
			return wrong(path, "%d is more than %d", i, high)
		}
	case reflect.String:
		s, ok := v.(string)
		if !ok {
			return mismatch("a string")
		}
		return checkString(path, s, tag)
	}
	return nil
}

func checkStruct(path string, m map[string]any, t reflect.Type) error {
	known := make(map[string]reflect.StructField)
	for i := range t.NumField() {
		f := t.Field(i)
		known[fieldName(f)] = f
	}
	for _, k := range names(m) {
		f, ok := known[k]
		if !ok {
			e := wrong(join(path, k), "unknown key")
			if s := nearest(k, names(known)); s != "" {
				e.Advice = fmt.Sprintf("did you mean %q?", s)
			} else {
				e.Advice = "known here are: " + strings.Join(names(known), ", ")
			}
			return e
		}
		if err := checkTree(join(path, k), m[k], f.Type, f.Tag); err != nil {
			return err
		}
	}
	for _, k := range names(known) {
		if _, there := m[k]; !there && known[k].Tag.Get("required") == "true" {
			return wrong(join(path, k), "is missing")
		}
	}
	return nil
}

func fieldName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}

func checkString(path, s string, tag reflect.StructTag) error {
	if strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r == 0x7f }) {
		return wrong(path, "has control characters")
	}
	if enum := tag.Get("enum"); enum != "" {
		if list := strings.Split(enum, ","); !slices.Contains(list, s) {
			e := wrong(path, "%q is none of %s", s, strings.Join(list, ", "))
			if n := nearest(s, list); n != "" {
				e.Advice = fmt.Sprintf("did you mean %q?", n)
			}
			return e
		}
	}
	switch tag.Get("format") {
	case "ifname":
		if !validName(s) {
			return wrong(path, "%q can't name a network interface: at most 15 letters, digits and ._-@", s)
		}
	case "mac":
		if m, err := net.ParseMAC(s); err != nil || len(m) != 6 || s != m.String() {
			return wrong(path, "%q is no Ethernet address such as 02:00:00:00:00:01, in small letters", s)
		} else if m[0]&1 == 1 {
			return wrong(path, "%s is a group address", s)
		}
	case "cidr":
		if p, err := netip.ParsePrefix(s); err != nil || p != p.Masked() {
			return wrong(path, "%q is no network such as 10.0.1.0/24", s)
		}
	}
	return nil
}

func kindOf(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case bool:
		return strconv.FormatBool(v)
	case json.Number:
		return "the number " + string(v)
	case string:
		return fmt.Sprintf("the string %.40q", v)
	case []any:
		return "a list"
	}
	return "an object"
}

// nearest returns the candidate that s is most likely a slip of, or "".
func nearest(s string, candidates []string) string {
	best, least := "", 1+(len(s)+1)/3
	for _, c := range candidates {
		if d := distance(strings.ToLower(s), strings.ToLower(c)); d < least {
			best, least = c, d
		}
	}
	return best
}

// distance is the number of letters to insert, delete, replace or swap with
// their neighbour to make b of a (optimal string alignment).
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	d := make([][]int, len(a)+1)
	for i := range d {
		d[i] = make([]int, len(b)+1)
		d[i][0] = i
	}
	for j := range d[0] {
		d[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			d[i][j] = min(d[i-1][j]+1, d[i][j-1]+1, d[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d[i][j] = min(d[i][j], d[i-2][j-2]+1)
			}
		}
	}
	return d[len(a)][len(b)]
}

// Decode reads one JSON object into v, a pointer to a struct, and holds it to
// the tags of its fields, as Parse does for a Config. Its errors are
// *ConfigError.
func Decode(data []byte, v any) error { return decodeStrict(data, v) }

// Nearest returns the candidate that s is most likely a slip of, or "".
func Nearest(s string, candidates []string) string { return nearest(s, candidates) }
