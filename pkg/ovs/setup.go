package ovs

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/openflow"
	"github.com/ghostbridge/ghostbridge/pkg/ovsdb"
	"github.com/ghostbridge/ghostbridge/pkg/rtnetlink"
)

// A Setup is this host's switch and what belongs to it.
type Setup struct {
	Remote  string        // of the database: unix:PATH
	RunDir  string        // of ovs-vswitchd's sockets
	Timeout time.Duration // how long the switch may take for one step
	Store   *Store
	Journal *Journal
	Log     *slog.Logger

	// Arm has the change called id rolled back after a while, whatever becomes
	// of this process. It returns when that is sure.
	Arm func(ctx context.Context, id string, after time.Duration) error
	// Disarm takes that back.
	Disarm func(ctx context.Context, id string)

	db *ovsdb.Client
}

// connect returns the connection to the database.
func (s *Setup) connect(ctx context.Context) (*ovsdb.Client, error) {
	if s.db != nil {
		select {
		case <-s.db.Done():
			s.db.Close()
			s.db = nil
		default:
			return s.db, nil
		}
	}
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	c, err := ovsdb.Dial(ctx, s.Remote)
	if err == nil {
		s.db = c
	}
	return c, err
}

// Close ends the connections.
func (s *Setup) Close() {
	if s.Journal != nil {
		s.Journal.Close()
	}
	if s.db != nil {
		s.db.Close()
	}
}

func (s *Setup) flows() *openflow.Switch {
	return &openflow.Switch{RunDir: s.RunDir, Timeout: s.Timeout}
}

// A Survey is how a desired state and this host stand to each other.
type Survey struct {
	Plan    *Plan
	State   *State
	Links   map[string]rtnetlink.Link
	Offload []Offload
	Flows   map[string]*openflow.Difference
	Faults  []Fault

	sets FlowSets
}

// Survey reads everything and compares.
func (s *Setup) Survey(ctx context.Context, c *Config) (*Survey, error) {
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	db, err := s.connect(ctx)
	if err != nil {
		return nil, err
	}
	var links map[string]rtnetlink.Link
	var lerr error
	var wg sync.WaitGroup
	wg.Go(func() { links, lerr = rtnetlink.Links() }) // while the server reads
	state, err := ReadState(ctx, db)
	wg.Wait()
	if err = cmp.Or(err, lerr); err != nil {
		return nil, err
	}
	return s.survey(ctx, c, state, links)
}

// survey is Survey where database and links have been read.
func (s *Setup) survey(ctx context.Context, c *Config, state *State, links map[string]rtnetlink.Link) (v *Survey, err error) {
	v = &Survey{State: state, Links: links, Flows: make(map[string]*openflow.Difference)}
	if v.Plan, err = NewPlan(c, v.State, factsOf(v.Links)); err != nil {
		return nil, err
	}
	if d := v.Plan.field("switch", "other_config"); d != nil {
		v.Plan.restartWarning(d)
	}
	if err := v.Plan.planLinks(c, v.State, v.Links); err != nil {
		return nil, err
	}
	var oerr error
	v.Offload, oerr = checkOffload(offloadTargets(c, v.State, v.Links))
	if oerr != nil {
		v.Plan.Warnings = append(v.Plan.Warnings, oerr.Error())
	}
	v.Plan.planOffload(v.Offload)
	var wrong *ConfigError
	if err := s.compareFlows(ctx, c, v); errors.As(err, &wrong) {
		return nil, wrong
	} else if err != nil {
		v.Plan.Warnings = append(v.Plan.Warnings, strings.Split(err.Error(), "\n")...)
	}
	var faults *FaultsError
	rows := sortedRows(v.State.Interfaces)
	if errors.As(judge(rows, v.Plan.existing(rows)), &faults) {
		v.Faults = faults.Faults
	}
	return v, nil
}

// existing returns those of the judged interfaces that are there already.
func (p *Plan) existing(rows []ovsdb.Row) []string {
	return slices.DeleteFunc(slices.Clone(p.judged), func(name string) bool {
		return !slices.ContainsFunc(rows, func(r ovsdb.Row) bool { return r.String("name") == name })
	})
}

func (p *Plan) field(kind, field string) *Delta {
	for _, c := range p.Changes {
		if c.Kind == kind {
			return c.Fields[field]
		}
	}
	return nil
}

