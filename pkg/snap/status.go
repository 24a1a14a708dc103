package snap

import (
	"errors"
	"fmt"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/subvol"
)

// A Status is how taking snapshots goes.
type Status struct {
	Healthy bool     `json:"healthy"`
	Faults  []string `json:"faults"` // why it is not healthy

	Source    string     `json:"source"`
	Snapshots string     `json:"snapshots"`
	Live      int        `json:"live"`   // snapshots that are there
	Held      int        `json:"held"`   // of them, those that a hold keeps
	Newest    *time.Time `json:"newest"` // when it was taken; null if there is none
	Ahead     bool       `json:"ahead"`  // the source has changed since
	Period    float64    `json:"period_seconds"`
	Backlog   int        `json:"backlog"` // deleted snapshots that the kernel has not finished with
	Size      uint64     `json:"size_bytes"`
	Available uint64     `json:"available_bytes"`
	Metadata  [2]uint64  `json:"metadata_bytes"` // used, allocated
	Qgroups   bool       `json:"qgroups"`        // quota groups are on: deleting is slow

	WrittenPerDay *float64 `json:"written_bytes_per_day"` // to the devices, since the loop began; null if not known
	GoodAge       *float64 `json:"last_good_age_seconds"` // null if no tick since boot
	Ticks         *Ticks   `json:"ticks"`                 // null if none since boot
}

// staleTicks is after how many periods without a good tick something is wrong.
const staleTicks = 3

// Status looks at the store and its source. ticks is what ReadTicks returned;
// source may be empty if ticks says it; period is for ticks that have none.
func (s *Store) Status(source string, ticks *Ticks, period time.Duration) (*Status, error) {
	if source == "" && ticks != nil {
		source = ticks.Source
	}
	if source == "" {
		return nil, &PlaceError{"no snapshot was taken here since boot, so it is not known of what", "name the SOURCE"}
	}
	st := &Status{Source: source, Snapshots: s.dir, Ticks: ticks, Faults: []string{}, Period: period.Seconds()}
	if ticks != nil && ticks.Period > 0 {
		st.Period = ticks.Period
	}
	stale := time.Duration(staleTicks * st.Period * float64(time.Second))
	list, err := s.List()
	if err != nil {
		return nil, err
	}
	st.Live = len(list)
	if holders, err := s.Holders(list, nil); err != nil {
		st.fault("holds: %v: nothing is deleted", err)
	} else {
		for _, sn := range list {
			if len(holders[sn.UUID]) > 0 {
				st.Held++
			}
		}
	}
	st.good(ticks, stale)
	if src, err := s.source(source); err != nil {
		st.fault("%v", err)
	} else {
		st.compare(src, list, stale)
	}
	if st.Backlog, err = s.btrfs.Backlog(s.dir); err != nil && !errors.Is(err, subvol.ErrUnsupported) {
		return nil, err
	}
	sp, err := s.btrfs.Space(s.dir)
	if err != nil {
		return nil, err
	}
	st.Size, st.Available, st.Metadata = sp.Size, sp.Available, [2]uint64{sp.MetadataUsed, sp.MetadataTotal}
	if st.Qgroups, err = s.btrfs.Qgroups(s.dir); err != nil {
		return nil, err
	}
	st.Healthy = len(st.Faults) == 0
	return st, nil
}

func (st *Status) fault(format string, args ...any) {
	st.Faults = append(st.Faults, fmt.Sprintf(format, args...))
}

// good looks at the last good tick.
func (st *Status) good(k *Ticks, stale time.Duration) {
	if k == nil {
		st.fault("no tick since boot")
		return
	}
	if k.Good == 0 {
		st.fault("no good tick since %s: %s", k.Started.Format(time.RFC3339), k.Error)
		return
	}
	up := uptime()
	age := up - k.GoodUptime
	st.GoodAge = &age
	if age > stale.Seconds() {
		text := fmt.Sprintf("the last good tick was %.1f s ago, more than %d periods", age, staleTicks)
		if k.Error != "" {
			text += ": " + k.Error
		}
		st.fault("%s", text)
	}
	if ahead := up - k.AheadUptime; k.AheadUptime > 0 && ahead > stale.Seconds() {
		st.fault("the source has been ahead of its newest snapshot for %.1f s", ahead)
	}
	if ran := k.LastGood.Sub(k.Started).Seconds(); k.Period > 0 && ran >= 10*k.Period && k.Written != nil {
		perDay := float64(*k.Written) / ran * 86400
		st.WrittenPerDay = &perDay
	}
}

// compare looks whether the source is ahead of its newest snapshot, and for
// how long at least: since its last change.
func (st *Status) compare(src subvol.Info, list []Snapshot, stale time.Duration) {
	n, ok := newest(list, src.UUID)
	if !ok {
		st.Ahead = true
		st.fault("the source has no snapshot")
		return
	}
	at := n.OTime
	st.Newest = &at
	if st.Ahead = src.CTransID != n.CTransID; !st.Ahead {
		return
	}
	if since := time.Since(src.CTime); since > stale {
		st.fault("the source has been ahead of its newest snapshot for %.1f s", since.Seconds())
	}
}
