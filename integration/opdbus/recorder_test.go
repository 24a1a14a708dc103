//go:build linux

package opdbus

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/privatebus"
	"github.com/ghostbridge/ghostbridge/integration/tools"
	"github.com/ghostbridge/ghostbridge/pkg/bus"
	"github.com/ghostbridge/ghostbridge/pkg/dbusjson"
	"github.com/ghostbridge/ghostbridge/pkg/names"
	"github.com/ghostbridge/ghostbridge/pkg/opdbus"
)

// The recorder leaves out what recording causes, when it comes from whom it
// should, and nothing else; and it says who sent what.
func TestRecorder(t *testing.T) {
	address := privatebus.Start(t, privatebus.Options{Open: true})
	serve := func(name string) *bus.Server {
		t.Helper()
		s, err := bus.NewServer(t.Context(), address, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		if name != "" {
			if err := s.RequestName(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
		return s
	}
	systemd, own, stranger := serve("org.freedesktop.systemd1"), serve(names.BusName), serve("")
	unitTypes, err := dbusjson.ParseSignature("sa{sv}as")
	if err != nil {
		t.Fatal(err)
	}
	text, _ := dbusjson.ParseType("s")
	state := func(iface, active, sub string) bus.Body {
		return bus.Body{Types: unitTypes, Values: []any{iface, dbusjson.Dict{
			{Key: "ActiveState", Value: dbusjson.Variant{Type: text, Value: active}}, {Key: "SubState", Value: dbusjson.Variant{Type: text, Value: sub}}}, []any{}}}
	}
	w, err := bus.NewWatch(t.Context(), address, 0, bus.Match{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	r, err := opdbus.NewRecorder(t.Context(), "system", w)
	if err != nil {
		t.Fatal(err)
	}
	const manager, unitPath = "org.freedesktop.systemd1.Manager", "/org/freedesktop/systemd1/unit/"
	emit := func(s *bus.Server, path, iface, member string, b bus.Body) {
		t.Helper()
		if err := s.Emit(path, iface, member, b); err != nil {
			t.Fatal(err)
		}
	}
	job := func(unit, result string) bus.Body {
		return bus.NewBody("uoss", uint32(7), dbusjson.Path("/org/freedesktop/systemd1/job/7"), unit, result)
	}
	types, err := dbusjson.ParseSignature("sa{sv}")
	if err != nil {
		t.Fatal(err)
	}
	wifi := bus.Body{Types: types, Values: []any{"net", dbusjson.Dict{{Key: "psk", Value: dbusjson.Variant{Type: text, Value: "geheim"}}}}}

	const unit, changed = "org.freedesktop.systemd1.Unit", "PropertiesChanged"
	// Routine.
	emit(systemd, "/org/freedesktop/systemd1", manager, "JobNew", job("nginx.service", "done"))
	emit(systemd, "/org/freedesktop/systemd1", manager, "JobRemoved", job("btrfs-snapshot.service", "done"))
	emit(systemd, "/org/freedesktop/systemd1", manager, "UnitNew", bus.NewBody("so", "tmp.mount", dbusjson.Path("/x")))
	emit(systemd, unitPath+"btrfs_2dsnapshot_2eservice", "org.freedesktop.DBus.Properties", changed, state(unit, "active", "running"))
	emit(systemd, unitPath+"nginx_2eservice", "org.freedesktop.DBus.Properties", changed, state("org.freedesktop.systemd1.Service", "x", "x"))
	emit(own, names.BusObject, names.BusInterface+".Manager", "EventAppended", bus.NewBody("tt", uint64(1), uint64(2)))
	// Not routine.
	for range 3 { // once
		emit(systemd, unitPath+"nginx_2eservice", "org.freedesktop.DBus.Properties", changed, state(unit, "active", "running"))
	}
	emit(systemd, unitPath+"nginx_2eservice", "org.freedesktop.DBus.Properties", changed, state(unit, "failed", "failed"))
	emit(systemd, unitPath+"btrfs_2dsnapshot_2eservice", "org.freedesktop.DBus.Properties", changed, state(unit, "failed", "failed"))
	emit(systemd, "/org/freedesktop/systemd1", manager, "JobRemoved", job("btrfs-snapshot.service", "failed"))
	emit(systemd, "/org/freedesktop/systemd1", manager, "JobRemoved", job("nginx.service", "done"))
	emit(stranger, "/org/freedesktop/systemd1", manager, "JobRemoved", job("btrfs-snapshot.service", "done"))
	emit(stranger, names.BusObject, names.BusInterface+".Manager", "EventAppended", bus.NewBody("tt", uint64(1), uint64(2)))
	emit(own, names.BusObject, names.BusInterface+".Manager", "Applied", wifi)
	serve("org.example.New") // a name and a connection
	emit(stranger, "/end", "org.example.X", "End", bus.Body{})

	var got []string
	for {
		s, err := w.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range r.Events(t.Context(), s) {
			var e struct {
				Actor, Message string
				Data           struct {
					Args   json.RawMessage
					Sender struct {
						Unique string
						UID    *uint32
						PID    int
					}
				}
			}
			if err := json.Unmarshal(line, &e); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(e.Message, " from "+e.Actor+" ") && !strings.HasPrefix(e.Message, "unit ") {
				t.Errorf("%q by %q", e.Message, e.Actor)
			}
			if s.Sender != "org.freedesktop.DBus" && (e.Data.Sender.UID == nil || e.Data.Sender.PID != os.Getpid() || e.Data.Sender.Unique != s.Sender) {
				t.Errorf("the sender is %+v", e.Data.Sender)
			}
			if strings.Contains(string(line), "geheim") {
				t.Errorf("a secret: %s", line)
			}
			actor := e.Actor
			if strings.HasPrefix(actor, ":") || strings.HasSuffix(actor, ".service") || strings.HasSuffix(actor, ".scope") {
				actor = "stranger"
			}
			got = append(got, fmt.Sprint(actor, " ", s.Member))
		}
		if s.Member == "End" {
			break
		}
	}
	want := []string{"org.freedesktop.systemd1 JobRemoved", "org.freedesktop.systemd1 JobRemoved", "stranger JobRemoved", "stranger EventAppended",
		"org.freedesktop.systemd1 PropertiesChanged", "org.freedesktop.systemd1 PropertiesChanged", "org.freedesktop.systemd1 PropertiesChanged", names.BusName + " Applied",
		"org.freedesktop.DBus NameOwnerChanged", "stranger End"}
	// The bus's own news come in between.
	if sorted(got) != sorted(want) {
		t.Errorf("recorded\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// What the unit runs: the recorder's lines are taken by the log as they are.
func TestRecorderIntoTheLog(t *testing.T) {
	r := newRig(t, lampRule)
	privatebus.Run(t, "", r.env, tools.Path(t, "gb-chain"), "append", "--socket", r.dir+"/chain.sock", "--", tools.Path(t, "opdbus"), "watch", "--recorder")
	c, err := bus.NewServer(t.Context(), r.address, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r.wait("a signal in the log", func() bool {
		if err := c.Emit("/org/example/X", "org.example.X", "Tick", bus.NewBody("s", "x")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
		return strings.Contains(r.must("gb-chain", "query", "--json", "--source", "dbus"), "org.example.X.Tick")
	})
}

func sorted(list []string) string { return strings.Join(slices.Sorted(slices.Values(list)), "\n") }
