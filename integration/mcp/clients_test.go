//go:build linux

package mcp

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/tools"
)

// What agents may do in a session: stop nginx, take back; a host name with a
// person's approval; nothing else. Parts of an apply have rules of their own.
func sessionPolicy(client string) string {
	return strings.ReplaceAll(`{"version":1,"per_minute":100000,"rules":[
 {"id":"apply","clients":["CLIENT"],"name":"org.freedesktop.opdbus","interface":"org.freedesktop.opdbus.Manager","members":["Apply"],"effect":"approve"},
 {"id":"back","clients":["CLIENT"],"name":"org.freedesktop.opdbus","interface":"org.freedesktop.opdbus.Manager","members":["Rollback"],"effect":"allow"},
 {"id":"names","clients":["CLIENT"],"name":"org.freedesktop.hostname1","effect":"allow"},
 {"id":"nginx","clients":["CLIENT"],"name":"org.freedesktop.systemd1","interface":"org.freedesktop.systemd1.Manager","members":["StartUnit","StopUnit"],"args":{"0":"nginx.service"},"effect":"allow"}]}`, "CLIENT", client)
}

type stepOut struct {
	Step     string
	Error    bool
	Text     string
	Protocol string
	Names    []string
	URIs     []string `json:"uris"`
	Modes    []string
	Kinds    []string
	Values   []string
	Updates  int
	Undesc   []string `json:"undescribed"`
	Out      map[string]any
}

// session runs session.mjs and checks what came of each step.
func (r *rig) session(line, protocol, mode string, args ...string) {
	t := r.t
	t.Helper()
	before := len(r.changes())
	out, err := runNode(t, 2*time.Minute, append(slices.Clone(r.env), "GB_PERSON="+tools.Path(t, "opdbus")), append([]string{"testdata/node/session.mjs", line}, args...)...)
	if err != nil {
		t.Fatalf("%v\n%s", err, tail(out, 5000))
	}
	var steps []stepOut
	for l := range strings.Lines(out) {
		var s stepOut
		if !strings.HasPrefix(l, "{") {
			continue
		}
		if err := json.Unmarshal([]byte(l), &s); err != nil {
			t.Fatalf("%s: %v", l, err)
		}
		steps = append(steps, s)
	}
	next := func(name string) stepOut {
		t.Helper()
		if len(steps) == 0 || steps[0].Step != name {
			t.Fatalf("no step %s:\n%s", name, tail(out, 5000))
		}
		s := steps[0]
		steps = steps[1:]
		return s
	}
	hostname := func(want string) {
		t.Helper()
		if v := next("read_properties").Out["properties"].(obj)["StaticHostname"].(obj)["v"]; v != want {
			t.Errorf("the host's name is %v, want %s", v, want)
		}
	}
	if s := next("connect"); s.Protocol != protocol {
		t.Errorf("protocol %q, want %q", s.Protocol, protocol)
	}
	if s := next("tools"); len(s.Names) != 18 || len(s.Undesc) > 0 {
		t.Errorf("%d tools: %v; without all of description, schema, annotations: %v", len(s.Names), s.Names, s.Undesc)
	}
	if s := next("resources"); len(s.URIs) != 3 {
		t.Errorf("resources %v", s.URIs)
	}
	if s := next("prompts"); len(s.Names) != 5 {
		t.Errorf("prompts %v", s.Names)
	}
	if s := next("completion"); !slices.Equal(s.Values, []string{"nginx.service"}) {
		t.Errorf("completion %v", s.Values)
	}
	next("find_services")
	hostname("old")
	if s := next("unit"); !strings.Contains(s.Text, `"active":`) {
		t.Error(s.Text)
	}
	if s := next("prompt"); !slices.Equal(s.Kinds, []string{"text", "resource"}) {
		t.Errorf("%v", s.Kinds)
	}
	if s := next("plan_changes"); s.Error || s.Out["plan"].(obj)["hash"] == "" {
		t.Errorf("%+v", s)
	}
	if s := next("act_on_unit"); !s.Error || s.Out["status"] != "denied" || s.Out["reason"] != "no rule allows it" {
		t.Errorf("refused: %+v", s)
	}
	if s := next("apply_changes"); !s.Error || s.Out["status"] != "approval_needed" {
		t.Errorf("declined: %+v", s)
	}
	if s := next("apply_changes"); s.Error || s.Out["status"] != "done" || s.Out["rule"] != "apply" {
		t.Errorf("approved: %+v", s)
	}
	hostname("web-1")
	if s := next("asked"); !slices.Equal(s.Modes, []string{mode, mode}) {
		t.Errorf("asked %v", s.Modes)
	}
	if s := next("act_on_unit"); s.Error || s.Out["rule"] != "nginx" {
		t.Errorf("%+v", s)
	}
	if s := next("updated"); s.Updates == 0 {
		t.Error("no notification")
	}
	if s := next("roll_back"); s.Error || s.Out["status"] != "done" {
		t.Errorf("%+v", s)
	}
	hostname("old")
	next("end")
	want := `["SetStaticHostname", "web-1"] ["StopUnit", "nginx.service"] ["SetStaticHostname", "old"]`
	if got := strings.Join(r.changes()[before:], " "); got != want {
		t.Errorf("changes %s, want %s", got, want)
	}
	r.act("StartUnit", "nginx.service")
}

