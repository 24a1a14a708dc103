package qdrant

import (
	"bytes"
	"compress/flate"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"

	"github.com/qdrant/go-client/qdrant"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ghostbridge/ghostbridge/pkg/index"
)

// WriterOptions are those of a Writer.
type WriterOptions struct {
	// Tenant is the name of the log.
	Tenant string
	// Embedder and Dim name the space of the vectors; "" for none.
	Embedder string
	Dim      int
	// Shards and Replicas are the collection's if it is to be made; the server's
	// own if 0.
	Shards, Replicas int
	// Hold puts everything there and does not let readers see it.
	Hold bool
	// Note is told what a person might want to know; may be nil.
	Note func(string)
}

// A Writer is the mirror of one index file.
type Writer struct {
	c          *Client
	o          WriterOptions
	collection string
	ready      bool // the collection and its indexes are there

	part     string // of the file
	fresh    bool   // the head does not name the part yet
	points   []*qdrant.PointStruct
	refs     []index.Ref
	bytes    int
	drops    []*qdrant.PointId
	refused  []index.Refused
	accepted int
}

var _ index.Mirror = (*Writer)(nil)

// NewWriter returns a writer. Nothing is asked of the server yet.
func NewWriter(c *Client, o WriterOptions) (*Writer, error) {
	if o.Tenant == "" || len(o.Tenant) > 128 || strings.ContainsAny(o.Tenant, "/\x00") {
		return nil, fmt.Errorf("tenant %q: want a name without a slash, of at most 128 bytes", o.Tenant)
	}
	return &Writer{c: c, o: o, collection: Collection(c.o.Alias, o.Embedder, o.Dim)}, nil
}

// Hold says that readers are not to see what comes next, or are.
func (w *Writer) Hold(hold bool) { w.o.Hold = hold }

// A TakenError says that another writer has the tenant: exit code 2.
type TakenError struct{ Address, Tenant, Part string }

func (e *TakenError) Error() string {
	return fmt.Sprintf("qdrant %s: tenant %q was written from another state file (%s) since", e.Address, e.Tenant, e.Part)
}

// ExitCode is that of wrong configuration.
func (e *TakenError) ExitCode() int { return 2 }

// Hint says what to do.
func (e *TakenError) Hint() string {
	return "give each log a --tenant of its own; if that file is gone for good, gb-vecsync rebuild takes the tenant over"
}

// An OtherLogError says that another log has the tenant: exit code 2.
type OtherLogError struct{ Address, Tenant, Log string }

func (e *OtherLogError) Error() string {
	return fmt.Sprintf("qdrant %s: tenant %q is of another log, %s", e.Address, e.Tenant, e.Log)
}

// ExitCode is that of wrong configuration.
func (e *OtherLogError) ExitCode() int { return 2 }

// Hint says what to do.
func (e *OtherLogError) Hint() string { return "give each log a --tenant of its own" }

// A RenamedError says that a state file is another tenant's: exit code 2.
type RenamedError struct{ Now, Before string }

func (e *RenamedError) Error() string {
	return fmt.Sprintf("the state file is of tenant %q, not of %q", e.Before, e.Now)
}

// ExitCode is that of wrong configuration.
func (e *RenamedError) ExitCode() int { return 2 }

// Hint says what to do.
func (e *RenamedError) Hint() string {
	return fmt.Sprintf("--tenant %s names the one that it is of; another log needs another --state", e.Before)
}

// Open implements index.Mirror.
func (w *Writer) Open(ctx context.Context, file, log, as string) (whole bool, err error) {
	if as != "" && as != w.o.Tenant {
		return false, &RenamedError{Now: w.o.Tenant, Before: as}
	}
	w.points, w.refs, w.bytes, w.drops, w.refused, w.accepted = nil, nil, 0, nil, nil, 0
	if !w.ready {
		if err := w.prepare(ctx); err != nil {
			return false, err
		}
		w.ready = true
	}
	w.part = w.o.Tenant + "/" + strings.ToLower(file)
	head, err := w.head(ctx, w.collection)
	if isNotFound(err) { // somebody has deleted the collection
		if err = w.prepare(ctx); err == nil {
			head, err = nil, nil
		}
	}
	if err != nil {
		return false, err
	}
	w.fresh = true
	if head != nil && head.Log != "" && log != "" && head.Log != log {
		return false, &OtherLogError{w.c.o.Address(), w.o.Tenant, head.Log}
	}
	switch {
	case head != nil && head.part == w.part:
		w.fresh = as == ""
		return false, nil
	case head != nil && as != "" && !w.o.Hold:
		return false, &TakenError{w.c.o.Address(), w.o.Tenant, head.part}
	}
	if !w.o.Hold {
		// Held back, and whole?
		ready, err := w.get(ctx, w.collection, readyID(w.part))
		if err != nil || ready != nil {
			return false, err
		}
	}
	// What a transaction that failed has left is not of this one.
	return true, w.clear(ctx, w.part)
}

