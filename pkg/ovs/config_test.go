package ovs

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write golden files")

// full uses every key of the format.
const full = `{
	"$schema": "ovs.schema.json",
	"bridges": {
		"ovsbr0": {
			"datapath_type": "netdev", "fail_mode": "standalone", "mac": "02:00:00:00:00:01", "mtu": 1500, "protocols": ["OpenFlow13", "OpenFlow14"],
			"other_config": {"stp-priority": "0x1000"}, "external_ids": {"site": "a"},
			"ports": {
				"ens1": {"type": "uplink", "mtu": 9000, "trunks": [1, 2], "vlan_mode": "native-untagged", "tag": 1, "other_config": {"a": "b"}, "external_ids": {"c": "d"}},
				"int0": {"type": "internal", "mac": "02:00:00:00:00:02", "tag": 0},
				"to1": {"type": "patch", "peer": "to0"}
			},
			"flows": {"default": true, "broadcast_limit": 500, "leak_guard": ["10.0.1.0/24", "fd00::/64"], "rules": ["table=1,priority=5,ip,nw_src=10.0.0.1 actions=drop"]}
		},
		"ovsbr1": {"ports": {"to0": {"type": "patch", "peer": "to1"}, "tap0": {}}, "flows": {"isolate": ["ovsbr0"]}}
	},
	"hw_offload": false,
	"offload": {"ens1": "strict", "eno2": "keep"},
	"other_config": {"max-idle": "10000"}, "external_ids": {"system-id": "x"},
	"nat": {"bridge": "ovsbr1", "network": "10.0.1.0/24", "out": "ovsbr0", "kill_switch": "wg0"},
	"probe": ["192.0.2.1", "192.0.2.2:22", "[2001:db8::1]:443"]
}`

func TestParse(t *testing.T) {
	c, err := Parse([]byte(full))
	if err != nil {
		t.Fatal(err)
	}
	spaced := strings.NewReplacer("\n", "\n  ", ": ", ":   ").Replace(full)
	d, err := Parse([]byte(spaced))
	if err != nil {
		t.Fatal(err)
	}
	if c.Hash() != d.Hash() {
		t.Error("the same state, written otherwise, has another hash")
	}
	c.Bridges["ovsbr1"] = Bridge{}
	if c.Hash() == d.Hash() {
		t.Error("another state has the same hash")
	}
}

func TestParseRefuses(t *testing.T) {
	port := func(s string) string { return `{"bridges":{"b":{"ports":{"p":` + s + `}}}}` }
	bridge := func(s string) string { return `{"bridges":{"b":` + s + `}}` }
	for _, c := range []struct{ in, want, hint string }{
		{``, `unexpected EOF`, ``},
		{`[]`, `want one JSON object`, ``},
		{`{}`, `bridges: is missing`, ``},
		{`{"bridges":{}} x`, `text behind the object`, ``},
		{`{"bridges":{},"bridges":{}}`, `bridges: stands twice`, ``},
		{`{"brigdes":{}}`, `brigdes: unknown key`, `did you mean "bridges"?`},
		{`{"bridges":{},"zzz":1}`, `zzz: unknown key`, `known here are: $schema, bridges`},
		{port(`{"tpye":"uplink"}`), `bridges.b.ports.p.tpye: unknown key`, `did you mean "type"?`},
		{port(`{"type":"internl"}`), `bridges.b.ports.p.type: "internl" is none of system, uplink, internal, patch`, `did you mean "internal"?`},
		{port(`{"tag":"5"}`), `bridges.b.ports.p.tag: want a number, not the string "5"`, ``},
		{port(`{"tag":4096}`), `4096 is more than 4095`, ``},
		{port(`{"tag":1.5}`), `want a whole number, not 1.5`, ``},
		{port(`{"trunks":[1,1]}`), `bridges.b.ports.p.trunks[1]: 1 stands twice`, ``},
		{port(`{"type":"patch"}`), `bridges.b.ports.p.peer: a patch port needs one`, ``},
		{port(`{"type":"patch","peer":"q"}`), `q is no patch port of this file`, ``},
		{port(`{"peer":"q"}`), `is for patch ports`, ``},
		{port(`{"mac":"02:00:00:00:00:01"}`), `is for internal ports`, ``},
		{port(`{"type":"internal","mac":"01:00:00:00:00:01"}`), `is a group address`, ``},
		{port(`{"type":"internal","mac":"02-00-00-00-00-01"}`), `is no Ethernet address`, ``},
		{port(`{"vlan_mode":"access","trunks":[1]}`), `an access port has none`, ``},
		{port(`{"external_ids":{"gb-owner":"me"}}`), `keys that begin with gb- are this tool's own`, ``},
		{port(`null`), `want an object, not null`, ``},
		{`{"bridges":{"b":{"ports":{"b":{}}}}}`, `the name is taken by a port of b`, ``},
		{`{"bridges":{"b":{"ports":{"p":{}}},"c":{"ports":{"p":{}}}}}`, `bridges.c.ports.p: the name is taken by a port of b`, ``},
		{`{"bridges":{"a name that is too long":{}}}`, `can't name a network interface`, ``},
		{`{"bridges":{"../x":{}}}`, `can't name a network interface`, ``},
		{`{"bridges":{"-x":{}}}`, `can't name a network interface`, ``},
		{bridge(`{"ports":{"a":{"type":"uplink"},"c":{"type":"uplink"}}}`), `2 uplinks on one bridge make a loop`, ``},
		{bridge(`{"other_config":{"hwaddr":"x"}}`), `is set by mac`, ``},
		{bridge(`{"other_config":{"a":"b\nc"}}`), `has control characters`, ``},
		{bridge(`{"flows":{"isolate":["b"]}}`), `can't be isolated from itself`, ``},
		{bridge(`{"flows":{"isolate":["x"]}}`), `x is no bridge of this file`, ``},
		{bridge(`{"flows":{"rules":["priority=1"]}}`), `rules[0]: has no actions=`, ``},
		{bridge(`{"flows":{"rules":["cookie=1,actions=drop"]}}`), `cookies are this tool's`, ``},
		{bridge(`{"flows":{"rules":["priority=70000,actions=drop"]}}`), `is no number up to 65535`, ``},
		{bridge(`{"flows":{"rules":["hard_timeout=3,actions=drop"]}}`), `a desired flow lasts`, ``},
		{bridge(`{"flows":{"default":true},"protocols":["OpenFlow10"]}`), `needs OpenFlow14`, ``},
		{bridge(`{"flows":{"leak_guard":["10.0.1.1/24"]}}`), `is no network such as`, ``},
		{`{"bridges":{},"other_config":{"hw-offload":"true"}}`, `is set by hw_offload`, ``},
		{`{"bridges":{},"offload":{"ens1":"off"}}`, `"off" is none of tc-only, safe, strict, keep`, ``},
		{`{"bridges":{},"probe":["example.org"]}`, `is neither an address nor address:port`, ``},
		{`{"bridges":{},"nat":{"bridge":"x","network":"10.0.1.0/24"}}`, `nat.bridge: x is no bridge of this file`, ``},
		{`{"bridges":{},"nat":{"bridge":"x"}}`, `nat.network: is missing`, ``},
		{`{"bridges":` + strings.Repeat(`{"a":`, 50), `nested too deeply`, ``},
	} {
		_, err := Parse([]byte(c.in))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.in, err, c.want)
			continue
		}
		var bad *ConfigError
		if !errors.As(err, &bad) || bad.ExitCode() != 2 || !strings.Contains(bad.Hint(), c.hint) {
			t.Errorf("%s: %#v, want the hint %s", c.in, err, c.hint)
		}
	}
}

