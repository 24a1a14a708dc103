//go:build linux

// Package nix tests the Nix modules and the README's tree: that each file
// parses, that the host that they describe is the one that the units and the
// package are for, that each assertion fires and each type refuses. It runs on
// Debian's Nix without a network, over stand-ins of NixOS' options
// (nix/tests); with GB_NIXPKGS, on the real lib and the real NixOS.
package nix

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/ghostbridge/ghostbridge/integration/require"
	"github.com/ghostbridge/ghostbridge/pkg/names"
)

const root = "../.."

// command is a program of Nix with a store of its own, so that it needs
// neither /nix nor a daemon.
func command(t *testing.T, store string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(require.Tool(t, "nix-instantiate"), args...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "NIX_STORE_DIR="+store+"/store", "NIX_STATE_DIR="+store+"/state", "NIX_LOG_DIR="+store+"/log", "HOME="+store,
		"NIX_CONF_DIR="+store, "NIX_REMOTE=", "NIX_PATH=")
	return cmd
}

// eval evaluates an expression to JSON, in the repository's root.
func eval(t *testing.T, expr string) []byte {
	t.Helper()
	cmd := command(t, t.TempDir(), "--eval", "--strict", "--json", "--read-write-mode", "-E", expr)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("nix-instantiate: %v\n%s", err, tail(stderr.String(), 4000))
	}
	return out
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }

// files are all .nix files of the repository.
func files(t *testing.T) []string {
	t.Helper()
	var list []string
	for _, pattern := range []string{"*.nix", "nix/*.nix", "nix/*/*.nix", "nix/*/*/*.nix", "nix/*/*/*/*.nix", "nix/*/*/*/*/*.nix"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, found...)
	}
	if len(list) < 15 {
		t.Fatalf("%d files: %v", len(list), list)
	}
	return list
}

func TestParse(t *testing.T) {
	list := files(t)
	for i, f := range list {
		list[i], _ = filepath.Rel(root, f)
	}
	cmd := command(t, t.TempDir(), append([]string{"--parse"}, list...)...)
	cmd.Stdout = nil
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		t.Errorf("%v\n%s", err, stderr.Bytes())
	}
}

// host is what the README's tree comes to.
type host struct {
	Failed      []string
	Units       map[string]string
	Wanted      map[string][]string
	Aliases     map[string][]string
	Tmpfiles    []string
	Users       []string
	Groups      []string
	Etc         []string
	Environment string
	OVS         map[string]any
	Nftables    string
	FileSystems map[string]struct {
		FSType  string `json:"fsType"`
		Options []string
	}
	Prometheus struct {
		ListenAddress string `json:"listenAddress"`
		Port          int
		RuleFiles     []string `json:"ruleFiles"`
		ScrapeConfigs []struct {
			JobName       string                       `json:"job_name"`
			StaticConfigs []struct{ Targets []string } `json:"static_configs"`
		} `json:"scrapeConfigs"`
	}
	Grafana struct {
		Settings struct {
			Server struct {
				HTTPAddr string `json:"http_addr"`
				HTTPPort int    `json:"http_port"`
			}
			Security struct {
				SecretKey string `json:"secret_key"`
			}
		}
		Provision struct {
			Datasources struct {
				Settings struct {
					Datasources []struct{ Type, UID, URL string }
				}
			}
			Dashboards struct {
				Settings struct {
					Providers []struct{ Options struct{ Path string } }
				}
			}
		}
	}
	Docker map[string]any
	Incus  struct {
		Profiles []struct {
			Name    string
			Devices map[string]map[string]string
		}
	}
	LXC            string
	Libvirt        map[string]string
	DBusPackages   []string
	SystemPackages []string
	NoVNC          string
}

