package document

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// A Place is where a session is run: Dir is a btrfs with the subvolume
// @blockchain-timing and the directory snapshots. Bin and Keys are absolute.
type Place struct {
	Dir    string
	Bin    string   // directory of the tools
	Keys   string   // what GB_KEYS names
	Env    []string // more of the environment
	Within []string // the program and arguments that run the shell, if it is not run as it is
}

// Prepare makes what a session finds in its directory.
func (p Place) Prepare() error {
	out, err := exec.Command("btrfs", "-q", "subvolume", "create", filepath.Join(p.Dir, "@blockchain-timing")).CombinedOutput()
	if err != nil {
		return errors.New(string(out) + err.Error())
	}
	return os.Mkdir(filepath.Join(p.Dir, "snapshots"), 0o755)
}

// Run runs one command in a shell of its own, as a document means it, for at
// most a minute, and returns what it printed, standard error included. What one
// command leaves for the next is in files.
func (p Place) Run(ctx context.Context, c Command) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	argv := append(append([]string(nil), p.Within...), "bash", "-euo", "pipefail", "-c", c.Text)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = p.Dir
	cmd.Env = append(append(os.Environ(), "PATH="+p.Bin+":"+os.Getenv("PATH"), "GB_KEYS="+p.Keys), p.Env...)
	cmd.WaitDelay = time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.Bytes(), err
}
