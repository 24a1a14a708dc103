// Package systemd is a service's side of systemd: sockets that it was started
// with (sd_listen_fds(3)), and what it tells about itself (sd_notify(3)),
// watchdog included. Without systemd all of it does nothing.
//
// Both protocols are a few environment variables: LISTEN_PID, LISTEN_FDS and
// LISTEN_FDNAMES say which descriptors from 3 on are sockets and for which
// process; NOTIFY_SOCKET names a Unix datagram socket that takes lines of
// KEY=VALUE; WATCHDOG_USEC and WATCHDOG_PID say how often to send WATCHDOG=1.
package systemd

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// firstFD is SD_LISTEN_FDS_START.
const firstFD = 3

// maxFDs bounds what LISTEN_FDS may claim.
const maxFDs = 64

// Listeners returns the listening stream sockets that systemd has passed, none
// if it passed none. It is to be called once: it takes the descriptors over
// and removes the variables, so that children don't believe them theirs. The
// socket files of Unix listeners belong to systemd: closing one leaves its
// file.
func Listeners() ([]net.Listener, error) {
	n, err := passed(os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS"), os.Getpid())
	for _, v := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		os.Unsetenv(v)
	}
	if err != nil {
		return nil, err
	}
	var list []net.Listener
	var errs []error
	for fd := firstFD; fd < firstFD+n; fd++ {
		unix.CloseOnExec(fd)
		f := os.NewFile(uintptr(fd), fmt.Sprintf("socket %d of systemd", fd))
		l, err := net.FileListener(f) // duplicates the descriptor
		f.Close()
		if err != nil {
			errs = append(errs, fmt.Errorf("socket %d of systemd: %w", fd, err))
			continue
		}
		if u, ok := l.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(false)
		}
		list = append(list, l)
	}
	if len(errs) > 0 {
		for _, l := range list {
			l.Close()
		}
		return nil, errors.Join(errs...)
	}
	return list, nil
}

// ListenUnix listens on a Unix socket that its owner and group may use, where
// systemd has passed none. A socket that is left over, with nobody behind it,
// is removed first.
func ListenUnix(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&fs.ModeSocket != 0 {
		if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
			conn.Close()
			return nil, fmt.Errorf("socket %s: another daemon answers there", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o660); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// passed returns the number of descriptors that are meant for process self.
func passed(pid, fds string, self int) (int, error) {
	if pid == "" || fds == "" {
		return 0, nil
	}
	if p, err := strconv.Atoi(pid); err != nil {
		return 0, fmt.Errorf("LISTEN_PID=%q: %w", pid, errNumber)
	} else if p != self {
		return 0, nil
	}
	n, err := strconv.Atoi(fds)
	if err != nil || n < 0 || n > maxFDs {
		return 0, fmt.Errorf("LISTEN_FDS=%q: %w", fds, errNumber)
	}
	return n, nil
}

var errNumber = errors.New("not a number that makes sense")

// Notify sends lines of KEY=VALUE to systemd, such as "READY=1" or
// "STATUS=12 events". It reports whether there was somebody to send them to.
func Notify(lines ...string) (bool, error) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" || len(lines) == 0 {
		return false, nil
	}
	if path[0] != '/' && path[0] != '@' {
		return false, fmt.Errorf("NOTIFY_SOCKET=%q: want a path or an abstract name", path)
	}
	for _, l := range lines {
		if strings.Contains(l, "\n") {
			return false, fmt.Errorf("notify systemd: a line break in %q", l)
		}
	}
	// An abstract name starts with @ here and with a zero byte for the kernel,
	// which is also how package net has it.
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return false, fmt.Errorf("notify systemd: %w", err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(strings.Join(lines, "\n"))); err != nil {
		return false, fmt.Errorf("notify systemd: %w", err)
	}
	return true, nil
}

// WatchdogInterval returns within which time systemd wants to hear from this
// process, and whether it wants to.
func WatchdogInterval() (time.Duration, bool) {
	return watchdog(os.Getenv("WATCHDOG_PID"), os.Getenv("WATCHDOG_USEC"), os.Getpid())
}

func watchdog(pid, usec string, self int) (time.Duration, bool) {
	if pid != "" {
		if p, err := strconv.Atoi(pid); err != nil || p != self {
			return 0, false
		}
	}
	us, err := strconv.ParseInt(usec, 10, 64)
	if err != nil || us <= 0 || us > int64(time.Duration(1<<63-1)/time.Microsecond) {
		return 0, false
	}
	return time.Duration(us) * time.Microsecond, true
}

// A Watchdog tells systemd that a service is alive. It is fed by the work
// itself, at the place that proves that the work goes on, as often as it
// comes by: at most two messages an interval are sent. The zero Watchdog is
// ready; it may be used by several goroutines.
type Watchdog struct {
	once     sync.Once
	interval time.Duration

	mu   sync.Mutex
	next time.Time // do not send before
}

// Alive feeds the watchdog. An error of sending is left to systemd, which
// will miss the message.
func (w *Watchdog) Alive() {
	w.once.Do(func() { w.interval, _ = WatchdogInterval() })
	if w.interval == 0 {
		return
	}
	now := time.Now()
	w.mu.Lock()
	due := !now.Before(w.next)
	if due {
		w.next = now.Add(w.interval / 3)
	}
	w.mu.Unlock()
	if due {
		Notify("WATCHDOG=1")
	}
}
