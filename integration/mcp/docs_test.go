//go:build linux

package mcp

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/ghostbridge/ghostbridge/integration/tools"
	"github.com/ghostbridge/ghostbridge/pkg/names"
)

// The policy and the client configurations of MCP.md, as they stand there, but
// for the places: each lets a client in.
func TestDocumentedConfigurations(t *testing.T) {
	text, err := os.ReadFile("../../MCP.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := func(marker string) (list []string) {
		for _, m := range regexp.MustCompile("(?s)<!-- "+marker+" -->\n```json\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
			list = append(list, m[1])
		}
		return list
	}
	policies := blocks("policy")
	if len(policies) != 1 {
		t.Fatalf("%d policies", len(policies))
	}
	r := newRig(t, policies[0])
	r.serveHTTP()
	dir := r.dir + "/run"
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	r.start("opdbus", nobody, "mcp", "--listen", "unix:"+dir+"/mcp.sock")
	r.wait("the socket", func() bool { _, err := os.Stat(dir + "/mcp.sock"); return err == nil })
	secret := r.token("desk", "read,propose,execute")
	if err := os.WriteFile(r.dir+"/token", []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	here := strings.NewReplacer(names.MCPSocket, dir+"/mcp.sock", "/home/you/.config/ghostbridge/token", r.dir+"/token", "${GB_MCP_TOKEN}", secret, "http://127.0.0.1:8097/mcp", r.url)
	clients := blocks("mcp client")
	if len(clients) < 4 {
		t.Fatalf("%d configurations", len(clients))
	}
	for _, block := range clients {
		var config struct {
			MCPServers, Servers map[string]struct {
				Type, Command, URL string
				Args               []string
				Headers            map[string]string
			}
		}
		if err := json.Unmarshal([]byte(here.Replace(block)), &config); err != nil {
			t.Fatalf("%v\n%s", err, block)
		}
		server, ok := config.MCPServers["host"]
		if !ok {
			server, ok = config.Servers["host"]
		}
		if !ok {
			t.Fatalf("no server in\n%s", block)
		}
		var transport sdk.Transport
		if server.URL != "" {
			transport = &sdk.StreamableClientTransport{Endpoint: server.URL, HTTPClient: &http.Client{Transport: bearer{strings.TrimPrefix(server.Headers["Authorization"], "Bearer "), http.DefaultTransport}}}
		} else {
			if server.Command != "opdbus" {
				t.Fatalf("command %q", server.Command)
			}
			transport = &sdk.CommandTransport{Command: exec.Command(tools.Path(t, "opdbus"), server.Args...)}
		}
		s, err := r.client(nil).Connect(t.Context(), transport, nil)
		if err != nil {
			t.Fatalf("%v\n%s", err, block)
		}
		list, err := s.ListTools(t.Context(), nil)
		if err != nil || len(list.Tools) != 18 {
			t.Errorf("%v\n%s", err, block)
		}
		for _, tool := range list.Tools {
			if !strings.Contains(string(text), "`"+tool.Name+"`") {
				t.Errorf("MCP.md does not name the tool %s", tool.Name)
			}
		}
		s.Close()
	}
	// And the policy says what the text beside it says.
	s := r.dial(secret, nil)
	for unit, want := range map[string]string{"nginx.service": "done", "sshd.service": "approval_needed"} {
		if out, res, err := call(t.Context(), s, "act_on_unit", obj{"unit": unit, "action": "restart"}); err != nil || out["status"] != want {
			t.Errorf("%s: %v %s", unit, err, textOf(res))
		}
	}
}
