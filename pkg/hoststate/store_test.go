package hoststate

import (
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/ovs"
)

// A change whose boot is not known, since /proc/sys was hidden from who made it,
// is not overdue for that, unless the host has booted since.
func TestOverdue(t *testing.T) {
	here, up := ovs.BootID(), uptime()
	if here == "" {
		t.Fatal("no boot id")
	}
	for _, c := range []struct {
		id   string
		made time.Duration // ago
		by   time.Duration // from now
		want bool
	}{
		{here, 0, time.Hour, false},
		{here, time.Hour, -time.Second, true},
		{"another", 0, time.Hour, true},
		{"", 0, time.Hour, false},
		{"", 0, -time.Second, true},
		{"", up + time.Hour, time.Hour, true},
	} {
		change := &Change{BootID: c.id, Time: time.Now().Add(-c.made), DeadlineUp: up + c.by}
		if got := change.overdue(); got != c.want {
			t.Errorf("boot %q, made %s ago, to be confirmed in %s: overdue %t", c.id, c.made, c.by, got)
		}
	}
}
