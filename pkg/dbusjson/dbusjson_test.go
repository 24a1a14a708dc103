package dbusjson_test

import (
	"encoding/json"
	"flag"
	"math"
	"os"
	"reflect"
	"strings"
	"testing"

	. "github.com/ghostbridge/ghostbridge/pkg/dbusjson"
	"github.com/ghostbridge/ghostbridge/pkg/dbusjson/dbusjsontest"
)

func typ(t testing.TB, s string) *Type {
	t.Helper()
	x, err := ParseType(s)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func TestForms(t *testing.T) {
	for _, c := range []struct {
		sig   string
		value any
		json  string
	}{
		{"y", uint8(255), `255`}, {"n", int16(-32768), `-32768`}, {"q", uint16(65535), `65535`},
		{"i", int32(math.MinInt32), `-2147483648`}, {"u", uint32(math.MaxUint32), `4294967295`},
		{"x", int64(math.MinInt64), `"-9223372036854775808"`}, {"t", uint64(math.MaxUint64), `"18446744073709551615"`},
		{"b", true, `true`}, {"b", false, `false`},
		{"d", 0.1, `0.1`}, {"d", math.Copysign(0, -1), `-0`}, {"d", 1e21, `1e+21`}, {"d", 1e-7, `1e-07`}, {"d", math.Inf(1), `"Infinity"`},
		{"d", math.Inf(-1), `"-Infinity"`}, {"d", math.Float64frombits(0x7ff8000000000000), `"NaN"`},
		{"d", math.Float64frombits(0xfff0000000000001), `"NaN:fff0000000000001"`},
		{"s", "a\"\\\n\x01<\u2028\U0001F600", `"a\"\\\n\u0001<` + "\u2028\U0001F600\""}, {"o", Path("/a/b_1"), `"/a/b_1"`}, {"g", Signature("a{sv}"), `"a{sv}"`},
		{"ay", []byte{0, 1}, `{"b64":"AAE="}`}, {"ay", []byte{}, `{"b64":""}`}, {"as", []any{}, `[]`},
		{"a{sv}", Dict{{"z", Variant{typ(t, "u"), uint32(7)}}, {"a", Variant{typ(t, "x"), int64(7)}}}, `{"z":{"t":"u","v":7},"a":{"t":"x","v":"7"}}`},
		{"a{us}", Dict{{uint32(1), "x"}}, `[[1,"x"]]`}, {"a{ss}", Dict{{"k", "1"}, {"k", "2"}}, `[["k","1"],["k","2"]]`},
		{"a(sv)", []any{[]any{"n", Variant{typ(t, "v"), Variant{typ(t, "y"), uint8(1)}}}}, `[["n",{"t":"v","v":{"t":"y","v":1}}]]`},
		{"a{bay}", Dict{{true, []byte{255}}}, `[[true,{"b64":"/w=="}]]`},
	} {
		ty := typ(t, c.sig)
		got, err := Marshal(ty, c.value)
		if err != nil || string(got) != c.json {
			t.Errorf("Marshal %s: got %s, %v, want %s", c.sig, got, err, c.json)
		}
		back, err := Unmarshal([]byte(c.json), ty)
		if err != nil {
			t.Errorf("Unmarshal %s of %s: %v", c.json, c.sig, err)
			continue
		}
		if again, err := Marshal(ty, back); err != nil || string(again) != c.json {
			t.Errorf("%s: %s came back as %s, %v", c.sig, c.json, again, err)
		}
	}
	if got, err := Marshal(typ(t, "h"), FD{2, "pipe"}); err != nil || string(got) != `{"fd":2,"kind":"pipe"}` {
		t.Errorf("descriptor: %s, %v", got, err)
	}
}

// What Unmarshal also reads.
func TestAlso(t *testing.T) {
	for _, c := range []struct{ sig, in, want string }{
		{"x", ` -7 `, `"-7"`}, {"t", `18446744073709551615`, `"18446744073709551615"`}, {"ay", `[1, 2]`, `{"b64":"AQI="}`},
		{"v", `"x"`, `{"t":"s","v":"x"}`}, {"v", `true`, `{"t":"b","v":true}`}, {"v", `{"v":1,"t":"y"}`, `{"t":"y","v":1}`},
		{"a{ss}", `[["a","b"]]`, `{"a":"b"}`}, {"d", `1E2`, `100`}, {"s", `"\ud83d\ude00"`, "\"\U0001F600\""},
	} {
		v, err := Unmarshal([]byte(c.in), typ(t, c.sig))
		if err != nil {
			t.Errorf("%s of %s: %v", c.in, c.sig, err)
			continue
		}
		if got, err := Marshal(typ(t, c.sig), v); err != nil || string(got) != c.want {
			t.Errorf("%s of %s: got %s, %v, want %s", c.in, c.sig, got, err, c.want)
		}
	}
}

func TestRefused(t *testing.T) {
	deep := strings.Repeat(`{"t":"v","v":`, 70) + `"x"` + strings.Repeat("}", 70)
	for _, c := range []struct{ sig, in, want string }{
		{"y", `256`, "0 to 255"}, {"y", `-1`, "0 to 255"}, {"y", `1.5`, "whole number"}, {"y", `1e2`, "whole number"}, {"y", `"1"`, "have a string"}, {"n", `40000`, "32767"},
		{"u", `4294967296`, "4294967295"}, {"x", `"9223372036854775808"`, "64 bits"}, {"t", `"-1"`, "64 bits"}, {"t", `"+1"`, "decimal"}, {"x", `""`, "whole"}, {"x", `null`, "have null"},
		{"b", `1`, "true or false"}, {"s", `1`, "want a string"}, {"s", `"\u0000"`, "zero byte"}, {"s", `"\ud800"`, "surrogate"}, {"s", `"\udc00"`, "surrogate"},
		{"s", `"\ud800\u0041"`, "surrogate"}, {"s", "\"\xff\"", "UTF-8"}, {"s", `"a" "b"`, "not JSON"}, {"s", ``, "not JSON"},
		{"o", `"a"`, "object path"}, {"o", `"/a/"`, "object path"}, {"o", `"//"`, "object path"}, {"o", `""`, "object path"}, {"g", `"a"`, "ends within"}, {"g", `"()"`, "without a field"},
		{"d", `1e400`, "range"}, {"d", `"nan"`, "no number"}, {"d", `"NaN:7ff0000000000000"`, "no number"}, {"d", `true`, "a boolean"},
		{"v", `7`, "needs its type"}, {"v", `{"t":"u"}`, "needs its type"}, {"v", `{"t":"u","v":1,"w":2}`, "needs its type"}, {"v", `{"t":"uu","v":[1,2]}`, "2 types"},
		{"v", `{"t":"","v":1}`, "needs its type"}, {"v", `{"t":"y","t":"u","v":1}`, "needs its type"}, {"v", `{"t":"as","v":[1]}`, "at .v[0]"},
		{"h", `0`, "descriptor"}, {"ay", `{"b64":"A"}`, "base64"}, {"ay", `{"b64":"AB=="}`, "base64"}, {"ay", `"AAE="`, "want an object"}, {"ay", `[256]`, "[0]"},
		{"(su)", `["a"]`, "1 fields, want 2"}, {"a{sy}", `{"a":1,"a":2}`, "twice"}, {"a{uy}", `{"1":2}`, "[key,value]"}, {"a{uy}", `[[1]]`, "[key,value]"},
		{"v", deep, "deeper than 64"},
	} {
		v, err := Unmarshal([]byte(c.in), typ(t, c.sig))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.60s of %s: got %v, %v, want an error with %q", c.in, c.sig, v, err, c.want)
		}
	}
	if _, err := UnmarshalArgs([]byte(`[1]`), []*Type{typ(t, "u"), typ(t, "s")}); err == nil || !strings.Contains(err.Error(), `1 arguments, want 2 of signature "us"`) {
		t.Error(err)
	}
	for _, c := range []struct {
		sig string
		v   any
	}{{"s", "\xff"}, {"s", "a\x00"}, {"o", Path("a")}, {"o", "/a"}, {"g", Signature("(")}, {"u", int32(1)}, {"as", []string{"a"}}, {"(y)", []any{}}, {"v", Variant{}}, {"a{sv}", map[string]any{}}, {"y", nil}} {
		if got, err := Marshal(typ(t, c.sig), c.v); err == nil {
			t.Errorf("Marshal of %T as %s gave %s", c.v, c.sig, got)
		}
	}
}

