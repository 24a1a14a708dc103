package hoststate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/bus"
	"github.com/ghostbridge/ghostbridge/pkg/dbusjson"
)

// Systemd is the part of a document about units.
type Systemd struct {
	Units map[string]Unit `json:"units" doc:"units, by their full names" required:"true"`
}

// A Unit is how a unit should be; what is left out is left alone.
type Unit struct {
	Active  *bool `json:"active,omitempty" doc:"whether it runs"`
	Enabled *bool `json:"enabled,omitempty" doc:"whether it is started as its [Install] section says, at boot above all"`
	Masked  *bool `json:"masked,omitempty" doc:"whether nothing can start it"`
}

const (
	systemd1        = "org.freedesktop.systemd1"
	systemd1Path    = "/org/freedesktop/systemd1"
	systemd1Manager = "org.freedesktop.systemd1.Manager"
	systemd1Unit    = "org.freedesktop.systemd1.Unit"
	systemdPlugin   = "systemd"
)

// unitTypes are the suffixes of units that a document may name, and where
// NixOS has them.
var unitTypes = map[string]string{"service": "services", "socket": "sockets", "timer": "timers", "path": "paths", "target": "targets",
	"mount": "mounts", "automount": "automounts", "slice": "slices", "swap": "units"}

// etcUnits is where masks are links to /dev/null.
const etcUnits = "/etc/systemd/system/"

func unitSuffix(name string) string { return name[strings.LastIndexByte(name, '.')+1:] }

// validUnit is systemd.unit(5): at most 255 characters of a small set, and a
// suffix. A template without an instance is no unit that can run.
func validUnit(name string) bool {
	if len(name) > 255 || unitTypes[unitSuffix(name)] == "" {
		return false
	}
	stem := strings.TrimSuffix(name, "."+unitSuffix(name))
	if stem == "" || stem == name || stem[0] == '@' {
		return false
	}
	for _, r := range stem {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune(":-_.\\@", r) {
			return false
		}
	}
	return true
}

func checkSystemd(p *Plugins) error {
	if p.Systemd == nil {
		return nil
	}
	for _, name := range keys(p.Systemd.Units) {
		u, path := p.Systemd.Units[name], "plugins.systemd.units."+name
		if !validUnit(name) {
			err := wrong(path, "%.80q is no full name of a unit", name)
			err.Advice = "a name with its type, such as nginx.service; one of: " + strings.Join(keys(unitTypes), ", ")
			return err
		}
		if u.Masked != nil && *u.Masked && u.Active != nil && *u.Active {
			return wrong(path, "a masked unit can't be active")
		}
		if u.Masked != nil && *u.Masked && u.Enabled != nil && *u.Enabled {
			return wrong(path, "a masked unit can't be enabled")
		}
		if strings.HasSuffix(strings.TrimSuffix(name, "."+unitSuffix(name)), "@") && u.Active != nil {
			return wrong(path+".active", "a template does not run; its instances do")
		}
	}
	return nil
}

// A unitNow is what a plan is made of.
type unitNow struct {
	ID        string `json:"id"` // differs from the name for an alias
	Load      string `json:"load"`
	Active    string `json:"active"` // active or inactive, see running
	File      string `json:"file"`   // state of the unit file, "" if there is none
	Transient bool   `json:"transient,omitempty"`
	Fragment  string `json:"fragment,omitempty"` // path of its file, while it is not masked
	Ends      bool   `json:"ends,omitempty"`     // it runs and ends: nothing keeps it active
}

// The states of Active.
const (
	active   = "active"
	inactive = "inactive"
)

// running folds the states that come and go into the two that a document
// knows: what is starting, or reloading, is active.
func running(state, sub string) string {
	switch {
	case state == "activating" && sub != "auto-restart", state == "active", state == "reloading":
		return active
	}
	return inactive
}

// SystemdPlugin starts, stops, enables, disables and masks units through
// org.freedesktop.systemd1.
//
// BUG: what a unit pulls in when it is started, or names in Also= when it is
// enabled, is not part of the plan. Taking a start back leaves the first
// running; taking an enabling back disables the second, also where they were
// enabled before.
type SystemdPlugin struct {
	Bus   Bus
	NixOS bool
	// Watch receives what a match chooses.
	Watch func(ctx context.Context, matches ...bus.Match) (Stream, error)
}

// About implements Plugin.
func (s *SystemdPlugin) About() About {
	return About{Name: systemdPlugin, Doc: "units: active, enabled, masked", After: []string{hostnamePlugin, ovsPlugin, openflowPlugin}}
}

