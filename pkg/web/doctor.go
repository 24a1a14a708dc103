package web

import (
	"context"
	"strings"
	"sync"
	"time"
)

// A Finding is one of opdbus doctor's.
type Finding struct {
	Check, State, Evidence, Remedy string
}

// factors are the success factors of the README, in its order, and the checks
// of doctor that stand for each.
var factors = []struct {
	title  string
	checks []string
}{
	{"Network comes up by itself", []string{"networkd"}},
	{"Bridges with hardware offload off", []string{"bridges"}},
	{"A snapshot each second, none left over", []string{"snapshots"}},
	{"Events become searchable", []string{"index"}},
	{"D-Bus is reachable", []string{"bus", "opdbus", "introspection"}},
	{"Every change needs leave and is recorded", []string{"polkit", "policy", "intents", "spool"}},
	{"The log is whole", []string{"log"}},
	{"Subvolumes are mounted as they should be", []string{"mounts"}},
	{"Boots by systemd-boot, SSH keys are Ed25519", []string{"boot loader", "SSH keys"}},
	{"The whole host is declared", []string{"declarative"}},
}

// A doctor runs the checks now and then: some take seconds.
type doctor struct {
	mu   sync.Mutex
	list []Finding
	at   time.Time
}

const doctorEvery = 5 * time.Minute

func (d *doctor) run(ctx context.Context, look func(context.Context) []Finding) {
	for {
		list := look(ctx)
		if ctx.Err() != nil {
			return
		}
		d.mu.Lock()
		d.list, d.at = list, time.Now()
		d.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-time.After(doctorEvery):
		}
	}
}

// denied says whether a check failed for a lack of rights alone.
func denied(evidence string) bool {
	e := strings.ToLower(evidence)
	return strings.Contains(e, "permission denied") || strings.Contains(e, "operation not permitted") || strings.Contains(e, "accessdenied")
}

// view is the success factors with what was found.
func (d *doctor) view() ([]check, *time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.at.IsZero() {
		return []check{}, nil
	}
	found := map[string]Finding{}
	for _, f := range d.list {
		found[f.Check] = f
	}
	out := []check{}
	for _, x := range factors {
		c := check{Name: x.checks[0], Title: x.title, State: isUnknown}
		for _, name := range x.checks {
			f, ok := found[name]
			if !ok {
				continue
			}
			if f.State != "ok" && denied(f.Evidence) {
				c.State, c.Text, c.Remedy = isUnknown, name+": not for the user of gb-web to see", "opdbus doctor, as root"
				break
			}
			if f.State != "ok" {
				c.State, c.Text, c.Remedy = "failed", clean(name+": "+f.Evidence), clean(f.Remedy)
				break
			}
			if c.State == isUnknown {
				c.State, c.Text = isOK, clean(f.Evidence)
			} else {
				c.Text += "; " + clean(f.Evidence)
			}
		}
		c.Text = line(c.Text, 240)
		out = append(out, c)
	}
	at := d.at.UTC()
	return out, &at
}
