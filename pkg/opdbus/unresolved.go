package opdbus

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/bus"
	"github.com/ghostbridge/ghostbridge/pkg/chain"
	logevent "github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/names"
)

// An OpenIntent is an intent in the log that has no outcome: whether it was
// done is unknown.
type OpenIntent struct {
	Index   int64     `json:"index"` // in the log
	ID      string    `json:"id"`
	Time    time.Time `json:"time"`
	Message string    `json:"message"`
	Actor   string    `json:"actor"`
	Parent  string    `json:"parent,omitempty"` // id of the intent that it is a part of
}

// A process is one that makes a change, by what tells it from a later one with
// its number.
type process struct {
	PID     int    `json:"pid"`
	Started string `json:"started"` // clock ticks after boot (proc_pid_stat(5), field 22)
	Boot    string `json:"boot"`    // /proc/sys/kernel/random/boot_id
}

func lookAtProcess(pid int) process {
	p := process{PID: pid}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return p
	}
	// The command's name, in parentheses, may have spaces.
	if f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])); len(f) > 19 {
		p.Started = f[19]
	}
	if boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id"); err == nil {
		p.Boot = strings.TrimSpace(string(boot))
	}
	return p
}

var thisProcess = sync.OnceValue(func() process { return lookAtProcess(os.Getpid()) })

// gone says whether the process has ended.
func (p process) gone() bool { return p.PID > 0 && lookAtProcess(p.PID) != p }

// Unresolved returns the intents since a time that have no outcome, and that
// nobody has resolved, oldest first. Those that may still be under way are not
// among them: their process runs, and their deadline, or DefaultPatience
// without one, is not over.
func Unresolved(ctx context.Context, log fs.FS, since, now time.Time) ([]OpenIntent, error) {
	open := map[string]OpenIntent{}
	_, err := chain.Query(ctx, log, chain.QueryOptions{Filter: chain.Filter{Since: since, Sources: []string{"opdbus", "mcp"}, Types: []string{EventIntent, EventOutcome}}},
		func(e *logevent.Event, _ []byte) error {
			var d struct {
				ID       string          `json:"id"`
				OK       bool            `json:"ok"`
				Result   json.RawMessage `json:"result"`
				Deadline time.Time       `json:"deadline"`
				Process  process         `json:"process"`
				Parent   string          `json:"parent"`
			}
			if json.Unmarshal(e.Data, &d) != nil || d.ID == "" {
				return nil
			}
			if e.Type == EventOutcome {
				delete(open, d.ID)
				var r resolution
				if d.OK && e.Subject == names.BusName && json.Unmarshal(d.Result, &r) == nil && r.Resolved != "" {
					delete(open, r.Resolved)
				}
				return nil
			}
			if d.Deadline.IsZero() {
				d.Deadline = e.Time.Add(DefaultPatience)
			}
			if now.After(d.Deadline) || d.Process.gone() {
				open[d.ID] = OpenIntent{e.Index, d.ID, e.Time, Clean(e.Message), Clean(e.Actor), d.Parent}
			}
			return nil
		})
	list := make([]OpenIntent, 0, len(open))
	for _, o := range open {
		list = append(list, o)
	}
	slices.SortFunc(list, func(a, b OpenIntent) int { return int(a.Index - b.Index) })
	return list, err
}

// DefaultPatience is how long an intent without a deadline may be under way.
const DefaultPatience = time.Minute

// What a person has found out about an intent without outcome.
const (
	FoundDone    = "done"
	FoundNotDone = "not-done"
	FoundUnknown = "unknown" // it can't be found out any more
)

// Found lists them.
func Found() []string { return []string{FoundDone, FoundNotDone, FoundUnknown} }

// A resolution is the result of an outcome that resolves another action's
// intent.
type resolution struct {
	Resolved string `json:"resolved"` // id of the intent
	Found    string `json:"found"`
	Note     string `json:"note,omitempty"`
}

// A ResolveError says why an intent can't be resolved.
type ResolveError struct{ ID, Reason string }

func (e *ResolveError) Error() string { return fmt.Sprintf("intent %s: %s", e.ID, e.Reason) }

// Hint says what a person can do.
func (e *ResolveError) Hint() string { return "opdbus intents list has those without outcome" }

// Resolve records what a person has found out about an intent without outcome:
// from then on it counts as resolved. polkit must know the person, as for an
// approval; an agent can't.
func (g *Gate) Resolve(ctx context.Context, p Principal, busName string, log fs.FS, id, found, note string) (OpenIntent, error) {
	if p.Entrance == EntranceMCP {
		return OpenIntent{}, &ResolveError{id, "only a person can resolve it"}
	}
	if !slices.Contains(Found(), found) {
		return OpenIntent{}, &ResolveError{id, fmt.Sprintf("found %q: want %s", found, strings.Join(Found(), ", "))}
	}
	now := time.Now()
	list, err := Unresolved(ctx, log, time.Time{}, now)
	if err != nil {
		return OpenIntent{}, err
	}
	i := slices.IndexFunc(list, func(o OpenIntent) bool { return o.ID == id })
	if i < 0 {
		return OpenIntent{}, &ResolveError{id, "there is none of that name without outcome"}
	}
	a := ownAction(busName, names.BusObject, "Approvals", "Resolve", bus.NewBody("sss", id, found, Clean(note)))
	_, err = g.Do(ctx, p, a, Options{}, func(context.Context, string) (json.RawMessage, error) {
		return json.Marshal(resolution{id, found, Clean(note)})
	})
	return list[i], err
}
