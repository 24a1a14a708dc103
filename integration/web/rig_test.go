//go:build linux

// Package web tests gb-web as people and programs use it: in Chromium, over
// HTTP, under load. Everything beside it is real: the log and its daemon, the
// index and its search, opdbus on a bus, btrfs snapshots, Open vSwitch.
package web

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/loopbtrfs"
	"github.com/ghostbridge/ghostbridge/integration/privatebus"
	"github.com/ghostbridge/ghostbridge/integration/require"
	"github.com/ghostbridge/ghostbridge/integration/tools"
	"github.com/ghostbridge/ghostbridge/integration/vswitch"
	"github.com/ghostbridge/ghostbridge/pkg/chain"
	"github.com/ghostbridge/ghostbridge/pkg/names"
)

func TestMain(m *testing.M) { tools.Main(m) }

const nobody = 65534

// parts say what stands beside gb-web and the log.
type parts struct {
	bus, snapshots, network, search bool
	events                          int // in the log at the start
	doctor                          bool
}

// A rig is gb-web with what it shows.
type rig struct {
	t       *testing.T
	dir     string
	log     string
	address string // of the bus, "" if there is none
	url     string
	listen  string
	env     []string
	web     *exec.Cmd
	said    *bytes.Buffer
	db      string // of the switch
	flags   []string
}

const policyRules = `{"version":1,"rules":[
 {"id":"lamp-through-web","clients":["web"],"name":"org.example.Lamp","members":["Switch"],"effect":"approve"},
 {"id":"lamp-set","clients":["dbus"],"kind":"set","name":"org.example.Lamp","effect":"approve","ttl":"30m"},
 {"id":"lamp-blinks","clients":["web","mcp"],"name":"org.example.Lamp","members":["Blink"],"effect":"allow"},
 {"id":"agents-ask","clients":["mcp"],"name":"org.freedesktop.systemd1","members":["RestartUnit","StopUnit"],"effect":"approve","four_eyes":true},
 {"id":"power","clients":["dbus"],"name":"org.freedesktop.login1","members":["Reboot","PowerOff"],"effect":"allow"},
 {"id":"lamp","clients":["dbus"],"name":"org.example.Lamp","effect":"approve"}]}`

