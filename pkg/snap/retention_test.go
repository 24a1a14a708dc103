package snap

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/subvol"
)

var day0 = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

// at makes the n-th snapshot of source, taken at t.
func at(n int, source byte, t time.Time) Snapshot {
	return Snapshot{Name(t), t, subvol.Info{ID: uint64(n), UUID: subvol.UUID{0: byte(n >> 8), 1: byte(n), 15: 1}, ParentUUID: subvol.UUID{0: source}}}
}

func TestParseGrid(t *testing.T) {
	for in, want := range map[string]string{
		"60x1s,60x1m,24x1h,30x1d": "60x1s,60x1m,24x1h,30x1d",
		" 10x5s , 4x1w ":          "10x5s,4x1w",
		"7x24h":                   "7x1d",
		"3x90s":                   "3x90s",
		"":                        "",
	} {
		g, err := ParseGrid(in)
		if err != nil || g.String() != want {
			t.Errorf("ParseGrid(%q) = %q, %v, want %q", in, g, err, want)
		}
	}
	for _, bad := range []string{"60", "60x", "x1s", "0x1s", "-1x1s", "1x0s", "1x1y", "1x1.5s", "60x1m,60x1s", "1x1s,,1x1m", "1x99999999d"} {
		if g, err := ParseGrid(bad); err == nil {
			t.Errorf("ParseGrid(%q) = %v", bad, g)
		}
	}
}

func TestParseBytes(t *testing.T) {
	for in, want := range map[string]uint64{"0": 0, "17": 17, "1K": 1 << 10, "2GiB": 2 << 30, "3 mb": 3 << 20, "500M": 500 << 20, "1T": 1 << 40} {
		if n, err := ParseBytes(in); err != nil || n != want {
			t.Errorf("ParseBytes(%q) = %d, %v, want %d", in, n, err, want)
		}
	}
	for _, bad := range []string{"", "x", "1X", "-1", "1.5G", "99999999999T", "K"} {
		if n, err := ParseBytes(bad); err == nil {
			t.Errorf("ParseBytes(%q) = %d", bad, n)
		}
	}
	for n, want := range map[uint64]string{0: "0 B", 1023: "1023 B", 1 << 20: "1 MiB", 5 << 29: "2.5 GiB"} {
		if got := FormatBytes(n); got != want {
			t.Errorf("FormatBytes(%d) = %q, want %q", n, got, want)
		}
	}
}

// Two hours of a busy source: whatever the jitter, each second of the last
// minute, each minute of the last hour and so on has its snapshot, and there
// are never more than the cap.
func TestGridStaysDenseAndBounded(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	const hours = 2
	p := DefaultPolicy
	var live []Snapshot
	for n := range hours * 3600 {
		// Around the turn of a second, the worst of phases.
		now := day0.Add(time.Duration(n)*time.Second + time.Duration(r.IntN(20)-10)*time.Millisecond)
		live = append(live, at(n, 1, now))
		plan := p.Plan(State{Now: now, Snapshots: live})
		live = live[:0]
		for _, v := range plan {
			if v.Reason == "" {
				t.Fatalf("no reason: %+v", v)
			}
			if v.Keep {
				live = append(live, v.Snapshot)
			}
		}
		if len(live) > p.MaxCount {
			t.Fatalf("tick %d: %d live", n, len(live))
		}
		if n%97 != 0 || n < 3600 {
			continue
		}
		for _, v := range p.Plan(State{Now: now, Snapshots: live}) {
			if !v.Keep {
				t.Fatalf("tick %d: a second plan drops %s: %s", n, v.Name, v.Reason)
			}
		}
		recent := 0
		for _, sn := range live {
			if now.Sub(sn.Time) < 59*time.Second {
				recent++
			}
		}
		if recent < 58 {
			t.Fatalf("tick %d: %d of the last 59 seconds have a snapshot", n, recent)
		}
		for age := time.Minute; age < time.Hour; age += time.Minute {
			slot := now.Add(-age).Truncate(time.Minute)
			if !slices.ContainsFunc(live, func(sn Snapshot) bool { return sn.Time.Truncate(time.Minute).Equal(slot) }) {
				t.Fatalf("tick %d: no snapshot in minute %v", n, slot)
			}
		}
	}
	if len(live) > 60+1+60+hours+2 {
		t.Errorf("%d live after %d hours", len(live), hours)
	}
}

