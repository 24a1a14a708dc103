package chain

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ghostbridge/ghostbridge/pkg/durable"
)

// UnitOf returns the systemd unit that a process belongs to, "" if none is
// known: the last part of its control group that is named like a unit.
func UnitOf(pid int) string {
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cgroup"))
	if err != nil {
		return ""
	}
	return unitOfCgroup(string(data))
}

func unitOfCgroup(cgroup string) string {
	for line := range strings.Lines(cgroup) {
		// hierarchy:controllers:path; version 2 is "0::path", version 1 has
		// systemd's own as "N:name=systemd:path".
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) != 3 || fields[1] != "" && fields[1] != "name=systemd" {
			continue
		}
		parts := strings.Split(fields[2], "/")
		for i := len(parts) - 1; i >= 0; i-- {
			for _, suffix := range []string{".service", ".scope", ".socket"} {
				if strings.HasSuffix(parts[i], suffix) && len(parts[i]) <= 256 {
					return parts[i]
				}
			}
		}
	}
	return ""
}

// Writing says whether somebody writes the log in dir right now, and whether
// the directory is read-only for good, as a snapshot is.
func Writing(dir string) (live, frozen bool, err error) {
	lock, err := durable.TryLock(dir)
	if errors.Is(err, durable.ErrLocked) {
		return true, false, nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		return false, false, errNoLog()
	}
	if err != nil {
		return false, false, err
	}
	defer lock.Unlock()
	return false, unix.Access(dir, unix.W_OK) == unix.EROFS, nil
}