func newRig(t *testing.T, p parts) *rig {
	t.Helper()
	require.Root(t)
	r := &rig{t: t, dir: privatebus.OpenDir(t)}
	r.log = r.dir + "/log"
	if p.snapshots {
		mnt := loopbtrfs.Mount(t, loopbtrfs.Options{})
		for _, argv := range [][]string{{"btrfs", "subvolume", "create", mnt + "/timing"}, {"mkdir", mnt + "/snapshots"}} {
			if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %v\n%s", argv, err, out)
			}
		}
		r.log = mnt + "/timing/log"
		r.env = append(r.env, "GB_SNAPSHOTS="+mnt+"/snapshots")
		r.flags = append(r.flags, "--source", mnt+"/timing")
	} else {
		r.env = append(r.env, "GB_SNAPSHOTS=")
	}
	r.env = append(r.env, "GB_LOG="+r.log, "GB_KEYS="+r.dir+"/keys", "GB_CHAIN_SOCKET="+r.dir+"/chain.sock", "GB_SEARCH_SOCKET="+r.dir+"/search.sock", "GB_INDEX="+r.dir+"/index.db", "GB_CURSOR="+r.dir+"/index.db.cursor",
		"GB_POLICY="+r.dir+"/policy.json", "GB_APPROVALS="+r.dir+"/approvals", "GB_APPROVERS="+r.dir+"/approvers", "GB_SPOOL="+r.dir+"/spool", "GB_STATE="+r.dir+"/state", "GB_WEB_USER=root",
		"GB_WEB_SOCKET="+r.dir+"/web.sock", "GB_WEB_SESSIONS="+r.dir+"/sessions", "GB_RUN="+r.dir+"/run", "GB_WITNESSES="+r.dir+"/witness", "TZ=UTC")
	if !p.doctor {
		r.env = append(r.env, "GB_WEB_NO_DOCTOR=1")
	}
	if err := os.MkdirAll(r.dir+"/run", 0o755); err != nil {
		t.Fatal(err)
	}
	r.must("gb-chain", "init", "--origin", "host.example/log", "--recovery-file", r.dir+"/recovery")
	privatebus.Run(t, "", r.env, tools.Path(t, "gb-chain"), "serve", "--writers", "")
	r.wait("the log's daemon", func() bool { _, err := os.Stat(r.dir + "/chain.sock"); return err == nil })
	if p.events > 0 {
		r.append(strings.Join(story(p.events), ""))
		r.wait("signatures", func() bool {
			n, err := chain.Sizes(os.DirFS(r.log))
			return err == nil && n > int64(p.events)
		})
	}
	if p.search {
		if p.snapshots {
			r.index()
		} else {
			r.must("gb-vecsync", "rebuild", "--socket", "")
		}
		privatebus.Run(t, "", r.env, tools.Path(t, "gb-vecsync"), "search", "--listen", "--socket", r.dir+"/search.sock")
		r.wait("the search", func() bool { _, err := os.Stat(r.dir + "/search.sock"); return err == nil })
	}
	if p.snapshots {
		privatebus.Run(t, "", r.env, tools.Path(t, "gb-snap"), "take", "--every", "250ms", "--keep", "40", filepath.Dir(r.log))
	}
	if p.network {
		s := vswitch.Start(t, vswitch.Options{})
		r.db = s.DB
		for _, argv := range [][]string{
			{"add-br", "ovsbr0", "--", "set", "bridge", "ovsbr0", "datapath_type=netdev"}, {"add-br", "ovsbr1", "--", "set", "bridge", "ovsbr1", "datapath_type=netdev"},
			{"add-port", "ovsbr0", "ens1", "--", "set", "interface", "ens1", "type=internal"}, {"add-port", "ovsbr0", "ovsbr0-if", "--", "set", "interface", "ovsbr0-if", "type=internal"},
			{"add-port", "ovsbr0", "missing0"},
			{"add-port", "ovsbr1", "vnet0", "--", "set", "interface", "vnet0", "type=internal"}, {"add-port", "ovsbr1", "vnet1", "--", "set", "interface", "vnet1", "type=internal"},
			{"add-port", "ovsbr1", "lxc-db", "--", "set", "interface", "lxc-db", "type=internal"},
		} {
			s.Vsctl(argv...) // missing0 is meant to fail
		}
		r.env = append(r.env, "GB_OVS_DB="+r.db, "OVS_RUNDIR="+s.Dir, "GB_OVS_SOCKET=/nonexistent", "GB_OVS_STATE="+r.dir+"/ovs", "GB_OVS_CONFIG=/nonexistent")
	}
	if p.bus {
		r.startBus()
	} else {
		r.env = append(r.env, "GB_BUS=")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.listen = l.Addr().String()
	l.Close()
	r.url = "http://localhost:" + r.listen[strings.LastIndexByte(r.listen, ':')+1:]
	r.start()
	return r
}

// index brings the log into the index as on a host: out of a snapshot.
func (r *rig) index() {
	r.t.Helper()
	source := filepath.Dir(r.log)
	r.must("gb-snap", "take", source)
	send := exec.Command(tools.Path(r.t, "gb-snap"), "send", source)
	send.Env = append(os.Environ(), r.env...)
	ingest := exec.Command(tools.Path(r.t, "gb-vecsync"), "ingest", "--socket", "")
	ingest.Env = send.Env
	var said bytes.Buffer
	send.Stderr, ingest.Stderr = &said, &said
	var err error
	if ingest.Stdin, err = send.StdoutPipe(); err != nil {
		r.t.Fatal(err)
	}
	if err := errors.Join(send.Start(), ingest.Run(), send.Wait()); err != nil {
		r.t.Fatalf("%v\n%s", err, &said)
	}
}

// startBus starts a bus with a lamp, polkit, systemd and opdbus on it.
func (r *rig) startBus() {
	r.t.Helper()
	shipped, err := filepath.Abs("../../units/dbus-1/system.d/" + names.BusName + ".conf")
	if err != nil {
		r.t.Fatal(err)
	}
	r.address = privatebus.Start(r.t, privatebus.Options{Policies: []string{shipped}})
	r.env = append(r.env, "GB_BUS="+r.address, "DBUS_SYSTEM_BUS_ADDRESS="+r.address)
	if err := os.WriteFile(r.dir+"/policy.json", []byte(policyRules), 0o644); err != nil {
		r.t.Fatal(err)
	}
	lamp, err := filepath.Abs("../../cmd/opdbus/testdata/lamp.py")
	if err != nil {
		r.t.Fatal(err)
	}
	privatebus.Run(r.t, "ready", nil, privatebus.Python, lamp, r.address)
	privatebus.Mock(r.t, r.address, "org.freedesktop.PolicyKit1", "polkitd")
	privatebus.Mock(r.t, r.address, "org.freedesktop.login1", "logind")
	r.must("gdbus", "call", "--address", r.address, "--dest", "org.freedesktop.PolicyKit1", "--object-path", "/org/freedesktop/PolicyKit1/Authority",
		"--method", "org.freedesktop.DBus.Mock.SetAllowed", "['org.freedesktop.opdbus.call','org.freedesktop.opdbus.set-property','org.freedesktop.opdbus.read-sensitive']")
	privatebus.Run(r.t, "", r.env, tools.Path(r.t, "opdbus"), "serve")
	privatebus.WaitName(r.t, r.address, names.BusName)
}

