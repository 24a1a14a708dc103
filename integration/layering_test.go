package integration

import (
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/ghostbridge/ghostbridge"

// layers are DESIGN's, from the bottom up. A package may import what stands in
// a layer below its own, and within core what stands before it.
var layers = [][]string{
	{"names", "event", "durable", "merkle", "layout", "sendstream", "template", "dbusjson", "intake", "words", "redact", "enrich", "webauthn"}, // core
	{"subvol", "index", "index/local", "index/qdrant", "embed", "record", "ovsdb", "openflow", "netoffload", "rtnetlink", "bus", "systemd"},
	{"chain", "snap", "vecsync", "search", "ovs"},
	{"hoststate"},
	{"opdbus", "mcp", "web", "web/access", "web/timeline"},
	{"cli"},
	{"cmd"},
}

// sideways are the imports within a layer that are meant: an implementation
// imports the contract that it implements.
var sideways = map[[2]string]bool{
	{"index/local", "index"}:  true,
	{"index/qdrant", "index"}: true,
	{"web", "web/access"}:     true,
	{"web", "web/timeline"}:   true,
}

// coreLibraries are the third-party libraries that core may import, and where.
var coreLibraries = map[string]string{
	"golang.org/x/mod":              "merkle",
	"github.com/klauspost/compress": "sendstream",
}

// free are libraries that any package may import.
var free = []string{"golang.org/x/sys"}

// A pkg is what go list says of a package.
type pkg struct {
	ImportPath string
	Name       string
	Doc        string
	Dir        string
	GoFiles    []string
	Imports    []string
	Standard   bool
}

// place returns a package's layer and its place within; ok is false for one
// that nobody has assigned. Tests' own packages are free: layer -1.
func place(path string) (layer, at int, ok bool) {
	rel := strings.TrimPrefix(path, module+"/")
	switch {
	case strings.HasPrefix(rel, "integration"), strings.HasPrefix(rel, "testdata"), strings.HasSuffix(rel, "test") && strings.HasPrefix(rel, "pkg/"):
		return -1, 0, true
	case strings.HasPrefix(rel, "cmd/") && strings.Count(rel, "/") == 1:
		return len(layers) - 1, 0, true
	}
	name, ok := strings.CutPrefix(rel, "pkg/")
	if !ok {
		return 0, 0, false
	}
	for i, l := range layers {
		if k := slices.Index(l, name); k >= 0 {
			return i, k, true
		}
	}
	return 0, 0, false
}

// library returns the module-like prefix of a third-party import.
func library(path string) string {
	parts := strings.Split(path, "/")
	n := 3
	if strings.HasPrefix(path, "modernc.org/") || strings.HasPrefix(path, "filippo.io/") {
		n = 2
	}
	return strings.Join(parts[:min(n, len(parts))], "/")
}

// violations returns what is wrong with the imports of pkgs, of which those of
// this module and of others are known by name.
func violations(pkgs []pkg) []string {
	var bad []string
	complain := func(format string, args ...any) { bad = append(bad, fmt.Sprintf(format, args...)) }
	users := make(map[string][]string)
	for _, p := range pkgs {
		rel := strings.TrimPrefix(p.ImportPath, module+"/")
		layer, at, ok := place(p.ImportPath)
		if !ok {
			complain("%s: no layer is assigned to it", rel)
			continue
		}
		if slices.Contains([]string{"util", "utils", "common", "helper", "helpers", "types", "manager", "misc", "base"}, p.Name) {
			complain("%s: a package called %s says nothing", rel, p.Name)
		}
		if p.Doc == "" && layer >= 0 {
			complain("%s: no package comment", rel)
		}
		for _, imp := range p.Imports {
			if imp == "C" || !strings.Contains(strings.Split(imp, "/")[0], ".") {
				continue // the standard library
			}
			if !strings.HasPrefix(imp, module+"/") {
				lib := library(imp)
				if slices.Contains(free, lib) || layer < 0 {
					continue
				}
				if !slices.Contains(users[lib], rel) {
					users[lib] = append(users[lib], rel)
				}
				if layer == 0 && "pkg/"+coreLibraries[lib] != rel {
					complain("%s: core imports %s", rel, lib)
				}
				continue
			}
			toRel := strings.TrimPrefix(imp, module+"/")
			toLayer, toAt, ok := place(imp)
			switch {
			case !ok:
				complain("%s imports %s, which has no layer", rel, toRel)
			case layer < 0: // tests may import anything
			case toLayer < 0:
				complain("%s imports the test package %s", rel, toRel)
			case toLayer > layer:
				complain("%s imports %s: upwards", rel, toRel)
			case toLayer == layer && layer == 0 && toAt < at:
			case toLayer == layer && !sideways[[2]string{strings.TrimPrefix(rel, "pkg/"), strings.TrimPrefix(toRel, "pkg/")}]:
				complain("%s imports %s: sideways", rel, toRel)
			}
		}
	}
	for lib, by := range users {
		if len(by) > 1 {
			slices.Sort(by)
			complain("%s is imported by %s: one package each", lib, strings.Join(by, ", "))
		}
	}
	slices.Sort(bad)
	return bad
}

func TestLayering(t *testing.T) {
	cmd := exec.Command("go", "list", "-json=ImportPath,Name,Doc,Dir,GoFiles,Imports,Standard", module+"/...")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var pkgs []pkg
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p pkg
		if err := dec.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if len(p.GoFiles) > 0 {
			pkgs = append(pkgs, p)
		}
	}
	if len(pkgs) < 10 {
		t.Fatalf("go list gave %d packages", len(pkgs))
	}
	for _, v := range violations(pkgs) {
		t.Error(v)
	}
	for _, p := range pkgs {
		if !strings.HasPrefix(p.ImportPath, module+"/cmd/") {
			continue
		}
		main := filepath.Join(p.Dir, "main.go")
		if n := countLines(t, main); n > 60 {
			t.Errorf("%s has %d lines, more than 60", main, n)
		}
	}
}

