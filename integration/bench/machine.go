//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ghostbridge/ghostbridge/integration/bench/report"
	"github.com/ghostbridge/ghostbridge/integration/require"
)

// versionNumber is one in what a program says of itself: "3.1.0" of "ovs-vsctl
// (Open vSwitch) 3.1.0".
var versionNumber = regexp.MustCompile(`\bv?[0-9]+\.[0-9][0-9A-Za-z.~+-]*`)

func thisMachine(ctx context.Context) report.Machine {
	m := report.Machine{Time: time.Now().UTC().Truncate(time.Second), Go: runtime.Version(), Cores: runtime.NumCPU(), Peers: make(map[string]string)}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		m.Memory = int64(info.Totalram) * int64(info.Unit)
		m.Load = math.Round(float64(info.Loads[0])/(1<<16)*100) / 100 // sysinfo(2): SI_LOAD_SHIFT
	}
	if data, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(data)) {
			if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
				m.CPU = strings.TrimSpace(value)
				break
			}
		}
	}
	m.FileSystem = fileSystem(os.TempDir())
	m.Version = firstLine(ctx, "git", "describe", "--tags", "--always", "--dirty")
	m.Commit = firstLine(ctx, "git", "rev-parse", "HEAD")
	for peer, argv := range map[string][]string{
		"btrfs-progs":  {"btrfs", "--version"},
		"Open vSwitch": {"ovs-vsctl", "--version"},
		"systemd":      {"busctl", "--version"},
		"dbus-daemon":  {"dbus-daemon", "--version"},
		"Tessera":      {"go", "list", "-C", peersModule, "-m", "github.com/transparency-dev/tessera"},
		"bleve":        {"go", "list", "-C", searchPeersModule, "-m", "github.com/blevesearch/bleve/v2"},
		"godbus":       {"go", "list", "-m", "github.com/godbus/dbus/v5"},
		"SQLite":       {"go", "list", "-m", "modernc.org/sqlite"},
	} {
		if version := versionNumber.FindString(firstLine(ctx, argv...)); version != "" {
			m.Peers[peer] = version
		}
	}
	return m
}

// firstLine is the first line that a program prints, empty if it can't run.
func firstLine(ctx context.Context, argv ...string) string {
	path, err := require.Find(argv[0])
	if err != nil {
		return ""
	}
	out, err := exec.CommandContext(ctx, path, argv[1:]...).Output()
	if err != nil {
		return ""
	}
	line, _, _ := bytes.Cut(out, []byte("\n"))
	return string(bytes.TrimSpace(line))
}

// fileSystem says on what a directory lies: type and options, from the longest
// mount point above it.
func fileSystem(dir string) string {
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	f, err := os.Open("/proc/self/mounts")
	if err != nil {
		return ""
	}
	defer f.Close()
	best, found := "", ""
	for in := bufio.NewScanner(f); in.Scan(); {
		fields := strings.Fields(in.Text()) // device, place, type, options: fstab(5)
		if len(fields) < 4 {
			continue
		}
		place := fields[1]
		if inside := place == "/" || dir == place || strings.HasPrefix(dir, place+"/"); inside && len(place) >= len(best) {
			best, found = place, fields[2]+" ("+fields[3]+")"
		}
	}
	return found
}
