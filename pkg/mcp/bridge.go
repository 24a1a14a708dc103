package mcp

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// A Bridge carries messages of a client on standard input and output to a
// server's URL, and back: for clients that know only the former. It adds the
// token, and the headers of streamable HTTP that stand for what is in the
// message (MCP 2025-11-25 and 2026-07-28, "Transports").
type Bridge struct {
	// Server is unix:PATH, or an http URL.
	Server string
	Token  string

	url    string
	client *http.Client

	out sync.Mutex
	w   io.Writer

	mu      sync.Mutex
	session string
	version string                        // that initialize has agreed on
	calls   map[string]context.CancelFunc // under way, by id
}

// maxMessage bounds a message of the server.
const maxMessage = 8 << 20

// A bridged message, as far as the bridge looks into it.
type bridged struct {
	ID     json.RawMessage `json:"id"`
	Method string          `json:"method"`
	Params struct {
		Name      string                     `json:"name"`
		URI       string                     `json:"uri"`
		RequestID json.RawMessage            `json:"requestId"`
		Meta      map[string]json.RawMessage `json:"_meta"`
	} `json:"params"`
	Result struct {
		ProtocolVersion string `json:"protocolVersion"`
	} `json:"result"`
}

// Run carries messages until in ends and all that is under way is answered.
func (b *Bridge) Run(ctx context.Context, in io.Reader, out io.Writer) error {
	b.w, b.calls = out, map[string]context.CancelFunc{}
	transport := &http.Transport{MaxIdleConnsPerHost: 16, ResponseHeaderTimeout: 0}
	b.url = b.Server
	if path, ok := strings.CutPrefix(b.Server, "unix:"); ok {
		b.url = "http://localhost" + Endpoint
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		}
	} else if !strings.HasPrefix(b.Server, "http://") && !strings.HasPrefix(b.Server, "https://") {
		return fmt.Errorf("server %q: want unix:PATH or an http URL", b.Server)
	}
	b.client = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
		return errors.New("a redirection: the token is for one server")
	}}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, maxRequest)
	for lines.Scan() {
		line := bytes.Clone(bytes.TrimSpace(lines.Bytes()))
		if len(line) == 0 {
			continue
		}
		var m bridged
		if err := json.Unmarshal(line, &m); err != nil {
			b.print([]byte(`{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"not JSON"}}`))
			continue
		}
		b.mu.Lock()
		sessions := b.version != ""
		b.mu.Unlock()
		if m.Method == "notifications/cancelled" && !sessions {
			// Without sessions a call is cancelled by closing its stream.
			b.mu.Lock()
			if stop := b.calls[string(m.Params.RequestID)]; stop != nil {
				stop()
			}
			b.mu.Unlock()
			continue
		}
		if m.ID == nil || m.Method == "initialize" || m.Method == "" {
			// In their order: what follows relies on them.
			b.post(ctx, line, m)
			if m.Method == "notifications/initialized" {
				wg.Go(func() { b.listen(ctx) })
			}
			continue
		}
		within, cancel := b.begin(ctx, m)
		wg.Go(func() {
			defer cancel()
			b.post(within, line, m)
		})
	}
	done := make(chan struct{})
	go func() { b.wait(&wg, cancel); close(done) }()
	<-done
	b.end()
	return lines.Err()
}

// begin notes that a call is under way; it is when the function that it returns
// is called.
func (b *Bridge) begin(ctx context.Context, m bridged) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	key := string(m.ID)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls[key] = cancel
	return ctx, func() {
		cancel()
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.calls, key)
	}
}

