//go:build linux

package mcp

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/jsonschema-go/jsonschema"
	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/ghostbridge/ghostbridge/integration/tools"
)

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

type obj = map[string]any

const lampPolicy = `{"version":1,"per_minute":100000,"rules":[
 {"id":"switch","clients":["mcp"],"name":"org.example.Lamp","members":["Switch"],"effect":"allow"},
 {"id":"ask","clients":["mcp"],"name":"org.example.Lamp","members":["Name"],"effect":"approve"},
 {"id":"nginx","clients":["mcp"],"name":"org.freedesktop.systemd1","interface":"org.freedesktop.systemd1.Manager","members":["StartUnit","StopUnit","RestartUnit"],"args":{"0":"nginx.service"},"effect":"allow"}]}`

// Reading, over standard input and output, as root.
func TestReading(t *testing.T) {
	r := newRig(t, lampPolicy)
	s := r.stdio(0)
	list, err := s.ListTools(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(list.Tools); n < 14 || n > 18 {
		t.Errorf("%d tools", n)
	}
	schemas := map[string]*jsonschema.Resolved{}
	for _, tool := range list.Tools {
		b, err := json.Marshal(tool.OutputSchema)
		if err != nil {
			t.Fatal(err)
		}
		var schema jsonschema.Schema
		if err := json.Unmarshal(b, &schema); err != nil {
			t.Fatal(err)
		}
		if schemas[tool.Name], err = schema.Resolve(nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		tool string
		args obj
		want string
	}{
		{"find_services", obj{"query": "example"}, `"name":"org.example.Lamp"`},
		{"describe_service", obj{"name": "org.example.Lamp"}, `"/org/example/Lamp"`},
		{"describe_service", obj{"name": "org.example.Lamp", "path": "/org/example/Lamp"}, `"name":"org.example.Lamp","methods":3`},
		{"describe_service", obj{"name": "org.example.Lamp", "path": "/org/example/Lamp", "interface": "org.example.Lamp"}, `"name":"Switch","in":"b","out":"b"`},
		{"describe_service", obj{"name": "org.example.Lamp", "path": "/org/example/Lamp", "interface": "org.example.Lamp", "member": "Switch"}, `"rule":"switch"`},
		{"read_properties", obj{"name": "org.example.Lamp", "path": "/org/example/Lamp", "interface": "org.example.Lamp", "property": "Brightness"}, `{"t":"u","v":10}`},
		{"read_properties", obj{"name": "org.example.Lamp", "path": "/org/example/Lamp", "interface": "org.example.Lamp"}, `"untrusted":true`},
		{"list_units", obj{"state": "failed"}, `"unit":"broken.service"`},
		{"list_units", obj{"limit": 1}, `"next_offset":1`},
		{"unit_status", obj{"unit": "nginx.service"}, `"active":"active"`},
		{"unit_logs", obj{"unit": "nginx.service"}, `"message":"started nginx.service"`},
		{"network_status", obj{}, `"missing":`},
		{"list_snapshots", obj{}, `"total":2`},
		{"search_log", obj{"sources": []string{"mcp"}}, `"verdict":`},
		{"read_event", obj{"index": 0}, `"proved":true`},
		{"watch_signals", obj{"seconds": 1}, `"signals":[`},
		{"call_method", obj{"name": "org.example.Lamp", "path": "/org/example/Lamp", "interface": "org.example.Lamp", "member": "Switch", "arguments": []any{true}}, `polkit`},
	} {
		out, res, err := call(t.Context(), s, c.tool, c.args)
		if schema := schemas[c.tool]; err == nil && res.StructuredContent != nil {
			if verr := schema.Validate(out); verr != nil {
				t.Errorf("%s %v: its output is not as its schema says: %v", c.tool, c.args, verr)
			}
			if both, jerr := json.Marshal(res.StructuredContent); jerr != nil || !sameJSON(both, []byte(textOf(res))) {
				t.Errorf("%s: text and structured content differ", c.tool)
			}
		}
		if err != nil || !strings.Contains(textOf(res), c.want) {
			t.Errorf("%s %v: %v\n%.600s", c.tool, c.args, err, textOf(res))
		}
	}
}

func sameJSON(a, b []byte) bool {
	var x, y any
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && reflect.DeepEqual(x, y)
}

// Long work tells how far it is, and ends when the client hangs up.
func TestProgress(t *testing.T) {
	r := newRig(t, lampPolicy)
	r.serveHTTP()
	var told atomic.Int64
	client := sdk.NewClient(&sdk.Implementation{Name: "test", Version: "1"}, &sdk.ClientOptions{ProgressNotificationHandler: func(_ context.Context, req *sdk.ProgressNotificationClientRequest) {
		if req.Params.Total == 3 {
			told.Add(1)
		}
	}})
	secret := r.token("p", "read")
	for _, version := range []string{"2025-11-25", "2026-07-28"} {
		s, err := client.Connect(t.Context(), &sdk.StreamableClientTransport{Endpoint: r.url, HTTPClient: &http.Client{Transport: bearer{secret, http.DefaultTransport}}}, &sdk.ClientSessionOptions{ProtocolVersion: version})
		if err != nil {
			t.Fatal(err)
		}
		before := told.Load()
		p := &sdk.CallToolParams{Name: "watch_signals", Arguments: obj{"seconds": 3}}
		p.SetProgressToken("x")
		if _, err := s.CallTool(t.Context(), p); err != nil {
			t.Error(err)
		}
		if told.Load() == before {
			t.Errorf("%s: no progress was told", version)
		}
		// The daemon lets 32 watch, the server 24: if those that were hung up on
		// went on, the last of these would be turned away.
		for range 60 {
			ctx, cancel := context.WithTimeout(t.Context(), 60*time.Millisecond)
			call(ctx, s, "watch_signals", obj{"seconds": 60})
			cancel()
		}
		r.wait("the end of the watchers", func() bool {
			_, res, err := call(t.Context(), s, "watch_signals", obj{"seconds": 1})
			return err == nil && !res.IsError
		})
		s.Close()
	}
}

// Approvals over HTTP: a client that can ask its user, and one that can't; who
// is asked, and whose answer counts.
func TestApprovals(t *testing.T) {
	r := newRig(t, lampPolicy)
	r.serveHTTP("--web", "http://127.0.0.1:8096", "--approval-wait", "20s")
	secret := r.token("claude", "read,propose,execute")
	name := obj{"name": "org.example.Lamp", "path": "/org/example/Lamp", "interface": "org.example.Lamp", "member": "Name", "arguments": []any{"desk"}}
	answer := func(yes bool, id string) {
		verb := "deny"
		if yes {
			verb = "approve"
		}
		r.must("opdbus", "approvals", verb, id)
	}

	// Without a way to ask: a result that says how to go on.
	plain := r.dial(secret, nil)
	out, res, err := call(t.Context(), plain, "call_method", name)
	if err != nil || !res.IsError || out["status"] != "approval_needed" {
		t.Fatal(err, textOf(res))
	}
	id := out["approval"].(obj)["id"].(string)
	if !strings.Contains(out["continue"].(string), "opdbus approvals approve "+id) || out["approval"].(obj)["url"] != "http://127.0.0.1:8096/approvals/"+id {
		t.Error(out)
	}
	if n := len(r.changes()); n != 0 {
		t.Fatal(r.changes())
	}
	out, _, err = call(t.Context(), plain, "check_approval", obj{"id": id})
	if err != nil || out["approval"].(obj)["state"] != "pending" {
		t.Error(out, err)
	}
	answer(true, id)
	out, res, err = call(t.Context(), plain, "call_method", name)
	if err != nil || res.IsError || out["status"] != "done" || len(r.changes()) != 1 {
		t.Fatal(err, textOf(res), r.changes())
	}
	// Once only.
	out, _, err = call(t.Context(), plain, "call_method", name)
	if err != nil || out["status"] != "approval_needed" || out["approval"].(obj)["id"] == id || len(r.changes()) != 1 {
		t.Fatal(out, err, r.changes())
	}

	// With one: the user is sent to the page, and the call goes on when the
	// person has answered there.
	for _, yes := range []bool{true, false} {
		before := len(r.changes())
		asking := r.dial(secret, func(p *sdk.ElicitParams) *sdk.ElicitResult {
			if p.Mode != "url" || !strings.HasPrefix(p.URL, "http://127.0.0.1:8096/approvals/") || !strings.Contains(p.Message, "org.example.Lamp.Name") {
				t.Errorf("%+v", p)
			}
			go answer(yes, p.URL[strings.LastIndexByte(p.URL, '/')+1:])
			return &sdk.ElicitResult{Action: "accept"}
		})
		name["arguments"] = []any{map[bool]string{true: "kitchen", false: "hall"}[yes]}
		out, res, err := call(t.Context(), asking, "call_method", name)
		want := map[bool]string{true: "done", false: "denied"}[yes]
		if err != nil || out["status"] != want || (len(r.changes()) > before) != yes {
			t.Errorf("%v: %v %s %v", yes, err, textOf(res), r.changes())
		}
	}

	// A user who does not go on, and one whose client says yes without anybody
	// having approved.
	for _, action := range []string{"decline", "cancel"} {
		before := len(r.changes())
		s := r.dial(secret, func(*sdk.ElicitParams) *sdk.ElicitResult { return &sdk.ElicitResult{Action: action} })
		name["arguments"] = []any{action}
		out, _, err := call(t.Context(), s, "call_method", name)
		if err != nil || out["status"] != "approval_needed" || len(r.changes()) > before {
			t.Error(action, out, err)
		}
	}

	// The daemon's log has it all, by client.
	r.wait("the reports", func() bool {
		log := r.must("gb-chain", "query", "--json", "--source", "mcp")
		for _, want := range []string{`"type":"mcp.tools.call"`, `"type":"opdbus.intent"`, `"type":"opdbus.outcome"`, `"type":"opdbus.refused"`, `"client":"claude"`, `"rule":"ask"`, `"arguments_sha256":"`, `"outcome":"approval"`, `"outcome":"done"`, `"outcome":"refused"`} {
			if !strings.Contains(log, want) {
				return false
			}
		}
		return true
	})
}

// A client that knows only standard input and output, through a bridge to the
// server's Unix socket, in both eras: the token is what it is there.
func TestBridge(t *testing.T) {
	r := newRig(t, lampPolicy)
	// The server's user makes the socket in a directory of its own.
	if err := os.Mkdir(r.dir+"/run", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(r.dir+"/run", nobody, nobody); err != nil {
		t.Fatal(err)
	}
	socket := r.dir + "/run/mcp.sock"
	r.start("opdbus", nobody, "mcp", "--listen", "unix:"+socket)
	r.wait("the socket", func() bool { _, err := os.Stat(socket); return err == nil })
	file := r.dir + "/token"
	if err := os.WriteFile(file, []byte(r.token("desk", "read,execute")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, version := range []string{"2025-11-25", "2026-07-28"} {
		t.Run(version, func(t *testing.T) {
			cmd := exec.Command(tools.Path(t, "opdbus"), "mcp", "--server", "unix:"+socket, "--token-file", file)
			cmd.Env = append(os.Environ(), r.env...)
			said := new(tools.Output)
			cmd.Stderr = said
			s, err := r.client(nil).Connect(t.Context(), &sdk.CommandTransport{Command: cmd}, &sdk.ClientSessionOptions{ProtocolVersion: version})
			if err != nil {
				t.Fatal(err, said)
			}
			if list, err := s.ListTools(t.Context(), nil); err != nil || len(list.Tools) == 0 {
				t.Fatal(err, said)
			}
			out, res, err := call(t.Context(), s, "call_method", obj{"name": "org.example.Lamp", "path": "/org/example/Lamp", "interface": "org.example.Lamp", "member": "Switch", "arguments": []any{true}})
			if err != nil || out["status"] != "done" || out["rule"] != "switch" {
				t.Error(err, textOf(res), said)
			}
			// Several at once, one of which is cancelled.
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					if _, res, err := call(t.Context(), s, "find_services", obj{}); err != nil || res.IsError {
						t.Error(err, textOf(res))
					}
				})
			}
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			if _, _, err := call(ctx, s, "watch_signals", obj{"seconds": 50}); err == nil {
				t.Error("it was not cancelled")
			}
			wg.Wait()
			if err := s.Close(); err != nil {
				t.Error(err, said)
			}
		})
	}
	// One line in, one line out, as a script has it.
	line := `{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"find_services","arguments":{"query":"Lamp"},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"x","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}}}`
	cmd := exec.Command(tools.Path(t, "opdbus"), "mcp", "--server", "unix:"+socket, "--token-file", file)
	cmd.Stdin = strings.NewReader(line + "\n")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), `"id":7`) || !strings.Contains(string(out), "org.example.Lamp") || strings.Count(string(out), "\n") != 1 {
		t.Errorf("%v\n%s", err, out)
	}
}

