package snap

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/subvol"
)

// A Row of a Grid keeps one snapshot for each Every, for Count of them.
type Row struct {
	Count int
	Every time.Duration
}

func (r Row) String() string { return fmt.Sprintf("%dx%s", r.Count, formatEvery(r.Every)) }

// A Grid says how dense snapshots stay as they grow old. Its rows follow one
// after another: the first is for ages from 0 to Count times Every, the next
// begins where it ends. In each slot of a row, which begins at a multiple of
// Every in UTC, the first snapshot stays; as a slot of a coarse row begins
// with one of a fine row, what a coarse row needs is never thinned out before.
// In the first row one stays as well that is three quarters of Every younger
// than the one before it: ticks that come once a period, just around the turn
// of a slot, now fall two into one slot and now none.
type Grid []Row

var units = []struct {
	letter string
	d      time.Duration
}{{"w", 7 * 24 * time.Hour}, {"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}}

func formatEvery(d time.Duration) string {
	for _, u := range units {
		if d%u.d == 0 {
			return strconv.FormatInt(int64(d/u.d), 10) + u.letter
		}
	}
	return d.String()
}

// ParseGrid reads a grid like 60x1s,60x1m,24x1h,30x1d; units are s, m, h, d
// and w.
func ParseGrid(s string) (Grid, error) {
	if strings.TrimSpace(s) == "" {
		return nil, nil
	}
	var g Grid
	for part := range strings.SplitSeq(s, ",") {
		row, err := parseRow(strings.TrimSpace(part))
		if err != nil {
			return nil, fmt.Errorf("grid %q: %q: %w", s, part, err)
		}
		if len(g) > 0 && row.Every < g[len(g)-1].Every {
			return nil, fmt.Errorf("grid %q: %s is finer than what stands before it", s, row)
		}
		g = append(g, row)
	}
	return g, nil
}

func parseRow(s string) (Row, error) {
	count, every, ok := strings.Cut(s, "x")
	n, err := strconv.Atoi(count)
	if !ok || err != nil {
		return Row{}, errors.New("not of the form COUNTxTIME, like 60x1m")
	}
	if n < 1 || n > 1_000_000 {
		return Row{}, errors.New("a count is from 1 to 1000000")
	}
	for _, u := range units {
		num, ok := strings.CutSuffix(every, u.letter)
		if !ok {
			continue
		}
		k, err := strconv.ParseInt(num, 10, 32)
		if err != nil || k < 1 || k > 10_000 {
			return Row{}, errors.New("a time is a number from 1 to 10000 and one of s, m, h, d, w")
		}
		return Row{n, time.Duration(k) * u.d}, nil
	}
	return Row{}, errors.New("a time is a number and one of s, m, h, d, w")
}

func (g Grid) String() string {
	parts := make([]string, len(g))
	for i, r := range g {
		parts[i] = r.String()
	}
	return strings.Join(parts, ",")
}

// row returns the row for an age; ok is false if the age is beyond the grid.
func (g Grid) row(age time.Duration) (r Row, ok bool) {
	for _, r := range g {
		span := time.Duration(r.Count) * r.Every
		if age < span {
			return r, true
		}
		age -= span
	}
	return Row{}, false
}

// A Policy says which snapshots stay.
type Policy struct {
	Grid     Grid
	Keep     int    // the newest of each source that stay in any case, besides the one
	MaxCount int    // snapshots in all, 0 for no limit; the oldest go first
	MinFree  uint64 // bytes to be left free; below, the oldest go first
}

// DefaultPolicy keeps at most 174 snapshots: of a minute each second, of an
// hour each minute, of a day each hour, of a month each day.
var DefaultPolicy = Policy{
	Grid:     Grid{{60, time.Second}, {60, time.Minute}, {24, time.Hour}, {30, 24 * time.Hour}},
	MaxCount: 200,
}

// minFreeStep is how many snapshots go at once for want of space: what they
// free is seen only once the cleaner is done.
const minFreeStep = 8

// A Verdict is what a policy says of a snapshot, and why.
type Verdict struct {
	Snapshot
	Keep   bool
	Held   []string // who holds it
	Reason string
}

// State is what a policy judges by.
type State struct {
	Now       time.Time
	Snapshots []Snapshot // of all sources, those taken first first
	Holders   map[subvol.UUID][]string
	Available uint64 // bytes free
	Room      int    // snapshots about to be taken, for which there must be room below MaxCount
	Full      bool   // nothing can be written any more
}

// Plan judges the snapshots of st, in their order. It touches nothing.
//
// Never dropped are the held ones and the newest of each source, but that of a
// source which is not the newest of all goes if MaxCount or MinFree want it.
// Snapshots of a time yet to come (the clock was set back) are judged as if it
// was the time of the last of them.
func (p Policy) Plan(st State) []Verdict {
	plan := make([]Verdict, len(st.Snapshots))
	var future time.Time
	for i, sn := range st.Snapshots {
		plan[i] = Verdict{Snapshot: sn, Held: st.Holders[sn.UUID]}
		if sn.Time.After(st.Now) && sn.Time.After(future) {
			future = sn.Time
		}
	}
	p.judge(plan, st.Now, future)

	live := 0
	for _, v := range plan {
		if v.Keep {
			live++
		}
	}
	// The newest of all stays: the next increment and the check whether
	// anything changed need it.
	last := len(plan) - 1
	dropOldest := func(n int, reason string) {
		for i := range plan {
			if n <= 0 {
				return
			}
			if v := &plan[i]; v.Keep && len(v.Held) == 0 && i != last {
				v.Keep, v.Reason = false, reason
				n--
			}
		}
	}
	if p.MaxCount > 0 {
		dropOldest(live+st.Room-p.MaxCount, fmt.Sprintf("more than %d snapshots", p.MaxCount))
	}
	if st.Full {
		dropOldest(minFreeStep, "the file system is full")
	} else if p.MinFree > 0 && st.Available < p.MinFree {
		dropOldest(minFreeStep, fmt.Sprintf("%s free, less than %s", FormatBytes(st.Available), FormatBytes(p.MinFree)))
	}
	return plan
}

// judge fills in what Keep, the grid and the holds say.
func (p Policy) judge(plan []Verdict, now, future time.Time) {
	type slot struct {
		source subvol.UUID
		every  time.Duration
		start  int64
		future bool
	}
	taken := map[slot]bool{}
	// The first of a slot is the first by its time: after the clock was set
	// back, an older snapshot may have a later time.
	byTime := make([]*Verdict, len(plan))
	for i := range plan {
		byTime[i] = &plan[i]
	}
	sortByTime(byTime)
	rank := newestRank(plan)
	before := map[subvol.UUID]time.Time{}
	for _, v := range byTime {
		ref, ahead := now, v.Time.After(now)
		if ahead {
			ref = future
		}
		row, inGrid := p.Grid.row(ref.Sub(v.Time))
		first := false
		if inGrid {
			s := slot{v.Source(), row.Every, v.Time.UnixNano() / int64(row.Every), ahead}
			first = !taken[s]
			// All rows see it, so that which one is first in a slot does not
			// depend on the row that it has aged into.
			for _, r := range p.Grid {
				taken[slot{v.Source(), r.Every, v.Time.UnixNano() / int64(r.Every), ahead}] = true
			}
		}
		n := rank[v.UUID]
		paced := inGrid && row == p.Grid[0] && v.Time.Sub(before[v.Source()]) >= row.Every*3/4
		before[v.Source()] = v.Time
		switch {
		case len(v.Held) > 0:
			v.Keep, v.Reason = true, strings.Join(v.Held, ", ")
		case n == 0:
			v.Keep, v.Reason = true, "the newest"
		case n < p.Keep:
			v.Keep, v.Reason = true, fmt.Sprintf("one of the newest %d", p.Keep)
		case first:
			v.Keep, v.Reason = true, fmt.Sprintf("first in its %s of %s", formatEvery(row.Every), row)
		case paced:
			v.Keep, v.Reason = true, fmt.Sprintf("one each %s of %s", formatEvery(row.Every), row)
		case inGrid:
			v.Reason = fmt.Sprintf("not the first in its %s of %s", formatEvery(row.Every), row)
		case len(p.Grid) > 0:
			v.Reason = "older than the grid"
		case p.Keep > 0:
			v.Reason = fmt.Sprintf("not one of the newest %d", p.Keep)
		default:
			v.Keep, v.Reason = true, "no rule drops it"
		}
	}
}

// newestRank returns for each snapshot how many newer ones its source has.
func newestRank(plan []Verdict) map[subvol.UUID]int {
	rank, count := map[subvol.UUID]int{}, map[subvol.UUID]int{}
	for i := len(plan) - 1; i >= 0; i-- {
		v := &plan[i]
		rank[v.UUID] = count[v.Source()]
		count[v.Source()]++
	}
	return rank
}

// FormatBytes returns n for people, in binary units.
func FormatBytes(n uint64) string {
	if n < 1<<10 {
		return strconv.FormatUint(n, 10) + " B"
	}
	v, unit := float64(n)/(1<<10), 0
	for v >= 1000 && unit < 5 {
		v, unit = v/(1<<10), unit+1
	}
	return fmt.Sprintf("%.3g %ciB", v, "KMGTPE"[unit])
}

// ParseBytes reads a size: a number with a unit of B, K, M, G or T (powers of
// 1024; KiB and so on as well), or none for bytes.
func ParseBytes(s string) (uint64, error) {
	bad := fmt.Errorf("%q is no size, like 500M or 2GiB", s)
	num := strings.TrimRight(strings.TrimSpace(s), "iBKMGTbkmgt")
	unit := strings.ToUpper(strings.TrimSpace(s)[len(num):])
	unit = strings.TrimSuffix(strings.TrimSuffix(unit, "B"), "I")
	shift, ok := map[string]uint{"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[unit]
	n, err := strconv.ParseUint(strings.TrimSpace(num), 10, 64)
	if !ok || err != nil || n<<shift>>shift != n {
		return 0, bad
	}
	return n << shift, nil
}
