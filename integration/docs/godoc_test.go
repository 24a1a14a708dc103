package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// conventional are methods whose name and signature say what they do, as
// interfaces of the standard library have them.
var conventional = map[string]bool{"Error": true, "Unwrap": true, "String": true, "Hint": true}

// Every exported name of pkg/ has a comment, so that go doc alone says what it
// is: packages, types, functions, constants and variables (or their group), and
// the methods of interfaces. A method that an exported, commented interface of
// its package has needs none of its own.
func TestEveryExportedNameHasAComment(t *testing.T) {
	packages := make(map[string][]*ast.File)
	fset := token.NewFileSet()
	err := filepath.WalkDir(root+"/pkg", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		f, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
		packages[filepath.Dir(path)] = append(packages[filepath.Dir(path)], f)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(packages) < 30 {
		t.Fatalf("only %d packages", len(packages))
	}
	names := 0
	for dir, files := range packages {
		inherited := make(map[string]bool)
		documented := false
		missing := func(n ast.Node, name string) {
			t.Errorf("%s: %s has no comment", fset.Position(n.Pos()), name)
		}
		for _, f := range files {
			documented = documented || f.Doc != nil
			for _, d := range f.Decls {
				g, ok := d.(*ast.GenDecl)
				if !ok {
					continue
				}
				for _, s := range g.Specs {
					switch s := s.(type) {
					case *ast.TypeSpec:
						if !s.Name.IsExported() {
							continue
						}
						names++
						if g.Doc == nil && s.Doc == nil {
							missing(s, s.Name.Name)
						}
						if i, ok := s.Type.(*ast.InterfaceType); ok {
							for _, m := range i.Methods.List {
								for _, n := range m.Names {
									inherited[n.Name] = true
									if n.IsExported() && m.Doc == nil && m.Comment == nil {
										missing(m, s.Name.Name+"."+n.Name)
									}
								}
							}
						}
					case *ast.ValueSpec:
						for _, n := range s.Names {
							if n.IsExported() && g.Doc == nil && s.Doc == nil && s.Comment == nil {
								missing(s, n.Name)
							}
						}
					}
				}
			}
		}
		if !documented {
			t.Errorf("%s has no package comment", short(dir))
		}
		for _, f := range files {
			for _, d := range f.Decls {
				fn, ok := d.(*ast.FuncDecl)
				if !ok || !fn.Name.IsExported() || fn.Doc != nil {
					continue
				}
				names++
				if fn.Recv != nil && (conventional[fn.Name.Name] || inherited[fn.Name.Name] || !ast.IsExported(receiver(fn.Recv.List[0].Type))) {
					continue
				}
				missing(fn, fn.Name.Name)
			}
		}
	}
	if names < 200 {
		t.Errorf("only %d names seen", names)
	}
}

// receiver is the name of a method's type.
func receiver(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.Ident:
		return e.Name
	}
	return ""
}
