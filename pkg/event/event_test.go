package event

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

var stamp = Stamp{
	Index: 7,
	At:    time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC),
	Peer:  Peer{UID: 1000, Unit: "demo.service"},
	Host:  "h1",
}

func TestStoredLine(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{
			`{"source":"demo","type":"note","message":"hello"}`,
			`{"i":7,"at":"2026-01-02T03:04:05.000000006Z","peer":{"uid":1000,"unit":"demo.service"},"source":"demo","type":"note","message":"hello","time":"2026-01-02T03:04:05.000000006Z","host":"h1","severity":"info","actor":"uid:1000","c":"%s"}`,
		},
		{ // a producer's bytes are stored as written, white space and escapes too
			"  { \"type\" : \"a.b\" ,\t\"source\":\"d\\u0065mo\", \"data\" : { \"k\" : [ 1e400, -0.0 ] } ,\"time\":\"2020-02-29T23:59:60.5+02:00\"}\r",
			"",
		},
		{
			`{"time":"2020-02-29T23:59:59.5+02:00","host":"h2","actor":"me","severity":"Error","source":"s","type":"t","message":""}`,
			"",
		},
		{
			`{"data":{},"time":"2020-02-29T23:59:59.123456789+02:00","host":"h2","actor":"me","severity":"critical","source":"s","type":"t"}`,
			`{"i":7,"at":"2026-01-02T03:04:05.000000006Z","peer":{"uid":1000,"unit":"demo.service"},"data":{},"time":"2020-02-29T23:59:59.123456789+02:00","host":"h2","actor":"me","severity":"critical","source":"s","type":"t","c":"%s"}`,
		},
	} {
		var p Parser
		d, err := p.Parse([]byte(c.in))
		if c.want == "" {
			if err == nil {
				t.Errorf("%s: taken", c.in)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.in, err)
			continue
		}
		line, err := d.Append(nil, stamp)
		if err != nil {
			t.Fatal(err)
		}
		crc := line[len(line)-10 : len(line)-2]
		if want := fmt.Sprintf(c.want, crc); string(line) != want {
			t.Errorf("%s:\n got %s\nwant %s", c.in, line, want)
		}
		if i, err := Check(line); i != 7 || err != nil {
			t.Errorf("Check(%s) = %d, %v", line, i, err)
		}
	}
}

func TestProducersBytesAreKept(t *testing.T) {
	in := "  { \"type\" : \"a.b\" ,\t\"source\":\"d\\u0065mo\", \"data\" : { \"k\" : [ 1e400, -0.0 ] , \"\\ud83d\\ude00\":null} }\r"
	var p Parser
	d, err := p.Parse([]byte(in))
	if err != nil {
		t.Fatal(err)
	}
	line, err := d.Append(nil, stamp)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(line, []byte(strings.Trim(in, " {}\r"))) {
		t.Errorf("%s is not in %s", in, line)
	}
	e, err := Decode(line)
	if err != nil {
		t.Fatal(err)
	}
	if e.Source != "demo" || e.Type != "a.b" || string(e.Data) != `{ "k" : [ 1e400, -0.0 ] , "\ud83d\ude00":null}` ||
		e.Host != "h1" || e.Severity != Info || e.Actor != "uid:1000" || !e.Time.Equal(stamp.At) || e.Peer != stamp.Peer {
		t.Errorf("decoded %+v", e)
	}
}

