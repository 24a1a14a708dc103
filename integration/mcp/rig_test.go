//go:build linux

// Package mcp tests the MCP server with clients that others have written, on a
// private bus with the daemon, the log and a host that writes down each change.
package mcp

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/ghostbridge/ghostbridge/integration/privatebus"
	"github.com/ghostbridge/ghostbridge/integration/require"
	"github.com/ghostbridge/ghostbridge/integration/tools"
	"github.com/ghostbridge/ghostbridge/pkg/names"
)

func TestMain(m *testing.M) { tools.Main(m) }

const nobody = 65534

// A rig is a host with everything on it but the MCP server's clients.
type rig struct {
	t       testing.TB
	dir     string
	address string
	env     []string
	url     string // of the server, once serveHTTP was called
	daemon  *exec.Cmd
}

// newRig starts a bus, the log's daemon, the host, polkit and opdbus serve with a
// policy. The user nobody may speak for agents.
func newRig(t testing.TB, policy string) *rig {
	t.Helper()
	require.Root(t)
	shipped, err := filepath.Abs("../../units/dbus-1/system.d/" + names.BusName + ".conf")
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, dir: privatebus.OpenDir(t), address: privatebus.Start(t, privatebus.Options{Policies: []string{shipped}})}
	data, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"snapshots/20261101T100000.000000000Z", "snapshots/20261101T100001.000000000Z"} {
		if err := os.MkdirAll(filepath.Join(r.dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	r.env = []string{"GB_BUS=" + r.address, "DBUS_SYSTEM_BUS_ADDRESS=" + r.address, "GB_LOG=" + r.dir + "/log", "GB_KEYS=" + r.dir + "/keys", "GB_POLICY=" + r.dir + "/policy.json",
		"GB_APPROVALS=" + r.dir + "/approvals", "GB_SPOOL=" + r.dir + "/spool", "GB_CHAIN_SOCKET=" + r.dir + "/chain.sock", "GB_SEARCH_SOCKET=" + r.dir + "/search.sock",
		"GB_TOKENS=" + r.dir + "/tokens.json", "GB_SNAPSHOTS=" + r.dir + "/snapshots", "GB_MCP_USER=nobody", "GB_STATE=" + r.dir + "/state", "TZ=UTC", "PATH=" + data + ":" + os.Getenv("PATH")}
	r.policy(policy)
	r.must("gb-chain", "init", "--origin", "test.example/log")
	privatebus.Run(t, "", r.env, tools.Path(t, "gb-chain"), "serve", "--writers", "")
	r.wait("the log's daemon", func() bool { _, err := os.Stat(r.dir + "/chain.sock"); return err == nil })
	privatebus.Run(t, "ready", nil, privatebus.Python, data+"/host.py", r.address, r.dir+"/changes")
	privatebus.Mock(t, r.address, "org.freedesktop.PolicyKit1", "polkitd")
	r.allow("org.freedesktop.opdbus.approve", "org.freedesktop.opdbus.tokens", "org.freedesktop.opdbus.rollback")
	r.daemon = r.start("opdbus", 0, "serve")
	privatebus.WaitName(t, r.address, names.BusName)
	return r
}

// start starts one of our programs for the time of the test.
func (r *rig) start(name string, uid uint32, args ...string) *exec.Cmd {
	r.t.Helper()
	cmd := exec.Command(program(r.t, name), args...)
	cmd.Env = append(os.Environ(), r.env...)
	said := &bytes.Buffer{}
	cmd.Stderr = said
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if uid != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uid, Gid: uid}
	}
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			r.t.Errorf("%s %v: %v", name, args, err)
		}
		if r.t.Failed() {
			r.t.Logf("%s %v said:\n%.8000s", name, args, said)
		}
	})
	return cmd
}

// serveHTTP starts the server on loopback, as nobody.
func (r *rig) serveHTTP(args ...string) *exec.Cmd {
	r.t.Helper()
	port := freePort(r.t)
	r.url = fmt.Sprintf("http://127.0.0.1:%d/mcp", port)
	cmd := r.start("opdbus", nobody, append([]string{"mcp", "--listen", fmt.Sprintf("127.0.0.1:%d", port)}, args...)...)
	r.wait("the MCP server", func() bool {
		res, err := http.Get(r.url)
		if err == nil {
			res.Body.Close()
		}
		return err == nil
	})
	return cmd
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

func (r *rig) wait(what string, done func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("%s did not come", what)
		}
	}
}

// run runs a program, one of ours by its name, as root.
func (r *rig) run(argv ...string) (string, error) {
	r.t.Helper()
	if argv[0] == "opdbus" || strings.HasPrefix(argv[0], "gb-") {
		argv[0] = tools.Path(r.t, argv[0])
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), r.env...)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%v: %w\n%s", argv, err, said.String())
	}
	return out.String(), nil
}

