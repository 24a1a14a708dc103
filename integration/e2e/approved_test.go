//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/ghostbridge/ghostbridge/pkg/names"
)

// approved: root wants a state that the policy gives to a person to decide
// about; carol, who may approve, does so in the web interface; what was
// approved is done, and taken back. Each step is in the log, and found by who
// asks for it in words.
func approved(t *testing.T, h *host) {
	policy, err := os.ReadFile(repository + "/packaging/policy.json") // the package's own
	if err != nil {
		t.Fatal(err)
	}
	const unit = "nightly-backup.service"
	for path, text := range map[string]string{
		names.PolicyFile:                  string(policy),
		"/usr/lib/systemd/system/" + unit: "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n",
		"/root/wanted.json": `{"version":1,"plugins":{"hostname":{"pretty":"Border house"},"snapshots":{"max_count":150},
			"systemd":{"units":{"` + unit + `":{"active":true,"enabled":true}}}}}`,
	} {
		if err := os.WriteFile(h.path(path), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	h.run("systemctl", "daemon-reload")
	h.run("useradd", "--groups", names.ReadersGroup+","+names.ApproversGroup, "carol")
	look := func() string {
		active, _ := h.try("systemctl", "is-active", unit)
		enabled, _ := h.try("systemctl", "is-enabled", unit)
		_, err := os.Stat(h.path(names.HostStateDir + "/snapshots.env"))
		return fmt.Sprintf("%s %s, %q, settings %t", active, enabled, h.run("hostnamectl", "--pretty"), err == nil)
	}
	before := look()
	mark := len(h.lines())
	if out := h.run("opdbus", "plan", "/root/wanted.json"); !strings.Contains(out, unit) || !strings.Contains(out, "approve") {
		t.Errorf("plan:\n%s", out)
	}
	out, err := h.try("opdbus", "apply", "/root/wanted.json")
	if err == nil || !strings.Contains(err.Error(), "needs a person's approval") || look() != before {
		t.Fatalf("apply: %v\n%s\n%s", err, out, look())
	}
	id := ""
	for line := range strings.Lines(h.run("opdbus", "approvals", "list", "--json")) {
		var a struct{ ID, State string }
		if json.Unmarshal([]byte(line), &a) == nil && a.State == "pending" {
			id = a.ID
		}
	}
	token := strings.TrimSpace(h.run("runuser", "-u", "carol", "--", "gb-web", "login", "--token"))
	if status, body := h.http(token, "/api/v1/approvals/"+id); !strings.Contains(status, " 200 ") || !strings.Contains(body, unit) {
		t.Errorf("what carol sees: %s %.500s", status, body)
	}
	if status, body := h.post(token, "/api/v1/approvals/"+id+"/approve"); !strings.Contains(status, " 200 ") || !strings.Contains(body, `"approved"`) {
		t.Fatalf("carol approves: %s %.500s", status, body)
	}
	if look() != before {
		t.Errorf("approved and not yet applied: %s", look())
	}
	h.run("opdbus", "apply", "/root/wanted.json")
	want := `active enabled, "Border house", settings true`
	h.eventually("applied", func() string {
		if now := look(); now != want {
			return now + ", want " + want
		}
		return ""
	})
	// It was good for once: what it was for is to be approved anew.
	h.run("opdbus", "rollback")
	h.eventually("rolled back", func() string {
		if now := look(); now != before {
			return now + ", want " + before
		}
		return ""
	})
	if out, err := h.try("opdbus", "apply", "/root/wanted.json"); err == nil || look() != before {
		t.Errorf("an approval was good for twice: %s", out)
	}
	// What the log has of it, in this order, and what a question finds of it.
	log := h.lines()[mark:]
	for _, want := range []struct{ kind, actor, message, detail, question string }{
		{"opdbus.refused", "uid:0", "Manager.Apply", unit, `"Manager.Apply" refused`},
		{"opdbus.intent", "web:carol", "Approvals.Approve", id, `"Approvals.Approve"`},
		{"opdbus.outcome", "web:carol", "Approvals.Approve", `"state":"approved"`, `"Approvals.Approve" done`},
		{"opdbus.intent", "uid:0", "Manager.Apply", unit, `"Manager.Apply"`},
		{"opdbus.intent", "uid:0", "Manager.EnableUnitFiles", unit, `"EnableUnitFiles"`},
		{"opdbus.outcome", "uid:0", "Manager.EnableUnitFiles", `"ok":true`, `"EnableUnitFiles" done`},
		{"opdbus.outcome", "uid:0", "Manager.Apply", `"result":"applied"`, `"Manager.Apply" done`},
		{"opdbus.intent", "uid:0", "Manager.Rollback", `"args":["`, `"Manager.Rollback"`},
		{"opdbus.intent", "uid:0", "Manager.DisableUnitFiles", unit, `"DisableUnitFiles"`},
		{"opdbus.outcome", "uid:0", "Manager.Rollback", `"result":"rolled-back"`, `"Manager.Rollback" done`},
		{"opdbus.refused", "uid:0", "Manager.Apply", unit, `"Manager.Apply" refused`},
	} {
		at := slices.IndexFunc(log, func(line string) bool {
			return strings.Contains(line, `"source":"opdbus","type":"`+want.kind+`"`) && strings.Contains(line, `"actor":"`+want.actor+`"`) &&
				strings.Contains(line, "."+want.message+" of ") && strings.Contains(line, want.detail)
		})
		if at < 0 {
			t.Fatalf("the log has no %s of %s by %s with %s, or not in this order", want.kind, want.message, want.actor, want.detail)
		}
		var e struct{ I int64 }
		if err := json.Unmarshal([]byte(log[at]), &e); err != nil {
			t.Fatal(err)
		}
		log = log[at+1:]
		h.eventually("search "+want.question, func() string {
			out, err := h.try("gb-vecsync", "search", "--json", "-n", "20", want.question)
			for line := range strings.Lines(out) {
				var hit struct{ Occurrences []struct{ Index int64 } }
				if json.Unmarshal([]byte(line), &hit) == nil && slices.ContainsFunc(hit.Occurrences, func(o struct{ Index int64 }) bool { return o.Index == e.I }) {
					return ""
				}
			}
			return fmt.Sprintf("event %d is not found: %v\n%s", e.I, err, out)
		})
	}
}