// An outcome is all that nix/tests/eval.nix says.
type outcome struct {
	Host     host
	InQdrant struct {
		Environment string
		Units       map[string]string
	}
	Broken map[string]struct {
		Says   string
		Failed []string
	}
	Refused map[string]bool
	Alone   map[string]struct{ Units, Etc, Failed []string }
	Flake   struct {
		Outputs        []string
		Systems        map[string][]string
		Modules, Hosts map[string][]string
	}
	Options []struct {
		Path, Description string
		Typed, HasDefault bool
		Internal          bool
	}
}

// storePath is where a store is, ours or Nix's.
var storePath = regexp.MustCompile(`/[A-Za-z0-9._/-]*/store/[0-9a-z]{32}-`)

// evaluate evaluates the modules with a lib, "" for the stand-in.
func evaluate(t *testing.T, lib string) *outcome {
	t.Helper()
	arg := "{ }"
	if lib != "" {
		arg = "{ lib = import " + lib + "; }"
	}
	o := new(outcome)
	data := storePath.ReplaceAll(eval(t, "import ./nix/tests/eval.nix "+arg), []byte("/nix/store/00000000000000000000000000000000-"))
	if err := json.Unmarshal(data, o); err != nil {
		t.Fatal(err)
	}
	return o
}

// unitLines returns the lines of a unit file that NixOS has to have: all but
// comments, sections and what NixOS says by links, with programs by their
// names alone.
func unitLines(text string) []string {
	var list []string
	install := false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			install = line == "[Install]"
		} else if line != "" && !strings.HasPrefix(line, "#") && !install {
			list = append(list, program.ReplaceAllString(line, "$1"))
		}
	}
	slices.Sort(list)
	return list
}

// program is the directory of a program, ours or another's, here or in a store.
var program = regexp.MustCompile(`/(?:usr|(?:[^ =]*/)?store/[^ /]+)/bin/([a-z-]+)`)

// differs are the settings in which NixOS has something else, by unit: paths
// of others' data.
var differs = map[string][]string{
	"novnc.service":  {"ExecStart="},
	"qdrant.service": {"Environment=QDRANT__SERVICE__STATIC_CONTENT_DIR="},
}

// checkUnits complains where what NixOS makes of a unit lacks a line of it.
func checkUnits(t *testing.T, units map[string]string, wanted map[string][]string, exact bool) {
	t.Helper()
	seen := 0
	for _, name := range names.Units {
		data, err := os.ReadFile(filepath.Join(root, "units", name))
		if err != nil {
			continue // an alias
		}
		have, ok := units[name]
		if !ok {
			if name != "blockchain-witness.service" { // needs witnesses
				t.Errorf("%s is not on NixOS", name)
			}
			continue
		}
		seen++
		trim := func(lines []string) []string {
			return slices.DeleteFunc(lines, func(line string) bool {
				return slices.ContainsFunc(differs[name], func(prefix string) bool { return strings.HasPrefix(line, prefix) })
			})
		}
		want, got := trim(unitLines(string(data))), trim(unitLines(have))
		for _, line := range want {
			if !slices.Contains(got, line) {
				t.Errorf("%s on NixOS lacks %s", name, line)
			}
		}
		for _, line := range got {
			if exact && !slices.Contains(want, line) {
				t.Errorf("%s on NixOS has %s too", name, line)
			}
		}
		var by []string
		for line := range strings.Lines(string(data)) {
			if v, ok := strings.CutPrefix(strings.TrimSpace(line), "WantedBy="); ok {
				by = append(by, v)
			}
		}
		if wanted != nil && !slices.Equal(by, wanted[name]) {
			t.Errorf("%s on NixOS is wanted by %v, here by %v", name, wanted[name], by)
		}
	}
	if seen < 20 {
		t.Errorf("%d units", seen)
	}
}