// restartWarning tells that the switch reads hw-offload only when it starts.
func (p *Plan) restartWarning(d *Delta) {
	value := func(v any) string {
		m, _ := v.(map[string]any)
		s, _ := m["hw-offload"].(string)
		return s
	}
	if from, to := value(d.From), value(d.To); from != to && (from == "true" || to == "true") {
		p.Warnings = append(p.Warnings, "hw-offload="+to+" counts from the next start of ovs-vswitchd on")
	}
}

// compareFlows compares the flows of all bridges of the file, at once. It
// changes nothing where no bridge has flows.
func (s *Setup) compareFlows(ctx context.Context, c *Config, v *Survey) error {
	v.sets = WantedFlows(c, v.State)
	some := len(v.sets) > 0
	for _, row := range v.State.Bridges {
		_, marked := row.Strings("external_ids")[flowsKey]
		some = some || marked
	}
	if !some {
		return nil
	}
	var mu sync.Mutex // covers what the goroutines collect
	var errs []error
	var wg sync.WaitGroup
	for _, name := range names(c.Bridges) {
		set := v.sets[name]
		there := byName(v.State.Bridges, name) != nil
		wg.Go(func() {
			d, err := missing(set), error(nil)
			if there {
				d, err = s.flows().Compare(ctx, name, set.Flows, set.Rate)
			} else if len(c.Bridges[name].Flows.rules()) > 0 {
				err = s.flows().Check(ctx, name, set.Flows)
			}
			mu.Lock()
			defer mu.Unlock()
			var bad *openflow.SyntaxError
			if errors.As(err, &bad) {
				err = c.wrongFlow(name, bad)
			}
			if err != nil {
				errs = append(errs, err)
				return
			}
			v.Flows[name] = d
		})
	}
	wg.Wait()
	for _, name := range names(v.Flows) {
		v.Plan.planFlows(name, v.Flows[name], v.sets[name].Rate)
	}
	return errors.Join(errs...)
}

func missing(set FlowSet) *openflow.Difference {
	d := &openflow.Difference{Meter: set.Rate > 0}
	for _, f := range set.Flows {
		d.Missing = append(d.Missing, f.String())
	}
	return d
}

func (p *Plan) planFlows(bridge string, d *openflow.Difference, rate int) {
	if len(d.Foreign) > 0 {
		p.Foreign = append(p.Foreign, Report{Kind: "flows", Name: bridge, Note: strings.Join(d.Foreign, "; ")})
	}
	if d.Empty() {
		return
	}
	f := make(map[string]*Delta)
	if len(d.Missing) > 0 || len(d.Extra) > 0 {
		f["flows"] = &Delta{list(d.Extra), list(d.Missing)}
	}
	if d.Meter {
		f["meter"] = &Delta{nil, rate}
	}
	p.Changes = append(p.Changes, Change{Action: "update", Kind: "flows", Name: bridge, Fields: f})
}

func list(s []string) any {
	if len(s) == 0 {
		return nil
	}
	return s
}

// ApplyOptions say how to apply.
type ApplyOptions struct {
	ConfirmTimeout time.Duration // if not 0, the change is rolled back unless it is confirmed by then
	ProbeTime      time.Duration // how long gateway and hosts may take to answer
	Boot           bool          // restoring the confirmed configuration: recorded in the spool where the log is away
}

// An Outcome is what an apply did.
type Outcome struct {
	Plan      *Plan     `json:"plan"`
	Changed   bool      `json:"changed"`
	ID        string    `json:"id,omitempty"` // of a change that awaits its confirmation
	ConfirmBy time.Time `json:"confirm_by,omitzero"`
}

// A PendingError says that an earlier change awaits its confirmation.
type PendingError struct{ ID string }

func (e *PendingError) Error() string {
	return fmt.Sprintf("the change %s awaits its confirmation", e.ID)
}

// Hint says what to do.
func (e *PendingError) Hint() string {
	return fmt.Sprintf("gb-ovs-setup confirm %s, or gb-ovs-setup rollback %[1]s", e.ID)
}

// A RefusedConfigError says that a configuration was rolled back before.
type RefusedConfigError struct{ Hash string }

func (e *RefusedConfigError) Error() string {
	return fmt.Sprintf("this configuration (%.12s) was rolled back", e.Hash)
}

// ExitCode is that of wrong configuration.
func (e *RefusedConfigError) ExitCode() int { return 2 }

// Hint says what to do.
func (e *RefusedConfigError) Hint() string {
	return "change it, or apply it again with --confirm-timeout 90s"
}

// A DifferentError says that a change was made, but things are not as they
// should be.
type DifferentError struct{ Changes []Change }

