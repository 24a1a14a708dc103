// Package crash kills and fails the real gb-chain, on real file systems, at
// each system call that matters and at random moments, and holds what is left
// to what was acknowledged. pkg/chain's own tests do the same in memory with a
// disk that forgets.
package crash
