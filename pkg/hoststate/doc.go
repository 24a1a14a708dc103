// Package hoststate brings a host to a desired state, and back.
//
// A Document says what should be: units, names, bridges. An Engine reads what
// is, and makes a Plan of actions, in an order in which one may depend on those
// before it. A plan has a hash over its actions and over all that was read for
// it: what was looked at, and approved, is what is done, or nothing is.
//
// An apply writes down what it will do, does one action after the other, looks
// again, and commits; or goes back, in reverse order, with a report for each
// action. Its journal is durable before each action and after it, so that a
// process that is killed at any point leaves behind what its successor needs to
// go back (Engine.Recover). With a time to confirm, a change that nobody
// confirms in it goes back too.
//
// This package decides about nothing: every action goes through a Gate, which
// authorises and records it. Nor does it own what it changes: on NixOS, what
// Nix writes is left alone, and the plan says what to change there instead.
package hoststate
