package ovsdb

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

func TestValuesKeepTheirText(t *testing.T) {
	for in, want := range map[string]string{
		`{"a":"x"}`:                           `"x"`,
		`{"a":1}`:                             `1`,
		`{"a":1.0}`:                           `1`,
		`{"a":1.5}`:                           `1.5`,
		`{"a":true}`:                          `true`,
		`{"a":["uuid","u1"]}`:                 `uuid:u1`,
		`{"a":["set",[]]}`:                    `[]`,
		`{"a":["set",["x"]]}`:                 `"x"`,
		`{"a":["set",["y","x"]]}`:             `["x", "y"]`,
		`{"a":["map",[["k","v"],["b","c"]]]}`: `{"b": "c", "k": "v"}`,
		`{"a":["map",[[1,["uuid","u1"]]]]}`:   `{1: uuid:u1}`,
		`{"a":["set",[["uuid","b"],["uuid","a"]]]}`: `[uuid:a, uuid:b]`,
	} {
		var r Row
		if err := json.Unmarshal([]byte(in), &r); err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		if got := Text(r["a"]); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
		out, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		var again Row
		if err := json.Unmarshal(out, &again); err != nil || !Equal(r["a"], again["a"]) {
			t.Errorf("%s came back as %s: %v", in, out, err)
		}
	}
	for _, bad := range []string{`{"a":[]}`, `{"a":["set"]}`, `{"a":["set",[[]]]}`, `{"a":["map",[["k"]]]}`, `{"a":null}`, `{"a":{}}`, `{"a":["what",[]]}`, `{"a":["set",[["set",[]]]]}`} {
		var r Row
		if err := json.Unmarshal([]byte(bad), &r); err == nil {
			t.Errorf("%s was accepted as %v", bad, r)
		}
	}
}

func TestFramesEndWhereTheBracesClose(t *testing.T) {
	in := ` {"a":"}\"{"}{"b":[{}]}` + "\n" + `{}`
	for _, r := range []io.Reader{strings.NewReader(in), iotest.OneByteReader(strings.NewReader(in))} {
		br := bufio.NewReader(r)
		for _, want := range []string{`{"a":"}\"{"}`, `{"b":[{}]}`, `{}`} {
			if b, err := frame(br, 100); err != nil || string(b) != want {
				t.Errorf("%s, %v, want %s", b, err, want)
			}
		}
		if _, err := frame(br, 100); err != io.EOF {
			t.Errorf("at the end: %v", err)
		}
	}
	if _, err := frame(bufio.NewReader(strings.NewReader(`{"a":"`+strings.Repeat("x", 200))), 100); err == nil {
		t.Error("a message past the limit was accepted")
	}
	if _, err := frame(bufio.NewReader(strings.NewReader(`x`)), 100); err == nil {
		t.Error("rubbish was accepted")
	}
}

func FuzzFrameIsWhatTheDecoderReads(f *testing.F) {
	f.Add([]byte(`{"id":0,"result":[{}],"error":null}{"a":"\\"}`))
	f.Add([]byte(` {"a":["map",[["}",1]]]} x`))
	f.Fuzz(func(t *testing.T, data []byte) {
		dec := json.NewDecoder(bytes.NewReader(data))
		r := bufio.NewReader(bytes.NewReader(data))
		for {
			var want json.RawMessage
			if dec.Decode(&want) != nil || len(want) == 0 || want[0] != '{' {
				return
			}
			got, err := frame(r, len(data))
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%q, %v, want %q", got, err, want)
			}
			var row Row
			if json.Unmarshal(got, &row) == nil {
				out, err := json.Marshal(row)
				if err != nil {
					t.Skip() // a map that ends with two equal keys, or a NaN
				}
				var again Row
				if err := json.Unmarshal(out, &again); err != nil {
					t.Fatalf("%s does not come back: %v", out, err)
				}
			}
		}
	})
}

// serve answers one connection with the given function of each request.
func serve(t *testing.T, answer func(net.Conn, message)) *Client {
	t.Helper()
	l, err := net.Listen("unix", t.TempDir()+"/s")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		dec := json.NewDecoder(conn)
		for {
			var m message
			if dec.Decode(&m) != nil {
				return
			}
			answer(conn, m)
		}
	}()
	c, err := Dial(context.Background(), "unix:"+l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestOperationErrorsAreErrors(t *testing.T) {
	for answer, want := range map[string]string{
		`[{"error":"constraint violation","details":"no such enum"},null]`:      "constraint violation",
		`[{"count":1},{"error":"aborted"}]`:                                     "aborted",
		`[{"count":1},{"count":1},{"error":"referential integrity violation"}]`: "referential integrity",
		`[{"count":1}]`: "1 results",
		`{}`:            "answer to a transaction",
	} {
		c := serve(t, func(conn net.Conn, m message) {
			conn.Write([]byte(`{"id":` + string(m.ID) + `,"result":` + answer + `,"error":null}`))
		})
		_, err := c.Transact(context.Background(), "db", Select("T", ""), Select("T", ""))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", answer, err)
		}
	}
	c := serve(t, func(conn net.Conn, m message) {
		conn.Write([]byte(`{"id":` + string(m.ID) + `,"result":[{"error":"timed out"}],"error":null}`))
	})
	if _, err := c.Transact(context.Background(), "db", Wait("T", "u", Row{"a": int64(1)})); !errors.Is(err, ErrConflict) {
		t.Errorf("a wait that failed: %v", err)
	}
	c = serve(t, func(conn net.Conn, m message) {
		conn.Write([]byte(`{"id":` + string(m.ID) + `,"result":null,"error":{"error":"unknown database","details":"x"}}`))
	})
	if _, err := c.Schema(context.Background(), "x"); err == nil || !strings.Contains(err.Error(), "unknown database: x") {
		t.Errorf("got %v", err)
	}
}

func TestCallsEnd(t *testing.T) {
	silent := serve(t, func(net.Conn, message) {})
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := silent.Schema(ctx, "db"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a silent server: %v", err)
	}
	for name, answer := range map[string]string{"hangs up": "", "rubbish": "HTTP/1.1 400", "torn": `{"id":0,"res`} {
		c := serve(t, func(conn net.Conn, m message) { conn.Write([]byte(answer)); conn.Close() })
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		if _, err := c.Schema(ctx, "db"); err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a server that answers with %s: %v", name, err)
		}
		cancel()
		<-c.Done()
		if _, err := c.Schema(context.Background(), "db"); err == nil || c.Err() == nil {
			t.Errorf("after that: %v", err)
		}
	}
	if _, err := Dial(context.Background(), "unix:/nonexistent"); err == nil {
		t.Error("connected to nothing")
	}
	if _, err := Dial(context.Background(), "/run/db.sock"); err == nil {
		t.Error("a remote without a method was accepted")
	}
}

func TestEchoIsAnswered(t *testing.T) {
	got := make(chan message, 1)
	c := serve(t, func(conn net.Conn, m message) {
		if m.Method == "get_schema" {
			conn.Write([]byte(`{"id":"e","method":"echo","params":["x"]}{"id":` + string(m.ID) + `,"result":{},"error":null}`))
			return
		}
		got <- m
	})
	if _, err := c.Schema(context.Background(), "db"); err != nil {
		t.Fatal(err)
	}
	select {
	case m := <-got:
		if string(m.ID) != `"e"` || string(m.Result) != `["x"]` {
			t.Errorf("echo was answered with %s %s", m.ID, m.Result)
		}
	case <-time.After(5 * time.Second):
		t.Error("echo was not answered")
	}
}
