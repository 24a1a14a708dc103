package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/chain"
	"github.com/ghostbridge/ghostbridge/pkg/snap"
	"github.com/ghostbridge/ghostbridge/pkg/subvol"
	"github.com/ghostbridge/ghostbridge/pkg/web/timeline"
)

// Snapshots is the directory of snapshots, to look at.
type Snapshots interface {
	// Look reads the directory; it changes nothing.
	Look(ctx context.Context) (*SnapshotsState, error)
}

// A SnapshotsState is what there is.
type SnapshotsState struct {
	Dir     string
	Status  *snap.Status // nil if it can't be told
	Trouble string       // why not
	List    []SnapshotState
}

// A SnapshotState is one snapshot.
type SnapshotState struct {
	Name    string
	Time    time.Time
	UUID    string
	Changed *uint64 // bytes of new data since the one before, nil if not known
	Holds   []string
}

// SnapshotsDir looks at a directory of snapshots itself.
type SnapshotsDir struct {
	Dir    string
	Run    string // where gb-snap take leaves what status reads
	Source string // the subvolume that they are of, "" to take what take says
	Period time.Duration
}

// Look implements Snapshots.
func (d SnapshotsDir) Look(context.Context) (*SnapshotsState, error) {
	store, err := snap.OpenStore(subvol.System{}, d.Dir)
	if err != nil {
		return nil, err
	}
	list, err := store.List()
	if err != nil {
		return nil, err
	}
	s := &SnapshotsState{Dir: store.Dir()}
	ticks, err := snap.ReadTicks(snap.TicksFile(d.Run, store))
	if err == nil {
		s.Status, err = store.Status(d.Source, ticks, d.Period)
	}
	if err != nil {
		s.Trouble = err.Error()
	}
	holders, err := store.Holders(list, nil)
	if err != nil {
		holders = nil
	}
	changed := store.Changes(list)
	for i, sn := range list {
		s.List = append(s.List, SnapshotState{sn.Name, sn.Time, sn.UUID.String(), changed[i], holders[sn.UUID]})
	}
	return s, nil
}

// A snapshotsView is how taking snapshots goes.
type snapshotsView struct {
	Dir       string         `json:"dir"`
	Healthy   bool           `json:"healthy"`
	Trouble   string         `json:"trouble,omitempty"`
	Status    *snap.Status   `json:"status"`
	Snapshots []snapshotView `json:"snapshots"` // newest first
	Total     int            `json:"total"`
	Older     string         `json:"older,omitempty"` // parameter before of the next page
	Cadence   *bars          `json:"-"`
	Sizes     *bars          `json:"-"`
	Deleted   []deletion     `json:"deleted"` // reasons of deletions, as the newest events tell
	Looked    int64          `json:"-"`
	Lag       *float64       `json:"index_lag_events,omitempty"` // events that the index has not applied
}

type snapshotView struct {
	Name    string    `json:"name"`
	Time    time.Time `json:"time"`
	UUID    string    `json:"uuid"`
	Changed *uint64   `json:"changed_bytes"`
	Holds   []string  `json:"holds"`
	Gap     *float64  `json:"gap_seconds"` // since the one before
	Before  string    `json:"-"`           // name of the one before
}

type deletion struct {
	Reason string    `json:"reason"`
	Count  int       `json:"count"`
	Last   time.Time `json:"last"`
}

const (
	snapshotPage   = 60
	snapshotPlot   = 150
	deletionEvents = 20_000
)