func checkHost(t *testing.T, h *host) {
	t.Helper()
	if len(h.Failed) > 0 {
		t.Errorf("assertions: %q", h.Failed)
	}
	// One map names a unit of ours alone that NixOS makes: what is said of its
	// own, such as libvirtd.service, is not among them.
	checkUnits(t, h.Units, h.Wanted, true)
	for alias, unit := range map[string]string{"openvswitch.service": "ovs-vswitchd", "ovsdb-server.service": "ovsdb"} {
		if !slices.Contains(h.Aliases[unit], alias) {
			t.Errorf("%s is no alias of %s", alias, unit)
		}
	}
	// Users, groups and directories are the package's.
	sysusers, err := os.ReadFile(filepath.Join(root, "units/sysusers.d/ghostbridge.conf"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(sysusers)) {
		f := strings.Fields(line)
		if f[0] == "u" && (!slices.Contains(h.Users, f[1]) || !slices.Contains(h.Groups, f[1])) || f[0] == "g" && !slices.Contains(h.Groups, f[1]) {
			t.Errorf("not on NixOS: %s", line)
		}
	}
	tmpfiles, err := os.ReadFile(filepath.Join(root, "units/tmpfiles.d/ghostbridge.conf"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(tmpfiles)) {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "#") && !slices.Contains(h.Tmpfiles, line) {
			t.Errorf("not on NixOS: %s", line)
		}
	}
	if !slices.Contains(h.Tmpfiles, "h /work - - - - +C") {
		t.Errorf("/work is copied on write: %q", h.Tmpfiles)
	}
	for _, name := range []string{"ovs-status.sh", "query-blockchain.sh", "test-dbus.sh", "writers.json", "ovs.json"} {
		if !slices.Contains(h.Etc, "ghostbridge/"+name) {
			t.Errorf("no /etc/ghostbridge/%s", name)
		}
	}
	// The file systems of the README.
	for dir, subvolume := range map[string]string{
		"/": "@", "/home": "@home", "/overlay": "@overlay", "/work": "@work",
		names.TimingDir: names.TimingSubvolume, names.VectorsDir: names.VectorsSubvolume,
	} {
		if fs := h.FileSystems[dir]; fs.FSType != "btrfs" || !slices.Contains(fs.Options, "subvol="+subvolume) || !slices.Contains(fs.Options, "compress=zstd:3") {
			t.Errorf("%s: %+v", dir, fs)
		}
	}
	// What it listens on.
	if got := fmt.Sprintf("%s:%d", h.Prometheus.ListenAddress, h.Prometheus.Port); got != fmt.Sprintf("127.0.0.1:%d", names.PrometheusPort) {
		t.Errorf("Prometheus on %s", got)
	}
	if s := h.Grafana.Settings.Server; fmt.Sprintf("%s:%d", s.HTTPAddr, s.HTTPPort) != fmt.Sprintf("127.0.0.1:%d", names.GrafanaPort) {
		t.Errorf("Grafana on %+v", s)
	}
	if s := h.Grafana.Settings.Security.SecretKey; !strings.HasPrefix(s, "$__file{") {
		t.Errorf("Grafana's key is in its configuration: %q", s)
	}
	if d := h.Grafana.Provision.Datasources.Settings.Datasources; len(d) != 1 || d[0].Type != "prometheus" || d[0].UID != "ghostbridge-prometheus" ||
		d[0].URL != fmt.Sprintf("http://127.0.0.1:%d", names.PrometheusPort) {
		t.Errorf("Grafana's sources: %+v", d)
	}
	if p := h.Grafana.Provision.Dashboards.Settings.Providers; len(p) != 1 {
		t.Errorf("Grafana's dashboards: %+v", p)
	} else if _, err := os.Stat(filepath.Join(root, "packaging", p[0].Options.Path[strings.LastIndex(p[0].Options.Path, "/monitoring/"):], "ghostbridge.json")); err != nil {
		t.Error(err)
	}
	checkGuests(t, h)
	for kind, packages := range map[string][]string{"the bus": h.DBusPackages, "the system": h.SystemPackages} {
		if !slices.Contains(packages, "ghostbridge") {
			t.Errorf("%s has not our package: %q", kind, packages)
		}
	}
	if !strings.Contains(h.NoVNC, "display0: 127.0.0.1:5900\n") {
		t.Errorf("noVNC's displays: %q", h.NoVNC)
	}
}

// checkGuests looks at what puts virtual machines and containers on the bridges,
// and at what would keep them from it.
func checkGuests(t *testing.T, h *host) {
	t.Helper()
	for _, b := range []string{names.UplinkBridge, names.InternalBridge} {
		for _, dir := range []string{"", "autostart/"} {
			file := "/var/lib/libvirt/qemu/networks/" + dir + b + ".xml"
			for _, part := range []string{"<name>" + b + "</name>", "<bridge name='" + b + "'/>", "<virtualport type='openvswitch'/>"} {
				if !strings.Contains(h.Libvirt[file], part) {
					t.Errorf("%s has not %s:\n%s", file, part, h.Libvirt[file])
				}
			}
		}
	}
	if !strings.Contains(h.LXC, "lxc.net.0.link = "+names.InternalBridge+"\n") {
		t.Errorf("LXC: %s", h.LXC)
	}
	if p := h.Incus.Profiles; len(p) != 1 || p[0].Name != "default" || p[0].Devices["eth0"]["parent"] != names.InternalBridge || p[0].Devices["eth0"]["nictype"] != "bridged" {
		t.Errorf("Incus: %+v", p)
	}
	// Its policy would drop what guests forward.
	if h.Docker["ip-forward-no-drop"] != true {
		t.Errorf("Docker: %v", h.Docker)
	}
}

func TestHost(t *testing.T) {
	t.Run("stand-ins", func(t *testing.T) {
		o := evaluate(t, "")
		checkHost(t, &o.Host)
		checkModules(t, o)
	})
	if nixpkgs != "" {
		t.Run("nixpkgs", testNixpkgs)
	}
}

// checkModules is about the modules apart from the README's host.
func checkModules(t *testing.T, o *outcome) {
	t.Helper()
	if len(o.Broken) < 20 {
		t.Errorf("%d broken configurations", len(o.Broken))
	}
	said := make(map[string]bool)
	for name, c := range o.Broken {
		found := false
		for _, message := range c.Failed {
			said[message] = true
			found = found || strings.Contains(message, c.Says)
		}
		if !found {
			t.Errorf("%s: %q, want %q", name, c.Failed, c.Says)
		}
	}
	// Each assertion has a configuration that breaks it.
	asserted := 0
	for _, f := range files(t) {
		if data, err := os.ReadFile(f); err == nil && strings.Contains(f, "nix/ghostbridge/") {
			asserted += bytes.Count(data, []byte("assertion = "))
		}
	}
	if len(said) < asserted {
		t.Errorf("%d assertions, and %d that were seen to fail", asserted, len(said))
	}
	for name, refused := range o.Refused {
		if !refused {
			t.Errorf("%s is taken", name)
		}
	}
	checkInQdrant(t, o)
	for name, c := range o.Alone {
		if len(c.Units)+len(c.Etc)+len(c.Failed) > 0 {
			t.Errorf("%s does something though nothing is enabled: %+v", name, c)
		}
	}
	for kind, failed := range map[string]map[string][]string{"module": o.Flake.Modules, "host": o.Flake.Hosts} {
		if len(failed) == 0 {
			t.Errorf("the flake has no %s", kind)
		}
		for name, f := range failed {
			if len(f) > 0 {
				t.Errorf("%s %s of the flake: %q", kind, name, f)
			}
		}
	}
	want := []string{"checks", "devShells", "formatter", "nixosConfigurations", "nixosModules", "overlays", "packages"}
	if !slices.Equal(o.Flake.Outputs, want) || !slices.Equal(o.Flake.Systems["nixosConfigurations"], []string{"ghostbridge"}) {
		t.Errorf("the flake has %q: %q", o.Flake.Outputs, o.Flake.Systems)
	}
	if len(o.Options) < 30 {
		t.Errorf("%d options", len(o.Options))
	}
	for _, opt := range o.Options {
		if opt.Description == "" || !opt.Typed || !opt.HasDefault {
			t.Errorf("%s: %+v", opt.Path, opt)
		}
		if strings.HasSuffix(opt.Path, ".enable") && !strings.HasPrefix(opt.Description, "Whether ") {
			t.Errorf("%s: %q", opt.Path, opt.Description)
		}
	}
}

// checkInQdrant compares with the drop-in that the package has for it.
func checkInQdrant(t *testing.T, o *outcome) {
	t.Helper()
	for _, unit := range []string{"gb-vecsync@.service", "blockchain-search.service"} {
		dropin, err := os.ReadFile(filepath.Join(root, "units/drop-ins/qdrant", unit+".d", "qdrant.conf"))
		if err != nil {
			t.Fatal(err)
		}
		have := unitLines(o.InQdrant.Units[unit])
		for _, line := range unitLines(string(dropin)) {
			if env, ok := strings.CutPrefix(line, "Environment="); ok {
				if !strings.Contains(o.InQdrant.Environment, env+"\n") {
					t.Errorf("not in /etc/default/ghostbridge: %s", env)
				}
				continue
			}
			key, value, _ := strings.Cut(line, "=")
			found := slices.ContainsFunc(have, func(l string) bool {
				return l == line || key == "After" && strings.HasPrefix(l, "After=") && slices.Contains(strings.Fields(l[len("After="):]), value) ||
					value == "no" && l == key+"=" // what toString makes of false
			})
			if !found {
				t.Errorf("%s on NixOS, the index in Qdrant, has not %s: %q", unit, line, have)
			}
		}
	}
}

// The bridges of the README's host are what gb-ovs-setup takes, and NAT is what
// it would print.
func TestBridges(t *testing.T) {
	var h host
	if err := json.Unmarshal(eval(t, "(import ./nix/tests/eval.nix { }).host"), &h); err != nil {
		t.Fatal(err)
	}
	h.OVS["nat"] = map[string]any{"bridge": names.InternalBridge, "network": names.InternalNet, "out": names.UplinkBridge}
	config, err := json.Marshal(h.OVS)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(tool(t), names.GBOVSSetup), "render", "nftables", "--config", "-")
	cmd.Stdin = bytes.NewReader(config)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s\n%s", err, stderr.Bytes(), config)
	}
	want := rules(string(out))
	if got := rules(h.Nftables); !slices.Equal(got, want) {
		t.Errorf("NAT on NixOS:\n%s\ngb-ovs-setup:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for _, b := range []string{names.UplinkBridge, names.InternalBridge} {
		if bridges, _ := h.OVS["bridges"].(map[string]any); bridges[b] == nil {
			t.Errorf("no %s: %s", b, config)
		}
	}
	if h.OVS["hw_offload"] != false {
		t.Errorf("hw_offload: %s", config)
	}
}

