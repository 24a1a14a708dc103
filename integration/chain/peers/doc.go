// Package peers has the log checked by programs and libraries that nobody here
// wrote: tessera's fsck, transparency-dev's formats and merkle, x/mod's note
// and tlog, torchwood and its litewitness.
//
// It is a module of its own, so that the product does not depend on them. Its
// go.sum does not cover the tests of what it builds, one of which needs a
// module that no proxy has: go mod tidy wants -e here.
package peers
