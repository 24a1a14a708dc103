package ovs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/durable"
	"github.com/ghostbridge/ghostbridge/pkg/ovsdb"
	"github.com/ghostbridge/ghostbridge/pkg/rtnetlink"
)

// WatchOptions say how to watch.
type WatchOptions struct {
	Fallback *Config           // where nothing was ever confirmed
	Mend     bool              // put flows and offloads back; without it the watch writes nothing anywhere
	Emit     func(Event) error // takes each event; an error ends the watch; may be nil
	Status   func(*Status)     // takes a status now and then, may be nil
	Alive    func()            // is called as long as the watch goes on, twice a second or more, may be nil
	Every    time.Duration     // how often to look without a reason
}

const (
	watchTick    = 500 * time.Millisecond // how often a restart of the switch is looked for
	watchDelay   = 50 * time.Millisecond  // how long changes are collected before they are looked at
	watchAgain   = 200 * time.Millisecond // after how long a look is tried again that could not be had
	watchRetry   = time.Second            // how long to wait for a database that does not answer
	maxEventText = 1024                   // bytes of a value that strangers wrote
)

// watched are the columns whose changes are events, by table. Those that the
// switch rewrites all the time are left out.
var watched = map[string][]string{
	Database:    {"bridges", "other_config", "external_ids", "manager_options", "ovs_version"},
	"Bridge":    {"name", "ports", "datapath_type", "fail_mode", "protocols", "other_config", "external_ids", "controller", "mirrors", "stp_enable", "rstp_enable"},
	"Port":      {"name", "interfaces", "tag", "trunks", "vlan_mode", "bond_mode", "lacp", "qos", "other_config", "external_ids"},
	"Interface": {"name", "type", "options", "mtu_request", "mac", "external_ids", "ofport", "error", "admin_state", "link_state", "mtu", "mac_in_use", "link_resets"},
}

// A watcher follows the database, the links and the switch's process.
type watcher struct {
	setup *Setup
	o     WatchOptions

	rows     map[string]map[ovsdb.UUID]ovsdb.Row // what the database held last
	down     bool                                // it does not answer
	instance string                              // of the switch's process
	dirty    time.Time                           // since when there is something to look at, zero if nothing
	drift    string                              // what was reported last
	looked   time.Time
	overdue  string // the change that it has tried to roll back
}

