package opdbus

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/bus"
	"github.com/ghostbridge/ghostbridge/pkg/chain"
	"github.com/ghostbridge/ghostbridge/pkg/dbusjson"
	"github.com/ghostbridge/ghostbridge/pkg/intake"
	"github.com/ghostbridge/ghostbridge/pkg/names"
)

// A Recorder makes events of what a bus.Watch of everything receives, for a
// log that is on the same host: what the recording itself causes is left out,
// and who sent a signal is told by more than the connection's number.
type Recorder struct {
	bus     string
	conn    *bus.Conn
	owners  map[string]string // well-known names to unique ones
	senders map[string]sender // by unique name
	units   map[string]unitState
}

// A unitState is ActiveState and SubState of a unit of systemd's.
type unitState struct{ active, sub string }

// A sender is who has a connection, as the bus knew it when it first sent
// something.
type sender struct {
	Unique string   `json:"unique"`
	Names  []string `json:"names,omitempty"` // well known
	UID    *uint32  `json:"uid,omitempty"`
	PID    uint32   `json:"pid,omitempty"`
	Unit   string   `json:"unit,omitempty"`
}

const maxSenders = 4096

// NewRecorder makes the recorder of w, which watches the bus of that name.
func NewRecorder(ctx context.Context, busName string, w *bus.Watch) (*Recorder, error) {
	r := &Recorder{bus: busName, conn: w.Conn(), owners: map[string]string{}, senders: map[string]sender{}}
	list, err := r.conn.Names(ctx, false)
	if err != nil {
		return nil, err
	}
	for _, n := range list {
		if n.Owner != "" {
			r.owners[n.Name] = n.Owner
		}
	}
	r.lookAtUnits(ctx)
	return r, nil
}

const systemdName = "org.freedesktop.systemd1"

// lookAtUnits asks for the states of all units, so that the first change of
// each is seen. Where there is no systemd there are none.
func (r *Recorder) lookAtUnits(ctx context.Context) {
	r.units = map[string]unitState{}
	owner := r.owners[systemdName]
	if owner == "" {
		return
	}
	b, err := r.conn.Call(ctx, bus.Call{Name: owner, Path: "/org/freedesktop/systemd1", Interface: systemdManager, Member: "ListUnits", NoAutoStart: true})
	if err != nil || b.Signature() != "a(ssssssouso)" {
		return
	}
	for _, u := range b.Values[0].([]any) {
		f := u.([]any)
		r.units[f[0].(string)] = unitState{f[3].(string), f[4].(string)}
	}
}

// Events returns the event lines of a signal, none if it is routine.
func (r *Recorder) Events(ctx context.Context, s bus.Signal) [][]byte {
	lines := droppedEvent(r.bus, s)
	if s.Dropped > 0 {
		r.lookAtUnits(ctx) // what was missed must not hide what comes
	}
	if r.ownerChanged(s) && strings.HasPrefix(s.Body.Values[0].(string), ":") {
		return lines // connections come and go
	}
	e, ok := r.event(s)
	if !ok {
		return lines
	}
	from := r.sender(ctx, s.Sender)
	e.Data.(map[string]any)["sender"] = from
	switch {
	case len(from.Names) > 0:
		e.Actor = from.Names[0]
	case from.Unit != "":
		e.Actor = from.Unit
	}
	e.Message = strings.Replace(e.Message, " from "+s.Sender, " from "+e.Actor, 1)
	return append(lines, eventLine(e))
}

// event makes the event of a signal, unless that tells of our own work that is
// done each second, or of the log's growth: to record that would make it grow.
// systemd says much of every unit that others depend on: of its units the
// changes of state are recorded, and what became of jobs.
func (r *Recorder) event(s bus.Signal) (e event, ok bool) {
	switch s.Sender {
	case r.owners[systemdName]:
		path, isUnit := strings.CutPrefix(s.Path, "/org/freedesktop/systemd1/unit/")
		switch {
		case isUnit && s.Member == "PropertiesChanged":
			return r.unitEvent(s, intake.UnescapePath(path))
		case strings.HasPrefix(s.Path, "/org/freedesktop/systemd1/job/"), s.Interface == systemdManager && (s.Member == "UnitNew" || s.Member == "JobNew"):
			return e, false
		case s.Interface == systemdManager && s.Member == "UnitRemoved":
			if s.Body.Signature() == "so" {
				delete(r.units, s.Body.Values[0].(string))
			}
			return e, false
		case intake.RoutineSignal(s.Path, s.Member, string(eventArgs(s.Body))):
			return e, false
		}
	case r.owners[names.BusName]:
		if s.Interface == names.BusInterface+".Manager" && s.Member == "EventAppended" {
			return e, false
		}
	}
	return signalEvent(r.bus, s), true
}

// unitEvent makes the event of a unit's properties: of its state, if that is
// another than before.
func (r *Recorder) unitEvent(s bus.Signal, unit string) (e event, ok bool) {
	if s.Err != nil || s.Body.Signature() != "sa{sv}as" {
		return signalEvent(r.bus, s), true
	}
	if s.Body.Values[0] != "org.freedesktop.systemd1.Unit" {
		return e, false
	}
	var now unitState
	for _, p := range s.Body.Values[1].(dbusjson.Dict) {
		switch text, _ := p.Value.(dbusjson.Variant).Value.(string); p.Key {
		case "ActiveState":
			now.active = text
		case "SubState":
			now.sub = text
		}
	}
	if now.active == "" || now == r.units[unit] {
		return e, false
	}
	r.units[unit] = now
	if intake.StartsEverySecond(unit) && now.active != "failed" {
		return e, false
	}
	e = signalEvent(r.bus, s)
	e.Message = fmt.Sprintf("unit %s is %s (%s)", Clean(unit), Clean(now.active), Clean(now.sub))
	e.Data = map[string]any{"bus": r.bus, "path": s.Path, "interface": s.Interface, "member": s.Member, "unit": Clean(unit), "active": Clean(now.active), "sub": Clean(now.sub)}
	if now.active == "failed" {
		e.Severity = "err"
	}
	return e, true
}

// ownerChanged takes the bus's own news of a name, if that is what s is.
func (r *Recorder) ownerChanged(s bus.Signal) bool {
	if s.Sender != "org.freedesktop.DBus" || s.Member != "NameOwnerChanged" || s.Err != nil || s.Body.Signature() != "sss" {
		return false
	}
	name, old, now := s.Body.Values[0].(string), s.Body.Values[1].(string), s.Body.Values[2].(string)
	switch {
	case strings.HasPrefix(name, ":"):
		if now == "" {
			delete(r.senders, old)
		}
	case now == "":
		delete(r.owners, name)
	default:
		r.owners[name] = now
	}
	return true
}

func (r *Recorder) sender(ctx context.Context, unique string) sender {
	s, ok := r.senders[unique]
	if !ok {
		s = sender{Unique: unique}
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		// One that has gone already is known by its number only.
		if cr, err := r.conn.Credentials(ctx, unique); err == nil {
			if cr.HasUID {
				s.UID = &cr.UID
			}
			if s.PID = cr.PID; cr.PID != 0 {
				s.Unit = chain.UnitOf(int(cr.PID))
			}
		}
		if len(r.senders) >= maxSenders {
			clear(r.senders)
		}
		r.senders[unique] = s
	}
	for name, owner := range r.owners {
		if owner == unique {
			s.Names = append(s.Names, name)
		}
	}
	slices.Sort(s.Names)
	return s
}
