//go:build linux

// Tests of package bus and opdbus against a real dbus-daemon, with peers that
// read and write with other programs' code.
package bus

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/ghostbridge/ghostbridge/integration/privatebus"
	"github.com/ghostbridge/ghostbridge/integration/require"
	"github.com/ghostbridge/ghostbridge/pkg/bus"
	"github.com/ghostbridge/ghostbridge/pkg/dbusjson"
	"github.com/ghostbridge/ghostbridge/pkg/dbusjson/dbusjsontest"
)

// describe writes a value as the peers in testdata do.
func describe(t *dbusjson.Type, v any) string {
	var list []string
	switch x := v.(type) {
	case bool:
		return strconv.FormatBool(x)
	case float64:
		return fmt.Sprintf("%016x", math.Float64bits(x))
	case string, dbusjson.Path, dbusjson.Signature:
		return fmt.Sprintf("'%x'", fmt.Sprint(x))
	case dbusjson.Variant:
		return "<" + x.Type.String() + " " + describe(x.Type, x.Value) + ">"
	case []byte:
		for _, b := range x {
			list = append(list, strconv.Itoa(int(b)))
		}
		return "[" + strings.Join(list, ",") + "]"
	case dbusjson.Dict:
		for _, e := range x {
			list = append(list, describe(t.Elem[0].Elem[0], e.Key)+":"+describe(t.Elem[0].Elem[1], e.Value))
		}
		return "{" + strings.Join(list, ",") + "}"
	case []any:
		for i, e := range x {
			if t.Code == '(' {
				list = append(list, describe(t.Elem[i], e))
			} else {
				list = append(list, describe(t.Elem[0], e))
			}
		}
		if t.Code == '(' {
			return "(" + strings.Join(list, ",") + ")"
		}
		return "[" + strings.Join(list, ",") + "]"
	}
	return fmt.Sprint(v)
}

// table has each type, at its edges.
var table = []struct{ sig, json string }{
	{"y", `0`}, {"y", `255`}, {"b", `true`}, {"b", `false`}, {"n", `-32768`}, {"q", `65535`}, {"i", `-2147483648`}, {"u", `4294967295`},
	{"x", `"-9223372036854775808"`}, {"x", `"9223372036854775807"`}, {"t", `"18446744073709551615"`}, {"t", `"9007199254740993"`},
	{"d", `0.1`}, {"d", `-0`}, {"d", `1.7976931348623157e308`}, {"d", `5e-324`}, {"d", `"NaN"`}, {"d", `"Infinity"`}, {"d", `"-Infinity"`},
	{"s", `""`}, {"s", `"a\"\\\n\u0001ä\u2028😀"`}, {"o", `"/"`}, {"o", `"/a/b_1"`}, {"g", `""`}, {"g", `"a{sv}(iu)"`},
	{"ay", `{"b64":"AAH/"}`}, {"ay", `{"b64":""}`}, {"as", `[]`}, {"a{sv}", `{}`}, {"a(ii)", `[]`}, {"ab", `[]`}, {"at", `[]`}, {"aay", `[]`}, {"av", `[]`}, {"ad", `[]`}, {"ao", `[]`},
	{"a{sv}", `{"k":{"t":"v","v":{"t":"a{us}","v":[[1,"x"]]}}}`}, {"a{us}", `[[4294967295,"m"]]`}, {"a{yv}", `[[1,{"t":"ay","v":{"b64":"/w=="}}]]`}, {"a{bs}", `[[true,"x"],[false,"y"]]`},
	{"a{ds}", `[[1.5,"x"]]`}, {"a{os}", `{"/a":"x"}`}, {"a{gs}", `{"a{sv}":"x"}`}, {"a{xt}", `[["-1","18446744073709551615"]]`},
	{"(a(sv))", `[[["n",{"t":"(ss)","v":["a","b"]}]]]`}, {"aa{sas}", `[{"a":["x","y"]},{}]`}, {"(y(n(q(i(u(x(t(d))))))))", `[1,[2,[3,[4,[5,["6",["7",[0.5]]]]]]]]`},
	{"v", `{"t":"v","v":{"t":"v","v":{"t":"b","v":true}}}`}, {"aaaaay", `[[[[{"b64":"AQ=="}]]]]`},
}

