package web

import (
	_ "embed"
	"encoding"
	"encoding/json"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"
)

// openAPIFile describes the JSON interface. It is made from the views, by
// go test ./pkg/web -run TestOpenAPI -update; a test holds that it is fresh, and
// another that answers are as it says.
//
//go:embed openapi.json
var openAPIFile []byte

func (s *Server) openAPI(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	s.write(w, r, http.StatusOK, openAPIFile)
}

// A param of a view: what it is, as OpenAPI has it.
type param struct {
	Type   string // string, integer or boolean
	Repeat bool
	Doc    string
}

// params are all parameters, by name: one that several views have means the
// same in each.
var params = map[string]param{
	"source":    {"string", true, "Only events of this source."},
	"type":      {"string", true, "Only events of this type; a.* for all below a."},
	"host":      {"string", true, "Only events of this host."},
	"actor":     {"string", true, "Only events by this actor."},
	"severity":  {"string", false, "This grave or graver: emerg, alert, crit, err, warning, notice, info, debug."},
	"text":      {"string", false, "Only events whose stored line holds this text, in any case."},
	"since":     {"string", false, "Not before this time of the log's clock (of search: of the events' own): RFC 3339, 14:30, -2h."},
	"until":     {"string", false, "Before this time."},
	"range":     {"string", false, "What a histogram spans: 15m, 1h, 6h, 24h, 7d, 30d, all."},
	"limit":     {"integer", false, "At most so many."},
	"before":    {"string", false, "The page before this one: an index of events, a number of segments, a name of snapshots."},
	"after":     {"integer", false, "The page from this index on."},
	"from":      {"integer", false, "The index to begin with; Last-Event-ID goes before it."},
	"q":         {"string", false, "A question in plain words."},
	"like":      {"integer", false, "Similar to the event with this index, instead of a question."},
	"state":     {"string", false, "pending: only those that wait."},
	"bridge":    {"string", false, "Show the flows of this bridge."},
	"old":       {"string", false, "Name of a snapshot."},
	"new":       {"string", false, "Name of another."},
	"all":       {"boolean", false, "Unique names too."},
	"match":     {"string", false, "Only names that hold this text."},
	"name":      {"string", false, "Name of a service on the bus."},
	"path":      {"string", false, "Object."},
	"interface": {"string", false, "Interface; of an object: the one whose values and policy are wanted."},
	"member":    {"string", false, "Method, with its interface before it or apart."},
	"signature": {"string", false, "Signature of the arguments."},
	"args":      {"string", false, "JSON array of the arguments."},
	"step":      {"string", false, "call: make the call. Else it is only looked at."},
	"assertion": {"string", false, "JSON: a security key's answer to a challenge."},
	"about":     {"string", false, "approve:ID, deny:ID or register."},
	"key":       {"string", false, "JSON: id, public_key, authenticator_data, client_data, name."},
}

var filterParams = []string{"source", "type", "host", "actor", "severity", "text", "since", "until"}

type object = map[string]any

// document makes the OpenAPI document.
func document() object {
	d := &documenter{schemas: object{}}
	failed := d.schema(reflect.TypeFor[failure]())
	paths := object{}
	add := func(method, path string, op object) {
		p, _ := paths[path].(object)
		if p == nil {
			p = object{}
			paths[path] = p
		}
		p[strings.ToLower(method)] = op
	}
	for i := range views {
		v := &views[i]
		if v.api == "" {
			continue
		}
		method := v.method
		if method == "" {
			method = http.MethodGet
		}
		op := object{
			"operationId": operationID(method, v.api), "summary": v.doc, "description": "Needs the role " + v.role.String() + ".",
			"responses": object{
				"200":     object{"description": "The answer.", "content": object{"application/json": object{"schema": d.schema(reflect.TypeOf(v.answer))}}},
				"default": object{"description": "It was not done, and why.", "content": object{"application/json": object{"schema": failed}}},
			},
		}
		list := []any{}
		for _, m := range pathParams.FindAllStringSubmatch(v.api, -1) {
			list = append(list, object{"name": m[1], "in": "path", "required": true, "schema": object{"type": "string"}})
		}
		form := object{}
		for _, name := range v.params {
			p, ok := params[name]
			if !ok {
				panic("parameter " + name + " is not described")
			}
			schema := object{"type": p.Type, "description": p.Doc}
			if p.Repeat {
				schema = object{"type": "array", "items": object{"type": p.Type}, "description": p.Doc}
			}
			if method == http.MethodGet {
				list = append(list, object{"name": name, "in": "query", "schema": schema})
			} else {
				form[name] = schema
			}
		}
		op["parameters"] = list
		if method != http.MethodGet {
			op["requestBody"] = object{"content": object{"application/x-www-form-urlencoded": object{"schema": object{"type": "object", "properties": form}}}}
		}
		add(method, v.api, op)
	}
	stream := []any{object{"name": "Last-Event-ID", "in": "header", "schema": object{"type": "integer"}, "description": "Index of the last event that was got; the next one comes first."}}
	for _, name := range append(slices.Clone(filterParams[:6]), "from") {
		schema := object{"type": params[name].Type, "description": params[name].Doc}
		if params[name].Repeat {
			schema = object{"type": "array", "items": object{"type": params[name].Type}, "description": params[name].Doc}
		}
		stream = append(stream, object{"name": name, "in": "query", "schema": schema})
	}
	add("get", "/live", object{"operationId": "getLive", "summary": "Events as they are appended, as server-sent events; the id of each is its index. A reader that is too slow is cut off, and goes on with the id that it has.",
		"description": "Needs the role viewer.", "parameters": stream,
		"responses": object{"200": object{"description": "A stream.", "content": object{"text/event-stream": object{"schema": d.schema(reflect.TypeFor[eventRow]())}}}}})
	add("get", "/events/{index}/proof", object{"operationId": "getProof", "summary": "A C2SP tlog-proof that the event is in the log, which gb-chain check takes.", "description": "Needs the role viewer.",
		"parameters": []any{object{"name": "index", "in": "path", "required": true, "schema": object{"type": "integer"}}},
		"responses": object{"200": object{"description": "The proof.", "content": object{"text/plain": object{}}}, "409": object{"description": "The event is not signed yet."},
			"default": object{"description": "There is none, and why.", "content": object{"application/json": object{"schema": failed}}}}})
	return object{
		"openapi": "3.1.0",
		"info": object{"title": "GhostBridge", "version": "1", "description": "What gb-web shows, for programs. Fields may be added; none is removed or changes its meaning. " +
			"Log in with gb-web login --token and send the token as Authorization: Bearer. Texts in lists are cleaned for people: control characters are shown as escapes. An event's line is as it is stored."},
		"servers":    []any{object{"url": apiPrefix}},
		"security":   []any{object{"token": []any{}}},
		"paths":      paths,
		"components": object{"schemas": d.schemas, "securitySchemes": object{"token": object{"type": "http", "scheme": "bearer"}}},
	}
}