// refused are lines that no log takes, and a part of the reason.
var refused = []struct{ in, reason string }{
	{``, "empty line"},
	{`hello`, "not JSON at byte 1: 'h'"},
	{`{"source":"a"`, "not JSON at byte 14: ends before"},
	{`{"source":"a"} x`, "more after the object"},
	{`[1]`, "not an object"},
	{`"x"`, "not an object"},
	{`null`, "not an object"},
	{`{}`, "source is missing"},
	{`{"source":"a","message":"m"}`, "type is missing"},
	{`{"type":"a","message":"m"}`, "source is missing"},
	{`{"source":"a","type":"t"}`, "message and data are missing"},
	{`{"source":"","type":"t","message":"m"}`, "source is empty"},
	{`{"source":"a b","type":"t","message":"m"}`, "source \"a b\" has a character"},
	{`{"source":"a","type":"t","message":"m","extra":1}`, `unknown key "extra"`},
	{`{"source":"a","type":"t","message":"m","i":1}`, `unknown key "i"`},
	{`{"source":"a","type":"t","message":"m","blob":{}}`, `unknown key "blob"`},
	{`{"source":"a","type":"t","message":"m","c":"00000000"}`, `unknown key "c"`},
	{`{"source":"a","type":"t","message":"m","message":"n"}`, `duplicate key "message"`},
	{`{"source":"a","type":"t","message":"m","m\u0065ssage":"n"}`, `duplicate key "message"`},
	{`{"source":"a","type":"t","data":{"k":1,"k":2}}`, `duplicate key "k"`},
	{`{"source":"a","type":"t","data":{"x":[{"k":1,"\u006b":2}]}}`, `duplicate key "k"`},
	{`{"source":"a","type":"t","data":[]}`, "data is not an object"},
	{`{"source":"a","type":"t","message":1}`, "message is not a string"},
	{`{"source":"a","type":"t","message":null}`, "message is not a string"},
	{`{"source":"a","type":"log.created","message":"m"}`, "the log's own"},
	{`{"source":"a","type":"log","message":"m"}`, "the log's own"},
	{`{"source":"a","type":"l\u006fg.x","message":"m"}`, "the log's own"},
	{`{"source":"a","type":"t","message":"m","severity":"bad"}`, `severity "bad"`},
	{`{"source":"a","type":"t","message":"m","time":"yesterday"}`, "not an RFC 3339 time"},
	{`{"source":"a","type":"t","message":"m","time":"2020-01-01T00:00:00.1234567890Z"}`, "in nanoseconds"},
	{`{"source":"a","type":"t","message":"m","time":"2020-01-01T00:00:00,5Z"}`, "in nanoseconds"},
	{"{\"source\":\"a\",\"type\":\"t\",\"message\":\"\xff\"}", "invalid UTF-8"},
	{"{\"source\":\"a\",\"type\":\"t\",\"message\":\"a\x01\"}", "control character"},
	{`{"source":"a","type":"t","message":"\ud800"}`, "surrogate"},
	{`{"source":"a","type":"t","message":"\udc00\ud800"}`, "surrogate"},
	{`{"source":"a","type":"t","message":"\x"}`, "unknown escape"},
	{`{"source":"a","type":"t","data":{"n":01}}`, "not JSON"},
	{`{"source":"a","type":"t","data":{"n":1.}}`, "a digit"},
	{`{"source":"a","type":"t","data":{"n":+1}}`, "a value"},
	{`{"source":"a","type":"t","data":{"n":NaN}}`, "a value"},
	{`{"source":"a","type":"t","data":{"n":[1,]}}`, "a value"},
	{`{"source":"a","type":"t","data":{,}}`, "a key"},
	{`{"source":"a","type":"t","data":{"a":1,}}`, "a key"},
	{`{"source":"a","type":"t",}`, "a key"},
	{`{"source":"a","type":"t","data":{"x":` + strings.Repeat("[", 300) + strings.Repeat("]", 300) + `}}`, "nested deeper"},
}

func TestRefusedLines(t *testing.T) {
	var p Parser
	for _, c := range refused {
		_, err := p.Parse([]byte(c.in))
		if err == nil || !strings.Contains(err.Error(), c.reason) {
			t.Errorf("%.80q: got %v, want %q", c.in, err, c.reason)
		}
	}
}

func TestManyKeysAreCheckedInLinearTime(t *testing.T) {
	var b strings.Builder
	b.WriteString(`{"source":"a","type":"t","data":{`)
	for i := range 200000 {
		fmt.Fprintf(&b, `"k%d":%d,`, i, i)
	}
	var p Parser
	if _, err := p.Parse([]byte(b.String() + `"last":0}}`)); err != nil {
		t.Error(err)
	}
	if _, err := p.Parse([]byte(b.String() + `"k77":0}}`)); err == nil || !strings.Contains(err.Error(), `duplicate key "k77"`) {
		t.Error(err)
	}
}

