// Package snap tests gb-snap's real binary on a real btrfs, with the other
// tools at its ends, under load and under faults.
package snap

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/loopbtrfs"
	"github.com/ghostbridge/ghostbridge/integration/tools"
	"github.com/ghostbridge/ghostbridge/pkg/snap"
	"github.com/ghostbridge/ghostbridge/pkg/subvol"
)

var sys subvol.System

func TestMain(m *testing.M) { tools.Main(m) }

// A rig is a btrfs with a source and a directory of snapshots, and a directory
// elsewhere for what gb-snap keeps.
type rig struct {
	testing.TB
	fs, src, snapshots string
	state              string
}

func newRig(t testing.TB, o loopbtrfs.Options) *rig {
	t.Helper()
	if o.MountOptions == "" {
		o.MountOptions = "noatime"
	}
	r := &rig{TB: t, fs: loopbtrfs.Mount(t, o), state: t.TempDir()}
	r.src, r.snapshots = filepath.Join(r.fs, "src"), filepath.Join(r.fs, "snapshots")
	r.must(sys.Create(r.src))
	r.must(os.Mkdir(r.snapshots, 0o755))
	return r
}

func (r *rig) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// env is what all gb-snap processes of a test get.
func (r *rig) env() []string {
	return append(os.Environ(), "GB_SNAPSHOTS="+r.snapshots, "GB_RUN="+r.state+"/run", "GB_SPOOL="+r.state+"/spool")
}

// snap runs gb-snap to its end and returns exit code, stdout and stderr.
func (r *rig) snap(args ...string) (code int, stdout, stderr string) {
	r.Helper()
	return r.run("gb-snap", args...)
}

func (r *rig) run(name string, args ...string) (code int, stdout, stderr string) {
	r.Helper()
	cmd := exec.Command(tools.Path(r, name), args...)
	cmd.Env = r.env()
	var out, words bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &words
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		r.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), words.String()
}

// ok runs one of our tools, which must succeed, and returns what it printed.
func (r *rig) ok(name string, args ...string) string {
	r.Helper()
	code, out, words := r.run(name, args...)
	if code != 0 {
		r.Fatalf("%s %s: exit code %d: %s", name, strings.Join(args, " "), code, words)
	}
	return out
}

func (r *rig) write(name, text string) {
	r.Helper()
	f, err := os.OpenFile(filepath.Join(r.src, name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	r.must(err)
	_, err = f.WriteString(text)
	r.must(errors.Join(err, f.Sync(), f.Close()))
}

// live returns the snapshots as btrfs has them.
func (r *rig) live() []snap.Snapshot {
	r.Helper()
	s, err := snap.OpenStore(sys, r.snapshots)
	r.must(err)
	list, err := s.List()
	r.must(err)
	return list
}

// A daemon is a running gb-snap, or another of our tools.
type daemon struct {
	r      *rig
	cmd    *exec.Cmd
	done   chan error
	out    tools.Output
	words  tools.Output // of standard error
	reaped bool
}

func (d *daemon) said() string { return d.words.String() }

// lines returns the whole lines of standard output.
func (d *daemon) lines() []string {
	lines := strings.Split(d.out.String(), "\n")
	return lines[:len(lines)-1]
}

// start starts a tool that runs until it is stopped; it ends with the test.
func (r *rig) start(name string, env []string, args ...string) *daemon {
	r.Helper()
	d := &daemon{r: r, cmd: exec.Command(tools.Path(r, name), args...), done: make(chan error, 1)}
	d.cmd.Env = append(r.env(), env...)
	d.cmd.Stdout, d.cmd.Stderr = &d.out, &d.words
	r.must(d.cmd.Start())
	go func() { d.done <- d.cmd.Wait() }()
	r.Cleanup(func() {
		if !d.reaped {
			d.cmd.Process.Kill()
			<-d.done
		}
	})
	return d
}

// take starts gb-snap take --every PERIOD.
func (r *rig) take(every time.Duration, args ...string) *daemon {
	r.Helper()
	return r.start("gb-snap", nil, append([]string{"take", "--every", every.String(), r.src}, args...)...)
}

// end waits for the daemon to end and returns its exit code.
func (d *daemon) end() int {
	d.r.Helper()
	select {
	case <-d.done:
		d.reaped = true
		return d.cmd.ProcessState.ExitCode()
	case <-time.After(30 * time.Second):
		d.r.Fatalf("%v does not end: %s", d.cmd.Args, d.said())
		return 0
	}
}

// stop ends the daemon as systemd would, which is no failure.
func (d *daemon) stop() {
	d.r.Helper()
	d.cmd.Process.Signal(syscall.SIGTERM)
	if code := d.end(); code != 0 {
		d.r.Errorf("%v: exit code %d: %s", d.cmd.Args[1:], code, d.said())
	}
}

func (d *daemon) kill() {
	d.cmd.Process.Kill()
	<-d.done
	d.reaped = true
}

// await waits until cond holds.
func (r *rig) await(what string, cond func() bool) {
	r.Helper()
	for deadline := time.Now().Add(60 * time.Second); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.Fatalf("%s did not come", what)
		}
	}
}

// status is what gb-snap status --json prints, and its exit code.
func (r *rig) status(args ...string) (snap.Status, int) {
	r.Helper()
	code, out, words := r.snap(append([]string{"status", "--json"}, args...)...)
	var st snap.Status
	if err := json.Unmarshal([]byte(out), &st); err != nil {
		r.Fatalf("status: exit code %d: %v: %s%s", code, err, out, words)
	}
	return st, code
}

// torture says whether the long form of a test is wanted.
var torture = os.Getenv("GB_TORTURE") == "1"