func TestSignatures(t *testing.T) {
	for _, s := range []string{"", "y", "a{sv}", "(a(sv)a{oa{ya(g)}})", strings.Repeat("a", 32) + "y", strings.Repeat("(", 32) + "y" + strings.Repeat(")", 32), strings.Repeat("y", 255), "aav"} {
		types, err := ParseSignature(s)
		if err != nil || JoinSignature(types) != s {
			t.Errorf("%q: %q, %v", s, JoinSignature(types), err)
		}
	}
	for _, s := range []string{"a", "(", "()", ")", "{sv}", "a{v}", "a{vs}", "a{svs}", "a{s}", "a{", "a{asv}", "z", "(y", "y)", "r", "e", strings.Repeat("a", 33) + "y", strings.Repeat("(", 33) + "y" + strings.Repeat(")", 33), strings.Repeat("y", 256)} {
		if types, err := ParseSignature(s); err == nil {
			t.Errorf("%q was taken: %v", s, types)
		}
	}
}

func TestRandomRoundTrip(t *testing.T) {
	for seed := range uint64(3000) {
		m := dbusjsontest.New(seed)
		m.Twins = true
		ty := m.Type(5)
		roundTrip(t, ty, m.Value(ty, 4))
	}
}

func roundTrip(t *testing.T, ty *Type, v any) {
	t.Helper()
	text, err := Marshal(ty, v)
	if err != nil {
		t.Fatalf("%s: %v", ty, err)
	}
	if !json.Valid(text) {
		t.Fatalf("%s: not JSON: %s", ty, text)
	}
	back, err := Unmarshal(text, ty)
	if err != nil {
		t.Fatalf("%s: %s: %v", ty, text, err)
	}
	again, err := Marshal(ty, back)
	if err != nil || string(again) != string(text) {
		t.Fatalf("%s: %s came back as %s, %v", ty, text, again, err)
	}
	if !same(v, back) {
		t.Fatalf("%s: %#v came back as %#v", ty, v, back)
	}
}

