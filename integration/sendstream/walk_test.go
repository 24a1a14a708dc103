//go:build linux

package sendstream_test

import (
	"bytes"
	"fmt"
	"os/exec"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"
)

// walk describes the tree below dir by what find, stat, sha256sum and getfattr
// say of it, one line a file and a line an attribute, in an order of its own:
// nothing of the package under test has a part in it. Files of several names
// are told apart by the first of their names, not by inode numbers. Sizes of
// directories, which depend on history, and ctimes are left out.
//
// A stream does not always set the mtime of a directory in which it changed
// names last. Then it is the time of the replay, at or after since: the line
// says "now", and the path is in the set returned.
func walk(t testing.TB, dir string, since time.Time) (string, map[string]bool) {
	t.Helper()
	type file struct{ path, line string }
	var files []file
	now := map[string]bool{}
	first := map[string]string{} // by inode, the least path

	// Fields end with a NUL, so that names may hold anything.
	fields := strings.Split(output(t, dir, "find", ".", "-printf", `%P\0%i\0%y\0%m\0%U\0%G\0%n\0%s\0%T@\0%l\0`), "\x00")
	var regular, devices []string
	for ; len(fields) > 10; fields = fields[10:] {
		path, inode, typ, size, mtime := fields[0], fields[1], fields[2], fields[7], fields[8]
		switch typ {
		case "d":
			size = "-"
			if sec, err := strconv.ParseFloat(mtime, 64); err == nil && sec >= float64(since.UnixNano())/1e9 {
				mtime, now[path] = "now", true
			}
		case "f":
			regular = append(regular, path)
		case "b", "c":
			devices = append(devices, path)
		}
		if old, ok := first[inode]; !ok || path < old {
			first[inode] = path
		}
		files = append(files, file{path, fmt.Sprintf("%q is %s %s owner %s:%s links %s (as INODE%s) size %s mtime %s to %q",
			path, typ, fields[3], fields[4], fields[5], fields[6], inode, size, mtime, fields[9])})
	}
	var lines []string
	for _, f := range files {
		before, after, _ := strings.Cut(f.line, "(as INODE")
		inode, rest, _ := strings.Cut(after, ")")
		lines = append(lines, fmt.Sprintf("%sas %q%s", before, first[inode], rest))
	}
	for _, args := range batches(regular) {
		for _, sum := range strings.Split(output(t, dir, "sha256sum", append([]string{"-z", "--"}, args...)...), "\x00") {
			if hash, path, ok := strings.Cut(sum, "  "); ok {
				lines = append(lines, fmt.Sprintf("%q has sha256 %s", strings.TrimPrefix(path, "./"), hash))
			}
		}
	}
	for _, args := range batches(devices) {
		for _, dev := range strings.Split(output(t, dir, "stat", append([]string{"--printf", `%t:%T %n\0`, "--"}, args...)...), "\x00") {
			if number, path, ok := strings.Cut(dev, " "); ok {
				lines = append(lines, fmt.Sprintf("%q is device %s", strings.TrimPrefix(path, "./"), number))
			}
		}
	}
	name := ""
	for _, line := range strings.Split(output(t, dir, "getfattr", "-R", "-P", "-h", "-d", "-m", "-", "-e", "hex", "."), "\n") {
		if n, ok := strings.CutPrefix(line, "# file: "); ok {
			if name = unquote(n); name == "." {
				name = ""
			}
		} else if attr, value, _ := strings.Cut(line, "="); line != "" {
			lines = append(lines, fmt.Sprintf("%q has %q = %s", name, unquote(attr), strings.TrimPrefix(value, "0x")))
		}
	}
	sort.Strings(lines)
	return strings.Join(lines, "\n") + "\n", now
}

// unquote undoes the quoting of getfattr: three octal digits after a backslash.
func unquote(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// batches cuts a list of paths into argument lists of a bearable length.
func batches(paths []string) [][]string {
	var all [][]string
	for len(paths) > 0 {
		n := min(len(paths), 100)
		var args []string
		for _, p := range paths[:n] {
			args = append(args, "./"+p)
		}
		all = append(all, args)
		paths = paths[n:]
	}
	return all
}

func output(t testing.TB, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = append(cmd.Environ(), "LC_ALL=C", "TZ=UTC")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s in %s: %v\n%s", name, dir, err, stderr.String())
	}
	return string(out)
}

// diff returns the first lines that only one of two descriptions has.
func diff(got, want string) string {
	count := map[string]int{}
	for _, l := range strings.Split(got, "\n") {
		count[l]++
	}
	for _, l := range strings.Split(want, "\n") {
		count[l]--
	}
	var lines []string
	for l, n := range count {
		if n > 0 {
			lines = append(lines, "+ "+l)
		} else if n < 0 {
			lines = append(lines, "- "+l)
		}
	}
	sort.Slice(lines, func(i, j int) bool { return lines[i][2:] < lines[j][2:] })
	if len(lines) > 40 {
		lines = append(lines[:40], fmt.Sprintf("and %d more", len(lines)-40))
	}
	return strings.Join(lines, "\n")
}