// With --read-only no tool that changes something is there, and the scopes of a
// token take nothing of that back.
func TestReadOnly(t *testing.T) {
	r := newRig(t, lampPolicy)
	r.serveHTTP("--read-only")
	for name, s := range map[string]*sdk.ClientSession{"stdio": r.stdio(0, "--read-only"), "http": r.dial(r.token("all", "read,propose,execute"), nil)} {
		list, err := s.ListTools(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, tool := range list.Tools {
			if !tool.Annotations.ReadOnlyHint {
				t.Errorf("%s: %s is there", name, tool.Name)
			}
		}
		if len(list.Tools) < 10 {
			t.Errorf("%s: %d tools", name, len(list.Tools))
		}
		for _, tool := range []string{"call_method", "act_on_unit", "apply_changes", "roll_back", "request_approval"} {
			if _, _, err := call(t.Context(), s, tool, obj{}); err == nil || !strings.Contains(err.Error(), "unknown tool") {
				t.Errorf("%s: %s: %v", name, tool, err)
			}
		}
	}
	if len(r.changes()) > 0 {
		t.Error(r.changes())
	}
}

// What an agent on standard input and output may do is that user's and the
// policy's: polkit is asked about the user.
func TestStdioAsUser(t *testing.T) {
	r := newRig(t, lampPolicy)
	s := r.stdio(nobody)
	find := func() string {
		_, res, err := call(t.Context(), s, "find_services", obj{"query": "Lamp"})
		if err != nil {
			t.Fatal(err)
		}
		return textOf(res)
	}
	if out := find(); !strings.Contains(out, "polkit does not authorise org.freedesktop.opdbus.read-sensitive") {
		t.Errorf("a user who may not read: %s", out)
	}
	r.allow("org.freedesktop.opdbus.read-sensitive")
	if out := find(); !strings.Contains(out, `"org.example.Lamp"`) {
		t.Errorf("a user who may read: %s", out)
	}
	on := obj{"name": "org.example.Lamp", "path": "/org/example/Lamp", "interface": "org.example.Lamp", "member": "Switch", "arguments": []any{true}}
	if _, res, err := call(t.Context(), s, "call_method", on); err != nil || !strings.Contains(textOf(res), "polkit does not authorise") || len(r.changes()) > 0 {
		t.Errorf("a user who may not change: %v %s", err, textOf(res))
	}
	r.allow("org.freedesktop.opdbus.read-sensitive", "org.freedesktop.opdbus.call")
	if out, res, err := call(t.Context(), s, "call_method", on); err != nil || out["status"] != "done" || len(r.changes()) != 1 {
		t.Errorf("a user who may: %v %s", err, textOf(res))
	}
	// Each rule has to name it, by its entrance or as who it is.
	r.policy(`{"version":1,"rules":[{"id":"x","clients":["uid:65534","user:nobody","mcp:nobody","cli","dbus"],"effect":"allow"}]}`)
	if _, res, err := call(t.Context(), s, "call_method", on); err != nil || !strings.Contains(textOf(res), "no rule allows it") {
		t.Errorf("%v %s", err, textOf(res))
	}
	r.policy(`{"version":1,"rules":[{"id":"x","clients":["mcp:user:nobody"],"effect":"allow"}]}`)
	if out, res, err := call(t.Context(), s, "call_method", on); err != nil || out["rule"] != "x" {
		t.Errorf("%v %s", err, textOf(res))
	}
}
