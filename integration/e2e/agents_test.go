//go:build linux

package e2e

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/names"
)

// agents: an AI agent comes in through the socket with a token, sees the real
// systemd and its journal, and changes what a rule lets it.
func agents(t *testing.T, c *container) {
	policy := strings.Replace(busPolicy, `"rules":[`, `"rules":[{"id":"agent","clients":["mcp:e2e"],"name":"org.freedesktop.systemd1","interface":"org.freedesktop.systemd1.Manager","members":["StartUnit","StopUnit"],"args":{"0":"e2e-*.service"},"effect":"allow"},`, 1)
	if err := os.WriteFile(c.path(names.PolicyFile), []byte(policy), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(c.path("/run/systemd/system/e2e-agent.service"), []byte("[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/echo an agent was here\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	c.run("systemctl", "daemon-reload")
	if state := c.property("dbus-mcp-server.service", "ActiveState"); state != "inactive" {
		t.Errorf("nobody has come, and it is %s", state)
	}
	token := strings.TrimSpace(c.run("opdbus", "token", "add", "e2e", "--scope", "read,execute"))
	c.run("bash", "-c", `umask 077; printf %s "$1" > /run/e2e-token`, "-", token)
	call := func(tool string, args any) (map[string]any, string) {
		t.Helper()
		message, err := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": map[string]any{"name": tool, "arguments": args,
			"_meta": map[string]any{"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientInfo": map[string]any{"name": "e2e", "version": "1"}, "io.modelcontextprotocol/clientCapabilities": map[string]any{}}}})
		if err != nil {
			t.Fatal(err)
		}
		out := c.run("bash", "-c", `printf '%s\n' "$1" | opdbus mcp --server unix:`+names.MCPSocket+` --token-file /run/e2e-token`, "-", string(message))
		for line := range strings.Lines(out) {
			var m struct {
				ID     int
				Result struct {
					StructuredContent map[string]any
					Content           []struct{ Text string }
				}
				Error any
			}
			if json.Unmarshal([]byte(line), &m) == nil && m.ID == 1 {
				text := ""
				for _, c := range m.Result.Content {
					text += c.Text
				}
				return m.Result.StructuredContent, text
			}
		}
		t.Fatalf("%s: no answer: %s", tool, out)
		return nil, ""
	}
	if _, text := call("list_units", map[string]any{"pattern": "dbus-mcp-server.*"}); !strings.Contains(text, `"unit":"dbus-mcp-server.service"`) {
		t.Errorf("list_units: %.500s", text)
	}
	if user := c.property("dbus-mcp-server.service", "User"); user != names.MCPUser {
		t.Errorf("it runs as %q", user)
	}
	if out, _ := call("unit_status", map[string]any{"unit": "op-dbus.service"}); out["active"] != "active" {
		t.Errorf("unit_status: %v", out)
	}
	if _, text := call("network_status", map[string]any{}); !strings.Contains(text, `"Name":"lo"`) {
		t.Errorf("network_status: %.500s", text)
	}
	if out, text := call("act_on_unit", map[string]any{"unit": "e2e-agent.service", "action": "start"}); out["status"] != "done" || out["rule"] != "agent" {
		t.Errorf("start: %.500s", text)
	}
	if out := strings.TrimSpace(c.run("systemctl", "is-active", "e2e-agent.service")); out != "active" {
		t.Errorf("it is %s", out)
	}
	if out, text := call("act_on_unit", map[string]any{"unit": "dbus.service", "action": "stop"}); out["status"] != "denied" {
		t.Errorf("stop dbus.service: %.500s", text)
	}
	said := ""
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(said, "an agent was here") && time.Now().Before(deadline); time.Sleep(500 * time.Millisecond) {
		_, said = call("unit_logs", map[string]any{"unit": "e2e-agent.service"})
	}
	if !strings.Contains(said, "an agent was here") {
		t.Errorf("unit_logs: %.500s", said)
	}
	// Page by page, each older than the one before.
	var seen []string
	args := map[string]any{"unit": "op-dbus.service", "limit": 1}
	for range 3 {
		out, text := call("unit_logs", args)
		entries, _ := out["entries"].([]any)
		if len(entries) != 1 || out["next_cursor"] == nil {
			t.Fatalf("a page of a log: %.500s", text)
		}
		at := entries[0].(map[string]any)["time"].(string)
		if len(seen) > 0 && at >= seen[len(seen)-1] {
			t.Errorf("%s is not older than %s", at, seen[len(seen)-1])
		}
		seen = append(seen, at)
		args["cursor"] = out["next_cursor"]
	}
	if out, _ := call("read_event", map[string]any{"index": 0}); out["proved"] != true {
		t.Errorf("read_event: %v", out)
	}
	if out, err := c.try("runuser", "-u", "nobody", "--", "bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8097; test -w "+names.MCPSocket); err == nil {
		t.Errorf("nobody reaches the socket: %s", out)
	}
	c.run("opdbus", "token", "rm", "e2e")
	if _, text := call("list_units", map[string]any{}); text != "" {
		t.Errorf("after its token was taken away: %.300s", text)
	}
	log := c.run("gb-chain", "query", "--json", "--source", "mcp")
	for _, want := range []string{`"actor":"mcp:e2e"`, `"type":"opdbus.intent"`, `"type":"opdbus.outcome"`, `"outcome":"refused"`, `"tool":"unit_logs"`} {
		if !strings.Contains(log, want) {
			t.Errorf("the log has no %s", want)
		}
	}
	if err := os.WriteFile(c.path(names.PolicyFile), []byte(busPolicy), 0o644); err != nil {
		t.Fatal(err)
	}
}
