//go:build linux

package ovs

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/vswitch"
	"github.com/ghostbridge/ghostbridge/pkg/ovs"
	"github.com/ghostbridge/ghostbridge/pkg/ovsdb"
)

// The server holds an answer back until the switch has taken a configuration:
// not sooner, and at once when it has.
func TestSettleWaits(t *testing.T) {
	s := vswitch.Start(t, vswitch.Options{NoSwitch: true})
	db := dial(t, s)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	answer := make(chan error, 1)
	go func() { answer <- ovs.Settle(ctx, db, 2, nil) }()
	for cur := range 2 {
		if _, err := s.Vsctl("--no-wait", "--", "set", "Open_vSwitch", ".", "cur_cfg="+strconv.Itoa(cur)); err != nil {
			t.Fatal(err)
		}
		// Another question over the same connection is answered meanwhile.
		if _, err := ovs.ReadState(ctx, db); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-answer:
			t.Fatalf("cur_cfg is %d: %v", cur, err)
		default:
		}
	}
	if _, err := s.Vsctl("--no-wait", "--", "set", "Open_vSwitch", ".", "cur_cfg=7"); err != nil {
		t.Fatal(err)
	}
	if err := <-answer; err != nil {
		t.Error(err)
	}
	// The server says so in time, or a busy machine has it say so too late:
	// then it is asked again.
	for limit := 500 * time.Millisecond; ; limit *= 2 {
		short, stop := context.WithTimeout(context.Background(), limit)
		err := ovs.Settle(short, db, 8, nil)
		stop()
		var late *ovsdb.SilentError
		if errors.As(err, &late) && limit < time.Minute {
			continue
		}
		var dead *ovs.DeadSwitchError
		if !errors.As(err, &dead) || errors.Is(err, ovsdb.ErrConflict) {
			t.Errorf("a switch that does not take it: %v", err)
		}
		break
	}
	s.StopDB()
	defer s.ContinueDB()
	silent, stop := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer stop()
	var hung *ovsdb.SilentError
	if err := ovs.Settle(silent, db, 8, nil); !errors.As(err, &hung) {
		t.Errorf("a server that does not answer: %v", err)
	}
}

// A journal keeps its connection, and makes another where the log's daemon was
// started anew in between.
func TestJournalOutlivesTheDaemon(t *testing.T) {
	h := newHost(t)
	j := &ovs.Journal{Socket: h.path("chain.sock"), Spool: h.path("spool")}
	defer j.Close()
	ctx := context.Background()
	record := func(message string) {
		t.Helper()
		h.must(j.Intent(ctx, ovs.Event{Type: "test.intent", Message: message}))
	}
	record("the first")
	record("the second")
	h.stopLog()
	var missing *ovs.UnrecordedError
	if err := j.Intent(ctx, ovs.Event{Type: "test.intent", Message: "nobody hears it"}); !errors.As(err, &missing) {
		t.Fatalf("without a daemon: %v", err)
	}
	h.must(j.Restoring(ctx, ovs.Event{Type: "test.intent", Message: "it waits"}))
	h.startLog()
	record("the third")
	h.stopLog()
	h.startLog()
	record("the fourth")
	h.contains(h.events(), "the first", "the second", "it waits", `"spooled":true`, "the third", "the fourth")
}
