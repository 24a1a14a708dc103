//go:build linux

package nix

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// nixpkgs is a directory with nixpkgs, or with its lib alone.
var nixpkgs = os.Getenv("GB_NIXPKGS")

// testNixpkgs is TestHost with the real lib, and the README's host on the real
// NixOS. Nothing is built.
func testNixpkgs(t *testing.T) {
	dir, err := filepath.Abs(nixpkgs)
	if err != nil {
		t.Fatal(err)
	}
	if string(eval(t, "(import "+dir+"/lib).types ? anything")) == "true" {
		realLib(t, dir+"/lib")
	} else {
		t.Log("its lib is older than the stand-ins of options")
	}
	if _, err := os.Stat(dir + "/nixos/lib/eval-config.nix"); err != nil {
		t.Logf("%s has no NixOS", dir)
		return
	}
	var real struct {
		Release  string
		Toplevel string
		Host     struct {
			Failed []string
			Units  map[string]string
		}
		Broken map[string]struct {
			Says   string
			Failed []string
		}
	}
	if err := json.Unmarshal(eval(t, "import ./nix/tests/nixos.nix { nixpkgs = "+dir+"; }"), &real); err != nil {
		t.Fatal(err)
	}
	t.Logf("NixOS %s: %s", real.Release, filepath.Base(real.Toplevel))
	if !strings.HasSuffix(real.Toplevel, ".drv") {
		t.Errorf("toplevel is %q", real.Toplevel)
	}
	if len(real.Host.Failed) > 0 {
		t.Errorf("assertions: %q", real.Host.Failed)
	}
	checkUnits(t, real.Host.Units, nil, false)
	for name, c := range real.Broken {
		if !slices.ContainsFunc(c.Failed, func(m string) bool { return strings.Contains(m, c.Says) }) {
			t.Errorf("%s: %q, want %q", name, c.Failed, c.Says)
		}
	}
}

// realLib looks at what the modules are over the stand-ins of options with the
// real lib, and whether its stand-in says the same.
func realLib(t *testing.T, lib string) {
	t.Helper()
	o := evaluate(t, lib)
	checkHost(t, &o.Host)
	checkModules(t, o)
	s := evaluate(t, "")
	for _, h := range []*outcome{o, s} {
		slices.Sort(h.Host.Tmpfiles) // modules come in another order
	}
	want, err1 := json.MarshalIndent(o, "", " ")
	have, err2 := json.MarshalIndent(s, "", " ")
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	wants, haves := strings.Split(string(want), "\n"), strings.Split(string(have), "\n")
	for i := range min(len(wants), len(haves)) {
		if wants[i] != haves[i] {
			t.Errorf("line %d with lib:\n%s\nwith its stand-in:\n%s", i, wants[i], haves[i])
			break
		}
	}
}
