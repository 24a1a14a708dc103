//go:build linux

package units

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ghostbridge/ghostbridge/integration/require"
	"github.com/ghostbridge/ghostbridge/integration/tools"
	"github.com/ghostbridge/ghostbridge/pkg/names"
)

// ceilings are how exposed each service may be, in the tenths that
// systemd-analyze security counts: its 0 is a service that can do nothing, its
// 10 one that nothing holds back.
var ceilings = map[string]string{
	"blockchain-log.service":     "15",
	"blockchain-journal.service": "15",
	"blockchain-rotate.service":  "15",
	"blockchain-search.service":  "15",
	"blockchain-witness.service": "16", // the host's network
	"gb-vecsync@.service":        "15",
	"btrfs-snapshot.service":     "50",
	"btrfs-vector-sync.service":  "50",
	"blockchain-dbus.service":    "15",
	"op-dbus.service":            "15",
	"dbus-mcp-web.service":       "12",
	"dbus-mcp-server.service":    "7",
	"blockchain-ovs.service":     "15",
	"ovs-bridge-setup.service":   "50",
	"ovs-bridge-watch.service":   "50",
	"ovs-switch@.service":        "50",
	"qdrant.service":             "16", // the host's network, as far as itself
	"novnc.service":              "16",
}

// build returns where the binaries are: systemd looks whether what a unit
// starts is there.
func build(t *testing.T) string { return tools.Dir(t) }

func TestMain(m *testing.M) { tools.Main(m) }

// others are the programs of others that units start; not all have to be here.
var others = []string{"journalctl", "qdrant", "websockify"}

