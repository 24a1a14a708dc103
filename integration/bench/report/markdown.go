package report

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// families are the headings, in the words of people.
var families = map[string]string{
	"append":    "Appending to the log",
	"producers": "A thousand producers at once",
	"verify":    "Verifying the log",
	"reader":    "Reading send streams",
	"ingest":    "Indexing a second's stream",
	"lag":       "One event, from append to searchable",
	"search":    "Search",
	"snapshot":  "Snapshots",
	"ovs":       "Bringing a switch up",
	"call":      "D-Bus calls",
	"mcp":       "An agent's calls",
	"web":       "The web page, live",
	"start":     "The start of each tool",
}

func heading(family string) string {
	if h, ok := families[family]; ok {
		return h
	}
	return family
}

// families returns those of the report in its order.
func (r *Report) families() (list []string) {
	for i := range r.Comparisons {
		if f := r.Comparisons[i].Family(); !slices.Contains(list, f) {
			list = append(list, f)
		}
	}
	return list
}

// measured returns the comparisons of a family that have figures.
func (r *Report) measured(family string) (list []*Comparison) {
	for i := range r.Comparisons {
		if c := &r.Comparisons[i]; c.Family() == family && c.NotMeasured == "" {
			list = append(list, c)
		}
	}
	return list
}

// Render makes what is shown of a report: name+".md" and, beside it, the plots
// that it refers to, by their file names.
func (r *Report) Render(name string) map[string][]byte {
	files := map[string][]byte{name + ".md": r.markdown(), "overview.svg": r.overview()}
	for _, f := range r.families() {
		if list := r.measured(f); len(list) > 0 {
			files[f+".svg"] = plots(heading(f), list)
		}
	}
	return files
}

// cell is text in a table of Markdown.
func cell(text string) string {
	return strings.NewReplacer("|", `\|`, "\n", " ", "<", "&lt;").Replace(text)
}

func (r *Report) markdown() []byte {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	m := r.Machine
	line("# What `make bench` measured")
	line("")
	line("Made from the JSON file beside it (`make bench-render`), not by hand. The contenders of a comparison ran in turns, round")
	line("after round, on one machine; the first row is the peer that ratios refer to. Ratios are taken within each round: the")
	line("median of them, and in brackets the least and the greatest. The absolute figures are those of this machine.")
	line("")
	line("| | |\n| --- | --- |")
	length := fmt.Sprintf("%.0f minutes", m.Seconds/60)
	if m.Quick {
		length += "; a quick run of few and short rounds: its figures are rough"
	}
	line("| Date | %s, %s |", m.Time.Format("2006-01-02 15:04 MST"), length)
	if m.Load > 0 {
		line("| Load before it began | %.1f |", m.Load)
	}
	line("| Source | `%s` (%s) |", m.Commit, m.Version)
	line("| Processor | %s, %d cores |", cell(m.CPU), m.Cores)
	line("| Memory | %.1f GiB |", float64(m.Memory)/(1<<30))
	line("| Kernel | Linux %s |", cell(m.Kernel))
	line("| Go | %s |", cell(m.Go))
	line("| File system below the images | %s |", cell(m.FileSystem))
	for _, peer := range slices.Sorted(maps.Keys(m.Peers)) {
		line("| %s | %s |", cell(peer), cell(m.Peers[peer]))
	}
	line("")
	line("![Overview: each comparison's ratio](overview.svg)")
	line("")
	line("## What was wanted")
	line("")
	line("Bounds that the project set itself before it measured.")
	line("")
	line("| Comparison | Contender | Bound | Measured | |\n| --- | --- | --- | ---: | --- |")
	held, not, unknown := 0, 0, 0
	for i := range r.Comparisons {
		c := &r.Comparisons[i]
		for _, w := range c.Wants {
			_, bound, _ := strings.Cut(w.text(c), w.Contender+": ")
			got, outcome := "", w.Outcome
			if w.Got != nil {
				got = number(*w.Got)
			}
			switch w.Outcome {
			case Held:
				held++
			case NotHeld:
				not++
				outcome = "**" + outcome + "**"
			default:
				unknown++
			}
			line("| %s | %s | %s | %s | %s |", c.Name, cell(w.Contender), cell(bound), got, outcome)
		}
	}
	line("")
	line("%d held, %d did not, %d could not be measured.", held, not, unknown)
	r.notMeasured(line)
	for _, f := range r.families() {
		line("")
		line("## %s", heading(f))
		if len(r.measured(f)) > 0 {
			line("")
			line("![%s](%s.svg)", heading(f), f)
		}
		for i := range r.Comparisons {
			if c := &r.Comparisons[i]; c.Family() == f {
				c.markdown(line)
			}
		}
	}
	return []byte(b.String())
}

// notMeasured lists what did not run, with the reasons.
func (r *Report) notMeasured(line func(string, ...any)) {
	line("")
	line("## What was not measured")
	line("")
	none := true
	for _, c := range r.Comparisons {
		if c.NotMeasured != "" {
			none = false
			line("- %s, all of it: %s", c.Name, cell(c.NotMeasured))
		}
		for _, row := range c.Rows {
			if row.NotMeasured != "" {
				none = false
				line("- %s, %s: %s", c.Name, cell(row.Contender), cell(row.NotMeasured))
			}
		}
	}
	if none {
		line("Every contender ran.")
	}
}

func (c *Comparison) markdown(line func(string, ...any)) {
	line("")
	line("### %s", c.Name)
	line("")
	if c.NotMeasured != "" {
		line("%s. Not measured: %s.", capital(c.Title), cell(c.NotMeasured))
		return
	}
	rounds := "rounds"
	if c.Rounds == 1 {
		rounds = "round"
	}
	line("%s. %d %s.", capital(c.Title), c.Rounds, rounds)
	line("")
	head, rule := "| |", "| --- |"
	for _, m := range c.Metrics {
		head += " " + cell(column(m)) + " |"
		rule += " ---: |"
	}
	line("%s ratio of %s |\n%s ---: |", head, cell(c.Metrics[0].Name), rule)
	for _, r := range c.Rows {
		text := "| " + cell(r.Contender) + " |"
		for _, m := range c.Metrics {
			f, ok := r.Figures[m.Name]
			switch {
			case ok:
				text += " " + number(f.Median) + " |"
			case r.NotMeasured != "":
				text += " not measured |"
			default:
				text += " |"
			}
		}
		if ratio := r.Figures[c.Metrics[0].Name].Ratio; ratio != nil {
			text += fmt.Sprintf(" %s (%s to %s) |", number(ratio.Median), number(ratio.Least), number(ratio.Greatest))
		} else {
			text += " |"
		}
		line("%s", text)
	}
	if c.Note != "" {
		line("")
		line("%s", strings.ReplaceAll(c.Note, "\n", " "))
	}
}

func capital(text string) string {
	if text == "" {
		return text
	}
	return strings.ToUpper(text[:1]) + text[1:]
}
