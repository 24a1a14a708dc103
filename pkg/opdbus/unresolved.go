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

	"github.com/ghostbridge/ghostbridge/pkg/chain"
	logevent "github.com/ghostbridge/ghostbridge/pkg/event"
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

// Unresolved returns the intents since a time that have no outcome, oldest
// first. Those that may still be under way are not among them: their process
// runs, and their deadline, or DefaultPatience without one, is not over.
func Unresolved(ctx context.Context, log fs.FS, since, now time.Time) ([]OpenIntent, error) {
	open := map[string]OpenIntent{}
	_, err := chain.Query(ctx, log, chain.QueryOptions{Filter: chain.Filter{Since: since, Sources: []string{"opdbus"}, Types: []string{EventIntent, EventOutcome}}},
		func(e *logevent.Event, _ []byte) error {
			var d struct {
				ID       string    `json:"id"`
				Deadline time.Time `json:"deadline"`
				Process  process   `json:"process"`
				Parent   string    `json:"parent"`
			}
			if json.Unmarshal(e.Data, &d) != nil || d.ID == "" {
				return nil
			}
			if e.Type == EventOutcome {
				delete(open, d.ID)
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
