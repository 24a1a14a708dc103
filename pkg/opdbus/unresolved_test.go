package opdbus

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// An intent whose process was killed is unresolved until a person, whom polkit
// knows, says what was found; an agent can't, and neither can the outcome of
// something else.
func TestResolve(t *testing.T) {
	d := newLogDaemon(t)
	j := &LogJournal{Socket: d.socket}
	defer j.Close()
	g, _, k := newGate(t, allowAll)
	g.Journal = j
	// A process that has ended stands for one that was killed.
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	intent := func(id string) {
		t.Helper()
		if err := j.Record(t.Context(), eventLine(event{Time: time.Now(), Source: "opdbus", Type: EventIntent, Subject: "a.b", Message: "call c.d.M of a.b /",
			Data: map[string]any{"id": id, "process": process{PID: cmd.Process.Pid, Started: "1", Boot: "x"}}})); err != nil {
			t.Fatal(err)
		}
	}
	open := func(want ...string) {
		t.Helper()
		list, err := Unresolved(t.Context(), os.DirFS(d.dir), time.Time{}, time.Now())
		var have []string
		for _, o := range list {
			have = append(have, o.ID)
		}
		if err != nil || strings.Join(have, " ") != strings.Join(want, " ") {
			t.Errorf("unresolved %v, %v, want %v", have, err, want)
		}
	}
	const one, two = "0000000000000001", "0000000000000002"
	intent(one)
	intent(two)
	open(one, two)
	log := os.DirFS(d.dir)
	resolve := func(p Principal, id, found string) error {
		_, err := g.Resolve(t.Context(), p, "system", log, id, found, "looked\x1b")
		return err
	}
	for what, err := range map[string]error{
		"an agent": resolve(Principal{Entrance: EntranceMCP, Client: "t"}, one, FoundDone), "nonsense": resolve(alice, one, "maybe"), "unknown": resolve(alice, "0000000000000009", FoundDone),
	} {
		var r *ResolveError
		if !errors.As(err, &r) {
			t.Errorf("%s: %v", what, err)
		}
	}
	k.err = &NotAuthorizedError{Action: PolkitApprove}
	if err := resolve(alice, one, FoundDone); !errors.Is(err, k.err) {
		t.Errorf("against polkit: %v", err)
	}
	k.err = nil
	// Another action's result does not resolve anything.
	if _, err := g.Do(t.Context(), alice, mustCall(t, "a.b", "/", "c.d", "M", ""), Options{}, func(context.Context, string) (json.RawMessage, error) {
		return json.RawMessage(`{"resolved":"` + one + `"}`), nil
	}); err != nil {
		t.Fatal(err)
	}
	open(one, two)
	if err := resolve(alice, one, FoundNotDone); err != nil {
		t.Fatal(err)
	}
	open(two)
	if got := k.asked[len(k.asked)-1]; got != PolkitApprove {
		t.Errorf("polkit was asked about %s", got)
	}
	var r *ResolveError
	if err := resolve(alice, one, FoundDone); !errors.As(err, &r) {
		t.Errorf("a second time: %v", err)
	}
}
