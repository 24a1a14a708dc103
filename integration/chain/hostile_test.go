//go:build linux

package chain_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/peak"
	"github.com/ghostbridge/ghostbridge/integration/tools"
	"github.com/ghostbridge/ghostbridge/pkg/chain"
	"github.com/ghostbridge/ghostbridge/pkg/event"
)

// The daemon's memory stays bounded while 200 connections send it lines of 16
// MiB at once, of the kinds that cost most: refused at their last byte, and
// with two million keys. Another producer's events are acknowledged meanwhile.
func TestMemoryUnderLongLines(t *testing.T) {
	connections := 200
	if os.Getenv("GB_TORTURE") == "" {
		connections = 30
	}
	l := newTestLog(t)
	l.close()
	socket := filepath.Join(t.TempDir(), "sock")
	serve := exec.Command(tools.Path(t, "gb-chain"), "serve", "--log", l.dir, "--keys", l.keys, "--socket", socket, "--writers", "", "--witnesses", "")
	var said bytes.Buffer
	serve.Stderr = &said
	type outcome struct {
		peak int64
		err  error
	}
	ended := make(chan outcome, 1)
	go func() {
		n, err := peak.Run(serve)
		ended <- outcome{n, err}
	}()
	dial := func() net.Conn {
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			conn, err := net.Dial("unix", socket)
			if err == nil {
				conn.SetDeadline(time.Now().Add(5 * time.Minute))
				return conn
			}
			if time.Now().After(deadline) {
				t.Fatal(err)
			}
		}
	}
	bad := []byte(`{"source":"demo","type":"t","message":"` + strings.Repeat("x", event.MaxInput-64) + "\"!\n")
	var keys bytes.Buffer
	keys.WriteString(`{"source":"demo","type":"t","data":{"":0`)
	for k := 0; keys.Len() < event.MaxInput-32; k++ {
		fmt.Fprintf(&keys, `,"%x":0`, k)
	}
	keys.WriteString("}!\n")

	var stop atomic.Bool
	acked := 0
	first := dial()
	var wg, quiet sync.WaitGroup
	quiet.Go(func() {
		defer first.Close()
		answers := bufio.NewReader(first)
		for !stop.Load() {
			if _, err := io.WriteString(first, `{"source":"demo","type":"t","message":"small"}`+"\n"); err != nil {
				t.Error(err)
				return
			}
			if answer, err := answers.ReadString('\n'); err != nil || !strings.HasPrefix(answer, `{"first":`) {
				t.Errorf("%q, %v", answer, err)
				return
			}
			acked++
		}
	})
	for k := range connections {
		wg.Go(func() {
			conn := dial()
			defer conn.Close()
			line := bad
			if k%4 == 0 {
				line = keys.Bytes()
			}
			if _, err := conn.Write(line); err != nil {
				t.Error(err)
				return
			}
			answer, err := io.ReadAll(conn)
			if err != nil || !strings.Contains(string(answer), `"line":1`) {
				t.Errorf("%q, %v", answer, err)
			}
		})
	}
	wg.Wait()
	stop.Store(true)
	quiet.Wait()
	serve.Process.Signal(syscall.SIGTERM)
	o := <-ended
	t.Logf("%d connections with lines of 16 MiB: %.0f MB, %d events of another", connections, float64(o.peak)/1e6, acked)
	if o.err != nil {
		t.Errorf("%v\n%s", o.err, &said)
	}
	if o.peak > chain.MemoryLimit {
		t.Errorf("%.0f MB, above the limit of %d", float64(o.peak)/1e6, chain.MemoryLimit/1_000_000)
	}
	if r, err := chain.Verify(t.Context(), os.DirFS(l.dir), chain.VerifyOptions{}); err != nil || !r.OK || r.Size != int64(acked)+1 {
		t.Errorf("%v, %+v", err, r)
	}
}
