package tools

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/ghostbridge/ghostbridge/integration/require"
)

func TestMain(m *testing.M) { Main(m) }

// In a directory of root's the binaries are there for others too.
func TestEverybodyCanRunThem(t *testing.T) {
	require.Root(t) // to be somebody else
	hidden := filepath.Join(t.TempDir(), "bin")
	if err := os.Mkdir(hidden, 0o755); err != nil {
		t.Fatal(err)
	}
	if open(hidden) {
		t.Fatalf("%s is below a directory of root's", hidden)
	}
	program, err := os.ReadFile(require.Tool(t, "true"))
	if err == nil {
		err = os.WriteFile(filepath.Join(hidden, "tool"), program, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("GB_BIN", hidden)
	cmd := exec.Command(Path(t, "tool"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if err := cmd.Run(); err != nil {
		t.Error(err)
	}
	if !open(os.TempDir()) {
		t.Errorf("%s is not for all", os.TempDir())
	}
}
