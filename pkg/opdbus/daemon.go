package opdbus

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/bus"
	"github.com/ghostbridge/ghostbridge/pkg/chain"
	"github.com/ghostbridge/ghostbridge/pkg/dbusjson"
	"github.com/ghostbridge/ghostbridge/pkg/hoststate"
	"github.com/ghostbridge/ghostbridge/pkg/names"
)

// A Daemon is the choke point on a bus: the name org.freedesktop.opdbus. All
// exported fields are set before Serve.
type Daemon struct {
	Address      string // of the bus
	Gate         *Gate
	LogDir       string
	PolicyFile   string
	SearchSocket string
	StateDir     string // journal of the desired state
	Root         string // of the file system; "" and "/" alike
	Logins       logins // of gb-web: Dir of security keys, User that may speak for logins
	Switch       *hoststate.SwitchHost
	Version      string
	Logger       *slog.Logger
	SnapshotsDir string
	// MCPUser is the user that may speak for agents with tokens; names.MCPUser
	// if empty.
	MCPUser string
	// Ready is called when the name is owned, Alive while the bus answers, every
	// few seconds; both may be nil.
	Ready, Alive func()

	server   *bus.Server
	host     *Host // set with server, before the name is owned
	running  running
	mcpUID   string // of MCPUser, once it was looked up
	watchers atomic.Int32

	mu        sync.Mutex
	policyFor os.FileInfo // the file that the Gate's policy came from
	policyErr error
	state     look
	lookedAt  time.Time
	callers   map[string]knownCaller // by unique name
	planned   plannedDocuments
	last      dbusjson.Dict // LastApply
	drift     int           // differences from the desired state in force
	settled   chan struct{} // a change has ended: another state may be in force
	steps     atomic.Int64  // what changes of the desired state have done
}

// A knownCaller is who a unique name was a moment ago. The bus never gives a
// name to a second connection, so only groups and unit can be out of date.
type knownCaller struct {
	principal Principal
	at        time.Time
}

const (
	callerKept = 2 * time.Second
	maxCallers = 1024
)

// caller returns who calls.
func (d *Daemon) caller(ctx context.Context, in bus.Incoming) (Principal, error) {
	d.mu.Lock()
	known, ok := d.callers[in.Sender]
	d.mu.Unlock()
	if !ok || time.Since(known.at) > callerKept {
		p, err := Caller(ctx, d.server.Conn, in.Sender, false)
		if err != nil {
			return p, err
		}
		known = knownCaller{p, time.Now()}
		d.mu.Lock()
		if d.callers == nil || len(d.callers) >= maxCallers {
			d.callers = map[string]knownCaller{}
		}
		d.callers[in.Sender] = known
		d.mu.Unlock()
	}
	known.principal.Interactive = in.Interactive
	return known.principal, nil
}

// A look is what the daemon sees of the log and its policy.
type look struct {
	size   int64
	root   string
	faults []string
}

func (l look) healthy() bool { return len(l.faults) == 0 }

// Times of the daemon's rounds.
const (
	lookEvery  = time.Second
	aliveEvery = 5 * time.Second
	flushEvery = 10 * time.Second
)

// Serve owns the name and answers calls until ctx ends, which is no error, or
// the bus is lost, which is: systemd is to start it anew.
func (d *Daemon) Serve(ctx context.Context) error {
	d.reload()
	opened := make(chan struct{})
	srv, err := bus.NewServer(ctx, d.Address, func(ctx context.Context, in bus.Incoming) (bus.Body, error) {
		<-opened // who knows our unique name may be quick
		return d.handle(ctx, in)
	})
	if err != nil {
		return err
	}
	defer srv.Close()
	d.mu.Lock()
	d.server = srv
	d.mu.Unlock()
	if d.Gate.Polkit == nil {
		d.Gate.Polkit = &Polkit{Conn: srv.Conn}
	}
	d.openHost()
	close(opened)
	if err := srv.RequestName(ctx, names.BusName); err != nil {
		return err
	}
	keeping := make(chan struct{})
	go func() {
		defer close(keeping)
		var wg sync.WaitGroup
		wg.Go(func() { d.keepState(ctx) })
		wg.Go(func() { d.watchDrift(ctx) })
		wg.Wait()
	}()
	defer func() { srv.Close(); <-keeping }()
	if d.Ready != nil {
		d.Ready()
	}
	d.Logger.Info("serving", "bus", d.Address, "name", names.BusName)
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	last := d.look()
	var alive, flushed time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-srv.Done():
			return fmt.Errorf("bus %s: %w", d.Address, bus.ErrClosed)
		case now := <-tick.C:
			state := d.look()
			if state.size > last.size {
				d.emit("Manager", "EventAppended", bus.NewBody("tt", uint64(last.size), uint64(state.size-1)))
			}
			if state.healthy() != last.healthy() {
				d.Logger.Warn("health has changed", "healthy", state.healthy(), "faults", strings.Join(state.faults, "; "))
				d.emitChanged(names.BusObject, "Manager", "Healthy", variant("b", state.healthy()))
			}
			last = state
			if now.Sub(alive) >= aliveEvery {
				alive = now
				if _, err := srv.Owner(ctx, names.BusName, false); err != nil {
					if ctx.Err() != nil {
						return nil
					}
					return fmt.Errorf("bus %s: %w", d.Address, err)
				}
				if d.Alive != nil {
					d.Alive()
				}
			}
			if now.Sub(flushed) >= flushEvery && d.Gate.Spool != nil && d.Gate.Journal != nil {
				flushed = now
				if n, err := d.Gate.Spool.Flush(ctx, d.Gate.Journal); err != nil {
					d.Logger.Warn("events wait for the log", "error", err)
				} else if n > 0 {
					d.Logger.Info("events that waited are in the log", "events", n)
				}
			}
		}
	}
}

