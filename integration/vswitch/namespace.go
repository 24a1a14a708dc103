//go:build linux

package vswitch

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Enter calls do on a thread in the network namespace ns, a name of ip-netns(8)
// or an absolute path: sockets that do opens itself, not in other goroutines,
// are there.
func Enter(ns string, do func() error) error {
	if !filepath.IsAbs(ns) {
		ns = filepath.Join("/run/netns", ns)
	}
	f, err := os.Open(ns)
	if err != nil {
		return err
	}
	defer f.Close()
	result := make(chan error)
	go func() {
		// The thread goes back and lives on: it may have started a daemon,
		// which would die with it (PDEATHSIG).
		runtime.LockOSThread()
		own, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			result <- err
			return
		}
		defer own.Close()
		if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
			result <- fmt.Errorf("enter %s: %w", ns, err)
			return
		}
		err = do()
		if unix.Setns(int(own.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		result <- err
	}()
	return <-result
}

// Transfer sends size bytes by TCP from one namespace to an address in
// another, within limit, and fails unless all of them come.
func Transfer(from, to, address string, size int64, limit time.Duration) error {
	var l net.Listener
	err := Enter(to, func() (err error) {
		l, err = net.Listen("tcp4", address+":0")
		return err
	})
	if err != nil {
		return err
	}
	defer l.Close()
	got := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			got <- err
			return
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(limit))
		n, err := io.Copy(io.Discard, c)
		if err == nil && n != size {
			err = fmt.Errorf("%d bytes of %d came", n, size)
		}
		got <- err
	}()
	return Enter(from, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp4", l.Addr().String())
		if err != nil {
			return err
		}
		c.SetDeadline(time.Now().Add(limit))
		_, err = io.CopyN(c, zeros{}, size)
		c.Close()
		if err != nil {
			return err
		}
		return <-got
	})
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }
