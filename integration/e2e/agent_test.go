//go:build linux

package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// An agent is the QEMU guest agent in a virtual machine, asked over its serial
// port (QEMU Guest Agent Protocol Reference): it runs programs there without
// the machine's network.
type agent struct {
	socket string // of QEMU, for the port

	mu   sync.Mutex // one asks at a time
	conn net.Conn   // nil before the first, and after a failure
	in   *bufio.Reader
	last int // id of the last request
}

// An exitError is a program of a virtual machine that has ended badly.
type exitError struct {
	argv   []string
	code   int // -1 where a signal has ended it
	signal int
	stderr string
}

func (e *exitError) ExitCode() int { return e.code }

func (e *exitError) Error() string {
	how := fmt.Sprintf("exit status %d", e.code)
	if e.code < 0 {
		how = fmt.Sprintf("signal %d", e.signal)
	}
	return fmt.Sprintf("%s: %s: %s", strings.Join(e.argv, " "), how, strings.TrimSpace(e.stderr))
}

// connect has the agent forget what was asked before: an answer to it may come
// late, or a half of it be lost with a boot.
func (a *agent) connect(deadline time.Time) error {
	if a.conn != nil {
		return nil
	}
	conn, err := net.Dial("unix", a.socket)
	if err != nil {
		return err
	}
	conn.SetDeadline(deadline)
	a.conn, a.in, a.last = conn, bufio.NewReader(conn), a.last+1
	id := a.last
	_, err = fmt.Fprintf(conn, "\xff"+`{"execute":"guest-sync-delimited","arguments":{"id":%d}}`+"\n", id)
	for err == nil {
		if _, err = a.in.ReadBytes(0xff); err != nil {
			break
		}
		var line []byte
		if line, err = a.in.ReadBytes('\n'); err != nil {
			break
		}
		var answer struct{ Return int }
		if json.Unmarshal(line, &answer) == nil && answer.Return == id {
			return nil
		}
	}
	a.close()
	return err
}

func (a *agent) close() {
	if a.conn != nil {
		a.conn.Close()
		a.conn = nil
	}
}

// call gives one command and decodes what is returned.
func (a *agent) call(deadline time.Time, command string, arguments, into any) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.connect(deadline); err != nil {
		return fmt.Errorf("the guest agent: %w", err)
	}
	err := func() error {
		a.conn.SetDeadline(deadline)
		request, err := json.Marshal(map[string]any{"execute": command, "arguments": arguments})
		if err != nil {
			return err
		}
		if _, err := a.conn.Write(append(request, '\n')); err != nil {
			return err
		}
		line, err := a.in.ReadBytes('\n')
		if err != nil {
			return err
		}
		var answer struct {
			Return json.RawMessage
			Error  *struct{ Desc string }
		}
		if err := json.Unmarshal(line, &answer); err != nil {
			return err
		}
		if answer.Error != nil {
			return errors.New(answer.Error.Desc)
		}
		return json.Unmarshal(answer.Return, into)
	}()
	if err != nil {
		a.close()
		return fmt.Errorf("the guest agent: %s: %w", command, err)
	}
	return nil
}

// ping says whether the agent answers within a time.
func (a *agent) ping(patience time.Duration) bool {
	var nothing struct{}
	return a.call(time.Now().Add(patience), "guest-ping", struct{}{}, &nothing) == nil
}

