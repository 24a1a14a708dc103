//go:build linux

package mcp

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/tools"
)

// The protocol's own conformance suite, both revisions at one URL. It wants
// fixtures, which a build with the tag conformance has beside our own tools;
// the daemon, the log, HTTP, tokens and middleware are the real ones.
func TestConformance(t *testing.T) {
	_, modules := node(t)
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("go", "build", "-tags", "conformance", "-o", dir+"/", "../../cmd/opdbus").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	r := newRig(t, `{"version":1}`)
	mcpProgram = filepath.Join(dir, "opdbus")
	defer func() { mcpProgram = "" }()
	os.Chmod(filepath.Dir(dir), 0o755)
	r.serveHTTP()
	token := "GB_TOKEN=" + r.token("conformance", "read,propose,execute")
	for _, revision := range []string{"2025-11-25", "2026-07-28"} {
		t.Run(revision, func(t *testing.T) {
			dir := t.TempDir()
			out, err := runNode(t, 4*time.Minute, []string{token}, "--import", "./testdata/node/token.mjs", filepath.Join(modules, "@modelcontextprotocol/conformance/dist/index.js"), "server", "--url", r.url, "--requirements", revision, "-o", dir)
			if err != nil {
				t.Errorf("%v\n%s", err, tail(out, 3000))
				showFailures(t, dir)
				return
			}
			t.Logf("%s", regexp.MustCompile(`(?m)^(Total|Not scored).*$`).FindAllString(out, -1))
		})
	}
}

// showFailures prints the checks that have failed, out of the results.
func showFailures(t *testing.T, dir string) {
	files, _ := filepath.Glob(filepath.Join(dir, "*", "checks.json"))
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		var checks []map[string]any
		if err := json.Unmarshal(data, &checks); err != nil {
			t.Fatal(err)
		}
		for _, c := range checks {
			if c["status"] == "FAILURE" {
				text, _ := json.Marshal(c)
				t.Logf("%s: %.2000s", filepath.Base(filepath.Dir(f)), text)
			}
		}
	}
}

// mcpProgram stands for opdbus where the MCP server is started, if it is set.
var mcpProgram string

func program(t testing.TB, name string) string {
	if name == "opdbus" && mcpProgram != "" {
		return mcpProgram
	}
	return tools.Path(t, name)
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }
