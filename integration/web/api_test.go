//go:build linux

package web

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// schemas checks values against the document's schemas, as far as it uses JSON
// Schema.
type schemas map[string]any

func (s schemas) check(schema map[string]any, v any, at string) error {
	if ref, ok := schema["$ref"].(string); ok {
		return s.check(s[strings.TrimPrefix(ref, "#/components/schemas/")].(map[string]any), v, at)
	}
	if list, ok := schema["anyOf"].([]any); ok {
		var last error
		for _, one := range list {
			if last = s.check(one.(map[string]any), v, at); last == nil {
				return nil
			}
		}
		return last
	}
	kinds, ok := schema["type"].([]any)
	if !ok {
		if schema["type"] == nil {
			return nil
		}
		kinds = []any{schema["type"]}
	}
	have := map[bool]string{}
	switch x := v.(type) {
	case nil:
		have[true] = "null"
	case bool:
		have[true] = "boolean"
	case string:
		have[true] = "string"
	case json.Number:
		have[true], have[false] = "number", "integer"
		if strings.ContainsAny(x.String(), ".eE") {
			delete(have, false)
		}
	case []any:
		have[true] = "array"
		items, _ := schema["items"].(map[string]any)
		for i, e := range x {
			if err := s.check(items, e, fmt.Sprintf("%s[%d]", at, i)); err != nil {
				return err
			}
		}
	case map[string]any:
		have[true] = "object"
		properties, _ := schema["properties"].(map[string]any)
		more, open := schema["additionalProperties"].(map[string]any)
		for k, e := range x {
			p, ok := properties[k].(map[string]any)
			if !ok {
				if !open {
					return fmt.Errorf("%s: %s is not described", at, k)
				}
				p = more
			}
			if err := s.check(p, e, at+"."+k); err != nil {
				return err
			}
		}
		required, _ := schema["required"].([]any)
		for _, k := range required {
			if _, ok := x[k.(string)]; !ok {
				return fmt.Errorf("%s: %s is missing", at, k)
			}
		}
	}
	for _, k := range kinds {
		if k == have[true] || have[false] != "" && k == have[false] {
			return nil
		}
	}
	return fmt.Errorf("%s: a %s, described as %v", at, have[true], kinds)
}

type document struct {
	Paths map[string]map[string]struct {
		Parameters []struct {
			Name, In string
		}
		RequestBody struct {
			Content map[string]struct {
				Schema struct{ Properties map[string]any }
			}
		}
		Responses map[string]struct {
			Content map[string]struct{ Schema map[string]any }
		}
	}
	Components struct{ Schemas schemas }
}

func (r *rig) document(token string) *document {
	r.t.Helper()
	_, body, _ := r.get(token, "/api/v1/openapi.json")
	d := new(document)
	if err := json.Unmarshal([]byte(body), d); err != nil {
		r.t.Fatal(err)
	}
	if len(d.Paths) < 20 {
		r.t.Fatalf("%d paths", len(d.Paths))
	}
	return d
}

// Each answer is as the OpenAPI document says, with everything there, with
// nothing beside the log there, and where something is refused.
func TestAnswersAreAsDescribed(t *testing.T) {
	t.Run("full", func(t *testing.T) {
		r := newRig(t, parts{bus: true, snapshots: true, network: true, search: true, events: 1500})
		r.ask("Switch")
		checkAnswers(t, r)
	})
	t.Run("bare", func(t *testing.T) { checkAnswers(t, newRig(t, parts{events: 50})) })
}

