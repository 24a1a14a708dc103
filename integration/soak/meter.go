//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/layout"
	"github.com/ghostbridge/ghostbridge/pkg/subvol"
)

// A meter measures processes and disks every so often.
type meter struct {
	s     *soak
	every time.Duration

	mu      sync.Mutex
	samples map[string][]sample // by role
	peaks   map[string][]peakOf // of processes that live short
	disks   []diskSample
	lags    []lag // of the index in a file
}

type sample struct {
	at      time.Duration
	pid     int
	age     time.Duration
	memory  int64 // bytes that are the process's own: RssAnon
	files   int   // open
	threads int
}

type peakOf struct {
	at    time.Duration
	bytes int64
}

type diskSample struct {
	at        time.Duration
	snapshots int   // that are there
	deleted   int   // snapshots that btrfs has not done with
	others    int   // files other than segments, snapshots and the filler
	used      int64 // bytes of the btrfs
}

type lag struct {
	at, behind time.Duration
}

func newMeter(s *soak) *meter {
	return &meter{s: s, every: min(2*time.Second, s.o.duration/20), samples: make(map[string][]sample), peaks: make(map[string][]peakOf)}
}

func (m *meter) loop(ctx context.Context) {
	type passed struct {
		at   time.Time
		size int64
	}
	var history []passed // sizes of the log that the index has not reached
	for n := 0; ctx.Err() == nil; n++ {
		at := time.Since(m.s.begin)
		for _, name := range m.s.names {
			pid, age := m.s.roles[name].pid()
			if pid == 0 {
				continue
			}
			if sm, ok := measure(pid); ok {
				sm.at, sm.pid, sm.age = at, pid, age
				m.mu.Lock()
				m.samples[name] = append(m.samples[name], sm)
				m.mu.Unlock()
			}
		}
		if n%5 == 0 {
			d, err := m.disk()
			if err != nil {
				m.s.violate("%v", err)
			}
			d.at = at
			m.mu.Lock()
			m.disks = append(m.disks, d)
			m.mu.Unlock()
			if d.snapshots > maxSnapshots {
				m.s.violate("%d snapshots, and no more than %d are allowed", d.snapshots, maxSnapshots)
			}
		}
		_, end := m.s.ledger.counts()
		history = append(history, passed{time.Now(), end})
		size, err := m.s.file.at()
		if err != nil {
			m.s.violate("%v", err)
		}
		for len(history) > 0 && history[0].size <= size {
			history = history[1:]
		}
		l := lag{at: at}
		if len(history) > 0 {
			l.behind = time.Since(history[0].at)
		}
		m.mu.Lock()
		m.lags = append(m.lags, l)
		m.mu.Unlock()
		sleep(ctx, m.every)
	}
}

// peak notes how much memory a process has taken at most.
func (m *meter) peak(role string, n int64) {
	if n == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.peaks[role] = append(m.peaks[role], peakOf{time.Since(m.s.begin), n})
}

func measure(pid int) (s sample, ok bool) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return s, false
	}
	field := func(name string) int64 {
		_, rest, found := bytes.Cut(status, []byte("\n"+name+":"))
		words := strings.Fields(string(rest[:min(len(rest), 64)]))
		if !found || len(words) == 0 {
			return 0
		}
		n, _ := strconv.ParseInt(words[0], 10, 64)
		return n
	}
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return s, false
	}
	s = sample{memory: field("RssAnon") << 10, files: len(files), threads: int(field("Threads"))}
	return s, s.memory > 0
}

// disk looks at what is on the disks. What vanishes while it looks is not there.
func (m *meter) disk() (d diskSample, err error) {
	h := m.s.h
	var sys subvol.System
	entries, err := os.ReadDir(h.snapshots())
	if err != nil {
		return d, err
	}
	for _, e := range entries {
		if e.IsDir() && strings.HasPrefix(e.Name(), "2") {
			d.snapshots++
		}
	}
	if d.deleted, err = sys.Backlog(h.snapshots()); err != nil {
		return d, err
	}
	space, err := sys.Space(h.data)
	if err != nil {
		return d, err
	}
	if fi, err := os.Stat(h.filler("data")); err == nil {
		d.used -= fi.Size()
	}
	d.used += int64(space.DataUsed + space.MetadataUsed)
	d.others, err = h.otherFiles()
	return d, err
}

// otherFiles counts files that are neither a segment nor in a snapshot.
func (h *host) otherFiles() (n int, err error) {
	for _, root := range []string{h.source(), h.snapshots(), filepath.Join(h.data, vectors), h.state, h.run} {
		err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				if os.IsNotExist(err) {
					return nil
				}
				return err
			}
			if e.IsDir() {
				if root == h.snapshots() && path != root && strings.HasPrefix(e.Name(), "2") || e.Name() == "tile" {
					return fs.SkipDir
				}
				return nil
			}
			if _, segment := layout.ParseSegmentName(e.Name()); !segment && path != h.filler("data") && path != h.filler("state") {
				n++
			}
			return nil
		})
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

func (m *meter) snapshotsNow() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.disks) == 0 {
		return 0
	}
	return m.disks[len(m.disks)-1].snapshots
}

// A window is a part of a run.
type window struct{ from, to time.Duration }

func (w window) has(at time.Duration) bool { return at >= w.from && at < w.to }

