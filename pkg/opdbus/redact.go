package opdbus

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/bus"
	"github.com/ghostbridge/ghostbridge/pkg/dbusjson"
	"github.com/ghostbridge/ghostbridge/pkg/redact"
)

// secretKeys are what stands in a key of a dict, or in the name of an
// argument, whose value is a secret.
var secretKeys = []string{"psk", "password", "passphrase", "passwd", "secret", "token", "private-key", "private_key", "privatekey", "wep-key", "pin", "credential", "leap-password", "apikey", "api-key", "auth"}

const (
	redacted = redact.Mark
	// maxValue is how long a text in an event may be.
	maxValue = 4 << 10
	// maxEventArgs is how long arguments in an event may be.
	maxEventArgs = 32 << 10
)

func isSecret(key string) bool {
	key = strings.ToLower(key)
	for _, s := range secretKeys {
		if s == "pin" || s == "auth" { // too short to look for inside of words
			if key == s {
				return true
			}
			continue
		}
		if strings.Contains(key, s) {
			return true
		}
	}
	return false
}

// Redact returns a copy of v without secrets: the values of dicts whose key
// says that they are one, at any depth, environments, and what package redact
// finds in texts. Long texts are cut,
// control characters taken out.
func Redact(t *dbusjson.Type, v any) any {
	switch x := v.(type) {
	case string:
		return redact.Text(Clean(x))
	case dbusjson.Variant:
		return dbusjson.Variant{Type: x.Type, Value: Redact(x.Type, x.Value)}
	case dbusjson.Dict:
		out := make(dbusjson.Dict, len(x))
		for i, e := range x {
			out[i] = dbusjson.Entry{Key: e.Key, Value: Redact(t.Elem[0].Elem[1], e.Value)}
			if key, ok := e.Key.(string); ok && (isSecret(key) || key == "Environment") {
				out[i].Value = blank(t.Elem[0].Elem[1])
			}
		}
		return out
	case []any:
		out := make([]any, len(x))
		for i, e := range x {
			et := t.Elem[0]
			if t.Code == '(' {
				et = t.Elem[i]
			}
			out[i] = Redact(et, e)
		}
		// (sv): a property, as systemd has it.
		if t.Code == '(' && len(x) == 2 {
			if key, ok := x[0].(string); ok && (isSecret(key) || key == "Environment") {
				out[1] = blank(t.Elem[1])
			}
		}
		return out
	}
	return v
}

// blank returns what stands in the place of a secret of type t.
func blank(t *dbusjson.Type) any {
	switch t.Code {
	case 's':
		return redacted
	case 'v':
		return dbusjson.Variant{Type: stringType, Value: redacted}
	case 'a':
		switch {
		case t.IsBytes():
			return []byte{}
		case t.IsDict():
			return dbusjson.Dict{}
		}
		return []any{}
	case 'y':
		return uint8(0)
	case 'b':
		return false
	case 'n':
		return int16(0)
	case 'q':
		return uint16(0)
	case 'i':
		return int32(0)
	case 'u':
		return uint32(0)
	case 'x':
		return int64(0)
	case 't':
		return uint64(0)
	case 'd':
		return float64(0)
	case 'o':
		return dbusjson.Path("/")
	case 'g':
		return dbusjson.Signature("")
	case 'h':
		return dbusjson.FD{}
	}
	out := make([]any, len(t.Elem))
	for i, e := range t.Elem {
		out[i] = blank(e)
	}
	return out
}

var stringType, _ = dbusjson.ParseType("s")

// Clean returns a stranger's text without control characters and bidirectional
// overrides, at most maxValue bytes long.
func Clean(s string) string {
	if len(s) > maxValue {
		s = strings.ToValidUTF8(s[:maxValue], "") + "..."
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case r < 0x20 || r >= 0x7f && r < 0xa0, r >= 0x200b && r <= 0x200f, r >= 0x2028 && r <= 0x202e, r >= 0x2066 && r <= 0x2069, r == 0xfeff:
			return -1
		}
		return r
	}, s)
}

// eventArgs returns values for an event: redacted, and left out with their
// length and hash if they are long.
func eventArgs(b bus.Body) json.RawMessage {
	out := bus.Body{Types: b.Types, Values: make([]any, len(b.Values))}
	for i, v := range b.Values {
		out.Values[i] = Redact(b.Types[i], v)
	}
	text, err := out.JSON()
	if err != nil {
		return dbusjson.AppendString(nil, "not readable: "+Clean(err.Error()))
	}
	if len(text) > maxEventArgs {
		return json.RawMessage(fmt.Sprintf(`{"bytes":%d,"sha256":"%x"}`, len(text), sha256.Sum256(text)))
	}
	return text
}

// SignalEvents returns the event lines of a signal, as the log takes them: one,
// and one before it if signals were dropped.
func SignalEvents(busName string, s bus.Signal) [][]byte {
	return append(droppedEvent(busName, s), eventLine(signalEvent(busName, s)))
}

func droppedEvent(busName string, s bus.Signal) [][]byte {
	if s.Dropped == 0 {
		return nil
	}
	return [][]byte{eventLine(event{Time: s.Time, Source: "dbus", Type: "dbus.dropped", Severity: "warning",
		Message: fmt.Sprintf("%d signals were dropped: the reader is too slow", s.Dropped), Data: map[string]any{"bus": busName, "dropped": s.Dropped}})}
}

func signalEvent(busName string, s bus.Signal) event {
	data := map[string]any{"bus": busName, "path": s.Path, "interface": s.Interface, "member": s.Member, "signature": s.Body.Signature(), "args": eventArgs(s.Body)}
	if s.Err != nil {
		data["error"] = Clean(s.Err.Error())
	}
	return event{Time: s.Time, Source: "dbus", Type: "dbus." + s.Member, Subject: s.Path, Actor: s.Sender,
		Message: fmt.Sprintf("signal %s.%s from %s at %s", s.Interface, s.Member, s.Sender, s.Path), Data: data}
}

// An event is what a producer gives the log (FORMATS.md, "Event").
type event struct {
	Time     time.Time `json:"time"`
	Source   string    `json:"source"`
	Type     string    `json:"type"`
	Subject  string    `json:"subject,omitempty"`
	Severity string    `json:"severity,omitempty"`
	Actor    string    `json:"actor,omitempty"`
	Message  string    `json:"message"`
	Data     any       `json:"data,omitempty"`
}

func eventLine(e event) []byte {
	e.Time = e.Time.UTC()
	if len(e.Type) > 128 {
		e.Type = e.Type[:128]
	}
	b, err := json.Marshal(e)
	if err != nil { // all that goes in marshals
		panic(err)
	}
	return b
}