// values returns the table and n random ones.
func values(t *testing.T, n int) (types []*dbusjson.Type, list []any) {
	for _, c := range table {
		ty, err := dbusjson.ParseType(c.sig)
		if err != nil {
			t.Fatal(err)
		}
		v, err := dbusjson.Unmarshal([]byte(c.json), ty)
		if err != nil {
			t.Fatal(c, err)
		}
		types, list = append(types, ty), append(list, v)
	}
	for seed := range uint64(n) {
		m := dbusjsontest.New(seed)
		m.OneNaN = true
		ty := m.Type(4)
		types, list = append(types, ty), append(list, m.Value(ty, 3))
	}
	return types, list
}

var variantType, _ = dbusjson.ParseType("v")

// Each value goes as JSON to a peer that has another codec; what the peer saw
// and what it sends back are the value again.
func TestCodecsAgree(t *testing.T) {
	address := privatebus.Start(t, privatebus.Options{Open: true})
	conn, err := bus.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	types, list := values(t, 600)
	for _, peer := range []struct{ script, name string }{{"testdata/echo_libdbus.py", "org.example.LibDBus"}, {"testdata/echo_glib.py", "org.example.GLib"}} {
		t.Run(peer.name, func(t *testing.T) {
			privatebus.Run(t, "ready", nil, privatebus.Python, peer.script, address)
			for i, v := range list {
				arg := dbusjson.Variant{Type: types[i], Value: v}
				text, err := dbusjson.Marshal(variantType, arg)
				if err != nil {
					t.Fatal(err)
				}
				back, err := dbusjson.Unmarshal(text, variantType)
				if err != nil {
					t.Fatal(err)
				}
				call := bus.Call{Name: peer.name, Path: "/org/example/Codec", Interface: "org.example.Codec", Member: "Describe",
					Args: bus.Body{Types: []*dbusjson.Type{variantType}, Values: []any{back}}}
				b, err := conn.Call(t.Context(), call)
				if err != nil {
					t.Fatalf("%s: %v", text, err)
				}
				if want := describe(variantType, arg); b.Values[0] != want {
					t.Fatalf("%s\nsaw  %s\nwant %s", text, b.Values[0], want)
				}
				call.Member = "Echo"
				if b, err = conn.Call(t.Context(), call); err != nil {
					t.Fatalf("%s: %v", text, err)
				}
				again, err := dbusjson.Marshal(variantType, b.Values[0])
				if err != nil || string(again) != string(text) {
					t.Fatalf("%s\ncame back as %s, %v", text, again, err)
				}
			}
		})
	}
}

