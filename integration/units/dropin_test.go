//go:build linux

package units

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ghostbridge/ghostbridge/pkg/names"
)

// What a drop-in changes it changes in a unit that is there; systemd takes both
// together without a word, and the unit is hardly more exposed.
func TestDropIns(t *testing.T) {
	dir := unitDir(t, build(t))
	var changed []string
	for path, text := range render(t, build(t), "/bin") {
		rest, ok := strings.CutPrefix(path, "drop-ins/")
		if !ok {
			continue // those of others' units
		}
		name, file, _ := strings.Cut(rest, "/")
		unit, _, ok := strings.Cut(file, ".d/")
		if !ok || filepath.Base(file) != name+".conf" {
			t.Errorf("%s is not where systemd would look for a drop-in called %s", path, name)
		}
		if _, err := os.Stat(filepath.Join(dir, unit)); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		full := filepath.Join(dir, file)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		changed = append(changed, unit)
	}
	if len(changed) != 2 {
		t.Fatalf("drop-ins of %v", changed)
	}
	for _, unit := range changed {
		if _, stderr, err := analyze(t, dir, "verify", "--man=no", filepath.Join(dir, unit)); err != nil || stderr != "" {
			t.Errorf("systemd-analyze verify %s: %v\n%s", unit, err, stderr)
		}
		// The host's network, as far as itself.
		out, stderr, err := analyze(t, dir, "security", "--offline=true", "--no-pager", "--threshold=16", unit)
		lines := strings.Split(strings.TrimSpace(out), "\n")
		t.Log(lines[len(lines)-1])
		if err != nil {
			t.Errorf("%s: %v\n%s\n%s", unit, err, stderr, out)
		}
		// And it is the drop-in that was looked at.
		out, _, err = analyze(t, dir, "security", "--offline=true", "--no-pager", unit)
		if err != nil || !strings.Contains(out, "✗ PrivateNetwork=") {
			t.Errorf("%s has no network: %v\n%s", unit, err, out)
		}
	}
}

// What the drop-in for Qdrant says is what gb-vecsync looks for, and where
// qdrant.service listens.
func TestQdrantDropIn(t *testing.T) {
	for _, unit := range []string{"gb-vecsync@.service", "blockchain-search.service"} {
		u := parse(t, unit, committed(t)["drop-ins/qdrant/"+unit+".d/qdrant.conf"])
		if got, want := u.get("Service", "Environment"), "GB_INDEX=qdrant://127.0.0.1:6334"; got != want || names.QdrantGRPCPort != 6334 {
			t.Errorf("%s: %s, want %s", unit, got, want)
		}
		if got := u.get("Service", "LoadCredential"); got != "qdrant-key:"+names.ConfigDir+"/qdrant-key" {
			t.Errorf("%s: %s", unit, got)
		}
	}
}

// What stands beside others' units names units that are there, limits how long
// a boot waits for them, and does nothing else.
func TestDropInsOfOthers(t *testing.T) {
	n := 0
	for path, text := range committed(t) {
		unit, file, ok := strings.Cut(path, ".d/")
		if !ok || !strings.HasPrefix(file, "ghostbridge-") {
			continue
		}
		n++
		u := parse(t, path, text)
		if !slices.Contains(systemUnits, unit) || len(u) != 1 || len(u["Service"]) != 1 || u.get("Service", "TimeoutStartSec") != "1min" {
			t.Errorf("%s: %v", path, u)
		}
	}
	if n != 2 {
		t.Errorf("%d of them", n)
	}
}