func checkAnswers(t *testing.T, r *rig) {
	token := r.token("approver")
	d := r.document(token)
	values := map[string]string{"{index}": "7", "{id}": "0123456789abcdef", "{name}": "org.example.Lamp", "{answer}": "deny"}
	queries := map[string][]string{
		"/events":               {"", "?limit=3&before=40", "?after=5&limit=2", "?source=kernel&severity=err", "?text=sdb", "?since=-1h&until=now", "?before=99999999"},
		"/events/{index}":       {"", "/../99999999"},
		"/counts":               {"", "?range=24h", "?range=all&source=kernel", "?range=15m"},
		"/search":               {"", "?q=disk+error", "?like=3", "?q=zzzz", "?q=disk&severity=err&source=kernel"},
		"/approvals":            {"", "?state=pending", "?state=all"},
		"/network":              {"", "?bridge=ovsbr0"},
		"/bus/names":            {"", "?all=1", "?match=lamp"},
		"/bus/names/{name}":     {"", "?path=/org/example/Lamp", "?path=/org/example/Lamp&interface=org.example.Lamp", "?path=/nothing"},
		"/policy":               {"", "?name=org.example.Lamp&path=/org/example/Lamp&member=org.example.Lamp.Switch&signature=b&args=[true]"},
		"/snapshots/diff":       {"?old=20260101T000000.000000000Z&new=20260101T000001.000000000Z"},
		"/bus/call":             {"", "?name=org.example.Lamp&path=/org/example/Lamp&interface=org.example.Lamp&member=Blink&signature=tas&args=[\"3\",[]]&step=call", "?name=org.example.Lamp&path=/org/example/Lamp&interface=org.example.Lamp&member=Switch&signature=b&args=[true]&step=call"},
		"/agents":               {"", "?before=20"},
		"/log":                  {"", "?before=0"},
		"/snapshots":            {"", "?before=20260101T000000.000000000Z"},
		"/keys/challenge":       {"", "?about=register"},
		"/events/{index}/proof": {""},
	}
	good := 0
	for path, methods := range d.Paths {
		for method, op := range methods {
			if path == "/live" {
				continue
			}
			list := queries[path]
			if list == nil {
				list = []string{""}
			}
			for _, q := range list {
				p := path
				for k, v := range values {
					p = strings.ReplaceAll(p, k, v)
				}
				where, body := "/api/v1"+p+q, ""
				if method == "post" {
					where, body = "/api/v1"+p, strings.TrimPrefix(q, "?")
				}
				status, text, h := r.do(strings.ToUpper(method), token, strings.ReplaceAll(where, "7/../", ""), body, "Content-Type", "application/x-www-form-urlencoded")
				if !strings.HasPrefix(h.Get("Content-Type"), "application/json") {
					if path != "/events/{index}/proof" {
						t.Errorf("%s: %s", where, h.Get("Content-Type"))
					}
					continue
				}
				response, ok := op.Responses["200"]
				if status != http.StatusOK {
					if response, ok = op.Responses["default"]; status >= 500 && status != http.StatusServiceUnavailable {
						t.Errorf("%s: %d %s", where, status, text)
					}
				} else {
					good++
				}
				dec := json.NewDecoder(strings.NewReader(text))
				dec.UseNumber()
				var v any
				if err := dec.Decode(&v); err != nil || !ok {
					t.Errorf("%s: %v %v", where, err, ok)
					continue
				}
				if err := d.Components.Schemas.check(response.Content["application/json"].Schema, v, "answer"); err != nil {
					t.Errorf("%s: %d %v\n%.300s", where, status, err, text)
				}
			}
		}
	}
	t.Logf("%d good answers", good)
	if good < 15 {
		t.Errorf("only %d good answers", good)
	}
}

