//go:build linux

package e2e

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/debtree"
	"github.com/ghostbridge/ghostbridge/integration/require"
	"github.com/ghostbridge/ghostbridge/integration/tools"
)

const repository = "../.."

// treePackages are what the container has besides Debian's minimum.
var treePackages = []string{"btrfs-progs", "dbus", "iproute2", "nftables", "novnc", "openvswitch-switch", "polkitd", "procps", "prometheus", "systemd", "systemd-resolved",
	"systemd-sysv", "tzdata", "websockify"}

// tree returns a tar archive of a Debian like this host's with packages,
// without ours, kept below .cache.
func tree(t *testing.T, packages []string) string {
	t.Helper()
	begin := time.Now()
	tar, err := debtree.Tar(filepath.Join(repository, ".cache", "e2e"), debtree.Options{Packages: packages, NoDocs: true})
	var lack *debtree.Lack
	if errors.As(err, &lack) {
		require.Skip(t, lack.Error())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s, in %s", tar, time.Since(begin).Round(time.Second))
	return tar
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