func (r *rig) must(argv ...string) string {
	r.t.Helper()
	out, err := r.run(argv...)
	if err != nil {
		r.t.Fatal(err)
	}
	return out
}

// allow says what polkit authorises from now on.
func (r *rig) allow(actions ...string) {
	r.t.Helper()
	r.must("gdbus", "call", "--address", r.address, "--dest", "org.freedesktop.PolicyKit1", "--object-path", "/org/freedesktop/PolicyKit1/Authority", "--method", "org.freedesktop.DBus.Mock.SetAllowed",
		"['"+strings.Join(actions, "','")+"']")
}

// token makes one and returns its secret.
func (r *rig) token(name, scopes string, more ...string) string {
	r.t.Helper()
	secret := strings.TrimSpace(r.must(append([]string{"opdbus", "token", "add", name, "--scope", scopes}, more...)...))
	// The package's group of the server is not there in a test.
	if err := os.Chmod(r.dir+"/tokens.json", 0o644); err != nil {
		r.t.Fatal(err)
	}
	return secret
}

// changes returns what has been changed on the host so far.
func (r *rig) changes() []string {
	r.t.Helper()
	data, err := os.ReadFile(r.dir + "/changes")
	if err != nil && !os.IsNotExist(err) {
		r.t.Fatal(err)
	}
	var list []string
	for line := range strings.Lines(string(data)) {
		list = append(list, strings.TrimSpace(line))
	}
	return list
}

// A bearer adds a token to requests.
type bearer struct {
	secret string
	next   http.RoundTripper
}

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+b.secret)
	return b.next.RoundTrip(r)
}

// dial connects the Go SDK's client over HTTP. An answer to a question of the
// server is elicit's; nil can't be asked.
func (r *rig) dial(secret string, elicit func(*sdk.ElicitParams) *sdk.ElicitResult) *sdk.ClientSession {
	r.t.Helper()
	session, err := r.client(elicit).Connect(r.t.Context(), &sdk.StreamableClientTransport{Endpoint: r.url, HTTPClient: &http.Client{Transport: bearer{secret, http.DefaultTransport}}, DisableStandaloneSSE: true}, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { session.Close() })
	return session
}

func (r *rig) client(elicit func(*sdk.ElicitParams) *sdk.ElicitResult) *sdk.Client {
	o := &sdk.ClientOptions{}
	if elicit != nil {
		o.ElicitationHandler = func(_ context.Context, req *sdk.ElicitRequest) (*sdk.ElicitResult, error) {
			return elicit(req.Params), nil
		}
		o.Capabilities = &sdk.ClientCapabilities{Elicitation: &sdk.ElicitationCapabilities{Form: &sdk.FormElicitationCapabilities{}, URL: &sdk.URLElicitationCapabilities{}}}
	}
	return sdk.NewClient(&sdk.Implementation{Name: "test", Version: "1"}, o)
}

// stdio starts the server for one client, as a user.
func (r *rig) stdio(uid uint32, args ...string) *sdk.ClientSession {
	r.t.Helper()
	cmd := exec.Command(tools.Path(r.t, "opdbus"), append([]string{"mcp"}, args...)...)
	cmd.Env = append(os.Environ(), r.env...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if uid != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uid, Gid: uid}
	}
	said := &tools.Output{}
	cmd.Stderr = said
	session, err := r.client(nil).Connect(r.t.Context(), &sdk.CommandTransport{Command: cmd}, nil)
	if err != nil {
		r.t.Fatalf("%v\n%s", err, said)
	}
	r.t.Cleanup(func() {
		session.Close()
		if r.t.Failed() {
			r.t.Logf("opdbus mcp said:\n%.4000s", said)
		}
	})
	return session
}

// call calls a tool and returns its structured content as the client has it.
func call(ctx context.Context, s *sdk.ClientSession, tool string, args any) (map[string]any, *sdk.CallToolResult, error) {
	res, err := s.CallTool(ctx, &sdk.CallToolParams{Name: tool, Arguments: args})
	if err != nil {
		return nil, nil, err
	}
	b, err := json.Marshal(res.StructuredContent)
	if err != nil {
		return nil, res, err
	}
	var m map[string]any
	err = json.Unmarshal(b, &m)
	return m, res, err
}

// textOf joins the texts of a result.
func textOf(res *sdk.CallToolResult) string {
	if res == nil {
		return ""
	}
	var b strings.Builder
	for _, c := range res.Content {
		if t, ok := c.(*sdk.TextContent); ok {
			b.WriteString(t.Text)
		}
	}
	return b.String()
}