// The checker finds what it is for.
func TestLayeringFindsViolations(t *testing.T) {
	for want, p := range map[string]pkg{
		"upwards":               {ImportPath: module + "/pkg/chain", Doc: "d", Imports: []string{module + "/pkg/cli"}},
		"sideways":              {ImportPath: module + "/pkg/chain", Doc: "d", Imports: []string{module + "/pkg/vecsync"}},
		"imports pkg/layout: s": {ImportPath: module + "/pkg/event", Doc: "d", Imports: []string{module + "/pkg/layout"}},
		"core imports":          {ImportPath: module + "/pkg/event", Doc: "d", Imports: []string{"golang.org/x/mod/sumdb/note"}},
		"no layer is assigned":  {ImportPath: module + "/pkg/new", Doc: "d"},
		"no package comment":    {ImportPath: module + "/pkg/chain"},
		"says nothing":          {ImportPath: module + "/pkg/chain", Name: "util", Doc: "d"},
		"test package":          {ImportPath: module + "/pkg/chain", Doc: "d", Imports: []string{module + "/integration/require"}},
	} {
		got := violations([]pkg{p})
		if len(got) != 1 || !strings.Contains(got[0], want) {
			t.Errorf("want %q, got %q", want, got)
		}
	}
	two := []pkg{
		{ImportPath: module + "/pkg/subvol", Doc: "d", Imports: []string{"example.org/a/b/c"}},
		{ImportPath: module + "/pkg/bus", Doc: "d", Imports: []string{"example.org/a/b"}},
	}
	if got := violations(two); len(got) != 1 || !strings.Contains(got[0], "one package each") {
		t.Errorf("got %q", got)
	}
	good := []pkg{
		{ImportPath: module + "/cmd/gb-chain", Doc: "d", Imports: []string{module + "/pkg/cli", module + "/pkg/chain", "fmt", "C"}},
		{ImportPath: module + "/pkg/layout", Doc: "d", Imports: []string{module + "/pkg/event", module + "/pkg/merkle"}},
		{ImportPath: module + "/pkg/chain", Doc: "d", Imports: []string{module + "/pkg/record", "golang.org/x/sys/unix"}},
		{ImportPath: module + "/integration", Imports: []string{module + "/pkg/chain"}},
	}
	if got := violations(good); len(got) != 0 {
		t.Errorf("got %q", got)
	}
}
