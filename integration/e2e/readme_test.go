//go:build linux

package e2e

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/ghostbridge/ghostbridge/pkg/names"
)

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
	c.eventually("gb-web", func() string { return c.wants(names.WebPort, "/healthz", "ok") })
	c.eventually("noVNC", func() string { return c.wants(names.NoVNCPort, "/vnc.html", "noVNC") })
	c.eventually("Prometheus", func() string { return c.wants(names.PrometheusPort, "/api/v1/rules", `"name":"SnapshotsLag"`) })
	c.eventually("what Prometheus has scraped", func() string {
		return c.wants(names.PrometheusPort, "/api/v1/query?query=ghostbridge_log_verified", `"value":[`)
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