func (e *DifferentError) Error() string {
	var s []string
	for _, c := range e.Changes {
		s = append(s, c.Kind+" "+c.Name)
	}
	return "still not as it should be: " + strings.Join(s, ", ")
}

// Apply brings the host to the desired state c.
func (s *Setup) Apply(ctx context.Context, c *Config, o ApplyOptions) (out *Outcome, err error) {
	lctx, cancel := context.WithTimeout(ctx, s.Timeout)
	lock, err := s.Store.Lock(lctx)
	cancel()
	if err != nil {
		return nil, err
	}
	defer lock.Unlock()
	s.Journal.Greet(ctx)
	if !o.Boot {
		if id, err := s.Store.Pending(); err != nil || id != "" {
			return nil, errors.Join(err, asError(id))
		}
		if bad, err := s.Store.Refused(c.Hash()); err != nil || bad && o.ConfirmTimeout == 0 {
			return nil, errors.Join(err, &RefusedConfigError{c.Hash()})
		}
	}
	var intent bool
	for try := 0; ; try++ {
		v, err := s.Survey(ctx, c)
		if err != nil {
			return nil, err
		}
		if next, behind := v.State.behind(); behind && !v.Plan.ChangesDatabase() {
			// Somebody's change, perhaps ours of before: the switch is to have
			// taken it before it is judged.
			if err := s.settle(ctx, next, v.Plan.judged); err != nil && !isFaults(err) {
				return nil, err
			}
			if v, err = s.Survey(ctx, c); err != nil {
				return nil, err
			}
		}
		out = &Outcome{Plan: v.Plan}
		if v.Plan.Empty() {
			if len(v.Faults) > 0 {
				return out, &FaultsError{v.Faults}
			}
			if o.ConfirmTimeout == 0 {
				return out, s.confirmed(c, nil)
			}
			return out, nil
		}
		id := NewID(time.Now())
		if !intent {
			if err := s.record(ctx, o.Boot, "ovs.apply.intent", "notice", fmt.Sprintf("%d changes of the switch", len(v.Plan.Changes)),
				map[string]any{"hash": c.Hash(), "boot": o.Boot, "confirm_timeout": o.ConfirmTimeout.String(), "plan": v.Plan}); err != nil {
				return out, err
			}
			intent = true
		}
		err = s.change(ctx, c, v, id, o, out)
		if errors.Is(err, ovsdb.ErrConflict) && try < 5 {
			continue // somebody else was quicker: read again
		}
		severity, message := "notice", "the switch is as it should be"
		if err != nil {
			severity, message = "err", "the switch is not as it should be: "+err.Error()
		}
		rerr := s.record(context.WithoutCancel(ctx), true, "ovs.apply.outcome", severity, message,
			map[string]any{"hash": c.Hash(), "id": out.ID, "ok": err == nil})
		if rerr != nil {
			s.Log.Warn("the outcome is not recorded", "error", rerr)
		}
		return out, err
	}
}

func (s *Setup) settle(ctx context.Context, next int64, interfaces []string) error {
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	db, err := s.connect(ctx)
	if err != nil {
		return err
	}
	return Settle(ctx, db, next, interfaces)
}

func asError(id string) error {
	if id == "" {
		return nil
	}
	return &PendingError{id}
}

func (s *Setup) record(ctx context.Context, restoring bool, typ, severity, message string, data any) error {
	e := Event{Type: typ, Subject: "switch", Severity: severity, Message: message, Data: data}
	if restoring {
		if err := s.Journal.Restoring(ctx, e); err != nil {
			s.Log.Warn("an event is lost", "type", typ, "error", err)
		}
		return nil
	}
	return s.Journal.Intent(ctx, e)
}

// confirmed makes c what boots apply; files are what networkd was told.
func (s *Setup) confirmed(c *Config, files map[string]string) error {
	raw, err := json.Marshal(c)
	if err != nil {
		return err
	}
	last, err := s.Store.Confirmed()
	if err != nil {
		s.Log.Warn("the configuration confirmed last is replaced", "error", err)
	}
	if last != nil {
		files = keptFiles(c, last.Files, files)
	}
	if err := s.Store.confirm(&Confirmed{Hash: c.Hash(), Time: time.Now(), Config: raw, Files: files}); err != nil {
		return fmt.Errorf("the switch is as it should be, but boots won't make it so: %w", err)
	}
	return nil
}

