//go:build linux

// Package peak runs a program and says how much memory it took.
//
// The kernel's getrusage does not say it: what a process was before it
// executed the program, a part of its large parent, counts there too.
package peak

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Run runs cmd like cmd.Run and returns the greatest resident size of its
// process in bytes. It stops the process when that is about to end, by
// ptrace(2), and looks: so the figure is exact also of a process of a few
// milliseconds. It is 0 of one that was killed, and an error where the system
// forbids ptrace.
func Run(cmd *exec.Cmd) (int64, error) {
	runtime.LockOSThread() // whom the kernel takes for the tracer
	defer runtime.UnlockOSThread()
	var attr syscall.SysProcAttr
	if cmd.SysProcAttr != nil {
		attr = *cmd.SysProcAttr
	}
	attr.Ptrace = true
	cmd.SysProcAttr = &attr
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	greatest, traced := follow(cmd.Process.Pid)
	if traced != nil {
		cmd.Process.Kill() // it may have stopped for good
	}
	err := cmd.Wait()
	if traced != nil {
		return 0, fmt.Errorf("peak of %s: %w", cmd.Path, traced)
	}
	return greatest, err
}

// follow lets a process that has just executed its program go on, and returns
// HighWater of when it is about to end.
func follow(pid int) (int64, error) {
	for begun := false; ; begun = true {
		// Look first: a process that has ended is for cmd.Wait to take.
		var info unix.Siginfo
		if err := again(func() error {
			return unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WSTOPPED|unix.WNOWAIT, nil)
		}); err != nil {
			return 0, err
		}
		const trapped, stopped = 4, 5 // CLD_TRAPPED, CLD_STOPPED of siginfo(5)
		if info.Code != trapped && info.Code != stopped {
			return 0, nil
		}
		var status unix.WaitStatus
		if err := again(func() error { _, err := unix.Wait4(pid, &status, 0, nil); return err }); err != nil {
			return 0, err
		}
		pass := 0
		switch {
		case !begun: // stopped by its execve
			if err := unix.PtraceSetOptions(pid, unix.PTRACE_O_TRACEEXIT|unix.PTRACE_O_TRACEEXEC); err != nil {
				return 0, err
			}
		case status.TrapCause() == unix.PTRACE_EVENT_EXIT:
			return HighWater(pid), unix.PtraceDetach(pid)
		case status.TrapCause() == unix.PTRACE_EVENT_EXEC:
		default: // a signal that is meant for it
			pass = int(status.StopSignal())
		}
		if err := unix.PtraceCont(pid, pass); err != nil && err != unix.ESRCH { // ESRCH: killed meanwhile
			return 0, err
		}
	}
}

func again(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

// HighWater returns the greatest resident size that a process has had (VmHWM of
// proc(5)) in bytes, 0 if there is none. It is of the program that the process
// executes now.
func HighWater(pid int) int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := bytes.Cut(status, []byte("\nVmHWM:"))
	value, _, _ := bytes.Cut(rest, []byte(" kB"))
	kib, err := strconv.ParseInt(string(bytes.TrimSpace(value)), 10, 64)
	if err != nil {
		return 0
	}
	return kib << 10
}