func TestTooLongIsRefusedOrMovedOut(t *testing.T) {
	var p Parser
	long := strings.Repeat("x", MaxLine)
	d, err := p.Parse([]byte(`{"source":"a","type":"t","message":"` + long + `"}`))
	if err != nil {
		t.Fatal(err)
	}
	if line, err := d.Append([]byte("keep"), stamp); !TooLong(err) || string(line) != "keep" {
		t.Errorf("got %d bytes, %v", len(line), err)
	}
	if _, _, ok := d.Externalize(); ok {
		t.Error("a message was moved out")
	}
	d, err = p.Parse([]byte(`{"source":"a","data" : {"x":"` + long + `"} , "type":"t"}`))
	if err != nil {
		t.Fatal(err)
	}
	moved, data, ok := d.Externalize()
	if !ok || string(data) != `{"x":"`+long+`"}` {
		t.Fatalf("moved %d bytes, %v", len(data), ok)
	}
	line, err := moved.Append(nil, stamp)
	if err != nil {
		t.Fatal(err)
	}
	e, err := Decode(line)
	if err != nil || e.Blob == nil || e.Blob.Size != int64(len(data)) || len(e.Blob.SHA256) != 64 || e.Data != nil {
		t.Errorf("%v: %+v", err, e)
	}
}

// At the limit to the byte: a line of MaxLine is stored, one more is not.
func TestLimitIsExact(t *testing.T) {
	var p Parser
	make := func(n int) Draft {
		d, err := p.Parse([]byte(`{"source":"a","type":"t","message":"` + strings.Repeat("x", n) + `"}`))
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	line, err := make(0).Append(nil, stamp)
	if err != nil {
		t.Fatal(err)
	}
	room := MaxLine - len(line)
	if line, err = make(room).Append(nil, stamp); err != nil || len(line) != MaxLine {
		t.Errorf("%d bytes, %v", len(line), err)
	}
	if _, err = make(room+1).Append(nil, stamp); !TooLong(err) {
		t.Error(err)
	}
}

func TestCheckFindsAnyChangedByte(t *testing.T) {
	var p Parser
	d, err := p.Parse([]byte(`{"source":"demo","type":"note","message":"hello"}`))
	if err != nil {
		t.Fatal(err)
	}
	line, err := d.Append(nil, stamp)
	if err != nil {
		t.Fatal(err)
	}
	for i := range line {
		for bit := range 8 {
			bad := bytes.Clone(line)
			bad[i] ^= 1 << bit
			if _, err := Check(bad); err == nil {
				t.Errorf("byte %d bit %d: not found", i, bit)
			}
		}
		if _, err := Check(line[:i]); err == nil {
			t.Errorf("cut at %d: not found", i)
		}
	}
}

func TestSeverityNames(t *testing.T) {
	for s := Emergency; s <= Debug; s++ {
		if got, err := ParseSeverity(s.String()); got != s || err != nil {
			t.Errorf("%v: %v, %v", s, got, err)
		}
	}
}

// Whatever the log takes, encoding/json reads as one object, and what comes
// back from the stored line is what the producer gave.
func FuzzTakenLinesAreJSONAndKept(f *testing.F) {
	f.Add([]byte(`{"source":"demo","type":"note","message":"hello"}`))
	f.Add([]byte(`{ "data":{"time":"x","k":["}\"",{}]}, "source":"a\\", "type":"t" ,"t\u0069me" : "2020-02-29T23:59:59.5+02:00" }`))
	f.Add([]byte(`{"source":"demo","type":"note","time":"2020-02-29T23:59:59.5+02:00","data":{"a":[1,-2.5e+7,"\ud83d\ude00",{"b":null}]}}`))
	for _, c := range refused {
		f.Add([]byte(c.in))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var p Parser
		d, err := p.Parse(in)
		if err != nil {
			return
		}
		var given map[string]any
		dec := json.NewDecoder(bytes.NewReader(in))
		dec.UseNumber()
		if err := dec.Decode(&given); err != nil {
			t.Fatalf("taken, but encoding/json says %v", err)
		}
		line, err := d.Append(nil, stamp)
		if err != nil {
			if moved, _, ok := d.Externalize(); ok {
				if line, err := moved.Append(nil, stamp); err == nil {
					if _, err := Decode(line); err != nil {
						t.Fatal(err)
					}
				}
			}
			return
		}
		e, err := Decode(line)
		if err != nil {
			t.Fatalf("stored line %s: %v", line, err)
		}
		if v, ok := given["message"]; ok && e.Message != v {
			t.Fatalf("message %q became %q", v, e.Message)
		}
		if claimed, at, err := Times(line); err != nil || !claimed.Equal(e.Time) || !at.Equal(e.At) {
			t.Fatalf("%s: skimmed %v, %v, %v", line, claimed, at, err)
		}
		var r TimeReader
		for range 2 { // the second time from what it kept
			if claimed, at, err := r.Times(line); err != nil || !claimed.Equal(e.Time) || !at.Equal(e.At) {
				t.Fatalf("%s: read %v, %v, %v", line, claimed, at, err)
			}
		}
		if e.Index != stamp.Index || e.Peer != stamp.Peer {
			t.Fatalf("stamp became %+v", e)
		}
	})
}

