// Package qdrant keeps an index in a Qdrant server or cluster, where many hosts
// write and anybody may search all of them: the mirror of the index in a file
// (package local) that each host keeps as its state, and a reader.
//
// All hosts whose vectors are of one space share a collection, which readers
// know by an alias. In it are, told apart by their payload's kind:
//
//   - template: a kind of lines, with the two named vectors: dense, and bm25,
//     sparse, with the weights that index.Saturate gives, of which the server
//     makes BM25 by its IDF modifier. Only these have vectors: there are few,
//     however many events.
//   - point: an index's point, of which the filters are asked;
//   - seen: when some of a point's events were, compressed, unless all are named
//     by the point itself;
//   - block: some events themselves, compressed;
//   - group: what templates are shown as;
//   - head: what a tenant has written and verified, and which of its writers'
//     files is the one that counts.
//
// A tenant is a log. Its points carry its name and that of the file that they
// were made from, so that an index that is made anew appears at once and whole
// when the head names its file, and what a crash has left of others is never
// seen.
package qdrant

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/qdrant/go-client/qdrant"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ghostbridge/ghostbridge/pkg/index"
)

const (
	maxBatch = 512     // points of one request
	maxBytes = 4 << 20 // about, likewise

	callTime = 15 * time.Second // that one request may take
	// DefaultPatience is how long a request is tried again.
	DefaultPatience = 30 * time.Second
	firstPause      = 200 * time.Millisecond
	longestPause    = 10 * time.Second

	// version is that of what stands in payloads.
	version = 1
)

// Options say where Qdrant is.
type Options struct {
	Host string
	Port int    // of gRPC
	TLS  bool   //
	CA   []byte // PEM; the system's if empty
	Key  string // API key, "" for none
	// Alias is the name that readers use.
	Alias string
	// Patience is how long a request is tried again while the server does not
	// answer, DefaultPatience if 0.
	Patience time.Duration
}

// Address returns host and port.
func (o *Options) Address() string { return net.JoinHostPort(o.Host, strconv.Itoa(o.Port)) }

// A Client is a connection. It may be used by several goroutines.
type Client struct {
	o           Options
	conn        *qdrant.GrpcClient
	points      qdrant.PointsClient
	collections qdrant.CollectionsClient
	callTime    time.Duration
	sleep       func(context.Context, time.Duration) error

	mu      sync.Mutex
	version string
}

// Dial makes a client. It connects with the first request.
func Dial(o Options) (*Client, error) {
	if o.Patience == 0 {
		o.Patience = DefaultPatience
	}
	cfg := &qdrant.Config{Host: o.Host, Port: o.Port, APIKey: o.Key, UseTLS: o.TLS, SkipCompatibilityCheck: true,
		GrpcOptions: []grpc.DialOption{
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(256 << 20)),
			grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: firstPause, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 5 * time.Second}, MinConnectTimeout: 5 * time.Second}),
		}}
	if strings.Contains(o.Host, ":") {
		cfg.Host = "[" + o.Host + "]"
	}
	if o.TLS {
		cfg.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
		if len(o.CA) > 0 {
			pool := x509.NewCertPool()
			if !pool.AppendCertsFromPEM(o.CA) {
				return nil, fmt.Errorf("qdrant %s: the file of certificate authorities holds none", o.Address())
			}
			cfg.TLSConfig.RootCAs = pool
		}
	}
	conn, err := qdrant.NewGrpcClient(cfg)
	if err != nil {
		return nil, fmt.Errorf("qdrant %s: %w", o.Address(), err)
	}
	return &Client{o: o, conn: conn, points: conn.Points(), collections: conn.Collections(), callTime: callTime, sleep: pause}, nil
}

// Close closes the connection.
func (c *Client) Close() error { return c.conn.Close() }

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// An UnavailableError says that Qdrant does not answer: exit code 75.
type UnavailableError struct {
	Address string
	Doing   string
	Err     error
}

