package docs

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/constant"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Every key of every object that a tool prints as JSON stands in FORMATS.md, in
// the section of that tool or in one that it refers to. What is printed is what
// cmd/TOOL gives to cli.PrintJSON, by the types of Go.
func TestKeysOfJSON(t *testing.T) {
	text, err := os.ReadFile(root + "/FORMATS.md")
	if err != nil {
		t.Fatal(err)
	}
	exports := exportData(t)
	for _, tool := range []string{"gb-chain", "gb-snap", "gb-vecsync", "gb-ovs-setup", "opdbus", "gb-web"} {
		t.Run(tool, func(t *testing.T) {
			documented := documentedKeys(t, string(text), "JSON of "+tool)
			_, section, _ := strings.Cut(string(text), "\n## JSON of "+tool+"\n")
			_, section, _ = strings.Cut(section, "\n| command |")
			section, _, _ = strings.Cut(section, "\n\n")
			for row := range strings.Lines(section) {
				if !strings.HasPrefix(row, "| `") {
					continue
				}
				for _, m := range regexp.MustCompile("`([a-z][a-z -]*?)( -[-a-z ]*)?`").FindAllStringSubmatch(strings.Split(row, "|")[1], -1) {
					if manual(t, tool, m[1]) == "" {
						t.Errorf("FORMATS.md, JSON of %s: man/%s.1 has no %s %s", tool, tool, tool, m[1])
					}
				}
			}
			keys := printedKeys(t, tool, exports)
			if len(keys) < 4 {
				t.Errorf("only the keys %q were found", keys)
			}
			for key, at := range keys {
				if !documented[key] {
					t.Errorf("FORMATS.md, JSON of %s: the key %q is not there (%s)", tool, key, at)
				}
			}
		})
	}
}

// documentedKeys returns what stands in back quotes in a section and in those
// that it has links to.
func documentedKeys(t *testing.T, text, title string) map[string]bool {
	t.Helper()
	sections := make(map[string]string)
	anchors := make(map[string]string)
	for _, s := range strings.Split("\n"+text, "\n## ")[1:] {
		head, body, _ := strings.Cut(s, "\n")
		sections[head] = body
		anchors[strings.NewReplacer(" ", "-", "'", "", ",", "").Replace(strings.ToLower(head))] = head
	}
	body, ok := sections[title]
	if !ok {
		t.Fatalf("FORMATS.md has no section %q", title)
	}
	for _, m := range regexp.MustCompile(`\]\(#([a-z0-9-]+)\)`).FindAllStringSubmatch(body, -1) {
		head, ok := anchors[m[1]]
		if !ok {
			t.Errorf("FORMATS.md: %s: there is no section #%s", title, m[1])
		}
		body += sections[head]
	}
	keys := make(map[string]bool)
	for _, m := range regexp.MustCompile("`([a-z0-9_]+)`").FindAllStringSubmatch(body, -1) {
		keys[m[1]] = true
	}
	return keys
}

// exportData returns where the compiler keeps what it knows of each package
// that the tools are made of.
func exportData(t *testing.T) map[string]string {
	t.Helper()
	out, err := exec.Command("go", "list", "-export", "-deps", "-json=ImportPath,Export", root+"/cmd/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	exports := make(map[string]string)
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct{ ImportPath, Export string }
		if err := d.Decode(&p); err == io.EOF {
			return exports
		} else if err != nil {
			t.Fatal(err)
		}
		exports[p.ImportPath] = p.Export
	}
}

