//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/peak"
	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/names"
	"github.com/ghostbridge/ghostbridge/pkg/vecsync"
)

// A shipper brings what is new into an index: gb-snap send | gb-vecsync ingest.
type shipper struct {
	s            *soak
	send, ingest *role
	cursor       string
	index        []string
	every        time.Duration

	journal io.Writer // a line for each time
	resent  int       // how often all of a snapshot was sent, since the parent was lost
	full    bool
}

// loop ships until ctx ends.
func (sh *shipper) loop(ctx context.Context) {
	for ctx.Err() == nil {
		begin := time.Now()
		if _, err := sh.ship(); err != nil {
			sh.s.violate("%v", err)
			return
		}
		sleep(ctx, sh.every-time.Since(begin))
	}
}

// tooLong is how long no stream takes, on a disk that is full for some seconds and
// with a Qdrant that is away for a quarter of a minute.
const tooLong = time.Minute

// ship ships once and says whether the index took it. The error is of the soak
// itself.
func (sh *shipper) ship() (bool, error) {
	h, begin := sh.s.h, time.Now()
	args := []string{"send", "--cursor", sh.cursor, h.source()}
	if sh.full {
		args = []string{"send", "--parent", "none", h.source()}
	}
	send := h.command(names.GBSnap, args...)
	ingest := h.command(names.GBVecsync, append([]string{"ingest", "--cursor", sh.cursor}, sh.index...)...)
	r, w, err := os.Pipe()
	if err != nil {
		return false, err
	}
	send.Stdout, ingest.Stdin = w, r
	err = sh.send.start(send)
	w.Close()
	if err != nil {
		r.Close()
		return false, err
	}
	err = sh.ingest.start(ingest)
	r.Close()
	if err != nil {
		sh.send.wait(send)
		return false, err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		sh.send.wait(send)
	}()
	watched := make(chan struct{})
	peaks := make(chan int64, 1)
	go func() {
		var greatest int64
		for {
			greatest = max(greatest, peak.HighWater(ingest.Process.Pid))
			select {
			case <-watched:
				peaks <- greatest
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	hung := time.AfterFunc(tooLong, func() {
		sh.s.violate("%s and %s have taken %s; see what their goroutines do in %s and %s", sh.send.name, sh.ingest.name, tooLong, sh.send.said, sh.ingest.said)
		send.Process.Signal(syscall.SIGQUIT)
		ingest.Process.Signal(syscall.SIGQUIT)
	})
	code := sh.ingest.wait(ingest)
	close(watched)
	<-ended
	hung.Stop()
	sh.s.meter.peak(sh.ingest.name, <-peaks)
	sendCode := send.ProcessState.ExitCode()
	// A stream that is cut off, since its sender was killed, is no good one. Any
	// other that is not speaks of a log that was changed.
	if code == cli.ExitVerify && sendCode == 0 {
		sh.s.violate("%s ends with %d: verification failed; see %s", sh.ingest.name, code, sh.ingest.said)
	}
	at, _ := sh.at()
	fmt.Fprintf(sh.journal, "%7.1f s  took %4.1f s  send %d  ingest %d  index at %d\n", begin.Sub(sh.s.begin).Seconds(), time.Since(begin).Seconds(), sendCode, code, at)
	if sendCode == cli.ExitLostParent || code == cli.ExitLostParent {
		sh.full = true
		sh.resent++
		return false, nil
	}
	if code != 0 || sendCode != 0 {
		return false, nil
	}
	sh.full = false
	return true, nil
}

// at is how many events are in the index, by its cursor; 0 without one.
func (sh *shipper) at() (int64, error) {
	data, err := os.ReadFile(sh.cursor)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	var c vecsync.Cursor
	if err := json.Unmarshal(data, &c); err != nil {
		return 0, fmt.Errorf("cursor %s: %w", sh.cursor, err)
	}
	return c.TreeSize, nil
}
