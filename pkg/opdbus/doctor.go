package opdbus

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/bus"
	"github.com/ghostbridge/ghostbridge/pkg/chain"
	"github.com/ghostbridge/ghostbridge/pkg/dbusjson"
	"github.com/ghostbridge/ghostbridge/pkg/hoststate"
	"github.com/ghostbridge/ghostbridge/pkg/names"
	"github.com/ghostbridge/ghostbridge/pkg/ovs"
	"github.com/ghostbridge/ghostbridge/pkg/subvol"
)

// States of a finding.
const (
	StateOK     = "ok"
	StateFailed = "failed"
)

// A Finding is what one check of a Doctor found.
type Finding struct {
	Check    string `json:"check"`
	State    string `json:"state"`
	Evidence string `json:"evidence"`         // what was seen, for people
	Remedy   string `json:"remedy,omitempty"` // what to do where it failed
}

// A Doctor looks over a host: what must hold for changes to be recorded, kept
// and found. It changes nothing.
type Doctor struct {
	Address    string // of the system bus
	LogDir     string
	PolicyFile string
	Spool      *Spool
	Tools      string // directory of our other tools; those of PATH if empty
	Root       string // of the host's files, "/" but in tests
}

// A Check is one of a Doctor's.
type Check struct {
	Name string
	DBus bool // belongs to the D-Bus part
	run  func(d *Doctor, ctx context.Context) (evidence string, err error)
	// Remedy where it fails.
	Remedy string
}

// Checks returns all checks, in the order in which they depend on each other.
func Checks() []Check {
	return []Check{
		{"bus", true, (*Doctor).checkBus, "systemctl start dbus.socket"},
		{"opdbus", true, (*Doctor).checkDaemon, "systemctl start op-dbus.service; journalctl -u op-dbus.service"},
		{"introspection", true, (*Doctor).checkIntrospection, "busctl introspect " + names.BusName + " " + names.BusObject},
		{"polkit", true, (*Doctor).checkPolkit, "install and start polkit: without it no change is authorised"},
		{"policy", true, (*Doctor).checkPolicy, "opdbus policy check " + names.PolicyFile},
		{"log", false, (*Doctor).checkLog, "gb-chain verify says what is wrong; keep the snapshots"},
		{"intents", false, (*Doctor).checkIntents, "opdbus intents list; look whether it was done, then: opdbus intents resolve ID --found done"},
		{"desired state", false, (*Doctor).checkState, "opdbus diff and opdbus changes show it; opdbus apply, or opdbus rollback"},
		{"spool", false, (*Doctor).checkSpool, "systemctl start blockchain-log.socket; opdbus serve then appends them"},
		{"bridges", false, (*Doctor).checkBridges, "gb-ovs-setup status; systemctl start ovs-bridge-setup.service"},
		{"snapshots", false, tool("gb-snap", "status", names.TimingDir), "systemctl start btrfs-snapshot.timer"},
		{"index", false, tool("gb-vecsync", "stats"), "systemctl start btrfs-vector-sync.path gb-vecsync.socket"},
		{"mounts", false, (*Doctor).checkMounts, "mount the three subvolumes of btrfs; btrfs property set DIR compression zstd"},
		{"boot loader", false, (*Doctor).checkBootLoader, "bootctl install"},
		{"SSH keys", false, (*Doctor).checkSSHKeys, "ssh-keygen -t ed25519 -f /etc/ssh/ssh_host_ed25519_key; remove ssh_host_dsa_key"},
		{"networkd", false, (*Doctor).checkNetworkd, "systemctl disable --now NetworkManager; systemctl enable --now systemd-networkd"},
		{"declarative", false, (*Doctor).checkNixOS, "NixOS keeps the whole configuration in .nix files; elsewhere nothing does"},
	}
}

// Run does one check.
func (d *Doctor) Run(ctx context.Context, c Check) Finding {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	evidence, err := c.run(d, ctx)
	f := Finding{Check: c.Name, State: StateOK, Evidence: Clean(evidence)}
	if err != nil {
		f.State, f.Evidence, f.Remedy = StateFailed, Clean(err.Error()), c.Remedy
	}
	return f
}

func (d *Doctor) connect(ctx context.Context) (*bus.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return bus.Connect(ctx, d.Address)
}

