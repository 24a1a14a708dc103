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
	"strconv"
	"time"
)

const every = 5 * time.Millisecond

// Run runs cmd like cmd.Run and returns the greatest resident size of its
// process in bytes, short of what it took in its last 5 ms.
func Run(cmd *exec.Cmd) (int64, error) {
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	ended := make(chan struct{})
	found := make(chan int64)
	go func() {
		var greatest int64
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			greatest = max(greatest, HighWater(cmd.Process.Pid))
			select {
			case <-tick.C:
			case <-ended:
				found <- greatest
				return
			}
		}
	}()
	err := cmd.Wait()
	close(ended)
	return <-found, err
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
