package opdbus

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/bus"
	"github.com/ghostbridge/ghostbridge/pkg/dbusjson"
)

// A trace is a journal that keeps, with what act does, the order of things. It
// stands in for a log that fails at a chosen time, which a real one can't.
type trace struct {
	mu    sync.Mutex
	steps []string
	lines [][]byte
	err   error
}

func (j *trace) step(s string) { j.mu.Lock(); j.steps = append(j.steps, s); j.mu.Unlock() }

func (j *trace) Record(_ context.Context, lines ...[]byte) error {
	if j.err != nil {
		return j.err
	}
	for _, l := range lines {
		var e struct{ Type string }
		if err := json.Unmarshal(l, &e); err != nil {
			return err
		}
		j.step(strings.TrimPrefix(e.Type, "opdbus."))
		j.lines = append(j.lines, bytes.Clone(l))
	}
	return nil
}
func (j *trace) Close() error { return nil }

type authority struct {
	err   error
	asked []string
}

func (a *authority) Authorize(_ context.Context, _ Principal, action string, _ map[string]string) error {
	a.asked = append(a.asked, action)
	return a.err
}

func newGate(t *testing.T, policy string) (*Gate, *trace, *authority) {
	j, k := &trace{}, &authority{}
	g := &Gate{Journal: j, Polkit: k, Approvals: &Approvals{Dir: filepath.Join(t.TempDir(), "a")}, Spool: &Spool{Dir: filepath.Join(t.TempDir(), "s")}}
	g.SetPolicy(mustPolicy(t, policy))
	return g, j, k
}

const allowAll = `{"version":1,"rules":[{"id":"all","clients":["cli","dbus","mcp:*","web:*"],"effect":"allow"}]}`

func TestIntentActOutcome(t *testing.T) {
	a := mustCall(t, "a.b", "/", "c.d", "M", "s", "x")
	for _, fails := range []error{nil, errors.New("no")} {
		g, j, k := newGate(t, allowAll)
		_, err := g.Do(t.Context(), alice, a, Options{}, func(context.Context, string) (json.RawMessage, error) { j.step("act"); return nil, fails })
		if !errors.Is(err, fails) || !slices.Equal(j.steps, []string{"intent", "act", "outcome"}) {
			t.Errorf("%v, %v", j.steps, err)
		}
		if !slices.Equal(k.asked, []string{PolkitCall}) {
			t.Errorf("polkit was asked about %v", k.asked)
		}
		var out struct {
			Data struct {
				ID string
				OK bool
			}
		}
		if err := json.Unmarshal(j.lines[1], &out); err != nil || out.Data.OK != (fails == nil) || !bytes.Contains(j.lines[0], []byte(out.Data.ID)) {
			t.Errorf("%s %s, %v", j.lines[0], j.lines[1], err)
		}
	}
}

// What is not recorded is not done, but for going back.
func TestNoLogNoDeed(t *testing.T) {
	a := mustCall(t, "a.b", "/", "c.d", "M", "")
	full := errors.New("disk full")
	for _, journal := range []Journal{&trace{err: full}, nil} {
		g, _, _ := newGate(t, allowAll)
		g.Journal = journal
		done := false
		act := func(context.Context, string) (json.RawMessage, error) { done = true; return nil, nil }
		var record *RecordError
		if _, err := g.Do(t.Context(), root, a, Options{}, act); !errors.As(err, &record) || done {
			t.Fatalf("%v, done %v", err, done)
		}
		if _, err := g.Do(t.Context(), root, a, Options{Restoring: true}, act); err != nil || !done {
			t.Fatalf("%v, done %v", err, done)
		}
		// Its events wait, and come when the log does.
		later := &trace{}
		if n, err := g.Spool.Flush(t.Context(), later); err != nil || n != 2 || !slices.Equal(later.steps, []string{"intent", "outcome"}) {
			t.Fatalf("%d, %v, %v", n, err, later.steps)
		}
		for _, l := range later.lines {
			if !bytes.Contains(l, []byte(`"spooled":true`)) {
				t.Errorf("%s", l)
			}
		}
		if n, err := g.Spool.Flush(t.Context(), later); err != nil || n != 0 {
			t.Errorf("%d, %v", n, err)
		}
	}
}

// failsAfter is a log that takes n records.
type failsAfter struct {
	trace
	n int
}

func (j *failsAfter) Record(ctx context.Context, lines ...[]byte) error {
	if j.n--; j.n < 0 {
		return errors.New("gone")
	}
	return j.trace.Record(ctx, lines...)
}

