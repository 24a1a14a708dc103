//go:build race

package vecsync_test

// oracleFaults is how many faults TestIndexEqualsLog injects: fewer under the
// race detector, with which everything takes ten times as long.
const oracleFaults = 100