func (w *Writer) clear(ctx context.Context, part string) error {
	return w.c.do(ctx, "delete "+part, func(ctx context.Context) error {
		_, err := w.c.points.Delete(ctx, &qdrant.DeletePoints{CollectionName: w.collection, Wait: qdrant.PtrOf(true),
			Points: qdrant.NewPointsSelectorFilter(&qdrant.Filter{Must: []*qdrant.Condition{qdrant.NewMatch(keyTenant, part)}})})
		return err
	})
}

// sweep deletes the tenant's parts that no head names: the one before, and what
// was given up on the way.
func (w *Writer) sweep(ctx context.Context) error {
	var parts []string
	err := w.c.do(ctx, "list what "+w.o.Tenant+" has stored", func(ctx context.Context) error {
		a, err := w.c.points.Facet(ctx, &qdrant.FacetCounts{CollectionName: w.collection, Key: keyTenant, Limit: qdrant.PtrOf(uint64(maxParts)), Exact: qdrant.PtrOf(true)})
		parts = nil
		for _, h := range a.GetHits() {
			if p := h.Value.GetStringValue(); p != w.part && strings.HasPrefix(p, w.o.Tenant+"/") {
				parts = append(parts, p)
			}
		}
		return err
	})
	for _, p := range parts {
		if err == nil {
			err = w.clear(ctx, p)
		}
	}
	return err
}

// maxParts is how many parts of all tenants a collection is thought to have.
const maxParts = 100_000

