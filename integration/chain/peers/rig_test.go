package peers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// bin is the directory of gb-chain, tools that of litewitness, fsck and
// servetiles.
var bin, tools string

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "gb-peers-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	tools = dir
	build := exec.Command("go", "build", "-o", dir+"/", "filippo.io/torchwood/cmd/litewitness", "github.com/transparency-dev/tessera/cmd/fsck")
	if out, err := build.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("go build: %w\n%s", err, out)
	}
	build = exec.Command("go", "build", "-C", "../../..", "-o", dir+"/", "./integration/chain/servetiles")
	if out, err := build.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("go build: %w\n%s", err, out)
	}
	if bin = os.Getenv("GB_BIN"); bin == "" {
		bin = dir
		build := exec.Command("go", "build", "-C", "../../..", "-o", dir+"/", "./cmd/gb-chain")
		if out, err := build.CombinedOutput(); err != nil {
			return 1, fmt.Errorf("go build: %w\n%s", err, out)
		}
	}
	return m.Run(), nil
}

// A log is one that gb-chain has.
type log struct {
	t      *testing.T
	origin string
	dir    string // of all that it has; the log itself is below
	vkey   string
	count  int
}

func newLog(t *testing.T, origin string) *log {
	t.Helper()
	l := &log{t: t, origin: origin, dir: t.TempDir()}
	l.chain("init", "--origin", origin)
	l.vkey = strings.TrimSpace(l.chain("key"))
	return l
}

func (l *log) path(name string) string { return filepath.Join(l.dir, name) }

func (l *log) command(args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(bin, "gb-chain"), args...)
	cmd.Env = append(os.Environ(), "GB_LOG="+l.path("log"), "GB_KEYS="+l.path("keys"), "GB_WITNESSES="+l.path("witness"))
	return cmd
}

// chain runs gb-chain and returns what it prints.
func (l *log) chain(args ...string) string {
	l.t.Helper()
	out, stderr, code := l.try(args...)
	if code != 0 {
		l.t.Fatalf("gb-chain %s: exit code %d\n%s", strings.Join(args, " "), code, stderr)
	}
	return out
}

// try runs gb-chain, which may fail.
func (l *log) try(args ...string) (stdout, stderr string, code int) {
	l.t.Helper()
	return l.feed(nil, args...)
}

func (l *log) feed(in []byte, args ...string) (stdout, stderr string, code int) {
	l.t.Helper()
	cmd := l.command(args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		l.t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// append appends n events.
func (l *log) append(n int, args ...string) {
	l.t.Helper()
	var b bytes.Buffer
	for range n {
		l.count++
		fmt.Fprintf(&b, `{"source":"t","type":"t.n","message":"event %d of %s"}`+"\n", l.count, l.origin)
	}
	if _, stderr, code := l.feed(b.Bytes(), append([]string{"append"}, append(args, "-")...)...); code != 0 {
		l.t.Fatalf("append: exit code %d\n%s", code, stderr)
	}
}

// checkpoint returns the latest one, and its size and root.
func (l *log) checkpoint() (note []byte, size int64, root string) {
	l.t.Helper()
	note = []byte(l.chain("checkpoint"))
	lines := strings.SplitN(string(note), "\n", 4)
	if len(lines) < 4 {
		l.t.Fatalf("checkpoint %q", note)
	}
	fmt.Sscan(lines[1], &size)
	return note, size, lines[2]
}

// fsck runs tessera's fsck over the tiles at a URL. Its exit code is 0 also
// where it finds the log wrong, and with fewer than four workers it may hang
// where a tile is wrong: what counts is that it says, within a minute, that it
// is done with this very size and root.
func (l *log) fsck(url string, size int64, root string) error {
	l.t.Helper()
	key := l.path("fsck.vkey")
	if err := os.WriteFile(key, []byte(l.vkey), 0o600); err != nil {
		l.t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	out, err := exec.CommandContext(ctx, filepath.Join(tools, "fsck"), "-storage_url="+url, "-public_key="+key, "-N=4", "-ui=false", "-logtostderr").CombinedOutput()
	if err != nil {
		return fmt.Errorf("fsck: %w\n%s", err, out)
	}
	want := regexp.MustCompile(fmt.Sprintf(`Successfully fsck'd log with size %d and root %s `, size, regexp.QuoteMeta(root)))
	if !want.Match(out) {
		return fmt.Errorf("fsck of size %d, root %s says:\n%s", size, root, out)
	}
	return nil
}

// A lockedBuffer is read while a process writes it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
