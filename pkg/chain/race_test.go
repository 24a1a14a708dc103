//go:build race

package chain

// raceDetector says that everything takes ten times as long. What has nothing
// concurrent in it is tested in full without it, beside which make test runs a
// part with it.
const raceDetector = true
