package hoststate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/bus"
)

// A box is a plugin whose state is a map: the names of a hostname part set the
// values of it, one action each.
type box struct {
	name   string
	after  []string
	values map[string]string
	step   func() // where a process may be killed
	fail   string // the action on this object fails, after it was done
	stuck  string // this object can't be taken back
	final  string // what is done to this object has no way back
	lost   string // what is set of this object is forgotten at once
}

func (b *box) About() About                                 { return About{Name: b.name, After: b.after} }
func (b *box) Available(context.Context) string             { return "" }
func (b *box) Read(context.Context, *Document) (any, error) { return b.values, nil }

func (b *box) Plan(_ context.Context, d *Document, p *Plan) error {
	if d.Plugins.Hostname == nil {
		return nil
	}
	for _, n := range hostnames {
		w := *n.of(d.Plugins.Hostname)
		if w == nil || b.values[n.key] == *w {
			continue
		}
		p.differs(b.name, n.key, b.values[n.key], *w)
		undo := operation("x.y", "/", "x.y", "Set", "ss", n.key, b.values[n.key])
		a := Action{Plugin: b.name, Object: n.key, Verb: "set", Before: mustJSON(b.values[n.key]), After: mustJSON(*w),
			Do: operation("x.y", "/", "x.y", "Set", "ss", n.key, *w), Undo: &undo}
		if n.key == b.final {
			a.Undo, a.Irreversible = nil, "it is final"
		}
		p.Actions = append(p.Actions, a)
	}
	p.Basis[b.name] = mustJSON(b.values)
	return nil
}

func (b *box) set(op Operation) func(context.Context, Send) (json.RawMessage, error) {
	return func(context.Context, Send) (json.RawMessage, error) {
		var args []string
		if err := json.Unmarshal(op.Args, &args); err != nil {
			return nil, err
		}
		b.step()
		if args[0] != b.lost {
			b.values[args[0]] = args[1]
		}
		b.step()
		if args[0] == b.fail {
			return nil, errors.New("it fails")
		}
		return nil, nil
	}
}

func (b *box) Do(ctx context.Context, g Gate, a *Action, _ DoOptions) (json.RawMessage, error) {
	return nil, g.Do(ctx, a.Do, b.set(a.Do))
}

func (b *box) Undo(ctx context.Context, g Gate, a *Action, _ json.RawMessage) error {
	if a.Object == b.stuck {
		return errors.New("it is stuck")
	}
	was := b.fail
	b.fail = ""
	defer func() { b.fail = was }()
	return g.Undo(ctx, *a.Undo, b.set(*a.Undo))
}

// An open gate lets everything through, or denies one object.
type open struct{ deny string }

func (o open) Do(ctx context.Context, op Operation, act func(context.Context, Send) (json.RawMessage, error)) error {
	if o.deny != "" && strings.Contains(string(op.Args), `["`+o.deny) {
		return errors.New("denied")
	}
	return o.Undo(ctx, op, act)
}

func (open) Undo(ctx context.Context, _ Operation, act func(context.Context, Send) (json.RawMessage, error)) error {
	_, err := act(ctx, func(context.Context) (bus.Body, error) { return bus.Body{}, errors.New("no bus") })
	return err
}