// Whatever is asked, with whatever values, nothing is an internal error.
func TestNothingIsAnInternalError(t *testing.T) {
	r := newRig(t, parts{bus: true, search: true, snapshots: true, events: 500})
	token := r.token("approver")
	d := r.document(token)
	rounds := 3000
	if testing.Short() {
		rounds = 500
	}
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 1))
	hostile := []string{"", "0", "-1", "7", "99999999999999999999", "1e9", "#5", "\x00", "a\nb", "<script>alert(1)</script>", "{{.}}", "../../etc/passwd", "%2e%2e%2f", "'; DROP TABLE x; --", "\u202e\u200b", strings.Repeat("x", 5000),
		"org.example.Lamp", "/org/example/Lamp", "org.freedesktop.DBus", "org.freedesktop.opdbus", "Switch", "b", "[true]", "[", `{"a":`, "a{sv}", "((((", "call", "look", "deny:0123456789abcdef", "register", "2026-01-01T00:00:00Z", "-2h", "yesterday", "now",
		"err", "emerg", "1h", "all", "kernel", "log.*", "*", `"quoted text"`, "10.0.1.7", "null", `{"id":"","public_key":"","authenticator_data":"","client_data":"","name":"x"}`, "\xff\xfe", "Ω≈ç√", "1\x00"}
	pick := func() string {
		v := hostile[random.IntN(len(hostile))]
		if random.IntN(4) == 0 {
			v += hostile[random.IntN(len(hostile))]
		}
		return v
	}
	type target struct {
		method, path string
		names        []string
	}
	var targets []target
	for path, methods := range d.Paths {
		for method, op := range methods {
			x := target{strings.ToUpper(method), "/api/v1" + path, nil}
			for _, p := range op.Parameters {
				if p.In == "query" {
					x.names = append(x.names, p.Name)
				}
			}
			for name := range op.RequestBody.Content["application/x-www-form-urlencoded"].Schema.Properties {
				x.names = append(x.names, name)
			}
			if path != "/live" {
				targets = append(targets, x)
			}
		}
	}
	for _, page := range []string{"/", "/timeline", "/events/{index}", "/search", "/approvals", "/approvals/{id}", "/network", "/snapshots", "/snapshots/diff", "/dbus", "/dbus/{name}", "/agents", "/policy", "/log", "/login", "/static/{id}/{name}", "/tlog/{name}", "/tlog/tile/{id}/{index}", "/events/{index}/proof"} {
		targets = append(targets, target{"GET", page, []string{"source", "type", "text", "severity", "since", "until", "range", "before", "after", "limit", "q", "like", "path", "interface", "member", "name", "args", "signature", "state", "bridge", "ticket", "next", "match", "old", "new"}})
	}
	for _, form := range []string{"/login", "/logout", "/approvals/{id}/{answer}", "/keys", "/dbus/call", "/log/verify"} {
		targets = append(targets, target{"POST", form, []string{"ticket", "next", "form_token", "assertion", "key", "name", "path", "interface", "member", "signature", "args", "arg0", "arg1", "step"}})
	}
	rpc := []string{"openflow.dump_flows", "openflow.add_flow", "openflow.list_bridges", "openflow.get_bridge_config", "no.such", ""}
	for i := range rounds {
		x := targets[random.IntN(len(targets))]
		path := x.path
		for _, name := range []string{"{index}", "{id}", "{name}", "{answer}"} {
			v := pick()
			if v == "" || v == "." || v == ".." {
				v = "5"
			}
			path = strings.ReplaceAll(path, name, url.PathEscape(v))
		}
		q := url.Values{}
		for _, n := range x.names {
			for range random.IntN(3) {
				q.Add(n, pick())
			}
		}
		body, header := "", []string{"Content-Type", "application/x-www-form-urlencoded"}
		if x.method == "POST" {
			body = q.Encode()
		} else if len(q) > 0 {
			path += "?" + q.Encode()
		}
		if i%20 == 0 {
			x.method, path = "POST", "/jsonrpc"
			body = fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"method":%q,"params":{"bridge":%q,"rule":%q}}`, i, rpc[random.IntN(len(rpc))], pick(), pick())
			switch random.IntN(6) {
			case 0:
				body = pick()
			case 1:
				body = "[" + body + "," + body + "]"
			case 2:
				body = strings.Replace(body, `"params":{`, `"params":[`, 1)
			}
		}
		status, text, _ := r.do(x.method, token, path, body, header...)
		if status == http.StatusInternalServerError || status == http.StatusBadGateway {
			t.Errorf("seed %d: %s %.300s %.300s: %d\n%.600s", seed, x.method, path, body, status, text)
		}
	}
}

// The twins of the daemon's Network.OpenFlow, as JSON-RPC 2.0 has them.
func TestJSONRPC(t *testing.T) {
	r := newRig(t, parts{bus: true, network: true, events: 10})
	token := r.token("operator")
	post := func(body string) string {
		t.Helper()
		status, text, _ := r.do(http.MethodPost, token, "/jsonrpc", body, "Content-Type", "application/json")
		return fmt.Sprintf("%d %s", status, strings.TrimSpace(text))
	}
	for body, want := range map[string]string{
		`{"jsonrpc":"2.0","id":1,"method":"no.such"}`: `200 {"jsonrpc":"2.0","id":1,"error":{"code":-32601`,
		`{`:  `200 {"jsonrpc":"2.0","id":null,"error":{"code":-32700`,
		`[]`: `200 {"jsonrpc":"2.0","id":null,"error":{"code":-32600`,
		`{"id":1,"method":"openflow.list_bridges"}`:                                            `200 {"jsonrpc":"2.0","id":1,"error":{"code":-32600`,
		`{"jsonrpc":"2.0","id":"a","method":"openflow.dump_flows"}`:                            `200 {"jsonrpc":"2.0","id":"a","error":{"code":-32602`,
		`{"jsonrpc":"2.0","id":2,"method":"openflow.add_flow","params":["ovsbr0"]}`:            `200 {"jsonrpc":"2.0","id":2,"error":{"code":-32602`,
		`{"jsonrpc":"2.0","id":3,"method":"openflow.dump_flows","params":{"bridge":5}}`:        `200 {"jsonrpc":"2.0","id":3,"error":{"code":-32602`,
		`{"jsonrpc":"2.0","method":"no.such"}`:                                                 `204 `,
		`[{"jsonrpc":"2.0","method":"no.such"},{"jsonrpc":"2.0","id":7,"method":"no.such"},1]`: `200 [{"jsonrpc":"2.0","id":7,"error":{"code":-32601,"message":"no such method"}},{"jsonrpc":"2.0","id":null`,
	} {
		if got := post(body); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s, want %s", body, got, want)
		}
	}
	if status, _, _ := r.do(http.MethodPost, "", "/jsonrpc", `{"jsonrpc":"2.0","id":1,"method":"openflow.list_bridges"}`); status != http.StatusUnauthorized {
		t.Error(status)
	}
	for body, want := range map[string]string{
		`{"jsonrpc":"2.0","id":1,"method":"openflow.list_bridges"}`:                                                           `200 {"jsonrpc":"2.0","id":1,"result":["ovsbr0","ovsbr1"]}`,
		`{"jsonrpc":"2.0","id":1,"method":"openflow.dump_flows","params":["ovsbr0"]}`:                                         `actions=NORMAL`,
		`{"jsonrpc":"2.0","id":1,"method":"openflow.get_bridge_config","params":{"bridge":"ovsbr0"}}`:                         `"result":{"bridge":"ovsbr0","managed":false`,
		`{"jsonrpc":"2.0","id":1,"method":"openflow.add_flow","params":{"bridge":"ovsbr0","rule":"priority=5,actions=drop"}}`: `no rule allows it`,
	} {
		if got := post(body); !strings.Contains(got, want) {
			t.Errorf("%s: %s, want %s", body, got, want)
		}
	}
	if status, text, _ := r.get(token, "/api/v1/network?bridge=ovsbr1"); status != http.StatusOK || !strings.Contains(text, `"name":"missing0"`) || !strings.Contains(text, `"rx_bytes":0`) || !strings.Contains(text, `"flows":["`) {
		t.Errorf("%d %s", status, text)
	}
	viewer := r.token("viewer")
	if _, text, _ := r.do(http.MethodPost, viewer, "/jsonrpc", `{"jsonrpc":"2.0","id":1,"method":"openflow.clear_flows","params":["ovsbr0"]}`); !strings.Contains(text, "needs the role operator") {
		t.Error(text)
	}
}
