//go:build linux

package crash

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ghostbridge/ghostbridge/integration/require"
	"github.com/ghostbridge/ghostbridge/integration/tools"
	"github.com/ghostbridge/ghostbridge/pkg/layout"
	"github.com/ghostbridge/ghostbridge/pkg/merkle"
)

func TestMain(m *testing.M) { tools.Main(m) }

// A host is a log, its keys, and what was acknowledged, each in a directory of
// its own: the acknowledgements never on the log's file system.
type host struct {
	t         testing.TB
	log, keys string
	acked     map[int64]string // leaf hashes by index
}

func newHost(t testing.TB, logs string) *host {
	h := &host{t, filepath.Join(logs, "log"), t.TempDir(), make(map[int64]string)}
	h.must("init", "--origin", "crash.example/log")
	return h
}

// command is gb-chain with this log, under what comes before it.
func (h *host) command(before []string, args ...string) *exec.Cmd {
	argv := append(append([]string{}, before...), tools.Path(h.t, "gb-chain"))
	argv = append(argv, args...)
	cmd := exec.Command(argv[0], argv[1:]...)
	// One thread does nearly all of the work, so that strace, which counts by
	// thread, counts nearly all of the calls.
	cmd.Env = append(os.Environ(), "GB_LOG="+h.log, "GB_KEYS="+h.keys, "GOMAXPROCS=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

func (h *host) must(args ...string) string {
	h.t.Helper()
	out, err := h.command(nil, args...).CombinedOutput()
	if err != nil {
		h.t.Fatalf("gb-chain %s: %v\n%s", args[0], err, out)
	}
	return string(out)
}

// receipts notes what append --receipts has printed.
func (h *host) receipts(out []byte) {
	h.t.Helper()
	for line := range bytes.Lines(out) {
		var r struct {
			Index int64  `json:"index"`
			Leaf  string `json:"leaf"`
		}
		if err := json.Unmarshal(line, &r); err != nil {
			if !bytes.HasSuffix(line, []byte("\n")) {
				return // killed while it printed
			}
			h.t.Fatalf("receipt %q: %v", line, err)
		}
		h.note(r.Index, r.Leaf)
	}
}

func (h *host) note(index int64, leaf string) {
	if have, ok := h.acked[index]; ok && have != leaf {
		h.t.Fatalf("event %d was acknowledged twice, with different leaf hashes", index)
	}
	h.acked[index] = leaf
}

// check holds the log, with no writer, to its promises: it can be written and
// rotated, verifies, and has all that was acknowledged. The keys' file has one
// key.
func (h *host) check(where string) {
	h.t.Helper()
	for _, args := range [][]string{{"append", "--format", "text", "--", "echo", "after"}, {"verify"}} {
		if out, err := h.command(nil, args...).CombinedOutput(); err != nil {
			h.t.Fatalf("%s: gb-chain %s: %v\n%s", where, args[0], err, out)
		}
	}
	h.checkAcked(where)
	files, err := filepath.Glob(filepath.Join(h.keys, "*", "epoch.key"))
	if err != nil || len(files) != 1 {
		h.t.Fatalf("%s: key files %v", where, files)
	}
	data, err := os.ReadFile(files[0])
	if err != nil {
		h.t.Fatal(err)
	}
	// A slot that is not in use is all zeros: the key that was in it is gone.
	if n := bytes.Count(data, []byte("GBEPOCH")); n != 1 || len(data) != 8192 {
		h.t.Fatalf("%s: %d epoch keys in %d bytes", where, n, len(data))
	}
	for slot := range 2 {
		s := data[slot*4096 : (slot+1)*4096]
		if !bytes.HasPrefix(s, []byte("GBEPOCH")) && len(bytes.Trim(s, "\x00")) > 0 {
			h.t.Fatalf("%s: slot %d holds a rest of a key", where, slot)
		}
	}
}

func (h *host) checkAcked(where string) {
	h.t.Helper()
	var hasher merkle.Hasher
	var index int64
	for n := int64(0); ; n++ {
		f, err := os.Open(filepath.Join(h.log, layout.SegmentName(n)))
		if errors.Is(err, os.ErrNotExist) {
			break
		}
		if err != nil {
			h.t.Fatal(err)
		}
		s := bufio.NewScanner(f)
		s.Buffer(nil, 1<<20)
		for s.Scan() {
			if want, ok := h.acked[index]; ok && want != hasher.Leaf(s.Bytes()).String() {
				h.t.Fatalf("%s: event %d was acknowledged and is another one now", where, index)
			}
			index++
		}
		f.Close()
	}
	for i := range h.acked {
		if i >= index {
			h.t.Fatalf("%s: event %d was acknowledged and is lost: there are %d", where, i, index)
		}
	}
}

// calls are the system calls by which gb-chain changes files.
var calls = []string{"write", "pwrite64", "fdatasync", "fsync", "renameat", "ftruncate", "unlinkat", "openat"}

// inject runs gb-chain under strace, which does what to the when'th call.
// happened is false if there was no such call.
func (h *host) inject(call, what string, when int, stdin string, args ...string) (out []byte, happened bool, err error) {
	h.t.Helper()
	trace := filepath.Join(h.t.TempDir(), "trace")
	cmd := h.command([]string{require.Tool(h.t, "strace"), "-f", "-qq", "-y", "-o", trace, "-e", "trace=" + call, "-e",
		fmt.Sprintf("inject=%s:%s:when=%d", call, what, when)}, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	text, rerr := os.ReadFile(trace)
	if rerr != nil {
		h.t.Fatal(rerr)
	}
	if err != nil {
		err = fmt.Errorf("%w: %s", err, stderr.String())
	}
	return stdout.Bytes(), bytes.Contains(text, []byte("(INJECTED)")) || bytes.Contains(text, []byte("killed by SIGKILL")), err
}

// skipCalls is how many calls of a kind a process makes before it has opened
// the log, so that nothing is gained by killing it there: only openat has
// many, of libraries and /proc.
func skipCalls(call string) int {
	if call == "openat" {
		return 8
	}
	return 1
}

// rotate-key and append may be killed at any system call: nothing that was
// acknowledged is lost, and there is exactly one usable epoch key.
func TestKilledAtEverySystemCall(t *testing.T) {
	require.Tool(t, "strace")
	h := newHost(t, t.TempDir())
	three := strings.Repeat(`{"source":"demo","type":"note","message":"three"}`+"\n", 3)
	for _, args := range [][]string{{"rotate-key"}, {"append", "--receipts"}} {
		kills := 0
		for _, call := range calls {
			for when, none := skipCalls(call), 0; none < 2 && when < 60; when++ {
				out, happened, err := h.inject(call, "signal=KILL", when, three, args...)
				h.receipts(out)
				where := fmt.Sprintf("%s killed at %s %d", args[0], call, when)
				if !happened {
					none++
					if err != nil {
						t.Fatalf("%s: not killed, and %v", where, err)
					}
					continue
				}
				kills++
				h.check(where)
			}
		}
		t.Logf("%s: killed %d times", args[0], kills)
		if kills < 10 {
			t.Errorf("%s was killed only %d times", args[0], kills)
		}
	}
}

// So may key seal and key unseal, and what they leave opens with the sealing
// key.
func TestSealingKilledAtEverySystemCall(t *testing.T) {
	require.Tool(t, "strace")
	h := newHost(t, t.TempDir())
	credentials := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", credentials)
	if err := os.WriteFile(filepath.Join(credentials, "gb-chain-sealing.key"), bytes.Repeat([]byte{7}, 32), 0o600); err != nil {
		t.Fatal(err)
	}
	for k, command := range []string{"seal", "unseal"} {
		kills := 0
		for _, call := range []string{"write", "pwrite64", "fdatasync", "fsync", "renameat"} {
			for when, none := 1, 0; none < 2 && when < 40; when++ {
				_, happened, err := h.inject(call, "signal=KILL", when, "", "key", command)
				where := fmt.Sprintf("key %s killed at %s %d", command, call, when)
				if !happened {
					none++
					if err != nil {
						t.Fatalf("%s: not killed, and %v", where, err)
					}
				} else {
					kills++
				}
				h.check(where)
				undo := []string{"unseal", "seal"}[k]
				if out, err := h.command(nil, "key", undo).CombinedOutput(); err != nil {
					t.Fatalf("%s: key %s: %v\n%s", where, undo, err, out)
				}
			}
		}
		t.Logf("key %s: killed %d times", command, kills)
		if kills < 7 {
			t.Errorf("key %s was killed only %d times", command, kills)
		}
	}
}

// Any of these calls may fail. After a failed sync the writer stops: it says
// so, and writes no event any more.
func TestErrorAtEverySystemCall(t *testing.T) {
	require.Tool(t, "strace")
	h := newHost(t, t.TempDir())
	three := strings.Repeat(`{"source":"demo","type":"note","message":"three"}`+"\n", 3)
	for _, args := range [][]string{{"rotate-key"}, {"append", "--receipts"}} {
		failures := 0
		for _, fault := range []struct{ call, errno string }{{"fdatasync", "EIO"}, {"fsync", "EIO"}, {"pwrite64", "EIO"}, {"renameat", "EIO"}, {"ftruncate", "EIO"}, {"write", "ENOSPC"}} {
			for when, none := 1, 0; none < 2 && when < 40; when++ {
				out, happened, err := h.inject(fault.call, "error="+fault.errno, when, three, args...)
				h.receipts(out)
				where := fmt.Sprintf("%s: %s %d fails with %s", args[0], fault.call, when, fault.errno)
				if !happened {
					none++
					continue
				}
				failures++
				if strings.HasSuffix(fault.call, "sync") && err == nil {
					t.Errorf("%s: and it exits with 0", where)
				}
				h.check(where)
			}
		}
		t.Logf("%s: %d calls failed", args[0], failures)
	}
}

// One write and one fdatasync a batch, by strace's count, and no write behind a
// failed sync.
func TestAsManySyncsAsBatches(t *testing.T) {
	require.Tool(t, "strace")
	h := newHost(t, t.TempDir())
	segment := layout.SegmentName(0) + ">"
	count := func(inject ...string) (writes, syncs, behind int, out []byte, err error) {
		trace := filepath.Join(t.TempDir(), "trace")
		before := append([]string{"strace", "-f", "-qq", "-y", "-o", trace, "-e", "trace=write,fdatasync"}, inject...)
		cmd := h.command(before, "append", "--receipts")
		cmd.Stdin = strings.NewReader(strings.Repeat(`{"source":"demo","type":"note","message":"one of very many"}`+"\n", 20000))
		out, err = cmd.Output()
		text, rerr := os.ReadFile(trace)
		if rerr != nil {
			t.Fatal(rerr)
		}
		failed := false
		for line := range strings.Lines(string(text)) {
			switch {
			case !strings.Contains(line, segment) || strings.Contains(line, "resumed>"):
			case strings.Contains(line, "fdatasync("):
				syncs++
				failed = failed || strings.Contains(line, "INJECTED")
			case strings.Contains(line, "write("):
				writes++
				if failed {
					behind++
				}
			}
		}
		return
	}
	writes, syncs, _, out, err := count()
	if err != nil {
		t.Fatal(err)
	}
	h.receipts(out)
	if writes < 4 || writes != syncs {
		t.Errorf("%d writes and %d fdatasyncs", writes, syncs)
	}
	if len(h.acked) != 20000 {
		t.Errorf("%d acknowledged", len(h.acked))
	}
	_, syncs, behind, out, err := count("-e", "inject=fdatasync:error=EIO:when=3")
	if err == nil || behind > 0 || syncs == 0 {
		t.Errorf("a sync fails: %v; %d syncs, and %d writes behind it", err, syncs, behind)
	}
	h.receipts(out)
	h.check("after a failed sync")
}
