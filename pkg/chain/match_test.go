package chain

import (
	"encoding/json"
	"testing"
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
