package snap

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/loopbtrfs"
	"github.com/ghostbridge/ghostbridge/integration/require"
	"github.com/ghostbridge/ghostbridge/integration/tools"
	"github.com/ghostbridge/ghostbridge/pkg/snap"
)

// The file system runs full: the loop says so and goes on, makes room where it
// may, and is well again once there is room. What is held stays.
func TestFullFileSystem(t *testing.T) {
	r := newRig(t, loopbtrfs.Options{Size: 160 << 20, MountOptions: "noatime,commit=1"})
	r.write("a", "one")
	r.ok("gb-snap", "take", r.src)
	r.ok("gb-snap", "hold", "add", "precious", "newest")
	precious := r.live()[0]
	d := r.take(100*time.Millisecond, "--keep", "1000", "--min-free", "4M")
	// Each round writes new data, which the snapshots keep when it is replaced.
	block := make([]byte, 2<<20)
	failed := false
	for n := 0; n < 80 && !failed; n++ {
		rand.Read(block)
		err := os.WriteFile(filepath.Join(r.src, "fill"), block, 0o600)
		if err == nil {
			err = exec.Command("sync", "-f", r.src).Run()
		}
		failed = err != nil
		time.Sleep(10 * time.Millisecond)
	}
	// Now what no policy can free.
	fill, err := os.OpenFile(filepath.Join(r.src, "big"), os.O_CREATE|os.O_WRONLY, 0o600)
	r.must(err)
	for n := 0; n < 400; n++ {
		rand.Read(block)
		if _, err = fill.Write(block); err != nil {
			break
		}
	}
	if serr := fill.Sync(); err == nil {
		err = serr
	}
	fill.Close()
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the file system did not run full: %v", err)
	}
	time.Sleep(time.Second) // ticks go on
	if list := r.live(); !slices.ContainsFunc(list, func(s snap.Snapshot) bool { return s.UUID == precious.UUID }) {
		t.Error("what was held is gone")
	}
	r.must(os.Remove(filepath.Join(r.src, "big")))
	r.await("a snapshot after there was room again", func() bool {
		list := r.live()
		if len(list) == 0 {
			return false
		}
		_, err := os.Stat(filepath.Join(r.snapshots, list[len(list)-1].Name, "big"))
		return os.IsNotExist(err) && list[len(list)-1].UUID != precious.UUID
	})
	select {
	case <-d.done:
		t.Fatalf("the loop ended: %s", d.said())
	default:
	}
	d.stop()
	if text, err := os.ReadFile(filepath.Join(r.snapshots, precious.Name, "a")); err != nil || string(text) != "one" {
		t.Errorf("%q, %v", text, err)
	}
}

// The file system turns read-only: the loop says so once, with what to do,
// tells systemd nothing, and goes on when it is writable again.
func TestReadOnlyRemount(t *testing.T) {
	mount := require.Tool(t, "mount")
	r := newRig(t, loopbtrfs.Options{})
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "notify"), Net: "unixgram"})
	r.must(err)
	defer manager.Close()
	// messages returns what has come for the service manager.
	messages := func(wait time.Duration) string {
		var all []byte
		buf := make([]byte, 4096)
		manager.SetReadDeadline(time.Now().Add(wait))
		for {
			n, err := manager.Read(buf)
			if err != nil {
				return string(all)
			}
			all = append(append(all, buf[:n]...), '\n')
		}
	}
	r.write("a", "one")
	d := r.start("gb-snap", []string{"NOTIFY_SOCKET=" + manager.LocalAddr().String(), "WATCHDOG_USEC=100000"}, "take", "--every", "100ms", r.src)
	r.await("a snapshot", func() bool { return len(r.live()) == 1 })
	if got := messages(time.Second); !strings.Contains(got, "READY=1\n") || !strings.Contains(got, "WATCHDOG=1\n") {
		t.Errorf("the service manager hears %q", got)
	}
	r.write("a", "two") // seen in the same tick, or the next one fails
	r.must(exec.Command(mount, "-o", "remount,ro", r.fs).Run())
	// Unless the second write was still taken, every tick fails from here on.
	if len(r.live()) == 1 {
		r.await("an error", func() bool { return strings.Contains(d.said(), "read-only") })
		messages(300 * time.Millisecond)
		if got := messages(500 * time.Millisecond); strings.Contains(got, "WATCHDOG") {
			t.Errorf("the watchdog is fed while ticks fail: %q", got)
		}
		if n := strings.Count(d.said(), "tick failed"); n != 1 {
			t.Errorf("said %d times:\n%s", n, d.said())
		}
		if st, code := r.status(r.src); code != 1 || st.Healthy {
			t.Errorf("status: exit code %d, %+v", code, st)
		}
		code, _, words := r.snap("prune", "--keep", "1", "--max-count", "1")
		if code != 0 && !strings.Contains(words, "read-only") {
			t.Errorf("prune: %d, %s", code, words)
		}
	}
	r.must(exec.Command(mount, "-o", "remount,rw", r.fs).Run())
	r.await("a second snapshot", func() bool { return len(r.live()) == 2 })
	r.await("a fed watchdog", func() bool { return strings.Contains(messages(200*time.Millisecond), "WATCHDOG=1") })
	if st, code := r.status(r.src); code != 0 {
		t.Errorf("status: exit code %d, %+v", code, st)
	}
	d.stop()
}