// change does what a survey found.
func (s *Setup) change(ctx context.Context, c *Config, v *Survey, id string, o ApplyOptions, out *Outcome) error {
	if o.ConfirmTimeout == 0 {
		files, err := s.execute(ctx, c, v, nil)
		out.Changed = !errors.Is(err, ovsdb.ErrConflict)
		if err != nil {
			return err
		}
		return s.confirmed(c, files)
	}
	before := gatewaysThat(ctx, 2*time.Second)
	point, err := s.checkpoint(ctx, c, v, id, o.ConfirmTimeout)
	if err != nil {
		return err
	}
	if err := s.Arm(ctx, id, o.ConfirmTimeout); err != nil {
		return errors.Join(fmt.Errorf("arm the rollback: %w", err), s.Store.done())
	}
	_, err = s.execute(ctx, c, v, point)
	if errors.Is(err, ovsdb.ErrConflict) {
		s.Disarm(ctx, id)
		return errors.Join(err, s.Store.done())
	}
	out.Changed, out.ID, out.ConfirmBy = true, id, point.Deadline
	if err == nil {
		err = s.probe(ctx, before, c.Probe, o.ProbeTime)
	}
	if err == nil {
		return nil
	}
	// Back at once, also after a Ctrl-C.
	back, cancel := context.WithTimeout(context.WithoutCancel(ctx), 4*s.Timeout)
	defer cancel()
	if rerr := s.rollback(back, point); rerr != nil {
		return errors.Join(err, fmt.Errorf("roll back: %w", rerr))
	}
	s.Disarm(back, id)
	out.ID, out.Changed = "", false
	return &RolledBackError{err}
}

// A RolledBackError is why a change was taken back.
type RolledBackError struct{ Err error }

func (e *RolledBackError) Error() string { return "rolled back: " + e.Err.Error() }
func (e *RolledBackError) Unwrap() error { return e.Err }

func (s *Setup) probe(ctx context.Context, gateways []netip.Addr, hosts []string, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return probe(ctx, gateways, hosts)
}

// checkpoint saves everything that an apply of c may change.
func (s *Setup) checkpoint(ctx context.Context, c *Config, v *Survey, id string, timeout time.Duration) (*Checkpoint, error) {
	db, err := s.connect(ctx)
	if err != nil {
		return nil, err
	}
	raw, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	p := &Checkpoint{ID: id, Time: now, BootID: BootID(), Deadline: now.Add(timeout), DeadlineUp: uptime() + timeout, Hash: c.Hash(), Config: raw}
	tctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	if p.Database, err = TakeSnapshot(tctx, db); err != nil {
		return nil, err
	}
	if last, err := s.Store.Confirmed(); err != nil {
		return nil, err
	} else if last != nil {
		p.Before = last.Config
	}
	if p.Flows, err = s.keepFlows(tctx, c, v); err != nil {
		return nil, err
	}
	touched := upLinks(c)
	for _, t := range offloadTargets(c, v.State, v.Links) {
		touched = append(touched, t.link.Name)
	}
	for _, row := range v.State.Bridges {
		touched = append(touched, row.String("name"))
	}
	slices.Sort(touched)
	for _, name := range slices.Compact(touched) {
		if _, there := v.Links[name]; !there {
			continue
		}
		st, err := readLink(name)
		if errors.Is(err, rtnetlink.ErrNoLink) {
			continue
		}
		if err != nil {
			return nil, err
		}
		p.Links = append(p.Links, st)
	}
	return p, s.Store.Save(p)
}

// keepFlows returns the flows of the bridges that are there and may get others.
func (s *Setup) keepFlows(ctx context.Context, c *Config, v *Survey) (map[string][]string, error) {
	kept := make(map[string][]string)
	for _, name := range names(c.Bridges) {
		row := byName(v.State.Bridges, name)
		if row == nil {
			continue
		}
		if _, marked := row.Strings("external_ids")[flowsKey]; !marked && c.Bridges[name].Flows == nil {
			if _, some := v.sets[name]; !some {
				continue
			}
		}
		flows, err := s.flows().Keep(ctx, name)
		if err != nil {
			return nil, err
		}
		kept[name] = flows
	}
	return kept, nil
}