func FuzzParseKeepsItsMeaning(f *testing.F) {
	f.Add([]byte(full))
	f.Add([]byte(`{"bridges":{"b":{"ports":{"p":{"tag":1}}}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse(data)
		if err != nil {
			var bad *ConfigError
			if !errors.As(err, &bad) {
				t.Fatalf("%T: %v", err, err)
			}
			return
		}
		again, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		d, err := Parse(again)
		if err != nil {
			t.Fatalf("%s: %v", again, err)
		}
		if c.Hash() != d.Hash() {
			t.Fatalf("%s: its hash is not that of what it was read from", again)
		}
	})
}

// The schema that is shipped is that of the code, and knows every key that
// the example uses.
func TestSchemaIsFresh(t *testing.T) {
	const path = "ovs.schema.json"
	if *update {
		if err := os.WriteFile(path, Schema(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, Schema()) {
		t.Errorf("%s is stale: go test ./pkg/ovs -run TestSchemaIsFresh -update", path)
	}
	var schema, example any
	if err := json.Unmarshal(have, &schema); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(full), &example); err != nil {
		t.Fatal(err)
	}
	covered := map[string]bool{}
	walkSchema(t, "", schema.(map[string]any), example, covered)
	for _, key := range []string{"/bridges/*/ports/*/peer", "/nat/kill_switch", "/probe", "/bridges/*/flows/leak_guard"} {
		if !covered[key] {
			t.Errorf("the example does not use %s", key)
		}
	}
}

// walkSchema holds a value to the part of JSON Schema that Schema uses.
func walkSchema(t *testing.T, path string, schema map[string]any, v any, covered map[string]bool) {
	covered[path] = true
	if schema["description"] == "" {
		t.Errorf("%s has no description", path)
	}
	switch v := v.(type) {
	case map[string]any:
		properties, _ := schema["properties"].(map[string]any)
		for k, e := range v {
			if p, ok := properties[k].(map[string]any); ok {
				walkSchema(t, path+"/"+k, p, e, covered)
			} else if p, ok := schema["additionalProperties"].(map[string]any); ok {
				walkSchema(t, path+"/*", p, e, covered)
			} else {
				t.Errorf("%s/%s is not in the schema", path, k)
			}
		}
	case []any:
		for _, e := range v {
			walkSchema(t, path, schema["items"].(map[string]any), e, covered)
		}
	}
}