// What a coarse row needs is there when it is needed: after 40 days of a
// snapshot every 20 minutes, each day of the last 30 has one.
func TestGridReachesItsEnd(t *testing.T) {
	p := DefaultPolicy
	var live []Snapshot
	now := day0
	for n := range 40 * 72 {
		now = day0.Add(time.Duration(n) * 20 * time.Minute)
		live = append(live, at(n, 1, now))
		next := live[:0]
		for _, v := range p.Plan(State{Now: now, Snapshots: live}) {
			if v.Keep {
				next = append(next, v.Snapshot)
			}
		}
		live = next
	}
	days := map[string]bool{}
	for _, sn := range live {
		days[sn.Time.Format("0102")] = true
	}
	if len(days) < 31 || len(days) > 33 {
		t.Errorf("%d days have a snapshot, of %d", len(days), len(live))
	}
	if oldest := now.Sub(live[0].Time); oldest > 32*24*time.Hour {
		t.Errorf("the oldest is %v old", oldest)
	}
}

func reasons(plan []Verdict) string {
	var b strings.Builder
	for _, v := range plan {
		mark := "-"
		if v.Keep {
			mark = "+"
		}
		fmt.Fprintf(&b, "%s%d %s\n", mark, v.ID, v.Reason)
	}
	return b.String()
}

func TestPlanReasons(t *testing.T) {
	list := func(ages ...time.Duration) []Snapshot {
		var l []Snapshot
		for i, a := range ages {
			l = append(l, at(i+1, 1, day0.Add(-a)))
		}
		return l
	}
	s, m := time.Second, time.Minute
	three := list(3*s, 2*s, s)
	for name, c := range map[string]struct {
		p    Policy
		st   State
		want string
	}{
		"no rule": {Policy{}, State{Snapshots: three}, "+1 no rule drops it\n+2 no rule drops it\n+3 the newest\n"},
		"keep":    {Policy{Keep: 2}, State{Snapshots: three}, "-1 not one of the newest 2\n+2 one of the newest 2\n+3 the newest\n"},
		"held": {Policy{Keep: 1}, State{Snapshots: three, Holders: map[subvol.UUID][]string{three[0].UUID: {"hold audit", "cursor /c"}}},
			"+1 hold audit, cursor /c\n-2 not one of the newest 1\n+3 the newest\n"},
		"count": {Policy{MaxCount: 2}, State{Snapshots: three}, "-1 more than 2 snapshots\n+2 no rule drops it\n+3 the newest\n"},
		"room":  {Policy{MaxCount: 2}, State{Snapshots: three, Room: 1}, "-1 more than 2 snapshots\n-2 more than 2 snapshots\n+3 the newest\n"},
		"count and held": {Policy{MaxCount: 2}, State{Snapshots: three, Holders: map[subvol.UUID][]string{three[0].UUID: {"hold a"}}},
			"+1 hold a\n-2 more than 2 snapshots\n+3 the newest\n"},
		"free": {Policy{MinFree: 2 << 20}, State{Snapshots: three, Available: 1 << 20},
			"-1 1 MiB free, less than 2 MiB\n-2 1 MiB free, less than 2 MiB\n+3 the newest\n"},
		"full": {Policy{}, State{Snapshots: three, Full: true}, "-1 the file system is full\n-2 the file system is full\n+3 the newest\n"},
		"grid": {Policy{Grid: Grid{{2, s}, {2, m}}}, State{Snapshots: list(5*m, 50*s, 40*s, s, s/2)},
			"-1 older than the grid\n+2 first in its 1m of 2x1m\n-3 not the first in its 1m of 2x1m\n+4 first in its 1s of 2x1s\n+5 the newest\n"},
	} {
		c.st.Now = day0
		if got := reasons(c.p.Plan(c.st)); got != c.want {
			t.Errorf("%s:\n%swant\n%s", name, got, c.want)
		}
	}
}

