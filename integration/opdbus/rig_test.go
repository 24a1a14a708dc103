//go:build linux

// Package opdbus tests the daemon on a private system bus with the policy that
// the product ships, as root and as a user without privileges.
package opdbus

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/privatebus"
	"github.com/ghostbridge/ghostbridge/integration/require"
	"github.com/ghostbridge/ghostbridge/integration/tools"
	"github.com/ghostbridge/ghostbridge/pkg/names"
	"github.com/ghostbridge/ghostbridge/pkg/opdbus"
)

func TestMain(m *testing.M) { tools.Main(m) }

const nobody = 65534

// A rig is a bus with the daemon on it.
type rig struct {
	t       *testing.T
	dir     string
	address string
	daemon  *exec.Cmd
	said    *bytes.Buffer
	env     []string
	within  []string // command that starts the daemon, such as ip netns exec NS
}

// newRig starts a bus, the log's daemon, a lamp, and polkit that authorises what
// allow says; the daemon is not started yet.
func newRig(t *testing.T, policy string) *rig {
	t.Helper()
	require.Root(t)
	shipped, err := filepath.Abs("../../units/dbus-1/system.d/" + names.BusName + ".conf")
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, dir: privatebus.OpenDir(t), address: privatebus.Start(t, privatebus.Options{Policies: []string{shipped}})}
	r.env = []string{"GB_BUS=" + r.address, "DBUS_SYSTEM_BUS_ADDRESS=" + r.address, "GB_LOG=" + r.dir + "/log", "GB_KEYS=" + r.dir + "/keys", "GB_POLICY=" + r.dir + "/policy.json",
		"GB_APPROVALS=" + r.dir + "/approvals", "GB_STATE=" + r.dir + "/state", "GB_SPOOL=" + r.dir + "/spool", "GB_CHAIN_SOCKET=" + r.dir + "/chain.sock", "GB_SEARCH_SOCKET=" + r.dir + "/search.sock", "GB_WEB_USER=root", "GB_APPROVERS=" + r.dir + "/approvers", "TZ=UTC"}
	r.policy(policy)
	r.must("gb-chain", "init", "--origin", "test.example/log")
	privatebus.Run(t, "", r.env, tools.Path(t, "gb-chain"), "serve", "--writers", "")
	r.wait("the log's daemon", func() bool { _, err := os.Stat(r.dir + "/chain.sock"); return err == nil })
	lamp, err := filepath.Abs("../../cmd/opdbus/testdata/lamp.py")
	if err != nil {
		t.Fatal(err)
	}
	privatebus.Run(t, "ready", nil, privatebus.Python, lamp, r.address)
	return r
}

func (r *rig) policy(text string) {
	r.t.Helper()
	if err := os.WriteFile(r.dir+"/policy.new", []byte(text), 0o644); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Rename(r.dir+"/policy.new", r.dir+"/policy.json"); err != nil {
		r.t.Fatal(err)
	}
}

// start starts the daemon and waits until it has its name.
func (r *rig) start() {
	r.t.Helper()
	argv := append(slices.Clone(r.within), tools.Path(r.t, "opdbus"), "serve")
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), r.env...)
	r.said = &bytes.Buffer{}
	cmd.Stderr = r.said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.daemon = cmd
	r.t.Cleanup(func() {
		if cmd.ProcessState == nil {
			cmd.Process.Signal(syscall.SIGTERM)
			if err := cmd.Wait(); err != nil {
				r.t.Errorf("opdbus serve: %v", err)
			}
		}
		if r.t.Failed() {
			r.t.Logf("the daemon said:\n%s", r.said)
		}
	})
	privatebus.WaitName(r.t, r.address, names.BusName)
}

func (r *rig) wait(what string, done func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("%s did not come", what)
		}
	}
}

// run runs a program, one of ours by its name, as a user.
func (r *rig) run(uid uint32, argv ...string) (string, error) {
	r.t.Helper()
	if !strings.Contains(argv[0], "/") && (argv[0] == "opdbus" || strings.HasPrefix(argv[0], "gb-")) {
		argv[0] = tools.Path(r.t, argv[0])
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), r.env...)
	asUser(cmd, uid)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// asUser has cmd run as a user without privileges, if uid is not 0.
func asUser(cmd *exec.Cmd, uid uint32) {
	if uid != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		cmd.Dir = "/"
	}
}

