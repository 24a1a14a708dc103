package opdbus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ghostbridge/ghostbridge/pkg/bus"
	"github.com/ghostbridge/ghostbridge/pkg/hoststate"
	"github.com/ghostbridge/ghostbridge/pkg/names"
)

func acted(j *trace) func(context.Context, string) (json.RawMessage, error) {
	return func(context.Context, string) (json.RawMessage, error) { j.step("act"); return nil, nil }
}

// The parts of a whole: what is denied denies it, what needs a person makes it
// wait for one, once, and polkit is asked about what a part's rule names. Going
// back asks nobody.
func TestParts(t *testing.T) {
	const policy = `{"version":1,"rules":[
		{"id":"apply","name":"org.freedesktop.opdbus","members":["Apply"],"effect":"allow"},
		{"id":"green","name":"x.y","members":["Green"],"effect":"allow"},
		{"id":"asked","name":"x.y","members":["Asked"],"effect":"allow","polkit":"x.y.special"},
		{"id":"person","name":"x.y","members":["Person"],"effect":"approve","four_eyes":true},
		{"id":"dry","name":"x.y","members":["Dry"],"effect":"dry-run"}]}`
	whole := ownAction("system", names.BusObject, "Manager", "Apply", bus.NewBody("s", "plan"))
	part := func(member string) Action {
		return Action{Kind: KindCall, Bus: "system", Name: "x.y", Path: "/", Interface: "x.y", Member: member, Args: json.RawMessage("[]")}
	}
	p := Principal{Entrance: EntranceDBus, UID: 7, Subject: ":1.7"}
	for _, c := range []struct {
		parts []Action
		err   string
		asked []string
		steps string
	}{
		{[]Action{part("Green")}, "", []string{PolkitApply}, "intent act outcome"},
		{[]Action{part("Green"), part("Asked"), part("Asked")}, "", []string{PolkitApply, "x.y.special"}, "intent act outcome"},
		{[]Action{part("Green"), part("Red")}, "denied: call x.y.Red of x.y /: no rule allows it", nil, "refused"},
		{[]Action{part("Person"), part("Red")}, "denied: call x.y.Red", nil, "refused"},
		{[]Action{part("Dry")}, "dry run only", nil, "refused"},
		{[]Action{part("Green"), part("Person")}, "needs a person's approval", []string{PolkitApply}, "refused"},
	} {
		g, j, k := newGate(t, policy)
		_, err := g.Do(t.Context(), p, whole, Options{Parts: c.parts}, acted(j))
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%v: %v, want %q", c.parts, err, c.err)
		}
		if got := strings.Join(j.steps, " "); got != c.steps || !slices.Equal(k.asked, c.asked) {
			t.Errorf("%v: %s, polkit asked %q; want %s, %q", c.parts, got, k.asked, c.steps, c.asked)
		}
		if err == nil || !strings.Contains(err.Error(), "approval") {
			continue
		}
		// The approval is for the whole, and the part's rule wants other eyes.
		list, err := g.Approvals.List()
		if err != nil || len(list) != 1 || list[0].Hash != whole.Hash() || !list[0].FourEyes {
			t.Fatalf("%+v, %v", list, err)
		}
		if _, err := g.Approvals.Answer(list[0].ID, Principal{Entrance: EntranceCLI, UID: 8}, true); err != nil {
			t.Fatal(err)
		}
		other := ownAction("system", names.BusObject, "Manager", "Apply", bus.NewBody("s", "another plan"))
		var denied *DeniedError
		if _, err := g.Do(t.Context(), p, other, Options{Parts: c.parts}, acted(j)); !errors.As(err, &denied) {
			t.Errorf("another plan with the approval of this one: %v", err)
		}
		if _, err := g.Do(t.Context(), p, whole, Options{Parts: c.parts}, acted(j)); err != nil {
			t.Error(err)
		}
		if _, err := g.Do(t.Context(), p, whole, Options{Parts: c.parts}, acted(j)); !errors.As(err, &denied) {
			t.Errorf("a second time: %v", err)
		}
	}
	// A part within a whole is asked of the rules, and of nobody else; the way
	// back of nobody at all, and it needs no log.
	g, j, k := newGate(t, policy)
	if _, err := g.Do(t.Context(), p, part("Person"), Options{Parent: "x"}, acted(j)); err != nil || len(k.asked) > 0 {
		t.Errorf("%v, %v", err, k.asked)
	}
	if _, err := g.Do(t.Context(), p, part("Red"), Options{Parent: "x"}, acted(j)); err == nil {
		t.Error("a part that is denied was done")
	}
	j.err = errors.New("the log is away")
	if _, err := g.Do(t.Context(), p, part("Red"), Options{Parent: "x", Restoring: true, undo: true}, acted(&trace{})); err != nil || len(k.asked) > 0 || g.Spool.Size() == 0 {
		t.Errorf("the way back: %v, %v", err, k.asked)
	}
}

// However much an apply does, its events are lines that the log takes.
func TestEventsOfAnApplyAreBounded(t *testing.T) {
	plan, c := &hoststate.Plan{Hash: strings.Repeat("0", 64)}, &hoststate.Change{ID: "000001-abcd"}
	for i := range 3000 {
		a := hoststate.Action{Verb: "start", Object: fmt.Sprintf("%0240d\x1b.service", i)}
		plan.Actions = append(plan.Actions, a)
		c.Steps = append(c.Steps, hoststate.Step{Title: a.Title(), State: hoststate.StepUndoFailed, Error: strings.Repeat("e", 4096), UndoError: strings.Repeat("u", 4096)})
	}
	for what, text := range map[string]json.RawMessage{"intent": shownApply(plan, hoststate.ApplyOptions{}), "outcome": resultOf(c)} {
		if len(text) > 48<<10 || len(text) < 1000 || !json.Valid(text) || strings.Contains(string(text), "\x1b") {
			t.Errorf("%s: %d bytes", what, len(text))
		}
	}
}
