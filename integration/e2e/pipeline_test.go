//go:build linux

package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/require"
	"github.com/ghostbridge/ghostbridge/integration/tools"
	"github.com/ghostbridge/ghostbridge/pkg/names"
)

// long says whether the long forms are to run: make e2e.
var long = os.Getenv("GB_TORTURE") != ""

// span is how long something lasts: in make e2e and in make test.
func span(inLong, inShort time.Duration) time.Duration {
	if long {
		return inLong
	}
	return inShort
}

// TestPipeline is one session of a host: booted, the package installed, used,
// mistreated, its power cut, upgraded, and the package removed.
func TestPipeline(t *testing.T) {
	require.Root(t)
	for _, tool := range []string{"mkfs.btrfs", "btrfs", "losetup", "nsenter", "unshare", "tar", "systemd-escape", "dpkg-deb", "make", "systemd-nspawn"} {
		require.Tool(t, tool)
	}
	begin := time.Now()
	d := newDisk(t, 3<<30, tree(t, treePackages), "")
	t.Logf("disk made in %s", time.Since(begin).Round(100*time.Millisecond))
	// They are TestHost's: a boot is to be compared with a bare one.
	d.disable("prometheus*", "openvswitch*", "ovs*")
	begin = time.Now()
	old, young := oldPackage(t, "0.0.1"), debPackage(t, repository, tools.Dir(t), "0.0.2")
	t.Logf("packages built in %s", time.Since(begin).Round(100*time.Millisecond))
	begin = time.Now()
	c := boot(t, d, "")
	bare := c.booted
	defer func() {
		if t.Failed() {
			t.Log("the journal of our units:\n" + tail(c.journal(begin), 200))
		}
	}()
	phase := func(name string, f func(*testing.T)) {
		if t.Failed() {
			return // what follows builds on it
		}
		t.Run(name, func(t *testing.T) {
			c.t = t
			defer func() { c.t = nil }()
			f(t)
		})
	}
	phase("install", func(t *testing.T) { install(t, c, old) })
	phase("witness", func(t *testing.T) { witnessed(t, c) })
	phase("bus", func(t *testing.T) { systemBus(t, c) })
	phase("state", func(t *testing.T) { desiredState(t, c) })
	phase("web", func(t *testing.T) { webInterface(t, c) })
	phase("agents", func(t *testing.T) { agents(t, c) })
	phase("search", func(t *testing.T) { searchable(t, c) })
	phase("kills", func(t *testing.T) { kills(t, c) })
	phase("ingest stopped", func(t *testing.T) { ingestStopped(t, c) })
	phase("full", func(t *testing.T) { full(t, c) })
	whole := t
	phase("power cut", func(t *testing.T) {
		w := startWriter(t, c)
		time.Sleep(3 * time.Second)
		c.kill()
		w.stop()
		c = boot(whole, d, "") // it outlives this phase
		c.t = t
		t.Logf("boot: %s with our units, %s without", c.booted.Round(time.Millisecond), bare.Round(time.Millisecond))
		if long && c.booted-bare > time.Second {
			t.Errorf("our units make the boot %s longer", c.booted-bare)
		}
		c.has(w)
		c.converge()
		c.healthy()
	})
	phase("upgrade", func(t *testing.T) { upgrade(t, c, young) })
	phase("remove", func(t *testing.T) { remove(t, c, young) })
}

