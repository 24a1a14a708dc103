//go:build linux

package web

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/tools"
)

// Who may do what, and what a request must be to be looked at.
func TestAccess(t *testing.T) {
	r := newRig(t, parts{bus: true, events: 400})
	viewer, operator := r.token("viewer"), r.token("operator")

	for _, path := range []string{"/", "/timeline", "/events/3", "/search", "/approvals", "/network", "/snapshots", "/dbus", "/agents", "/policy", "/log"} {
		if status, _, h := r.get("", path); status != http.StatusSeeOther || !strings.HasPrefix(h.Get("Location"), "/login?next=") {
			t.Errorf("%s without a login: %d %s", path, status, h.Get("Location"))
		}
	}
	for _, path := range []string{"/api/v1/events", "/api/v1/live", "/tlog/checkpoint", "/tlog/tile/entries/000", "/api/v1/events/1/proof", "/events/1/proof"} {
		if status, body, _ := r.get("", path); status != http.StatusUnauthorized || strings.Contains(body, "journald") {
			t.Errorf("%s without a login: %d %.100s", path, status, body)
		}
		if status, _, _ := r.get(strings.Repeat("A", 43), path); status != http.StatusUnauthorized {
			t.Errorf("%s with a token of nobody: %d", path, status)
		}
		if strings.HasSuffix(path, "live") {
			continue
		}
		if status, body, _ := r.get(viewer, path); status != http.StatusOK {
			t.Errorf("%s: %d %.200s", path, status, body)
		}
	}
	// Numbers alone, for Prometheus, and a sign of life.
	if status, body, _ := r.get("", "/metrics"); status != http.StatusOK || !strings.Contains(body, "\nghostbridge_log_events_total 40") {
		t.Errorf("/metrics: %d\n%s", status, body)
	}
	if status, body, _ := r.get("", "/healthz"); status != http.StatusOK || body != "ok\n" {
		t.Errorf("/healthz: %d %s", status, body)
	}

	// Another name that means this address: an attacker's DNS.
	for _, host := range []string{"evil.example", "evil.example:8096", "localhost.evil.example", ""} {
		if status, _, _ := r.get(viewer, "/api/v1/events", "Host", host); host != "" && status != http.StatusMisdirectedRequest {
			t.Errorf("host %q: %d", host, status)
		}
	}
	for _, host := range []string{"localhost:1", "127.0.0.1", "[::1]:8096", "LOCALHOST."} {
		if status, _, _ := r.get(viewer, "/api/v1/events?limit=1", "Host", host); status != http.StatusOK {
			t.Errorf("host %q: %d", host, status)
		}
	}
	// Pages of other sites.
	for _, h := range [][]string{{"Origin", "https://evil.example"}, {"Origin", "null"}, {"Sec-Fetch-Site", "cross-site"}, {"Origin", "http://localhost:1"}} {
		if status, _, _ := r.do(http.MethodPost, viewer, "/api/v1/log/verify", "", h...); status != http.StatusForbidden {
			t.Errorf("a post with %v: %d", h, status)
		}
	}
	_, _, h := r.get(viewer, "/timeline")
	for name, want := range map[string]string{"Content-Security-Policy": "require-trusted-types-for 'script'; trusted-types 'none'", "X-Content-Type-Options": "nosniff", "Cross-Origin-Opener-Policy": "same-origin",
		"Cross-Origin-Resource-Policy": "same-origin", "X-Frame-Options": "DENY", "Cache-Control": "no-store", "Referrer-Policy": "same-origin"} {
		if !strings.Contains(h.Get(name), want) {
			t.Errorf("%s: %s", name, h.Get(name))
		}
	}
	if csp := h.Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none'; script-src 'self'; style-src 'self'") || strings.Contains(csp, "unsafe") {
		t.Error(csp)
	}
	if h.Get("Access-Control-Allow-Origin") != "" {
		t.Error("other sites may read")
	}

	// Roles.
	id := r.ask("Switch")
	for token, want := range map[string]string{viewer: "needs the role approver", operator: "needs the role approver"} {
		if status, body, _ := r.do(http.MethodPost, token, "/api/v1/approvals/"+id+"/approve", ""); status != http.StatusForbidden || !strings.Contains(body, want) {
			t.Errorf("%d %s", status, body)
		}
	}
	call := url.Values{"name": {"org.example.Lamp"}, "path": {"/org/example/Lamp"}, "interface": {"org.example.Lamp"}, "member": {"Blink"}, "signature": {"tas"}, "args": {`["3",[]]`}, "step": {"call"}}.Encode()
	form := []string{"Content-Type", "application/x-www-form-urlencoded"}
	if status, body, _ := r.do(http.MethodPost, viewer, "/api/v1/bus/call", call, form...); status != http.StatusForbidden || !strings.Contains(body, "a viewer changes nothing") {
		t.Errorf("%d %s", status, body)
	}
	if status, body, _ := r.do(http.MethodPost, operator, "/api/v1/bus/call", call, form...); status != http.StatusOK || !strings.Contains(body, `"done":true`) {
		t.Errorf("%d %s", status, body)
	}

	// A browser's session: its forms bring the form's token with them.
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	browser := &http.Client{Jar: jar}
	link := r.link("approver")
	ticket := link[strings.Index(link, "ticket=")+7:]
	resp, err := browser.PostForm(r.url+"/login", url.Values{"ticket": {ticket}, "next": {"//evil.example/"}})
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.Request.URL.String() != r.url+"/" {
		t.Errorf("after the login: %s", resp.Request.URL)
	}
	resp, err = browser.PostForm(r.url+"/approvals/"+id+"/approve", nil)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden || !strings.Contains(string(body), "the form is not of this session") {
		t.Errorf("a form without its token: %d", resp.StatusCode)
	}
	if _, err := browser.PostForm(r.url+"/logout", nil); err != nil {
		t.Fatal(err)
	}
	if resp, err = browser.Get(r.url + "/api/v1/overview"); err != nil || resp.StatusCode != http.StatusOK {
		t.Error("another site's page can log a person out", err)
	}
	resp.Body.Close()

	// Who may log in at all.
	if err := os.Chmod(r.dir+"/web.sock", 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := r.run(nobody, "", "gb-web", "login"); err == nil || !strings.Contains(err.Error(), "user nobody may not log in") {
		t.Error(err)
	}
	if _, err := r.run(0, "", "gb-web", "login", "--role", "king"); err == nil || !strings.Contains(err.Error(), "want viewer, operator or approver") {
		t.Error(err)
	}
	// Sessions outlive a restart, and are nobody else's to read.
	r.stop()
	if entries, err := os.ReadDir(r.dir + "/sessions"); err != nil || len(entries) < 3 {
		t.Error(len(entries), err)
	}
	for _, e := range must(os.ReadDir(r.dir + "/sessions")) {
		if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o600 || strings.Contains(e.Name(), viewer) {
			t.Error(e.Name(), info.Mode(), err)
		}
	}
	r.start()
	if status, _, _ := r.get(viewer, "/api/v1/overview"); status != http.StatusOK {
		t.Errorf("after a restart: %d", status)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Beyond loopback there is no start without TLS; with it there is, and the
// cookie is held to the host.
func TestBeyondLoopback(t *testing.T) {
	r := newRig(t, parts{events: 10})
	for _, address := range []string{"0.0.0.0:0", "[::]:0", ":0"} {
		out, err := r.run(0, "", "gb-web", "serve", "--listen", address, "--socket", r.dir+"/other.sock")
		if err == nil || !strings.Contains(err.Error(), "there is no TLS") || !strings.Contains(err.Error(), "exit status 2") || !strings.Contains(err.Error(), "hint:") {
			t.Errorf("%s: %v %s", address, err, out)
		}
	}
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "host.example"}, DNSNames: []string{"host.example"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der := must(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))
	write := func(name, kind string, data []byte) {
		if err := os.WriteFile(r.dir+"/"+name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("cert.pem", "CERTIFICATE", der)
	write("key.pem", "PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(key)))
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	port := l.Addr().String()[strings.LastIndexByte(l.Addr().String(), ':')+1:]
	l.Close()
	cmd := exec.Command(tools.Path(t, "gb-web"), "serve", "--listen", "0.0.0.0:"+port, "--socket", r.dir+"/tls.sock", "--tls-cert", r.dir+"/cert.pem", "--tls-key", r.dir+"/key.pem", "--host", "host.example", "--sessions", r.dir+"/tls-sessions")
	cmd.Env = append(os.Environ(), r.env...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	pool := x509.NewCertPool()
	pool.AddCert(must(x509.ParseCertificate(der)))
	dialer := &net.Dialer{}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "host.example"}, ForceAttemptHTTP2: true, DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, "127.0.0.1:"+port)
		}}}
	var resp *http.Response
	r.wait("TLS", func() bool {
		var err error
		resp, err = client.Get("https://host.example:" + port + "/healthz")
		return err == nil
	})
	resp.Body.Close()
	if resp.ProtoMajor != 2 || resp.Header.Get("Strict-Transport-Security") == "" {
		t.Errorf("%s %v", resp.Proto, resp.Header)
	}
	link := strings.TrimSpace(r.must("gb-web", "login", "--socket", r.dir+"/tls.sock"))
	if !strings.HasPrefix(link, "https://host.example:"+port+"/login?ticket=") {
		t.Error(link)
	}
	resp, err := client.PostForm("https://host.example:"+port+"/login", url.Values{"ticket": {link[strings.Index(link, "ticket=")+7:]}})
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if c := resp.Header.Get("Set-Cookie"); !strings.HasPrefix(c, "__Host-gb=") || !strings.Contains(c, "Secure") || !strings.Contains(c, "HttpOnly") || !strings.Contains(c, "SameSite=Strict") {
		t.Error(c)
	}
	// /metrics are for loopback, or need a login; this came to 0.0.0.0 by loopback.
	resp, err = client.Get("https://host.example:" + port + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	resp, err = client.Get("https://other.example:" + port + "/healthz")
	if err == nil {
		resp.Body.Close()
		if resp.StatusCode != http.StatusMisdirectedRequest {
			t.Error(resp.Status)
		}
	}
}