// Watch emits an event for each change of the switch's database and for each
// drift from the configuration in force, and puts flows and offloads back. It
// goes on through restarts of both daemons and ends with ctx.
func (s *Setup) Watch(ctx context.Context, o WatchOptions) error {
	if o.Every == 0 {
		o.Every = 5 * time.Second
	}
	w := &watcher{setup: s, o: o, rows: make(map[string]map[ovsdb.UUID]ovsdb.Row), dirty: time.Now()}
	links := make(chan string, 64)
	done := make(chan struct{})
	defer close(done)
	go func() {
		err := rtnetlink.Watch(done, func(name string) {
			select {
			case links <- name:
			default: // it is looked at all of them anyway
			}
		})
		if err != nil {
			s.Log.Warn("links are looked at only now and then", "error", err)
		}
	}()
	for {
		w.alive()
		err := w.follow(ctx, links)
		if ctx.Err() != nil {
			return nil
		}
		var stop *emitError
		if errors.As(err, &stop) {
			return stop.err
		}
		if !w.down {
			w.down = true
			if err := w.emit("switch.unreachable", "switch", "err", "the switch's database does not answer", map[string]any{"error": err.Error()}); err != nil {
				return err.(*emitError).err
			}
			if c, err := s.InForce(o.Fallback); err == nil {
				w.status(ctx, c)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(watchRetry):
		}
	}
}

// An emitError ends the watch.
type emitError struct{ err error }

func (e *emitError) Error() string { return e.err.Error() }

func (w *watcher) emit(typ, subject, severity, message string, data map[string]any) error {
	e := Event{Time: time.Now(), Type: typ, Subject: clip(subject), Severity: severity, Message: clip(message)}
	if len(data) > 0 {
		e.Data = data
	}
	if w.o.Emit == nil {
		return nil
	}
	if err := w.o.Emit(e); err != nil {
		return &emitError{err}
	}
	return nil
}

// follow watches over one connection to the database.
func (w *watcher) follow(ctx context.Context, links <-chan string) error {
	dctx, cancel := context.WithTimeout(ctx, w.setup.Timeout)
	defer cancel()
	db, err := ovsdb.Dial(dctx, w.setup.Remote)
	if err != nil {
		return err
	}
	defer db.Close()
	first, changes, err := db.Monitor(dctx, Database, watched)
	if err != nil {
		return err
	}
	if w.down {
		w.down = false
		if err := w.emit("switch.reachable", "switch", "notice", "the switch's database answers again", nil); err != nil {
			return err
		}
	}
	if err := w.resync(first); err != nil {
		return err
	}
	tick := time.NewTicker(watchTick)
	defer tick.Stop()
	var due <-chan time.Time // when to look
	for {
		w.alive()
		if due == nil && !w.dirty.IsZero() {
			due = time.After(time.Until(w.dirty.Add(watchDelay)))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case c, ok := <-changes:
			if !ok {
				<-db.Done()
				return db.Err()
			}
			if err := w.take(c, true); err != nil {
				return err
			}
			w.soil()
		case <-links:
			w.soil()
		case now := <-tick.C:
			if w.restarted() || now.Sub(w.looked) > w.o.Every {
				w.soil()
			}
		case <-due:
			due = nil
			if err := w.look(ctx); err != nil {
				return err
			}
			if !w.dirty.IsZero() {
				due = time.After(watchAgain)
			}
		}
	}
}

func (w *watcher) alive() {
	if w.o.Alive != nil {
		w.o.Alive()
	}
}

func (w *watcher) soil() {
	if w.dirty.IsZero() {
		w.dirty = time.Now()
	}
}

// restarted says whether ovs-vswitchd has started anew since the last call.
func (w *watcher) restarted() bool {
	var all []string
	for _, row := range sortedRows(w.rows["Bridge"]) {
		all = append(all, w.setup.flows().Instance(row.String("name")))
	}
	now := strings.Join(all, ";")
	changed := now != w.instance
	w.instance = now
	return changed
}

// resync emits what has changed while nobody watched. The first time, it only
// learns what is there.
func (w *watcher) resync(first ovsdb.Changes) error {
	before := w.rows
	known := len(before) > 0
	w.rows = make(map[string]map[ovsdb.UUID]ovsdb.Row)
	if !known {
		return w.take(first, false)
	}
	w.rows = before
	c := make(ovsdb.Changes)
	for table := range watched {
		c[table] = make(map[ovsdb.UUID]ovsdb.RowUpdate)
		for id, u := range first[table] {
			old, there := before[table][id]
			if !there {
				c[table][id] = ovsdb.RowUpdate{New: u.New}
			} else if changed := changedColumns(old, u.New); len(changed) > 0 {
				c[table][id] = ovsdb.RowUpdate{Old: changed, New: u.New}
			}
		}
		for id, old := range before[table] {
			if _, there := first[table][id]; !there {
				c[table][id] = ovsdb.RowUpdate{Old: old}
			}
		}
	}
	return w.take(c, true)
}

// changedColumns returns the columns of old that are otherwise in now.
func changedColumns(old, now ovsdb.Row) ovsdb.Row {
	out := make(ovsdb.Row)
	for column, v := range now {
		if !ovsdb.Equal(v, old[column]) {
			out[column] = old[column]
		}
	}
	return out
}

// take remembers changes and emits their events.
func (w *watcher) take(c ovsdb.Changes, emit bool) error {
	for _, table := range []string{Database, "Bridge", "Port", "Interface"} {
		ids := make([]ovsdb.UUID, 0, len(c[table]))
		for id := range c[table] {
			ids = append(ids, id)
		}
		slices.Sort(ids)
		for _, id := range ids {
			u := c[table][id]
			if w.rows[table] == nil {
				w.rows[table] = make(map[ovsdb.UUID]ovsdb.Row)
			}
			old := w.rows[table][id]
			if u.New == nil {
				delete(w.rows[table], id)
			} else {
				w.rows[table][id] = u.New
			}
			if !emit {
				continue
			}
			if err := w.emitRow(table, old, u); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *watcher) emitRow(table string, old ovsdb.Row, u ovsdb.RowUpdate) error {
	kind := strings.ToLower(table)
	name := u.New.String("name")
	if u.New == nil {
		name = old.String("name")
	}
	if table == Database {
		kind, name = "switch", "switch"
	}
	data := map[string]any{}
	switch {
	case old == nil && u.New != nil:
		data["row"] = w.describe(u.New)
		return w.emit(kind+".created", name, "notice", fmt.Sprintf("%s %s created", kind, name), data)
	case u.New == nil:
		data["row"] = w.describe(old)
		return w.emit(kind+".deleted", name, "notice", fmt.Sprintf("%s %s deleted", kind, name), data)
	}
	now := make(ovsdb.Row, len(u.Old))
	var what []string
	severity := "info"
	for _, column := range names(u.Old) {
		now[column] = u.New[column]
		what = append(what, column)
	}
	if len(what) == 0 {
		return nil
	}
	message := fmt.Sprintf("%s %s: %s changed", kind, name, strings.Join(what, ", "))
	if e := now.String("error"); e != "" {
		severity, message = "err", fmt.Sprintf("%s %s: %s", kind, name, e)
	} else if _, ok := now["link_state"]; ok {
		message = fmt.Sprintf("%s %s: link state %s", kind, name, now.String("link_state"))
	}
	data["old"], data["new"] = w.describe(u.Old), w.describe(now)
	return w.emit(kind+".changed", name, severity, message, data)
}

// describe returns a row as JSON has it: rows that it refers to by name,
// strangers' text without control characters and not at any length, secrets
// not at all.
func (w *watcher) describe(r ovsdb.Row) map[string]any {
	label := func(id ovsdb.UUID) string {
		for _, rows := range w.rows {
			if row, ok := rows[id]; ok {
				return row.String("name")
			}
		}
		return string(id)
	}
	out := make(map[string]any, len(r))
	for _, column := range names(r) {
		v := r[column]
		if column == "bridges" || column == "ports" || column == "interfaces" {
			var set ovsdb.Set
			for _, id := range r.UUIDs(column) {
				set = append(set, label(id))
			}
			v = set
		}
		if p := scrub(plain(v)); p != nil && p != "" {
			out[column] = p
		}
	}
	return out
}

// secrets are keys of options, other_config and external_ids whose values are
// not for the log.
var secrets = []string{"key", "psk", "password", "passwd", "secret", "token", "private"}

func scrub(v any) any {
	switch v := v.(type) {
	case string:
		return clip(v)
	case []any:
		for i, e := range v {
			v[i] = scrub(e)
		}
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, e := range v {
			lower := strings.ToLower(k)
			if slices.ContainsFunc(secrets, func(s string) bool { return strings.Contains(lower, s) }) && k != keysKey {
				e = "[redacted]"
			}
			out[clip(k)] = scrub(e)
		}
		if len(out) == 0 {
			return nil
		}
		return out
	}
	return v
}

// clip takes control characters out of a stranger's text and cuts it off.
func clip(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < 0x20 || r >= 0x7f && r < 0xa0 {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
	if len(s) > maxEventText {
		s = strings.ToValidUTF8(s[:maxEventText], "") + "…"
	}
	return s
}

// look compares the switch with the configuration in force, emits what is
// new about the difference, and mends what may be mended.
func (w *watcher) look(ctx context.Context) error {
	s := w.setup
	busy, release, err := w.enter()
	if busy {
		return nil // an apply or a rollback is at work; it is looked again
	}
	if err != nil {
		s.Log.Warn("not looked at", "error", err)
		w.dirty = time.Time{}
		return nil
	}
	defer release()
	if w.o.Mend {
		w.rollbackOverdue(ctx)
	}
	c, err := s.InForce(w.o.Fallback)
	if err != nil || c == nil {
		w.dirty, w.looked = time.Time{}, time.Now()
		if err != nil {
			s.Log.Warn("configuration in force", "error", err)
		}
		return nil
	}
	lctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	v, err := s.Survey(lctx, c)
	var wrong *ConfigError
	var conflict *ConflictError
	if errors.As(err, &wrong) || errors.As(err, &conflict) {
		w.dirty, w.looked = time.Time{}, time.Now()
		return w.reportDrift(err.Error(), err.Error(), map[string]any{"error": clip(err.Error())})
	}
	if err != nil {
		return nil // still dirty: it is looked again
	}
	if len(v.Plan.Warnings) > 0 && len(v.Flows) == 0 && len(v.sets) > 0 {
		return nil // the switch is starting
	}
	if !w.o.Mend {
		// Who does not hold the lock may have looked at a change half done.
		if busy, err := s.Store.busy(); busy || err != nil {
			return nil
		}
	}
	w.dirty, w.looked = time.Time{}, time.Now()
	if err := w.report(v); err != nil {
		return err
	}
	if w.o.Mend {
		if err := w.mend(ctx, c, v); err != nil {
			s.Log.Warn("not mended", "error", err)
			w.dirty = time.Now()
		}
	}
	w.status(ctx, c)
	return nil
}

// enter keeps applies and rollbacks away while a watch that mends is at work.
// One that only reports keeps nobody waiting: it sees that nobody is at work.
func (w *watcher) enter() (busy bool, release func() error, err error) {
	if !w.o.Mend {
		busy, err := w.setup.Store.busy()
		return busy, func() error { return nil }, err
	}
	lock, err := w.setup.Store.tryLock()
	if err != nil {
		return errors.Is(err, durable.ErrLocked), nil, err
	}
	return false, lock.Unlock, nil
}

// rollbackLate is how long after its deadline a change is rolled back here:
// the one that is armed has the first try.
const rollbackLate = 5 * time.Second

// rollbackOverdue takes a change back whose own rollback has not come: its
// process may have been killed before it was armed, or the waiting one may
// have been. It tries each change once.
func (w *watcher) rollbackOverdue(ctx context.Context) {
	s := w.setup
	id, err := s.Store.Pending()
	if err != nil || id == "" || id == w.overdue {
		return
	}
	point, err := s.Store.Load(id)
	if err != nil || !point.forgotten(uptime()) {
		return
	}
	w.overdue = id
	s.Log.Warn("a change that nobody confirmed was not rolled back in time", "id", id)
	if err := s.rollback(ctx, point); err != nil {
		s.Log.Error("not rolled back", "id", id, "error", err)
	}
	w.dirty = time.Now()
}

// status hands a status out, but for one that only shows that the watch ends.
func (w *watcher) status(ctx context.Context, c *Config) {
	if w.o.Status == nil {
		return
	}
	sctx, cancel := context.WithTimeout(ctx, w.setup.Timeout)
	defer cancel()
	if st := w.setup.Status(sctx, c); ctx.Err() == nil {
		w.o.Status(st)
	}
}

// report emits a drift that was not reported, and its end.
func (w *watcher) report(v *Survey) error {
	if v.Plan.Empty() {
		return w.reportDrift("", "", nil)
	}
	key, err := json.Marshal(v.Plan.Changes)
	if err != nil {
		return err
	}
	var what []string
	for _, c := range v.Plan.Changes {
		what = append(what, c.Kind+" "+c.Name)
	}
	return w.reportDrift(string(key), strings.Join(what, ", "), map[string]any{"changes": v.Plan.Changes})
}

// reportDrift emits a drift, which key tells from others; an empty key is its
// end.
func (w *watcher) reportDrift(key, what string, data map[string]any) error {
	if key == w.drift {
		return nil
	}
	w.drift = key
	if key == "" {
		return w.emit("drift.gone", "switch", "notice", "the switch is as it should be", nil)
	}
	return w.emit("drift.found", "switch", "warning", "not as it should be: "+what, data)
}

// mend puts flows and offloads back. What the database should hold is only
// reported: somebody may have meant it.
func (w *watcher) mend(ctx context.Context, c *Config, v *Survey) error {
	var flows, offload []string
	for _, ch := range v.Plan.Changes {
		switch ch.Kind {
		case "flows":
			flows = append(flows, ch.Name)
		case "offload":
			offload = append(offload, ch.Name)
		}
	}
	if len(flows) == 0 && len(offload) == 0 {
		return nil
	}
	s := w.setup
	data := map[string]any{"flows": flows, "offload": offload}
	s.record(ctx, true, "ovs.mend.intent", "notice", "flows and offloads are put back", data)
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	var errs []error
	if len(flows) > 0 {
		errs = append(errs, s.putFlows(ctx, c, v.State))
	}
	if len(offload) > 0 {
		for _, t := range offloadTargets(c, v.State, v.Links) {
			errs = append(errs, s.switchOff(t)) // trying a driver that refuses again won't help
		}
	}
	err := errors.Join(errs...)
	data["ok"] = err == nil
	s.record(ctx, true, "ovs.mend.outcome", "notice", "flows and offloads were put back", data)
	s.Journal.Close()    // the next may be hours away
	w.dirty = time.Now() // see whether it holds
	return err
}