// act has the host itself do something, for the next session.
func (r *rig) act(member, unit string) {
	r.t.Helper()
	r.must("busctl", "--address="+r.address, "call", "org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager", member, "ss", unit, "replace")
}

// A logged event of an agent, as far as the session's check goes.
type logged struct {
	Type    string
	Actor   string
	Message string
	Subject string
	Data    struct {
		ID       string
		Method   string
		Tool     string
		Outcome  string
		Rule     string
		SHA256   string `json:"arguments_sha256"`
		Program  string
		OK       bool
		Decision struct{ Rule string }
		Approval json.RawMessage
		Action   struct {
			Member string
			SHA256 string
		}
		Principal struct {
			Client string
			Agent  struct {
				Tool    string
				Program string
				SHA256  string `json:"arguments_sha256"`
			}
		}
	}
}

func (r *rig) logged() (list []logged) {
	r.t.Helper()
	for l := range strings.Lines(r.must("gb-chain", "query", "--json", "--source", "mcp")) {
		if !strings.HasPrefix(l, "{") {
			continue
		}
		var e logged
		if err := json.Unmarshal([]byte(l), &e); err != nil {
			r.t.Fatalf("%s: %v", l, err)
		}
		list = append(list, e)
	}
	return list
}

// checkLog looks for every step of a session in the log.
func (r *rig) checkLog(client, programName string) {
	t := r.t
	t.Helper()
	has := func(ok func(e logged) bool) bool { return slices.ContainsFunc(r.logged(), ok) }
	mine := func(e logged) bool { return e.Actor == "mcp:"+client && strings.HasPrefix(e.Data.Program, programName) }
	r.wait("the last report", func() bool {
		return has(func(e logged) bool { return mine(e) && e.Data.Tool == "roll_back" })
	})
	for _, c := range []struct{ method, tool, outcome, rule string }{
		{"tools/list", "", "done", ""}, {"resources/read", "", "done", ""}, {"prompts/get", "", "done", ""},
		{"tools/call", "find_services", "done", ""}, {"tools/call", "read_properties", "done", ""}, {"tools/call", "plan_changes", "done", ""},
		{"tools/call", "act_on_unit", "refused", ""}, {"tools/call", "apply_changes", "approval", "apply"}, {"tools/call", "apply_changes", "done", "apply"}, {"tools/call", "act_on_unit", "done", "nginx"},
		{"tools/call", "roll_back", "done", "back"},
	} {
		if !has(func(e logged) bool {
			return mine(e) && e.Data.Method == c.method && e.Data.Tool == c.tool && e.Data.Outcome == c.outcome && e.Data.Rule == c.rule && (c.tool == "" || len(e.Data.SHA256) == 64)
		}) {
			t.Errorf("%s: the log has no %s %s: %s by rule %q", client, c.method, c.tool, c.outcome, c.rule)
		}
	}
	// Each change has its intent, with all of who, what and by which right, and
	// its outcome.
	for _, c := range []struct{ member, tool, rule string }{{"Apply", "apply_changes", "apply"}, {"StopUnit", "act_on_unit", "nginx"}, {"Rollback", "roll_back", "back"}} {
		id := ""
		for _, e := range r.logged() {
			p := e.Data.Principal
			if e.Type == "opdbus.intent" && e.Actor == "mcp:"+client && e.Data.Action.Member == c.member && p.Agent.Tool == c.tool && strings.HasPrefix(p.Agent.Program, programName) &&
				len(p.Agent.SHA256) == 64 && len(e.Data.Action.SHA256) == 64 && e.Data.Decision.Rule == c.rule && (c.rule != "apply" || len(e.Data.Approval) > 0) {
				id = e.Data.ID
			}
		}
		if id == "" {
			t.Errorf("%s: the log has no intent of %s", client, c.member)
		} else if !has(func(e logged) bool { return e.Type == "opdbus.outcome" && e.Data.ID == id && e.Data.OK }) {
			t.Errorf("%s: the log has no outcome of %s", client, c.member)
		}
	}
}