func (d *Doctor) checkBus(ctx context.Context) (string, error) {
	c, err := d.connect(ctx)
	if err != nil {
		return "", err
	}
	defer c.Close()
	list, err := c.Names(ctx, false)
	return fmt.Sprintf("%d names", len(list)), err
}

func (d *Doctor) checkDaemon(ctx context.Context) (string, error) {
	c, err := d.connect(ctx)
	if err != nil {
		return "", err
	}
	defer c.Close()
	status, err := daemonStatus(ctx, c)
	if err != nil {
		return "", err
	}
	if status["healthy"] != true {
		return "", fmt.Errorf("it is not healthy: %v", status["faults"])
	}
	return fmt.Sprintf("version %v, %v rules, log of %v events", status["version"], status["rules"], status["log_size"]), nil
}

// daemonStatus is what GetStatus answers.
func daemonStatus(ctx context.Context, c *bus.Conn) (map[string]any, error) {
	b, err := c.Call(ctx, bus.Call{Name: names.BusName, Path: names.BusObject, Interface: names.BusInterface + ".Manager", Member: "GetStatus"})
	if err != nil {
		return nil, err
	}
	status := map[string]any{}
	for _, e := range b.Values[0].(dbusjson.Dict) {
		status[e.Key.(string)] = e.Value.(dbusjson.Variant).Value
	}
	return status, nil
}

// checkState looks whether the host is as the desired state in force says, and
// whether the last change ended well.
func (d *Doctor) checkState(ctx context.Context) (string, error) {
	c, err := d.connect(ctx)
	if err != nil {
		return "", err
	}
	defer c.Close()
	status, err := daemonStatus(ctx, c)
	if err != nil {
		return "", err
	}
	last, err := c.Get(ctx, names.BusName, names.BusObject, names.BusInterface+".Manager", "LastApply")
	if err != nil {
		return "", err
	}
	change := map[string]any{}
	if dict, ok := last.Value.(dbusjson.Dict); ok {
		for _, e := range dict {
			change[e.Key.(string)] = e.Value.(dbusjson.Variant).Value
		}
	}
	switch {
	case change["result"] == hoststate.ResultFailed:
		return "", fmt.Errorf("change %v could not be taken back in full", change["id"])
	case status["drift"] != uint32(0):
		return "", fmt.Errorf("%v differences from the desired state in force", status["drift"])
	case status["pending"] != "":
		return fmt.Sprintf("change %v is under way, or awaits its confirmation", status["pending"]), nil
	case change["id"] == nil:
		return "none was applied", nil
	}
	return fmt.Sprintf("change %v: %v, and nothing has drifted", change["id"], change["result"]), nil
}

func (d *Doctor) checkIntrospection(ctx context.Context) (string, error) {
	c, err := d.connect(ctx)
	if err != nil {
		return "", err
	}
	defer c.Close()
	n, err := c.Introspect(ctx, names.BusName, names.BusObject, false)
	if err != nil {
		return "", err
	}
	var have []string
	for i := range interfaces {
		if interfaces[i].path != names.BusObject {
			continue
		}
		if n.Interface(interfaces[i].name) == nil {
			return "", fmt.Errorf("%s has no interface %s", names.BusObject, interfaces[i].name)
		}
		have = append(have, strings.TrimPrefix(interfaces[i].name, names.BusInterface+"."))
	}
	return strings.Join(have, ", "), nil
}

func (d *Doctor) checkPolkit(ctx context.Context) (string, error) {
	c, err := d.connect(ctx)
	if err != nil {
		return "", err
	}
	defer c.Close()
	list, err := c.Names(ctx, false)
	if err != nil {
		return "", err
	}
	for _, n := range list {
		if n.Name == polkitName {
			if n.Owner == "" {
				return "starts when it is asked", nil
			}
			return "runs as " + n.Owner, nil
		}
	}
	return "", errors.New(polkitName + " is not on the bus")
}

func (d *Doctor) checkPolicy(context.Context) (string, error) {
	p, err := LoadPolicy(d.PolicyFile)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d rules, revision %.12s", len(p.Rules), p.Revision), nil
}

