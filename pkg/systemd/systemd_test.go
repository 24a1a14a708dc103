package systemd

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if os.Getenv("GB_TEST_ACTIVATED") != "" {
		activated()
		return
	}
	os.Exit(m.Run())
}

// activated is a socket-activated service: it answers one connection with what
// it knows about its sockets.
func activated() {
	// systemd forks first and then knows the pid; this test can't.
	if os.Getenv("LISTEN_PID") == "self" {
		os.Setenv("LISTEN_PID", fmt.Sprint(os.Getpid()))
	}
	ls, err := Listeners()
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	again, err := Listeners()
	fmt.Println("listeners", len(ls), "again", len(again), err, "left", os.Getenv("LISTEN_FDS"))
	for _, l := range ls {
		conn, err := l.Accept()
		if err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		fmt.Fprint(conn, "hello")
		conn.Close()
		l.Close()
	}
}

func TestListeners(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	run := func(pid string, fds string) *exec.Cmd {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "GB_TEST_ACTIVATED=1", "LISTEN_PID="+pid, "LISTEN_FDS="+fds, "LISTEN_FDNAMES=x")
		cmd.ExtraFiles = []*os.File{f}
		return cmd
	}

	cmd := run("self", "1")
	var out strings.Builder
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(conn)
	if err != nil || string(got) != "hello" {
		t.Errorf("got %q, %v", got, err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if want := "listeners 1 again 0 <nil> left \n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
	// Closing the service's listener leaves systemd's socket in the tree.
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}

	// Sockets of another process are not ours.
	if out, err := run("1", "1").Output(); err != nil || !strings.HasPrefix(string(out), "listeners 0") {
		t.Errorf("got %q, %v", out, err)
	}
	// A descriptor that is no socket is an error.
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	cmd = run("self", "2")
	cmd.ExtraFiles = append(cmd.ExtraFiles, null)
	if out, err := cmd.Output(); err == nil || !strings.Contains(string(out), "socket 4 of systemd") {
		t.Errorf("got %q, %v", out, err)
	}
}

func TestPassed(t *testing.T) {
	for _, c := range []struct {
		pid, fds string
		want     int
		bad      bool
	}{
		{"", "", 0, false}, {"7", "", 0, false}, {"7", "2", 2, false}, {"8", "2", 0, false}, {"7", "0", 0, false},
		{"x", "2", 0, true}, {"7", "-1", 0, true}, {"7", "1000000", 0, true}, {"7", "x", 0, true},
	} {
		n, err := passed(c.pid, c.fds, 7)
		if n != c.want || (err != nil) != c.bad {
			t.Errorf("LISTEN_PID=%q LISTEN_FDS=%q: got %d, %v", c.pid, c.fds, n, err)
		}
	}
}

// notifySocket is what systemd is to a service; receive returns the next
// message, "" if none comes.
func notifySocket(t *testing.T, name string) (receive func(time.Duration) string) {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", name)
	return func(wait time.Duration) string {
		conn.SetReadDeadline(time.Now().Add(wait))
		b := make([]byte, 4096)
		n, err := conn.Read(b)
		if err != nil {
			return ""
		}
		return string(b[:n])
	}
}

func TestNotify(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	if sent, err := Notify("READY=1"); sent || err != nil {
		t.Errorf("without systemd: %v, %v", sent, err)
	}
	for _, name := range []string{filepath.Join(t.TempDir(), "n"), fmt.Sprintf("@ghostbridge-test-%d", os.Getpid())} {
		receive := notifySocket(t, name)
		if sent, err := Notify("READY=1", "STATUS=12 events"); !sent || err != nil {
			t.Errorf("%s: %v, %v", name, sent, err)
		}
		if got := receive(5 * time.Second); got != "READY=1\nSTATUS=12 events" {
			t.Errorf("%s: got %q", name, got)
		}
		if _, err := Notify("STATUS=a\nREADY=1"); err == nil {
			t.Error("a line break was sent")
		}
	}
	t.Setenv("NOTIFY_SOCKET", "relative")
	if _, err := Notify("READY=1"); err == nil {
		t.Error("a relative path was taken")
	}
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "nobody"))
	if _, err := Notify("READY=1"); err == nil {
		t.Error("nobody listens, and no error")
	}
}

func TestWatchdogInterval(t *testing.T) {
	for _, c := range []struct {
		pid, usec string
		want      time.Duration
	}{
		{"", "", 0}, {"", "2000000", 2 * time.Second}, {"7", "2000000", 2 * time.Second}, {"8", "2000000", 0}, {"x", "2000000", 0},
		{"7", "0", 0}, {"7", "-5", 0}, {"7", "9223372036854775807", 0},
	} {
		if got, ok := watchdog(c.pid, c.usec, 7); got != c.want || ok != (c.want > 0) {
			t.Errorf("WATCHDOG_PID=%q WATCHDOG_USEC=%q: got %v, %v", c.pid, c.usec, got, ok)
		}
	}
}

func TestWatchdog(t *testing.T) {
	receive := notifySocket(t, filepath.Join(t.TempDir(), "n"))
	t.Setenv("WATCHDOG_PID", "")
	t.Setenv("WATCHDOG_USEC", "3600000000")
	var w Watchdog
	for range 1000 {
		w.Alive()
	}
	if got := receive(5 * time.Second); got != "WATCHDOG=1" {
		t.Errorf("got %q", got)
	}
	if got := receive(10 * time.Millisecond); got != "" {
		t.Errorf("fed again within a third of the interval: %q", got)
	}
	t.Setenv("WATCHDOG_USEC", "")
	var none Watchdog
	none.Alive()
	if got := receive(10 * time.Millisecond); got != "" {
		t.Errorf("nobody asked: %q", got)
	}
}
