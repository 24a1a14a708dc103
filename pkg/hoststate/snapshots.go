package hoststate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/ghostbridge/ghostbridge/pkg/durable"
	"github.com/ghostbridge/ghostbridge/pkg/names"
	"github.com/ghostbridge/ghostbridge/pkg/snap"
)

// Snapshots is which snapshots of the log are kept. How often they are taken is
// btrfs-snapshot.timer's, which is no setting, but a unit.
type Snapshots struct {
	Grid     *string `json:"grid,omitempty" doc:"which stay: so many of each time, such as 60x1s,60x1m,24x1h,30x1d"`
	MaxCount *int    `json:"max_count,omitempty" doc:"never more than so many; 0 for no limit" min:"0" max:"1000000"`
	MinFree  *string `json:"min_free,omitempty" doc:"below so much free space, such as 2G, the oldest go"`
}

const snapshotsPlugin = "snapshots"

// snapshotKeys are the settings: key, gb-snap's environment variable, and what
// it does without.
var snapshotKeys = []struct{ key, variable, without string }{
	{"grid", "GB_SNAP_GRID", snap.DefaultPolicy.Grid.String()},
	{"max_count", "GB_SNAP_MAX_COUNT", strconv.Itoa(snap.DefaultPolicy.MaxCount)},
	{"min_free", "GB_SNAP_MIN_FREE", ""},
}

// value is a setting of the document as the variable has it, nil if it is not
// named.
func (s *Snapshots) value(key string) *string {
	switch {
	case key == "grid":
		return s.Grid
	case key == "min_free":
		return s.MinFree
	case s.MaxCount == nil:
		return nil
	}
	n := strconv.Itoa(*s.MaxCount)
	return &n
}

func checkSnapshots(p *Plugins) error {
	s := p.Snapshots
	if s == nil {
		return nil
	}
	if s.Grid != nil {
		if _, err := snap.ParseGrid(*s.Grid); err != nil {
			return wrong("plugins.snapshots.grid", "%v", err)
		}
	}
	if s.MinFree != nil && *s.MinFree != "" {
		if _, err := snap.ParseBytes(*s.MinFree); err != nil {
			return wrong("plugins.snapshots.min_free", "%v", err)
		}
	}
	return nil
}

// A SnapshotsPlugin writes settings of gb-snap into a file of environment
// variables of its own, which the units read after /etc/default/ghostbridge.
type SnapshotsPlugin struct {
	Root  string
	File  string // names.SnapshotSettings, on a host
	NixOS bool
}

// About implements Plugin.
func (s *SnapshotsPlugin) About() About {
	return About{Name: snapshotsPlugin, Doc: "which snapshots of the log are kept"}
}

// Available implements Plugin.
func (s *SnapshotsPlugin) Available(context.Context) string { return "" }

// variables reads a file as systemd does (systemd.exec(5), EnvironmentFile=),
// but for continued lines.
func variables(path string) (map[string]string, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	out := make(map[string]string)
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		key, value, ok := strings.Cut(line, "=")
		if !ok || strings.HasPrefix(line, "#") || strings.HasPrefix(line, ";") {
			continue
		}
		if n := len(value); n > 1 && (value[0] == '"' || value[0] == '\'') && value[n-1] == value[0] {
			value = value[1 : n-1]
		}
		out[strings.TrimSpace(key)] = value
	}
	return out, err
}

// current returns what counts now, by key.
func (s *SnapshotsPlugin) current() (map[string]string, error) {
	base, err := variables(filepath.Join(s.Root, "etc/default/ghostbridge"))
	if err != nil {
		return nil, err
	}
	own, err := variables(s.File)
	if err != nil {
		return nil, err
	}
	out := make(map[string]string)
	for _, k := range snapshotKeys {
		out[k.key] = k.without
		if v, there := base[k.variable]; there {
			out[k.key] = v
		}
		if v, there := own[k.variable]; there {
			out[k.key] = v
		}
	}
	return out, nil
}