// same compares values, doubles by their bits.
func same(a, b any) bool {
	switch x := a.(type) {
	case float64:
		y, ok := b.(float64)
		return ok && math.Float64bits(x) == math.Float64bits(y)
	case []any:
		y, ok := b.([]any)
		if !ok || len(x) != len(y) {
			return false
		}
		for i := range x {
			if !same(x[i], y[i]) {
				return false
			}
		}
		return true
	case Dict:
		y, ok := b.(Dict)
		if !ok || len(x) != len(y) {
			return false
		}
		for i := range x {
			if !same(x[i].Key, y[i].Key) || !same(x[i].Value, y[i].Value) {
				return false
			}
		}
		return true
	case Variant:
		y, ok := b.(Variant)
		return ok && x.Type.String() == y.Type.String() && same(x.Value, y.Value)
	}
	return reflect.DeepEqual(a, b)
}

func FuzzRoundTrip(f *testing.F) {
	f.Add(uint64(1), uint8(3))
	f.Fuzz(func(t *testing.T, seed uint64, depth uint8) {
		m := dbusjsontest.New(seed)
		m.Twins = true
		ty := m.Type(int(depth % 8))
		roundTrip(t, ty, m.Value(ty, int(depth%6)))
	})
}

// Whatever Unmarshal takes, Marshal writes as one text that reads back as the
// same.
func FuzzUnmarshalIsCanonical(f *testing.F) {
	for _, c := range [][2]string{{"a{sv}", `{"a":{"t":"u","v":7}}`}, {"d", `"NaN"`}, {"(xt)", `[1,"2"]`}, {"ay", `{"b64":"AA=="}`}, {"v", `{"t":"a{us}","v":[[1,"x"]]}`}, {"s", `"\ud83d\ude00"`}} {
		f.Add(c[0], []byte(c[1]))
	}
	f.Fuzz(func(t *testing.T, sig string, data []byte) {
		ty, err := ParseType(sig)
		if err != nil {
			return
		}
		v, err := Unmarshal(data, ty)
		if err != nil {
			return
		}
		roundTrip(t, ty, v)
	})
}