// execute makes the changes: offload before a NIC carries a frame for the
// switch, then the database, then what needs the switch to have taken it, flows
// first. It returns what it told networkd.
func (s *Setup) execute(ctx context.Context, c *Config, v *Survey, point *Checkpoint) (files map[string]string, err error) {
	db, err := s.connect(ctx)
	if err != nil {
		return files, err
	}
	set := make(map[string]bool)
	for _, t := range offloadTargets(c, v.State, v.Links) {
		set[t.link.Name] = true
		if v.settledOffload(t) {
			continue
		}
		if err := s.switchOff(t); err != nil {
			return files, err
		}
	}
	step, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	state, faults := v.State, error(nil)
	if v.Plan.ChangesDatabase() {
		next, err := v.Plan.Commit(step, db, "gb-ovs-setup apply "+c.Hash()[:12])
		if err != nil {
			return files, err
		}
		if state, err = settled(step, db, next); err != nil {
			return files, err
		}
		faults = judge(sortedRows(state.Interfaces), v.Plan.judged)
	}
	// The flows are there before a bridge is up and has addresses, since before
	// them everything is forwarded. Where they fail, the host is reached by the
	// bridge all the same.
	unflowed := s.putFlows(ctx, c, state)
	links, err := rtnetlink.Links()
	if err != nil {
		return files, err
	}
	var down []rtnetlink.Link
	for _, name := range upLinks(c) {
		if l, there := links[name]; there && !l.Up {
			down = append(down, l)
		}
	}
	if err := rtnetlink.BringUp(down...); err != nil {
		return files, err
	}
	if files, err = s.moveUplinks(ctx, c, links, faults, point); err != nil {
		return files, err
	}
	for _, t := range offloadTargets(c, state, links) { // what has come since, such as the switch's own ports
		if set[t.link.Name] {
			continue
		}
		if err := s.switchOff(t); err != nil {
			return files, err
		}
	}
	if unflowed != nil {
		return files, unflowed
	}
	if faults != nil {
		return files, faults
	}
	// What the switch has taken was read with its answer; the rest is read
	// again.
	sctx, stop := context.WithTimeout(ctx, s.Timeout)
	defer stop()
	if links, err = rtnetlink.Links(); err != nil {
		return files, err
	}
	after, err := s.survey(sctx, c, state, links)
	if err != nil {
		return files, err
	}
	if !after.Plan.Empty() {
		return files, &DifferentError{after.Plan.Changes}
	}
	return files, nil
}

// switchOff switches off what should be off about an interface. A driver that
// does not follow keeps no bridge from coming up: what it left on is found
// again when everything is done.
func (s *Setup) switchOff(t offloadTarget) error {
	return t.off(func(err error) { s.Log.Warn("offload", "error", err) })
}

func isFaults(err error) bool {
	var f *FaultsError
	return errors.As(err, &f)
}

// moveUplinks moves the addresses of every uplink to its bridge, unless the
// switch could not take the uplink. It returns what it told networkd.
func (s *Setup) moveUplinks(ctx context.Context, c *Config, links map[string]rtnetlink.Link, faults error, point *Checkpoint) (told map[string]string, err error) {
	var f *FaultsError
	errors.As(faults, &f)
	for _, name := range names(c.Bridges) {
		up := c.Bridges[name].uplink()
		if _, there := links[up]; !there {
			continue
		}
		if f != nil && slices.ContainsFunc(f.Faults, func(x Fault) bool { return x.Interface == up || x.Interface == name }) {
			continue
		}
		if here, err := rtnetlink.Addresses(up); err != nil || len(here) == 0 {
			if err != nil {
				return told, err
			}
			continue
		}
		files, err := networkFiles(up, name)
		if err != nil {
			return told, err
		}
		moved, err := moveAddresses(up, name)
		if err != nil {
			return told, err
		}
		if moved == 0 {
			continue
		}
		s.Log.Info("addresses moved", "from", up, "to", name, "count", moved)
		if told == nil {
			told = make(map[string]string)
		}
		maps.Copy(told, files)
		if err := s.tellNetworkd(ctx, files, point, up, name); err != nil {
			return told, err
		}
	}
	return told, nil
}

// putFlows brings the flows of every bridge of the file to what they should be
// in this state, each bridge's at once.
func (s *Setup) putFlows(ctx context.Context, c *Config, state *State) error {
	v := &Survey{State: state, Plan: new(Plan), Flows: make(map[string]*openflow.Difference)}
	if err := s.compareFlows(ctx, c, v); err != nil {
		return err
	}
	for _, bridge := range names(v.Flows) {
		d, set := v.Flows[bridge], v.sets[bridge]
		if d.Meter {
			if err := s.flows().SetMeter(ctx, bridge, set.Rate); err != nil {
				return err
			}
		}
		if len(d.Missing) > 0 || len(d.Extra) > 0 {
			if err := s.flows().Replace(ctx, bridge, set.Flows); err != nil {
				return err
			}
		}
	}
	return nil
}