func (d *Daemon) emit(iface, member string, b bus.Body) { d.emitAt(names.BusObject, iface, member, b) }

func (d *Daemon) emitAt(path, iface, member string, b bus.Body) {
	d.mu.Lock()
	srv := d.server
	d.mu.Unlock()
	if srv == nil {
		return
	}
	if err := srv.Emit(path, names.BusInterface+"."+iface, member, b); err != nil {
		d.Logger.Warn("signal", "member", member, "error", err)
	}
}

var changedTypes, _ = dbusjson.ParseSignature("sa{sv}as")

func (d *Daemon) emitChanged(path, iface, property string, v dbusjson.Variant) {
	b := bus.Body{Types: changedTypes, Values: []any{names.BusInterface + "." + iface, dbusjson.Dict{{Key: property, Value: v}}, []any{}}}
	if err := d.server.Emit(path, "org.freedesktop.DBus.Properties", "PropertiesChanged", b); err != nil {
		d.Logger.Warn("signal", "member", "PropertiesChanged", "error", err)
	}
}

// look reads the log's checkpoint and the policy's state, at most twice a
// second.
func (d *Daemon) look() look {
	d.reload()
	d.mu.Lock()
	defer d.mu.Unlock()
	if now := time.Now(); now.Sub(d.lookedAt) >= lookEvery/2 {
		d.lookedAt = now
		d.state = d.lookAtLog()
	}
	s := d.state
	if d.policyErr != nil {
		s.faults = append(slices.Clone(s.faults), d.policyErr.Error())
	}
	return s
}

// lookAtLog is called with d.mu held.
func (d *Daemon) lookAtLog() look {
	s := look{size: d.state.size, root: d.state.root}
	checkpoint, err := chain.LatestCheckpoint(os.DirFS(d.LogDir))
	if err != nil {
		s.faults = append(s.faults, fmt.Sprintf("log %s: %v", d.LogDir, err))
	} else {
		s.size, s.root = checkpoint.Size, checkpoint.Root.String()
	}
	if j, ok := d.Gate.Journal.(*LogJournal); ok {
		if _, err := os.Stat(j.Socket); err != nil {
			s.faults = append(s.faults, fmt.Sprintf("the log's daemon: %v", err))
		}
	}
	return s
}

// reload reads the policy file if it is another than before. One that can't be
// read denies every change.
func (d *Daemon) reload() {
	d.mu.Lock()
	defer d.mu.Unlock()
	info, err := os.Stat(d.PolicyFile)
	if errors.Is(err, fs.ErrNotExist) {
		info, err = nil, nil
	}
	if err == nil && d.policyErr == nil && d.Gate.policy.Load() != nil {
		if info == nil && d.policyFor == nil {
			return
		}
		if info != nil && d.policyFor != nil && os.SameFile(info, d.policyFor) && info.ModTime().Equal(d.policyFor.ModTime()) && info.Size() == d.policyFor.Size() && info.Mode() == d.policyFor.Mode() {
			return
		}
	}
	p, err := LoadPolicy(d.PolicyFile)
	if err != nil {
		if d.policyErr == nil || d.policyErr.Error() != err.Error() {
			d.Logger.Error("every change is denied", "error", err)
		}
		p = &Policy{Version: 1}
	} else if d.policyFor != nil || d.policyErr != nil {
		d.Logger.Info("policy read anew", "file", d.PolicyFile, "rules", len(p.Rules), "revision", p.Revision)
	}
	d.policyFor, d.policyErr = info, err
	d.Gate.SetPolicy(p)
}

func unknown(what, format string, args ...any) *bus.Error {
	return &bus.Error{Name: "org.freedesktop.DBus.Error." + what, Message: fmt.Sprintf(format, args...)}
}