// prepare makes the collection and its indexes if they are not there.
func (w *Writer) prepare(ctx context.Context) error {
	c := w.c
	exists := false
	if err := c.do(ctx, "look for collection "+w.collection, func(ctx context.Context) error {
		r, err := c.collections.CollectionExists(ctx, &qdrant.CollectionExistsRequest{CollectionName: w.collection})
		exists = r.GetResult().GetExists()
		return err
	}); err != nil {
		return err
	}
	if !exists {
		err := c.do(ctx, "make collection "+w.collection, func(ctx context.Context) error {
			_, err := c.collections.Create(ctx, w.create())
			if status.Code(err) == codes.AlreadyExists { // another host was first
				return nil
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	have := make(map[string]bool)
	if err := c.do(ctx, "read collection "+w.collection, func(ctx context.Context) error {
		r, err := c.collections.Get(ctx, &qdrant.GetCollectionInfoRequest{CollectionName: w.collection})
		for k := range r.GetResult().GetPayloadSchema() {
			have[k] = true
		}
		return err
	}); err != nil {
		return err
	}
	for _, ix := range indexes {
		if have[ix.key] {
			continue
		}
		if err := c.do(ctx, "index "+ix.key, func(ctx context.Context) error {
			_, err := c.points.CreateFieldIndex(ctx, &qdrant.CreateFieldIndexCollection{CollectionName: w.collection, Wait: qdrant.PtrOf(true),
				FieldName: ix.key, FieldType: ix.typ.Enum(), FieldIndexParams: ix.params})
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

func (w *Writer) create() *qdrant.CreateCollection {
	r := &qdrant.CreateCollection{
		CollectionName: w.collection,
		OnDiskPayload:  qdrant.PtrOf(true),
		SparseVectorsConfig: qdrant.NewSparseVectorsConfig(map[string]*qdrant.SparseVectorParams{
			vectorSparse: {Modifier: qdrant.Modifier_Idf.Enum()},
		}),
	}
	if w.o.Dim > 0 {
		r.VectorsConfig = qdrant.NewVectorsConfigMap(map[string]*qdrant.VectorParams{
			vectorDense: {Size: uint64(w.o.Dim), Distance: qdrant.Distance_Cosine, OnDisk: qdrant.PtrOf(true),
				QuantizationConfig: qdrant.NewQuantizationScalar(&qdrant.ScalarQuantization{Type: qdrant.QuantizationType_Int8, Quantile: qdrant.PtrOf(float32(0.99)), AlwaysRam: qdrant.PtrOf(true)})},
		})
	}
	if w.o.Shards > 0 {
		r.ShardNumber = qdrant.PtrOf(uint32(w.o.Shards))
	}
	if w.o.Replicas > 0 {
		r.ReplicationFactor = qdrant.PtrOf(uint32(w.o.Replicas))
		if w.o.Replicas > 2 {
			r.WriteConsistencyFactor = qdrant.PtrOf(uint32(2))
		}
	}
	return r
}

// A head is what the server has of a tenant's.
type head struct {
	tenant, part string
	index.Head
}

func headID(tenant string) *qdrant.PointId {
	return qdrant.NewID(index.NewID("qdrant-head", tenant).String())
}

func readyID(part string) *qdrant.PointId {
	return qdrant.NewID(index.NewID("qdrant-ready", part).String())
}

// head returns the tenant's, nil if there is none.
func (w *Writer) head(ctx context.Context, collection string) (*head, error) {
	p, err := w.get(ctx, collection, headID(w.o.Tenant))
	if err != nil || p == nil {
		return nil, err
	}
	return parseHead(p.Payload), nil
}

// get returns one point, nil if it is not there.
func (w *Writer) get(ctx context.Context, collection string, id *qdrant.PointId) (p *qdrant.RetrievedPoint, err error) {
	err = w.c.do(ctx, "read the head of "+w.o.Tenant, func(ctx context.Context) error {
		r, err := w.c.points.Get(ctx, &qdrant.GetPoints{CollectionName: collection, Ids: []*qdrant.PointId{id}, WithPayload: qdrant.NewWithPayload(true)})
		if err == nil && len(r.GetResult()) > 0 {
			p = r.Result[0]
		}
		return err
	})
	return p, err
}

// upsert stores one point without vectors.
func (w *Writer) upsert(ctx context.Context, doing string, id *qdrant.PointId, payload map[string]*qdrant.Value) error {
	return w.c.do(ctx, doing, func(ctx context.Context) error {
		_, err := w.c.points.Upsert(ctx, &qdrant.UpsertPoints{CollectionName: w.collection, Wait: qdrant.PtrOf(true),
			Points: []*qdrant.PointStruct{{Id: id, Payload: payload, Vectors: qdrant.NewVectorsMap(nil)}}})
		return err
	})
}

func parseHead(p map[string]*qdrant.Value) *head {
	h := &head{tenant: text(p, "name"), part: text(p, "part")}
	h.Log = text(p, "log")
	h.Events, h.Embedder, h.Pending = number(p, "events"), text(p, "embedder"), number(p, "waiting")
	if n := number(p, "newest_event"); n != 0 {
		h.Newest = time.Unix(0, n).UTC()
	}
	if s := text(p, "state"); s != "" {
		h.State = []byte(s)
	}
	return h
}

func text(p map[string]*qdrant.Value, key string) string  { return p[key].GetStringValue() }
func number(p map[string]*qdrant.Value, key string) int64 { return p[key].GetIntegerValue() }

// id returns the id in Qdrant of what r names.
func (w *Writer) id(r index.Ref) *qdrant.PointId {
	return qdrant.NewID(index.NewID("qdrant-"+r.Kind, w.part, string(r.ID[:]), fmt.Sprint(r.N)).String())
}

// stemID is the dimension of a stem in the sparse vectors.
func stemID(s string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(s))
	return h.Sum32()
}

func hash64(s string) int64 {
	h := fnv.New64a()
	h.Write([]byte(s))
	return int64(h.Sum64())
}

func valueOf(v any) *qdrant.Value {
	switch v := v.(type) {
	case string:
		return qdrant.NewValueString(strings.ToValidUTF8(v, "\uFFFD"))
	case int64:
		return qdrant.NewValueInt(v)
	case bool:
		return qdrant.NewValueBool(v)
	case []int64:
		list := make([]*qdrant.Value, len(v))
		for i, n := range v {
			list[i] = qdrant.NewValueInt(n)
		}
		return qdrant.NewValueFromList(list...)
	}
	panic(fmt.Sprintf("qdrant: payload of %T", v))
}

// Put implements index.Mirror.
func (w *Writer) Put(ctx context.Context, r index.Record) error {
	ref := r.Ref()
	p := &qdrant.PointStruct{Id: w.id(ref), Payload: make(map[string]*qdrant.Value), Vectors: qdrant.NewVectorsMap(nil)}
	size := 256
	set := func(key string, v any) {
		p.Payload[key] = valueOf(v)
		switch v := v.(type) {
		case string:
			size += len(v)
		case []int64:
			size += 10 * len(v)
		}
	}
	set(keyTenant, w.part)
	set(keyKind, ref.Kind)
	switch r := r.(type) {
	case *index.GroupRecord:
		set(keyGroup, r.N)
		set(keyText, r.Text)
	case *index.TemplateRecord:
		set(keyTemplate, r.ID.String())
		set(keyGroup, r.Group)
		set(keySource, r.Source)
		set(keyType, r.Type)
		set(keyMasked, r.Masked)
		set(keyExtra, r.Extra)
		set(keyPending, r.Pending)
		list, length := index.Stems(r.Source, r.Type, r.Masked, r.Extra)
		indices, values := sparse(list, func(t index.Term) float64 { return index.Saturate(t.Weight, length) })
		stems := make([]int64, len(list))
		for i, t := range list {
			stems[i] = hash64(t.Stem)
		}
		set(keyStems, stems)
		vectors := make(map[string]*qdrant.Vector)
		if len(indices) > 0 {
			vectors[vectorSparse] = qdrant.NewVectorSparse(indices, values)
		}
		if r.Vector != nil {
			vectors[vectorDense] = qdrant.NewVectorDense(r.Vector)
		}
		p.Vectors = qdrant.NewVectorsMap(vectors)
		size += 4*len(r.Vector) + 8*len(indices)
	case *index.BlockRecord:
		data, err := packEvents(r.Events)
		if err != nil {
			return err
		}
		set(keyFrom, r.Events[0].Index)
		set(keyTo, r.Events[len(r.Events)-1].Index)
		set(keyData, data)
	case *index.SeenRecord:
		set(keyOf, r.Point.String())
		set(keyFrom, r.Seen[0].Index)
		set(keyData, packSeen(r.Seen))
	case *index.PointRecord:
		set(keyPoint, r.ID.String())
		set(keyTemplate, r.Template.String())
		set(keyHost, r.Host)
		set(keySource, r.Source)
		set(keyType, r.Type)
		set(keySeverity, int64(r.Severity))
		set(keyActor, r.Actor)
		set(keyHour, r.Hour)
		set(keySingle, r.Single)
		set(keyFirst, r.First.UnixNano())
		set(keyLast, r.Last.UnixNano())
		set(keyCount, r.Count)
		set(keyMinutes, r.Minutes)
		set(keyMore, r.More)
		values := make([]int64, len(r.Values))
		for i, v := range r.Values {
			values[i] = int64(v)
		}
		set(keyValues, values)
		newest := make([]int64, 0, 2*len(r.Newest))
		for _, o := range r.Newest {
			newest = append(newest, o.Index, o.Time.UnixNano())
		}
		set(keyNewest, newest)
	default:
		panic(fmt.Sprintf("qdrant: a record of %T", r))
	}
	w.points, w.refs = append(w.points, p), append(w.refs, ref)
	if w.bytes += size; len(w.points) >= maxBatch || w.bytes >= maxBytes {
		return w.flush(ctx)
	}
	return nil
}

// sparse makes a sparse vector of terms. Two stems of one dimension add up.
func sparse(list []index.Term, weight func(index.Term) float64) (indices []uint32, values []float32) {
	at := make(map[uint32]int, len(list))
	for _, t := range list {
		v := float32(weight(t))
		if v <= 0 {
			continue
		}
		d := stemID(t.Stem)
		i, ok := at[d]
		if !ok {
			i = len(indices)
			at[d] = i
			indices, values = append(indices, d), append(values, 0)
		}
		values[i] += v
	}
	return indices, values
}

// Drop implements index.Mirror.
func (w *Writer) Drop(ctx context.Context, r index.Ref) error {
	w.drops = append(w.drops, w.id(r))
	if len(w.drops) < maxBatch {
		return nil
	}
	return w.dropAll(ctx)
}

func (w *Writer) dropAll(ctx context.Context) error {
	if err := w.flush(ctx); err != nil || len(w.drops) == 0 {
		return err
	}
	err := w.c.do(ctx, fmt.Sprintf("delete %d points", len(w.drops)), func(ctx context.Context) error {
		_, err := w.c.points.Delete(ctx, &qdrant.DeletePoints{CollectionName: w.collection, Wait: qdrant.PtrOf(true), Points: qdrant.NewPointsSelectorIDs(w.drops)})
		return err
	})
	w.drops = w.drops[:0]
	return err
}

// flush stores what was put.
func (w *Writer) flush(ctx context.Context) error {
	if len(w.points) == 0 {
		return nil
	}
	err := w.store(ctx, w.points, w.refs)
	w.points, w.refs, w.bytes = nil, nil, 0
	return err
}

// fewRefused is how many records may be refused before any is accepted: then
// it is not they that are wrong.
const fewRefused = 8

// store stores points. Of a batch that the server refuses the halves are tried,
// down to the point that is to blame, which is left out and named.
func (w *Writer) store(ctx context.Context, points []*qdrant.PointStruct, refs []index.Ref) error {
	err := w.c.do(ctx, fmt.Sprintf("store %d points in %s", len(points), w.collection), func(ctx context.Context) error {
		_, err := w.c.points.Upsert(ctx, &qdrant.UpsertPoints{CollectionName: w.collection, Wait: qdrant.PtrOf(true), Points: points})
		return err
	})
	if err == nil {
		w.accepted += len(points)
		return nil
	}
	if isNotFound(err) {
		w.ready = false
	}
	if code := status.Code(unwrapped(err)); code != codes.InvalidArgument && code != codes.OutOfRange {
		return err
	}
	if len(points) > 1 {
		n := len(points) / 2
		if err := w.store(ctx, points[:n], refs[:n]); err != nil {
			return err
		}
		return w.store(ctx, points[n:], refs[n:])
	}
	if len(w.refused) >= fewRefused && w.accepted == 0 {
		return err
	}
	w.refused = append(w.refused, index.Refused{Ref: refs[0], Reason: reason(unwrapped(err))})
	return nil
}

// Publish implements index.Mirror.
func (w *Writer) Publish(ctx context.Context, h index.Head) ([]index.Refused, string, error) {
	if err := w.dropAll(ctx); err != nil {
		return nil, "", err
	}
	if w.o.Hold {
		return w.refused, "", w.upsert(ctx, "store "+w.part, readyID(w.part), map[string]*qdrant.Value{keyTenant: valueOf(w.part), keyKind: valueOf(kindReady)})
	}
	payload := map[string]*qdrant.Value{
		keyKind: valueOf(kindHead), "version": valueOf(int64(version)), "name": valueOf(w.o.Tenant), "part": valueOf(w.part), "events": valueOf(h.Events),
		"embedder": valueOf(h.Embedder), "waiting": valueOf(h.Pending), "log": valueOf(h.Log), "state": valueOf(string(h.State)),
	}
	if !h.Newest.IsZero() {
		payload["newest_event"] = valueOf(h.Newest.UnixNano())
	}
	if err := w.upsert(ctx, "store the head of "+w.o.Tenant, headID(w.o.Tenant), payload); err != nil {
		return nil, "", err
	}
	if err := w.alias(ctx); err != nil {
		return nil, "", err
	}
	if w.fresh {
		if err := w.sweep(ctx); err != nil {
			return nil, "", err
		}
	}
	return w.refused, w.o.Tenant, nil
}

// alias makes the alias name this collection, unless it names another one with
// tenants that this one has not: then readers stay there until those have come,
// too.
func (w *Writer) alias(ctx context.Context) error {
	c := w.c
	now, err := c.aliased(ctx)
	if err != nil || now == w.collection {
		return err
	}
	actions := []*qdrant.AliasOperations{qdrant.NewAliasCreate(c.o.Alias, w.collection)}
	if now != "" {
		there, err := c.heads(ctx, now)
		if err != nil {
			return err
		}
		here, err := c.heads(ctx, w.collection)
		if err != nil {
			return err
		}
		var missing []string
		for _, h := range there {
			if !slices.ContainsFunc(here, func(x *head) bool { return x.tenant == h.tenant }) {
				missing = append(missing, h.tenant)
			}
		}
		if len(missing) > 0 {
			w.note(fmt.Sprintf("searches stay with collection %s until these have been made anew with the same embedder: %s", now, strings.Join(missing, ", ")))
			return nil
		}
		actions = []*qdrant.AliasOperations{qdrant.NewAliasDelete(c.o.Alias), actions[0]}
	}
	err = c.do(ctx, "alias "+c.o.Alias, func(ctx context.Context) error {
		_, err := c.collections.UpdateAliases(ctx, &qdrant.ChangeAliases{Actions: actions})
		return err
	})
	if err == nil && now != "" {
		w.note(fmt.Sprintf("searches go to collection %s now; %s can be deleted", w.collection, now))
	}
	return err
}

func (w *Writer) note(s string) {
	if w.o.Note != nil {
		w.o.Note(s)
	}
}

// aliased returns the collection that the alias names, "" if none.
func (c *Client) aliased(ctx context.Context) (name string, err error) {
	err = c.do(ctx, "read the aliases", func(ctx context.Context) error {
		r, err := c.collections.ListAliases(ctx, &qdrant.ListAliasesRequest{})
		for _, a := range r.GetAliases() {
			if a.AliasName == c.o.Alias {
				name = a.CollectionName
			}
		}
		return err
	})
	return name, err
}

// heads returns all tenants of a collection.
func (c *Client) heads(ctx context.Context, collection string) (list []*head, err error) {
	f := &qdrant.Filter{Must: []*qdrant.Condition{qdrant.NewMatch(keyKind, kindHead)}}
	err = c.scroll(ctx, collection, f, nil, func(p *qdrant.RetrievedPoint) error {
		list = append(list, parseHead(p.Payload))
		return nil
	})
	slices.SortFunc(list, func(a, b *head) int { return strings.Compare(a.tenant, b.tenant) })
	return list, err
}

// A packed is an event in a block.
type packed struct {
	Index    int64  `json:"i"`
	Time     int64  `json:"t"` // ns since 1970
	Host     string `json:"h,omitempty"`
	Source   string `json:"s"`
	Type     string `json:"y"`
	Subject  string `json:"u,omitempty"`
	Severity int    `json:"v"`
	Actor    string `json:"a,omitempty"`
	Message  string `json:"m,omitempty"`
	Data     []byte `json:"d,omitempty"` // may be cut off, so no JSON
	Template string `json:"k"`
}

// packEvents returns events as JSON lines, compressed (RFC 1951), in base64.
func packEvents(list []index.Event) (string, error) {
	var b bytes.Buffer
	z, err := flate.NewWriter(&b, flate.DefaultCompression)
	if err != nil {
		return "", err
	}
	enc := json.NewEncoder(z)
	enc.SetEscapeHTML(false)
	for i := range list {
		e := &list[i]
		if err := enc.Encode(packed{Index: e.Index, Time: e.Time.UnixNano(), Host: e.Host, Source: e.Source, Type: e.Type, Subject: e.Subject,
			Severity: int(e.Severity), Actor: e.Actor, Message: e.Message, Data: e.Data, Template: e.Template.String()}); err != nil {
			return "", err
		}
	}
	if err := z.Close(); err != nil {
		return "", err
	}
	return base64.StdEncoding.EncodeToString(b.Bytes()), nil
}

// packSeen returns indexes and times as varints, each less the one before, in
// base64.
func packSeen(list []index.Occurrence) string {
	var b []byte
	var i, t int64
	for _, o := range list {
		b = binary.AppendVarint(b, o.Index-i)
		b = binary.AppendVarint(b, o.Time.UnixNano()-t)
		i, t = o.Index, o.Time.UnixNano()
	}
	return base64.StdEncoding.EncodeToString(b)
}
