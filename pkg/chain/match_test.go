package chain

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/event"
)

func TestFieldMatch(t *testing.T) {
	data := json.RawMessage(`{"port":{"name":"ens1","ofport":3,"up":true,"tag":null},"ips":["10.0.0.1",{"v":"6"}],"data":{"x":"inner"},"7":"seven","e":""}`)
	for match, want := range map[string]bool{
		"port.name=ens1": true, "data.port.name=ens1": true, "port.name=ens": false, "port.name=": false, "port.none=": false,
		"port.ofport=3": true, "port.ofport=3.0": false, "port.up=true": true, "port.tag=null": true, "port=ens1": false,
		"ips.0=10.0.0.1": true, "data.ips.1.v=6": true, "ips.2=": false, "ips.-1=": false, "ips.x=": false,
		"data.x=inner": true, "data.data.x=inner": true, "7=seven": true, "e=": true, "port.name.more=ens1": false,
	} {
		m, err := ParseFieldMatch(match)
		if err != nil {
			t.Fatal(err)
		}
		if m.in(data) != want {
			t.Errorf("%s: %v", match, !want)
		}
		if m.in(nil) {
			t.Errorf("%s is in an event without data", match)
		}
	}
}

// What is passed over without being decoded would not have been chosen.
func FuzzPassedOverIsNotChosen(f *testing.F) {
	f.Add(`"subject":"vnet7","data":{"a":"b"}`, "vnet7", uint8(0))
	f.Add(`"subject":"vn\u0065t7"`, "vnet7", uint8(3))
	f.Add(`"actor":"a<b>&c","data":{"x":{"y":[1, 2]}}`, "[1, 2]", uint8(5))
	f.Add(`"host":"h\/1"`, "h/1", uint8(1))
	f.Add(`"subject":"x"`, "port.*", uint8(4))
	f.Fuzz(func(t *testing.T, more, value string, which uint8) {
		var p event.Parser
		d, err := p.Parse([]byte(`{"source":"port.a","type":"port.added","message":"m",` + more + `}`))
		if err != nil {
			return
		}
		line, err := d.Append(nil, event.Stamp{Index: 1, At: time.Unix(1, 0), Host: "a.example"})
		if err != nil {
			return
		}
		var filter Filter
		switch which % 6 {
		case 0:
			filter.Sources = []string{"other", value}
		case 1:
			filter.Hosts = []string{value}
		case 2:
			filter.Actors = []string{value, "x"}
		case 3:
			filter.Subjects = []string{value}
		case 4:
			filter.Types = []string{value}
		case 5:
			filter.Matches = []FieldMatch{{[]string{"x", "y"}, value}, {[]string{"x"}, value}}[:1]
		}
		e, err := filter.Match(line)
		if err != nil {
			t.Fatal(err)
		}
		if e != nil && !filter.needles().mayMatch(line) {
			t.Errorf("%q is chosen of %s, and passed over", value, line)
		}
	})
}