// handle answers a call.
func (d *Daemon) handle(ctx context.Context, in bus.Incoming) (bus.Body, error) {
	node := nodeAt(in.Path)
	if node == nil {
		return bus.Body{}, unknown("UnknownObject", "there is no object %s", in.Path)
	}
	if in.Err != nil {
		return bus.Body{}, unknown("InvalidArgs", "%s: %s", in.Member, Clean(in.Err.Error()))
	}
	switch in.Interface {
	case "org.freedesktop.DBus.Introspectable", "org.freedesktop.DBus.Properties", "org.freedesktop.DBus.ObjectManager":
		return d.standard(in, node)
	}
	f, m, err := findMethod(in)
	if err != nil {
		// A call without an interface may mean a standard one.
		if in.Interface == "" {
			for _, name := range []string{"org.freedesktop.DBus.Introspectable", "org.freedesktop.DBus.Properties", "org.freedesktop.DBus.ObjectManager"} {
				in.Interface = name
				if b, serr := d.standard(in, node); !isUnknownMethod(serr) {
					return b, serr
				}
			}
		}
		return bus.Body{}, err
	}
	if have := in.Args.Signature(); have != m.in {
		return bus.Body{}, unknown("InvalidArgs", "%s takes %q, not %q", in.Member, m.in, have)
	}
	p := Principal{Entrance: EntranceDBus}
	if m.kind != reading || m.Name == "Explain" {
		d.reload()
		if p, err = d.caller(ctx, in); err != nil {
			return bus.Body{}, unknown("AccessDenied", "%v", err)
		}
	}
	if m.kind == agents {
		ctx, cancel := context.WithTimeout(ctx, statePatience+defaultPatience) // what it calls has its own
		defer cancel()
		values, err := m.do(d, ctx, p, in)
		if err != nil {
			return bus.Body{}, err
		}
		return bus.Body{Types: m.out, Values: values}, nil
	}
	return d.dispatch(ctx, p, f, m, in)
}

// dispatch has p call one of our methods.
func (d *Daemon) dispatch(ctx context.Context, p Principal, f *iface, m *method, in bus.Incoming) (bus.Body, error) {
	if have := in.Args.Signature(); have != m.in {
		return bus.Body{}, unknown("InvalidArgs", "%s takes %q, not %q", in.Member, m.in, have)
	}
	if m.kind == sensitive {
		a := Action{Kind: KindCall, Bus: d.Address, Name: names.BusName, Path: in.Path, Interface: f.name, Member: m.Name}
		decision := d.Gate.CurrentPolicy().Decide(p, a)
		traced(ctx, "", decision)
		if decision.Effect != Allow {
			return bus.Body{}, &DeniedError{Action: a, Decision: decision}
		}
		if err := d.maySee(ctx, p); err != nil {
			return bus.Body{}, err
		}
	}
	patience := m.patience
	if patience == 0 {
		patience = defaultPatience
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	values, err := m.do(d, ctx, p, in)
	if err != nil {
		var denied *DeniedError
		if errors.As(err, &denied) && denied.Approval != nil {
			d.emit("Approvals", "Requested", bus.NewBody("s", denied.Approval.ID))
		}
		return bus.Body{}, err
	}
	return bus.Body{Types: m.out, Values: values}, nil
}

func isUnknownMethod(err error) bool {
	var e *bus.Error
	return errors.As(err, &e) && strings.HasSuffix(e.Name, ".UnknownMethod")
}

// maySee says whether p may see what not everybody may.
func (d *Daemon) maySee(ctx context.Context, p Principal) error {
	switch {
	case p.Entrance == EntranceMCP && p.lacks(ScopeRead):
		return unknown("AccessDenied", "the client lacks the scope %s", ScopeRead)
	case p.Entrance == EntranceMCP && !p.own():
		return nil // root has made the token
	case p.UID == 0, p.Entrance == EntranceWeb: // whom gb-web lets in may see everything
		return nil
	}
	return d.Gate.Polkit.Authorize(ctx, p, PolkitRead, nil)
}

// findMethod finds what is called; a call need not name the interface.
func findMethod(in bus.Incoming) (*iface, *method, error) {
	prepare()
	for i := range interfaces {
		f := &interfaces[i]
		if f.path != in.Path || in.Interface != "" && f.name != in.Interface {
			continue
		}
		for k := range f.methods {
			if f.methods[k].Name == in.Member {
				return f, &f.methods[k], nil
			}
		}
		if in.Interface != "" {
			return nil, nil, unknown("UnknownMethod", "%s has no method %s", f.name, in.Member)
		}
	}
	if in.Interface == "" {
		return nil, nil, unknown("UnknownMethod", "%s has no method %s", in.Path, in.Member)
	}
	return nil, nil, unknown("UnknownInterface", "%s has no interface %s", in.Path, in.Interface)
}
