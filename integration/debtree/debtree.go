//go:build linux

// Package debtree makes trees of Debian, for tests that want a machine which is
// not this one. mmdebstrap(1) makes them from where this host gets its own
// packages, so that the host must be a Debian.
package debtree

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/ghostbridge/ghostbridge/integration/require"
)

// Options say what is in a tree.
type Options struct {
	Packages []string // beside Debian's minimum (minbase); what they only recommend is left out
	NoDocs   bool     // without documents, manual pages and translations, now and of what is installed later
}

// A Lack is something that this host does not have and that a tree needs.
type Lack struct{ what string }

func (l *Lack) Error() string { return "needs " + l.what }

// Tar returns the path of a tar archive of a Debian of this host's release. It
// is made once and kept in dir by release and options: who comes while another
// makes it waits. The error is a *Lack if this host can't make one.
func Tar(dir string, o Options) (string, error) {
	tool, err := require.Find("mmdebstrap")
	if err != nil {
		return "", &Lack{"the program mmdebstrap"}
	}
	suite, sources, err := release()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	slices.Sort(o.Packages)
	key := sha256.Sum256(fmt.Appendln(nil, suite, o))
	tar, err := filepath.Abs(filepath.Join(dir, fmt.Sprintf("debian-%s-%x.tar", suite, key[:6])))
	if err != nil {
		return "", err
	}
	lock, err := os.Create(tar + ".lock")
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", err
	}
	if _, err := os.Stat(tar); err == nil {
		return tar, nil
	}
	args := []string{"--mode=root", "--variant=minbase", "--format=tar",
		`--aptopt=Acquire::Languages "none"`, `--aptopt=APT::Install-Recommends "false"`}
	if o.NoDocs {
		for _, d := range []string{"doc", "man", "locale"} {
			args = append(args, "--dpkgopt=path-exclude=/usr/share/"+d+"/*")
		}
	}
	if len(o.Packages) > 0 {
		args = append(args, "--include="+strings.Join(o.Packages, ","))
	}
	args = append(append(args, suite, tar+".new"), sources...)
	if out, err := exec.Command(tool, args...).CombinedOutput(); err != nil {
		return "", errors.Join(fmt.Errorf("mmdebstrap: %w\n%s", err, out), os.Remove(tar+".new"))
	}
	return tar, os.Rename(tar+".new", tar)
}

// release returns the code name of this host's Debian, and the host's files of
// package sources that are for it; those of others' packages are left out.
func release() (suite string, sources []string, err error) {
	data, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "", nil, &Lack{"/etc/os-release: " + err.Error()}
	}
	fields := make(map[string]string)
	for line := range strings.Lines(string(data)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		fields[key] = strings.Trim(value, `"`)
	}
	suite = fields["VERSION_CODENAME"]
	if fields["ID"] != "debian" || suite == "" {
		return "", nil, &Lack{"a Debian host, to make a tree from its package sources"}
	}
	for _, pattern := range []string{"/etc/apt/sources.list", "/etc/apt/sources.list.d/*.list", "/etc/apt/sources.list.d/*.sources"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return "", nil, err
		}
		for _, f := range found {
			data, err := os.ReadFile(f)
			if err != nil {
				return "", nil, err
			}
			if slices.Contains(strings.Fields(string(data)), suite) {
				sources = append(sources, f)
			}
		}
	}
	if len(sources) == 0 {
		return "", nil, &Lack{"apt sources for " + suite}
	}
	return suite, sources, nil
}
