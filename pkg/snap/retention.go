package snap

import (
	"errors"
	"fmt"
	"math"
	"slices"
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

// row returns the number of the row for an age, -1 if it is beyond the grid.
func (g Grid) row(age time.Duration) int {
	for i, r := range g {
		span := time.Duration(r.Count) * r.Every
		if age < span {
			return i
		}
		age -= span
	}
	return -1
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

// A pass is what judge has seen of one source's snapshots, by time.
type pass struct {
	seen   int
	before time.Time  // of the one before
	slots  [2][]int64 // the last slot of each row of the grid; [1] is of those ahead of the clock
}

// judge fills in what Keep, the grid and the holds say. It is run each second:
// what does not differ between snapshots is made once.
func (p Policy) judge(plan []Verdict, now, future time.Time) {
	// The first of a slot is the first by its time: after the clock was set
	// back, an older snapshot may have a later time.
	byTime := make([]int, len(plan))
	passes := map[subvol.UUID]*pass{}
	for i := range plan {
		byTime[i] = i
		ps := passes[plan[i].Source()]
		if ps == nil {
			ps = &pass{}
			for k := range ps.slots {
				ps.slots[k] = slices.Repeat([]int64{math.MinInt64}, len(p.Grid))
			}
			passes[plan[i].Source()] = ps
		}
	}
	rank := make([]int, len(plan)) // how many newer ones the source has
	for i := len(plan) - 1; i >= 0; i-- {
		ps := passes[plan[i].Source()]
		rank[i] = ps.seen
		ps.seen++
	}
	slices.SortStableFunc(byTime, func(a, b int) int { return plan[a].Time.Compare(plan[b].Time) })
	text := p.reasons()
	for _, i := range byTime {
		v := &plan[i]
		ps := passes[v.Source()]
		ref, ahead := now, 0
		if v.Time.After(now) {
			ref, ahead = future, 1
		}
		row := p.Grid.row(ref.Sub(v.Time))
		first := false
		if row >= 0 {
			// All rows see it, so that which one is first in a slot does not
			// depend on the row that it has aged into.
			for k, r := range p.Grid {
				slot := v.Time.UnixNano() / int64(r.Every)
				if k == row {
					first = slot != ps.slots[ahead][k]
				}
				ps.slots[ahead][k] = slot
			}
		}
		paced := row == 0 && v.Time.Sub(ps.before) >= p.Grid[0].Every*3/4
		ps.before = v.Time
		n := rank[i]
		switch {
		case len(v.Held) > 0:
			v.Keep, v.Reason = true, strings.Join(v.Held, ", ")
		case n == 0:
			v.Keep, v.Reason = true, "the newest"
		case n < p.Keep:
			v.Keep, v.Reason = true, text.newest
		case first:
			v.Keep, v.Reason = true, text.first[row]
		case paced:
			v.Keep, v.Reason = true, text.paced
		case row >= 0:
			v.Reason = text.second[row]
		case len(p.Grid) > 0:
			v.Reason = "older than the grid"
		case p.Keep > 0:
			v.Reason = text.surplus
		default:
			v.Keep, v.Reason = true, "no rule drops it"
		}
	}
}

// texts are the reasons that a policy has.
type texts struct {
	newest, surplus, paced string
	first, second          []string
}

func (p Policy) reasons() texts {
	t := texts{newest: fmt.Sprintf("one of the newest %d", p.Keep), surplus: fmt.Sprintf("not one of the newest %d", p.Keep)}
	for i, r := range p.Grid {
		every := formatEvery(r.Every)
		if i == 0 {
			t.paced = fmt.Sprintf("one each %s of %s", every, r)
		}
		t.first = append(t.first, fmt.Sprintf("first in its %s of %s", every, r))
		t.second = append(t.second, fmt.Sprintf("not the first in its %s of %s", every, r))
	}
	return t
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
