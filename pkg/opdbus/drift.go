package opdbus

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/bus"
	"github.com/ghostbridge/ghostbridge/pkg/hoststate"
	"github.com/ghostbridge/ghostbridge/pkg/names"
	"github.com/ghostbridge/ghostbridge/pkg/ovs"
)

// EventDrift is the type of the event that tells that something is no longer
// as the desired state says.
const EventDrift = "opdbus.drift"

// Times of looking for drift: what signals tell is collected for a moment, and
// what no signal tells of is looked at now and then.
const (
	driftDelay = 250 * time.Millisecond
	driftEvery = time.Minute
	driftRetry = 5 * time.Second
)

// A SwitchWatcher tells of changes of a switch; *ovs.Setup is one.
type SwitchWatcher interface {
	// Watch calls the options' functions for each change until ctx ends.
	Watch(ctx context.Context, o ovs.WatchOptions) error
}

// watchDrift compares the host with the document in force whenever a signal
// tells that it may have changed.
func (d *Daemon) watchDrift(ctx context.Context) {
	reported := map[string]bool{}
	for ctx.Err() == nil {
		f, err := d.host.Engine.Store.InForce()
		var doc *hoststate.Document
		if err == nil && f != nil {
			doc, err = hoststate.Parse(f.Document)
		}
		if err != nil {
			d.Logger.Error("the desired state that is in force can't be read", "error", err)
		}
		wait := driftEvery
		if doc != nil {
			if err := d.followDrift(ctx, doc, reported); err != nil && ctx.Err() == nil {
				d.Logger.Warn("drift is not seen at once", "error", err)
				wait = driftRetry
			} else {
				wait = 0
				clear(reported) // what an apply has put back can drift again
			}
		} else {
			clear(reported)
		}
		d.setDrift(len(reported))
		if wait == 0 {
			continue
		}
		select {
		case <-ctx.Done():
		case <-d.server.Done():
			return
		case <-d.settled:
		case <-time.After(wait):
		}
	}
}

// followDrift watches one document, until another may be in force.
func (d *Daemon) followDrift(ctx context.Context, doc *hoststate.Document, reported map[string]bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	look := make(chan struct{}, 1)
	wake := func() {
		select {
		case look <- struct{}{}:
		default:
		}
	}
	ended := make(chan error, 2)
	if matches := doc.Signals(); len(matches) > 0 {
		w, err := bus.NewWatch(ctx, d.Address, 0, matches...)
		if err != nil {
			return err
		}
		defer w.Close()
		// The service manager signals while somebody has subscribed, and has
		// not gone.
		if err := hoststate.Subscribe(ctx, readBus{w.Conn()}); err != nil {
			return err
		}
		go func() {
			for {
				s, err := w.Next(ctx)
				if err != nil {
					ended <- err
					return
				}
				if doc.Concerns(s) || s.Dropped > 0 {
					wake()
				}
			}
		}()
	}
	if doc.HasSwitch() && d.Switch != nil {
		s := d.Switch.Open()
		if w, ok := s.(SwitchWatcher); ok {
			go func() {
				defer s.Close()
				if err := w.Watch(ctx, ovs.WatchOptions{Emit: func(ovs.Event) error { wake(); return nil }}); err != nil {
					ended <- err
				}
			}()
		} else {
			s.Close()
		}
	}
	for {
		if err := d.lookForDrift(ctx, doc, reported); err != nil && ctx.Err() == nil {
			d.Logger.Warn("drift can't be looked for", "error", err)
		}
		d.setDrift(len(reported))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-d.server.Done():
			return bus.ErrClosed
		case err := <-ended:
			if ctx.Err() == nil && !errors.Is(err, context.Canceled) {
				return err
			}
		case <-d.settled:
			return nil
		case <-look:
		case <-time.After(driftEvery):
			continue
		}
		// What one thing did comes as many signals.
		select {
		case <-ctx.Done():
		case <-time.After(driftDelay):
		}
		select {
		case <-look:
		default:
		}
	}
}

// lookForDrift tells of differences that were not reported, and forgets those
// that are gone. While a change is under way there is nothing to tell.
func (d *Daemon) lookForDrift(ctx context.Context, doc *hoststate.Document, reported map[string]bool) error {
	steps := d.steps.Load()
	if _, err := os.Stat(d.host.Engine.Store.CurrentFile()); err == nil {
		return nil
	}
	f, err := d.host.Engine.Store.InForce()
	if err != nil || f == nil || string(f.Document) != string(doc.Bytes()) {
		return err // another one is, or none
	}
	ctx, cancel := context.WithTimeout(ctx, defaultPatience)
	defer cancel()
	p, err := d.host.Engine.Plan(ctx, doc)
	if err != nil {
		return err
	}
	// Nor for what a change has done while it was looked at, be it over or not.
	if _, err := os.Stat(d.host.Engine.Store.CurrentFile()); err == nil || steps != d.steps.Load() {
		return nil
	}
	d.setDrift(len(p.Differences)) // who hears the signal may ask for it
	now := map[string]bool{}
	for _, x := range p.Differences {
		key := x.Plugin + "\x00" + x.Path + "\x00" + string(x.Have)
		now[key] = true
		if reported[key] {
			continue
		}
		reported[key] = true
		path, have, want := Clean(x.Path), short(string(x.Have)), short(string(x.Want))
		d.emit("Manager", "DriftDetected", bus.NewBody("ssss", x.Plugin, path, have, want))
		if d.Gate.Journal == nil {
			continue
		}
		line := eventLine(event{Time: time.Now(), Source: "opdbus", Type: EventDrift, Subject: names.BusName, Severity: "warning", Actor: "self",
			Message: x.Plugin + " " + path + " is not as it should be", Data: map[string]any{"plugin": x.Plugin, "path": path, "have": have, "want": want}})
		if err := d.Gate.Journal.Record(ctx, line); err != nil {
			d.Logger.Warn("a drift is not recorded", "plugin", x.Plugin, "path", path, "error", err)
		}
	}
	for key := range reported {
		if !now[key] {
			delete(reported, key)
		}
	}
	return nil
}

// setDrift remembers how many differences there are, for GetStatus.
func (d *Daemon) setDrift(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.drift = n
}