func (s *Server) snapshots(r *request) (any, error) {
	if s.Snapshots == nil {
		return nil, fail(http.StatusServiceUnavailable, "there are no snapshots here").hint("gb-web serve --snapshots names their directory")
	}
	st, err := s.Snapshots.Look(r.ctx)
	if err != nil {
		f := fail(http.StatusServiceUnavailable, "the snapshots can't be read: %v", err)
		var h interface{ Hint() string }
		if errors.As(err, &h) {
			f.Advice = h.Hint()
		}
		return nil, f
	}
	v := &snapshotsView{Dir: st.Dir, Status: st.Status, Trouble: st.Trouble, Snapshots: []snapshotView{}, Total: len(st.List), Deleted: []deletion{}}
	v.Healthy = st.Status != nil && st.Status.Healthy
	before, err := r.text("before", 100)
	if err != nil {
		return nil, err
	}
	for i := len(st.List) - 1; i >= 0; i-- {
		x := st.List[i]
		if before != "" && x.Name >= before {
			continue
		}
		if len(v.Snapshots) == snapshotPage {
			v.Older = v.Snapshots[snapshotPage-1].Name
			break
		}
		one := snapshotView{Name: x.Name, Time: x.Time, UUID: x.UUID, Changed: x.Changed, Holds: x.Holds}
		if one.Holds == nil {
			one.Holds = []string{}
		}
		if i > 0 {
			gap := x.Time.Sub(st.List[i-1].Time).Seconds()
			one.Gap, one.Before = &gap, st.List[i-1].Name
		}
		v.Snapshots = append(v.Snapshots, one)
	}
	if strings.HasPrefix(r.URL.Path, apiPrefix) {
		return v, s.deletions(r, v)
	}
	recent := st.List[max(0, len(st.List)-snapshotPlot):]
	period := 1.0
	if st.Status != nil {
		period = st.Status.Period
	}
	v.Cadence, v.Sizes = cadence(recent, period), sizesPlot(recent)
	return v, s.deletions(r, v)
}

// deletions counts the reasons that events of gb-snap give.
func (s *Server) deletions(r *request, v *snapshotsView) error {
	p, err := s.log.Before(r.ctx, 0, -1, deletionEvents, timeline.NewChoice(&chain.Filter{Types: []string{"snapshot.*"}}, nil), deletionEvents)
	if err != nil {
		return err
	}
	v.Looked = p.To - p.From
	at := map[string]int{}
	for _, row := range p.Rows {
		e := row.Event
		if e == nil || !strings.HasPrefix(e.Type, "snapshot.") || e.Type == "snapshot.taken" {
			continue
		}
		var d struct {
			Reason    string
			Count     int
			Snapshots []any
		}
		if json.Unmarshal(e.Data, &d) != nil || d.Reason == "" {
			continue
		}
		n := max(d.Count, len(d.Snapshots), 1)
		reason := line(d.Reason, shortField)
		i, ok := at[reason]
		if !ok {
			i = len(v.Deleted)
			at[reason] = i
			v.Deleted = append(v.Deleted, deletion{Reason: reason, Last: e.At})
		}
		v.Deleted[i].Count += n
	}
	slices.SortFunc(v.Deleted, func(a, b deletion) int { return b.Count - a.Count })
	return nil
}

// cadence plots how long each snapshot came after the one before; the line is
// the period that is wanted.
func cadence(list []SnapshotState, period float64) *bars {
	if len(list) < 2 {
		return nil
	}
	top := 2 * period
	var gaps []float64
	for i := 1; i < len(list); i++ {
		g := list[i].Time.Sub(list[i-1].Time).Seconds()
		gaps = append(gaps, g)
	}
	sorted := slices.Clone(gaps)
	slices.Sort(sorted)
	top = max(top, sorted[(len(sorted)-1)*95/100]*1.1) // one long pause is not to flatten all
	b := &bars{Width: plotWidth, Height: plotHeight, Max: span(time.Duration(top * float64(time.Second))), HasLine: true, Line: round(plotHeight - period/top*plotHeight)}
	w := float64(plotWidth) / float64(len(gaps))
	late := 0
	for i, g := range gaps {
		look := "note"
		if g > 1.5*period {
			look = "warn"
			late++
		}
		h := min(max(g/top*plotHeight, 1), plotHeight)
		b.Bars = append(b.Bars, plotBar{round(float64(i) * w), round(plotHeight - h), round(max(w-1, .5)), round(h), look,
			fmt.Sprintf("%s: %s after the one before", list[i+1].Time.Local().Format(time.TimeOnly), span(time.Duration(g*float64(time.Second))))})
	}
	b.From, b.To = list[0].Time.Local().Format(time.TimeOnly), list[len(list)-1].Time.Local().Format(time.TimeOnly)
	b.Label = fmt.Sprintf("time between snapshots from %s to %s; %d of %d came more than one and a half periods after the one before", b.From, b.To, late, len(gaps))
	return b
}