// busctl reads the same values from the bus; its JSON says the same as ours.
func TestBusctlAgrees(t *testing.T) {
	busctl := require.Tool(t, "busctl")
	address := privatebus.Start(t, privatebus.Options{Open: true})
	var types []*dbusjson.Type
	var list []any
	all, everything := values(t, 400)
	for i, ty := range all {
		if !oddKeys(ty, everything[i]) {
			types, list = append(types, ty), append(list, everything[i])
		}
	}
	if len(list) < 350 {
		t.Fatalf("%d values are left", len(list))
	}
	const batch = 25
	srv, err := bus.NewServer(t.Context(), address, func(_ context.Context, in bus.Incoming) (bus.Body, error) {
		from := int(in.Args.Values[0].(uint32))
		var vs []any
		for i := from; i < min(from+batch, len(list)); i++ {
			vs = append(vs, dbusjson.Variant{Type: types[i], Value: list[i]})
		}
		av, _ := dbusjson.ParseType("av")
		return bus.Body{Types: []*dbusjson.Type{av}, Values: []any{vs}}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	if err := srv.RequestName(t.Context(), "org.example.Values"); err != nil {
		t.Fatal(err)
	}
	for from := 0; from < len(list); from += batch {
		out, err := exec.Command(busctl, "--json=short", "--address="+address, "call", "org.example.Values", "/", "org.example.Values", "Get", "u", strconv.Itoa(from)).Output()
		if err != nil {
			t.Fatalf("%v: %s %s", err, err.(*exec.ExitError).Stderr, out)
		}
		var m struct {
			Data [][]json.RawMessage `json:"data"`
		}
		if err := json.Unmarshal(out, &m); err != nil {
			t.Fatal(err)
		}
		for k, raw := range m.Data[0] {
			want := dbusjson.Variant{Type: types[from+k], Value: list[from+k]}
			if msg := likeBusctl(variantType, want, raw); msg != "" {
				t.Errorf("%s: %s\nbusctl %s", describe(variantType, want), msg, raw)
			}
		}
	}
}

// oddKeys says whether v has a dict entry whose key is no string: busctl 252
// fails on those without a word.
func oddKeys(t *dbusjson.Type, v any) bool {
	switch x := v.(type) {
	case dbusjson.Variant:
		return oddKeys(x.Type, x.Value)
	case dbusjson.Dict:
		for _, e := range x {
			if c := t.Elem[0].Elem[0].Code; c != 's' && c != 'o' && c != 'g' || oddKeys(t.Elem[0].Elem[1], e.Value) {
				return true
			}
		}
	case []any:
		for i, e := range x {
			et := t.Elem[0]
			if t.Code == '(' {
				et = t.Elem[i]
			}
			if oddKeys(et, e) {
				return true
			}
		}
	}
	return false
}

// likeBusctl compares a value with busctl's JSON of it, and says how they
// differ. busctl writes a 64-bit integer as a number, bytes as numbers, and
// what is no number as null; it prints doubles with 17 digits.
func likeBusctl(t *dbusjson.Type, v any, raw json.RawMessage) string {
	differ := func() string { return fmt.Sprintf("%s is %s", describe(t, v), raw) }
	switch x := v.(type) {
	case float64:
		if math.IsNaN(x) || math.IsInf(x, 0) {
			if string(raw) == "null" {
				return ""
			}
			return differ()
		}
		if f, err := strconv.ParseFloat(string(raw), 64); err != nil || f != x {
			return differ()
		}
		return ""
	case bool, uint8, int16, uint16, int32, uint32, int64, uint64:
		if string(raw) != fmt.Sprint(x) {
			return differ()
		}
		return ""
	case string, dbusjson.Path, dbusjson.Signature:
		var s string
		if json.Unmarshal(raw, &s) != nil || s != fmt.Sprint(x) {
			return differ()
		}
		return ""
	case dbusjson.Variant:
		var m struct {
			Type string
			Data json.RawMessage
		}
		if json.Unmarshal(raw, &m) != nil || m.Type != x.Type.String() {
			return differ()
		}
		return likeBusctl(x.Type, x.Value, m.Data)
	case []byte:
		var numbers []int
		if json.Unmarshal(raw, &numbers) != nil || len(numbers) != len(x) {
			return differ()
		}
		for i := range x {
			if numbers[i] != int(x[i]) {
				return differ()
			}
		}
		return ""
	case dbusjson.Dict:
		return dictLikeBusctl(t, x, raw)
	case []any:
		var items []json.RawMessage
		if json.Unmarshal(raw, &items) != nil || len(items) != len(x) {
			return differ()
		}
		for i, e := range x {
			et := t.Elem[0]
			if t.Code == '(' {
				et = t.Elem[i]
			}
			if msg := likeBusctl(et, e, items[i]); msg != "" {
				return msg
			}
		}
		return ""
	}
	return differ()
}

func dictLikeBusctl(t *dbusjson.Type, d dbusjson.Dict, raw json.RawMessage) string {
	if bytes.HasPrefix(raw, []byte("{")) {
		var m map[string]json.RawMessage
		if json.Unmarshal(raw, &m) != nil || len(m) != len(d) {
			return fmt.Sprintf("a dict is %s", raw)
		}
		for _, e := range d {
			item, ok := m[fmt.Sprint(e.Key)]
			if !ok {
				return fmt.Sprintf("key %v is missing in %s", e.Key, raw)
			}
			if msg := likeBusctl(t.Elem[0].Elem[1], e.Value, item); msg != "" {
				return msg
			}
		}
		return ""
	}
	return fmt.Sprintf("a dict is %s", raw)
}
