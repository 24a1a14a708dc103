//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// polkitd reads its actions from one directory of the system. It gets a mount
// namespace of its own in which ours are there: this program, started again with
// polkitArg in that namespace, mounts them and becomes polkitd.
const polkitArg = "become-polkitd"

const actionsDir = "/usr/share/polkit-1/actions"

var polkitPaths = []string{"/usr/lib/polkit-1/polkitd", "/usr/libexec/polkitd"}

// polkitCommand is polkitd on a bus; dir is for what it sees as its actions.
func polkitCommand(units, dir, address string) (*exec.Cmd, error) {
	actions := filepath.Join(dir, "actions")
	if err := os.CopyFS(actions, os.DirFS(filepath.Join(units, "polkit-1", "actions"))); err != nil {
		return nil, err
	}
	cmd := exec.Command("/proc/self/exe", polkitArg, actions)
	cmd.Env = append(os.Environ(), "DBUS_SYSTEM_BUS_ADDRESS="+address)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true, Unshareflags: syscall.CLONE_NEWNS}
	return cmd, nil
}

func becomePolkit(actions string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("private mounts: %w", err)
	}
	if err := unix.Mount(actions, actionsDir, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("actions: %w", err)
	}
	for _, path := range polkitPaths {
		err := unix.Exec(path, []string{path, "--no-debug"}, os.Environ())
		if !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return errors.New("polkitd is missing: apt-get install polkitd")
}