// start starts gb-web and waits until it answers.
func (r *rig) start() {
	r.t.Helper()
	cmd := exec.Command(tools.Path(r.t, "gb-web"), append([]string{"serve", "--listen", r.listen}, r.flags...)...)
	cmd.Env = append(os.Environ(), r.env...)
	if r.said == nil {
		r.said = &bytes.Buffer{}
	}
	cmd.Stderr = r.said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.web = cmd
	r.t.Cleanup(func() {
		if cmd.ProcessState == nil {
			r.stop()
		}
		if r.t.Failed() {
			r.t.Logf("gb-web said:\n%s", r.said)
			r.said.Reset()
		}
	})
	r.wait("gb-web", func() bool {
		resp, err := http.Get(r.url + "/healthz")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

func (r *rig) stop() {
	r.web.Process.Signal(syscall.SIGTERM)
	if err := r.web.Wait(); err != nil {
		r.t.Errorf("gb-web: %v\n%s", err, r.said)
	}
}

func (r *rig) wait(what string, done func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("%s did not come\n%s", what, r.said)
		}
	}
}

// run runs a program, one of ours by its name, as a user.
func (r *rig) run(uid uint32, stdin string, argv ...string) (string, error) {
	if !strings.Contains(argv[0], "/") && (argv[0] == "opdbus" || strings.HasPrefix(argv[0], "gb-")) {
		argv[0] = tools.Path(r.t, argv[0])
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), r.env...)
	cmd.Stdin = strings.NewReader(stdin)
	if uid != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		cmd.Dir = "/"
	}
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%v: %w\n%s%s", argv, err, out, said.String())
	}
	return string(out), err
}

func (r *rig) must(argv ...string) string {
	r.t.Helper()
	out, err := r.run(0, "", argv...)
	if err != nil {
		r.t.Fatal(err)
	}
	return out
}

// append appends events to the log.
func (r *rig) append(lines string) {
	r.t.Helper()
	if _, err := r.run(0, lines, "gb-chain", "append", "-"); err != nil {
		r.t.Fatal(err)
	}
}

// feed appends what comes from in, as it comes.
func (r *rig) feed(in io.Reader) error {
	cmd := exec.Command(tools.Path(r.t, "gb-chain"), "append", "-")
	cmd.Env = append(os.Environ(), r.env...)
	cmd.Stdin = in
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("append: %w\n%s", err, out)
	}
	return nil
}

// link returns a login link.
func (r *rig) link(role string) string {
	r.t.Helper()
	return strings.TrimSpace(r.must("gb-web", "login", "--role", role))
}

func (r *rig) token(role string) string {
	r.t.Helper()
	return strings.TrimSpace(r.must("gb-web", "login", "--token", "--role", role))
}

// get asks for a path with a token and returns status and body.
func (r *rig) get(token, path string, header ...string) (int, string, http.Header) {
	r.t.Helper()
	return r.do(http.MethodGet, token, path, "", header...)
}

func (r *rig) do(method, token, path, body string, header ...string) (int, string, http.Header) {
	r.t.Helper()
	req, err := http.NewRequest(method, r.url+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i+1 < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
			continue
		}
		req.Header.Set(header[i], header[i+1])
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, Timeout: 30 * time.Second}
	resp, err := client.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.StatusCode, string(data), resp.Header
}

