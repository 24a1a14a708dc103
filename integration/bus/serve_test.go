//go:build linux

package bus

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/privatebus"
	"github.com/ghostbridge/ghostbridge/pkg/bus"
)

func serve(t *testing.T, address string, h bus.Handler) *bus.Server {
	t.Helper()
	srv, err := bus.NewServer(t.Context(), address, h)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { srv.Close() })
	if err := srv.RequestName(t.Context(), "org.example.Served"); err != nil {
		t.Fatal(err)
	}
	return srv
}

func call(member string) bus.Call {
	return bus.Call{Name: "org.example.Served", Path: "/", Interface: "org.example.Served", Member: member}
}

// A handler that panics, or fails, costs its caller an error and nobody else
// anything.
func TestPanicIsTheCallersError(t *testing.T) {
	address := privatebus.Start(t, privatebus.Options{Open: true})
	serve(t, address, func(_ context.Context, in bus.Incoming) (bus.Body, error) {
		switch in.Member {
		case "Panic":
			panic("oh")
		case "Fail":
			return bus.Body{}, errors.New("no")
		}
		return bus.NewBody("s", in.Sender), nil
	})
	c, err := bus.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for member, text := range map[string]string{"Panic": "internal error: oh", "Fail": "no"} {
		var e *bus.Error
		if _, err := c.Call(t.Context(), call(member)); !errors.As(err, &e) || e.Name != "org.freedesktop.DBus.Error.Failed" || e.Message != text {
			t.Errorf("%s: %v", member, err)
		}
	}
	if b, err := c.Call(t.Context(), call("Who")); err != nil || b.Values[0] != c.Unique() {
		t.Errorf("%v, %v", b, err)
	}
	// Another program sees the same; Peer is there for every path.
	out, err := exec.Command("busctl", "--address="+address, "call", "org.example.Served", "/any/path", "org.freedesktop.DBus.Peer", "GetMachineId").CombinedOutput()
	id, _ := os.ReadFile("/etc/machine-id")
	if err == nil && !strings.Contains(string(out), strings.TrimSpace(string(id))) || err != nil && !strings.Contains(string(out), "machine-id") {
		t.Errorf("GetMachineId: %s, %v", out, err)
	}
}

