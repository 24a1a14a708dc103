//go:build linux

package web

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/ghostbridge/ghostbridge/pkg/names"
)

// An approval says what would change: of a property what it is now, of a desired
// state the differences.
func TestApprovalShowsWhatChanges(t *testing.T) {
	r := newRig(t, parts{bus: true, events: 10})
	token := r.token("viewer")
	r.run(nobody, "", "dbus-send", "--bus="+r.address, "--print-reply", "--reply-timeout=60000", "--dest="+names.BusName, names.BusObject, names.BusInterface+".Bus.Call",
		"string:org.example.Lamp", "objpath:/org/example/Lamp", "string:org.freedesktop.DBus.Properties", "string:Set", "string:ssv", `string:["org.example.Lamp","Brightness",{"t":"u","v":40}]`)
	id := r.newest("pending")
	status, text, _ := r.get(token, "/api/v1/approvals/"+id)
	var a struct {
		Title   string
		Changes []struct{ What, Have, Want string }
		SHA256  string
		Left    float64 `json:"left_seconds"`
		Risk    string
	}
	if err := json.Unmarshal([]byte(text), &a); err != nil || status != http.StatusOK {
		t.Fatal(status, text, err)
	}
	if len(a.Changes) != 1 || a.Changes[0].What != "org.example.Lamp.Brightness" || a.Changes[0].Have != "10" || a.Changes[0].Want != "40" || a.Title != "set Brightness of org.example.Lamp" || len(a.SHA256) != 64 || a.Left < 60 || a.Risk != "ordinary" {
		t.Errorf("%s", text)
	}
	// What is as good as a root shell is a high risk, and says why.
	r.run(nobody, "", "dbus-send", "--bus="+r.address, "--print-reply", "--reply-timeout=60000", "--dest="+names.BusName, names.BusObject, names.BusInterface+".Bus.Call",
		"string:org.freedesktop.login1", "objpath:/org/freedesktop/login1", "string:org.freedesktop.login1.Manager", "string:Reboot", "string:b", "string:[false]")
	_, text, _ = r.get(token, "/api/v1/approvals/"+r.newest("pending"))
	if !strings.Contains(text, `"risk":"high"`) || !strings.Contains(text, `"why":"it restarts the host"`) {
		t.Errorf("%s", text)
	}
}

// More people see what waits than may answer it: secrets are not shown.
func TestApprovalHidesSecrets(t *testing.T) {
	r := newRig(t, parts{bus: true, events: 10})
	id := r.ask("Connect")
	for _, path := range []string{"/api/v1/approvals", "/api/v1/approvals/" + id, "/approvals", "/approvals/" + id} {
		status, text, _ := r.get(r.token("approver"), path)
		if status != http.StatusOK || !strings.Contains(text, "lobby") || strings.Contains(text, "hunter2") {
			t.Errorf("%s: %d %s", path, status, text)
		}
	}
	if out := r.must("opdbus", "approvals", "show", id); !strings.Contains(out, "hunter2") {
		t.Errorf("the exact action: %s", out)
	}
}

// Files of two snapshots: the log has grown in between.
func TestSnapshotsDiffer(t *testing.T) {
	r := newRig(t, parts{snapshots: true, events: 100})
	token := r.token("viewer")
	var v struct {
		Healthy   bool
		Snapshots []struct {
			Name    string
			Changed *int64 `json:"changed_bytes"`
		}
	}
	read := func() {
		t.Helper()
		_, text, _ := r.get(token, "/api/v1/snapshots")
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			t.Fatal(err, text)
		}
	}
	r.wait("a snapshot", func() bool { read(); return len(v.Snapshots) > 0 })
	old := v.Snapshots[0].Name
	r.append(strings.Join(story(50), ""))
	r.wait("another", func() bool { read(); return v.Snapshots[0].Name != old && v.Snapshots[0].Changed != nil })
	status, text, _ := r.get(token, "/api/v1/snapshots/diff?old="+old+"&new="+v.Snapshots[0].Name)
	if status != http.StatusOK || !strings.Contains(text, `{"path":"log/000000.jsonl","what":"changed"`) {
		t.Errorf("%d %s", status, text)
	}
	if status, text, _ := r.get(token, "/api/v1/snapshots/diff?old=../../etc&new="+old); status != http.StatusBadRequest {
		t.Errorf("%d %s", status, text)
	}
}