func newBox(t *testing.T) (*Engine, *box) {
	b := &box{name: "box", values: map[string]string{"static": "a", "pretty": "b"}, step: func() {}}
	// Thousands of times something is made durable: in memory, where there is a place.
	dir, err := os.MkdirTemp("/dev/shm", "gb-state-")
	if err != nil {
		dir = t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return &Engine{Plugins: []Plugin{b}, Store: &Store{Dir: dir}}, b
}

func document(t *testing.T, text string) *Document {
	t.Helper()
	d, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

const three = `{"version":1,"plugins":{"hostname":{"static":"x","pretty":"y","location":"z"}}}`

type killed struct{}

// again is what a daemon does that starts after another was killed.
func again(t *testing.T, e *Engine) {
	t.Helper()
	c, left, err := e.Due()
	if err != nil {
		t.Fatal(err)
	}
	switch {
	case c == nil && left > 0, c == nil:
	case c.Result == ResultCommitting:
		_, err = e.Finish(t.Context())
	default:
		_, err = e.Rollback(t.Context(), open{}, c.ID, "killed")
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Wherever a process is killed, in an apply, a confirmation or a way back, and
// wherever the next one is killed that takes it back, the host comes to what it
// was or to what it should be, and never stays between.
func TestKilledAnywhere(t *testing.T) {
	before := map[string]string{"static": "a", "pretty": "b"}
	wanted := map[string]string{"static": "x", "pretty": "y", "location": "z"}
	same := func(a, b map[string]string) bool {
		a = maps.Clone(a)
		maps.DeleteFunc(a, func(_, v string) bool { return v == "" })
		return maps.Equal(a, b)
	}
	for name, session := range map[string]func(t *testing.T, e *Engine, d *Document){
		"apply": func(t *testing.T, e *Engine, d *Document) {
			e.Apply(t.Context(), open{}, d, ApplyOptions{})
		},
		"apply and confirm": func(t *testing.T, e *Engine, d *Document) {
			e.Apply(t.Context(), open{}, d, ApplyOptions{Confirm: time.Hour})
			e.Confirm(t.Context(), open{}, "")
		},
		"apply and roll back": func(t *testing.T, e *Engine, d *Document) {
			e.Apply(t.Context(), open{}, d, ApplyOptions{})
			e.Rollback(t.Context(), open{}, "", "so")
		},
	} {
		t.Run(name, func(t *testing.T) {
			points := 0
			for first := 1; ; first++ {
				for second := 0; second < 12; second++ {
					e, b := newBox(t)
					left, dead := first, false
					step := func() {
						if left--; left == 0 {
							dead = true
							panic(killed{})
						}
					}
					b.step, e.Store.step = step, step
					life := func(do func()) {
						defer func() {
							if p := recover(); p != nil {
								if _, ok := p.(killed); !ok {
									panic(p)
								}
							}
						}()
						do()
					}
					life(func() { session(t, e, document(t, three)) })
					if !dead {
						if first < 10 {
							t.Fatalf("only %d points", first)
						}
						t.Logf("%d points, %d runs", first-1, points)
						return
					}
					points++
					// The next process has the disk and the host, nothing else.
					e = &Engine{Plugins: e.Plugins, Store: &Store{Dir: e.Store.Dir, step: step}}
					left = second // 0: it lives
					life(func() { again(t, e) })
					b.step, e.Store.step = func() {}, nil
					again(t, e)
					c, err := e.Store.Current()
					if err != nil {
						t.Fatal(err)
					}
					if c != nil && c.Result == ResultPending && same(b.values, wanted) {
						continue // it awaits its confirmation
					}
					f, err := e.Store.InForce()
					if err != nil || c != nil {
						t.Fatalf("killed at %d and %d: current %+v, %v", first, second, c, err)
					}
					if (f == nil || !same(b.values, wanted)) && (f != nil || !same(b.values, before)) {
						t.Fatalf("killed at %d and %d: %v, in force %v", first, second, b.values, f)
					}
				}
			}
		})
	}
}

// The report of an apply that fails says of each action what became of it.
func TestReport(t *testing.T) {
	steps := func(c *Change) string {
		var list []string
		for _, s := range c.Steps {
			list = append(list, s.State)
		}
		return strings.Join(list, " ")
	}
	for _, c := range []struct {
		name  string
		tweak func(b *box) Gate
		want  string
		steps string
		left  map[string]string
	}{
		{"an action fails", func(b *box) Gate { b.fail = "pretty"; return open{} }, ResultRolledBack, "undone undone waiting", map[string]string{"static": "a", "pretty": "b"}},
		{"denied in the middle", func(*box) Gate { return open{deny: "location"} }, ResultRolledBack, "undone undone undone", map[string]string{"static": "a", "pretty": "b"}},
		{"it does not stay", func(b *box) Gate { b.lost = "location"; return open{} }, ResultRolledBack, "undone undone undone", map[string]string{"static": "a", "pretty": "b"}},
		{"one is stuck", func(b *box) Gate { b.stuck, b.fail = "static", "pretty"; return open{} }, ResultFailed, "undo-failed undone waiting", map[string]string{"static": "x", "pretty": "b"}},
		{"one is final", func(b *box) Gate { b.final, b.fail = "static", "pretty"; return open{} }, ResultFailed, "stays undone waiting", map[string]string{"static": "x", "pretty": "b"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, b := newBox(t)
			settleTime = 10 * time.Millisecond
			defer func() { settleTime = 10 * time.Second }()
			ch, err := e.Apply(t.Context(), c.tweak(b), document(t, three), ApplyOptions{})
			var back *RolledBackError
			if !errors.As(err, &back) || ch == nil || ch.Result != c.want || steps(ch) != c.steps {
				t.Fatalf("%v: %+v", err, ch)
			}
			maps.DeleteFunc(b.values, func(_, v string) bool { return v == "" })
			if !maps.Equal(b.values, c.left) {
				t.Errorf("left: %v, want %v", b.values, c.left)
			}
			if _, err := e.Store.Get(ch.ID); err != nil {
				t.Error(err)
			}
			// What was stuck can be taken back later; what has no way back can't.
			b.stuck = ""
			_, err = e.Rollback(t.Context(), open{}, "", "again")
			if (err == nil) != (c.name == "one is stuck") {
				t.Errorf("again: %v", err)
			}
			if err == nil && b.values["static"] != "a" {
				t.Errorf("again: %v", b.values)
			}
		})
	}
}

func TestOrderAndNames(t *testing.T) {
	mk := func(name string, after ...string) Plugin { return &box{name: name, after: after} }
	e := &Engine{Plugins: []Plugin{mk("c", "b", "gone"), mk("a"), mk("b", "a", "c")}}
	var got []string
	for _, p := range e.order() {
		got = append(got, p.About().Name)
	}
	if !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Error(got)
	}
	if _, err := e.Read(t.Context(), []string{"bb"}); err == nil || !strings.Contains(fmt.Sprint(err), "no plugin") {
		t.Error(err)
	}
	b, store := &box{name: "box", values: map[string]string{}, step: func() {}}, &Store{Dir: t.TempDir()}
	e = &Engine{Plugins: []Plugin{b}, Store: store}
	var last string
	for i := range 60 {
		c, err := e.Apply(t.Context(), open{}, document(t, fmt.Sprintf(`{"version":1,"plugins":{"hostname":{"static":"h%d"}}}`, i)), ApplyOptions{})
		if err != nil || c.ID <= last {
			t.Fatal(c, err)
		}
		last = c.ID
	}
	list, err := store.Changes()
	if err != nil || len(list) != keptChanges || list[0].ID != last {
		t.Errorf("%d changes, %v", len(list), err)
	}
	for _, id := range []string{"../x", "", "0", "a\x00"} {
		if _, err := store.Get(id); err == nil {
			t.Errorf("%q is there", id)
		}
	}
	if _, err := e.Target(list[3].ID); err == nil || !strings.Contains(err.Error(), "only the latest") {
		t.Error(err)
	}
}
