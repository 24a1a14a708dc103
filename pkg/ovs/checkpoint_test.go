package ovs

import (
	"testing"
	"time"
)

// A change made at an uptime of one hour with a minute for its confirmation:
// who looks after it leaves it alone for that minute, whatever it can see of
// /proc, and takes it back later, or when the uptime has begun anew.
func TestForgottenChanges(t *testing.T) {
	now := time.Now()
	c := &Checkpoint{Time: now, Deadline: now.Add(time.Minute), DeadlineUp: time.Hour + time.Minute, BootID: "another"}
	for up, want := range map[time.Duration]bool{
		time.Second:                   true,
		time.Hour - time.Second:       true,
		time.Hour:                     false,
		time.Hour + time.Minute:       false, // the rollback that is armed has the first try
		time.Hour + 2*time.Minute:     true,
		30 * 24 * time.Hour:           true,
		time.Hour + 59*time.Second:    false,
		c.DeadlineUp + rollbackLate:   true,
		c.DeadlineUp + rollbackLate/2: false,
	} {
		if got := c.forgotten(up); got != want {
			t.Errorf("at %s: %t", up, got)
		}
	}
}

// Where nobody can read which boot it is, the clock says it.
func TestThisBoot(t *testing.T) {
	here := BootID()
	if here == "" {
		t.Fatal("no boot id")
	}
	up := uptime()
	for _, c := range []struct {
		id   string
		made time.Time
		want bool
	}{
		{here, time.Time{}, true},
		{"another", time.Now(), false},
		{"", time.Now(), true},
		{"", time.Now().Add(-up - time.Hour), false},
	} {
		if got := (&Checkpoint{BootID: c.id, Time: c.made}).thisBoot(); got != c.want {
			t.Errorf("%q made at %s: %t", c.id, c.made, got)
		}
	}
}
