//go:build linux

package nix

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ghostbridge/ghostbridge/integration/require"
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
			Failed, Warnings []string
			Units            map[string]string
		}
		Flake  map[string]map[string]string
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
	if real.Flake != nil && len(real.Host.Warnings) > 0 {
		t.Errorf("NixOS warns: %q", real.Host.Warnings)
	}
	checkUnits(t, real.Host.Units, nil, false)
	// What is there to build of the flake, the test in a virtual machine too.
	for kind, names := range map[string][]string{
		"packages": {"default", "ghostbridge"}, "checks": {"package", "units", "vm"}, "devShells": {"default"}, "host": {"ghostbridge"}, "vm": {"driver"},
	} {
		for _, name := range names {
			if drv := real.Flake[kind][name]; real.Flake != nil && !strings.HasSuffix(drv, ".drv") {
				t.Errorf("%s.%s of the flake is %q", kind, name, drv)
			}
		}
	}
	for name, c := range real.Broken {
		if !slices.ContainsFunc(c.Failed, func(m string) bool { return strings.Contains(m, c.Says) }) {
			t.Errorf("%s: %q, want %q", name, c.Failed, c.Says)
		}
	}
}

// packaged says whether GB_NIXPKGS names a nixpkgs, which has buildGoModule,
// and not only its lib.
func packaged() bool {
	_, err := os.Stat(filepath.Join(nixpkgs, "pkgs/build-support/go/module.nix"))
	return nixpkgs != "" && err == nil
}

// Nix takes nix/vendor-hash for the modules that nixpkgs' own buildGoModule
// fetches, and no other; the package that it builds has what the modules and
// the host ask of it. Go, the compiler and the shell are this machine's. Six
// programs are compiled from nothing, and the modules fetched twice: on a busy
// machine go test needs a longer -timeout than its own.
func packageIsBuilt(t *testing.T) {
	dir, err := filepath.Abs(nixpkgs)
	if err != nil {
		t.Fatal(err)
	}
	store := t.TempDir()
	// As the store leaves them, its directories can't be removed.
	t.Cleanup(func() {
		_ = filepath.WalkDir(store, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				return os.Chmod(path, 0o700)
			}
			return nil
		})
	})
	conf := "build-users-group =\nsandbox = false\nsubstituters =\n"
	if err := os.WriteFile(filepath.Join(store, "nix.conf"), []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	goEnv := func(name string) string {
		out, err := exec.Command("go", "env", name).Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(out))
	}
	build := func(attr string) (string, string, error) {
		cmd := command(t, store)
		cmd.Path = require.Tool(t, "nix-build")
		cmd.Args = []string{"nix-build", "--no-out-link", "-A", attr,
			"-E", "import ./nix/tests/package.nix { nixpkgs = " + dir + `; path = builtins.getEnv "PATH"; }`}
		// The modules that this machine has, and no network.
		cmd.Env = append(cmd.Env, "GB_GO="+goEnv("GOVERSION"), "GOPROXY=file://"+goEnv("GOMODCACHE")+"/cache/download")
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		err := cmd.Run()
		return strings.TrimSpace(stdout.String()), stderr.String(), err
	}

	out, stderr, err := build("package")
	if err != nil {
		t.Fatalf("%v\n%s", err, tail(stderr, 4000))
	}
	for _, file := range []string{
		"bin/gb-chain", "bin/gb-snap", "bin/gb-vecsync", "bin/gb-ovs-setup", "bin/opdbus", "bin/gb-web",
		"bin/op-dbus", "bin/dbus-mcp", "bin/dbus-mcp-web",
		"share/dbus-1/system.d/org.freedesktop.opdbus.conf", "share/dbus-1/system-services/org.freedesktop.opdbus.service",
		"share/polkit-1/actions/org.freedesktop.opdbus.policy", "share/ghostbridge/ovs.schema.json",
		"share/man/man1/gb-snap.1", "share/bash-completion/completions/opdbus.bash", "share/zsh/site-functions/_gb-web",
		"share/fish/vendor_completions.d/gb-chain.fish",
	} {
		if info, err := os.Stat(filepath.Join(out, file)); err != nil || info.Size() == 0 {
			t.Errorf("the package lacks %s: %v", file, err)
		}
	}
	if text, err := exec.Command(filepath.Join(out, "bin/op-dbus"), "--version").CombinedOutput(); err != nil || !strings.Contains(string(text), "0-unstable") {
		t.Errorf("op-dbus --version: %v\n%s", err, text)
	}

	hash, err := os.ReadFile(filepath.Join(root, "nix", "vendor-hash"))
	if err != nil {
		t.Fatal(err)
	}
	if _, stderr, err := build("wrong"); err == nil || !strings.Contains(stderr, "got:    "+string(bytes.TrimSpace(hash))) {
		t.Errorf("with another hash: %v\n%s", err, tail(stderr, 1000))
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