// The source is deleted: the loop ends and says why; the snapshots stay and
// can still be listed.
func TestSourceDeleted(t *testing.T) {
	r := newRig(t, loopbtrfs.Options{})
	r.write("a", "one")
	d := r.take(50 * time.Millisecond)
	r.await("a snapshot", func() bool { return len(r.live()) == 1 })
	info, err := sys.Info(r.src)
	r.must(err)
	r.must(sys.Delete(r.fs, "src", info.ID))
	if code := d.end(); code != 1 || !strings.Contains(d.said(), r.src) {
		t.Errorf("exit code %d: %s", code, d.said())
	}
	if code, out, _ := r.snap("list"); code != 0 || strings.Count(out, "\n") != 2 {
		t.Errorf("exit code %d:\n%s", code, out)
	}
	// Another of the same name is another source: a full snapshot, and nothing
	// is compared with the old ones.
	r.must(sys.Create(r.src))
	r.ok("gb-snap", "take", r.src)
	if list := r.live(); len(list) != 2 || list[0].Source() == list[1].Source() {
		t.Errorf("%+v", list)
	}
	if code, _, words := r.snap("send", "--parent", r.live()[0].UUID.String(), r.src); code != 5 {
		t.Errorf("a parent of the old source: exit code %d: %s", code, words)
	}
}

// A snapshot can't be deleted while it is sent, and pruning goes on around it.
func TestPruneUnderSend(t *testing.T) {
	r := newRig(t, loopbtrfs.Options{})
	big := make([]byte, 16<<20) // more than any pipe holds
	rand.Read(big)
	r.must(os.WriteFile(filepath.Join(r.src, "big"), big, 0o600))
	r.ok("gb-snap", "take", "--keep", "9", r.src)
	first := r.live()[0]
	pr, pw, err := os.Pipe()
	r.must(err)
	send := exec.Command(tools.Path(t, "gb-snap"), "send", "--parent", "none", r.src)
	send.Env, send.Stdout = r.env(), pw
	r.must(send.Start())
	defer send.Process.Kill()
	pw.Close()
	head := make([]byte, 1<<10)
	_, err = io.ReadFull(pr, head)
	r.must(err)
	for _, text := range []string{"two", "three", "four"} {
		r.write("a", text)
		r.ok("gb-snap", "take", "--keep", "9", r.src)
	}
	code, out, words := r.snap("prune", "--keep", "1")
	if code != 0 || !strings.Contains(words, "1 more are to go: "+first.Name+" is being sent") || strings.Count(out, "drop") != 2 {
		t.Errorf("exit code %d: %s%s", code, out, words)
	}
	// Nor by anybody else.
	if err := sys.Delete(r.snapshots, first.Name, first.ID); !errors.Is(err, syscall.EPERM) {
		t.Errorf("deleted: %v", err)
	}
	rest, err := io.ReadAll(pr)
	r.must(err)
	r.must(send.Wait())
	received := filepath.Join(r.fs, "received")
	r.must(os.Mkdir(received, 0o755))
	receive := exec.Command(require.Tool(t, "btrfs"), "-q", "receive", received)
	receive.Stdin = io.MultiReader(bytes.NewReader(head), bytes.NewReader(rest))
	if out, err := receive.CombinedOutput(); err != nil {
		t.Fatalf("receive: %v: %s", err, out)
	}
	got, err := os.ReadFile(filepath.Join(received, first.Name, "big"))
	if err != nil || !bytes.Equal(got, big) {
		t.Errorf("received %d bytes, %v", len(got), err)
	}
	r.ok("gb-snap", "prune", "--keep", "1")
	if n := len(r.live()); n != 1 {
		t.Errorf("%d live", n)
	}
}

