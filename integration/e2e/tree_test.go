//go:build linux

package e2e

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/require"
	"github.com/ghostbridge/ghostbridge/integration/tools"
)

const repository = "../.."

// treePackages are what the container has besides Debian's minimum.
var treePackages = []string{"btrfs-progs", "dbus", "iproute2", "novnc", "openvswitch-switch", "polkitd", "procps", "prometheus", "systemd", "systemd-resolved",
	"systemd-sysv", "tzdata", "websockify"}

// tree returns a tar archive of a Debian like this host's, without our
// package. It is made once, by mmdebstrap from where this host gets its
// packages, and kept below .cache by the list of packages.
func tree(t *testing.T) string {
	t.Helper()
	tool := require.Tool(t, "mmdebstrap")
	release := osRelease(t)
	if release["ID"] != "debian" {
		require.Skip(t, "needs a Debian host, to make a tree from its package sources")
	}
	suite := release["VERSION_CODENAME"]
	sources := packageSources(t, suite)
	dir := filepath.Join(repository, ".cache", "e2e")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	key := sha256.Sum256([]byte(suite + " " + strings.Join(treePackages, " ")))
	tar, err := filepath.Abs(filepath.Join(dir, fmt.Sprintf("debian-%s-%x.tar", suite, key[:6])))
	if err != nil {
		t.Fatal(err)
	}
	// One makes it, others wait.
	lock, err := os.Create(tar + ".lock")
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(tar); err == nil {
		return tar
	}
	begin := time.Now()
	args := []string{
		"--mode=root", "--variant=minbase", "--format=tar",
		`--aptopt=Acquire::Languages "none"`, `--aptopt=APT::Install-Recommends "false"`,
		"--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*",
		"--include=" + strings.Join(treePackages, ","), suite, tar + ".new",
	}
	if out, err := exec.Command(tool, append(args, sources...)...).CombinedOutput(); err != nil {
		os.Remove(tar + ".new")
		t.Fatalf("mmdebstrap: %v\n%s", err, out)
	}
	if err := os.Rename(tar+".new", tar); err != nil {
		t.Fatal(err)
	}
	t.Logf("made %s in %s", tar, time.Since(begin).Round(time.Second))
	return tar
}

func osRelease(t *testing.T) map[string]string {
	t.Helper()
	data, err := os.ReadFile("/etc/os-release")
	if err != nil {
		require.Skip(t, "needs /etc/os-release: "+err.Error())
	}
	fields := make(map[string]string)
	for line := range strings.Lines(string(data)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		fields[key] = strings.Trim(value, `"`)
	}
	return fields
}

// packageSources returns the host's files of package sources that are for the
// suite; those of others' packages are none of ours.
func packageSources(t *testing.T, suite string) []string {
	t.Helper()
	var files []string
	for _, pattern := range []string{"/etc/apt/sources.list", "/etc/apt/sources.list.d/*.list", "/etc/apt/sources.list.d/*.sources"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			data, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			if slices.Contains(strings.Fields(string(data)), suite) {
				files = append(files, f)
			}
		}
	}
	if len(files) == 0 {
		require.Skip(t, "needs apt sources for "+suite)
	}
	return files
}

// debPackage builds the Debian package of a source tree from the binaries in
// bin, with the given version.
func debPackage(t *testing.T, sources, bin, version string) string {
	t.Helper()
	out := t.TempDir()
	cmd := exec.Command("make", "deb", "BIN="+bin, "VERSION="+version, "DIST="+out)
	cmd.Dir = sources
	cmd.Env = append(os.Environ(), "DEB_COMPRESSION=none")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make deb: %v\n%s", err, text)
	}
	debs, err := filepath.Glob(filepath.Join(out, "*.deb"))
	if err != nil || len(debs) != 1 {
		t.Fatal(debs, err)
	}
	return debs[0]
}

// oldPackage builds the package that is upgraded: in the long form that of the
// commit in GB_E2E_FROM, else this one under an older version.
func oldPackage(t *testing.T, version string) string {
	t.Helper()
	from := os.Getenv("GB_E2E_FROM")
	if !long || from == "" {
		return debPackage(t, repository, tools.Dir(t), version)
	}
	sources, bin := filepath.Join(t.TempDir(), "sources"), t.TempDir()
	command(t, "git", "-C", repository, "worktree", "add", "--quiet", "--detach", sources, from)
	t.Cleanup(func() { command(t, "git", "-C", repository, "worktree", "remove", "--force", sources) })
	command(t, "go", "-C", sources, "build", "-trimpath", "-buildvcs=false", "-o", bin+"/", "./cmd/...")
	return debPackage(t, sources, bin, version)
}
