package timeline

import (
	"fmt"
	"testing"

	"github.com/ghostbridge/ghostbridge/pkg/chain"
	"github.com/ghostbridge/ghostbridge/pkg/event"
)

func TestSeverityWordsAreAll(t *testing.T) {
	seen := map[event.Severity]int{}
	for _, w := range severityWords {
		s, err := event.ParseSeverity(w)
		if err != nil {
			t.Error(err)
		}
		seen[s]++
	}
	// Each name of String is one, and so is each that ParseSeverity's error names.
	for s := range event.Severity(Severities) {
		if seen[s] == 0 {
			t.Errorf("no word for %s", s)
		}
	}
}

// What is not decoded is not chosen, however the producer writes its JSON.
func FuzzSkippedIsNotChosen(f *testing.F) {
	f.Add("mcp", "mcp.call", "err", "hello", "mcp", "mcp.*", "err", "hell")
	f.Add(`\u006dcp`, "a.b", "error", "x", "mcp", "a.*", "crit", "X")
	f.Add("ovs", "port.created", "warning", `a\/b`, "ovs", "port.created", "warning", "a/b")
	f.Add("k", "t", "emergency", "ÄÖ", "k", "t", "emerg", "Äö")
	f.Fuzz(func(t *testing.T, source, typ, severity, message, wantSource, wantType, wantSeverity, text string) {
		line := event.Close(fmt.Appendf(nil, `{"i":0,"at":"2026-01-02T03:04:05.000000000Z","peer":{"uid":0}, "source" : "%s","type":"%s","message":"%s","time":"2026-01-02T03:04:05.000000000Z","host":"h","severity":"%s","actor":"a"`, source, typ, message, severity))
		e, err := event.Decode(line)
		if err != nil {
			t.Skip()
		}
		c := &chain.Filter{Sources: []string{wantSource}, Types: []string{wantType}}
		if c.Severity, err = event.ParseSeverity(wantSeverity); err == nil {
			c.HasSeverity = true
		}
		for _, choice := range []*Choice{NewChoice(c, nil), NewChoice(nil, []byte(text))} {
			var buf []byte
			if choice.skips(line, &buf) && choice.Chooses(Row{Event: e, Line: line}) {
				t.Errorf("%s is chosen by %q %q %q %q and was passed over", line, wantSource, wantType, wantSeverity, text)
			}
		}
	})
}