// sizesPlot plots how much each snapshot brought.
func sizesPlot(list []SnapshotState) *bars {
	var sizes []uint64
	for i, x := range list {
		if x.Changed != nil && i > 0 {
			sizes = append(sizes, *x.Changed)
		}
	}
	if len(sizes) == 0 {
		return nil
	}
	slices.Sort(sizes)
	most := sizes[len(sizes)-1]
	// One large one, such as the first, is not to flatten all.
	top := max(min(most, 2*sizes[(len(sizes)-1)*95/100]), 1)
	b := &bars{Width: plotWidth, Height: plotHeight, Max: bytesText(most)}
	w := float64(plotWidth) / float64(max(len(list)-1, 1))
	for i, x := range list {
		if i == 0 || x.Changed == nil {
			continue
		}
		h := min(max(float64(*x.Changed)/float64(top)*(plotHeight-2), .5), plotHeight)
		b.Bars = append(b.Bars, plotBar{round(float64(i-1) * w), round(plotHeight - h), round(max(w-1, .5)), round(h), "info", x.Time.Local().Format(time.TimeOnly) + ": " + bytesText(*x.Changed)})
	}
	b.From, b.To = list[0].Time.Local().Format(time.TimeOnly), list[len(list)-1].Time.Local().Format(time.TimeOnly)
	b.Label = fmt.Sprintf("new data of each snapshot from %s to %s, at most %s", b.From, b.To, b.Max)
	return b
}

// A snapshotDiff is what differs between the files of two snapshots.
type snapshotDiff struct {
	Old   string        `json:"old"`
	New   string        `json:"new"`
	Files []changedFile `json:"files"`
	More  bool          `json:"more"` // there are more than are shown
}

type changedFile struct {
	Path   string `json:"path"`
	What   string `json:"what"` // appeared, vanished or changed
	Before int64  `json:"bytes_before"`
	After  int64  `json:"bytes_after"`
}

const (
	maxDiffWalk = 50_000 // files of a snapshot that are looked at
	maxDiffShow = 500
)

// snapshotDiff compares the files of two snapshots by size and time: what is in
// them says more, and gb-snap send has all of it.
func (s *Server) snapshotDiff(r *request) (any, error) {
	dir, ok := s.Snapshots.(SnapshotsDir)
	if !ok {
		return nil, fail(http.StatusServiceUnavailable, "there are no snapshots here").hint("gb-web serve --snapshots names their directory")
	}
	v := &snapshotDiff{Files: []changedFile{}}
	for name, f := range map[string]*string{"old": &v.Old, "new": &v.New} {
		text, err := r.text(name, 100)
		if err != nil {
			return nil, err
		}
		if _, ok := snap.ParseName(text); !ok {
			return nil, fail(http.StatusBadRequest, "%s %.60q is no snapshot", name, text)
		}
		*f = text
	}
	before, err := walk(r.ctx, filepath.Join(dir.Dir, v.Old))
	if err != nil {
		return nil, err
	}
	after, err := walk(r.ctx, filepath.Join(dir.Dir, v.New))
	if err != nil {
		return nil, err
	}
	for path, a := range after {
		b, was := before[path]
		switch {
		case !was:
			v.Files = append(v.Files, changedFile{clean(path), "appeared", 0, a.Size()})
		case a.Size() != b.Size() || !a.ModTime().Equal(b.ModTime()) || a.Mode() != b.Mode():
			v.Files = append(v.Files, changedFile{clean(path), "changed", b.Size(), a.Size()})
		}
	}
	for path, b := range before {
		if _, is := after[path]; !is {
			v.Files = append(v.Files, changedFile{clean(path), "vanished", b.Size(), 0})
		}
	}
	slices.SortFunc(v.Files, func(a, b changedFile) int { return strings.Compare(a.Path, b.Path) })
	if len(v.Files) > maxDiffShow {
		v.Files, v.More = v.Files[:maxDiffShow], true
	}
	return v, nil
}

func walk(ctx context.Context, dir string) (map[string]fs.FileInfo, error) {
	out := map[string]fs.FileInfo{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			if path == "." {
				return err
			}
			return nil // not for us to see
		}
		if d.IsDir() {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return nil
		}
		if out[path] = info; len(out) > maxDiffWalk {
			return fail(http.StatusUnprocessableEntity, "there are more than %d files in it", maxDiffWalk)
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fail(http.StatusNotFound, "there is no snapshot %s any more", filepath.Base(dir))
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil, fail(http.StatusForbidden, "the user of gb-web may not read snapshot %s", filepath.Base(dir))
	}
	return out, err
}
