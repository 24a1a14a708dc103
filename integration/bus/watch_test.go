//go:build linux

package bus

import (
	"bufio"
	"context"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/privatebus"
	"github.com/ghostbridge/ghostbridge/pkg/bus"
)

// floodOf is how many signals a flood has.
const floodOf = 50_000

// flood sends signals from a libdbus program when go is called, and returns
// when the bus has them all.
func flood(t *testing.T, address string) (start func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, privatebus.Python, "testdata/flood.py", address, strconv.Itoa(floodOf))
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(out)
	line := func(want string) {
		text, err := r.ReadString('\n')
		if err != nil || !strings.HasPrefix(text, want) {
			t.Fatalf("flood.py: %q, %v", text, err)
		}
		if want == "sent" {
			t.Log(floodOf, "signals:", strings.TrimSpace(text))
		}
	}
	line("ready")
	return func() {
		t.Helper()
		io.WriteString(in, "go\n")
		line("sent")
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
	}
}

var ticks = bus.Match{Interface: "org.example.Flood"}

// A reader that keeps up gets each signal of a flood, in order.
func TestFloodInOrder(t *testing.T) {
	address := privatebus.Start(t, privatebus.Options{Open: true})
	w, err := bus.NewWatch(t.Context(), address, floodOf+1, ticks)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	start := flood(t, address)
	var sent sync.WaitGroup
	sent.Go(start)
	defer sent.Wait()
	for want := uint32(0); ; want++ {
		s, err := w.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if s.Dropped > 0 || s.Err != nil {
			t.Fatalf("before %d: %d dropped, %v", want, s.Dropped, s.Err)
		}
		if s.Member == "End" {
			if want != floodOf {
				t.Fatalf("%d signals, want %d", want, floodOf)
			}
			break
		}
		if got := s.Body.Values[0]; got != want {
			t.Fatalf("signal %v came in the place of %d", got, want)
		}
	}
}

// A reader that doesn't read holds up nobody: the sender gets its answer, a
// third party is served, and the reader learns how many it lost.
func TestSlowReaderLearnsWhatItLost(t *testing.T) {
	address := privatebus.Start(t, privatebus.Options{Open: true})
	const queue = 100
	w, err := bus.NewWatch(t.Context(), address, queue, ticks)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	flood(t, address)() // nobody reads, and it ends
	c, err := bus.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Names(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(time.Minute)
	for w.Dropped() != floodOf+1-queue {
		if time.Now().After(deadline) {
			t.Fatalf("%d dropped", w.Dropped())
		}
		time.Sleep(5 * time.Millisecond)
	}
	for want := range uint32(queue) {
		s, err := w.Next(t.Context())
		if err != nil || s.Body.Values[0] != want || s.Dropped != 0 {
			t.Fatalf("%v, %v, want %d", s, err, want)
		}
	}
	// The next one to come says what is missing before it.
	cmd := exec.Command("dbus-send", "--bus="+address, "--type=signal", "/org/example/Flood", "org.example.Flood.Late")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s, err := w.Next(t.Context())
	if err != nil || s.Member != "Late" || s.Dropped != floodOf+1-queue {
		t.Fatalf("%v, %v", s, err)
	}
}

// What was queued is still read when the bus is gone; then comes ErrClosed.
func TestWatchOutlivesItsBus(t *testing.T) {
	dir := privatebus.OpenDir(t)
	address, stop, err := privatebus.Make(dir, privatebus.Options{Open: true})
	if err != nil {
		t.Fatal(err)
	}
	w, err := bus.NewWatch(t.Context(), address, 0, ticks)
	if err != nil {
		stop()
		t.Fatal(err)
	}
	defer w.Close()
	if out, err := exec.Command("dbus-send", "--bus="+address, "--type=signal", "/a", "org.example.Flood.Last").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if _, err := w.Conn().Names(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	<-w.Conn().Done()
	if s, err := w.Next(t.Context()); err != nil || s.Member != "Last" {
		t.Fatalf("%v, %v", s, err)
	}
	if _, err := w.Next(t.Context()); err != bus.ErrClosed {
		t.Fatalf("%v, want ErrClosed", err)
	}
	if _, err := w.Conn().Names(t.Context(), false); err != bus.ErrClosed {
		t.Fatalf("%v, want ErrClosed", err)
	}
}
