package chain

import (
	"fmt"
	"regexp"
	"strconv"
	"time"
)

var agePattern = regexp.MustCompile(`^[-+]?(\d+(?:\.\d+)?)(ms|s|m|min|h|d|w)?$`)

// ParseTime parses a time as people write it: RFC 3339, 2006-01-02 with or
// without 15:04 or 15:04:05, 15:04 (today), now, today, yesterday, tomorrow,
// and ages such as -15m, -2h, -3d, -1w. What names no zone is in now's.
func ParseTime(s string, now time.Time) (time.Time, error) {
	day := time.Date(now.Year(), now.Month(), now.Day(), 0, 0, 0, 0, now.Location())
	switch s {
	case "now":
		return now, nil
	case "today":
		return day, nil
	case "yesterday":
		return day.AddDate(0, 0, -1), nil
	case "tomorrow":
		return day.AddDate(0, 0, 1), nil
	}
	if m := agePattern.FindStringSubmatch(s); m != nil && (s[0] == '-' || s[0] == '+') && m[2] != "" {
		n, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			return now, err
		}
		unit := map[string]time.Duration{"ms": time.Millisecond, "s": time.Second, "m": time.Minute, "min": time.Minute,
			"h": time.Hour, "d": 24 * time.Hour, "w": 7 * 24 * time.Hour}[m[2]]
		age := time.Duration(n * float64(unit))
		if s[0] == '-' {
			age = -age
		}
		return now.Add(age), nil
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t, nil
	}
	for _, form := range []string{"2006-01-02", "2006-01-02 15:04", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02T15:04:05"} {
		if t, err := time.ParseInLocation(form, s, now.Location()); err == nil {
			return t, nil
		}
	}
	for _, form := range []string{"15:04", "15:04:05"} {
		if t, err := time.ParseInLocation(form, s, now.Location()); err == nil {
			return day.Add(time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute + time.Duration(t.Second())*time.Second), nil
		}
	}
	return now, fmt.Errorf("%q is no time: want RFC 3339, 2006-01-02, 15:04, today, yesterday, or an age such as -15m", s)
}