func (e *UnavailableError) Error() string {
	return fmt.Sprintf("qdrant %s: %s: %s", e.Address, e.Doing, reason(e.Err))
}
func (e *UnavailableError) Unwrap() error { return e.Err }

// ExitCode is EX_TEMPFAIL.
func (e *UnavailableError) ExitCode() int { return 75 }

// Hint says what to do.
func (e *UnavailableError) Hint() string {
	return "events wait in the log meanwhile, nothing is lost; is the server up, and is this its gRPC port (6334, not 6333)?"
}

// A RefusedError says that Qdrant does not let us: exit code 2.
type RefusedError struct {
	Address string
	Doing   string
	Err     error
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("qdrant %s: %s: %s", e.Address, e.Doing, reason(e.Err))
}
func (e *RefusedError) Unwrap() error { return e.Err }

// ExitCode is that of wrong configuration.
func (e *RefusedError) ExitCode() int { return 2 }

// Hint says what to do.
func (e *RefusedError) Hint() string { return "name the file with the API key: --qdrant-key-file" }

// A NoneError says that nothing was indexed there yet.
type NoneError struct{ Address, Name string }

func (e *NoneError) Error() string {
	return fmt.Sprintf("qdrant %s: there is no %s", e.Address, e.Name)
}

// Hint says what to do.
func (e *NoneError) Hint() string { return "gb-vecsync ingest or gb-vecsync rebuild makes it" }

func reason(err error) string {
	if s, ok := status.FromError(err); ok && s.Message() != "" {
		return s.Message()
	}
	return err.Error()
}

// temporary says whether it may help to try again.
func temporary(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.ResourceExhausted, codes.Aborted, codes.Internal:
		return true
	}
	return false
}

// do asks the server, again while it does not answer.
func (c *Client) do(ctx context.Context, doing string, f func(ctx context.Context) error) error {
	deadline := time.Now().Add(c.o.Patience)
	wait := firstPause
	for {
		call, cancel := context.WithTimeout(ctx, c.callTime)
		err := f(call)
		cancel()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case status.Code(err) == codes.Unauthenticated || status.Code(err) == codes.PermissionDenied:
			return &RefusedError{c.o.Address(), doing, err}
		case !temporary(err):
			return fmt.Errorf("qdrant %s: %s: %w", c.o.Address(), doing, err)
		}
		// Full jitter, so that many hosts do not come back at once; what the
		// server asks for comes first.
		d := time.Duration(rand.Int64N(int64(wait))) + wait/4
		var limited *qdrant.QdrantResourceExhaustedError
		if errors.As(err, &limited) {
			d = max(d, time.Duration(limited.RetryAfterS)*time.Second)
		}
		if time.Now().Add(d).After(deadline) {
			return &UnavailableError{c.o.Address(), doing, err}
		}
		if serr := c.sleep(ctx, d); serr != nil {
			return serr
		}
		wait = min(2*wait, longestPause)
	}
}

// Version returns the server's.
func (c *Client) Version(ctx context.Context) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.version != "" {
		return c.version, nil
	}
	err := c.do(ctx, "health check", func(ctx context.Context) error {
		r, err := c.conn.Qdrant().HealthCheck(ctx, &qdrant.HealthCheckRequest{})
		c.version = r.GetVersion()
		return err
	})
	return c.version, err
}

func isNotFound(err error) bool { return status.Code(unwrapped(err)) == codes.NotFound }

func unwrapped(err error) error {
	var s interface{ GRPCStatus() *status.Status }
	if errors.As(err, &s) {
		return s.GRPCStatus().Err()
	}
	return err
}

// The names of the two vectors of a template.
const (
	vectorDense  = "dense"
	vectorSparse = "bm25"
)

