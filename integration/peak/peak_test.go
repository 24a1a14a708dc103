//go:build linux

package peak

import (
	"os/exec"
	"testing"
)

// A large parent is not its child's memory.
func TestPeakIsTheProgramsOwn(t *testing.T) {
	ballast := make([]byte, 200<<20)
	for i := 0; i < len(ballast); i += 4096 {
		ballast[i] = 1
	}
	n, err := Run(exec.Command("sleep", "0.1"))
	if err != nil || n == 0 || n > 20<<20 {
		t.Errorf("sleep took %d bytes, %v", n, err)
	}
	if ballast[0] != 1 {
		t.Fatal()
	}
}