func FuzzSignature(f *testing.F) {
	f.Add("a{s(iv)}")
	f.Fuzz(func(t *testing.T, s string) {
		types, err := ParseSignature(s)
		if err == nil && JoinSignature(types) != s {
			t.Errorf("%q came back as %q", s, JoinSignature(types))
		}
	})
}

func TestIntrospection(t *testing.T) {
	data, err := os.ReadFile("testdata/example.xml")
	if err != nil {
		t.Fatal(err)
	}
	n, err := ParseIntrospection(data)
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.MarshalIndent(n, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/example.json", append(got, '\n'))
	m := n.Interface("org.example.Door").Method("Open")
	s, err := ArgsSchema("org.example.Door.Open", m.Doc, m.In)
	if err != nil {
		t.Fatal(err)
	}
	got, err = json.MarshalIndent(s, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/example.schema.json", append(got, '\n'))
	for _, bad := range []string{``, `<a/>`, `<node><interface name="x"/></node>`, `<node><interface name="a.b"><method name="1"/></interface></node>`,
		`<node><interface name="a.b"><method name="M"><arg type="z"/></method></interface></node>`, `<node><interface name="a.b"><property name="P" type="ss" access="read"/></interface></node>`,
		`<node><interface name="a.b"><property name="P" type="s" access="all"/></interface></node>`, `<node>`, `<node/><node/>`, "<node>\xff</node>", strings.Repeat("<node>", 100),
		`<!DOCTYPE node [<!ENTITY a "b">]><node name="&a;"/>`} {
		if _, err := ParseIntrospection([]byte(bad)); err == nil {
			t.Errorf("%.80s was taken", bad)
		}
	}
}

var update = flag.Bool("update", false, "write the golden files instead of comparing with them")

func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("%s is not what comes out (-update writes it anew):\n%s", path, got)
	}
}

func FuzzIntrospection(f *testing.F) {
	data, err := os.ReadFile("testdata/example.xml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := ParseIntrospection(data)
		if err != nil {
			return
		}
		// What is written is read again as it was.
		if again, err := ParseIntrospection(n.XML()); err != nil || !reflect.DeepEqual(again, n) {
			t.Fatalf("%+v came back as %+v, %v", n, again, err)
		}
		for _, i := range n.Interfaces {
			for _, m := range i.Methods {
				if _, err := ArgsSchema(m.Name, m.Doc, m.In); err != nil {
					t.Error(err)
				}
			}
		}
	})
}

// UTF-8 is the one encoding, and some write it without its dash.
func TestIntrospectionEncoding(t *testing.T) {
	for encoding, ok := range map[string]bool{"UTF-8": true, "utf8": true, "UTF8": true, "latin1": false, "UTF-16": false} {
		n, err := ParseIntrospection([]byte(`<?xml version="1.0" encoding="` + encoding + `"?><node><interface name="a.b"/></node>`))
		if (err == nil) != ok || ok && (len(n.Interfaces) != 1 || n.Interfaces[0].Name != "a.b") {
			t.Errorf("%s: %v, %v", encoding, n, err)
		}
	}
}
