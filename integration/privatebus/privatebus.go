//go:build linux

// Package privatebus starts a dbus-daemon of a test's own, configured like a
// system bus, and peers on it. Nothing of the machine's buses is touched.
package privatebus

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/require"
	"github.com/ghostbridge/ghostbridge/pkg/bus"
)

// Options say how the bus is set up.
type Options struct {
	// Policies are files to include, as /usr/share/dbus-1/system.d has them.
	Policies []string
	// Open lets everybody own every name and send everything, as on a session
	// bus. Without it the rules are those of a system bus.
	Open bool
	// Services is a directory of service files, for activation.
	Services string
}

const config = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>%s</type>
  <listen>unix:path=%s</listen>
  <auth>EXTERNAL</auth>
  %s
  <policy context="default">
    <allow user="*"/>
    %s
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus"/>
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Introspectable"/>
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Properties"/>
  </policy>
  <policy user="root">
    <allow own="*"/>
    <allow send_destination="*"/>
  </policy>
  %s
  <limit name="max_incoming_bytes">1000000000</limit>
  <limit name="max_outgoing_bytes">1000000000</limit>
  <limit name="max_message_size">134217728</limit>
</busconfig>
`

// Make starts a bus in dir, which others must be able to enter, and returns its
// address and how to stop it.
func Make(dir string, o Options) (address string, stop func() error, err error) {
	daemon, err := require.Find("dbus-daemon")
	if err != nil {
		return "", nil, err
	}
	socket := filepath.Join(dir, "bus.sock")
	var includes strings.Builder
	for _, p := range o.Policies {
		fmt.Fprintf(&includes, "<include>%s</include>\n", p)
	}
	kind, services, open := "custom", "", ""
	if o.Services != "" {
		services = "<servicedir>" + o.Services + "</servicedir>"
	}
	if o.Open {
		open = `<allow own="*"/><allow send_destination="*"/>`
	}
	file := filepath.Join(dir, "bus.conf")
	if err := os.WriteFile(file, fmt.Appendf(nil, config, kind, socket, services, open, includes.String()), 0o644); err != nil {
		return "", nil, err
	}
	cmd := exec.Command(daemon, "--config-file="+file, "--nofork", "--nopidfile", "--nosyslog", "--print-address=1")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		cmd.Process.Kill()
		cmd.Wait()
		return "", nil, fmt.Errorf("dbus-daemon: %w: %s", err, stderr.String())
	}
	if err := os.Chmod(socket, 0o777); err != nil {
		return "", nil, err
	}
	address, _, _ = strings.Cut(strings.TrimSpace(line), ",guid=")
	return address, func() error {
		cmd.Process.Signal(syscall.SIGTERM)
		var exit *exec.ExitError
		if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
			return err
		}
		return nil
	}, nil
}

// Start starts a bus for the time of a test.
func Start(t testing.TB, o Options) string {
	t.Helper()
	require.Tool(t, "dbus-daemon")
	address, stop, err := Make(OpenDir(t), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return address
}

// OpenDir makes a directory that every user can enter, as t.TempDir's can't be.
func OpenDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "gb-bus-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Python is the interpreter that has the distribution's dbus and gi.
const Python = "/usr/bin/python3"

// Run starts a program for the time of a test and waits until it prints a line
// that begins with ready; "" waits for nothing.
func Run(t testing.TB, ready string, env []string, argv ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 3 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); cmd.Wait() })
	r := bufio.NewReader(out)
	for ready != "" {
		line, err := r.ReadString('\n')
		if err != nil {
			cancel()
			cmd.Wait()
			t.Fatalf("%v: %v: %s", argv, err, stderr.String())
		}
		if strings.HasPrefix(line, ready) {
			break
		}
	}
	go func() {
		for {
			if _, err := r.ReadString('\n'); err != nil {
				return
			}
		}
	}()
	return cmd
}

// Mock starts one of python-dbusmock's templates and waits until it has its
// name.
func Mock(t testing.TB, address, name, template string) {
	t.Helper()
	Run(t, "", []string{"DBUS_SYSTEM_BUS_ADDRESS=" + address, "DBUS_SESSION_BUS_ADDRESS=" + address}, Python, "-m", "dbusmock", "--template", template)
	WaitName(t, address, name)
}

// WaitName waits until somebody has name.
func WaitName(t testing.TB, address, name string) {
	t.Helper()
	conn, err := bus.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if _, err = conn.Owner(t.Context(), name, false); err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s did not come: %v", name, err)
		}
	}
}