// Available implements Plugin.
func (s *SystemdPlugin) Available(ctx context.Context) string {
	_, err := s.manager(ctx, "ListJobs")
	return missing(err)
}

func (s *SystemdPlugin) manager(ctx context.Context, member string, args ...string) (bus.Body, error) {
	c := bus.Call{Name: systemd1, Path: systemd1Path, Interface: systemd1Manager, Member: member}
	if len(args) > 0 {
		c.Args = bus.NewBody("s", args[0])
	}
	return s.Bus.Call(ctx, c)
}

func (s *SystemdPlugin) unit(ctx context.Context, name string) (now unitNow, err error) {
	// What is enabled is read from the disk: the loaded unit may be older.
	b, err := s.manager(ctx, "GetUnitFileState", name)
	var e *bus.Error
	switch {
	case err == nil:
		now.File, _ = b.Values[0].(string)
	case errors.As(err, &e) && !isGone(e):
		// There is no such file.
	default:
		return now, err
	}
	if strings.HasSuffix(strings.TrimSuffix(name, "."+unitSuffix(name)), "@") {
		now.ID, now.Load, now.Active = name, "loaded", inactive
		if now.File == "" {
			now.Load = "not-found"
		}
		return now, nil
	}
	if b, err = s.manager(ctx, "LoadUnit", name); err != nil {
		return now, err
	}
	if b.Signature() != "o" {
		return now, fmt.Errorf("LoadUnit answered %q", b.Signature())
	}
	path := string(b.Values[0].(dbusjson.Path))
	p, err := properties(ctx, s.Bus, systemd1, path, systemd1Unit)
	if err != nil {
		return now, err
	}
	now.ID, now.Load, now.Active = text(p, "Id"), text(p, "LoadState"), running(text(p, "ActiveState"), text(p, "SubState"))
	now.Transient, _ = p["Transient"].(bool)
	now.Fragment = text(p, "FragmentPath")
	if now.ID == "" {
		now.ID = name
	}
	if unitSuffix(name) == "service" && now.Load == "loaded" {
		sp, err := properties(ctx, s.Bus, systemd1, path, "org.freedesktop.systemd1.Service")
		if err == nil {
			remains, _ := sp["RemainAfterExit"].(bool)
			now.Ends = text(sp, "Type") == "oneshot" && !remains
		}
	}
	return now, nil
}

// isGone says whether it is the service that is missing, not the unit.
func isGone(e *bus.Error) bool {
	switch strings.TrimPrefix(e.Name, "org.freedesktop.DBus.Error.") {
	case "ServiceUnknown", "NameHasNoOwner", "NoReply", "Disconnected", "AccessDenied", "UnknownMethod":
		return true
	}
	return false
}

// enabled says whether a unit file's state is that of a unit that is enabled,
// for good.
func enabled(state string) bool { return state == "enabled" }

func masked(state string) bool { return state == "masked" || state == "masked-runtime" }