// wait gives what is under way some time to be answered.
func (b *Bridge) wait(wg *sync.WaitGroup, cancel context.CancelFunc) {
	for range 200 {
		b.mu.Lock()
		n := len(b.calls)
		b.mu.Unlock()
		if n == 0 {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	cancel()
	wg.Wait()
}

// end tells the server that the session is over.
func (b *Bridge) end() {
	b.mu.Lock()
	session := b.session
	b.mu.Unlock()
	if session == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if req, err := b.request(ctx, http.MethodDelete, nil, bridged{}); err == nil {
		if res, err := b.client.Do(req); err == nil {
			res.Body.Close()
		}
	}
}

func (b *Bridge) print(message []byte) {
	b.out.Lock()
	defer b.out.Unlock()
	b.w.Write(append(bytes.ReplaceAll(message, []byte("\n"), nil), '\n'))
}

func (b *Bridge) request(ctx context.Context, method string, body io.Reader, m bridged) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, b.url, body)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	session, version := b.session, b.version
	b.mu.Unlock()
	var own string
	if raw, ok := m.Params.Meta["io.modelcontextprotocol/protocolVersion"]; ok && json.Unmarshal(raw, &own) == nil {
		version, session = own, ""
		req.Header.Set("Mcp-Method", m.Method)
		if name := m.Params.Name + m.Params.URI; name != "" {
			req.Header.Set("Mcp-Name", name)
		}
	}
	req.Header.Set("Authorization", "Bearer "+b.Token)
	req.Header.Set("Accept", "application/json, text/event-stream")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if version != "" {
		req.Header.Set("Mcp-Protocol-Version", version)
	}
	if session != "" {
		req.Header.Set("Mcp-Session-Id", session)
	}
	return req, nil
}

// post sends a message and prints what is answered.
func (b *Bridge) post(ctx context.Context, line []byte, m bridged) {
	fail := func(text string) {
		if m.ID == nil || m.Method == "" || ctx.Err() != nil {
			return
		}
		e, err := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": m.ID, "error": map[string]any{"code": -32603, "message": text}})
		if err == nil {
			b.print(e)
		}
	}
	req, err := b.request(ctx, http.MethodPost, bytes.NewReader(line), m)
	if err != nil {
		fail(err.Error())
		return
	}
	res, err := b.client.Do(req)
	if err != nil {
		fail("the server can't be reached: " + err.Error())
		return
	}
	defer res.Body.Close()
	if id := res.Header.Get("Mcp-Session-Id"); id != "" && m.Method == "initialize" {
		b.mu.Lock()
		b.session = id
		b.mu.Unlock()
	}
	if n, err := b.answers(res, m); err != nil {
		fail(err.Error())
	} else if n == 0 && res.StatusCode >= 400 {
		text := "the server answered " + res.Status
		if res.StatusCode == http.StatusUnauthorized {
			text = "the server does not take the token: opdbus token ls shows whether it has expired"
		}
		fail(text)
	}
}

// answers prints the messages of a response, and says how many there were.
func (b *Bridge) answers(res *http.Response, m bridged) (int, error) {
	n := 0
	show := func(message []byte) {
		n++
		if m.Method == "initialize" {
			var a bridged
			if json.Unmarshal(message, &a) == nil && a.Result.ProtocolVersion != "" {
				b.mu.Lock()
				b.version = a.Result.ProtocolVersion
				b.mu.Unlock()
			}
		}
		b.print(message)
	}
	switch kind, _, _ := strings.Cut(res.Header.Get("Content-Type"), ";"); strings.TrimSpace(kind) {
	case "application/json":
		body, err := io.ReadAll(io.LimitReader(res.Body, maxMessage+1))
		if err != nil {
			return n, err
		}
		if len(body) > maxMessage {
			return n, fmt.Errorf("the server's answer is longer than %d bytes", maxMessage)
		}
		if json.Valid(body) {
			show(bytes.TrimSpace(body))
		}
	case "text/event-stream":
		lines := bufio.NewScanner(res.Body)
		lines.Buffer(nil, maxMessage)
		var data []byte
		for lines.Scan() {
			field, value, _ := strings.Cut(lines.Text(), ":")
			switch {
			case lines.Text() == "":
				if len(data) > 0 && json.Valid(data) {
					show(data)
				}
				data = nil
			case field == "data":
				data = append(data, strings.TrimPrefix(value, " ")...)
			}
		}
		if len(data) > 0 && json.Valid(data) {
			show(data)
		}
		return n, lines.Err()
	}
	return n, nil
}

// listen prints what the server says of its own accord, in the era of sessions.
func (b *Bridge) listen(ctx context.Context) {
	b.mu.Lock()
	session := b.session
	b.mu.Unlock()
	if session == "" {
		return
	}
	req, err := b.request(ctx, http.MethodGet, nil, bridged{})
	if err != nil {
		return
	}
	res, err := b.client.Do(req)
	if err != nil {
		return
	}
	defer res.Body.Close()
	b.answers(res, bridged{})
}