// printedKeys type-checks cmd/TOOL and returns each key that it prints, with
// the place.
func printedKeys(t *testing.T, tool string, exports map[string]string) map[string]string {
	t.Helper()
	names, err := filepath.Glob(root + "/cmd/" + tool + "/*.go")
	if err != nil {
		t.Fatal(err)
	}
	fset := token.NewFileSet()
	var files []*ast.File
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(fset, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	info := &types.Info{Types: make(map[ast.Expr]types.TypeAndValue), Uses: make(map[*ast.Ident]types.Object), Defs: make(map[*ast.Ident]types.Object)}
	config := types.Config{Importer: importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) })}
	if _, err := config.Check("main", fset, files, info); err != nil {
		t.Fatal(err)
	}
	keys := make(map[string]string)
	for _, f := range files {
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) != 2 {
				return true
			}
			if s, ok := call.Fun.(*ast.SelectorExpr); !ok || s.Sel.Name != "PrintJSON" {
				return true
			}
			at := fset.Position(call.Pos())
			add := func(key string) { keys[key] = fmt.Sprintf("%s:%d", short(at.Filename), at.Line) }
			keysOfLiterals(info, files, call.Args[1], add)
			keysOfType(info.Types[call.Args[1]].Type, add, nil)
			return true
		})
	}
	return keys
}

// keysOfLiterals adds the constant keys of map literals: of one that is printed
// itself, or, where a variable is, of all that this function assigns to it.
func keysOfLiterals(info *types.Info, files []*ast.File, printed ast.Expr, add func(string)) {
	literal := func(e ast.Expr) {
		ast.Inspect(e, func(n ast.Node) bool {
			kv, ok := n.(*ast.KeyValueExpr)
			if !ok {
				return true
			}
			if v := info.Types[kv.Key].Value; v != nil && v.Kind() == constant.String {
				add(constant.StringVal(v))
			}
			return true
		})
	}
	literal(printed)
	id, ok := printed.(*ast.Ident)
	if !ok {
		return
	}
	same := func(e ast.Expr) bool {
		x, ok := e.(*ast.Ident)
		return ok && (info.Defs[x] != nil && info.Defs[x] == info.Uses[id] || info.Uses[x] != nil && info.Uses[x] == info.Uses[id])
	}
	for _, f := range files {
		ast.Inspect(f, func(n ast.Node) bool {
			a, ok := n.(*ast.AssignStmt)
			if !ok {
				return true
			}
			for i, left := range a.Lhs {
				if i < len(a.Rhs) && same(left) {
					literal(a.Rhs[i])
					if info.Types[a.Rhs[i]].Type != nil {
						keysOfType(info.Types[a.Rhs[i]].Type, add, nil)
					}
				}
				// m["key"] = value
				if x, ok := left.(*ast.IndexExpr); ok && same(x.X) {
					if v := info.Types[x.Index].Value; v != nil && v.Kind() == constant.String {
						add(constant.StringVal(v))
					}
				}
			}
			return true
		})
	}
}

// keysOfType adds the keys that encoding/json writes for a type. Types that
// marshal themselves have none.
func keysOfType(typ types.Type, add func(string), within []types.Type) {
	if typ == nil || slices.Contains(within, typ) {
		return
	}
	within = append(within, typ)
	if n, ok := typ.(*types.Named); ok {
		for _, method := range []string{"MarshalJSON", "MarshalText"} {
			if o, _, _ := types.LookupFieldOrMethod(n, true, n.Obj().Pkg(), method); o != nil {
				return
			}
		}
	}
	switch u := typ.Underlying().(type) {
	case *types.Pointer:
		keysOfType(u.Elem(), add, within)
	case *types.Slice:
		keysOfType(u.Elem(), add, within)
	case *types.Array:
		keysOfType(u.Elem(), add, within)
	case *types.Map:
		keysOfType(u.Elem(), add, within)
	case *types.Struct:
		for i := range u.NumFields() {
			f := u.Field(i)
			name, _, _ := strings.Cut(reflect.StructTag(u.Tag(i)).Get("json"), ",")
			switch {
			case name == "-" || !f.Exported() && !f.Embedded():
			case f.Embedded() && name == "":
				keysOfType(f.Type(), add, within)
			default:
				if name == "" {
					name = f.Name()
				}
				add(name)
				keysOfType(f.Type(), add, within)
			}
		}
	}
}
