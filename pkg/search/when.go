package search

import (
	"regexp"
	"strconv"
	"strings"
	"time"
)

// A Window is the time that words of a question stand for. A side that is open
// is nil.
type Window struct {
	Since *time.Time `json:"since,omitempty"`
	Until *time.Time `json:"until,omitempty"`
	Words string     `json:"words"` // of the question
}

var (
	unitLengths = map[string]time.Duration{"second": time.Second, "sec": time.Second, "minute": time.Minute, "min": time.Minute, "hour": time.Hour,
		"day": 24 * time.Hour, "week": 7 * 24 * time.Hour, "month": 30 * 24 * time.Hour}
	numbers = map[string]int{"a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
		"twelve": 12, "couple of": 2, "few": 3}
	dayParts = map[string][2]int{"morning": {5, 12}, "noon": {11, 14}, "afternoon": {12, 18}, "evening": {17, 24}, "night": {20, 30}}

	units    = `(seconds?|secs?|minutes?|mins?|hours?|days?|weeks?|months?)`
	count    = `(\d+|an?|one|two|three|four|five|six|seven|eight|nine|ten|twelve|couple of|few)`
	date     = `(\d{4}-\d{2}-\d{2}(?:[t ]\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?:z|[+-]\d{2}:\d{2})?)?|yesterday|today|midnight|noon|\d{1,2}:\d{2})`
	weekdays = `(monday|tuesday|wednesday|thursday|friday|saturday|sunday)`

	reLast = regexp.MustCompile(`\b(?:in|within|over|during|from|for)?\s*(?:the\s+)?(?:last|past|previous)\s+(?:` + count + `\s+)?` + units + `\b`)
	reAgo  = regexp.MustCompile(`\b(since\s+|after\s+)?` + count + `\s+` + units + `\s+ago\b`)
	reDay  = regexp.MustCompile(`\b(?:on\s+|during\s+|of\s+)?(yesterday|today|tonight|last night|this morning|this afternoon|this evening|this week|this month|` +
		`last week|last month)(?:\s+(morning|noon|afternoon|evening|night))?\b`)
	reWeekday = regexp.MustCompile(`\b(?:on|last|since)\s+` + weekdays + `(?:\s+(morning|noon|afternoon|evening|night))?\b`)
	reBetween = regexp.MustCompile(`\b(?:between|from)\s+` + date + `\s+(?:and|to|until)\s+` + date)
	reSince   = regexp.MustCompile(`\b(since|after|until|till|before|on|at)\s+` + date)
)

// When finds the time words of a question and returns it without them; w is
// nil if there are none. Days are those of now's time zone. "before" and
// "after" count only with a time behind them: before the crash is no window.
func When(question string, now time.Time) (rest string, w *Window) {
	low := strings.ToLower(question)
	if len(low) != len(question) {
		low = question // lower case of another length: only what is written so is found
	}
	take := func(m []int, since, until time.Time) (string, *Window) {
		w := &Window{Words: strings.TrimSpace(question[m[0]:m[1]])}
		if !since.IsZero() {
			w.Since = &since
		}
		if !until.IsZero() {
			w.Until = &until
		}
		return strings.TrimSpace(question[:m[0]] + " " + question[m[1]:]), w
	}
	group := func(m []int, n int) string {
		if m[2*n] < 0 {
			return ""
		}
		return low[m[2*n]:m[2*n+1]]
	}
	quoted := func(m []int) bool { return strings.Count(question[:m[0]], `"`)%2 == 1 }

	if m := reBetween.FindStringSubmatchIndex(low); m != nil && !quoted(m) {
		a, _, okA := moment(group(m, 1), now)
		_, b, okB := moment(group(m, 2), now)
		if okA && okB && a.Before(b) {
			return take(m, a, b)
		}
	}
	if m := reSince.FindStringSubmatchIndex(low); m != nil && !quoted(m) {
		if from, to, ok := moment(group(m, 2), now); ok {
			switch group(m, 1) {
			case "since":
				return take(m, from, time.Time{})
			case "after":
				return take(m, to, time.Time{})
			case "until", "till":
				return take(m, time.Time{}, to)
			case "before":
				return take(m, time.Time{}, from)
			default:
				return take(m, from, to)
			}
		}
	}
	if m := reAgo.FindStringSubmatchIndex(low); m != nil && !quoted(m) {
		d := amount(group(m, 2), group(m, 3))
		at := now.Add(-d)
		if group(m, 1) != "" {
			return take(m, at, time.Time{})
		}
		// "two hours ago" is about then.
		return take(m, at.Add(-d/4), at.Add(d/4))
	}
	if m := reDay.FindStringSubmatchIndex(low); m != nil && !quoted(m) {
		since, until := day(group(m, 1), group(m, 2), now)
		return take(m, since, until)
	}
	if m := reLast.FindStringSubmatchIndex(low); m != nil && !quoted(m) {
		return take(m, now.Add(-amount(group(m, 1), group(m, 2))), time.Time{})
	}
	if m := reWeekday.FindStringSubmatchIndex(low); m != nil && !quoted(m) {
		back := 0
		for back = 1; !strings.EqualFold(now.AddDate(0, 0, -back).Weekday().String(), group(m, 1)); back++ {
		}
		start := midnight(now.AddDate(0, 0, -back))
		since, until := part(start, group(m, 2))
		if strings.HasPrefix(low[m[0]:m[1]], "since") {
			until = time.Time{}
		}
		return take(m, since, until)
	}
	return question, nil
}