func (r *rig) must(argv ...string) string {
	r.t.Helper()
	out, err := r.run(0, argv...)
	if err != nil {
		r.t.Fatalf("%v: %v\n%s", argv, err, out)
	}
	return out
}

// busctl, or dbus-send, calls a method of the daemon as a user.
func (r *rig) busctl(uid uint32, iface, member string, args ...string) (string, error) {
	r.t.Helper()
	if len(args) == 0 || strings.Trim(args[0], "so") == "" {
		// busctl keeps to itself what an error says.
		argv := []string{"dbus-send", "--bus=" + r.address, "--print-reply", "--reply-timeout=60000", "--dest=" + names.BusName, names.BusObject, names.BusInterface + "." + iface + "." + member}
		if len(args) > 0 {
			for i, c := range args[0] {
				argv = append(argv, map[rune]string{'s': "string:", 'o': "objpath:"}[c]+args[i+1])
			}
		}
		return r.run(uid, argv...)
	}
	return r.run(uid, append([]string{"busctl", "--address=" + r.address, "--timeout=60", "call", names.BusName, names.BusObject, names.BusInterface + "." + iface, member}, args...)...)
}

// status returns GetStatus as a user without privileges sees it, "healthy true"
// among it.
func (r *rig) status() (string, error) {
	r.t.Helper()
	out, err := r.busctl(nobody, "Manager", "GetStatus")
	return strings.Join(strings.Fields(strings.NewReplacer("variant", "", "boolean", "", `"`, "", "string", "").Replace(out)), " "), err
}

// switchLamp calls the lamp through the daemon.
func (r *rig) switchLamp(uid uint32, on string) (string, error) {
	r.t.Helper()
	return r.busctl(uid, "Bus", "Call", "sossss", "org.example.Lamp", "/org/example/Lamp", "org.example.Lamp", "Switch", "b", "["+on+"]")
}

// allow says what polkit authorises from now on.
func (r *rig) allow(actions ...string) {
	r.t.Helper()
	list := "@as []"
	if len(actions) > 0 {
		list = "['" + strings.Join(actions, "','") + "']"
	}
	r.must("gdbus", "call", "--address", r.address, "--dest", "org.freedesktop.PolicyKit1", "--object-path", "/org/freedesktop/PolicyKit1/Authority", "--method", "org.freedesktop.DBus.Mock.SetAllowed", list)
}

type logged struct {
	I    int64
	Type string
	Data struct {
		ID        string
		OK        bool
		Owner     string
		Error     string
		Principal struct {
			UID      uint32
			Entrance string
		}
	}
}

// events returns the events of source opdbus from index from on.
func (r *rig) events(from int64) (list []logged) {
	r.t.Helper()
	out := r.must("gb-chain", "query", "--json", "--source", "opdbus", "--source", "mcp")
	for line := range strings.Lines(out) {
		if !strings.HasPrefix(line, "{") {
			continue
		}
		var e logged
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			r.t.Fatalf("%s: %v", line, err)
		}
		if e.I >= from {
			list = append(list, e)
		}
	}
	return list
}

// settled is events, when each intent has its outcome: who called may have the
// answer a moment earlier.
func (r *rig) settled(from int64) (list []logged) {
	r.t.Helper()
	r.wait("the outcomes", func() bool {
		open := 0
		list = r.events(from)
		for _, e := range list {
			switch e.Type {
			case opdbus.EventIntent:
				open++
			case opdbus.EventOutcome:
				open--
			}
		}
		return open == 0
	})
	return list
}

// types returns the types of what was recorded since the call before.
func (r *rig) types(mark *int64) string {
	r.t.Helper()
	var list []string
	for _, e := range r.settled(*mark) {
		list = append(list, strings.TrimPrefix(e.Type, "opdbus."))
		*mark = e.I + 1
	}
	return strings.Join(list, " ")
}

const lampRule = `{"version":1,"per_minute":100000,"rules":[{"id":"lamp","clients":["cli","dbus"],"name":"org.example.Lamp","effect":"allow"}]}`

func (r *rig) expect(what, out string, err error, ok bool, text string) {
	r.t.Helper()
	if (err == nil) != ok || !strings.Contains(out, text) {
		r.t.Errorf("%s: %v\n%swant %s", what, err, out, fmt.Sprintf("success %v and %q", ok, text))
	}
}