// An outcome that the log does not take waits in the spool, and the caller
// learns of it.
func TestOutcomeIsNotLost(t *testing.T) {
	g, _, _ := newGate(t, allowAll)
	g.Journal = &failsAfter{n: 1}
	_, err := g.Do(t.Context(), root, mustCall(t, "a.b", "/", "c.d", "M", ""), Options{}, func(context.Context, string) (json.RawMessage, error) { return nil, nil })
	if err == nil || !strings.Contains(err.Error(), "it was done") {
		t.Errorf("%v", err)
	}
	later := &trace{}
	if n, err := g.Spool.Flush(t.Context(), later); err != nil || n != 1 || !slices.Equal(later.steps, []string{"outcome"}) {
		t.Errorf("%d, %v, %v", n, err, later.steps)
	}
}

// Half a line that a kill left in the spool costs that line only.
func TestTornSpool(t *testing.T) {
	s := &Spool{Dir: t.TempDir()}
	line := func(m string) []byte {
		return eventLine(event{Time: time.Now(), Source: "opdbus", Type: EventIntent, Message: m})
	}
	if err := s.Add(line("one")); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(s.Dir, spoolFile)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append(data, data[:20]...), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Add(line("two")); err != nil {
		t.Fatal(err)
	}
	j := &trace{}
	if n, err := s.Flush(t.Context(), j); err != nil || n != 2 {
		t.Errorf("%d, %v", n, err)
	}
}

func TestRefusals(t *testing.T) {
	a := mustCall(t, "a.b", "/", "c.d", "M", "")
	act := func(context.Context, string) (json.RawMessage, error) { t.Error("it was done"); return nil, nil }
	g, j, k := newGate(t, allowAll)
	k.err = &NotAuthorizedError{Action: PolkitCall}
	if _, err := g.Do(t.Context(), alice, a, Options{}, act); err == nil {
		t.Error("done against polkit")
	}
	g.Polkit = nil
	if _, err := g.Do(t.Context(), alice, a, Options{}, act); err == nil {
		t.Error("done without polkit")
	}
	g.Polkit = NoAuthority{errors.New("gone")}
	if _, err := g.Do(t.Context(), root, a, Options{}, act); err == nil {
		t.Error("done without polkit")
	}
	g.SetPolicy(mustPolicy(t, `{"version":1}`))
	if _, err := g.Do(t.Context(), root, a, Options{}, act); err == nil {
		t.Error("done without a rule")
	}
	if !slices.Equal(j.steps, []string{"refused", "refused", "refused", "refused"}) {
		t.Errorf("%v", j.steps)
	}
}

// A flood of one principal is refused, costs the log one event, and nobody
// else anything.
func TestRateLimit(t *testing.T) {
	g, j, _ := newGate(t, `{"version":1,"per_minute":10,"rules":[{"id":"all","clients":["cli","mcp"],"effect":"allow"}]}`)
	a := mustCall(t, "a.b", "/", "c.d", "M", "")
	done := map[string]int{}
	do := func(p Principal) error {
		_, err := g.Do(t.Context(), p, a, Options{}, func(context.Context, string) (json.RawMessage, error) { done[p.Client]++; return nil, nil })
		return err
	}
	var denied *DeniedError
	for i := range 100 {
		if err := do(agent); i >= 15 && (!errors.As(err, &denied) || denied.Wait <= 0 || denied.ExitCode() != 75) {
			t.Fatalf("%d: %v", i, err)
		}
	}
	if err := do(root); err != nil {
		t.Error(err)
	}
	if done["claude"] < 10 || done["claude"] > 12 || done[""] != 1 {
		t.Errorf("%v were done", done)
	}
	refused := 0
	for _, s := range j.steps {
		if s == "refused" {
			refused++
		}
	}
	if refused != 1 {
		t.Errorf("%d refusals recorded", refused)
	}
}

// An approval is used by the very next attempt of the one who asked.
func TestApproveThenDo(t *testing.T) {
	g, j, _ := newGate(t, `{"version":1,"rules":[{"id":"a","clients":["mcp"],"effect":"approve"}]}`)
	a := mustCall(t, "a.b", "/", "c.d", "M", "")
	done := 0
	do := func() error {
		_, err := g.Do(t.Context(), agent, a, Options{}, func(context.Context, string) (json.RawMessage, error) { done++; return nil, nil })
		return err
	}
	var denied *DeniedError
	if err := do(); !errors.As(err, &denied) || denied.Approval == nil {
		t.Fatal(err)
	}
	if _, err := g.Answer(t.Context(), agent, bus.System, denied.Approval.ID, true); err == nil {
		t.Error("an agent approved")
	}
	if _, err := g.Answer(t.Context(), root, bus.System, denied.Approval.ID, true); err != nil {
		t.Fatal(err)
	}
	if err := do(); err != nil {
		t.Error(err)
	}
	if err := do(); err == nil || done != 1 {
		t.Errorf("done %d times, %v", done, err)
	}
	if want := []string{"refused", "intent", "outcome", "intent", "outcome", "refused"}; !slices.Equal(j.steps, want) {
		t.Errorf("%v, want %v", j.steps, want)
	}
}