// One sender can't take all of a server: what it asks for past MaxPerSender is
// refused, and others are served meanwhile.
func TestOneSenderCantTakeAll(t *testing.T) {
	address := privatebus.Start(t, privatebus.Options{Open: true})
	hold := make(chan struct{})
	serve(t, address, func(_ context.Context, in bus.Incoming) (bus.Body, error) {
		if in.Member == "Hold" {
			<-hold
		}
		return bus.Body{}, nil
	})
	greedy, err := bus.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer greedy.Close()
	other, err := bus.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	const calls = 3 * bus.MaxPerSender
	results := make(chan error, calls)
	var wg sync.WaitGroup
	for range calls {
		wg.Go(func() {
			_, err := greedy.Call(t.Context(), call("Hold"))
			results <- err
		})
	}
	for range calls - bus.MaxPerSender {
		var e *bus.Error
		if err := <-results; !errors.As(err, &e) || e.Name != "org.freedesktop.DBus.Error.LimitsExceeded" {
			t.Fatalf("%v, want LimitsExceeded", err)
		}
	}
	if _, err := other.Call(t.Context(), call("Quick")); err != nil {
		t.Error(err)
	}
	close(hold)
	wg.Wait()
	for range bus.MaxPerSender {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}

// A service that never answers costs no longer than the caller gives it, and
// the error says that it may have been done.
func TestBlackHole(t *testing.T) {
	address := privatebus.Start(t, privatebus.Options{Open: true})
	privatebus.Run(t, "", []string{"DBUS_SESSION_BUS_ADDRESS=" + address}, "dbus-test-tool", "black-hole", "--session", "--name=org.example.BlackHole")
	privatebus.WaitName(t, address, "org.example.BlackHole")
	c, err := bus.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	var timeout *bus.TimeoutError
	if _, err := c.Call(ctx, bus.Call{Name: "org.example.BlackHole", Path: "/", Interface: "a.b", Member: "C"}); !errors.As(err, &timeout) {
		t.Errorf("%v, want a TimeoutError", err)
	}
	// The connection is still good.
	if _, err := c.Owner(t.Context(), "org.example.BlackHole", false); err != nil {
		t.Error(err)
	}
}

// What the bus would end the connection for is refused before it is sent.
func TestWrongNamesAreNotSent(t *testing.T) {
	address := privatebus.Start(t, privatebus.Options{Open: true})
	c, err := bus.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	good := bus.Call{Name: "org.freedesktop.DBus", Path: "/", Interface: "org.freedesktop.DBus.Peer", Member: "Ping"}
	for _, change := range []func(*bus.Call){
		func(c *bus.Call) { c.Name = "x" }, func(c *bus.Call) { c.Name = "" }, func(c *bus.Call) { c.Path = "a/" }, func(c *bus.Call) { c.Path = "/a\x00" },
		func(c *bus.Call) { c.Interface = "x" }, func(c *bus.Call) { c.Interface = strings.Repeat("a.", 200) + "b" }, func(c *bus.Call) { c.Member = "a.b" }, func(c *bus.Call) { c.Member = "" },
		func(c *bus.Call) { c.Args = bus.NewBody("s", "\xff") }, func(c *bus.Call) { c.Args = bus.NewBody("s", "a\x00") },
	} {
		bad := good
		change(&bad)
		if _, err := c.Call(t.Context(), bad); err == nil {
			t.Errorf("%+v was sent", bad)
		}
	}
	if _, err := c.Call(t.Context(), good); err != nil {
		t.Error(err)
	}
}

// An answer that the bus would end the connection for is an error instead.
func TestLongAnswers(t *testing.T) {
	address := privatebus.Start(t, privatebus.Options{Open: true})
	serve(t, address, func(_ context.Context, in bus.Incoming) (bus.Body, error) {
		if in.Member == "Fail" {
			return bus.Body{}, &bus.Error{Name: "org.example.Long", Message: strings.Repeat("ä", bus.MaxAnswer)}
		}
		return bus.NewBody("s", strings.Repeat("x", bus.MaxAnswer)), nil
	})
	c, err := bus.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for member, name := range map[string]string{"Long": "org.freedesktop.DBus.Error.LimitsExceeded", "Fail": "org.example.Long"} {
		var e *bus.Error
		if _, err := c.Call(t.Context(), call(member)); !errors.As(err, &e) || e.Name != name || len(e.Message) > 1<<17 {
			t.Errorf("%s: %.200v", member, err)
		}
	}
}

// Who owns a name is known without asking, and is forgotten when that changes.
func TestKnownOwner(t *testing.T) {
	address := privatebus.Start(t, privatebus.Options{Open: true})
	c, err := bus.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const name = "org.example.Moves"
	if owner, err := c.KnownOwner(t.Context(), name, false); err == nil {
		t.Errorf("nobody has it, but %s", owner)
	}
	for range 5 {
		srv, err := bus.NewServer(t.Context(), address, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := srv.RequestName(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		// The bus has told c of it before it answers anything that is asked later.
		if _, err := c.Owner(t.Context(), name, false); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if owner, err := c.KnownOwner(t.Context(), name, false); err != nil || owner != srv.Unique() {
				t.Errorf("%s has it, not %s, %v", srv.Unique(), owner, err)
			}
		}
		srv.Close()
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			if _, err := c.Owner(t.Context(), name, false); err != nil {
				break
			}
		}
		if owner, err := c.KnownOwner(t.Context(), name, false); err == nil {
			t.Errorf("%s is gone, and has the name", owner)
		}
	}
	// More names than the bus would tell of.
	for n := range 200 {
		if owner, err := c.KnownOwner(t.Context(), fmt.Sprintf("org.example.N%d", n), false); err == nil {
			t.Errorf("somebody has it: %s", owner)
		}
	}
	srv := serve(t, address, nil)
	if owner, err := c.KnownOwner(t.Context(), "org.example.Served", false); err != nil || owner != srv.Unique() {
		t.Errorf("%s, %v", owner, err)
	}
}

// A tree that was looked at before is looked at anew where a name has another
// owner.
func TestTreeOfAllFollows(t *testing.T) {
	address := privatebus.Start(t, privatebus.Options{Open: true})
	c, err := bus.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, child := range []string{"one", "two"} {
		var asked atomic.Int64
		srv := serve(t, address, func(_ context.Context, in bus.Incoming) (bus.Body, error) {
			asked.Add(1)
			xml := "<node/>"
			if in.Path == "/" {
				xml = `<node><node name="` + child + `"/></node>`
			}
			return bus.NewBody("s", xml), nil
		})
		for range 2 {
			list, err := c.TreeOfAll(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var have []string
			for _, n := range list {
				if n.Name.Name == "org.example.Served" {
					for _, o := range n.Objects {
						have = append(have, o.Path)
					}
				}
			}
			if strings.Join(have, " ") != "/ /"+child {
				t.Errorf("%v, want / and its child %s", have, child)
			}
		}
		if n := asked.Load(); n != 2 {
			t.Errorf("%d questions about two objects", n)
		}
		srv.Close()
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			if _, err := c.Owner(t.Context(), "org.example.Served", false); err != nil {
				break
			}
		}
	}
}