// windows are the two that are compared: after the warm-up, and the end.
func windows(d time.Duration) (warm, end window) {
	return window{d / 4, d / 2}, window{d * 3 / 4, d + time.Hour}
}

func median[T int | int64 | time.Duration](list []T) T {
	if len(list) == 0 {
		return 0
	}
	list = slices.Clone(list)
	slices.Sort(list)
	return list[len(list)/2]
}

func pick[S any, T any](list []S, in func(S) bool, of func(S) T) (out []T) {
	for _, s := range list {
		if in(s) {
			out = append(out, of(s))
		}
	}
	return out
}

// A growth is a figure after the warm-up and at the end.
type growth struct {
	What string `json:"what"`
	Unit string `json:"unit"`
	Warm int64  `json:"warm"`
	End  int64  `json:"end"`
	Most int64  `json:"most"` // in the whole run
	Grew bool   `json:"grew"` // more than the slack
	N    int    `json:"n,omitempty"`
}

// short is below which a run is too short for its growth to say anything but
// that it is not monstrous.
const short = 4 * time.Minute

// compare says how a figure has grown; slack is what it may, beside a fifth.
func compare(what, unit string, warm, end, all []int64, slack int64, d time.Duration) growth {
	g := growth{What: what, Unit: unit, Warm: median(warm), End: median(end), N: len(all)}
	if len(all) > 0 {
		g.Most = slices.Max(all)
	}
	limit := g.Warm + g.Warm/5 + slack
	if d < short {
		limit = 3*g.Warm + 4*slack
	}
	g.Grew = len(warm) > 0 && g.End > limit
	return g
}

// growths compares all that was measured.
func (m *meter) growths() (list []growth) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.s.o.duration
	warm, end := windows(d)
	for _, name := range m.s.names {
		all := m.samples[name]
		if peaks := m.peaks[name]; len(peaks) > 0 {
			of := func(w window) []int64 {
				return pick(peaks, func(p peakOf) bool { return w.has(p.at) }, func(p peakOf) int64 { return p.bytes })
			}
			list = append(list, compare(name+": peak memory of a process", "B", of(warm), of(end), of(window{0, d * 2}), 12<<20, d))
		} else if len(all) > 0 {
			of := func(w window) []int64 {
				return pick(all, func(s sample) bool { return w.has(s.at) }, func(s sample) int64 { return s.memory })
			}
			list = append(list, compare(name+": memory", "B", of(warm), of(end), of(window{0, d * 2}), 12<<20, d))
		}
		if len(all) > 0 {
			of := func(w window) []int64 {
				return pick(all, func(s sample) bool { return w.has(s.at) }, func(s sample) int64 { return int64(s.files) })
			}
			list = append(list, compare(name+": open files", "", of(warm), of(end), of(window{0, d * 2}), 4, d))
		}
	}
	disk := func(what, unit string, slack int64, f func(diskSample) int64) {
		of := func(w window) []int64 { return pick(m.disks, func(s diskSample) bool { return w.has(s.at) }, f) }
		list = append(list, compare(what, unit, of(warm), of(end), of(window{0, d * 2}), slack, d))
	}
	// How many there are goes with how the clock was stepped of late: those of times
	// that it has left are in slots of their own. What must hold is the limit, which
	// loop sees to.
	disk("snapshots", "", maxSnapshots, func(s diskSample) int64 { return int64(s.snapshots) })
	disk("deleted snapshots that btrfs has not done with", "", 10, func(s diskSample) int64 { return int64(s.deleted) })
	disk("bytes on the btrfs", "B", 256<<20, func(s diskSample) int64 { return s.used })
	disk("files beside segments and snapshots", "", 10, func(s diskSample) int64 { return int64(s.others) })
	return list
}

// lifetimes compares each process that lived through most of a calm at the
// begin and at the end of it.
func (m *meter) lifetimes() (list []growth) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for n, p := range phases(m.s.o.duration) {
		calm := p.end - p.calm
		if calm < time.Minute {
			continue
		}
		for _, name := range m.s.names {
			byPID := make(map[int][]sample)
			for _, s := range m.samples[name] {
				if s.at >= p.calm && s.at < p.end && s.age > 15*time.Second {
					byPID[s.pid] = append(byPID[s.pid], s)
				}
			}
			for _, life := range byPID {
				if life[len(life)-1].at-life[0].at < calm/2 {
					continue
				}
				part := max(1, len(life)/4)
				memory := func(s sample) int64 { return s.memory }
				files := func(s sample) int64 { return int64(s.files) }
				every := func(sample) bool { return true }
				list = append(list,
					compare(fmt.Sprintf("%s in calm %d: memory", name, n+1), "B", pick(life[:part], every, memory), pick(life[len(life)-part:], every, memory), pick(life, every, memory), 12<<20, m.s.o.duration),
					compare(fmt.Sprintf("%s in calm %d: open files", name, n+1), "", pick(life[:part], every, files), pick(life[len(life)-part:], every, files), pick(life, every, files), 4, m.s.o.duration),
				)
			}
		}
	}
	return list
}

// behind returns the lags of the index in the calms, but for their first
// quarters, and in all.
func (m *meter) behind() (calm, all []time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range m.lags {
		all = append(all, l.behind)
		for _, p := range phases(m.s.o.duration) {
			if l.at >= p.calm+(p.end-p.calm)/4 && l.at < p.end {
				calm = append(calm, l.behind)
			}
		}
	}
	return calm, all
}
