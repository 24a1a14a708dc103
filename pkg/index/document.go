package index

import (
	"bytes"
	"crypto/sha1"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/template"
	"github.com/ghostbridge/ghostbridge/pkg/words"
)

// An ID is a UUID.
type ID [16]byte

// String returns it in the usual form.
func (id ID) String() string {
	h := hex.EncodeToString(id[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// ParseID is the inverse of String.
func ParseID(s string) (id ID, err error) {
	b, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	if err != nil || len(b) != len(id) {
		return id, fmt.Errorf("id %q: want a UUID", s)
	}
	copy(id[:], b)
	return id, nil
}

// namespace is that of the ids (RFC 9562, version 5): that of the URL
// https://github.com/ghostbridge/ghostbridge/index/1, in the namespace for
// URLs.
var namespace = ID{0x2e, 0x1f, 0x53, 0x6b, 0x9a, 0x0c, 0x5d, 0x4e, 0x8f, 0x6a, 0x37, 0x11, 0xc2, 0x90, 0x5b, 0x74}

// NewID returns the UUIDv5 of parts. Each part's length goes before it, so that
// no two lists of parts are alike.
func NewID(parts ...string) (id ID) {
	h := sha1.New()
	h.Write(namespace[:])
	var n [binary.MaxVarintLen64]byte
	for _, p := range parts {
		h.Write(n[:binary.PutUvarint(n[:], uint64(len(p)))])
		h.Write([]byte(p))
	}
	copy(id[:], h.Sum(nil))
	id[6], id[8] = id[6]&0x0f|0x50, id[8]&0x3f|0x80
	return id
}

// Limits of what is kept of an event.
const (
	MaxValues = 64   // distinct values of a point
	maxValue  = 256  // bytes of one
	maxData   = 4096 // bytes of an event's data
	chunkSize = 2048 // bytes of text from which it is cut into chunks
	MaxChunks = 16
)

// A Document is what the index makes of an event, or of a chunk of a long one.
type Document struct {
	Template ID
	Masked   string
	Extra    string // what is looked up for such events, for searching
	Point    ID
	Hour     int64 // since 1970
	Single   int64 // index of the event if the point is of it alone, else -1
	Chunk    int   // from 0
	Values   []string
}

// An Enricher tells more of an event than it says itself, such as the
// explanation of a message id. What it says goes into the search, not into ids.
type Enricher func(source, typ string, data map[string]string) string

// Documents returns what is indexed of an event: one document, or up to
// MaxChunks for a long text. e is redacted already.
func Documents(e *event.Event, enrich Enricher) []Document {
	data := flatten(e.Data)
	texts := chunks(text(e, data))
	single := int64(-1)
	if len(texts) > 1 || alone(e.Source) {
		single = e.Index
	}
	extra := ""
	if enrich != nil {
		fields := make(map[string]string, len(data))
		for _, d := range data {
			fields[d.key] = d.value
		}
		extra = enrich(e.Source, e.Type, fields)
	}
	hour := floorDiv(e.Time.Unix(), 3600)
	docs := make([]Document, len(texts))
	for i, t := range texts {
		masked, params := template.Mask(nil, nil, t)
		d := Document{Masked: string(masked), Extra: extra, Hour: hour, Single: single, Chunk: i}
		d.Template = NewID("template", fmt.Sprint(template.Version), e.Source, e.Type, d.Masked)
		d.Point = PointID(d.Template, e.Host, e.Severity, e.Actor, hour, single)
		d.Values = values(e, params, data)
		docs[i] = d
	}
	return docs
}

// PointID returns the id of a point.
func PointID(template ID, host string, severity event.Severity, actor string, hour, single int64) ID {
	return NewID("point", string(template[:]), host, severity.String(), actor, fmt.Sprint(hour), fmt.Sprint(single))
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// alone says whether the events of a source are a point each: there are few,
// and each is a change of its own.
func alone(source string) bool { return source == "mcp" || source == "ovs" || source == "dbus" }

// text is what an event says, for words and templates.
func text(e *event.Event, data []field) string {
	if e.Message != "" {
		return e.Message
	}
	var b strings.Builder
	b.WriteString(e.Type)
	for _, d := range data {
		fmt.Fprintf(&b, " %s=%s", d.key, d.value)
	}
	return b.String()
}

type field struct{ key, value string }

// flatten returns the scalars of an object with their keys, those of nested
// objects too, in the order of the text.
func flatten(data json.RawMessage) []field {
	if len(data) == 0 {
		return nil
	}
	var list []field
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	type level struct {
		object bool
		key    string
		wait   bool // a value is next
	}
	var stack []level
	for len(list) < 128 {
		t, err := dec.Token()
		if err != nil {
			break
		}
		top := (*level)(nil)
		if len(stack) > 0 {
			top = &stack[len(stack)-1]
		}
		if top != nil && top.object && !top.wait {
			if key, ok := t.(string); ok {
				top.key, top.wait = key, true
				continue
			}
		}
		key := ""
		for i := len(stack) - 1; i >= 0 && key == ""; i-- {
			key = stack[i].key
		}
		if top != nil {
			top.wait = false
		}
		switch t := t.(type) {
		case json.Delim:
			if t == '{' || t == '[' {
				stack = append(stack, level{object: t == '{'})
			} else {
				stack = stack[:len(stack)-1]
			}
		case string:
			list = append(list, field{key, t})
		case json.Number:
			list = append(list, field{key, t.String()})
		case bool:
			list = append(list, field{key, fmt.Sprint(t)})
		}
	}
	return list
}

// values returns the distinct values by which an event can be found, in lower
// case: those masked in its text, its subject and actor, and its data.
func values(e *event.Event, params []template.Param, data []field) []string {
	var list []string
	add := func(v string) {
		v = strings.ToLower(strings.TrimSpace(v))
		if v == "" || len(v) > maxValue {
			return
		}
		if !slices.Contains(list, v) && len(list) < 2*MaxValues {
			list = append(list, v)
		}
	}
	var param func(p template.Param, depth int)
	param = func(p template.Param, depth int) {
		add(p.Value)
		for _, part := range parts(p.Value) {
			add(part)
		}
		switch p.Kind {
		case template.Path:
			name := p.Value[strings.LastIndexByte(p.Value, '/')+1:]
			add(name)
			if i := strings.LastIndexByte(name, '.'); i > 0 {
				name = name[:i]
				add(name)
			}
			// Names behind a hash or number, as those of a Nix store.
			if _, rest, ok := strings.Cut(name, "-"); ok && strings.ContainsAny(rest, "0123456789") {
				add(rest)
			}
		case template.String:
			if depth > 0 {
				break
			}
			_, inner := template.Mask(nil, nil, p.Value)
			for _, q := range inner {
				param(q, depth+1)
			}
		case template.IP:
			if addr, _, ok := strings.Cut(p.Value, "/"); ok {
				add(addr)
			}
		}
	}
	for _, p := range params {
		param(p, 0)
	}
	add(e.Subject)
	add(e.Actor)
	for _, d := range data {
		if len(d.value) <= 128 {
			add(d.value)
		}
		if len(d.value) > 1 && strings.ContainsAny(d.value, " =/") {
			_, inner := template.Mask(nil, nil, d.value)
			for _, p := range inner {
				add(p.Value)
			}
		}
	}
	return list
}

// parts returns the pieces of a value that is put together of several, such as
// tcp:10.0.0.1:6653, but not of an address or path.
func parts(v string) []string {
	if strings.Count(v, ":") > 3 || strings.HasPrefix(v, "/") {
		return nil
	}
	list := strings.FieldsFunc(v, func(r rune) bool { return strings.ContainsRune(":=,@()[]{}<>'\"", r) })
	if len(list) < 2 {
		return nil
	}
	return slices.DeleteFunc(list, func(s string) bool { return len(s) < 3 })
}

// Holds says whether the event holds a value (in lower case), as Reader's
// Holding means it.
func (e *Event) Holds(value string) bool {
	for _, s := range []string{e.Message, e.Subject, e.Actor, string(e.Data)} {
		s = strings.ToLower(s)
		for from := 0; ; {
			i := strings.Index(s[from:], value)
			if i < 0 {
				break
			}
			i += from
			if edge(s, i-1) && edge(s, i+len(value)) {
				return true
			}
			from = i + 1
		}
	}
	return false
}

func edge(s string, i int) bool {
	if i < 0 || i >= len(s) {
		return true
	}
	c := s[i]
	return !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c >= 0x80)
}

// chunks cuts a long text at line ends, or at spaces where a line is too long.
// Of a text that gives more than MaxChunks, the middle is left out and said to
// be.
func chunks(t string) []string {
	if len(t) <= chunkSize {
		return []string{t}
	}
	var list []string
	for len(t) > 0 {
		if len(t) <= chunkSize {
			list = append(list, t)
			break
		}
		cut := chunkSize / 2
		for _, stop := range []string{"\n\n", "\nCaused by", "\ndiff ", "\n@@ ", "\n", " "} {
			if i := strings.LastIndex(t[cut:chunkSize], stop); i >= 0 {
				cut += i + 1
				break
			}
		}
		if cut == chunkSize/2 {
			cut = chunkSize
			for cut > 0 && t[cut]&0xc0 == 0x80 {
				cut--
			}
		}
		list = append(list, t[:cut])
		t = t[cut:]
	}
	if len(list) > MaxChunks {
		left := len(list) - MaxChunks
		list = append(append(list[:MaxChunks/2:MaxChunks/2], fmt.Sprintf("truncated: %d parts are left out here", left+1)), list[len(list)-MaxChunks/2+1:]...)
	}
	return list
}

// Kept returns e as the index keeps it.
func Kept(e *event.Event) Event {
	k := Event{Index: e.Index, Time: e.Time, Host: e.Host, Source: e.Source, Type: e.Type, Subject: e.Subject, Severity: e.Severity, Actor: e.Actor, Message: e.Message}
	if len(e.Data) > 0 {
		k.Data = e.Data
		if len(k.Data) > maxData {
			k.Data = json.RawMessage(strings.ToValidUTF8(string(k.Data[:maxData]), ""))
		}
	}
	return k
}

// Stems returns the stems of a template and what each counts: its words 1, the
// words of source and type a half, what is known beyond a quarter. length is
// what BM25 takes for the length.
func Stems(source, typ, masked, extra string) (list []Term, length float64) {
	at := make(map[string]int)
	add := func(stems []string, weight, most float64) {
		for _, s := range stems {
			i, ok := at[s]
			if !ok {
				i = len(list)
				at[s] = i
				list = append(list, Term{Stem: s})
			}
			if list[i].Weight < most {
				list[i].Weight += weight
			}
		}
	}
	own := words.Terms(masked)
	add(own, 1, 8)
	length = float64(len(own))
	kind := typ
	if source != "journald" && source != "kernel" {
		kind = source + " " + typ
	}
	add(words.Terms(strings.TrimPrefix(kind, "journal.")), 0.5, 1)
	add(words.Terms(extra), 0.25, 0.5)
	return list, length + 1
}

// BM25's parameters. The average length is fixed, so that a template's weights
// do not change when others come, and are the same in every index.
const (
	bm25K1      = 1.2
	bm25B       = 0.6
	bm25Average = 8
)

// Saturate returns what a stem of weight w in a template of some length counts
// before its inverse document frequency.
func Saturate(w, length float64) float64 {
	return w * (bm25K1 + 1) / (w + bm25K1*(1-bm25B+bm25B*length/bm25Average))
}

// DenseText is what a template's vector is made of.
func DenseText(source, typ, masked, extra string) string {
	kind := strings.TrimPrefix(typ, "journal.")
	if source != "journald" && source != "kernel" {
		kind = source + " " + typ
	}
	return kind + " | " + masked + " | " + extra
}

// Minute returns the minute of the hour of t, 0 to 59.
func Minute(t time.Time) int { return int(((t.Unix()/60)%60 + 60) % 60) }
