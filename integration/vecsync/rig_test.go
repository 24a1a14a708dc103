//go:build linux

// Package vecsync_test tests gb-vecsync on the streams of a real btrfs: the
// oracle of package vecsynctest on recorded ones, the real process killed
// while it ingests, and tampering from the log's file to the event that
// reports it.
package vecsync_test

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/loopbtrfs"
	"github.com/ghostbridge/ghostbridge/integration/tools"
	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/index"
	"github.com/ghostbridge/ghostbridge/pkg/index/indextest"
	"github.com/ghostbridge/ghostbridge/pkg/index/local"
	"github.com/ghostbridge/ghostbridge/pkg/layout"
	"github.com/ghostbridge/ghostbridge/pkg/subvol"
)

var sys subvol.System

func TestMain(m *testing.M) { tools.Main(m) }

// A host is a btrfs with a log on a subvolume, a directory of snapshots, and
// an index.
type host struct {
	testing.TB
	src, log, snapshots         string
	keys, socket, index, cursor string
}

func newHost(t testing.TB) *host {
	t.Helper()
	fs, state := loopbtrfs.Mount(t, loopbtrfs.Options{MountOptions: "noatime,compress=zstd"}), t.TempDir()
	h := &host{TB: t, src: filepath.Join(fs, "src"), snapshots: filepath.Join(fs, "snapshots"), keys: filepath.Join(state, "keys"),
		socket: filepath.Join(state, "chain.sock"), index: filepath.Join(state, "index.db"), cursor: filepath.Join(state, "cursor")}
	h.log = filepath.Join(h.src, "log")
	h.must(sys.Create(h.src))
	h.must(os.Mkdir(h.snapshots, 0o755))
	return h
}

func (h *host) must(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

func (h *host) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(tools.Path(h, name), args...)
	state := filepath.Dir(h.keys)
	cmd.Env = append(os.Environ(), "GB_KEYS="+h.keys, "GB_CHAIN_SOCKET="+h.socket, "GB_SNAPSHOTS="+h.snapshots,
		"GB_RUN="+state+"/run", "GB_SPOOL="+state+"/spool", "GB_INDEX="+h.index, "GB_CURSOR="+h.cursor)
	if name != "gb-snap" { // whose own events would come between
		cmd.Env = append(cmd.Env, "GB_LOG="+h.log)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// run runs one of our tools to its end.
func (h *host) run(name string, args ...string) (code int, stdout, stderr string) {
	h.Helper()
	cmd := h.command(name, args...)
	var out, words bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &words
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		h.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), words.String()
}

// ok runs one that must succeed, and returns what it printed.
func (h *host) ok(name string, args ...string) string {
	h.Helper()
	return h.fails(0, name, args...)
}

// fails runs one that must end with an exit code, and returns all it printed.
func (h *host) fails(want int, name string, args ...string) string {
	h.Helper()
	code, out, words := h.run(name, args...)
	if code != want {
		h.Fatalf("%s %s: exit code %d, want %d: %s%s", name, strings.Join(args, " "), code, want, out, words)
	}
	return out + words
}

// serve makes the log and starts its daemon.
func (h *host) serve() {
	h.Helper()
	h.ok("gb-chain", "init", "--origin", "host.example/log")
	d := h.command("gb-chain", "serve", "--writers", "")
	var words bytes.Buffer
	d.Stderr = &words
	h.must(d.Start())
	h.Cleanup(func() {
		d.Process.Signal(syscall.SIGTERM)
		d.Wait()
	})
	for range 400 {
		if _, err := os.Stat(h.socket); err == nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	h.Fatalf("gb-chain serve does not listen: %s", words.String())
}

// append appends an event through the daemon and waits until a checkpoint
// covers it.
func (h *host) append(message string) {
	h.Helper()
	cmd := h.command("gb-chain", "append", "-")
	cmd.Stdin = strings.NewReader(fmt.Sprintf(`{"source":"test","type":"test.note","message":%q}`+"\n", message))
	if out, err := cmd.CombinedOutput(); err != nil {
		h.Fatalf("append: %v: %s", err, out)
	}
	want := h.events()
	for range 400 {
		note, err := os.ReadFile(filepath.Join(h.log, "checkpoint"))
		h.must(err)
		if lines := strings.Split(string(note), "\n"); len(lines) > 1 && lines[1] == fmt.Sprint(want) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	h.Fatal("no checkpoint covers the event")
}

// events returns how many events the log has, be they pruned or not.
func (h *host) events() int {
	h.Helper()
	segments, err := filepath.Glob(filepath.Join(h.log, "[0-9]*.jsonl"))
	h.must(err)
	last := slices.Max(segments)
	n, ok := layout.ParseSegmentName(filepath.Base(last))
	data, err := os.ReadFile(last)
	if h.must(err); !ok {
		h.Fatalf("%s is no segment", last)
	}
	return int(n)*layout.SegmentEvents + bytes.Count(data, []byte("\n"))
}

// ship takes a snapshot and sends it to the index; it returns the exit code of
// gb-vecsync and what it said.
func (h *host) ship(send ...string) (code int, words string) {
	h.Helper()
	h.ok("gb-snap", "take", h.src)
	if len(send) == 0 {
		send = []string{"--cursor", h.cursor}
	}
	snap := h.command("gb-snap", append(append([]string{"send"}, send...), h.src)...)
	ingest := h.command("gb-vecsync", "ingest")
	r, w, err := os.Pipe()
	h.must(err)
	var said bytes.Buffer
	snap.Stdout, ingest.Stdin, ingest.Stderr = w, r, &said
	h.must(snap.Start())
	h.must(ingest.Start())
	r.Close()
	w.Close()
	snap.Wait()
	ingest.Wait()
	return ingest.ProcessState.ExitCode(), said.String()
}

// points describes all that the index holds, with the ids of templates and
// points.
func (h *host) points() []string {
	h.Helper()
	db, err := local.OpenReader(h.index)
	h.must(err)
	defer db.Close()
	list := indextest.Points(h, db)
	// An index in one file does not keep a point's id, but what it is made of.
	raw, err := sql.Open("sqlite", "file:"+h.index+"?mode=ro")
	h.must(err)
	defer raw.Close()
	rows, err := raw.Query(`SELECT t.id, o.host, o.severity, o.actor, p.hour, p.single, p.count, p.first, p.last, p.minutes
		FROM point p JOIN template t ON t.ordinal = p.template JOIN origin o ON o.id = p.origin`)
	h.must(err)
	defer rows.Close()
	n := len(list)
	for rows.Next() {
		var template []byte
		var name, actor string
		var severity event.Severity
		var hour, single, count, first, last, minutes int64
		h.must(rows.Scan(&template, &name, &severity, &actor, &hour, &single, &count, &first, &last, &minutes))
		list = append(list, fmt.Sprint(index.PointID(index.ID(template), name, severity, actor, hour, single), count, first, last, minutes))
	}
	h.must(rows.Err())
	slices.Sort(list[n:])
	return list
}
