package report

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

// A Change is a contender's ratio to a peer in two runs.
type Change struct {
	Comparison, Contender, Metric, Of string
	Reference, Now                    Spread  // of the ratios, round by round
	Worse                             float64 // by how much of the reference; negative where it is better
	Regression, Gain                  bool
}

// floor is how much worse a ratio must be at the least to count. Rounds of one
// run resemble each other more than those of two runs do: another build, another
// layout in memory, another place on the disk.
const floor = 0.1

// Compare sets a run against a reference, by ratios to peers of the same run
// alone: absolute figures are of a machine, and of what else it did. Of each of
// our contenders it looks at the comparison's first metric, against the first
// row, and at each that is bounded by another's. A ratio is a regression where
// it is beyond the spread of both: the median worse than each round of the
// reference, each round worse than the reference's median, and by at least a
// tenth. lacking are what the reference has and the run has not, with the
// reason.
func Compare(reference, now *Report) (changes []Change, lacking []string) {
	for i := range reference.Comparisons {
		old := &reference.Comparisons[i]
		if old.NotMeasured != "" {
			continue
		}
		at := slices.IndexFunc(now.Comparisons, func(c Comparison) bool { return c.Name == old.Name })
		if at < 0 {
			lacking = append(lacking, old.Name+": not run")
			continue
		}
		c := &now.Comparisons[at]
		if c.NotMeasured != "" {
			lacking = append(lacking, old.Name+": "+c.NotMeasured)
			continue
		}
		for _, p := range pairs(old) {
			a, b := ratioOf(old, p), ratioOf(c, p)
			if a == nil {
				continue
			}
			if b == nil {
				lacking = append(lacking, fmt.Sprintf("%s: %s of %s against %s", old.Name, p.Metric, p.Contender, p.Of))
				continue
			}
			p.Comparison, p.Reference, p.Now = old.Name, *a, *b
			p.judge(old.Metric(p.Metric).Better)
			changes = append(changes, p)
		}
	}
	return changes, lacking
}

// pairs are the ratios of a comparison that count.
func pairs(c *Comparison) (list []Change) {
	add := func(p Change) {
		if m := c.Metric(p.Metric); m != nil && m.Better != "" && p.Contender != p.Of && !slices.Contains(list, p) {
			list = append(list, p)
		}
	}
	for _, r := range c.Rows[1:] {
		if r.Ours {
			add(Change{Contender: r.Contender, Metric: c.Metrics[0].Name, Of: c.Rows[0].Contender})
		}
	}
	for _, w := range c.Wants {
		if w.Of != "" {
			add(Change{Contender: w.Contender, Metric: w.Metric, Of: w.Of})
		}
	}
	return list
}

func ratioOf(c *Comparison, p Change) *Spread {
	own, peer := c.Row(p.Contender), c.Row(p.Of)
	if own == nil || peer == nil {
		return nil
	}
	ratios := ratiosTo(own.Figures[p.Metric].Each, peer.Figures[p.Metric].Each)
	if ratios == nil {
		return nil
	}
	s := spread(ratios)
	return &s
}

func (p *Change) judge(better string) {
	if p.Reference.Median == 0 { // nothing at all, as an idle gb-snap writes: any is more
		if p.Now.Median > 0 {
			p.Worse = 1
			p.Regression = better == Less && p.Now.Least > p.Reference.Greatest
		}
		return
	}
	p.Worse = p.Now.Median/p.Reference.Median - 1
	above := p.Now.Median > p.Reference.Greatest && p.Now.Least > p.Reference.Median
	below := p.Now.Median < p.Reference.Least && p.Now.Greatest < p.Reference.Median
	if better == More {
		// Twice the time and half the rate are as bad.
		if p.Now.Median > 0 {
			p.Worse = p.Reference.Median/p.Now.Median - 1
		} else {
			p.Worse = 1
		}
		above, below = below, above
	}
	p.Regression = above && p.Worse >= floor
	p.Gain = below && p.Worse <= 1/(1+floor)-1
}

// Print writes changes as a table, those that count marked, and what is
// lacking. It returns how many regressions there are.
func Print(w io.Writer, changes []Change, lacking []string) int {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprint(t, "\tcomparison\tcontender\tmetric\tagainst\treference\tnow\t\n")
	regressions := 0
	for _, p := range changes {
		mark := ""
		switch {
		case p.Regression:
			mark = "WORSE"
			regressions++
		case p.Gain:
			mark = "better"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", mark, p.Comparison, p.Contender, p.Metric, p.Of, ratioText(p.Reference), ratioText(p.Now), percent(p.Worse))
	}
	t.Flush()
	for _, l := range lacking {
		fmt.Fprintf(w, "not compared: %s\n", l)
	}
	fmt.Fprintf(w, "%d ratios compared, %d worse beyond the spread of the rounds\n", len(changes), regressions)
	return regressions
}

func ratioText(s Spread) string {
	return fmt.Sprintf("%s (%s to %s)", number(s.Median), number(s.Least), number(s.Greatest))
}

func percent(worse float64) string {
	if worse < 0 {
		return fmt.Sprintf("%.0f %% better", -100*worse)
	}
	return fmt.Sprintf("%.0f %% worse", 100*worse)
}
