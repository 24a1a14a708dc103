package bus

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/dbusjson"
)

// wholeHeader is a message as the bus would send it, from fields.
func wholeHeader(t testing.TB, order binary.ByteOrder, fields []any) []byte {
	t.Helper()
	raw, err := dbusjson.Encode(fieldsType, []any{fields})
	if err != nil {
		t.Fatal(err)
	}
	if len(raw) < 8 {
		return nil
	}
	return raw[8:]
}

func field(code byte, sig string, v any) any {
	return []any{code, dbusjson.Variant{Type: mustTypes(sig)[0], Value: v}}
}

// The quick way through a header and the one by dbusjson agree, on what is
// refused too.
func FuzzFieldsAreReadAlike(f *testing.F) {
	all := []any{
		field(fieldPath, "o", dbusjson.Path("/a/b")), field(fieldInterface, "s", "x.y"), field(fieldMember, "s", "M"), field(fieldReplySerial, "u", uint32(7)),
		field(fieldDestination, "s", "a.b"), field(fieldSender, "s", ":1.5"), field(fieldSignature, "g", dbusjson.Signature("a{sv}")), field(fieldUnixFDs, "u", uint32(1)),
	}
	f.Add(wholeHeader(f, binary.LittleEndian, all), false)
	f.Add(wholeHeader(f, binary.LittleEndian, append(all, field(99, "a{sv}", dbusjson.Dict{}), field(100, "s", "unknown"))), false)
	f.Add(wholeHeader(f, binary.LittleEndian, []any{field(fieldPath, "s", "/")}), false)
	f.Add([]byte{}, true)
	f.Fuzz(func(t *testing.T, b []byte, big bool) {
		var order binary.ByteOrder = binary.LittleEndian
		if big {
			order = binary.BigEndian
		}
		if len(b) > 1<<16 {
			return
		}
		var quick, slow message
		qerr, serr := quick.parseFields(b, order), slow.parseAnyFields(b, order)
		// dbusjson refuses more: texts that are no UTF-8, paths that are none.
		// A bus sends neither, and nothing is done with them.
		if serr == nil && (qerr != nil || !reflect.DeepEqual(quick, slow)) {
			t.Fatalf("%x:\n%+v %v\n%+v", b, quick, qerr, slow)
		}
	})
}

// What append writes is what read reads.
func TestMessageRoundTrip(t *testing.T) {
	for i, m := range []message{
		{kind: typeCall, flags: flagInteractive, path: "/org/example", iface: "org.example.I", member: "Do", destination: "org.example", signature: "su", body: []byte{2, 0, 0, 0, 'h', 'i', 0, 0, 7, 0, 0, 0}},
		{kind: typeReturn, replySerial: 1 << 31, destination: ":1.1"},
		{kind: typeError, replySerial: 3, destination: ":1.1", errorName: "a.b", signature: "y", body: []byte{1}},
		{kind: typeSignal, path: "/", iface: "a.b", member: strings.Repeat("M", 255)},
		{kind: typeCall, path: "/" + strings.Repeat("x", 9000), member: "M"}, // a header longer than what is peeked at
	} {
		a, b := pair(t)
		go func() {
			a.conn.Write(m.append(nil, 42))
			// A second message behind a body that is not padded.
			a.conn.Write(m.append(nil, 43))
		}()
		for _, serial := range []uint32{42, 43} {
			got, err := b.read()
			if err != nil {
				t.Fatal(i, err)
			}
			want := m
			want.serial, want.order = serial, binary.LittleEndian
			if want.body == nil {
				want.body = []byte{}
			}
			if !reflect.DeepEqual(*got, want) {
				t.Errorf("%d: got %+v, want %+v", i, *got, want)
			}
		}
	}
}

// pair is two ends of a socket.
func pair(t *testing.T) (a, b *wire) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	one, err := net.DialUnix("unix", nil, l.Addr().(*net.UnixAddr))
	if err != nil {
		t.Fatal(err)
	}
	two, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	a, b = newWire(one), newWire(two)
	t.Cleanup(func() { a.close(); b.close() })
	return a, b
}

// Senders leave their messages to the one that writes: all arrive whole, those
// of one sender in order, each with a serial of its own.
func TestSendersShareAWire(t *testing.T) {
	a, b := pair(t)
	const senders, each = 16, 500
	var wg sync.WaitGroup
	for s := range senders {
		wg.Go(func() {
			for n := range each {
				m := &message{kind: typeSignal, path: fmt.Sprintf("/s%d", s), iface: "a.b", member: "M", replySerial: uint32(n + 1), body: bytes.Repeat([]byte{1}, n)}
				if err := a.send(m, nil); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	serials, last := map[uint32]bool{}, map[string]uint32{}
	for range senders * each {
		m, err := b.read()
		if err != nil {
			t.Fatal(err)
		}
		if serials[m.serial] || m.replySerial != last[m.path]+1 || len(m.body) != int(m.replySerial)-1 {
			t.Fatalf("serial %d, %s: %d after %d", m.serial, m.path, m.replySerial, last[m.path])
		}
		serials[m.serial], last[m.path] = true, m.replySerial
	}
	wg.Wait()
}

// Whatever stands at the other end, the connection ends, and so do the calls
// on it.
func TestNoBusAtTheOtherEnd(t *testing.T) {
	greeting := "OK 1234\r\nAGREE_UNIX_FD\r\n"
	hello := (&message{kind: typeReturn, replySerial: 1, signature: "s", body: []byte{4, 0, 0, 0, ':', '1', '.', '1', 0}}).append(nil, 1)
	for name, says := range map[string]string{
		"nothing": "", "refuses": "REJECTED EXTERNAL\r\n", "babble": strings.Repeat("x", 1<<20), "no descriptors": "OK 1\r\nWHAT\r\n",
		"ends": greeting, "no message": greeting + strings.Repeat("?", 64), "ends in a message": greeting + string(hello[:20]),
		"hello, then nonsense": greeting + string(hello) + "l\x02\x00\x02" + strings.Repeat("\xff", 100),
		"huge header":          greeting + string(hello) + "l\x02\x00\x01\x00\x00\x00\x00\x01\x00\x00\x00\xff\xff\xff\xff",
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "bus")
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				c, err := l.Accept()
				if err != nil {
					return
				}
				io.WriteString(c, says)
				c.SetReadDeadline(time.Now().Add(time.Second / 2))
				io.Copy(io.Discard, c)
				c.Close()
			}()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			c, err := Connect(ctx, "unix:path="+path)
			if err == nil {
				_, err = c.Call(ctx, Call{Name: "a.b", Path: "/", Interface: "a.b", Member: "M"})
				if !errors.Is(err, ErrClosed) {
					t.Errorf("Call: %v", err)
				}
				<-c.Done()
				if _, err := c.Call(ctx, Call{Name: "a.b", Path: "/", Interface: "a.b", Member: "M"}); !errors.Is(err, ErrClosed) {
					t.Errorf("a second Call: %v", err)
				}
				c.Close()
			}
			if err == nil || ctx.Err() != nil {
				t.Errorf("error %v, %v", err, ctx.Err())
			}
		})
	}
	if entries, err := os.ReadDir("/proc/self/fd"); err != nil || len(entries) > 64 {
		t.Errorf("%d descriptors, %v", len(entries), err)
	}
}
