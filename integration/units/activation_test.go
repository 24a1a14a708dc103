//go:build linux

package units

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/require"
)

// activate runs a service behind a socket of systemd's own making until stop is
// called or the test ends.
func activate(t *testing.T, socket string, argv ...string) (stop func()) {
	t.Helper()
	cmd := exec.Command(require.Tool(t, "systemd-socket-activate"), append([]string{"-l", socket}, argv...)...)
	var said bytes.Buffer
	cmd.Stderr = &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil || t.Failed() {
			t.Errorf("%v: %v\n%s", argv, err, said.Bytes())
		}
	})
	t.Cleanup(stop)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		// Bound is not listening yet: 00010000 is the kernel's __SO_ACCEPTCON.
		list, err := os.ReadFile("/proc/net/unix")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(list)) {
			if f := strings.Fields(line); len(f) == 8 && f[3] == "00010000" && f[7] == socket {
				return stop
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("%v: no socket %s", argv, socket)
		}
	}
}

func run(t *testing.T, input string, argv ...string) string {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin = strings.NewReader(input)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s", argv, err, stderr.Bytes())
	}
	return string(out)
}

// The daemons serve the sockets that they are started with.
func TestSocketActivation(t *testing.T) {
	bin, dir := build(t), t.TempDir()
	log, keys, index := filepath.Join(dir, "log"), filepath.Join(dir, "keys"), filepath.Join(dir, "index.db")
	chain, vecsync := filepath.Join(bin, "gb-chain"), filepath.Join(bin, "gb-vecsync")
	run(t, "", chain, "init", "--log", log, "--keys", keys, "--origin", "activation.example/log")

	socket := filepath.Join(dir, "chain.sock")
	stop := activate(t, socket, chain, "serve", "--log", log, "--keys", keys, "--writers", "")
	run(t, `{"source":"demo","type":"note","message":"activated bridge"}`+"\n", chain, "append", "--socket", socket, "-")
	if out := run(t, "", chain, "query", "--log", log, "--source", "demo", "--json"); !strings.Contains(out, "activated bridge") {
		t.Errorf("got %q", out)
	}

	stop() // and signs a checkpoint, which the index needs

	run(t, "", vecsync, "rebuild", "--log", log, "--index", index)
	ask := filepath.Join(dir, "search.sock")
	activate(t, ask, vecsync, "search", "--listen", "--index", index)
	if out := run(t, "", vecsync, "search", "--socket", ask, "--json", "activated"); !strings.Contains(out, "activated bridge") {
		t.Errorf("got %q", out)
	}
	// The socket stays systemd's when the service ends.
	if conn, err := net.Dial("unix", ask); err != nil {
		t.Error(err)
	} else {
		conn.Close()
	}
}
