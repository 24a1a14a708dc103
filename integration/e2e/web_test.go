//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// http asks gb-web, from within the container.
func (c *container) http(token, path string) (status, body string) {
	c.t.Helper()
	return c.ask("GET", token, path)
}

// post has gb-web do something.
func (c *container) post(token, path string) (status, body string) {
	c.t.Helper()
	return c.ask("POST", token, path)
}

func (c *container) ask(method, token, path string) (status, body string) {
	c.t.Helper()
	request := fmt.Sprintf(`%s %s HTTP/1.0\r\nHost: localhost:8096\r\nAuthorization: Bearer %s\r\nContent-Length: 0\r\n\r\n`, method, path, token)
	out := c.run("bash", "-c", `exec 3<>/dev/tcp/127.0.0.1/8096; printf "$1" >&3; cat <&3`, "-", strings.ReplaceAll(request, "%", "%%"))
	head, body, _ := strings.Cut(out, "\r\n\r\n")
	status, _, _ = strings.Cut(head, "\r\n")
	return status, body
}

// webInterface: the socket starts it, its user sees what the pages show, and
// the daemon takes its word for who has logged in.
func webInterface(t *testing.T, c *container) {
	if state := c.property("dbus-mcp-web.service", "ActiveState"); state != "inactive" {
		t.Errorf("nobody has asked, and it is %s", state)
	}
	token := c.run("gb-web", "login", "--token")
	if user := c.property("dbus-mcp-web.service", "User"); user != "gb-web" {
		t.Errorf("it runs as %q", user)
	}
	if out, err := c.try("runuser", "-u", "nobody", "--", "gb-web", "login"); err == nil {
		t.Errorf("nobody may log in: %s", out)
	}
	c.run("useradd", "--groups", "ghostbridge,gb-approvers", "carol")
	if out := c.run("runuser", "-u", "carol", "--", "gb-web", "login", "--json"); !strings.Contains(out, `"role":"approver"`) || !strings.Contains(out, `"user":"carol"`) {
		t.Errorf("carol's login: %s", out)
	}
	c.run("useradd", "--groups", "ghostbridge", "vera")
	if out, err := c.try("runuser", "-u", "vera", "--", "gb-web", "login", "--role", "approver"); err == nil || !strings.Contains(err.Error(), "may be viewer at most") {
		t.Errorf("vera as approver: %v %s", err, out)
	}
	for path, want := range map[string]string{
		"/api/v1/events?limit=1": `"events":[{`, "/api/v1/log": `"healthy":true`, "/api/v1/approvals": `"pending":0`, "/api/v1/bus/names": `"name":"org.freedesktop.opdbus"`,
		"/api/v1/policy": `"rules":[`, "/api/v1/snapshots": `"healthy":true`, "/api/v1/events/0/proof": "c2sp.org/tlog-proof@v1", "/tlog/checkpoint": "/epoch ", "/metrics": "ghostbridge_log_verified 1",
		"/api/v1/search?q=gb-chain": `"asked":true`, "/api/v1/agents": `"clients":[`, "/healthz": "ok",
	} {
		status, body := "", ""
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(500 * time.Millisecond) {
			if status, body = c.http(token, path); strings.Contains(status, " 200 ") && strings.Contains(body, want) || time.Now().After(deadline) {
				break
			}
		}
		if !strings.Contains(status, " 200 ") || !strings.Contains(body, want) {
			t.Errorf("%s: %s %.400s", path, status, body)
		}
	}
	_, body := c.http(token, "/api/v1/overview")
	var o struct {
		Verdict []struct{ Name, State, Text string }
	}
	if err := json.Unmarshal([]byte(body), &o); err != nil {
		t.Fatal(err, body)
	}
	for _, v := range o.Verdict {
		t.Logf("%s: %s, %s", v.Name, v.State, v.Text)
		if v.Name != "Bridges" && v.State != "ok" {
			t.Errorf("%s: %s, %s", v.Name, v.State, v.Text)
		}
	}
	// A restart logs nobody out, and it may write nowhere.
	c.run("systemctl", "restart", "dbus-mcp-web.service")
	if status, _ := c.http(token, "/api/v1/events?limit=1"); !strings.Contains(status, " 200 ") {
		t.Errorf("after a restart: %s", status)
	}
}