// The official clients of both lines, over HTTP and on standard input and
// output, each for a whole session; then the log has every step.
func TestOfficialClients(t *testing.T) {
	node(t)
	r := newRig(t, sessionPolicy("mcp"))
	r.allow("org.freedesktop.opdbus.approve", "org.freedesktop.opdbus.tokens", "org.freedesktop.opdbus.rollback", "org.freedesktop.opdbus.apply-state", "org.freedesktop.opdbus.call")
	r.serveHTTP("--web", "http://127.0.0.1:8096")
	for _, c := range []struct{ line, protocol string }{{"v1", "2025-11-25"}, {"v2-legacy", "2025-11-25"}, {"v2-auto", "2026-07-28"}, {"v2-pinned", "2026-07-28"}} {
		t.Run(c.line+"/http", func(t *testing.T) {
			r := &rig{t: t, dir: r.dir, address: r.address, env: r.env, url: r.url}
			secret := r.token("http-"+c.line, "read,propose,execute")
			r.env = append(slices.Clone(r.env), "GB_TOKEN="+secret)
			r.session(c.line, c.protocol, "url", r.url)
			r.checkLog("http-"+c.line, "session-"+c.line)
		})
		t.Run(c.line+"/stdio", func(t *testing.T) {
			r := &rig{t: t, dir: r.dir, address: r.address, env: r.env}
			r.session(c.line, c.protocol, "form", "stdio", tools.Path(t, "opdbus"), "mcp")
			r.checkLog("user:root", "session-"+c.line)
		})
	}
	fmt.Fprintln(t.Output(), tail(r.must("gb-chain", "query", "--source", "mcp"), 2000))
}

// The Inspector's command line: a process for each call, no way to ask its
// user, so that approvals are answered between one call and the next.
func TestInspector(t *testing.T) {
	_, modules := node(t)
	r := newRig(t, sessionPolicy("mcp:inspector"))
	r.serveHTTP()
	secret := r.token("inspector", "read,propose,execute")
	inspect := func(args ...string) obj {
		t.Helper()
		argv := append([]string{modules + "/@modelcontextprotocol/inspector/clients/launcher/build/index.js", "--cli", r.url, "--transport", "http", "--header", "Authorization: Bearer " + secret}, args...)
		out, err := runNode(t, time.Minute, r.env, argv...)
		var m obj
		// Behind the JSON it says what it thinks of schemas, and of errors.
		dec := json.NewDecoder(strings.NewReader(out))
		if jerr := dec.Decode(&m); jerr != nil || (err == nil) != (m["isError"] != true) {
			t.Fatalf("%v: %v, %v\n%s", args, err, jerr, tail(out, 3000))
		}
		if strings.Contains(out, "Schema portability") {
			t.Errorf("%v: %s", args, tail(out, 1000))
		}
		return m
	}
	tool := func(name string, args ...string) obj {
		t.Helper()
		argv := []string{"--method", "tools/call", "--tool-name", name}
		for _, a := range args {
			argv = append(argv, "--tool-arg", a)
		}
		m := inspect(argv...)
		out, ok := m["structuredContent"].(obj)
		if !ok {
			t.Fatalf("%s: %v", name, m)
		}
		return out
	}
	if tools := inspect("--strict", "--method", "tools/list")["tools"].([]any); len(tools) != 18 {
		t.Errorf("%d tools", len(tools))
	}
	if out := inspect("--method", "resources/templates/list"); len(out) == 0 || out["error"] != nil {
		t.Errorf("templates: %v", out)
	}
	inspect("--method", "prompts/get", "--prompt-name", "diagnose_failed_unit", "--prompt-args", "unit=broken.service")
	inspect("--method", "resources/read", "--uri", "policy://effective")
	const at = "name=org.freedesktop.hostname1"
	read := []string{at, "path=/org/freedesktop/hostname1", "interface=org.freedesktop.hostname1", "property=StaticHostname"}
	name := func() any { return tool("read_properties", read...)["properties"].(obj)["StaticHostname"].(obj)["v"] }
	tool("find_services", "query=hostname1")
	if name() != "old" {
		t.Error(name())
	}
	state := `state={"version":1,"plugins":{"hostname":{"static":"web-1"}}}`
	hash := "plan=" + tool("plan_changes", state)["plan"].(obj)["hash"].(string)
	if out := tool("act_on_unit", "unit=sshd.service", "action=stop"); out["status"] != "denied" {
		t.Error(out)
	}
	asked := tool("apply_changes", state, hash)
	if asked["status"] != "approval_needed" || name() != "old" {
		t.Fatal(asked)
	}
	r.must("opdbus", "approvals", "approve", asked["approval"].(obj)["id"].(string))
	done := tool("apply_changes", state, hash)
	if done["status"] != "done" || name() != "web-1" {
		t.Fatal(done)
	}
	tool("act_on_unit", "unit=nginx.service", "action=stop")
	if out := tool("roll_back", "change="+done["change"].(obj)["id"].(string)); out["status"] != "done" || name() != "old" {
		t.Error(out)
	}
	r.checkLog("inspector", "")
}
