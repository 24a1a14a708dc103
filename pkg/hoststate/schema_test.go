package hoststate

import (
	"encoding/json"
	"testing"

	"github.com/google/jsonschema-go/jsonschema"
)

// Whatever Parse takes, the JSON Schema that opdbus schema prints takes too: an
// editor marks nothing as wrong that is not. The other way round it says less:
// it knows no host names, and no port that another key wants.
func FuzzSchemaTakesWhatParseTakes(f *testing.F) {
	var s jsonschema.Schema
	if err := json.Unmarshal(Schema(), &s); err != nil {
		f.Fatal(err)
	}
	schema, err := s.Resolve(nil)
	if err != nil {
		f.Fatal(err)
	}
	refuses := func(t testing.TB, data []byte) error {
		var v any
		if err := json.Unmarshal(data, &v); err != nil {
			t.Fatalf("Parse takes what is no JSON: %v", err)
		}
		return schema.Validate(v)
	}
	for _, wrong := range []string{`{"version":2,"plugins":{}}`, `{"version":1}`, `{"version":1,"plugins":{"hostnam":{}}}`, `{"version":1,"plugins":{"hostname":{"static":7}}}`} {
		if refuses(f, []byte(wrong)) == nil {
			f.Fatalf("the schema takes %s", wrong)
		}
	}
	for _, good := range []string{
		`{"$schema":"x","version":1,"plugins":{"hostname":{"static":"a","pretty":"b"},"systemd":{"units":{"a.service":{"active":true,"enabled":false},"b@.timer":{"masked":true}}}}}`,
		`{"version":1,"plugins":{"ovs":{"bridges":{"br0":{"fail_mode":"secure","ports":{"e":{"type":"uplink"},"v":{"type":"patch","peer":"w"},"w":{"type":"patch","peer":"v"}},"flows":{"default":true,"rules":["priority=1,actions=drop"]}}},"nat":{"bridge":"br0","network":"10.0.0.0/24"}}}}`,
		`{"version":1,"plugins":{"openflow":{"bridges":{"br0":{"default":true,"broadcast_limit":5,"isolate":["br1"]}}},"snapshots":{},"timedate":{"timezone":"UTC"},"resolved":{},"login":{"kill_user_processes":true},"packages":{}}}`,
	} {
		if _, err := Parse([]byte(good)); err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(good))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := Parse(data); err != nil {
			return
		}
		if err := refuses(t, data); err != nil {
			t.Fatalf("%s: %v", data, err)
		}
	})
}