func amount(n, unit string) time.Duration {
	k := 1
	if v, ok := numbers[n]; ok {
		k = v
	} else if v, err := strconv.Atoi(n); err == nil {
		k = min(v, 100_000)
	}
	return time.Duration(k) * unitLengths[strings.TrimSuffix(unit, "s")]
}

func midnight(t time.Time) time.Time {
	y, m, d := t.Date()
	return time.Date(y, m, d, 0, 0, 0, 0, t.Location())
}

// part returns a part of the day that begins at start.
func part(start time.Time, name string) (since, until time.Time) {
	y, m, d := start.Date()
	if p, ok := dayParts[name]; ok {
		return time.Date(y, m, d, p[0], 0, 0, 0, start.Location()), time.Date(y, m, d, p[1], 0, 0, 0, start.Location())
	}
	return start, time.Date(y, m, d+1, 0, 0, 0, 0, start.Location())
}

func day(name, of string, now time.Time) (since, until time.Time) {
	today := midnight(now)
	y, m, d := today.Date()
	switch name {
	case "yesterday":
		return part(time.Date(y, m, d-1, 0, 0, 0, 0, now.Location()), of)
	case "last night":
		return part(time.Date(y, m, d-1, 0, 0, 0, 0, now.Location()), "night")
	case "tonight":
		return part(today, "night")
	case "this morning", "this afternoon", "this evening":
		return part(today, strings.TrimPrefix(name, "this "))
	case "this week", "last week":
		monday := time.Date(y, m, d-(int(today.Weekday())+6)%7, 0, 0, 0, 0, now.Location())
		if name == "this week" {
			return monday, time.Time{}
		}
		return monday.AddDate(0, 0, -7), monday
	case "this month", "last month":
		first := time.Date(y, m, 1, 0, 0, 0, 0, now.Location())
		if name == "this month" {
			return first, time.Time{}
		}
		return first.AddDate(0, -1, 0), first
	}
	return part(today, of)
}

// moment returns when a day or minute that is written begins and ends.
func moment(s string, now time.Time) (from, to time.Time, ok bool) {
	switch s {
	case "yesterday", "today":
		from, to = day(s, "", now)
		return from, to, true
	case "midnight":
		return midnight(now), midnight(now), true
	case "noon":
		noon := midnight(now).Add(12 * time.Hour)
		return noon, noon, true
	}
	up := strings.ToUpper(strings.Replace(s, " ", "t", 1))
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04Z07:00"} {
		if t, err := time.Parse(layout, up); err == nil {
			return t, t, true
		}
	}
	for _, l := range []struct {
		layout string
		length time.Duration
	}{{"2006-01-02T15:04:05", time.Second}, {"2006-01-02T15:04", time.Minute}} {
		if t, err := time.ParseInLocation(l.layout, up, now.Location()); err == nil {
			return t, t.Add(l.length), true
		}
	}
	if t, err := time.ParseInLocation("2006-01-02", s, now.Location()); err == nil {
		return t, t.AddDate(0, 0, 1), true
	}
	if t, err := time.ParseInLocation("15:04", s, now.Location()); err == nil {
		at := midnight(now).Add(time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute)
		if at.After(now) {
			at = at.AddDate(0, 0, -1)
		}
		return at, at.Add(time.Minute), true
	}
	return from, to, false
}
