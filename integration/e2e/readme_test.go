//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/names"
)

// get is what a server on loopback in the container answers.
func (c *container) get(port int, path string) (status, body string) {
	c.t.Helper()
	script := `exec 3<>"/dev/tcp/127.0.0.1/$1" && printf 'GET %s HTTP/1.0\r\nHost: localhost:%s\r\n\r\n' "$2" "$1" >&3 && cat <&3`
	out, err := c.try("bash", "-c", script, "-", fmt.Sprint(port), path)
	if err != nil {
		return err.Error(), ""
	}
	head, body, _ := strings.Cut(out, "\r\n\r\n")
	status, _, _ = strings.Cut(head, "\r\n")
	return status, body
}

// eventually wants a thing to be so within half a minute; f says what is wrong.
func (c *container) eventually(what string, f func() string) {
	c.t.Helper()
	wrong := ""
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		if wrong = f(); wrong == "" {
			return
		}
		if time.Now().After(deadline) {
			c.t.Errorf("%s: %s", what, wrong)
			return
		}
	}
}

// readme does with the package what the README of the host says: its bridges,
// its monitoring, and each command of its troubleshooting, which is
// OPERATIONS.md's. What they answer is what its reader would look for.
func readme(t *testing.T, c *container) {
	c.run("systemctl", "start", "dbus-mcp-server.service") // else the first agent does

	for _, x := range []struct {
		command string
		status  int
		want    string // a regular expression
	}{
		// After the installation.
		{"/etc/ghostbridge/ovs-status.sh", 0, `ovsbr0`},
		{"/etc/ghostbridge/test-dbus.sh", 0, `bus`},
		{"/etc/ghostbridge/query-blockchain.sh -n 3", 0, `(?m)^ *[0-9]+ +20.* journald `},
		{"systemctl restart op-dbus dbus-mcp-server dbus-mcp-web", 0, ``},
		// Of troubleshooting, what OPERATIONS.md does not have.
		{"systemctl restart ovs-bridge-setup.service", 0, ``},
		{"ovs-vsctl list-br", 0, `^ovsbr0\novsbr1$`},
		{"btrfs filesystem usage /var/lib/blockchain-timing", 0, `Free \(estimated\):`},
		{"systemctl status dbus-mcp-server.service", 0, `Active: active \(running\)`},
		{"runuser -u nobody -- busctl introspect org.freedesktop.opdbus /org/freedesktop/opdbus", 0, `org\.freedesktop\.opdbus\.Manager +interface`},
		// Its names of the programs.
		{"op-dbus --version", 0, `opdbus`},
		{"dbus-mcp --version", 0, `opdbus`},
		{"dbus-mcp-web --version", 0, `gb-web`},
	} {
		want := regexp.MustCompile(x.want)
		c.eventually(x.command, func() string {
			out, err := c.try(strings.Fields(x.command)...)
			code := 0
			if err != nil {
				code = exitCode(err)
			}
			if code != x.status || !want.MatchString(out) {
				return fmt.Sprintf("exit code %d, want %d; answer wants %q: %v\n%s", code, x.status, x.want, err, out)
			}
			return ""
		})
	}

	documents(t, c)

	// Somebody has broken the snapshots' settings while another looks.
	if err := os.WriteFile(c.path("/etc/default/ghostbridge"), []byte("GB_SNAP_GRID=sixty\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	out, _ := c.try("timeout", "4", "journalctl", "-u", "btrfs-snapshot.service", "-f", "-n", "0")
	if !regexp.MustCompile(`gb-snap\[[0-9]+\]: gb-snap: .*sixty`).MatchString(out) {
		t.Errorf("journalctl -u btrfs-snapshot.service -f with settings that are broken:\n%s", out)
	}
	if err := os.WriteFile(c.path("/etc/default/ghostbridge"), nil, 0o644); err != nil {
		t.Fatal(err)
	}

	// What answers where.
	c.eventually("gb-web", func() string { return wants(c, names.WebPort, "/healthz", "ok") })
	c.eventually("noVNC", func() string { return wants(c, names.NoVNCPort, "/vnc.html", "noVNC") })
	c.eventually("Prometheus", func() string { return wants(c, names.PrometheusPort, "/api/v1/rules", `"name":"SnapshotsLag"`) })
	c.eventually("what Prometheus has scraped", func() string {
		return wants(c, names.PrometheusPort, "/api/v1/query?query=ghostbridge_log_verified", `"value":[`)
	})
	// And nothing of it on another address.
	for _, port := range []int{names.WebPort, names.NoVNCPort, names.PrometheusPort} {
		if out := c.run("ss", "-Hltn", "sport", "=", fmt.Sprintf(":%d", port)); !strings.Contains(out, "127.0.0.1:") || strings.Contains(out, "0.0.0.0:"+fmt.Sprint(port)) || strings.Contains(out, "*:"+fmt.Sprint(port)) {
			t.Errorf("port %d: %s", port, out)
		}
	}

	// The success factors, but for the two that a container can't have.
	c.eventually("opdbus doctor", func() string {
		out, _ := c.try("opdbus", "doctor", "--json")
		var bad []string
		for line := range strings.Lines(out) {
			if !strings.Contains(line, `"state":"ok"`) && !strings.Contains(line, `"boot loader"`) && !strings.Contains(line, `"declarative"`) {
				bad = append(bad, line)
			}
		}
		if out == "" || len(bad) > 0 {
			return strings.Join(bad, "") + out
		}
		return ""
	})
	c.healthy()
}

func wants(c *container, port int, path, text string) string {
	status, body := c.get(port, path)
	if !strings.Contains(status, " 200 ") || !strings.Contains(body, text) {
		return fmt.Sprintf("%s: %s, %.300s", path, status, body)
	}
	return ""
}

func exitCode(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return -1
}