// The receiver ends in the middle: an error, no hang, and the next send works.
func TestReceiverEndsEarly(t *testing.T) {
	r := newRig(t, loopbtrfs.Options{})
	big := make([]byte, 8<<20)
	rand.Read(big)
	r.must(os.WriteFile(filepath.Join(r.src, "big"), big, 0o600))
	r.ok("gb-snap", "take", r.src)
	pr, pw, err := os.Pipe()
	r.must(err)
	send := exec.Command(tools.Path(t, "gb-snap"), "send", "--parent", "none", r.src)
	var words bytes.Buffer
	send.Env, send.Stdout, send.Stderr = r.env(), pw, &words
	r.must(send.Start())
	pw.Close()
	_, err = io.ReadFull(pr, make([]byte, 100))
	r.must(err)
	pr.Close()
	if err := send.Wait(); err == nil || !strings.Contains(words.String(), "the receiver ended before the stream") {
		t.Errorf("%v: %s", err, words.String())
	}
	// The same over a socket is temporary, and so is nobody there.
	socket := filepath.Join(r.state, "s")
	l, err := net.Listen("unix", socket)
	r.must(err)
	go func() {
		conn, err := l.Accept()
		if err == nil {
			io.ReadFull(conn, make([]byte, 100))
			conn.Close()
		}
	}()
	cursor := filepath.Join(r.state, "cursor")
	if code, _, text := r.snap("send", "--cursor", cursor, "--to", "unix:"+socket, r.src); code != 75 {
		t.Errorf("exit code %d: %s", code, text)
	}
	l.Close()
	if code, _, text := r.snap("send", "--cursor", cursor, "--to", "unix:"+socket, r.src); code != 75 {
		t.Errorf("nobody there: exit code %d: %s", code, text)
	}
	if out := r.ok("gb-snap", "send", "--parent", "none", r.src); len(out) < 8<<20 {
		t.Errorf("%d bytes", len(out))
	}
	// Ctrl-C while the receiver does not read.
	pr, pw, err = os.Pipe()
	r.must(err)
	defer pr.Close()
	send = exec.Command(tools.Path(t, "gb-snap"), "send", "--parent", "none", r.src)
	send.Env, send.Stdout = r.env(), pw
	r.must(send.Start())
	pw.Close()
	_, err = io.ReadFull(pr, make([]byte, 100))
	r.must(err)
	time.Sleep(50 * time.Millisecond)
	r.must(send.Process.Signal(os.Interrupt))
	ended := make(chan error, 1)
	go func() { ended <- send.Wait() }()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("an interrupted send succeeded")
		}
	case <-time.After(10 * time.Second):
		send.Process.Kill()
		t.Error("an interrupted send does not end")
	}
}

// Two loops on one store: the second says so and exits with 75.
func TestSecondInstance(t *testing.T) {
	r := newRig(t, loopbtrfs.Options{})
	d := r.take(50 * time.Millisecond)
	r.await("a snapshot", func() bool { return len(r.live()) == 1 })
	for _, args := range [][]string{{"take", r.src}, {"take", "--every", "1s", r.src}} {
		if code, _, words := r.snap(args...); code != 75 || !strings.Contains(words, "another gb-snap") {
			t.Errorf("exit code %d: %s", code, words)
		}
	}
	d.kill()
	r.ok("gb-snap", "take", r.src) // the lock has gone with the process
}

// The clock is set back by a day while it runs: snapshots go on, in their true
// order, the newest is sent, and nothing that is held goes.
func TestClockSetBackADay(t *testing.T) {
	r := newRig(t, loopbtrfs.Options{})
	store, err := snap.OpenStore(sys, r.snapshots)
	r.must(err)
	now := time.Now()
	taker := &snap.Taker{Store: store, Source: r.src, Policy: snap.Policy{Grid: snap.Grid{{Count: 5, Every: time.Second}, {Count: 5, Every: time.Minute}}, MaxCount: 20},
		Limits: snap.DefaultLimits, Now: func() time.Time { return now }}
	r.must(taker.Start())
	defer taker.Stop()
	var held snap.Snapshot
	most := 0
	for n := range 60 {
		now = now.Add(time.Second)
		if n == 30 {
			now = now.Add(-24 * time.Hour)
		}
		r.write("a", "x")
		o, err := taker.Take(t.Context(), false)
		r.must(err)
		if o.Snapshot == nil {
			t.Fatalf("tick %d took nothing", n)
		}
		if n == 5 {
			held = *o.Snapshot
			r.must(store.AddHold(t.Context(), "audit", held, now))
		}
		most = max(most, o.Live)
	}
	list := r.live()
	if most > 20 || !slices.ContainsFunc(list, func(s snap.Snapshot) bool { return s.UUID == held.UUID }) {
		t.Errorf("%d live at most", most)
	}
	text, err := os.ReadFile(filepath.Join(r.snapshots, list[len(list)-1].Name, "a"))
	if err != nil || len(text) != 60 {
		t.Errorf("the newest has %d of 60 bytes, %v", len(text), err)
	}
	s := &snap.Sender{Store: store, Source: r.src, Parent: &held.UUID}
	if legs, err := s.Choose(t.Context()); err != nil || legs[0].Target.UUID != list[len(list)-1].UUID {
		t.Errorf("%+v, %v", legs, err)
	}
}