// rules are the lines of the table, without what is around it.
func rules(text string) []string {
	var list []string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "#") && line != "table inet ghostbridge" && line != "delete table inet ghostbridge" {
			list = append(list, line)
		}
	}
	return list
}

// After cp -r nix/ghostbridge/* /mnt/etc/nixos/ nothing is missing: the tree names
// no file outside of it.
func TestTreeIsComplete(t *testing.T) {
	copied := filepath.Join(t.TempDir(), "nixos")
	if err := os.CopyFS(copied, os.DirFS(filepath.Join(root, "nix/ghostbridge"))); err != nil {
		t.Fatal(err)
	}
	look := func(arg string) string {
		return string(storePath.ReplaceAll(eval(t, "let e = import ./nix/tests/eval.nix { "+arg+" }; in { inherit (e) host flake; }"), nil))
	}
	if there, here := look("tree = "+copied+";"), look(""); there != here {
		t.Errorf("copied:\n%s\nhere:\n%s", there, here)
	}
	for _, f := range []string{"configuration.nix", "disko.nix", "flake.nix", "hardware-configuration.nix", "INSTALL.md", "README.md",
		"modules/blockchain-storage.nix", "modules/dbus-orchestrator.nix", "modules/ghostbridge-ovs.nix", "modules/monitoring.nix", "modules/virtualization.nix"} {
		if _, err := os.Stat(filepath.Join(copied, f)); err != nil {
			t.Error(err)
		}
	}
	for _, f := range []string{"btrfs-snapshot.sh", "btrfs-vector-sync.sh"} {
		if info, err := os.Stat(filepath.Join(root, "nix/ghostbridge/modules/scripts", f)); err != nil || info.Mode().Perm()&0o111 == 0 {
			t.Errorf("%s can't be run: %v", f, err)
		}
	}
}

