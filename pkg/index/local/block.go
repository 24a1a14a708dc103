package local

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/index"
)

// A block is up to blockEvents events in order, compressed (RFC 1951): for
// each, as varints, its index less the one before, its time less the one
// before (zig-zag), its origin, its template (the first, if it has several)
// plus 1, and, each with its length before it, subject, message and data.
const blockEvents = 128

// maxBlock bounds what a block may unpack to.
const maxBlock = blockEvents * (1 << 17)

// A stored is an event in a block.
type stored struct {
	index    int64
	time     int64
	origin   int64
	template int64
	subject  string
	message  string
	data     []byte
}

func encodeBlock(events []stored) ([]byte, error) {
	var raw []byte
	var index, at int64
	text := func(s string) {
		raw = binary.AppendUvarint(raw, uint64(len(s)))
		raw = append(raw, s...)
	}
	for i := range events {
		e := &events[i]
		raw = binary.AppendUvarint(raw, uint64(e.index-index))
		raw = binary.AppendVarint(raw, e.time-at)
		raw = binary.AppendUvarint(raw, uint64(e.origin))
		raw = binary.AppendUvarint(raw, uint64(e.template+1))
		text(e.subject)
		text(e.message)
		text(string(e.data))
		index, at = e.index, e.time
	}
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.BestSpeed)
	if err == nil {
		_, err = w.Write(raw)
	}
	if err == nil {
		err = w.Close()
	}
	return b.Bytes(), err
}

var errBlock = errors.New("a block of events is damaged")

func decodeBlock(data []byte) ([]stored, error) {
	raw, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(data)), maxBlock))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errBlock, err)
	}
	texts := string(raw) // all in one, of which each is a part
	events := make([]stored, 0, blockEvents)
	var index, at int64
	bad := false
	number := func() uint64 {
		v, n := binary.Uvarint(raw)
		if n <= 0 {
			bad, n = true, 0
		}
		raw = raw[n:]
		return v
	}
	text := func() string {
		n := number()
		if bad || n > uint64(len(raw)) {
			bad = true
			return ""
		}
		from := len(texts) - len(raw)
		raw = raw[n:]
		return texts[from : from+int(n)]
	}
	for len(raw) > 0 && !bad {
		var e stored
		index += int64(number())
		d, n := binary.Varint(raw)
		if n <= 0 {
			return nil, errBlock
		}
		raw = raw[n:]
		at += d
		e.index, e.time = index, at
		e.origin, e.template = int64(number()), int64(number())-1
		e.subject, e.message = text(), text()
		if s := text(); s != "" {
			e.data = []byte(s)
		}
		events = append(events, e)
	}
	if bad {
		return nil, errBlock
	}
	return events, nil
}

// event returns e with what its origin says.
func (e *stored) event(o origin) index.Event {
	return index.Event{Index: e.index, Time: time.Unix(0, e.time).UTC(), Host: o.host, Source: o.source, Type: o.typ, Subject: e.subject,
		Severity: o.severity, Actor: o.actor, Message: e.message, Data: e.data}
}

// An occurrence is one event of a point. A row of occurrence has those of one
// transaction: their indexes and times as varints, each less the one before.
type occurrence struct{ index, time int64 }

func encodeOccurrences(list []occurrence) []byte {
	b := make([]byte, 0, 8*len(list))
	var last occurrence
	for _, o := range list {
		b = binary.AppendUvarint(b, uint64(o.index-last.index))
		b = binary.AppendVarint(b, o.time-last.time)
		last = o
	}
	return b
}

func decodeOccurrences(b []byte) ([]occurrence, error) {
	var list []occurrence
	var last occurrence
	for len(b) > 0 {
		i, n := binary.Uvarint(b)
		if n <= 0 {
			return nil, errBlock
		}
		t, m := binary.Varint(b[n:])
		if m <= 0 {
			return nil, errBlock
		}
		b = b[n+m:]
		last.index, last.time = last.index+int64(i), last.time+t
		list = append(list, last)
	}
	return list, nil
}
