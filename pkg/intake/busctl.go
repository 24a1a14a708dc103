package intake

import (
	"encoding/json"
	"fmt"
	"strconv"
)

// busctl reads messages as busctl monitor --json=short prints them. Only
// signals are taken.
func busctl(Options) Converter {
	return func(line []byte) ([]byte, error) {
		var m struct {
			Type      string          `json:"type"`
			Timestamp json.RawMessage `json:"timestamp-realtime"`
			Sender    string          `json:"sender"`
			Path      string          `json:"path"`
			Interface string          `json:"interface"`
			Member    string          `json:"member"`
			UniqueUID json.RawMessage `json:"uid"`
			Payload   struct {
				Type string          `json:"type"`
				Data json.RawMessage `json:"data"`
			} `json:"payload"`
		}
		if err := json.Unmarshal(line, &m); err != nil {
			return nil, fmt.Errorf("not a line of busctl monitor --json=short: %w", err)
		}
		if m.Type != "signal" || RoutineSignal(m.Path, m.Member, string(m.Payload.Data)) {
			return nil, nil
		}
		o := out{Source: "dbus", Type: name("dbus."+m.Member, "dbus.signal"), Subject: m.Path, Actor: m.Sender,
			Message: fmt.Sprintf("signal %s.%s from %s at %s", m.Interface, m.Member, m.Sender, m.Path),
			Data:    map[string]any{"interface": clean(m.Interface, 255), "member": clean(m.Member, 255), "path": clean(m.Path, maxField), "signature": clean(m.Payload.Type, 255)}}
		if us, err := strconv.ParseInt(string(m.Timestamp), 10, 64); err == nil {
			o.Time = micros(us)
		}
		if args := string(m.Payload.Data); args != "" {
			o.Data["arguments"] = clean(args, maxField)
		}
		return o.line()
	}
}
