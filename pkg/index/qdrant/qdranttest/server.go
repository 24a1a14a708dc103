// Package qdranttest is a gRPC server made of the Qdrant client's own stubs. It
// keeps points in memory and filters, orders and ranks them as Qdrant documents
// it, so that what goes over the wire is tried, and faults that a real server
// has on a bad day. That a real server does the same, only a real one shows.
//
// It is stricter than Qdrant where a mistake would cost speed there: a filter
// on a key without an index is refused.
package qdranttest

import (
	"context"
	"fmt"
	"math"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/qdrant/go-client/qdrant"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// A Server is one that listens on loopback.
type Server struct {
	qdrant.UnimplementedPointsServer
	qdrant.UnimplementedQdrantServer

	Host string
	Port int

	// Fault is asked before each request, by the name of its method; an error
	// is the answer. It may wait. May be nil.
	Fault func(ctx context.Context, method string, request any) error
	// Lost is asked when a request has been carried out; an error is the answer
	// all the same. May be nil.
	Lost func(method string, request any) error
	// Key is the API key that is asked for, "" for none.
	Key string

	state
	calls  map[string]int
	server *grpc.Server
}

// A state is what a server holds.
type state struct {
	mu          sync.Mutex
	collections map[string]*collection
	aliases     map[string]string
}

type collection struct {
	config *qdrant.CreateCollection
	schema map[string]*qdrant.PayloadSchemaInfo
	points map[string]*qdrant.PointStruct
	kinds  map[string]map[string]*qdrant.PointStruct // the same by payload's kind, which nearly all filters ask for
}

func (c *collection) put(p *qdrant.PointStruct) {
	c.drop(p.Id.GetUuid())
	k := p.Payload["kind"].GetStringValue()
	if c.kinds[k] == nil {
		c.kinds[k] = make(map[string]*qdrant.PointStruct)
	}
	c.points[p.Id.GetUuid()], c.kinds[k][p.Id.GetUuid()] = p, p
}

func (c *collection) drop(id string) {
	if p := c.points[id]; p != nil {
		delete(c.kinds[p.Payload["kind"].GetStringValue()], id)
		delete(c.points, id)
	}
}

// of returns the points that a filter may let through.
func (c *collection) of(f *qdrant.Filter) map[string]*qdrant.PointStruct {
	for _, cond := range f.GetMust() {
		if cond.GetField().GetKey() == "kind" {
			return c.kinds[cond.GetField().GetMatch().GetKeyword()]
		}
	}
	return c.points
}

// New starts a server that ends with the test.
func New(t testing.TB, o ...grpc.ServerOption) *Server {
	t.Helper()
	s, err := Make(o...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

// Make is New for programs that are no tests. The caller stops the server.
func Make(o ...grpc.ServerOption) (*Server, error) {
	s := &Server{state: state{collections: make(map[string]*collection), aliases: make(map[string]string)}, calls: make(map[string]int)}
	return s, s.Serve("127.0.0.1:0", o...)
}

// Listen starts the server, after Stop again at its old address.
func (s *Server) Listen(t testing.TB, addr string, o ...grpc.ServerOption) {
	t.Helper()
	if err := s.Serve(addr, o...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
}

// Serve is Listen for programs that are no tests.
func (s *Server) Serve(addr string, o ...grpc.ServerOption) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	s.Host, s.Port = "127.0.0.1", l.Addr().(*net.TCPAddr).Port
	s.server = grpc.NewServer(append(o, grpc.MaxRecvMsgSize(64<<20), grpc.UnaryInterceptor(s.intercept))...)
	qdrant.RegisterPointsServer(s.server, s)
	qdrant.RegisterCollectionsServer(s.server, &collectionsServer{state: &s.state})
	qdrant.RegisterQdrantServer(s.server, s)
	go s.server.Serve(l)
	return nil
}

// Stop ends the server; what it holds stays.
func (s *Server) Stop() { s.server.Stop() }

// Address returns host and port.
func (s *Server) Address() string { return fmt.Sprintf("%s:%d", s.Host, s.Port) }

func (s *Server) intercept(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	method := info.FullMethod[strings.LastIndexByte(info.FullMethod, '/')+1:]
	if s.Key != "" {
		md, _ := metadata.FromIncomingContext(ctx)
		if !slices.Contains(md.Get("api-key"), s.Key) {
			return nil, status.Error(codes.PermissionDenied, "Invalid API key or JWT")
		}
	}
	s.mu.Lock()
	s.calls[method]++
	fault, lost := s.Fault, s.Lost
	s.mu.Unlock()
	if fault != nil {
		if err := fault(ctx, method, req); err != nil {
			return nil, err
		}
	}
	answer, err := next(ctx, req)
	if lost != nil && err == nil {
		if err := lost(method, req); err != nil {
			return nil, err
		}
	}
	return answer, err
}

// Fail sets Fault and Lost while requests are under way.
func (s *Server) Fail(fault func(ctx context.Context, method string, request any) error, lost func(method string, request any) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Fault, s.Lost = fault, lost
}

// Calls returns how often a method was called.
func (s *Server) Calls(method string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[method]
}

// Points returns how many points of a kind a collection or alias has.
func (s *Server) Points(name, kind string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.at(name)
	if err != nil {
		return 0
	}
	n := 0
	for _, p := range c.points {
		if p.Payload["kind"].GetStringValue() == kind {
			n++
		}
	}
	return n
}

// Config returns how a collection was made.
func (s *Server) Config(name string) *qdrant.CreateCollection {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.at(name)
	if err != nil {
		return nil
	}
	return c.config
}

// Schema returns the type of each indexed key.
func (s *Server) Schema(name string) map[string]*qdrant.PayloadSchemaInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.at(name)
	if err != nil {
		return nil
	}
	return c.schema
}

// Drop deletes a collection, as somebody does by accident.
func (s *Server) Drop(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.collections, name)
	for a, c := range s.aliases {
		if c == name {
			delete(s.aliases, a)
		}
	}
}

// Aliased returns what an alias names.
func (s *Server) Aliased(alias string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.aliases[alias]
}

func (s *state) at(name string) (*collection, error) {
	if to, ok := s.aliases[name]; ok {
		name = to
	}
	c := s.collections[name]
	if c == nil {
		return nil, status.Errorf(codes.NotFound, "Not found: Collection `%s` doesn't exist!", name)
	}
	return c, nil
}

// HealthCheck implements the service.
func (s *Server) HealthCheck(context.Context, *qdrant.HealthCheckRequest) (*qdrant.HealthCheckReply, error) {
	return &qdrant.HealthCheckReply{Title: "qdranttest", Version: "1.17.0"}, nil
}

// Its methods have names that the points' service has, too.
type collectionsServer struct {
	qdrant.UnimplementedCollectionsServer
	*state
}

func (s *collectionsServer) CollectionExists(_ context.Context, r *qdrant.CollectionExistsRequest) (*qdrant.CollectionExistsResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.at(r.CollectionName)
	return &qdrant.CollectionExistsResponse{Result: &qdrant.CollectionExists{Exists: err == nil}}, nil
}

func (s *collectionsServer) Create(_ context.Context, r *qdrant.CreateCollection) (*qdrant.CollectionOperationResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.collections[r.CollectionName] != nil {
		return nil, status.Errorf(codes.AlreadyExists, "Wrong input: Collection `%s` already exists!", r.CollectionName)
	}
	s.collections[r.CollectionName] = &collection{config: r, schema: make(map[string]*qdrant.PayloadSchemaInfo), points: make(map[string]*qdrant.PointStruct), kinds: make(map[string]map[string]*qdrant.PointStruct)}
	return &qdrant.CollectionOperationResponse{Result: true}, nil
}

func (s *collectionsServer) Get(_ context.Context, r *qdrant.GetCollectionInfoRequest) (*qdrant.GetCollectionInfoResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.at(r.CollectionName)
	if err != nil {
		return nil, err
	}
	return &qdrant.GetCollectionInfoResponse{Result: &qdrant.CollectionInfo{PayloadSchema: c.schema, PointsCount: qdrant.PtrOf(uint64(len(c.points)))}}, nil
}

func (s *collectionsServer) ListAliases(context.Context, *qdrant.ListAliasesRequest) (*qdrant.ListAliasesResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := new(qdrant.ListAliasesResponse)
	for a, c := range s.aliases {
		r.Aliases = append(r.Aliases, &qdrant.AliasDescription{AliasName: a, CollectionName: c})
	}
	return r, nil
}

func (s *collectionsServer) UpdateAliases(_ context.Context, r *qdrant.ChangeAliases) (*qdrant.CollectionOperationResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range r.Actions {
		if d := a.GetDeleteAlias(); d != nil {
			delete(s.aliases, d.AliasName)
		}
		if c := a.GetCreateAlias(); c != nil {
			if s.collections[c.CollectionName] == nil {
				return nil, status.Error(codes.NotFound, "no such collection")
			}
			s.aliases[c.AliasName] = c.CollectionName
		}
	}
	return &qdrant.CollectionOperationResponse{Result: true}, nil
}

// CreateFieldIndex implements the service.
func (s *Server) CreateFieldIndex(_ context.Context, r *qdrant.CreateFieldIndexCollection) (*qdrant.PointsOperationResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.at(r.CollectionName)
	if err != nil {
		return nil, err
	}
	c.schema[r.FieldName] = &qdrant.PayloadSchemaInfo{DataType: qdrant.PayloadSchemaType(r.GetFieldType() + 1), Params: r.FieldIndexParams}
	return done(), nil
}

func done() *qdrant.PointsOperationResponse {
	return &qdrant.PointsOperationResponse{Result: &qdrant.UpdateResult{Status: qdrant.UpdateStatus_Completed}}
}

// Upsert implements the service.
func (s *Server) Upsert(_ context.Context, r *qdrant.UpsertPoints) (*qdrant.PointsOperationResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.at(r.CollectionName)
	if err != nil {
		return nil, err
	}
	for _, p := range r.Points {
		if len(p.Id.GetUuid()) != 36 {
			return nil, status.Errorf(codes.InvalidArgument, "Unable to parse UUID: %s", p.Id.GetUuid())
		}
		for name, v := range p.GetVectors().GetVectors().GetVectors() {
			params := c.config.GetVectorsConfig().GetParamsMap().GetMap()[name]
			sparse := c.config.GetSparseVectorsConfig().GetMap()[name]
			switch {
			case params == nil && sparse == nil:
				return nil, status.Errorf(codes.InvalidArgument, "Not existing vector name error: %s", name)
			case params != nil && len(v.GetDense().GetData()) != int(params.Size):
				return nil, status.Errorf(codes.InvalidArgument, "Vector dimension error: expected dim: %d, got %d", params.Size, len(v.GetDense().GetData()))
			case sparse != nil && len(v.GetSparse().GetIndices()) != len(v.GetSparse().GetValues()):
				return nil, status.Error(codes.InvalidArgument, "indices and values of a sparse vector differ in length")
			}
		}
	}
	for _, p := range r.Points {
		c.put(proto.Clone(p).(*qdrant.PointStruct))
	}
	return done(), nil
}

// Delete implements the service.
func (s *Server) Delete(_ context.Context, r *qdrant.DeletePoints) (*qdrant.PointsOperationResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.at(r.CollectionName)
	if err != nil {
		return nil, err
	}
	for _, id := range r.Points.GetPoints().GetIds() {
		c.drop(id.GetUuid())
	}
	if f := r.Points.GetFilter(); f != nil {
		list, err := c.matching(f)
		if err != nil {
			return nil, err
		}
		for _, p := range list {
			c.drop(p.Id.GetUuid())
		}
	}
	return done(), nil
}

// matching returns the points that a filter lets through, by id.
func (c *collection) matching(f *qdrant.Filter) ([]*qdrant.PointStruct, error) {
	if err := c.indexed(f); err != nil {
		return nil, err
	}
	var list []*qdrant.PointStruct
	for _, p := range c.of(f) {
		if passes(f, p) {
			list = append(list, p)
		}
	}
	slices.SortFunc(list, func(a, b *qdrant.PointStruct) int { return strings.Compare(a.Id.GetUuid(), b.Id.GetUuid()) })
	return list, nil
}

// indexed refuses a filter on a key without an index.
func (c *collection) indexed(f *qdrant.Filter) error {
	for _, list := range [][]*qdrant.Condition{f.GetMust(), f.GetShould(), f.GetMustNot()} {
		for _, cond := range list {
			if sub := cond.GetFilter(); sub != nil {
				if err := c.indexed(sub); err != nil {
					return err
				}
			}
			if k := cond.GetField().GetKey(); k != "" && c.schema[k] == nil {
				return status.Errorf(codes.InvalidArgument, "Index required but not found for %q", k)
			}
		}
	}
	return nil
}

func passes(f *qdrant.Filter, p *qdrant.PointStruct) bool {
	if f == nil {
		return true
	}
	for _, c := range f.Must {
		if !holds(c, p) {
			return false
		}
	}
	for _, c := range f.MustNot {
		if holds(c, p) {
			return false
		}
	}
	return len(f.Should) == 0 || slices.ContainsFunc(f.Should, func(c *qdrant.Condition) bool { return holds(c, p) })
}

func holds(c *qdrant.Condition, p *qdrant.PointStruct) bool {
	if f := c.GetFilter(); f != nil {
		return passes(f, p)
	}
	field := c.GetField()
	if field == nil {
		return false
	}
	values := []*qdrant.Value{p.Payload[field.Key]}
	if l := values[0].GetListValue(); l != nil {
		values = l.Values
	}
	return slices.ContainsFunc(values, func(v *qdrant.Value) bool {
		if v == nil {
			return false
		}
		if r := field.Range; r != nil {
			if _, ok := v.Kind.(*qdrant.Value_IntegerValue); !ok {
				return false
			}
			x := float64(v.GetIntegerValue())
			return (r.Gte == nil || x >= *r.Gte) && (r.Gt == nil || x > *r.Gt) && (r.Lte == nil || x <= *r.Lte) && (r.Lt == nil || x < *r.Lt)
		}
		_, isText := v.Kind.(*qdrant.Value_StringValue)
		_, isInt := v.Kind.(*qdrant.Value_IntegerValue)
		_, isBool := v.Kind.(*qdrant.Value_BoolValue)
		switch m := field.GetMatch().GetMatchValue().(type) {
		case *qdrant.Match_Keyword:
			return isText && v.GetStringValue() == m.Keyword
		case *qdrant.Match_Keywords:
			return isText && slices.Contains(m.Keywords.Strings, v.GetStringValue())
		case *qdrant.Match_Integer:
			return isInt && v.GetIntegerValue() == m.Integer
		case *qdrant.Match_Integers:
			return isInt && slices.Contains(m.Integers.Integers, v.GetIntegerValue())
		case *qdrant.Match_Boolean:
			return isBool && v.GetBoolValue() == m.Boolean
		}
		return false
	})
}

func payload(p *qdrant.PointStruct, with *qdrant.WithPayloadSelector) map[string]*qdrant.Value {
	switch s := with.GetSelectorOptions().(type) {
	case *qdrant.WithPayloadSelector_Enable:
		if s.Enable {
			return p.Payload
		}
	case *qdrant.WithPayloadSelector_Include:
		out := make(map[string]*qdrant.Value)
		for _, k := range s.Include.Fields {
			if v := p.Payload[k]; v != nil {
				out[k] = v
			}
		}
		return out
	}
	return nil
}

// Get implements the service.
func (s *Server) Get(_ context.Context, r *qdrant.GetPoints) (*qdrant.GetResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.at(r.CollectionName)
	if err != nil {
		return nil, err
	}
	a := new(qdrant.GetResponse)
	for _, id := range r.Ids {
		if p := c.points[id.GetUuid()]; p != nil {
			a.Result = append(a.Result, &qdrant.RetrievedPoint{Id: p.Id, Payload: payload(p, r.WithPayload)})
		}
	}
	return a, nil
}

// Scroll implements the service.
func (s *Server) Scroll(_ context.Context, r *qdrant.ScrollPoints) (*qdrant.ScrollResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.at(r.CollectionName)
	if err != nil {
		return nil, err
	}
	list, err := c.matching(r.Filter)
	if err != nil {
		return nil, err
	}
	limit := 10
	if r.Limit != nil {
		limit = int(*r.Limit)
	}
	if o := r.OrderBy; o != nil {
		if c.schema[o.Key] == nil || r.Offset != nil {
			return nil, status.Error(codes.InvalidArgument, "order by an unindexed key, or with an offset")
		}
		desc := o.GetDirection() == qdrant.Direction_Desc
		list = slices.DeleteFunc(list, func(p *qdrant.PointStruct) bool {
			v := p.Payload[o.Key]
			if v == nil {
				return true
			}
			if o.StartFrom == nil {
				return false
			}
			from := o.StartFrom.GetInteger()
			return desc && v.GetIntegerValue() > from || !desc && v.GetIntegerValue() < from
		})
		slices.SortStableFunc(list, func(a, b *qdrant.PointStruct) int {
			x, y := a.Payload[o.Key].GetIntegerValue(), b.Payload[o.Key].GetIntegerValue()
			if desc {
				x, y = y, x
			}
			switch {
			case x < y:
				return -1
			case x > y:
				return 1
			}
			return 0
		})
	}
	if from := r.Offset.GetUuid(); from != "" {
		list = slices.DeleteFunc(list, func(p *qdrant.PointStruct) bool { return p.Id.GetUuid() < from })
	}
	a := new(qdrant.ScrollResponse)
	if len(list) > limit {
		if r.OrderBy == nil {
			a.NextPageOffset = list[limit].Id
		}
		list = list[:limit]
	}
	for _, p := range list {
		a.Result = append(a.Result, &qdrant.RetrievedPoint{Id: p.Id, Payload: payload(p, r.WithPayload)})
	}
	return a, nil
}

// Count implements the service.
func (s *Server) Count(_ context.Context, r *qdrant.CountPoints) (*qdrant.CountResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.at(r.CollectionName)
	if err != nil {
		return nil, err
	}
	list, err := c.matching(r.Filter)
	return &qdrant.CountResponse{Result: &qdrant.CountResult{Count: uint64(len(list))}}, err
}

// Facet implements the service.
func (s *Server) Facet(_ context.Context, r *qdrant.FacetCounts) (*qdrant.FacetResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.at(r.CollectionName)
	if err != nil {
		return nil, err
	}
	list, err := c.matching(r.Filter)
	if err != nil {
		return nil, err
	}
	counts := make(map[string]uint64)
	for _, p := range list {
		counts[p.Payload[r.Key].GetStringValue()]++
	}
	a := new(qdrant.FacetResponse)
	for v, n := range counts {
		a.Hits = append(a.Hits, &qdrant.FacetHit{Value: qdrant.NewFacetValue(v), Count: n})
	}
	slices.SortFunc(a.Hits, func(x, y *qdrant.FacetHit) int { return int(y.Count) - int(x.Count) })
	a.Hits = a.Hits[:min(len(a.Hits), int(r.GetLimit()))]
	return a, nil
}

// Query implements the service, for one vector.
func (s *Server) Query(_ context.Context, r *qdrant.QueryPoints) (*qdrant.QueryResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.at(r.CollectionName)
	if err != nil {
		return nil, err
	}
	list, err := c.matching(r.Filter)
	if err != nil {
		return nil, err
	}
	score, err := c.scorer(r)
	if err != nil {
		return nil, err
	}
	a := new(qdrant.QueryResponse)
	for _, p := range list {
		if v, ok := score(p); ok {
			a.Result = append(a.Result, &qdrant.ScoredPoint{Id: p.Id, Payload: payload(p, r.WithPayload), Score: v})
		}
	}
	slices.SortStableFunc(a.Result, func(x, y *qdrant.ScoredPoint) int {
		switch {
		case x.Score > y.Score:
			return -1
		case x.Score < y.Score:
			return 1
		}
		return 0
	})
	a.Result = a.Result[min(len(a.Result), int(r.GetOffset())):]
	a.Result = a.Result[:min(len(a.Result), int(r.GetLimit()))]
	return a, nil
}

func (c *collection) scorer(r *qdrant.QueryPoints) (func(*qdrant.PointStruct) (float32, bool), error) {
	using := r.GetUsing()
	in := r.GetQuery().GetNearest()
	if d := in.GetDense(); d != nil {
		params := c.config.GetVectorsConfig().GetParamsMap().GetMap()[using]
		if params == nil || int(params.Size) != len(d.Data) {
			return nil, status.Errorf(codes.InvalidArgument, "Vector dimension error: expected dim: %d, got %d", params.GetSize(), len(d.Data))
		}
		return func(p *qdrant.PointStruct) (float32, bool) {
			v := p.GetVectors().GetVectors().GetVectors()[using].GetDense().GetData()
			if v == nil {
				return 0, false
			}
			var dot, a, b float64
			for i := range v {
				dot += float64(v[i]) * float64(d.Data[i])
				a += float64(v[i]) * float64(v[i])
				b += float64(d.Data[i]) * float64(d.Data[i])
			}
			return float32(dot / math.Sqrt(a*b)), true
		}, nil
	}
	q := in.GetSparse()
	if q == nil || c.config.GetSparseVectorsConfig().GetMap()[using] == nil {
		return nil, status.Errorf(codes.InvalidArgument, "Not existing vector name error: %s", using)
	}
	n := 0
	in2 := make(map[uint32]int)
	for _, p := range c.kinds["template"] {
		if v := p.GetVectors().GetVectors().GetVectors()[using].GetSparse(); v != nil {
			n++
			for _, d := range v.Indices {
				in2[d]++
			}
		}
	}
	weight := make(map[uint32]float64)
	for i, d := range q.Indices {
		df := float64(in2[d])
		weight[d] = float64(q.Values[i]) * math.Log((float64(n)-df+0.5)/(df+0.5)+1)
	}
	return func(p *qdrant.PointStruct) (float32, bool) {
		v := p.GetVectors().GetVectors().GetVectors()[using].GetSparse()
		var sum float64
		common := false
		for i, d := range v.GetIndices() {
			if w, ok := weight[d]; ok {
				common = true
				sum += w * float64(v.Values[i])
			}
		}
		return float32(sum), common
	}, nil
}
