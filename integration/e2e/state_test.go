//go:build linux

package e2e

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/names"
)

const statePolicy = `{"version":1,"per_minute":1000000,"rules":[
 {"id":"apply","name":"org.freedesktop.opdbus","interface":"org.freedesktop.opdbus.Manager","members":["Apply"],"effect":"allow"},
 {"id":"parts","name":"org.freedesktop.opdbus","interface":"org.freedesktop.opdbus.Snapshots","effect":"allow"},
 {"id":"units","name":"org.freedesktop.systemd1","effect":"allow"},
 {"id":"names","name":"org.freedesktop.hostname1","effect":"allow"}]}`

// A desired state on a real systemd, through the installed daemon in its
// sandbox: forth, again, back, and what fails or is killed in between.
func desiredState(t *testing.T, c *container) {
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(c.path(path), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(names.PolicyFile, statePolicy)
	const unit = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=%s\n[Install]\nWantedBy=multi-user.target\n"
	for name, program := range map[string]string{"good": "/bin/true", "other": "/bin/true", "bad": "/bin/false"} {
		write("/usr/lib/systemd/system/e2e-"+name+".service", strings.Replace(unit, "%s", program, 1))
	}
	write("/etc/systemd/system/e2e-etc.service", strings.Replace(unit, "%s", "/bin/true", 1))
	write("/root/etc.json", `{"version":1,"plugins":{"systemd":{"units":{"e2e-etc.service":{"masked":true}}}}}`)
	c.run("systemctl", "daemon-reload")
	c.run("systemctl", "enable", "--now", "e2e-other.service")
	write("/root/state.json", `{"version":1,"plugins":{
		"hostname":{"pretty":"Geist","location":"Keller"},
		"snapshots":{"max_count":150},
		"systemd":{"units":{"e2e-good.service":{"active":true,"enabled":true},"e2e-other.service":{"active":false,"enabled":false,"masked":true}}}}}`)
	write("/root/small.json", `{"version":1,"plugins":{"hostname":{"pretty":"Geist"},"systemd":{"units":{"e2e-good.service":{"active":true}}}}}`)
	write("/root/bad.json", `{"version":1,"plugins":{"hostname":{"pretty":"Geist"},"systemd":{"units":{"e2e-good.service":{"active":true},"e2e-bad.service":{"active":true}}}}}`)
	look := func() string {
		var list []string
		for _, u := range []string{"e2e-good.service", "e2e-other.service", "e2e-bad.service"} {
			a, _ := c.try("systemctl", "is-active", u)
			e, _ := c.try("systemctl", "is-enabled", u)
			if a == "failed" {
				a = "inactive"
			}
			list = append(list, strings.TrimSpace(a)+" "+strings.TrimSpace(e))
		}
		pretty := c.run("hostnamectl", "--pretty")
		_, err := os.Stat(c.path(names.HostStateDir + "/snapshots.env"))
		return strings.Join(list, ", ") + ", " + strings.TrimSpace(pretty) + ", " + map[bool]string{true: "settings", false: "none"}[err == nil]
	}
	before := look()
	expect := func(what, want string) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); look() != want; time.Sleep(100 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Errorf("%s: %s, want %s", what, look(), want)
				return
			}
		}
	}
	if want := "inactive disabled, active enabled, inactive disabled, "; !strings.HasPrefix(before, want) {
		t.Fatalf("%s, want %s...", before, want)
	}
	fails := func(what, text string, argv ...string) string {
		t.Helper()
		out, err := c.try(argv...)
		if err == nil || !strings.Contains(err.Error()+out, text) {
			t.Errorf("%s: %v\n%s, want %q", what, err, out, text)
		}
		return out
	}
	fails("where a mask would be", "where the mask would be", "opdbus", "apply", "/root/etc.json")
	// What is started at boot waits for a person.
	fails("apply", "needs a person's approval", "opdbus", "apply", "/root/state.json")
	var id string
	for line := range strings.Lines(c.run("opdbus", "approvals", "list", "--json")) {
		var a struct{ ID, State string }
		if json.Unmarshal([]byte(line), &a) == nil && a.State == "pending" {
			id = a.ID
		}
	}
	c.run("opdbus", "approvals", "approve", id)
	c.run("opdbus", "apply", "/root/state.json")
	applied := "active enabled, inactive masked, inactive disabled, Geist, settings"
	expect("applied", applied)
	if text, err := os.ReadFile(c.path(names.HostStateDir + "/snapshots.env")); err != nil || !strings.Contains(string(text), "GB_SNAP_MAX_COUNT=150\n") {
		t.Errorf("snapshots: %v, %s", err, text)
	}
	if out := c.run("opdbus", "apply", "/root/state.json"); !strings.Contains(out, "nothing to do") {
		t.Errorf("again: %s", out)
	}
	// Behind its back.
	c.run("systemctl", "stop", "e2e-good.service")
	drift := []string{}
	for deadline := time.Now().Add(20 * time.Second); len(drift) == 0 && time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		drift = c.lines("--source", "opdbus", "--type", "opdbus.drift", "--grep", "e2e-good.service")
	}
	if len(drift) != 1 {
		t.Errorf("drift: %v", drift)
	}
	c.run("opdbus", "rollback")
	expect("rolled back", before)
	// What fails, and what is killed while it awaits its confirmation.
	fails("a unit that fails", "rolled back", "opdbus", "apply", "/root/bad.json")
	expect("after a unit that fails", before)
	c.run("opdbus", "apply", "--confirm-timeout", "10s", "/root/small.json")
	if got := look(); got == before {
		t.Errorf("pending: %s", got)
	}
	c.run("systemctl", "kill", "--kill-who=main", "--signal=KILL", "op-dbus.service")
	expect("nobody has confirmed", before)
	// What is only read, and what has no way back.
	out := c.run("opdbus", "state", "timedate", "login", "packages")
	for _, want := range []string{`"timezone":"`, `"kill_user_processes":false`, `"systemd"`} {
		if !strings.Contains(out, want) {
			t.Errorf("state lacks %s", want)
		}
	}
	if err := os.MkdirAll(c.path("/etc/systemd/resolved.conf.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	write("/etc/systemd/resolved.conf.d/e2e.conf", "[Resolve]\nDNS=192.0.2.53 2001:db8::53\nDNSSEC=no\nLLMNR=resolve\n")
	c.run("systemctl", "restart", "systemd-resolved")
	if out := c.run("opdbus", "state", "resolved"); !strings.Contains(out, `"dns":["192.0.2.53","2001:db8::53"]`) || !strings.Contains(out, `"dnssec":"no"`) || !strings.Contains(out, `"llmnr":"resolve"`) {
		t.Errorf("resolved: %s", out)
	}
	write("/root/resolved.json", `{"version":1,"plugins":{"resolved":{"dns":["192.0.2.53","2001:db8::53"],"dnssec":"no","llmnr":"no"}}}`)
	if out, err := c.try("opdbus", "diff", "/root/resolved.json"); !strings.Contains(out, "llmnr") || strings.Contains(out, "dnssec") || strings.Contains(out, "192.0.2.53") {
		t.Errorf("resolved, another llmnr: %v\n%s", err, out)
	}
	fails("resolved", "resolved.llmnr: it is only read", "opdbus", "apply", "/root/resolved.json")
	c.run("systemd-run", "--unit=e2e-run", "--quiet", "sleep", "1000")
	write("/root/run.json", `{"version":1,"plugins":{"systemd":{"units":{"e2e-run.service":{"active":false}}}}}`)
	if out := c.run("opdbus", "plan", "/root/run.json"); !strings.Contains(out, "irreversible: a transient unit") {
		t.Errorf("transient: %s", out)
	}
	c.run("opdbus", "apply", "/root/run.json")
	if a, _ := c.try("systemctl", "is-active", "e2e-run.service"); strings.TrimSpace(a) != "inactive" {
		t.Errorf("e2e-run.service is %s", a)
	}
	if out, err := c.try("opdbus", "doctor", "--dbus"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	c.run("systemctl", "disable", "--now", "e2e-other.service")
	for _, path := range []string{names.PolicyFile, "/usr/lib/systemd/system/e2e-good.service", "/usr/lib/systemd/system/e2e-other.service", "/usr/lib/systemd/system/e2e-bad.service", "/etc/systemd/system/e2e-etc.service"} {
		if err := os.Remove(c.path(path)); err != nil {
			t.Error(err)
		}
	}
	c.run("systemctl", "daemon-reload")
	c.run("systemctl", "reset-failed")
	c.healthy()
}