// The keys of payloads, those first that filters ask for.
const (
	keyTenant   = "tenant"
	keyKind     = "kind"
	keyTemplate = "template"
	keyHost     = "host"
	keySource   = "source"
	keyType     = "type"
	keyActor    = "actor"
	keySeverity = "severity"
	keyHour     = "hour"
	keyLast     = "last"
	keyValues   = "values"
	keyMore     = "more"
	keyStems    = "stems"
	keyPending  = "pending"
	keyPoint    = "point"
	keyOf       = "of" // a point
	keyFrom     = "from"
	keyTo       = "to"
	keyGroup    = "group"

	keyFirst   = "first"
	keyCount   = "count"
	keyMinutes = "minutes"
	keySingle  = "single"
	keyNewest  = "newest"
	keyMasked  = "masked"
	keyExtra   = "extra"
	keyText    = "text"
	keyData    = "data"
)

const (
	kindHead  = "head"
	kindReady = "ready" // says that a part which readers do not see yet is whole
)

// indexes are the payload's keys with an index, made before anything is stored.
var indexes = []struct {
	key    string
	typ    qdrant.FieldType
	params *qdrant.PayloadIndexParams
}{
	{keyTenant, qdrant.FieldType_FieldTypeKeyword, qdrant.NewPayloadIndexParamsKeyword(&qdrant.KeywordIndexParams{IsTenant: qdrant.PtrOf(true)})},
	{keyKind, qdrant.FieldType_FieldTypeKeyword, nil},
	{keyTemplate, qdrant.FieldType_FieldTypeKeyword, nil},
	{keyHost, qdrant.FieldType_FieldTypeKeyword, nil},
	{keySource, qdrant.FieldType_FieldTypeKeyword, nil},
	{keyType, qdrant.FieldType_FieldTypeKeyword, nil},
	{keyActor, qdrant.FieldType_FieldTypeKeyword, nil},
	{keyOf, qdrant.FieldType_FieldTypeKeyword, qdrant.NewPayloadIndexParamsKeyword(&qdrant.KeywordIndexParams{OnDisk: qdrant.PtrOf(true)})},
	{keySeverity, qdrant.FieldType_FieldTypeInteger, ranged},
	{keyHour, qdrant.FieldType_FieldTypeInteger, ranged},
	{keyFirst, qdrant.FieldType_FieldTypeInteger, ranged},
	{keyLast, qdrant.FieldType_FieldTypeInteger, ranged},
	{keyFrom, qdrant.FieldType_FieldTypeInteger, ranged},
	{keyTo, qdrant.FieldType_FieldTypeInteger, ranged},
	{keyValues, qdrant.FieldType_FieldTypeInteger, qdrant.NewPayloadIndexParamsInt(&qdrant.IntegerIndexParams{Lookup: qdrant.PtrOf(true), Range: qdrant.PtrOf(false), OnDisk: qdrant.PtrOf(true)})},
	{keyStems, qdrant.FieldType_FieldTypeInteger, looked},
	{keyGroup, qdrant.FieldType_FieldTypeInteger, looked},
	{keyMore, qdrant.FieldType_FieldTypeBool, nil},
	{keyPending, qdrant.FieldType_FieldTypeBool, nil},
}

var (
	ranged = qdrant.NewPayloadIndexParamsInt(&qdrant.IntegerIndexParams{Lookup: qdrant.PtrOf(false), Range: qdrant.PtrOf(true)})
	looked = qdrant.NewPayloadIndexParamsInt(&qdrant.IntegerIndexParams{Lookup: qdrant.PtrOf(true), Range: qdrant.PtrOf(false)})
)

// Collection returns the name of the collection with the vectors of an embedder:
// vectors of two spaces are never in one.
func Collection(alias, embedder string, dim int) string {
	safe := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '.' {
			return r
		}
		return '-'
	}, embedder)
	if safe == "" {
		return alias + "__words"
	}
	if safe != embedder || len(safe) > 80 {
		// Names that differ in what can't stand there stay different.
		id := index.NewID("embedder", embedder)
		safe = safe[:min(len(safe), 80)] + "-" + id.String()[:8]
	}
	return fmt.Sprintf("%s__%s__%d", alias, safe, dim)
}
