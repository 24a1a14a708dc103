//go:build linux

package main

import (
	"math/rand/v2"
	"slices"
	"time"
)

// A fault is something bad that is to happen.
type fault struct {
	at     time.Duration // after the start
	kind   faultKind
	victim string        // of a kill: the role; of a full disk: "data" or "state"
	last   time.Duration // until it is mended
	step   time.Duration // of the clock
}

type faultKind string

const (
	kill       faultKind = "kill"
	fill       faultKind = "full disk"
	qdrantStop faultKind = "Qdrant stop"
	clockStep  faultKind = "clock step"
)

// A phase is a storm and the calm behind it.
type phase struct{ storm, calm, end time.Duration } // when each begins

// phases divides a run: at most five minutes each, the calm the last two fifths.
func phases(d time.Duration) (list []phase) {
	n := max(1, int((d+time.Minute)/(5*time.Minute)))
	each := d / time.Duration(n)
	for i := range n {
		begin := time.Duration(i) * each
		list = append(list, phase{begin, begin + each*3/5, begin + each})
	}
	return list
}

// furthest is how far the clock is from the machine's at most.
const furthest = 12 * time.Hour

// schedule is what happens in a run, by the seed: faults in the storms, in their
// order, each of them mended before the calm.
func schedule(seed uint64, d time.Duration, victims []string, clock bool) (list []fault) {
	r := rand.New(rand.NewPCG(seed, 1))
	between := func(a, b time.Duration) time.Duration { return a + time.Duration(r.Int64N(int64(b-a)+1)) }
	var offset time.Duration
	for _, p := range phases(d) {
		long := p.calm - p.storm
		// Each kind has its own rhythm, faster where there is little time.
		every := func(mean time.Duration, f func(at time.Duration)) {
			mean = min(mean, long/4)
			for at := p.storm + between(mean/2, mean*3/2); at < p.calm; at += between(mean/2, mean*3/2) {
				f(at)
			}
		}
		every(5*time.Second, func(at time.Duration) {
			list = append(list, fault{at: at, kind: kill, victim: victims[r.IntN(len(victims))]})
		})
		every(50*time.Second, func(at time.Duration) {
			victim := "data"
			if r.IntN(3) == 0 {
				victim = "state"
			}
			list = append(list, fault{at: at, kind: fill, victim: victim, last: min(between(2*time.Second, 8*time.Second), p.calm-at)})
		})
		every(40*time.Second, func(at time.Duration) {
			list = append(list, fault{at: at, kind: qdrantStop, last: min(between(time.Second, 15*time.Second), p.calm-at)})
		})
		if !clock {
			continue
		}
		every(25*time.Second, func(at time.Duration) {
			scale := []time.Duration{30 * time.Second, 10 * time.Minute, 3 * time.Hour}[r.IntN(3)]
			step := between(time.Second, scale).Round(time.Second)
			if r.IntN(2) == 0 {
				step = -step
			}
			if s := offset + step; s > furthest || s < -furthest {
				step = -step
			}
			offset += step
			list = append(list, fault{at: at, kind: clockStep, step: step})
		})
	}
	slices.SortStableFunc(list, func(a, b fault) int { return int(a.at - b.at) })
	return list
}
