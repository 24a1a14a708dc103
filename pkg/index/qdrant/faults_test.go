package qdrant_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"database/sql"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"math/rand/v2"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	client "github.com/qdrant/go-client/qdrant"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/ghostbridge/ghostbridge/pkg/embed"
	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/index"
	"github.com/ghostbridge/ghostbridge/pkg/index/indextest"
	"github.com/ghostbridge/ghostbridge/pkg/index/local"
	"github.com/ghostbridge/ghostbridge/pkg/index/qdrant"
	"github.com/ghostbridge/ghostbridge/pkg/index/qdrant/qdranttest"
)

// documents embeds as gb-vecsync does, unless it is down.
type documents struct {
	*embed.Local
	down atomic.Bool
}

func (d *documents) EmbedDocuments(ctx context.Context, texts []string) ([][]float32, error) {
	if d.down.Load() {
		return nil, errors.New("the embedder is down")
	}
	return d.Embed(ctx, embed.Document, texts)
}

// state opens a state file at path with a mirror.
func state(t *testing.T, c *qdrant.Client, path, tenant string, e index.Embedder) *local.DB {
	t.Helper()
	o := qdrant.WriterOptions{Tenant: tenant}
	if e != nil {
		o.Embedder, o.Dim = e.ID(), e.Dim()
	}
	w, err := qdrant.NewWriter(c, o)
	if err != nil {
		t.Fatal(err)
	}
	db, err := local.Open(path, local.Options{Mirror: w, Embedder: e})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func commit(db *local.DB, events []*event.Event) error {
	x, err := db.Begin()
	if err != nil {
		return err
	}
	defer x.Rollback()
	for _, e := range events {
		if err := x.Add(e); err != nil {
			return err
		}
	}
	return x.Commit()
}

func reader(t *testing.T, c *qdrant.Client, tenant string) *qdrant.Reader {
	t.Helper()
	r, err := qdrant.OpenReader(t.Context(), c, tenant)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// same checks that the mirror holds what the state does.
func same(t *testing.T, c *qdrant.Client, tenant string, db *local.DB) {
	t.Helper()
	a, b := indextest.Points(t, db), indextest.Points(t, reader(t, c, tenant))
	if !slices.Equal(a, b) {
		t.Errorf("the state holds %d lines, the mirror %d that differ: %s and %s", len(a), len(b), a[len(a)-1], b[len(b)-1])
	}
}

// While the server is down nothing is committed; what comes again then is there
// once.
func TestDown(t *testing.T) {
	s := qdranttest.New(t)
	c := dial(t, options(t, s.Address()))
	path := filepath.Join(t.TempDir(), "state.db")
	db := state(t, c, path, "log", nil)
	events := indextest.Events(5, 600)
	if err := commit(db, events[:200]); err != nil {
		t.Fatal(err)
	}
	address := s.Address()
	s.Stop()
	down := state(t, dial(t, withPatience(options(t, address), 300*time.Millisecond)), path, "log", nil)
	err := commit(down, events[200:400])
	var unavailable *qdrant.UnavailableError
	if !errors.As(err, &unavailable) || unavailable.ExitCode() != 75 || !strings.Contains(unavailable.Hint(), "events wait in the log") {
		t.Fatalf("commit: %v", err)
	}
	if totals, err := down.Totals(); err != nil || totals.Events != 200 {
		t.Errorf("%+v, %v: want the 200 events of before", totals, err)
	}
	// A finding is kept all the same.
	x, err := down.Begin()
	if err == nil {
		err = x.Set("finding/000001", []byte("{}"))
	}
	if err == nil {
		err = x.Commit()
	}
	if err != nil {
		t.Errorf("a change of the state alone: %v", err)
	}
	s.Listen(t, address)
	for part := range slices.Chunk(events[200:], 150) {
		if err := commit(db, part); err != nil {
			t.Fatal(err)
		}
	}
	same(t, c, "log", db)
}

func withPatience(o qdrant.Options, d time.Duration) qdrant.Options {
	o.Patience = d
	return o
}

// A server that is slow, loses answers and fails now and then: what was
// committed is there in the end, exactly, whatever transactions have failed on
// the way.
func TestFaults(t *testing.T) {
	s := qdranttest.New(t)
	o := withPatience(options(t, s.Address()), time.Minute)
	c := dial(t, o)
	c.Hurry(200 * time.Millisecond)
	r := rand.New(rand.NewPCG(3, 4))
	var n atomic.Int64
	dice := make(chan int, 1)
	go func() {
		for {
			select {
			case dice <- r.IntN(100):
			case <-t.Context().Done():
				return
			}
		}
	}()
	s.Fail(func(ctx context.Context, method string, _ any) error {
		switch roll := <-dice; {
		case roll < 3 && n.Add(1) < 10: // longer than the client waits
			<-ctx.Done()
			return ctx.Err()
		case roll < 10:
			return status.Error(codes.Unavailable, "node is restarting")
		case roll < 14:
			return status.Error(codes.Internal, "Service internal error: task was cancelled")
		case roll < 16 && method == "Upsert":
			return status.Error(codes.NotFound, "shard is gone") // not to be tried again: the transaction fails
		}
		return nil
	}, func(method string, _ any) error {
		if <-dice < 10 {
			return status.Error(codes.Unavailable, "connection lost")
		}
		return nil
	})
	path := filepath.Join(t.TempDir(), "state.db")
	db := state(t, c, path, "log", nil)
	events := indextest.Events(6, 900)
	failed := 0
	for part := range slices.Chunk(events, 60) {
		for {
			err := commit(db, part)
			if err == nil {
				break
			}
			if failed++; failed > 200 {
				t.Fatal(err)
			}
		}
	}
	t.Logf("%d transactions failed", failed)
	x, err := db.Begin()
	if err == nil {
		err = x.Remove(100, 300)
	}
	if err != nil {
		t.Fatal(err)
	}
	for err = x.Commit(); err != nil; err = x.Commit() {
		if x, err = db.Begin(); err == nil {
			err = x.Remove(100, 300)
		}
		if failed++; err != nil || failed > 200 {
			t.Fatal(err)
		}
	}
	s.Fail(nil, nil)
	c.Hurry(10 * time.Second) // nothing hangs any more; a machine with much to do is slow
	if failed == 0 {
		t.Error("no transaction has failed: the test shows nothing")
	}
	same(t, c, "log", db)
	// Nothing is there beyond that: no block or list of a state that was not.
	for kind, query := range map[string]string{index.KindBlock: "block", index.KindSeen: lists} {
		if have, want := s.Points(o.Alias, kind), rows(t, path, query); have != want {
			t.Errorf("%d points of kind %s, the state has %d", have, kind, want)
		}
	}
}

// lists are what the mirror has of the points' lists of events.
const lists = "occurrence WHERE point IN (SELECT id FROM point WHERE count > 8)"

func rows(t *testing.T, path, table string) int {
	t.Helper()
	raw, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	var n int
	if err := raw.QueryRow("SELECT count(*) FROM " + table).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// What the server refuses is left out and named; all else is there. Batches are
// no larger than they may be, and each is waited for.
func TestRefused(t *testing.T) {
	s := qdranttest.New(t)
	o := options(t, s.Address())
	c := dial(t, o)
	bad := ""
	s.Fail(func(_ context.Context, method string, r any) error {
		u, ok := r.(*client.UpsertPoints)
		if !ok {
			return nil
		}
		if len(u.Points) > 512 || !u.GetWait() {
			t.Errorf("a batch of %d points, wait %t", len(u.Points), u.GetWait())
		}
		for _, p := range u.Points {
			if p.Payload["kind"].GetStringValue() == index.KindPoint && p.Payload["host"].GetStringValue() == "hv1" && (bad == "" || bad == p.Payload["point"].GetStringValue()) {
				bad = p.Payload["point"].GetStringValue()
				return status.Error(codes.InvalidArgument, "Wrong input: not this one")
			}
		}
		return nil
	}, nil)
	db := state(t, c, filepath.Join(t.TempDir(), "state.db"), "log", nil)
	if err := commit(db, indextest.Events(7, 3000)); err != nil {
		t.Fatal(err)
	}
	list, err := db.Refusals()
	if err != nil || len(list) != 1 || list[0].ID != bad || list[0].Kind != index.KindPoint || !strings.Contains(list[0].Reason, "not this one") {
		t.Errorf("refused: %+v, %v; want %s", list, err, bad)
	}
	totals, err := db.Totals()
	if err != nil {
		t.Fatal(err)
	}
	if n := s.Points(o.Alias, index.KindPoint); int64(n) != totals.Points-1 {
		t.Errorf("%d points there, want all %d but one", n, totals.Points)
	}
}

// If nothing is accepted it is not the points that are wrong: the transaction
// fails.
func TestAllRefused(t *testing.T) {
	s := qdranttest.New(t)
	c := dial(t, options(t, s.Address()))
	s.Fail(func(_ context.Context, method string, r any) error {
		if method == "Upsert" {
			return status.Error(codes.InvalidArgument, "Wrong input: read only")
		}
		return nil
	}, nil)
	db := state(t, c, filepath.Join(t.TempDir(), "state.db"), "log", nil)
	if err := commit(db, indextest.Events(8, 300)); err == nil || !strings.Contains(err.Error(), "read only") {
		t.Errorf("commit: %v", err)
	}
}

// The collection is made as the workload wants it.
func TestCollection(t *testing.T) {
	s := qdranttest.New(t)
	o := options(t, s.Address())
	c := dial(t, o)
	e := &documents{Local: embed.LoadLocal()}
	w, err := qdrant.NewWriter(c, qdrant.WriterOptions{Tenant: "log", Embedder: e.ID(), Dim: e.Dim(), Shards: 6, Replicas: 3})
	if err != nil {
		t.Fatal(err)
	}
	db, err := local.Open(filepath.Join(t.TempDir(), "state.db"), local.Options{Mirror: w, Embedder: e})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := commit(db, indextest.Events(9, 100)); err != nil {
		t.Fatal(err)
	}
	name := s.Aliased(o.Alias)
	if want := fmt.Sprintf("%s__local-1__%d", o.Alias, e.Dim()); name != want {
		t.Errorf("the alias names %q, want %q", name, want)
	}
	cfg := s.Config(name)
	dense := cfg.GetVectorsConfig().GetParamsMap().GetMap()["dense"]
	if dense.GetSize() != uint64(e.Dim()) || dense.GetDistance() != client.Distance_Cosine || dense.GetQuantizationConfig().GetScalar().GetType() != client.QuantizationType_Int8 || !dense.GetOnDisk() {
		t.Errorf("dense: %v", dense)
	}
	if m := cfg.GetSparseVectorsConfig().GetMap()["bm25"]; m.GetModifier() != client.Modifier_Idf {
		t.Errorf("bm25: %v", m)
	}
	if cfg.GetShardNumber() != 6 || cfg.GetReplicationFactor() != 3 || cfg.GetWriteConsistencyFactor() != 2 || !cfg.GetOnDiskPayload() {
		t.Errorf("placement: %v", cfg)
	}
	schema := s.Schema(name)
	if !schema["tenant"].GetParams().GetKeywordIndexParams().GetIsTenant() {
		t.Errorf("tenant: %v", schema["tenant"])
	}
	for _, key := range []string{"kind", "template", "host", "source", "type", "actor", "severity", "hour", "last", "values", "stems"} {
		if schema[key] == nil {
			t.Errorf("no index of %s", key)
		}
	}
}

// While the embedder is down words find what was said; later the vectors come.
func TestEmbedderDown(t *testing.T) {
	s := qdranttest.New(t)
	o := options(t, s.Address())
	c := dial(t, o)
	e := &documents{Local: embed.LoadLocal()}
	e.down.Store(true)
	db := state(t, c, filepath.Join(t.TempDir(), "state.db"), "log", e)
	events := indextest.Events(10, 500)
	if err := commit(db, events[:400]); err != nil {
		t.Fatal(err)
	}
	r := reader(t, c, "log")
	question := e.Vector([]string{"password"}, nil)
	totals, err := r.Totals()
	if err != nil || totals.Pending == 0 || totals.Pending != totals.Templates {
		t.Errorf("%+v, %v: want all pending", totals, err)
	}
	if list, err := r.Lexical(t.Context(), []index.Term{{Stem: "password", Weight: 1}}, index.Filter{}, 10); err != nil || len(list) == 0 {
		t.Errorf("words find %d, %v", len(list), err)
	}
	if list, err := r.Dense(t.Context(), question, index.Filter{}, 10); err != nil || len(list) != 0 {
		t.Errorf("vectors find %d, %v", len(list), err)
	}
	e.down.Store(false)
	if err := commit(db, events[400:]); err != nil {
		t.Fatal(err)
	}
	if totals, err := r.Totals(); err != nil || totals.Pending != 0 {
		t.Errorf("%+v, %v: want none pending", totals, err)
	}
	for _, f := range []index.Filter{{}, {Hosts: []string{"hv1"}}} {
		a, err := r.Dense(t.Context(), question, f, 10)
		if err != nil {
			t.Fatal(err)
		}
		b, err := db.Dense(t.Context(), question, f, 10)
		if err != nil || len(a) == 0 || !slices.EqualFunc(a, b, func(x, y index.Candidate) bool { return x.ID == y.ID && x.Group == y.Group }) {
			t.Errorf("the mirror finds %d, the state %d others; %v", len(a), len(b), err)
		}
	}
}

// The alias goes to the collection of a new embedder with the last tenant, so
// that no log is ever out of sight.
func TestAliasMovesWithTheLast(t *testing.T) {
	s := qdranttest.New(t)
	o := options(t, s.Address())
	c := dial(t, o)
	dir := t.TempDir()
	events := indextest.Events(11, 80)
	for _, tenant := range []string{"one", "two"} {
		if err := commit(state(t, c, filepath.Join(dir, tenant), tenant, nil), events); err != nil {
			t.Fatal(err)
		}
	}
	before := s.Aliased(o.Alias)
	e := &documents{Local: embed.LoadLocal()}
	if err := commit(state(t, c, filepath.Join(dir, "one.new"), "one", e), events); err != nil {
		t.Fatal(err)
	}
	if now := s.Aliased(o.Alias); now != before {
		t.Fatalf("the alias names %s, where tenant two is not", now)
	}
	if err := commit(state(t, c, filepath.Join(dir, "two.new"), "two", e), events); err != nil {
		t.Fatal(err)
	}
	if now := s.Aliased(o.Alias); now == before {
		t.Error("the alias stays where nobody writes any more")
	}
	if totals, err := reader(t, c, "").Totals(); err != nil || totals.Events != 2*int64(len(events)) || totals.Embedder != e.ID() {
		t.Errorf("%+v, %v", totals, err)
	}
}

// A mirror that has lost everything gets all of it with the next transaction,
// however little that changes.
func TestLostMirror(t *testing.T) {
	s := qdranttest.New(t)
	o := options(t, s.Address())
	c := dial(t, o)
	db := state(t, c, filepath.Join(t.TempDir(), "state.db"), "log", nil)
	events := indextest.Events(12, 1500)
	if err := commit(db, events[:1400]); err != nil {
		t.Fatal(err)
	}
	s.Drop(s.Aliased(o.Alias))
	var none *qdrant.NoneError
	if _, err := qdrant.OpenReader(t.Context(), c, "log"); !errors.As(err, &none) {
		t.Errorf("reader: %v", err)
	}
	if err := commit(db, events[1400:]); err != nil {
		t.Fatal(err)
	}
	same(t, c, "log", db)
}

// What a transaction has stored that was given up for good goes when the next
// file is shown.
func TestSweep(t *testing.T) {
	s := qdranttest.New(t)
	o := options(t, s.Address())
	c := dial(t, withPatience(o, 300*time.Millisecond))
	dir := t.TempDir()
	events := indextest.Events(13, 1200)
	db := state(t, c, filepath.Join(dir, "one"), "log", nil)
	if err := commit(db, events[:600]); err != nil {
		t.Fatal(err)
	}
	n := 0
	s.Fail(func(_ context.Context, method string, _ any) error {
		if method == "Upsert" {
			n++
		}
		if n > 1 {
			return status.Error(codes.Unavailable, "gone")
		}
		return nil
	}, nil)
	if err := commit(state(t, c, filepath.Join(dir, "two"), "log", nil), events); err == nil {
		t.Fatal("a commit without a server")
	}
	s.Fail(nil, nil)
	if n := s.Points(o.Alias, index.KindBlock) - rows(t, filepath.Join(dir, "one"), "block"); n == 0 {
		t.Fatal("nothing is left over: the test shows nothing")
	}
	third := state(t, c, filepath.Join(dir, "three"), "log", nil)
	if err := commit(third, events); err != nil {
		t.Fatal(err)
	}
	same(t, c, "log", third)
	if have, want := s.Points(o.Alias, index.KindBlock), rows(t, filepath.Join(dir, "three"), "block"); have != want {
		t.Errorf("%d points of kind block, want %d", have, want)
	}
}

// TLS with a certificate of one's own, and a key.
func TestTLSAndKey(t *testing.T) {
	cert, ca := certificate(t)
	s := qdranttest.New(t, grpc.Creds(credentials.NewServerTLSFromCert(&cert)))
	s.Key = "k"
	for _, of := range []struct {
		name string
		o    func(*qdrant.Options)
		want string // of the error
	}{
		{"all right", func(o *qdrant.Options) {}, ""},
		{"wrong key", func(o *qdrant.Options) { o.Key = "x" }, "Invalid API key"},
		{"unknown certificate", func(o *qdrant.Options) { o.CA = nil }, "certificate"},
		{"no TLS", func(o *qdrant.Options) { o.TLS = false }, "qdrant"},
	} {
		o := withPatience(options(t, s.Address()), 300*time.Millisecond)
		o.TLS, o.CA, o.Key = true, ca, "k"
		of.o(&o)
		_, err := dial(t, o).Version(t.Context())
		if of.want == "" && err != nil || of.want != "" && (err == nil || !strings.Contains(err.Error(), of.want)) {
			t.Errorf("%s: %v", of.name, err)
		}
	}
	o := options(t, s.Address())
	o.TLS, o.CA = true, []byte("no PEM")
	if _, err := qdrant.Dial(o); err == nil {
		t.Error("a file of authorities without one is taken")
	}
}

func certificate(t *testing.T) (cert tls.Certificate, ca []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	x := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "qdrant"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(crand.Reader, x, x, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