func (d *Doctor) checkLog(ctx context.Context) (string, error) {
	live, frozen, err := chain.Writing(d.LogDir)
	if err != nil {
		return "", err
	}
	r, err := chain.Verify(ctx, os.DirFS(d.LogDir), chain.VerifyOptions{Live: live, Frozen: frozen})
	if err != nil {
		return "", err
	}
	if !r.OK {
		return "", fmt.Errorf("%d faults, the first: %s", len(r.Faults), r.Faults[0].Detail)
	}
	return fmt.Sprintf("%d events verified, root %s", r.Size, r.Root), nil
}

func (d *Doctor) checkIntents(ctx context.Context) (string, error) {
	now := time.Now()
	list, err := Unresolved(ctx, os.DirFS(d.LogDir), now.Add(-UnresolvedSince), now)
	if err != nil {
		return "", err
	}
	if len(list) == 0 {
		return "each intent of the last seven days has its outcome, or was resolved by a person", nil
	}
	o := list[0]
	return "", fmt.Errorf("%d intents have no outcome: it is unknown whether they were done; the first: #%d %s %s by %s", len(list), o.Index, o.Time.Format(time.RFC3339), o.Message, o.Actor)
}

func (d *Doctor) checkSpool(context.Context) (string, error) {
	if n := d.Spool.Size(); n > 0 {
		return "", fmt.Errorf("%d bytes of events wait for the log in %s", n, d.Spool.Dir)
	}
	return "no event waits", nil
}

// tool makes a check of one of our tools' own verdict, its exit code.
func tool(name string, args ...string) func(*Doctor, context.Context) (string, error) {
	return func(d *Doctor, ctx context.Context) (string, error) {
		out, said, err := d.ask(ctx, name, args...)
		if err != nil {
			return "", fmt.Errorf("%w: %s", err, firstLine(said+out))
		}
		return firstLine(out), nil
	}
}

// ask runs one of our other tools, and returns what it printed and said.
func (d *Doctor) ask(ctx context.Context, name string, args ...string) (stdout, stderr string, err error) {
	path := filepath.Join(d.Tools, name)
	if _, err := os.Stat(path); d.Tools == "" || err != nil {
		if path, err = exec.LookPath(name); err != nil {
			return "", "", err
		}
	}
	cmd := exec.CommandContext(ctx, path, args...)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return out.String(), said.String(), fmt.Errorf("%s: %w", name, err)
	}
	return out.String(), said.String(), nil
}

func (d *Doctor) checkBridges(ctx context.Context) (string, error) {
	out, said, err := d.ask(ctx, names.GBOVSSetup, "status", "--json", "--exit-code")
	var st ovs.Status
	if jerr := json.Unmarshal([]byte(out), &st); jerr != nil {
		if err == nil {
			err = fmt.Errorf("%s status: %w", names.GBOVSSetup, jerr)
		}
		return "", fmt.Errorf("%w: %s", err, firstLine(said))
	}
	switch {
	case len(st.Problems) > 0:
		return "", errors.New(strings.Join(st.Problems, "; "))
	case err != nil || !st.Healthy:
		return "", errors.Join(errors.New("not as they should be"), err)
	}
	var list []string
	for _, b := range st.Bridges {
		list = append(list, strings.Join(append([]string{b.Name}, b.Addresses...), " "))
	}
	if list == nil {
		list = []string{"none, and none is wanted"}
	}
	return fmt.Sprintf("%s (Open vSwitch %s)", strings.Join(list, ", "), st.Version), nil
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}

func (d *Doctor) file(path string) string { return filepath.Join(d.Root, path) }

// workSubvolume is the one whose files are written in place, where there is one.
const workSubvolume = "@work"