func tail(s string, lines int) string {
	all := strings.Split(s, "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// put copies a file of the host into the container.
func (c *container) put(from, to string) {
	c.t.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(c.path(to), data, 0o644)
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

func install(t *testing.T, c *container, deb string) {
	c.put(deb, "/root/ghostbridge.deb")
	said := c.run("dpkg", "--install", "/root/ghostbridge.deb")
	if !strings.Contains(said, "recovery key") || strings.Contains(said, "PRIVATE") {
		t.Errorf("what the installation says of the recovery key:\n%s", said)
	}
	c.converge()

	// The units are DESIGN's, but for those whose tool is not there yet.
	var units []string
	for _, f := range strings.Split(c.run("dpkg", "--listfiles", "ghostbridge"), "\n") {
		if filepath.Dir(f) == "/usr/lib/systemd/system" && filepath.Ext(f) != ".d" {
			units = append(units, filepath.Base(f))
		}
	}
	for _, u := range units {
		if !slices.Contains(names.Units, u) {
			t.Errorf("unit %s is not among DESIGN's", u)
		}
	}
	for _, u := range []string{
		"btrfs-snapshot.timer", "btrfs-snapshot.service", "btrfs-vector-sync.path", "btrfs-vector-sync.service", "gb-vecsync.socket", "gb-vecsync@.service",
		"blockchain-log.socket", "blockchain-log.service", "blockchain-journal.service", "blockchain-search.socket", "blockchain-search.service",
		"blockchain-rotate.timer", "blockchain-rotate.service", "blockchain-witness.service", "blockchain-dbus.service", "op-dbus.service",
		"dbus-mcp-web.socket", "dbus-mcp-web.service", "dbus-mcp-server.socket", "dbus-mcp-server.service",
	} {
		if !slices.Contains(units, u) {
			t.Errorf("the package has no %s", u)
		}
	}
	// What is made there is compressed, whatever the mount says.
	for _, dir := range []string{names.TimingDir, names.VectorsDir} {
		if p := c.run("btrfs", "property", "get", dir, "compression"); p != "compression=zstd" {
			t.Errorf("%s: %q", dir, p)
		}
	}
	// The seventh subvolume has come by itself.
	if list := c.run("btrfs", "subvolume", "list", "/"); !strings.Contains(list, " path "+names.SnapshotsSubvolume+"\n") {
		t.Errorf("subvolumes:\n%s", list)
	}
	if out := c.run("findmnt", "--noheadings", "--output=SOURCE", names.SnapshotsDir); !strings.HasSuffix(out, "[/"+names.SnapshotsSubvolume+"]") {
		t.Errorf("%s is %s", names.SnapshotsDir, out)
	}
	// The recovery key can be fetched, once, by root alone.
	if mode := c.run("stat", "--format=%a %U", "/run/ghostbridge/recovery/key"); mode != "600 gb-log" {
		t.Errorf("the recovery key's file: %s", mode)
	}
	if out, err := c.try("journalctl", "--no-pager", "--quiet", "--grep=PRIVATE.KEY"); err == nil || c.query("--grep", "PRIVATE.KEY") != 0 {
		t.Errorf("a secret key is in the journal or in the log: %s", out)
	}
	// The key's rotation by its unit.
	c.run("systemctl", "start", "blockchain-rotate.service")
	if n := c.query("--type", "log.epoch"); n != 1 {
		t.Errorf("%d epochs after one rotation", n)
	}
	// The README's command.
	if out := c.run("/etc/ghostbridge/query-blockchain.sh", "--type", "log.created"); !strings.Contains(out, "gbe2e/log created") {
		t.Errorf("query-blockchain.sh: %s", out)
	}
	// A user of no group of ours can neither write nor ask nor read.
	for _, argv := range [][]string{
		{"gb-chain", "append", "--socket", names.ChainSocket, "--format", "text"}, {"gb-vecsync", "search", "--socket", names.SearchSocket, "x"},
		{"ls", names.TimingDir}, {"ls", names.KeysDir}, {"ls", names.VectorsDir}, {"ls", names.SnapshotsDir},
	} {
		if out, err := c.try(append([]string{"setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"}, argv...)...); err == nil {
			t.Errorf("nobody may %v: %s", argv, out)
		}
	}
	c.healthy()
}

func upgrade(t *testing.T, c *container, deb string) {
	before := c.state()
	pid := c.property("blockchain-log.service", "MainPID")
	c.put(deb, "/root/ghostbridge.deb")
	c.run("dpkg", "--install", "/root/ghostbridge.deb")
	if now := c.property("blockchain-log.service", "MainPID"); now == pid || now == "0" {
		t.Errorf("the log's daemon was not restarted: process %s, now %s", pid, now)
	}
	if out := c.run("dpkg-query", "--show", "--showformat=${Version}", "ghostbridge"); out != "0.0.2" {
		t.Errorf("version %s", out)
	}
	after := c.state()
	if after.key != before.key || after.size < before.size || after.events < before.events || after.cursor == "" {
		t.Errorf("before %+v, after %+v", before, after)
	}
	c.converge()
	c.healthy()
}

func remove(t *testing.T, c *container, deb string) {
	before := c.state()
	conf := "/etc/ghostbridge/writers.json"
	c.run("dpkg", "--remove", "ghostbridge")
	for pid, p := range c.processes() {
		if p.ours() {
			t.Errorf("process %d, %v of %s, runs on", pid, p.args, p.unit)
		}
	}
	if failed := c.run("systemctl", "list-units", "--failed", "--plain", "--no-legend"); failed != "" {
		t.Errorf("failed units:\n%s", failed)
	}
	for _, path := range []string{names.LogDir + "/000000.jsonl", names.KeysDir, names.IndexFile, names.CursorFile, conf} {
		if _, err := os.Stat(c.path(path)); err != nil {
			t.Errorf("after removing: %v", err)
		}
	}
	// Installed again, it goes on.
	c.run("dpkg", "--install", "/root/ghostbridge.deb")
	c.converge()
	if after := c.state(); after.key != before.key || after.size < before.size || after.events < before.events {
		t.Errorf("before %+v, after %+v", before, after)
	}
	c.healthy()

	c.run("dpkg", "--purge", "ghostbridge")
	for _, path := range []string{names.LogDir, names.StateDir, names.IndexFile, conf, "/etc/default/ghostbridge", names.RunDir} {
		if _, err := os.Stat(c.path(path)); err == nil {
			t.Errorf("after purging there is still %s", path)
		}
	}
	if list := c.run("btrfs", "subvolume", "list", "/"); strings.Contains(list, names.SnapshotsSubvolume+"/") {
		t.Errorf("after purging there are still snapshots:\n%s", list)
	}
	if out, err := c.try("systemctl", "list-unit-files", "--no-legend", "blockchain-*", "btrfs-*", "gb-*", "op-dbus*"); err == nil && out != "" {
		t.Errorf("after purging systemd still has:\n%s", out)
	}
	if failed := c.run("systemctl", "list-units", "--failed", "--plain", "--no-legend"); failed != "" {
		t.Errorf("failed units:\n%s", failed)
	}
}
