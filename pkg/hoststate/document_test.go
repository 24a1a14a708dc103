package hoststate

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/ghostbridge/ghostbridge/integration/require"
)

var update = flag.Bool("update", false, "write golden files anew")

// state.schema.json, which is shipped, is what Schema returns.
func TestSchemaIsShipped(t *testing.T) {
	if *update {
		if err := os.WriteFile("state.schema.json", Schema(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile("state.schema.json")
	if err != nil || !bytes.Equal(have, Schema()) {
		t.Errorf("%v; go test ./pkg/hoststate -run TestSchemaIsShipped -update", err)
	}
}

func TestParse(t *testing.T) {
	for _, c := range []struct{ doc, want, hint string }{
		{`{"version":1,"plugins":{}}`, "", ""},
		{`{"plugins":{}}`, "version: is missing", ""},
		{`{"version":2,"plugins":{}}`, "version: 2 is more than 1", ""},
		{`{"version":"1.0","plugins":{}}`, "version: want a number", ""},
		{`{"version":1}`, "plugins: is missing", ""},
		{`{"version":1,"plugins":{"hostnam":{}}}`, "plugins.hostnam: unknown key", `did you mean "hostname"?`},
		{`{"version":1,"plugins":{"hostname":{"static":"a b"}}}`, "no host name", ""},
		{`{"version":1,"plugins":{"hostname":{"static":"-a"}}}`, "no host name", ""},
		{`{"version":1,"plugins":{"hostname":{"static":"a.b-c.D9"}}}`, "", ""},
		{`{"version":1,"plugins":{"hostname":{"pretty":"a\nb"}}}`, "control characters", ""},
		{`{"version":1,"plugins":{"hostname":{"deployment":"two words"}}}`, "not one word", ""},
		{`{"version":1,"plugins":{"systemd":{}}}`, "plugins.systemd.units: is missing", ""},
		{`{"version":1,"plugins":{"systemd":{"units":{"../x.service":{}}}}}`, "no full name of a unit", "nginx.service"},
		{`{"version":1,"plugins":{"systemd":{"units":{"a@.service":{"active":true}}}}}`, "a template does not run", ""},
		{`{"version":1,"plugins":{"systemd":{"units":{"a@.service":{"enabled":true}}}}}`, "", ""},
		{`{"version":1,"plugins":{"systemd":{"units":{"a.service":{"masked":true,"enabled":true}}}}}`, "can't be enabled", ""},
		{`{"version":1,"plugins":{"systemd":{"units":{"a.service":{},"a.service":{}}}}}`, "stands twice", ""},
		{`{"version":1,"plugins":{"ovs":{"bridges":{"br0":{"ports":{"p":{"type":"patch"}}}}}}}`, "plugins.ovs.bridges.br0.ports.p.peer: a patch port needs one", ""},
		{`{"version":1,"plugins":{"ovs":{"bridges":{"br0":{"flows":{}}}},"openflow":{"bridges":{"br0":{}}}}}`, "has flows for this bridge too", ""},
		{`{"version":1,"plugins":{"ovs":{"bridges":{}},"openflow":{"bridges":{"br0":{}}}}}`, "does not name this bridge", ""},
		{`{"version":1,"plugins":{"openflow":{"bridges":{"br0":{"rules":["x"]}}}}}`, "plugins.openflow.bridges.br0.flows.rules[0]: has no actions=", ""},
	} {
		d, err := Parse([]byte(c.doc))
		if c.want == "" {
			if err != nil {
				t.Errorf("%s: %v", c.doc, err)
			} else if again, err := Parse(d.Bytes()); err != nil || again.Hash() != d.Hash() {
				t.Errorf("%s: read back: %v", c.doc, err)
			}
			continue
		}
		e, ok := err.(*DocumentError)
		if !ok || !strings.Contains(e.Error(), c.want) || !strings.Contains(e.Hint(), c.hint) {
			t.Errorf("%s: %v, want %q and %q", c.doc, err, c.want, c.hint)
		}
	}
}

// Whatever a document says, Parse neither panics nor takes what it would not
// take again.
func FuzzParseReadsBackWhatItTook(f *testing.F) {
	f.Add([]byte(`{"version":1,"plugins":{"hostname":{"static":"a"},"systemd":{"units":{"a.service":{"active":true}}}}}`))
	f.Add([]byte(`{"version":1,"plugins":{"ovs":{"bridges":{"br0":{}}},"openflow":{"bridges":{"br0":{"default":true}}}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := Parse(data)
		if err != nil {
			if _, ok := err.(*DocumentError); !ok {
				t.Fatalf("%T: %v", err, err)
			}
			return
		}
		again, err := Parse(d.Bytes())
		if err != nil || again.Hash() != d.Hash() {
			t.Fatalf("%s: %v", d.Bytes(), err)
		}
	})
}

// What is printed for NixOS means there what was wanted here.
func TestNixStrings(t *testing.T) {
	nix := require.Tool(t, "nix-instantiate")
	for _, s := range []string{"", "a", `"`, `\`, "$", "${x}", "$${x}", `\${`, "a\nb\tc", "''", "ü${", `\n`} {
		cmd := exec.Command(nix, "--eval", "--strict", "--json", "--expr", nixString(s))
		dir := t.TempDir()
		cmd.Env = append(os.Environ(), "NIX_STORE_DIR="+dir+"/store", "NIX_STATE_DIR="+dir+"/state", "NIX_LOG_DIR="+dir+"/log", "HOME="+dir)
		out, err := cmd.Output()
		var back string
		if err != nil || json.Unmarshal(out, &back) != nil || back != s {
			t.Errorf("%q: %v, %s", s, err, out)
		}
	}
}

// The example that is shipped is a document.
func TestExample(t *testing.T) {
	text, err := os.ReadFile("../../packaging/state.json")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Parse(text); err != nil {
		t.Error(err)
	}
}
