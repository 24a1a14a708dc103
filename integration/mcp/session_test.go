//go:build linux

package mcp

import (
	"net"
	"strings"
	"testing"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"
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
		_, res, err := call(t.Context(), s, c.tool, c.args)
		if err != nil || !strings.Contains(textOf(res), c.want) {
			t.Errorf("%s %v: %v\n%.600s", c.tool, c.args, err, textOf(res))
		}
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