// The clock is set back by a day: what was taken before has names of a time to
// come. The newest stays the newest, nothing that is held goes, and the grid
// still bounds the number.
func TestClockSetBack(t *testing.T) {
	p := Policy{Grid: Grid{{10, time.Second}, {10, time.Minute}}, MaxCount: 40}
	var live []Snapshot
	held := map[subvol.UUID][]string{}
	for n := range 600 {
		now := day0.Add(time.Duration(n) * time.Second)
		if n >= 300 {
			now = now.Add(-24 * time.Hour)
		}
		sn := at(n, 1, now)
		if n == 299 || n == 17 {
			held[sn.UUID] = []string{"hold x"}
		}
		live = append(live, sn)
		next := []Snapshot{}
		for i, v := range p.Plan(State{Now: now, Snapshots: live, Holders: held}) {
			if i == len(live)-1 && !v.Keep {
				t.Fatalf("tick %d: the newest goes: %s", n, v.Reason)
			}
			if held[v.UUID] != nil && !v.Keep {
				t.Fatalf("tick %d: %s is held and goes", n, v.Name)
			}
			if v.Keep {
				next = append(next, v.Snapshot)
			}
		}
		live = next
		if len(live) > 40 {
			t.Fatalf("tick %d: %d live", n, len(live))
		}
	}
	if len(live) < 12 {
		t.Errorf("%d live", len(live))
	}
}

// For any policy and any snapshots: no held one goes, nor the newest of all;
// there are no more than the cap unless that is why; the rest of the cap is not
// left empty without a reason.
func FuzzPlanKeepsWhatItMust(f *testing.F) {
	f.Add(uint64(1), uint8(20), uint8(5), uint8(3), int64(60), true)
	f.Add(uint64(2), uint8(200), uint8(0), uint8(0), int64(-86400), false)
	f.Fuzz(func(t *testing.T, seed uint64, n, maxCount, keep uint8, ago int64, full bool) {
		r := rand.New(rand.NewPCG(seed, 0))
		ago %= 1 << 31
		p := Policy{Keep: int(keep), MaxCount: int(maxCount)}
		if seed%2 == 0 {
			p.Grid = Grid{{5, time.Second}, {5, time.Minute}, {3, time.Hour}}
		}
		st := State{Now: day0, Holders: map[subvol.UUID][]string{}, Full: full, Room: int(seed % 2)}
		held := 0
		for i := range int(n) {
			sn := at(i, byte(1+r.IntN(2)), day0.Add(-time.Duration(r.Int64N(ago*ago+1)%(1<<40))*time.Microsecond+time.Duration(ago)*time.Second))
			if r.IntN(5) == 0 {
				st.Holders[sn.UUID] = []string{"hold"}
				held++
			}
			st.Snapshots = append(st.Snapshots, sn)
		}
		plan := p.Plan(st)
		if len(plan) != len(st.Snapshots) {
			t.Fatalf("%d verdicts of %d", len(plan), n)
		}
		kept := 0
		for i, v := range plan {
			if v.ID != st.Snapshots[i].ID || v.Reason == "" {
				t.Fatalf("verdict %d: %+v", i, v)
			}
			if v.Keep {
				kept++
			} else if len(v.Held) > 0 || st.Holders[v.UUID] != nil || i == len(plan)-1 {
				t.Fatalf("%s goes: %s", v.Name, v.Reason)
			}
		}
		if p.MaxCount > 0 && kept > max(p.MaxCount-st.Room, held+1) {
			t.Fatalf("%d kept, %d held, cap %d", kept, held, p.MaxCount)
		}
	})
}
