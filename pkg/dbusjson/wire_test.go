package dbusjson_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	. "github.com/ghostbridge/ghostbridge/pkg/dbusjson"
	"github.com/ghostbridge/ghostbridge/pkg/dbusjson/dbusjsontest"
)

// The example of the D-Bus Specification, "Marshaling containers": ax with 5,
// in both byte orders.
func TestWireExample(t *testing.T) {
	types := []*Type{typ(t, "y"), typ(t, "ax")}
	little := []byte{1, 0, 0, 0, 8, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0}
	big := []byte{1, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 5}
	values := []any{uint8(1), []any{int64(5)}}
	if got, err := Encode(types, values); err != nil || !bytes.Equal(got, little) {
		t.Errorf("%v, %v", got, err)
	}
	for _, c := range []struct {
		data  []byte
		order binary.ByteOrder
	}{{little, binary.LittleEndian}, {big, binary.BigEndian}} {
		if got, err := Decode(c.data, c.order, types, nil); err != nil || !same(got, values) {
			t.Errorf("%v: %v, %v", c.order, got, err)
		}
	}
}

func TestWireRefuses(t *testing.T) {
	for _, c := range []struct {
		sig  string
		data string
	}{
		{"u", "\x01\x00\x00"}, {"b", "\x02\x00\x00\x00"}, {"yu", "\x01\x01\x00\x00\x01\x00\x00\x00"}, {"s", "\x01\x00\x00\x00ab"}, {"s", "\x01\x00\x00\x00\xff\x00"},
		{"s", "\x01\x00\x00\x00\x00\x00"}, {"o", "\x01\x00\x00\x00a\x00"}, {"g", "\x01z\x00"}, {"v", "\x00\x00"}, {"v", "\x02yy\x00\x01\x01"}, {"ay", "\xff\xff\xff\xff"},
		{"au", "\x03\x00\x00\x00\x01\x00\x00"}, {"y", "\x01\x02"}, {"s", "\xff\xff\xff\xff"}, {"a(yy)", "\x01\x00\x00\x00\x00\x00\x00\x00\x01\x02"},
	} {
		types, err := ParseSignature(c.sig)
		if err != nil {
			t.Fatal(err)
		}
		if v, err := Decode([]byte(c.data), binary.LittleEndian, types, nil); err == nil {
			t.Errorf("%q as %s was taken: %v", c.data, c.sig, v)
		}
	}
}

func FuzzWireRoundTrip(f *testing.F) {
	f.Add(uint64(1))
	f.Fuzz(func(t *testing.T, seed uint64) {
		m := dbusjsontest.New(seed)
		m.Twins = true
		types := m.Types(4, 4)
		values := make([]any, len(types))
		for i, ty := range types {
			values[i] = m.Value(ty, 3)
		}
		data, err := Encode(types, values)
		if err != nil {
			t.Fatal(err)
		}
		back, err := Decode(data, binary.LittleEndian, types, nil)
		if err != nil || !same(any(values), any(back)) {
			t.Fatalf("%s: %v came back as %v, %v", JoinSignature(types), values, back, err)
		}
	})
}

// Whatever Decode takes, Encode writes as the same bytes.
func FuzzWireIsCanonical(f *testing.F) {
	f.Add("a{sv}", []byte("\x10\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00a\x00\x01u\x00\x00\x00\x00\x07\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, sig string, data []byte) {
		types, err := ParseSignature(sig)
		if err != nil {
			return
		}
		values, err := Decode(data, binary.LittleEndian, types, nil)
		if err != nil {
			return
		}
		again, err := Encode(types, values)
		if err != nil || !bytes.Equal(again, data) {
			t.Fatalf("%s: %x came back as %x, %v", sig, data, again, err)
		}
	})
}
