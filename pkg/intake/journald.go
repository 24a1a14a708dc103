package intake

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// journald reads systemd.journal-fields(7) as journalctl -o json prints them
// (systemd.io/JOURNAL_EXPORT_FORMATS, "Journal JSON Format"): each value a
// string, null if it is too large, an array of byte values if it is binary, or
// an array of such values if the field stands several times.
func journald(Options) Converter {
	return func(line []byte) ([]byte, error) {
		var fields map[string]json.RawMessage
		if err := json.Unmarshal(line, &fields); err != nil {
			return nil, fmt.Errorf("not a line of journalctl -o json: %w", err)
		}
		get := func(key string) string { return journalValue(fields[key]) }
		us, err := strconv.ParseInt(get("__REALTIME_TIMESTAMP"), 10, 64)
		if err != nil {
			return nil, errors.New("not a line of journalctl -o json: no __REALTIME_TIMESTAMP")
		}
		unit := get("_SYSTEMD_UNIT")
		if u := get("UNIT"); u != "" { // systemd itself, about a unit
			unit = u
			if StartsEverySecond(u) && slices.Contains(routineMessages, get("MESSAGE_ID")) {
				return nil, nil
			}
		}
		o := out{Time: micros(us), Host: get("_HOSTNAME"), Source: "journald", Subject: unit, Message: get("MESSAGE")}
		if o.Subject == "" {
			o.Subject = get("SYSLOG_IDENTIFIER")
		}
		o.Type = name(strings.Join(nonEmpty("journal", get("SYSLOG_IDENTIFIER")), "."), "journal")
		if p, err := strconv.Atoi(get("PRIORITY")); err == nil && p >= 0 && p < len(severities) {
			o.Severity = severities[p]
		}
		if uid := get("_UID"); uid != "" {
			o.Actor = "uid:" + uid
		}
		o.Data = make(map[string]any)
		for key, raw := range fields {
			if len(o.Data) >= maxFields {
				break
			}
			if skipJournal(key) {
				continue
			}
			if v := clean(journalValue(raw), maxField); v != "" {
				o.Data[clean(key, 64)] = v
			}
		}
		if cursor := shortCursor(get("__CURSOR")); cursor != "" {
			o.Data["cursor"] = cursor
		}
		return o.line()
	}
}

// JournalCursor returns the cursor of a line of journalctl -o json, as far as
// journalctl --cursor needs it to find the entry: its place in the sequence of
// the journal (s, i), and its time (t) should that no longer be there. It
// returns "" if there is none. Two entries of one host differ in it.
func JournalCursor(line []byte) string {
	var fields struct {
		Cursor string `json:"__CURSOR"`
	}
	if json.Unmarshal(line, &fields) != nil {
		return ""
	}
	return shortCursor(fields.Cursor)
}

func shortCursor(full string) string {
	var kept []string
	for _, part := range strings.Split(full, ";") {
		key, value, ok := strings.Cut(part, "=")
		if !ok || value == "" || strings.Trim(value, "0123456789abcdef") != "" || len(value) > 32 {
			return ""
		}
		if key == "s" || key == "i" || key == "t" {
			kept = append(kept, part)
		}
	}
	if len(kept) != 3 {
		return ""
	}
	return strings.Join(kept, ";")
}

// skipJournal leaves out what stands elsewhere in the event, changes with
// every entry and says nothing, or is the journal's own book-keeping.
func skipJournal(key string) bool {
	switch key {
	case "MESSAGE", "PRIORITY", "_HOSTNAME", "_MACHINE_ID", "_BOOT_ID", "_SOURCE_REALTIME_TIMESTAMP", "_SOURCE_MONOTONIC_TIMESTAMP",
		"_STREAM_ID", "_CAP_EFFECTIVE", "_RUNTIME_SCOPE", "_SYSTEMD_INVOCATION_ID", "INVOCATION_ID", "SYSLOG_TIMESTAMP", "SYSLOG_RAW":
		return true
	}
	return strings.HasPrefix(key, "__")
}

func journalValue(raw json.RawMessage) string {
	if len(raw) == 0 || raw[0] == 'n' {
		return ""
	}
	if raw[0] == '"' {
		var s string
		if json.Unmarshal(raw, &s) != nil {
			return ""
		}
		return s
	}
	var bytes []uint16
	if json.Unmarshal(raw, &bytes) == nil {
		b := make([]byte, len(bytes))
		for i, v := range bytes {
			b[i] = byte(v)
		}
		return string(b)
	}
	var many []json.RawMessage
	if json.Unmarshal(raw, &many) != nil {
		return ""
	}
	var values []string
	for _, m := range many {
		if len(m) > 0 && m[0] != '[' || len(values) == 0 {
			values = append(values, journalValue(m))
		}
		if len(values) >= 16 {
			break
		}
	}
	return strings.Join(nonEmpty(values...), " ")
}

func nonEmpty(list ...string) []string {
	var kept []string
	for _, s := range list {
		if s != "" {
			kept = append(kept, s)
		}
	}
	return kept
}

// severities are the names of the syslog levels 0 to 7.
var severities = [...]string{"emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"}