// Secrets are in no event: by key of a dict, at any depth, by property, and in
// what was answered.
func TestNoSecretsInEvents(t *testing.T) {
	a, err := ParseAction(bus.System, "a.b", "/", "c.d", "Connect", "a{sa{sv}}", `[{"wifi":{"psk":{"t":"s","v":"hunter2"},"ssid":{"t":"s","v":"home"},"wep-key0":{"t":"ay","v":{"b64":"aHVudGVyMg=="}}}}]`)
	if err != nil {
		t.Fatal(err)
	}
	set, err := ParseAction(bus.System, "a.b", "/", "org.freedesktop.DBus.Properties", "Set", "ssv", `["c.d","AdminPassword",{"t":"s","v":"hunter2"}]`)
	if err != nil {
		t.Fatal(err)
	}
	g, j, _ := newGate(t, allowAll)
	for _, action := range []Action{a, set} {
		if _, err := g.Do(t.Context(), root, action, Options{}, func(context.Context, string) (json.RawMessage, error) { return nil, nil }); err != nil {
			t.Fatal(err)
		}
	}
	all := bytes.Join(j.lines, nil)
	if bytes.Contains(all, []byte("hunter2")) || bytes.Contains(all, []byte("aHVudGVy")) || !bytes.Contains(all, []byte("home")) {
		t.Errorf("%s", all)
	}
}

func TestLongAndHostileTexts(t *testing.T) {
	types, err := dbusjson.ParseSignature("sas")
	if err != nil {
		t.Fatal(err)
	}
	many := make([]any, 5000)
	for i := range many {
		many[i] = "0123456789"
	}
	lines := SignalEvents(bus.System, bus.Signal{Time: time.Now(), Sender: ":1.1", Path: "/a", Interface: "b.c", Member: "D", Dropped: 3,
		Body: bus.Body{Types: types, Values: []any{"\x1b[31m\u202e" + strings.Repeat("x", 100_000), many}}})
	if len(lines) != 2 {
		t.Fatalf("%d lines", len(lines))
	}
	for _, l := range lines {
		if len(l) > 60_000 || bytes.ContainsAny(l, "\x1b\u202e") || !json.Valid(l) {
			t.Errorf("%d bytes: %.300s", len(l), l)
		}
	}
	if got := Clean("a\x00b\x1b[0mc\u202ed\ne"); got != "ab[0mcd e" {
		t.Errorf("%q", got)
	}
}

// What Call sends is what was authorised: the call that it is given encodes to
// the same bytes as one that is made of the action's JSON, which events and
// approvals have.
func TestCallIsAction(t *testing.T) {
	for sig, args := range map[string]string{
		"":        `[]`,
		"s":       `["a\"\\\u00e9\u2028\n"]`,
		"ybnqiux": `[1,true,-2,3,-4,5,"-6"]`,
		"td":      `["18446744073709551615","NaN:7ff8000000000001"]`,
		"ddd":     `[-0.0,"-Infinity",1e-300]`,
		"aysas":   `[{"b64":"AAH/"},"x",[]]`,
		"a{sv}":   `[{"z":{"t":"u","v":1},"a":{"t":"a{tas}","v":[["1",["x"]],["1",[]]]}}]`,
		"a{si}":   `[[["k",1],["k",2]]]`,
		"(og)v":   `[["/a","a(ii)"],{"t":"v","v":"deep"}]`,
	} {
		types, err := dbusjson.ParseSignature(sig)
		if err != nil {
			t.Fatal(err)
		}
		values, err := dbusjson.UnmarshalArgs([]byte(args), types)
		if err != nil {
			t.Fatalf("%s: %v", sig, err)
		}
		calls := []bus.Call{{Name: "a.b", Path: "/p", Interface: "c.d", Member: "M", Args: bus.Body{Types: types, Values: values}}}
		if len(types) == 1 {
			calls = append(calls, bus.Call{Name: "a.b", Path: "/p", Interface: "org.freedesktop.DBus.Properties", Member: "Set",
				Args: bus.NewBody("ssv", "c.d", "P", dbusjson.Variant{Type: types[0], Value: values[0]})})
		}
		for _, c := range calls {
			a, err := NewCall("system", c)
			if err != nil {
				t.Fatalf("%s: %v", sig, err)
			}
			made, err := a.call("a.b")
			if err != nil {
				t.Fatalf("%s: %v", sig, err)
			}
			given, err := dbusjson.Encode(c.Args.Types, c.Args.Values)
			if err != nil {
				t.Fatal(err)
			}
			authorised, err := dbusjson.Encode(made.Args.Types, made.Args.Values)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(given, authorised) || made.Path != c.Path || made.Interface != c.Interface || made.Member != c.Member || made.Args.Signature() != c.Args.Signature() {
				t.Errorf("%s: %s of %s is sent as %x, authorised was %x", sig, c.Member, a.Args, given, authorised)
			}
		}
	}
}
