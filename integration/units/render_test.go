//go:build linux

// Package units tests the unit files: that they are what nix/units.nix says,
// that systemd takes them without a word, that they are as locked up as they
// should be, and that they name nothing that is not there.
package units

import (
	"bytes"
	"encoding/json"
	"flag"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ghostbridge/ghostbridge/integration/require"
)

var update = flag.Bool("update", false, "write units/ anew from nix/units.nix")

const root = "../.."

// render evaluates nix/render.nix with programs of ours in the directory bin and
// those of others in tool, and returns the files by their path. The evaluator gets a store of its own, so
// that it needs neither /nix nor a daemon.
func render(t *testing.T, bin, tool string) map[string]string {
	t.Helper()
	nix := require.Tool(t, "nix-instantiate")
	source, err := filepath.Abs(filepath.Join(root, "nix", "render.nix"))
	if err != nil {
		t.Fatal(err)
	}
	expr := `{ source, bin, tool }: import source { bin = n: "${bin}/${n}"; tool = n: "${tool}/${n}"; }`
	cmd := exec.Command(nix, "--eval", "--strict", "--json", "-E", expr, "--arg", "source", source, "--argstr", "bin", bin, "--argstr", "tool", tool)
	store := t.TempDir()
	cmd.Env = append(os.Environ(), "NIX_STORE_DIR="+store+"/store", "NIX_STATE_DIR="+store+"/state", "NIX_LOG_DIR="+store+"/log", "HOME="+store,
		"NIX_CONF_DIR="+store, "NIX_REMOTE=")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("nix-instantiate: %v\n%s", err, stderr.Bytes())
	}
	var files map[string]string
	if err := json.Unmarshal(out, &files); err != nil {
		t.Fatal(err)
	}
	return files
}

// committed returns the files of units/ by their path.
func committed(t *testing.T) map[string]string {
	t.Helper()
	dir := os.DirFS(filepath.Join(root, "units"))
	files := make(map[string]string)
	err := fs.WalkDir(dir, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(dir, path)
		files[path] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestUnitsAreRendered(t *testing.T) {
	want := render(t, "/usr/bin", "/usr/bin")
	if *update {
		for path, text := range want {
			full := filepath.Join(root, "units", path)
			if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(full, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		for path := range committed(t) {
			if _, ok := want[path]; !ok {
				if err := os.Remove(filepath.Join(root, "units", path)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	have := committed(t)
	for path, text := range want {
		if have[path] != text {
			t.Errorf("units/%s is not what nix/units.nix says: run make units", path)
		}
	}
	for path := range have {
		if _, ok := want[path]; !ok {
			t.Errorf("units/%s is not in nix/units.nix: run make units", path)
		}
	}
}

// A unit is the settings of a unit file: section, key, values.
type unit map[string]map[string][]string

// parse reads a unit file as render.nix writes it: without continued lines.
func parse(t *testing.T, name, text string) unit {
	t.Helper()
	u := make(unit)
	section := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "[") && strings.HasSuffix(line, "]"):
			section = line[1 : len(line)-1]
			if u[section] != nil {
				t.Errorf("%s: section %s twice", name, section)
			}
			u[section] = make(map[string][]string)
		default:
			key, value, ok := strings.Cut(line, "=")
			if !ok || section == "" || strings.HasSuffix(line, `\`) {
				t.Fatalf("%s: line %q", name, line)
			}
			u[section][key] = append(u[section][key], value)
		}
	}
	return u
}

// get returns the only value of a setting, "" if it is not set.
func (u unit) get(section, key string) string {
	if v := u[section][key]; len(v) > 0 {
		return v[len(v)-1]
	}
	return ""
}

// unitFiles returns the committed units by name.
func unitFiles(t *testing.T) map[string]unit {
	t.Helper()
	units := make(map[string]unit)
	for path, text := range committed(t) {
		if !strings.Contains(path, "/") && path != "aliases" {
			units[path] = parse(t, path, text)
		}
	}
	if len(units) < 10 {
		t.Fatalf("%d units", len(units))
	}
	return units
}

// aliases returns the names that stand for another unit, and which.
func aliases(t *testing.T) map[string]string {
	t.Helper()
	list := make(map[string]string)
	for line := range strings.Lines(committed(t)["aliases"]) {
		if f := strings.Fields(line); f[0] != "#" {
			list[f[0]] = f[1]
		}
	}
	return list
}
