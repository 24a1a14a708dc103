package opdbus

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/ghostbridge/ghostbridge/pkg/bus"
	"github.com/ghostbridge/ghostbridge/pkg/names"
)

func mustPolicy(t testing.TB, text string) *Policy {
	t.Helper()
	p, err := ParsePolicy([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func mustCall(t testing.TB, name, path, iface, member, sig string, values ...any) Action {
	t.Helper()
	a, err := NewCall(bus.System, bus.Call{Name: name, Path: path, Interface: iface, Member: member, Args: bus.NewBody(sig, values...)})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

var (
	root  = Principal{Entrance: EntranceCLI, UID: 0, User: "root"}
	alice = Principal{Entrance: EntranceDBus, UID: 1000, User: "alice", Groups: []string{"operators"}, Unit: "user@1000.service"}
	agent = Principal{Entrance: EntranceMCP, UID: 0, User: "root", Client: "claude", Scopes: []string{ScopeExecute}}
	page  = Principal{Entrance: EntranceWeb, UID: 990, Client: "alice"}
)

func TestDecide(t *testing.T) {
	const systemd, manager = "org.freedesktop.systemd1", "org.freedesktop.systemd1.Manager"
	restart := mustCall(t, systemd, "/org/freedesktop/systemd1", manager, "RestartUnit", "ss", "nginx.service", "replace")
	list := mustCall(t, systemd, "/org/freedesktop/systemd1", manager, "ListUnits", "")
	enable := mustCall(t, systemd, "/org/freedesktop/systemd1", manager, "EnableUnitFiles", "")
	allow := `{"version":1,"rules":[{"id":"all","effect":"allow"}]}`
	everybody := `{"version":1,"rules":[{"id":"all","clients":["cli","dbus","mcp","web"],"effect":"allow"}]}`
	for _, c := range []struct {
		why    string
		policy string
		who    Principal
		what   Action
		want   Effect
	}{
		{"nothing is allowed without a rule, root included", `{"version":1}`, root, restart, Deny},
		{"reads are", `{"version":1}`, agent, list, Allow},
		{"reads can be denied", `{"version":1,"rules":[{"id":"r","reads":true,"clients":["mcp"],"effect":"deny"}]}`, agent, list, Deny},
		{"a rule for changes is none for reads", `{"version":1,"rules":[{"id":"r","effect":"deny"}]}`, root, list, Allow},
		{"a rule allows", allow, root, restart, Allow},
		{"a rule that names no agent is not for agents", allow, agent, restart, Deny},
		{"nor for browsers", allow, page, restart, Deny},
		{"an agent is not its user", `{"version":1,"rules":[{"id":"r","clients":["uid:0","user:root"],"effect":"allow"}]}`, agent, restart, Deny},
		{"an agent by its name", `{"version":1,"rules":[{"id":"r","clients":["mcp:cl*"],"effect":"allow"}]}`, agent, restart, Allow},
		{"another agent", `{"version":1,"rules":[{"id":"r","clients":["mcp:other"],"effect":"allow"}]}`, agent, restart, Deny},
		{"what denies everybody denies agents", `{"version":1,"rules":[{"id":"d","effect":"deny"},{"id":"r","clients":["mcp"],"effect":"allow"}]}`, agent, restart, Deny},
		{"a user's denial is for that user's agents too", `{"version":1,"rules":[{"id":"d","clients":["uid:0"],"effect":"deny"},{"id":"r","clients":["mcp"],"effect":"allow"}]}`, agent, restart, Deny},
		{"the first rule decides", `{"version":1,"rules":[{"id":"a","members":["Restart*"],"effect":"deny"},{"id":"b","effect":"allow"}]}`, root, restart, Deny},
		{"by group", `{"version":1,"rules":[{"id":"a","clients":["group:operators"],"effect":"allow"}]}`, alice, restart, Allow},
		{"by unit", `{"version":1,"rules":[{"id":"a","clients":["unit:user@*"],"effect":"allow"}]}`, alice, restart, Allow},
		{"by argument", `{"version":1,"rules":[{"id":"a","args":{"0":"nginx*"},"effect":"allow"}]}`, root, restart, Allow},
		{"by another argument", `{"version":1,"rules":[{"id":"a","args":{"0":"sshd*"},"effect":"allow"}]}`, root, restart, Deny},
		{"an argument that isn't there", `{"version":1,"rules":[{"id":"a","args":{"7":"*"},"effect":"allow"}]}`, root, restart, Deny},
		{"by bus", `{"version":1,"rules":[{"id":"a","bus":"session","effect":"allow"}]}`, root, restart, Deny},
		{"as good as root: a person", everybody, root, enable, Approve},
		{"power through systemd: a person", everybody, root, mustCall(t, systemd, "/", manager, "Reboot", ""), Approve},
		{"power: a person", everybody, root, mustCall(t, "org.freedesktop.login1", "/", "org.freedesktop.login1.Manager", "PowerOff", "b", true), Approve},
		{"never", everybody, root, mustCall(t, systemd, "/", manager, "Exit", ""), Deny},
		{"never, under another name", everybody, root, mustCall(t, "org.example.Alias", "/", manager, "SetEnvironment", ""), Deny},
		{"never: polkit", everybody, root, mustCall(t, "org.freedesktop.PolicyKit1", "/", "org.freedesktop.PolicyKit1.Authority", "RegisterAuthenticationAgent", ""), Deny},
		{"never: monitoring", everybody, root, mustCall(t, "org.freedesktop.DBus", "/", "org.freedesktop.DBus.Monitoring", "BecomeMonitor", ""), Deny},
		{"never: approving by a call", everybody, agent, mustCall(t, "org.freedesktop.opdbus", "/", "org.freedesktop.opdbus.Approvals", "Approve", "s", "x"), Deny},
		{"going back: people by polkit", `{"version":1}`, root, ownAction(bus.System, names.BusObject, "Manager", "Rollback", bus.NewBody("s", "")), Allow},
		{"going back: an agent by a rule", `{"version":1}`, agent, ownAction(bus.System, names.BusObject, "Manager", "Rollback", bus.NewBody("s", "")), Deny},
		{"letting agents in: not an agent's", `{"version":1}`, agent, ownAction(bus.System, names.BusObject, "Tokens", "Add", bus.NewBody("ss", "x", "read")), Deny},
		{"a dry run", `{"version":1,"rules":[{"id":"a","effect":"dry-run"}]}`, root, restart, DryRun},
		{"a set is no call", `{"version":1,"rules":[{"id":"a","kind":"set","effect":"allow"}]}`, root, restart, Deny},
	} {
		if d := mustPolicy(t, c.policy).Decide(c.who, c.what); d.Effect != c.want {
			t.Errorf("%s: %s (%s), want %s", c.why, d.Effect, d.Reason, c.want)
		}
	}
}

// Properties.Set is the setting of that property, under whatever name.
func TestSetIsASet(t *testing.T) {
	v, err := ParseAction(bus.System, "a.b", "/", "org.freedesktop.DBus.Properties", "Set", "ssv", `["c.d","P",{"t":"u","v":1}]`)
	if err != nil {
		t.Fatal(err)
	}
	if v.Kind != KindSet || v.Interface != "c.d" || v.Member != "P" || string(v.Args) != `[{"t":"u","v":1}]` {
		t.Errorf("%+v", v)
	}
	if _, err := ParseAction(bus.System, "a.b", "/", "org.freedesktop.DBus.Properties", "Set", "sss", `["c.d","P","x"]`); err == nil {
		t.Error("a Set of another signature was taken")
	}
}

// Two texts of one action have one hash, and each field counts.
func TestHash(t *testing.T) {
	base := func(iface, sig, args string) Action {
		a, err := ParseAction(bus.System, "a.b", "/", iface, "M", sig, args)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	if base("c.d", "xs", ` [ 7, "\u0041" ] `).Hash() != base("c.d", "xs", `["7","A"]`).Hash() {
		t.Error("two texts of one action have two hashes")
	}
	seen := map[string]bool{}
	for _, a := range []Action{base("c.d", "s", `["1"]`), base("c.e", "s", `["1"]`), base("c.d", "u", `[1]`), base("c.d", "s", `["2"]`)} {
		if seen[a.Hash()] {
			t.Errorf("%v has the hash of another", a)
		}
		seen[a.Hash()] = true
	}
}

func TestPolicyRefuses(t *testing.T) {
	for _, text := range []string{
		``, `{}`, `{"version":2}`, `{"version":1,"rule":[]}`, `{"version":1} {}`,
		`{"version":1,"rules":[{"effect":"allow"}]}`, `{"version":1,"rules":[{"id":"a","effect":"permit"}]}`,
		`{"version":1,"rules":[{"id":"a","effect":"allow","memberz":["x"]}]}`, `{"version":1,"rules":[{"id":"a","effect":"allow"},{"id":"a","effect":"deny"}]}`,
		`{"version":1,"rules":[{"id":"a","effect":"allow","clients":["root"]}]}`, `{"version":1,"rules":[{"id":"a","effect":"allow","clients":["uid:"]}]}`,
		`{"version":1,"rules":[{"id":"a","effect":"approve","ttl":"900h"}]}`, `{"version":1,"rules":[{"id":"a","effect":"allow","args":{"x":"y"}}]}`,
		`{"version":1,"rules":[{"id":"a","effect":"approve","reads":true}]}`, `{"version":1,"rules":[{"id":"a","effect":"allow","kind":"own"}]}`,
	} {
		if _, err := ParsePolicy([]byte(text)); err == nil {
			t.Errorf("%s was taken", text)
		}
	}
}

func TestPolicyFileOfOthers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policy.json")
	if p, err := LoadPolicy(path); err != nil || len(p.Rules) != 0 {
		t.Errorf("no file: %v, %v", p, err)
	}
	if err := os.WriteFile(path, []byte(`{"version":1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for mode, ok := range map[os.FileMode]bool{0o644: true, 0o600: true, 0o664: false, 0o646: false} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadPolicy(path); (err == nil) != ok {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
	if os.Getuid() == 0 {
		if err := os.Chown(path, 12345, 0); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadPolicy(path); err == nil {
			t.Error("a stranger's file was taken")
		}
	}
}

// Patterns match as the regular expressions they stand for.
func FuzzGlobIsItsRegexp(f *testing.F) {
	f.Add("org.*.a?", "org.freedesktop.ab")
	f.Add("**a*", "ba")
	f.Fuzz(func(t *testing.T, pattern, s string) {
		if pattern == "" || len(pattern) > 40 || len(s) > 200 {
			return
		}
		for _, x := range []string{pattern, s} {
			for i := range len(x) {
				if x[i] >= 0x80 {
					return // ? is one byte: names are ASCII
				}
			}
		}
		re := regexp.MustCompile(`(?s)\A` + strings.NewReplacer(`\*`, `.*`, `\?`, `.`).Replace(regexp.QuoteMeta(pattern)) + `\z`)
		if got := glob(pattern, s); got != re.MatchString(s) {
			t.Fatalf("glob(%q, %q) = %v", pattern, s, got)
		}
	})
}

// Whatever text is a policy, nothing on the never list is done, and nothing as
// good as root without a person.
func FuzzPolicyHolds(f *testing.F) {
	f.Add([]byte(`{"version":1,"rules":[{"id":"a","clients":["mcp","cli","dbus","web"],"effect":"allow","polkit":"none"}]}`))
	exit := mustCall(f, "org.freedesktop.systemd1", "/", systemdManager, "KExec", "")
	enable := mustCall(f, "org.freedesktop.systemd1", "/", systemdManager, "LinkUnitFiles", "")
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := ParsePolicy(data)
		if err != nil {
			return
		}
		for _, who := range []Principal{root, alice, agent, page} {
			if d := p.Decide(who, exit); d.Effect != Deny {
				t.Fatalf("%v may %v", who, exit)
			}
			if d := p.Decide(who, enable); d.Effect == Allow {
				t.Fatalf("%v may %v without a person", who, enable)
			}
		}
	})
}

// The read list names nothing that is on another list, and no line stands
// twice.
func TestReadListChangesNothing(t *testing.T) {
	seen := map[ReadEntry]bool{}
	for _, e := range ReadList() {
		if seen[e] {
			t.Errorf("%v stands twice", e)
		}
		seen[e] = true
		a := Action{Kind: KindCall, Name: e.Name, Interface: e.Interface, Member: e.Member, Args: json.RawMessage("[]")}
		if why := rootEquivalent(a); why != "" && e.Member != "GetUnitFileState" && !strings.HasPrefix(e.Member, "ListUnitFiles") && e.Member != "GetUnitFileLinks" {
			t.Errorf("%v: %s", e, why)
		}
		for _, verb := range []string{"Set", "Start", "Stop", "Restart", "Reload", "Enable", "Disable", "Mask", "Unmask", "Create", "Delete", "Remove", "Add", "Kill", "Apply", "Rollback", "Confirm", "Approve", "Deny", "Reboot", "PowerOff", "Halt"} {
			if strings.HasPrefix(e.Member, verb) {
				t.Errorf("%v: a read called %s", e, verb)
			}
		}
	}
}

// No rule lets anybody answer an approval whom polkit does not know.
func TestApprovingIsPolkits(t *testing.T) {
	for _, effect := range []string{"allow", "approve"} {
		for _, k := range []string{"none", PolkitCall, ""} {
			p := mustPolicy(t, `{"version":1,"rules":[{"id":"all","clients":["*","mcp"],"effect":"`+effect+`","polkit":"`+k+`"}]}`)
			d := p.Decide(alice, ownAction(bus.System, names.BusObject, "Approvals", "Approve", bus.NewBody("s", "x")))
			if d.Effect != Allow || d.Polkit != PolkitApprove {
				t.Errorf("%s, polkit %q: %+v", effect, k, d)
			}
		}
	}
	p := mustPolicy(t, `{"version":1,"rules":[{"id":"all","effect":"deny"}]}`)
	if d := p.Decide(alice, ownAction(bus.System, names.BusObject, "Approvals", "Approve", bus.NewBody("s", "x"))); d.Effect != Deny {
		t.Errorf("%+v", d)
	}
}
