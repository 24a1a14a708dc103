package access

import (
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestTicketIsGoodOnceAndNotForLong(t *testing.T) {
	now := time.Now()
	s := &Sessions{Dir: t.TempDir(), Now: func() time.Time { return now }}
	token, expires, err := s.Ticket(Login{UID: 7, User: "u", Role: Operator})
	if err != nil || expires.Sub(now) != TicketLife {
		t.Fatal(expires, err)
	}
	if l, ok := s.Peek(token); !ok || l.User != "u" {
		t.Fatal(l, ok)
	}
	session, l, err := s.Redeem(token)
	if err != nil || l.Role != Operator || l.UID != 7 || l.ID == "" {
		t.Fatal(l, err)
	}
	if _, _, err := s.Redeem(token); err != ErrTicket {
		t.Error("redeemed twice:", err)
	}
	if _, ok := s.Peek(token); ok {
		t.Error("a used ticket is shown")
	}
	late, _, _ := s.Ticket(Login{})
	now = now.Add(TicketLife)
	if _, _, err := s.Redeem(late); err != ErrTicket {
		t.Error("redeemed late:", err)
	}
	if _, ok := s.Find(session); !ok {
		t.Error("the session is gone")
	}
	if _, ok := s.Find(session[:42] + "x"); ok {
		t.Error("another token is the same session's")
	}
	now = now.Add(SessionLife)
	if _, ok := s.Find(session); ok {
		t.Error("the session does not end")
	}
	if left, _ := filepath.Glob(s.Dir + "/*"); len(left) != 0 {
		t.Error("left over:", left)
	}
}

func TestSessionOutlivesTheProcess(t *testing.T) {
	dir := t.TempDir()
	s := &Sessions{Dir: dir}
	token, _, err := s.Begin(Login{UID: 7, User: "u", Role: Viewer})
	if err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob(dir + "/*")
	data, err := os.ReadFile(files[0])
	if err != nil || strings.Contains(string(data), token) || strings.Contains(files[0], token) {
		t.Fatalf("the token is on disk: %s %s %v", files, data, err)
	}
	os.WriteFile(dir+"/"+strings.Repeat("0", 64)+".session", []byte(`{"role":`), 0o600)
	os.WriteFile(dir+"/unrelated", nil, 0o600)
	s = &Sessions{Dir: dir}
	l, ok := s.Find(token)
	if !ok || l.User != "u" || l.Role != Viewer {
		t.Fatal(l, ok)
	}
	s.End(token)
	if _, ok := (&Sessions{Dir: dir}).Find(token); ok {
		t.Error("a session that was ended comes back")
	}
}

func TestLoginsAreBounded(t *testing.T) {
	s := &Sessions{}
	var err error
	for range maxTickets + 1 {
		_, _, err = s.Ticket(Login{})
	}
	if err == nil {
		t.Error("tickets without end")
	}
	for range maxSessions + 1 {
		_, _, err = s.Begin(Login{})
	}
	if err == nil {
		t.Error("sessions without end")
	}
}

func TestFormToken(t *testing.T) {
	a, b := "session-a", "session-b"
	if !CheckForm(a, FormToken(a)) || CheckForm(b, FormToken(a)) || CheckForm(a, "") {
		t.Error("a form's token is not the session's alone")
	}
	if strings.Contains(FormToken(a), a) {
		t.Error("the form shows the session's token")
	}
}

// What a stranger says at the door is answered or not, and nothing else.
func TestDoorTakesOneLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d := &Door{Sessions: &Sessions{}, Base: func() string { return "http://localhost:1" }, Groups: map[string]Role{}, Logger: slog.New(slog.DiscardHandler)}
	go d.Serve(l)
	for _, request := range []string{"", "x\n", "{\"role\":\"king\"}\n", strings.Repeat("x", 5000) + "\n", "[]\n"} {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		conn.Write([]byte(request))
		conn.(*net.UnixConn).CloseWrite()
		answer, _ := io.ReadAll(conn)
		conn.Close()
		if !strings.Contains(string(answer), `"error":`) || strings.Contains(string(answer), "ticket=") {
			t.Errorf("%.20q: %s", request, answer)
		}
	}
	a, err := Ask(t.Context(), path, Request{Role: Viewer})
	if err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 && (!strings.HasPrefix(a.URL, "http://localhost:1/login?ticket=") || a.Role != Viewer) {
		t.Errorf("%+v", a)
	}
	if os.Getuid() != 0 && a.Error == "" {
		t.Errorf("%+v", a)
	}
}

// No request of another site's page comes through, whatever its headers.
func FuzzGuardLetsNoStrangerIn(f *testing.F) {
	s := &Sessions{}
	token, _, err := s.Begin(Login{User: "u", Role: Approver})
	if err != nil {
		f.Fatal(err)
	}
	g := &Guard{Sessions: s, Hosts: []string{"host.example"}}
	reached := false
	h := g.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }))
	f.Add("localhost", "https://evil.example", "cross-site")
	f.Add("evil.example", "http://evil.example", "same-origin")
	f.Add("localhost:1", "http://localhost:2", "")
	f.Fuzz(func(t *testing.T, host, origin, site string) {
		r := httptest.NewRequest(http.MethodPost, "http://localhost/x", nil)
		r.Host = host
		r.Header.Set("Origin", origin)
		r.Header.Set("Sec-Fetch-Site", site)
		r.AddCookie(&http.Cookie{Name: g.cookie(), Value: token})
		reached = false
		h.ServeHTTP(httptest.NewRecorder(), r)
		if reached && origin != "" && !strings.EqualFold(origin, "http://"+host) {
			t.Errorf("host %q, origin %q, site %q came through", host, origin, site)
		}
		if reached && !g.host(host) {
			t.Errorf("host %q came through", host)
		}
	})
}