// The scripts of the README's tree do what the units do.
func TestScripts(t *testing.T) {
	for name, unit := range map[string]string{"btrfs-snapshot.sh": "btrfs-snapshot.service", "btrfs-vector-sync.sh": "btrfs-vector-sync.service"} {
		script, err := os.ReadFile(filepath.Join(root, "nix/ghostbridge/modules/scripts", name))
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join(root, "units", unit))
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(text), "ExecStart=/usr/bin/")
		start, _, _ := strings.Cut(rest, "\n")
		if want := "#!/bin/sh\nexec " + start + ` "$@"` + "\n"; string(script) != want {
			t.Errorf("%s:\n%swant\n%s", name, script, want)
		}
	}
}

var update = flag.Bool("update", false, "write nix/vendor-hash anew")

// The package asks for the Go of go.mod: buildGoModule lets Go fetch no other
// than nixpkgs' default, which may be older.
func TestGo(t *testing.T) {
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^go (\d+)\.(\d+)`).FindSubmatch(mod)
	if m == nil {
		t.Fatal("go.mod names no Go")
	}
	pkg, err := os.ReadFile(filepath.Join(root, "nix/package.nix"))
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf(`if lib.versionAtLeast go.version "%s.%s" then buildGoModule else buildGo%[1]s%[2]sModule`, m[1], m[2])
	if !strings.Contains(string(pkg), want) {
		t.Errorf("nix/package.nix has not: %s", want)
	}
}

// nix/vendor-hash is what go mod vendor leaves in the sources that the package
// is built from, as Nix hashes it; where there is a nixpkgs, its buildGoModule
// takes it.
func TestVendorHash(t *testing.T) {
	source := t.TempDir()
	for _, name := range []string{"go.mod", "go.sum", "cmd", "pkg"} {
		err := filepath.WalkDir(filepath.Join(root, name), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || strings.HasSuffix(path, "_test.go") {
				return err
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			to := filepath.Join(source, strings.TrimPrefix(path, root))
			if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
				return err
			}
			return os.WriteFile(to, data, 0o644)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	vendor := exec.Command("go", "mod", "vendor")
	vendor.Dir = source
	vendor.Env = append(os.Environ(), "GOWORK=off")
	if out, err := vendor.CombinedOutput(); err != nil {
		t.Fatalf("go mod vendor: %v\n%s", err, out)
	}
	// The archive has no modes but executable or not, and go mod vendor sets none.
	hash := command(t, t.TempDir())
	hash.Path, hash.Args = require.Tool(t, "nix-hash"), []string{"nix-hash", "--type", "sha256", filepath.Join(source, "vendor")}
	digits, err := hash.Output()
	if err != nil {
		t.Fatal(err)
	}
	sum, err := hex.DecodeString(strings.TrimSpace(string(digits)))
	if err != nil || len(sum) != 32 {
		t.Fatalf("nix-hash: %s", digits)
	}
	out := []byte("sha256-" + base64.StdEncoding.EncodeToString(sum) + "\n")
	file := filepath.Join(root, "nix", "vendor-hash")
	if *update {
		if err := os.WriteFile(file, out, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if have, err := os.ReadFile(file); err != nil || !bytes.Equal(have, out) {
		t.Errorf("nix/vendor-hash is %s, not %s (%v): go test ./integration/nix -run TestVendorHash -update", have, out, err)
	}
	if packaged() {
		t.Run("package", packageIsBuilt)
	}
}
