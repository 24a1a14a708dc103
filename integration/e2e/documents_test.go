//go:build linux

package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ghostbridge/ghostbridge/integration/document"
)

// documents types what the documents tell the operator of a host to type: the
// blocks marked booted. What is printed is compared with what they say.
func documents(t *testing.T, c *container) {
	files, err := filepath.Glob("../../*.md")
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, file := range files {
		blocks, err := document.Read(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range blocks {
			if b.Kind != "booted" {
				continue
			}
			ran++
			commands, err := b.Commands()
			if err != nil {
				t.Fatal(err)
			}
			for _, x := range commands {
				// What a unit does first may take a moment. The agents' phase has a
				// token of the name that MCP.md gives one.
				if strings.HasPrefix(x.Text, "opdbus token add ") {
					c.try("opdbus", "token", "rm", strings.Fields(x.Text)[3])
				}
				c.eventually(fmt.Sprintf("%s:%d: $ %s", b.File, x.Line, x.Text), func() string {
					out, err := c.try("bash", "-euo", "pipefail", "-c", "exec 2>&1\n"+x.Text)
					if err == nil {
						err = document.Matches(document.Lines([]byte(out)), x.Output)
					}
					if err != nil {
						return fmt.Sprintf("%v\nall of it:\n%s", err, out)
					}
					return ""
				})
			}
		}
	}
	if ran == 0 {
		t.Error("no document has a block that is run here")
	}
}