// ask has somebody without rights ask for something that needs an approval, and
// returns the approval's id.
func (r *rig) ask(member string) string {
	r.t.Helper()
	signature, args := "", "[]"
	switch member {
	case "Switch":
		signature, args = "b", "[true]"
	case "Connect":
		signature, args = "a{sv}", `[{"ssid":{"t":"s","v":"lobby"},"psk":{"t":"s","v":"hunter2"}}]`
	}
	r.run(nobody, "", "dbus-send", "--bus="+r.address, "--print-reply", "--reply-timeout=60000", "--dest="+names.BusName, names.BusObject, names.BusInterface+".Bus.Call",
		"string:org.example.Lamp", "objpath:/org/example/Lamp", "string:org.example.Lamp", "string:"+member, "string:"+signature, "string:"+args)
	return r.newest("pending")
}

// newest is the id of the newest approval in a state.
func (r *rig) newest(state string) string {
	r.t.Helper()
	for line := range strings.Lines(r.must("opdbus", "approvals", "list", "--json")) {
		var a struct{ ID, State string }
		if err := json.Unmarshal([]byte(line), &a); err != nil {
			r.t.Fatal(err)
		}
		if a.State == state {
			return a.ID
		}
	}
	r.t.Fatalf("no approval is %s", state)
	return ""
}

// story is events as a host has them.
func story(n int) []string {
	kinds := []struct{ source, typ, severity, message, actor, subject string }{
		{"journald", "journal.message", "info", "Started session %d of user root.", "systemd", "init.scope"},
		{"journald", "journal.message", "info", "Accepted publickey for root from 10.0.1.%d port 50512 ssh2: ED25519", "sshd", "ssh.service"},
		{"dbus", "dbus.call", "debug", "org.freedesktop.login1.Manager.GetSession (%d)", ":1.7", "org.freedesktop.login1"},
		{"ovs", "port.created", "notice", "port vnet%d added to bridge ovsbr1", "ovs-vswitchd", "vnet"},
		{"kernel", "kernel.message", "info", "audit: type=1400 audit(%d): apparmor=\"STATUS\" operation=\"profile_load\"", "kernel", ""},
		{"journald", "journal.message", "warning", "upstream timed out while reading response header from upstream, client: 10.0.1.%d", "nginx", "nginx.service"},
		{"snap", "snapshot.pruned", "info", "1 snapshot deleted: slot 1m of the grid is full (%d)", "gb-snap", "timing"},
		{"mcp", "mcp.tools.call", "info", "agent claude: tools/call describe_unit: done (%d)", "mcp:claude", "nginx.service"},
		{"kernel", "kernel.message", "err", "blk_update_request: I/O error, dev sdb, sector %d op 0x0:(READ)", "kernel", "sdb"},
		{"mcp", "mcp.tools.call", "warning", "agent helper: tools/call restart_unit: refused (%d)", "mcp:helper", "sshd.service"},
		{"opdbus", "opdbus.intent", "notice", "call org.freedesktop.systemd1.Manager.RestartUnit (%d)", "uid:0", "org.freedesktop.systemd1"},
		{"journald", "journal.message", "crit", "mdadm: Fail event detected on md device /dev/md%d", "mdadm", "mdmonitor.service"},
	}
	order := []int{0, 4, 1, 2, 0, 3, 4, 5, 2, 6, 0, 7, 1, 2, 4, 0, 3, 7, 6, 5, 2, 0, 1, 9, 4, 10, 0, 7, 2, 8, 1, 0, 6, 4, 3, 0, 2, 5, 1, 7}
	lines := make([]string, n)
	for i := range lines {
		k := kinds[order[i%len(order)]]
		if i%397 == 396 {
			k = kinds[11]
		}
		e := map[string]any{"source": k.source, "type": k.typ, "severity": k.severity, "message": fmt.Sprintf(k.message, i%250), "actor": k.actor, "host": "alpha"}
		if k.subject != "" {
			e["subject"] = k.subject
		}
		switch k.source {
		case "mcp":
			outcome := "done"
			if k.severity == "warning" {
				outcome = "refused"
			}
			e["data"] = map[string]any{"client": strings.TrimPrefix(k.actor, "mcp:"), "method": "tools/call", "tool": strings.Fields(k.message)[3], "outcome": outcome, "milliseconds": float64(i%90) + 2.5, "program": "desktop 1.4"}
		case "snap":
			e["data"] = map[string]any{"reason": "slot 1m of the grid is full", "snapshots": []any{map[string]any{"name": "x"}}}
		case "journald":
			e["data"] = map[string]any{"unit": k.subject, "pid": 1000 + i%250}
		}
		text, err := json.Marshal(e)
		if err != nil {
			panic(err)
		}
		lines[i] = string(text) + "\n"
	}
	return lines
}