var pathParams = regexp.MustCompile(`\{(\w+)\}`)

func operationID(method, path string) string {
	id := strings.ToLower(method)
	for part := range strings.SplitSeq(path, "/") {
		if part = strings.Trim(part, "{}"); part != "" {
			id += strings.ToUpper(part[:1]) + part[1:]
		}
	}
	return id
}

// A documenter makes JSON Schemas of Go types.
type documenter struct{ schemas object }

var (
	timeType      = reflect.TypeFor[time.Time]()
	rawType       = reflect.TypeFor[json.RawMessage]()
	textMarshaler = reflect.TypeFor[encoding.TextMarshaler]()
)

func (d *documenter) schema(t reflect.Type) object {
	switch {
	case t == nil || t == rawType:
		return object{}
	case t == timeType:
		return object{"type": "string", "format": "date-time"}
	case t.Kind() != reflect.Pointer && t.Implements(textMarshaler):
		return object{"type": "string"}
	}
	switch t.Kind() {
	case reflect.Pointer:
		s := d.schema(t.Elem())
		if typ, ok := s["type"].(string); ok {
			s["type"] = []any{typ, "null"}
			return s
		}
		return object{"anyOf": []any{s, object{"type": "null"}}}
	case reflect.Struct:
		name := t.Name()
		if name == "" {
			return d.fields(t)
		}
		if pkg := t.PkgPath(); !strings.HasSuffix(pkg, "/web") {
			name = pkg[strings.LastIndexByte(pkg, '/')+1:] + strings.ToUpper(name[:1]) + name[1:]
		}
		if _, ok := d.schemas[name]; !ok {
			d.schemas[name] = object{} // while it is made
			d.schemas[name] = d.fields(t)
		}
		return object{"$ref": "#/components/schemas/" + name}
	case reflect.Slice, reflect.Array:
		return object{"type": "array", "items": d.schema(t.Elem())}
	case reflect.Map:
		return object{"type": []any{"object", "null"}, "additionalProperties": d.schema(t.Elem())}
	case reflect.String:
		return object{"type": "string"}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Float32, reflect.Float64:
		return object{"type": "number"}
	case reflect.Interface:
		return object{}
	}
	return object{"type": "integer"}
}

func (d *documenter) fields(t reflect.Type) object {
	properties, required := object{}, []any{}
	var collect func(t reflect.Type)
	collect = func(t reflect.Type) {
		for i := range t.NumField() {
			f := t.Field(i)
			tag := f.Tag.Get("json")
			name, options, _ := strings.Cut(tag, ",")
			if tag == "-" || !f.IsExported() && !f.Anonymous {
				continue
			}
			if f.Anonymous && name == "" {
				at := f.Type
				if at.Kind() == reflect.Pointer {
					at = at.Elem()
				}
				collect(at)
				continue
			}
			if name == "" {
				name = f.Name
			}
			s := d.schema(f.Type)
			optional := strings.Contains(options, "omit")
			if optional && f.Type.Kind() == reflect.Pointer {
				s = d.schema(f.Type.Elem())
			}
			if !optional && f.Type.Kind() == reflect.Slice && s["type"] == "array" {
				s["type"] = []any{"array", "null"}
			}
			properties[name] = s
			required = slices.DeleteFunc(required, func(v any) bool { return v == name })
			if !optional {
				required = append(required, name)
			}
		}
	}
	collect(t)
	out := object{"type": "object", "properties": properties}
	if len(required) > 0 {
		out["required"] = required
	}
	return out
}
