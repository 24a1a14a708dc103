// Package chain tests whole logs of several segments, where the package's own
// tests have a few events, with the real binaries.
package chain