// unitDir writes the units, with their programs in bin, into a directory.
// systemd looks whether a program is there: that of others is a stand-in.
func unitDir(t *testing.T, bin string) string {
	t.Helper()
	dir, tool := t.TempDir(), t.TempDir()
	for _, name := range others {
		if err := os.Symlink("/bin/true", filepath.Join(tool, name)); err != nil {
			t.Fatal(err)
		}
	}
	for path, text := range render(t, bin, tool) {
		if strings.Contains(path, "/") || path == "aliases" {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, path), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// analyze runs systemd-analyze on units in dir; it looks for others in the
// system's directories.
func analyze(t *testing.T, dir string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	cmd := exec.Command(require.Tool(t, "systemd-analyze"), args...)
	cmd.Env = append(os.Environ(), "SYSTEMD_UNIT_PATH="+dir+":", "SYSTEMD_LOG_LEVEL=info")
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &e
	err = cmd.Run()
	return o.String(), e.String(), err
}

// systemd-analyze verify exits with 0 for an unknown key and for a value that
// it can't read; what it says on standard error is what counts.
func TestVerify(t *testing.T) {
	dir := unitDir(t, build(t))
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	_, stderr, err := analyze(t, dir, append([]string{"verify", "--man=no"}, files...)...)
	if err != nil || stderr != "" {
		t.Errorf("systemd-analyze verify: %v\n%s", err, stderr)
	}
	// It does find what it is for.
	bad := filepath.Join(dir, "btrfs-snapshot.service")
	text, err := os.ReadFile(bad)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(bad, bytes.Replace(text, []byte("Type=oneshot"), []byte("Tpye=oneshot"), 1), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, stderr, _ := analyze(t, dir, "verify", "--man=no", bad); !strings.Contains(stderr, "Tpye") {
		t.Errorf("a misspelt key was not found: %s", stderr)
	}
}

func TestSecurity(t *testing.T) {
	dir := unitDir(t, build(t))
	for name := range unitFiles(t) {
		if !strings.HasSuffix(name, ".service") {
			continue
		}
		ceiling, ok := ceilings[name]
		if !ok {
			t.Errorf("%s has no ceiling", name)
			continue
		}
		out, stderr, err := analyze(t, dir, "security", "--offline=true", "--no-pager", "--threshold="+ceiling, name)
		lines := strings.Split(strings.TrimSpace(out), "\n")
		t.Log(lines[len(lines)-1])
		if err != nil {
			t.Errorf("%s is above %s tenths: %v\n%s\n%s", name, ceiling, err, stderr, out)
		}
	}
}

// rootsOwn are the services that have no user of their own: they work on
// subvolumes or on the switch.
var rootsOwn = []string{"btrfs-snapshot.service", "btrfs-vector-sync.service", "ovs-bridge-setup.service", "ovs-bridge-watch.service", "ovs-switch@.service", "blockchain-ovs.service", "op-dbus.service"}

func TestUsers(t *testing.T) {
	sysusers := committed(t)["sysusers.d/ghostbridge.conf"]
	for name, u := range unitFiles(t) {
		if !strings.HasSuffix(name, ".service") {
			continue
		}
		user := u.get("Service", "User")
		if slices.Contains(rootsOwn, name) {
			if user != "" {
				t.Errorf("%s: user %s", name, user)
			}
			continue
		}
		if !strings.Contains(sysusers, "\nu "+user+" ") {
			t.Errorf("%s: user %q is not in sysusers.d", name, user)
		}
		for _, group := range strings.Fields(u.get("Service", "SupplementaryGroups")) {
			if group != "systemd-journal" && !strings.Contains(sysusers, "\ng "+group+" ") {
				t.Errorf("%s: group %q is not in sysusers.d", name, group)
			}
		}
		if u.get("Service", "CapabilityBoundingSet") != "" {
			t.Errorf("%s: capabilities %s", name, u.get("Service", "CapabilityBoundingSet"))
		}
	}
}

// systemUnits are those of systemd's own that ours name.
var systemUnits = []string{"systemd-journald.service", "sockets.target", "timers.target", "paths.target", "multi-user.target",
	"local-fs.target", "systemd-tmpfiles-setup.service", "network.target", "network-online.target", "systemd-networkd.service", "shutdown.target",
	"ovsdb-server.service", "ovs-vswitchd.service", "dbus.socket"}

func TestEveryNamedUnitExists(t *testing.T) {
	units := unitFiles(t)
	for name, u := range units {
		var named []string
		for _, key := range []string{"After", "Before", "Requires", "Wants", "BindsTo", "PartOf", "Conflicts", "OnFailure", "Upholds"} {
			for _, v := range u["Unit"][key] {
				named = append(named, strings.Fields(v)...)
			}
		}
		for _, section := range []string{"Timer", "Path", "Socket"} {
			named = append(named, u[section]["Unit"]...)
			named = append(named, u[section]["Service"]...)
		}
		for _, key := range []string{"WantedBy", "RequiredBy", "Also"} {
			for _, v := range u["Install"][key] {
				named = append(named, strings.Fields(v)...)
			}
		}
		// What a timer, path or socket starts if it does not say.
		base, kind, _ := strings.Cut(name, ".")
		switch kind {
		case "timer", "path":
			named = append(named, base+".service")
		case "socket":
			if u.get("Socket", "Accept") == "yes" {
				base += "@"
			}
			named = append(named, base+".service")
		}
		for _, n := range named {
			if units[n] == nil && !slices.Contains(systemUnits, n) {
				t.Errorf("%s names %s, which does not exist", name, n)
			}
		}
	}
}

func TestUnitList(t *testing.T) {
	have, alias := unitFiles(t), aliases(t)
	for name, target := range alias {
		if have[name] != nil || have[target] == nil && !slices.Contains(systemUnits, target) {
			t.Errorf("%s is to be another name of %s", name, target)
		}
		if !slices.Contains(names.Units, name) {
			t.Errorf("%s is in units/aliases and not in package names", name)
		}
	}
	for _, name := range names.Units {
		if have[name] == nil && alias[name] == "" {
			t.Errorf("%s is not in units/", name)
		}
	}
	for name := range have {
		if !slices.Contains(names.Units, name) {
			t.Errorf("%s is in units/ and not in package names", name)
		}
	}
}

// The paths in the units are those of package names.
func TestPaths(t *testing.T) {
	units := unitFiles(t)
	for _, c := range []struct{ unit, section, key, want string }{
		{"blockchain-log.socket", "Socket", "ListenStream", names.ChainSocket},
		{"gb-vecsync.socket", "Socket", "ListenStream", names.VecsyncSocket},
		{"ovs-switch.socket", "Socket", "ListenStream", names.SwitchSocket},
		{"blockchain-search.socket", "Socket", "ListenStream", names.SearchSocket},
		{"gb-vecsync@.service", "Service", "ReadWritePaths", names.VectorsDir},
		{"qdrant.service", "Service", "ReadWritePaths", names.VectorsDir + "/qdrant"},
		{"blockchain-witness.service", "Service", "StateDirectory", strings.TrimPrefix(names.WitnessDir, "/var/lib/")},
		{"btrfs-vector-sync.path", "Path", "DirectoryNotEmpty", names.RunDir + "/pending"},
	} {
		if got := units[c.unit].get(c.section, c.key); got != c.want {
			t.Errorf("%s: %s=%s, want %s", c.unit, c.key, got, c.want)
		}
	}
	for name, u := range units {
		for _, v := range u["Service"]["Environment"] {
			key, value, _ := strings.Cut(v, "=")
			want, ok := map[string]string{
				"GB_LOG": names.LogDir, "GB_CURSOR": names.CursorFile, "GB_WEB_URL": fmt.Sprintf("http://127.0.0.1:%d", names.WebPort),
				"QDRANT__SERVICE__HOST": "127.0.0.1", "QDRANT__SERVICE__HTTP_PORT": fmt.Sprint(names.QdrantHTTPPort), "QDRANT__SERVICE__GRPC_PORT": fmt.Sprint(names.QdrantGRPCPort),
			}[key]
			if value != want && (ok || strings.HasPrefix(key, "GB_")) {
				t.Errorf("%s: %s, want %s", name, v, want)
			}
		}
	}
	tmpfiles := committed(t)["tmpfiles.d/ghostbridge.conf"]
	for _, dir := range []string{names.TimingDir, names.SnapshotsDir, names.VectorsDir, names.StateDir, names.RunDir} {
		if !strings.Contains(tmpfiles, "\nd "+dir+" ") {
			t.Errorf("tmpfiles.d does not make %s", dir)
		}
	}
	for line := range strings.Lines(tmpfiles) {
		// A d with an age removes something, and a t sets an attribute.
		if f := strings.Fields(line); !strings.HasPrefix(line, "#") && f[0] != "t-" && (f[0] != "d" || f[5] != "-") {
			t.Errorf("tmpfiles.d may remove something: %s", line)
		}
	}
	if screens := units["novnc.service"].get("Service", "ExecStart"); !strings.HasSuffix(screens, fmt.Sprintf(" 127.0.0.1:%d", names.NoVNCPort)) {
		t.Errorf("novnc.service: %s", screens)
	}
	if take := units["btrfs-snapshot.service"].get("Service", "ExecStart"); !strings.Contains(take, "--subvolume "+names.SnapshotsSubvolume+" ") {
		t.Errorf("btrfs-snapshot.service: %s", take)
	}
}

// The rules without which a unit fails in silence; each was measured.
func TestRules(t *testing.T) {
	for name, u := range unitFiles(t) {
		complain := func(format string, args ...any) { t.Helper(); t.Errorf(name+": "+format, args...) }
		if u.get("Unit", "Description") == "" || u.get("Unit", "Documentation") == "" {
			complain("no description or documentation")
		}
		for key, values := range u["Service"] {
			if !strings.HasPrefix(key, "Exec") {
				continue
			}
			for _, v := range values {
				argv := strings.Fields(v)
				if slices.Contains(argv, "-c") || strings.ContainsAny(v, "|;&<>$`") || strings.HasSuffix(argv[0], "sh") {
					complain("a shell: %s", v)
				}
				if !strings.HasPrefix(argv[0], "/usr/bin/") {
					complain("%s: no absolute path", v)
				}
			}
		}
		// A service that starts often or comes back often must not be given up
		// on: five starts in ten seconds are the default limit, and a timer
		// keeps the count alive.
		limited := u.get("Unit", "StartLimitIntervalSec") != "0"
		if often := u.get("Service", "Restart") != "" && u.get("Service", "Type") != "oneshot"; often && limited {
			complain("restarts run into the start limit")
		}
		if strings.HasPrefix(name, "btrfs-") && strings.HasSuffix(name, ".service") && limited {
			complain("started each second, and StartLimitIntervalSec is not 0")
		}
		if strings.HasPrefix(name, "btrfs-") && strings.HasSuffix(name, ".service") && u.get("Service", "LogLevelMax") != "notice" {
			complain("PID 1 says three lines a second")
		}
		if u["Timer"] != nil && u.get("Timer", "AccuracySec") == "" {
			complain("AccuracySec is a minute if it is not set")
		}
		if u["Path"] != nil && (u.get("Path", "PathChanged") != "" || u.get("Path", "PathModified") != "") {
			complain("an edge that comes while the service runs is lost")
		}
		if t := u.get("Service", "Type"); t == "notify" && (u.get("Service", "WatchdogSec") == "" || u.get("Service", "Restart") == "") {
			complain("no watchdog, or no restart behind it")
		}
		if out := u.get("Service", "StandardOutput"); out != "" && out != "journal" && u.get("Service", "StandardError") != "journal" {
			complain("what it says of an error goes to %s", out)
		}
		answers := name == "ovs-switch@.service"
		if u.get("Service", "StandardInput") == "socket" && u.get("Service", "StandardOutput") != "journal" && !answers {
			complain("standard output goes into the socket")
		}
		for _, key := range []string{"RestartSteps", "RestartMaxDelaySec", "RestartMode", "MemoryZSwapMax"} {
			if u.get("Service", key) != "" {
				complain("%s is younger than systemd 252", key)
			}
		}
	}
	timer := unitFiles(t)["btrfs-snapshot.timer"]
	if got := timer.get("Timer", "OnCalendar"); got != "*-*-* *:*:*" {
		t.Errorf("btrfs-snapshot.timer: OnCalendar=%s: anything else drifts", got)
	}
	if got := timer.get("Timer", "AccuracySec"); got != "10ms" {
		t.Errorf("btrfs-snapshot.timer: AccuracySec=%s", got)
	}
	ingest := unitFiles(t)["gb-vecsync.socket"]
	if ingest.get("Socket", "Accept") != "yes" || ingest.get("Socket", "MaxConnections") != "16" || ingest.get("Socket", "SocketMode") != "0600" {
		t.Errorf("gb-vecsync.socket: %v", ingest["Socket"])
	}
}