func (d *Doctor) checkMounts(context.Context) (string, error) {
	data, err := os.ReadFile(d.file("/proc/self/mountinfo"))
	if err != nil {
		return "", err
	}
	found := map[string]string{} // mount point to what is wrong with it, "" if nothing
	for s := bufio.NewScanner(bytes.NewReader(data)); s.Scan(); {
		before, after, ok := strings.Cut(s.Text(), " - ")
		f, g := strings.Fields(before), strings.Fields(after)
		if !ok || len(f) < 6 || len(g) < 3 {
			continue
		}
		if g[0] != "btrfs" {
			found[f[4]] = "is " + g[0] + ", not btrfs"
			continue
		}
		// For one btrfs the options of its first mount hold; what a directory
		// says of itself comes before them.
		p, err := subvol.System{}.Property(d.file(f[4]))
		switch {
		case filepath.Base(f[3]) == workSubvolume:
			if err != nil {
				return "", err
			}
			if !p.NoCopy {
				return "", fmt.Errorf("%s is %s, and its files are copied on write (chattr +C, while it is empty)", f[4], workSubvolume)
			}
		case p.NoCopy:
			found[f[4]] = "is written in place: neither compressed nor checked"
		case p.Compression == "" && !strings.Contains(","+g[2], ",compress"):
			found[f[4]] = "is not compressed"
		default:
			found[f[4]] = ""
		}
	}
	for _, dir := range []string{names.TimingDir, names.VectorsDir} {
		if wrong, ok := found[dir]; !ok {
			return "", fmt.Errorf("%s is not mounted", dir)
		} else if wrong != "" {
			return "", fmt.Errorf("%s %s", dir, wrong)
		}
	}
	var saved []string
	for _, dir := range []string{names.TimingDir, names.VectorsDir} {
		saved = append(saved, d.compression(dir))
	}
	return "btrfs, with compression; " + strings.Join(saved, "; "), nil
}

// compression says what compression makes of a directory's subvolume.
func (d *Doctor) compression(dir string) string {
	c, err := subvol.System{}.Compression(d.file(dir))
	switch {
	case err != nil:
		return fmt.Sprintf("what it saves in %s is not known: %v", dir, err)
	case c.Data == 0:
		return dir + " is empty"
	}
	return fmt.Sprintf("%s: %.1f MB of data take %.1f MB, %d%%", dir, float64(c.Data)/1e6, float64(c.Disk)/1e6, c.Disk*100/c.Data)
}

// loaderInfo is the EFI variable in which a boot loader says who it is
// (systemd's Boot Loader Interface).
const loaderInfo = "/sys/firmware/efi/efivars/LoaderInfo-4a67b082-0a4c-41fb-b6c7-cf29bb845a59"

func (d *Doctor) checkBootLoader(context.Context) (string, error) {
	data, err := os.ReadFile(d.file(loaderInfo))
	if err != nil {
		return "", fmt.Errorf("the boot loader does not say that it is systemd-boot: %w", err)
	}
	name := strings.ReplaceAll(string(data[min(4, len(data)):]), "\x00", "") // 4 bytes of attributes, then UTF-16
	if !strings.HasPrefix(name, "systemd-boot") {
		return "", fmt.Errorf("the boot loader is %q", name)
	}
	return name, nil
}

func (d *Doctor) checkSSHKeys(context.Context) (string, error) {
	keys, err := filepath.Glob(d.file("/etc/ssh/ssh_host_*_key"))
	if err != nil {
		return "", err
	}
	if len(keys) == 0 {
		return "no SSH server", nil
	}
	ed25519 := false
	for _, k := range keys {
		switch filepath.Base(k) {
		case "ssh_host_dsa_key":
			return "", fmt.Errorf("%s exists", k)
		case "ssh_host_ed25519_key":
			ed25519 = true
		}
	}
	if !ed25519 {
		return "", errors.New("no Ed25519 host key")
	}
	return fmt.Sprintf("%d host keys, Ed25519 among them, no DSA", len(keys)), nil
}

func (d *Doctor) checkNetworkd(ctx context.Context) (string, error) {
	c, err := d.connect(ctx)
	if err != nil {
		return "", err
	}
	defer c.Close()
	list, err := c.Names(ctx, false)
	if err != nil {
		return "", err
	}
	owned := map[string]bool{}
	for _, n := range list {
		owned[n.Name] = n.Owner != ""
	}
	switch {
	case owned["org.freedesktop.NetworkManager"]:
		return "", errors.New("NetworkManager runs")
	case !owned["org.freedesktop.network1"]:
		return "", errors.New("systemd-networkd does not run")
	}
	return "systemd-networkd runs, NetworkManager does not", nil
}

func (d *Doctor) checkNixOS(context.Context) (string, error) {
	if _, err := os.Stat(d.file("/etc/NIXOS")); err != nil {
		return "", errors.New("this is not NixOS")
	}
	return "NixOS", nil
}
