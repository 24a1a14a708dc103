//go:build linux

package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/names"
)

// The package leaves the unit that offers checkpoints to witnesses off. Turned
// on, it reaches the network, although the log's daemon has none, and writes
// where root has added a witness. What listens here gives back what it is
// sent: no witness, but one that was reached.
func witnessed(t *testing.T, c *container) {
	const unit = "blockchain-witness.service"
	if out, _ := c.try("systemctl", "is-enabled", unit); strings.TrimSpace(out) != "disabled" {
		t.Errorf("%s is %s after the installation", unit, out)
	}
	if out := c.property(unit, "ActiveState"); out != "inactive" {
		t.Errorf("%s is %s after the installation", unit, out)
	}
	c.run("systemd-run", "--unit=gbe2e-echo", "systemd-socket-activate", "--listen=127.0.0.1:8765", "--accept", "--inetd", "cat")
	defer c.run("systemctl", "stop", "gbe2e-echo")
	c.run("gb-chain", "witness", "add", "http://127.0.0.1:8765/", "--key", "gbe2e+74e2c52c+BAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g")
	c.run("systemctl", "enable", "--now", unit)
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		out := c.run("gb-chain", "witness", "ls")
		if strings.Contains(out, "malformed HTTP") {
			break
		}
		c.patience(deadline, "the witness was not reached: "+out)
	}
	if mode := c.run("stat", "--format=%U", names.WitnessDir); mode != "gb-witness" {
		t.Errorf("%s belongs to %s", names.WitnessDir, mode)
	}
	c.run("gb-chain", "witness", "rm", "gbe2e")
	c.run("systemctl", "disable", "--now", unit)
	if out := c.run("gb-chain", "verify"); !strings.Contains(out, "verified: ") {
		t.Errorf("verify: %s", out)
	}
}