// run runs a program to its end and returns its output, without the last line
// break.
func (a *agent) run(patience time.Duration, argv ...string) (string, error) {
	deadline := time.Now().Add(patience)
	var started struct{ PID int }
	err := a.call(deadline, "guest-exec", map[string]any{
		"path": argv[0], "arg": argv[1:], "capture-output": true,
		"env": environment,
	}, &started)
	if err != nil {
		return "", fmt.Errorf("%s: %w", strings.Join(argv, " "), err)
	}
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		time.Sleep(wait)
		var s struct {
			Exited   bool
			ExitCode *int   `json:"exitcode"`
			Signal   int    `json:"signal"`
			Out      []byte `json:"out-data"`
			Err      []byte `json:"err-data"`
		}
		if err := a.call(deadline, "guest-exec-status", map[string]int{"pid": started.PID}, &s); err != nil {
			return "", fmt.Errorf("%s: %w", strings.Join(argv, " "), err)
		}
		if !s.Exited {
			if time.Now().After(deadline) {
				return "", fmt.Errorf("%s: not done after %s", strings.Join(argv, " "), patience)
			}
			continue
		}
		out := strings.TrimSuffix(string(s.Out), "\n")
		switch {
		case s.ExitCode == nil:
			return out, &exitError{argv: argv, code: -1, signal: s.Signal, stderr: string(s.Err)}
		case *s.ExitCode != 0:
			return out, &exitError{argv: argv, code: *s.ExitCode, stderr: string(s.Err)}
		}
		return out, nil
	}
}

// The client, with a double of an agent that has still half an answer to
// somebody before in its port.
func testAgent(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "agent")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go agentDouble(conn)
		}
	}()
	a := &agent{socket: socket}
	defer a.close()
	if !a.ping(10 * time.Second) {
		t.Fatal("no answer")
	}
	if out, err := a.run(10*time.Second, "good", "a b", ""); err != nil || out != "a b," {
		t.Errorf("%q, %v", out, err)
	}
	if out, err := a.run(10*time.Second, "bad"); out != "half" || exitCode(err) != 3 || !strings.Contains(err.Error(), "exit status 3: why") {
		t.Errorf("%q, %v", out, err)
	}
	if _, err := a.run(10*time.Second, "killed"); exitCode(err) != -1 || !strings.Contains(err.Error(), "signal 9") {
		t.Error(err)
	}
	if _, err := a.run(10*time.Second, "missing"); err == nil || !strings.Contains(err.Error(), "no such program") {
		t.Error(err)
	}
	for _, hangs := range []string{"forever", "silence"} {
		if _, err := a.run(300*time.Millisecond, hangs); err == nil {
			t.Errorf("%s: no error", hangs)
		}
	}
	if out, err := a.run(10*time.Second, "good", "again"); err != nil || out != "again" {
		t.Errorf("after silence: %q, %v", out, err)
	}
}

// agentDouble answers as an agent does, for TestAgent's programs.
func agentDouble(conn net.Conn) {
	defer conn.Close()
	io.WriteString(conn, `"out-data": "c3RhbGU="}}`+"\n")
	var argv []string
	in := bufio.NewScanner(conn)
	for in.Scan() {
		var r struct {
			Execute   string
			Arguments struct {
				ID, PID int
				Path    string
				Arg     []string
			}
		}
		if err := json.Unmarshal(bytes.TrimPrefix(in.Bytes(), []byte{0xff}), &r); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return
		}
		answer := any(struct{}{})
		switch r.Execute {
		case "guest-sync-delimited":
			conn.Write([]byte{0xff})
			answer = r.Arguments.ID
		case "guest-exec":
			argv = append([]string{r.Arguments.Path}, r.Arguments.Arg...)
			if argv[0] == "missing" {
				io.WriteString(conn, `{"error":{"class":"GenericError","desc":"no such program"}}`+"\n")
				continue
			}
			answer = map[string]int{"pid": 7}
		case "guest-exec-status":
			switch argv[0] {
			case "silence":
				continue
			case "forever":
				answer = map[string]any{"exited": false}
			case "bad":
				answer = map[string]any{"exited": true, "exitcode": 3, "out-data": []byte("half"), "err-data": []byte("why\n")}
			case "killed":
				answer = map[string]any{"exited": true, "signal": 9}
			case "good":
				answer = map[string]any{"exited": true, "exitcode": 0, "out-data": []byte(strings.Join(argv[1:], ",") + "\n")}
			}
		}
		line, _ := json.Marshal(map[string]any{"return": answer})
		conn.Write(append(line, '\n'))
	}
}