// Read implements Plugin. Without a document it returns the units that have
// failed, or are enabled.
func (s *SystemdPlugin) Read(ctx context.Context, d *Document) (any, error) {
	out := &Systemd{Units: map[string]Unit{}}
	add := func(name string) error {
		u, err := s.unit(ctx, name)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		a, e, m := u.Active == active, enabled(u.File), masked(u.File)
		out.Units[name] = Unit{&a, &e, &m}
		return nil
	}
	if d != nil {
		if d.Plugins.Systemd == nil {
			return out, nil
		}
		for _, name := range keys(d.Plugins.Systemd.Units) {
			if err := add(name); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	b, err := s.manager(ctx, "ListUnitFiles")
	if err != nil {
		return nil, err
	}
	if b.Signature() != "a(ss)" {
		return nil, fmt.Errorf("ListUnitFiles answered %q", b.Signature())
	}
	for _, row := range b.Values[0].([]any) {
		r := row.([]any)
		path, state := r[0].(string), r[1].(string)
		name := path[strings.LastIndexByte(path, '/')+1:]
		if !enabled(state) && !masked(state) || !validUnit(name) {
			continue
		}
		if err := add(name); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Steps of the plugin's actions: what is to stop stops first, files come
// before the manager reads them, and what is to start starts last.
const (
	stepStop = iota
	stepFiles
	stepReload
	stepStart
)

// Plan implements Plugin.
func (s *SystemdPlugin) Plan(ctx context.Context, d *Document, p *Plan) error {
	if d.Plugins.Systemd == nil {
		return nil
	}
	units := d.Plugins.Systemd.Units
	basis := make(map[string]unitNow)
	var steps [stepStart + 1][]Action
	for _, name := range keys(units) {
		now, err := s.unit(ctx, name)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		basis[name] = now
		if err := s.planUnit(name, units[name], now, p, &steps); err != nil {
			return err
		}
	}
	if len(steps[stepFiles]) > 0 {
		steps[stepReload] = []Action{{Plugin: systemdPlugin, Object: "unit files", Verb: "reload", Before: mustJSON(nil), After: mustJSON(nil),
			Do: operation(systemd1, systemd1Path, systemd1Manager, "Reload", "")}}
	}
	for _, list := range steps {
		p.Actions = append(p.Actions, list...)
	}
	p.Basis[systemdPlugin] = mustJSON(basis)
	return nil
}

func (s *SystemdPlugin) planUnit(name string, want Unit, now unitNow, p *Plan, steps *[stepStart + 1][]Action) error {
	path := "units." + name
	if now.ID != name {
		err := wrong("plugins.systemd."+path, "is another name of %s", now.ID)
		err.Advice = "name " + now.ID
		return err
	}
	there := now.Load != "not-found" || now.File != ""
	action := func(step int, a Action) {
		a.Plugin, a.Object = systemdPlugin, name
		steps[step] = append(steps[step], a)
	}
	block := func(key, reason, nix, hint string) {
		p.block(Blocked{Plugin: systemdPlugin, Path: path + "." + key, Reason: reason, Nix: nix, Hint: hint})
	}
	willMask := want.Masked != nil && *want.Masked
	willUnmask := want.Masked != nil && !willMask && masked(now.File)
	mask := func(yes bool) {
		w := want.Masked
		if w == nil || *w != yes || *w == masked(now.File) {
			return
		}
		p.differs(systemdPlugin, path+".masked", !yes, yes)
		runtime := now.File == "masked-runtime"
		mask := fileOperation("MaskUnitFiles", name, runtime)
		unmask := fileOperation("UnmaskUnitFiles", name, runtime)
		switch {
		case s.NixOS:
			block("masked", "Nix owns /etc/systemd/system", nixUnit(name, "enable", fmt.Sprint(!yes)), "")
		case yes && strings.HasPrefix(now.Fragment, etcUnits):
			block("masked", "its file is in "+etcUnits+", where the mask would be", "", "move the file to /usr/local/lib/systemd/system, or remove it")
		case yes:
			action(stepFiles, Action{Verb: "mask", Before: mustJSON(now.File), After: mustJSON("masked"), Do: mask, Undo: &unmask})
		default:
			action(stepFiles, Action{Verb: "unmask", Before: mustJSON(now.File), After: mustJSON(""), Do: unmask, Undo: &mask})
		}
	}
	// A masked file can't be enabled or disabled.
	mask(false)
	stillMasked := masked(now.File) && (want.Masked == nil || willMask)
	if w := want.Enabled; w != nil && *w != enabled(now.File) && (*w || now.File == "enabled-runtime") {
		p.differs(systemdPlugin, path+".enabled", enabled(now.File), *w)
		enable := fileOperation("EnableUnitFiles", name, false)
		disable := fileOperation("DisableUnitFiles", name, false)
		switch {
		case s.NixOS && *w:
			block("enabled", "Nix owns /etc/systemd/system", nixUnit(name, "wantedBy", `[ "multi-user.target" ]`), "")
		case s.NixOS:
			block("enabled", "Nix owns /etc/systemd/system", nixUnit(name, "wantedBy", "lib.mkForce [ ]"), "")
		case *w && !there:
			block("enabled", "there is no unit file of that name", "", "install what brings it, or correct the name")
		case *w && stillMasked:
			block("enabled", "it is masked", "", `"masked": false takes the mask off`)
		case *w && (now.File == "static" || now.File == "generated" || now.File == "transient" || now.File == "indirect"):
			block("enabled", "its unit file is "+now.File+": it has nothing that enabling could do", "", "something else starts it: systemctl list-dependencies --reverse "+name)
		case *w:
			action(stepFiles, Action{Verb: "enable", Before: mustJSON(now.File), After: mustJSON("enabled"), Do: enable, Undo: &disable})
		default: // enabled until the next boot
			r1, r2 := fileOperation("DisableUnitFiles", name, true), fileOperation("EnableUnitFiles", name, true)
			action(stepFiles, Action{Verb: "disable", Before: mustJSON(now.File), After: mustJSON("disabled"), Do: r1, Undo: &r2})
		}
	} else if w != nil && !*w && (enabled(now.File) || willUnmask) {
		// What is under a mask can't be seen.
		if enabled(now.File) {
			p.differs(systemdPlugin, path+".enabled", true, false)
		}
		undo := fileOperation("EnableUnitFiles", name, false)
		if s.NixOS {
			block("enabled", "Nix owns /etc/systemd/system", nixUnit(name, "wantedBy", "lib.mkForce [ ]"), "")
		} else {
			action(stepFiles, Action{Verb: "disable", Before: mustJSON(now.File), After: mustJSON("disabled"), Do: fileOperation("DisableUnitFiles", name, false), Undo: &undo})
		}
	}
	mask(true)
	if w := want.Active; w != nil && *w != (now.Active == active) {
		p.differs(systemdPlugin, path+".active", now.Active == active, *w)
		start := operation(systemd1, systemd1Path, systemd1Manager, "StartUnit", "ss", name, "replace")
		stop := operation(systemd1, systemd1Path, systemd1Manager, "StopUnit", "ss", name, "replace")
		switch {
		case *w && now.Load == "not-found":
			block("active", "there is no unit of that name", "", "install what brings it, or correct the name")
		case *w && stillMasked:
			block("active", "it is masked", "", `"masked": false takes the mask off`)
		case *w && now.Ends:
			block("active", "it runs and ends (Type=oneshot): nothing keeps it active", "", "opdbus call "+systemd1+" "+systemd1Path+" "+systemd1Manager+".StartUnit "+name+" replace runs it once")
		case *w:
			action(stepStart, Action{Verb: "start", Before: mustJSON(inactive), After: mustJSON(active), Do: start, Undo: &stop, Runtime: true,
				Note: "what it wants and requires is started too, and stays when it is taken back"})
		case now.Transient:
			action(stepStop, Action{Verb: "stop", Before: mustJSON(active), After: mustJSON(inactive), Do: stop, Runtime: true,
				Irreversible: "a transient unit is gone when it stops"})
		case masked(now.File):
			action(stepStop, Action{Verb: "stop", Before: mustJSON(active), After: mustJSON(inactive), Do: stop, Runtime: true,
				Irreversible: "it runs although it is masked, and nothing can start it again"})
		default:
			action(stepStop, Action{Verb: "stop", Before: mustJSON(active), After: mustJSON(inactive), Do: stop, Undo: &start, Runtime: true})
		}
	}
	return nil
}

// fileOperation is one of the calls that change unit files. None of them
// overwrites what others have put there.
func fileOperation(member, unit string, runtime bool) Operation {
	if strings.HasPrefix(member, "Disable") || strings.HasPrefix(member, "Unmask") {
		return operation(systemd1, systemd1Path, systemd1Manager, member, "asb", []any{unit}, runtime)
	}
	return operation(systemd1, systemd1Path, systemd1Manager, member, "asbb", []any{unit}, runtime, false)
}

// nixUnit is the setting of an option of a unit, as NixOS has them.
func nixUnit(name, option, value string) string {
	set := unitTypes[unitSuffix(name)]
	stem := strings.TrimSuffix(name, "."+unitSuffix(name))
	if set == "units" {
		stem = name
	}
	return fmt.Sprintf("systemd.%s.%s.%s = %s;", set, nixString(stem), option, value)
}

// Do implements Plugin.
func (s *SystemdPlugin) Do(ctx context.Context, g Gate, a *Action, _ DoOptions) (json.RawMessage, error) {
	switch a.Verb {
	case "start", "stop":
		now, err := s.unit(ctx, a.Object)
		if err != nil {
			return nil, err
		}
		if err := expect(a, now.Active); err != nil {
			return nil, err
		}
		return nil, g.Do(ctx, a.Do, s.job)
	case "reload":
		return nil, g.Do(ctx, a.Do, sendOnly)
	}
	now, err := s.unit(ctx, a.Object)
	if err != nil {
		return nil, err
	}
	if err := expectFile(a, now.File); err != nil {
		return nil, err
	}
	return mustJSON(now.File), g.Do(ctx, a.Do, sendOnly)
}

// expectFile lets several actions of one plan change one file.
func expectFile(a *Action, have string) error {
	var before string
	if err := json.Unmarshal(a.Before, &before); err != nil {
		return err
	}
	switch {
	case a.Verb == "mask" && !masked(have), a.Verb != "unmask" && masked(before) && !masked(have):
		return nil // after it was disabled; after it was unmasked
	}
	return expect(a, have)
}

// Undo implements Plugin. kept is the state of the unit file right before it
// was changed.
func (s *SystemdPlugin) Undo(ctx context.Context, g Gate, a *Action, kept json.RawMessage) error {
	if a.Verb == "start" || a.Verb == "stop" {
		return g.Undo(ctx, *a.Undo, s.job)
	}
	var was string
	if kept != nil {
		if err := json.Unmarshal(kept, &was); err != nil {
			return err
		}
		if a.Verb == "enable" && enabled(was) || a.Verb == "disable" && !strings.HasPrefix(was, "enabled") {
			return nil // it was so under its mask
		}
	}
	return g.Undo(ctx, *a.Undo, sendOnly)
}

// Settle implements settler: the manager is to see the files as they are.
func (s *SystemdPlugin) Settle(ctx context.Context, g Gate, undone []*Action) error {
	if !slices.ContainsFunc(undone, func(a *Action) bool { return !a.Runtime }) {
		return nil
	}
	return g.Undo(ctx, operation(systemd1, systemd1Path, systemd1Manager, "Reload", ""), sendOnly)
}

// A JobError is a job of the service manager that did not end well.
type JobError struct{ Unit, Result string }

func (e *JobError) Error() string {
	return fmt.Sprintf("the job of %s ended with %q", e.Unit, e.Result)
}

// Hint says what to look at.
func (e *JobError) Hint() string { return "systemctl status " + e.Unit + "; journalctl -u " + e.Unit }

// Subscribe has the service manager send its signals while b is connected. It
// is no error if it does already, or is not there.
func Subscribe(ctx context.Context, b Bus) error {
	_, err := b.Call(ctx, bus.Call{Name: systemd1, Path: systemd1Path, Interface: systemd1Manager, Member: "Subscribe"})
	var e *bus.Error
	if errors.As(err, &e) {
		return nil
	}
	return err
}

// lookAtJob is how often a job is looked for whose end nobody has told.
const lookAtJob = 2 * time.Second

// job makes a call that starts a job, and waits until that ends. The watch
// begins before the call: a job may be over when it answers.
func (s *SystemdPlugin) job(ctx context.Context, send Send) (json.RawMessage, error) {
	w, err := s.Watch(ctx, bus.Match{Sender: systemd1, Path: systemd1Path, Interface: systemd1Manager, Member: "JobRemoved"})
	if err != nil {
		return nil, err
	}
	defer w.Close()
	// The manager tells of jobs while somebody has subscribed.
	if err := Subscribe(ctx, s.Bus); err != nil {
		return nil, err
	}
	b, err := send(ctx)
	if err != nil {
		return nil, err
	}
	if b.Signature() != "o" {
		return nil, fmt.Errorf("answered %q, not a job", b.Signature())
	}
	path := b.Values[0].(dbusjson.Path)
	for {
		unit, result, over, err := s.jobEnd(ctx, w, path)
		switch {
		case err != nil:
			return nil, err
		case over && slices.Contains([]string{"done", "skipped", ""}, result):
			return mustJSON(map[string]string{"job": result}), nil
		case over:
			return nil, &JobError{unit, result}
		}
	}
}

// jobEnd waits for a job's end for a while. It is over with result "" if the
// manager no longer knows it although no signal told of its end.
func (s *SystemdPlugin) jobEnd(ctx context.Context, w Stream, path dbusjson.Path) (unit, result string, over bool, err error) {
	wait, cancel := context.WithTimeout(ctx, lookAtJob)
	defer cancel()
	for {
		sig, err := w.Next(wait)
		if err != nil {
			if ctx.Err() != nil {
				return "", "", false, fmt.Errorf("its job has not ended: %w", ctx.Err())
			}
			if wait.Err() == nil {
				return "", "", false, err
			}
			break
		}
		if sig.Err != nil || sig.Body.Signature() != "uoss" || sig.Body.Values[1] != path {
			continue
		}
		return sig.Body.Values[2].(string), sig.Body.Values[3].(string), true, nil
	}
	b, err := s.manager(ctx, "ListJobs")
	if err != nil {
		return "", "", false, err
	}
	if rows, ok := b.Values[0].([]any); ok && b.Signature() == "a(usssoo)" {
		for _, row := range rows {
			if row.([]any)[4] == path {
				return "", "", false, nil
			}
		}
	}
	// One more chance for a signal that was on its way.
	wait, cancel = context.WithTimeout(ctx, pollEvery)
	defer cancel()
	for {
		sig, err := w.Next(wait)
		if err != nil {
			return "", "", true, nil
		}
		if sig.Err == nil && sig.Body.Signature() == "uoss" && sig.Body.Values[1] == path {
			return sig.Body.Values[2].(string), sig.Body.Values[3].(string), true, nil
		}
	}
}
