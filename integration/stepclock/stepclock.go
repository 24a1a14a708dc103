//go:build linux && amd64

// Package stepclock starts programs whose wall clock can be stepped while they
// run, without touching the machine's.
//
// A program reads the clock in the vDSO, code that the kernel maps into each
// process. Each process started here gets its own copy of clock_gettime(2)
// there replaced, before its first instruction, by one that makes the system
// call and adds an offset to CLOCK_REALTIME; Step writes the offset. So the
// program is the one that users run, and sees what a step of the machine's clock
// shows it: time.Now jumps, timers and the monotonic clock do not.
//
// What the kernel stamps by itself is not stepped: times of files, otime of a
// btrfs subvolume, the time of a kernel message. Neither are time(2) and
// gettimeofday(2), which Go does not use, nor the children of a process.
package stepclock

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Supported says whether programs' clocks can be stepped here.
const Supported = true

// A Clock is the machine's clock and an offset. Its methods may be called by
// several goroutines. The zero value is not usable.
type Clock struct {
	starts chan func() // run on one thread, which lives as long as this process

	mu     sync.Mutex
	offset int64          // seconds
	procs  map[int]uint64 // pid to the address of its offset
}

// New returns a clock that shows the machine's time.
func New() *Clock {
	c := &Clock{starts: make(chan func()), procs: make(map[int]uint64)}
	go func() {
		// A tracer is a thread, and so is what PDEATHSIG goes by.
		runtime.LockOSThread()
		for f := range c.starts {
			f()
		}
	}()
	return c
}

// Start starts cmd like cmd.Start, on this clock. Done must be told when the
// process was waited for.
func (c *Clock) Start(cmd *exec.Cmd) error {
	result := make(chan error)
	c.starts <- func() { result <- c.start(cmd) }
	return <-result
}

func (c *Clock) start(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Ptrace = true // it stops when it has executed the program
	if err := cmd.Start(); err != nil {
		return err
	}
	pid := cmd.Process.Pid
	err := c.adopt(pid)
	if derr := syscall.PtraceDetach(pid); err == nil && derr != nil {
		err = fmt.Errorf("detach: %w", derr)
	}
	if err != nil {
		cmd.Process.Kill()
		cmd.Wait()
		return fmt.Errorf("a clock for %s: %w", cmd.Path, err)
	}
	return nil
}

// adopt replaces the clock of a process that is stopped at its start.
func (c *Clock) adopt(pid int) error {
	var status syscall.WaitStatus
	for {
		_, err := syscall.Wait4(pid, &status, 0, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("wait: %w", err)
		}
		break
	}
	if !status.Stopped() {
		return fmt.Errorf("it did not stop at its start: %#x", uint32(status))
	}
	mem, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer mem.Close()
	at, err := clockGettime(pid, mem)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	code := append(bytes.Clone(replacement), make([]byte, offsetAt-len(replacement))...)
	code = binary.LittleEndian.AppendUint64(code, uint64(c.offset))
	if _, err := mem.WriteAt(code, int64(at)); err != nil {
		return fmt.Errorf("write to its vDSO: %w", err)
	}
	c.procs[pid] = at + offsetAt
	return nil
}

// Done forgets a process, which has been waited for.
func (c *Clock) Done(cmd *exec.Cmd) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.procs, cmd.Process.Pid)
}

// Step steps the clock by d, in whole seconds, for all processes started on it
// and for those to come. Processes that have ended meanwhile are passed over.
func (c *Clock) Step(d time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offset += int64(d / time.Second)
	var errs []error
	for pid, at := range c.procs {
		if err := poke(pid, at, c.offset); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ESRCH) && !errors.Is(err, syscall.EIO) {
			errs = append(errs, fmt.Errorf("step the clock of process %d: %w", pid, err))
		}
	}
	return errors.Join(errs...)
}

func poke(pid int, at uint64, value int64) error {
	mem, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer mem.Close()
	n, err := mem.WriteAt(binary.LittleEndian.AppendUint64(nil, uint64(value)), int64(at))
	if n == 0 && err == nil {
		return syscall.ESRCH // a process without memory: it has ended
	}
	return err
}

// Offset is by how much the clock is ahead of the machine's.
func (c *Clock) Offset() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Duration(c.offset) * time.Second
}

// Now is the time that the clock shows.
func (c *Clock) Now() time.Time { return time.Now().Round(0).Add(c.Offset()) }

// The replacement of clock_gettime. By the C calling convention the clock is in
// edi and the result in *rsi; the call keeps both.
var replacement = []byte{
	0xf3, 0x0f, 0x1e, 0xfa, // endbr64
	0xb8, 0xe4, 0x00, 0x00, 0x00, // mov eax, SYS_clock_gettime
	0x0f, 0x05, // syscall
	0x85, 0xff, // test edi, edi: CLOCK_REALTIME is 0
	0x75, 0x0a, // jnz to ret
	0x4c, 0x8b, 0x05, offsetAt - 22, 0x00, 0x00, 0x00, // mov r8, [offset]
	0x4c, 0x01, 0x06, // add [rsi], r8: the seconds
	0xc3, // ret
}

// offsetAt is where the offset stands, 8 bytes that are aligned as functions are.
const offsetAt = 48

// clockGettime finds the function in the vDSO of a process.
func clockGettime(pid int, mem *os.File) (at uint64, err error) {
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(maps)) {
		if !strings.HasSuffix(strings.TrimSpace(line), "[vdso]") {
			continue
		}
		span, _, _ := strings.Cut(line, " ")
		from, to, _ := strings.Cut(span, "-")
		first, err1 := strconv.ParseUint(from, 16, 64)
		end, err2 := strconv.ParseUint(to, 16, 64)
		if err := errors.Join(err1, err2); err != nil {
			return 0, err
		}
		image := make([]byte, end-first)
		if _, err := mem.ReadAt(image, int64(first)); err != nil {
			return 0, fmt.Errorf("read its vDSO: %w", err)
		}
		f, err := elf.NewFile(bytes.NewReader(image))
		if err != nil {
			return 0, fmt.Errorf("its vDSO: %w", err)
		}
		symbols, err := f.DynamicSymbols()
		if err != nil {
			return 0, fmt.Errorf("its vDSO: %w", err)
		}
		for _, s := range symbols {
			if s.Name == "__vdso_clock_gettime" {
				if s.Size < offsetAt+8 || s.Value%8 != 0 {
					return 0, fmt.Errorf("clock_gettime in its vDSO has %d bytes at %#x: no room", s.Size, s.Value)
				}
				return first + s.Value, nil
			}
		}
	}
	return 0, errors.New("it has no clock_gettime in a vDSO")
}
