//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"time"
)

// A role is one of our programs at its work: a process after another.
type role struct {
	name string
	s    *soak
	said string // the file of what its processes say

	mu     sync.Mutex
	cmd    *exec.Cmd // nil between two processes
	since  time.Time // when it was started
	kills  int
	starts int
	ended  map[int]int // by exit code, -1 if it was killed
}

func (s *soak) newRole(name string) *role {
	r := &role{name: name, s: s, said: filepath.Join(s.o.dir, "said", name), ended: make(map[int]int)}
	s.roles[name] = r
	s.names = append(s.names, name)
	return r
}

// start starts a process in the role.
func (r *role) start(cmd *exec.Cmd) error {
	if cmd.Stderr == nil {
		f, err := os.OpenFile(r.said, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		defer f.Close()
		cmd.Stderr = f
	}
	if err := r.s.h.clock.Start(cmd); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cmd, r.since = cmd, time.Now()
	r.starts++
	return nil
}

// wait waits for the process to end and returns its exit code, -1 for a signal.
func (r *role) wait(cmd *exec.Cmd) int {
	err := cmd.Wait()
	r.s.h.clock.Done(cmd)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		r.s.violate("%s: %v", r.name, err)
	}
	code := cmd.ProcessState.ExitCode()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cmd = nil
	r.ended[code]++
	return code
}

// kill ends the process that is at it now, if there is one.
func (r *role) kill() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cmd == nil {
		return false
	}
	r.cmd.Process.Kill()
	r.kills++
	return true
}

// pid is the process that is at it, 0 if none.
func (r *role) pid() (pid int, age time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cmd == nil {
		return 0, 0
	}
	return r.cmd.Process.Pid, time.Since(r.since)
}

// restart is how long a supervisor waits.
const restart = 300 * time.Millisecond

// supervise keeps a daemon running until ctx ends, then stops it in order.
func (r *role) supervise(ctx context.Context, argv ...string) {
	for ctx.Err() == nil {
		cmd := r.s.h.command(argv[0], argv[1:]...)
		if err := r.start(cmd); err != nil {
			r.s.violate("%s: %v", r.name, err)
			return
		}
		done := make(chan int)
		go func() { done <- r.wait(cmd) }()
		select {
		case <-done:
		case <-ctx.Done():
			cmd.Process.Signal(syscall.SIGTERM)
			select {
			case code := <-done:
				if code != 0 && code != -1 {
					r.s.violate("%s, asked to end, ends with %d; see %s", r.name, code, r.said)
				}
			case <-time.After(30 * time.Second):
				cmd.Process.Kill()
				<-done
				r.s.violate("%s, asked to end, does not", r.name)
			}
			return
		}
		sleep(ctx, restart)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// crash is what a Go program prints when it is wrong.
var crash = regexp.MustCompile(`(?m)^(panic: |fatal error: |unexpected fault address|WARNING: DATA RACE|SIG[A-Z]+: ).*`)

// crashes looks for crashes in what a role's processes said.
func (r *role) crashes() error {
	text, err := os.ReadFile(r.said)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if m := crash.Find(text); m != nil {
		return fmt.Errorf("%s crashed: %s; see %s", r.name, bytes.TrimSpace(m), r.said)
	}
	return nil
}