// A key or a value that looks like the time is not taken for it.
func TestTimeReaderIsTimes(t *testing.T) {
	stamp := Stamp{Index: 1, At: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC), Host: "h"}
	var p Parser
	var r TimeReader
	for _, in := range []string{
		`{"source":"a","type":"b","message":"m"}`,
		`{"source":"a","type":"time","message":"m"}`,
		`{"source":"a","type":"b","data":{"time":"2020-01-01T00:00:00Z"}}`,
		`{"data":{"time":"2020-01-01T00:00:00Z"},"source":"a","type":"b","time":"2026-02-02T00:00:00Z"}`,
		`{"data":{"time":"2020-01-01T00:00:00Z"},"source":"a","type":"b","\u0074ime":"2026-02-02T00:00:00Z"}`,
		`{"source":"a","type":"b","message":"m","time" : "2026-02-02T00:00:00+01:00"}`,
		`{"source":"a","type":"b","message":"\"time\":\"2020-01-01T00:00:00Z\""}`,
		`{"source":"a","type":"b","message":"time","subject":"name"}`,
	} {
		d, err := p.Parse([]byte(in))
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			line, err := d.Append(nil, stamp)
			if err != nil {
				t.Fatal(err)
			}
			e, err := Decode(line)
			if err != nil {
				t.Fatal(err)
			}
			if claimed, at, err := r.Times(line); err != nil || !claimed.Equal(e.Time) || !at.Equal(e.At) {
				t.Errorf("%s: %v, %v, %v", line, claimed, at, err)
			}
			stamp.At = stamp.At.Add(time.Second)
			stamp.Index++
		}
	}
}

// Check and Decode return errors, and never panic, on any bytes.
func FuzzDecodeNeverPanics(f *testing.F) {
	f.Add([]byte(`{"i":7,"at":"2026-01-02T03:04:05.000000006Z","c":"00000000"}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		Check(in)
		Times(in)
		new(TimeReader).Times(in)
		// With a right checksum the rest of Decode is reached.
		if bytes.HasPrefix(in, []byte(`{"i":`)) {
			Decode(appendCRC(bytes.Clone(in), 0))
		}
	})
}

func BenchmarkParseAndAppend(b *testing.B) {
	in := []byte(`{"source":"demo","type":"note","subject":"ovsbr0","severity":"notice","message":"` + strings.Repeat("word ", 20) + `","data":{"port":"vnet0","ofport":12,"up":true}}`)
	var p Parser
	var buf []byte
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		d, err := p.Parse(in)
		if err != nil {
			b.Fatal(err)
		}
		if buf, err = d.Append(buf[:0], stamp); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkTimes(b *testing.B) {
	var p Parser
	d, err := p.Parse([]byte(`{"source":"demo","type":"note","message":"` + strings.Repeat("word ", 20) + `","data":{"port":"vnet0","ofport":12,"up":true}}`))
	if err != nil {
		b.Fatal(err)
	}
	line, err := d.Append(nil, stamp)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := Times(line); err != nil {
			b.Fatal(err)
		}
	}
}

// The log's own way to write a time gives what package time gives.
func TestAppendTime(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	times := []time.Time{{}, time.Unix(0, 0), time.Date(9999, 12, 31, 23, 59, 59, 999999999, time.UTC), time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC)}
	for range 1000 {
		times = append(times, time.Unix(r.Int64N(1<<36)-1<<35, r.Int64N(1e9)).In(time.FixedZone("", r.IntN(80000)-40000)))
	}
	for _, at := range times {
		if got, want := string(appendTime(nil, at)), at.UTC().Format(TimeFormat); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// A string is written as encoding/json writes it.
func TestAppendString(t *testing.T) {
	for _, s := range []string{"", "vm1.example", `a"b`, `a\b`, "a<b>&c", "\x00\x1f\x7f", "é\u2028", "\xff", "~ !"} {
		want, err := json.Marshal(strings.ToValidUTF8(s, "\uFFFD"))
		if err != nil {
			t.Fatal(err)
		}
		if got := appendString(nil, s); string(got) != string(want) {
			t.Errorf("%q: %s, want %s", s, got, want)
		}
	}
}
