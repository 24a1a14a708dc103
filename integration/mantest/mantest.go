// Package mantest holds the committed man pages to the tools that they are of.
package mantest

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/ghostbridge/ghostbridge/pkg/cli"
)

var update = flag.Bool("update", false, "write the man page instead of comparing with it")

// Check compares the man page of app with man/NAME.1, from the directory of a
// command. With -update it writes that file.
func Check(t *testing.T, app *cli.App) {
	t.Helper()
	page, err := cli.Man(app)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("..", "..", "man", app.Name+".1")
	if *update {
		if err := os.WriteFile(path, []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if page != string(want) {
		t.Errorf("%s is not what the tool says; make man writes it anew", path)
	}
}