// Read implements Plugin.
func (s *SnapshotsPlugin) Read(context.Context, *Document) (any, error) {
	have, err := s.current()
	if err != nil {
		return nil, err
	}
	grid, free := have["grid"], have["min_free"]
	out := Snapshots{Grid: &grid, MinFree: &free}
	if n, err := strconv.Atoi(have["max_count"]); err == nil {
		out.MaxCount = &n
	}
	return out, nil
}

// Plan implements Plugin.
func (s *SnapshotsPlugin) Plan(_ context.Context, d *Document, p *Plan) error {
	want := d.Plugins.Snapshots
	if want == nil {
		return nil
	}
	have, err := s.current()
	if err != nil {
		return err
	}
	before, err := s.content()
	if err != nil {
		return err
	}
	own, err := variables(s.File)
	if err != nil {
		return err
	}
	var after strings.Builder
	after.WriteString("# Written by opdbus apply. It wins over /etc/default/ghostbridge.\n")
	changed := false
	for _, k := range snapshotKeys {
		w := want.value(k.key)
		if w != nil && *w != have[k.key] {
			changed = true
			p.differs(snapshotsPlugin, k.key, have[k.key], *w)
			if s.NixOS {
				p.block(Blocked{Plugin: snapshotsPlugin, Path: k.key, Reason: "Nix owns the unit's settings",
					Nix: fmt.Sprintf("systemd.services.btrfs-snapshot.environment.%s = %s;", k.variable, nixString(*w))})
			}
			fmt.Fprintf(&after, "%s=%s\n", k.variable, *w)
		} else if v, there := own[k.variable]; there {
			fmt.Fprintf(&after, "%s=%s\n", k.variable, v)
		}
	}
	p.Basis[snapshotsPlugin] = mustJSON(map[string]any{"in_force": have, "file": before})
	if !changed || s.NixOS {
		return nil
	}
	op := func(member string, content any) Operation {
		o := operation(names.BusName, names.BusObject, names.BusInterface+".Snapshots", member, "s", string(mustJSON(content)))
		o.Own = true
		return o
	}
	undo := op("Restore", before)
	p.Actions = append(p.Actions, Action{Plugin: snapshotsPlugin, Object: "retention", Verb: "set", Before: mustJSON(before), After: mustJSON(after.String()),
		Do: op("Configure", after.String()), Undo: &undo})
	return nil
}

// content returns the file's, nil if there is none.
func (s *SnapshotsPlugin) content() (*string, error) {
	b, err := os.ReadFile(s.File)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	text := string(b)
	return &text, err
}

// put writes the file that an operation has, or removes it.
func (s *SnapshotsPlugin) put(op Operation) func(context.Context, Send) (json.RawMessage, error) {
	return func(context.Context, Send) (json.RawMessage, error) {
		var args []string
		var content *string
		if err := json.Unmarshal(op.Args, &args); err != nil || len(args) != 1 {
			return nil, errors.New("the action has not one argument")
		}
		if err := json.Unmarshal([]byte(args[0]), &content); err != nil {
			return nil, err
		}
		if content != nil {
			return nil, durable.Replace(s.File, []byte(*content), 0o644)
		}
		if err := os.Remove(s.File); err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil, nil
			}
			return nil, err
		}
		return nil, durable.SyncDir(filepath.Dir(s.File))
	}
}

// Do implements Plugin.
func (s *SnapshotsPlugin) Do(ctx context.Context, g Gate, a *Action, _ DoOptions) (json.RawMessage, error) {
	now, err := s.content()
	if err != nil {
		return nil, err
	}
	if err := expect(a, now); err != nil {
		return nil, err
	}
	return nil, g.Do(ctx, a.Do, s.put(a.Do))
}

// Undo implements Plugin.
func (s *SnapshotsPlugin) Undo(ctx context.Context, g Gate, a *Action, _ json.RawMessage) error {
	return g.Undo(ctx, *a.Undo, s.put(*a.Undo))
}
