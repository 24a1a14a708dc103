//go:build linux

// Fresh tries, in a tree of Debian that has nothing but git, make, gcc and Go,
// what the README tells a stranger to type:
//
//	git clone REPOSITORY
//	make run SECONDS=20
//	make test
//
// The clone is of this repository's HEAD: what is not committed is not in it.
// The tree is made anew each time from an archive that is kept, and removed in
// the end; its programs run as root in namespaces of their own for mounts,
// processes, host name and IPC, on this host's kernel, devices and network.
// When fresh ends, however it does, so do they and their mounts.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ghostbridge/ghostbridge/integration/debtree"
)

// What the tree has beside Debian's minimum, and Go.
var packages = []string{"git", "make", "gcc"}

// home is where the clone is made, in the tree.
const home = "/root"

// insideVariable names, to this program, the tree that it is to enter to run
// its arguments there.
const insideVariable = "GB_FRESH_TREE"

// The kernel kills the child when the thread that started it ends.
func init() { runtime.LockOSThread() }

func main() {
	if tree := os.Getenv(insideVariable); tree != "" {
		code, err := inside(tree, os.Args[1:])
		if err != nil {
			fmt.Fprintln(os.Stderr, "fresh:", err)
			code = 1
		}
		os.Exit(code)
	}
	cache := flag.String("cache", ".cache/fresh", "`DIR` for the archive of the tree, and for the tree itself while it is used")
	keep := flag.Bool("keep", false, "leave the tree there in the end")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	steps := flag.Args()
	if len(steps) == 0 {
		steps = []string{"make run SECONDS=20", "make test"}
	}
	if err := run(ctx, *cache, *keep, steps); err != nil {
		fmt.Fprintln(os.Stderr, "fresh:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, cache string, keep bool, steps []string) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("root is missing: mounts and namespaces need it")
	}
	tar, err := debtree.Tar(cache, debtree.Options{Packages: packages})
	if err != nil {
		return err
	}
	lock, err := os.Create(filepath.Join(cache, "lock"))
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("another one is under way in %s: %w", cache, err)
	}
	// What a run that was killed has left, or one that was to keep it, goes.
	tree := filepath.Join(filepath.Dir(tar), "tree")
	if err := os.RemoveAll(tree); err != nil {
		return err
	}
	if err := os.Mkdir(tree, 0o755); err != nil {
		return err
	}
	defer func() {
		if keep {
			fmt.Println("kept:", tree)
			return
		}
		err = errors.Join(err, os.RemoveAll(tree))
	}()
	if err := fill(tree, tar); err != nil {
		return err
	}
	for _, step := range append([]string{"git clone --quiet /src.git ghostbridge"}, steps...) {
		argv, dir := strings.Fields(step), home
		if argv[0] != "git" {
			dir = filepath.Join(home, "ghostbridge")
		}
		fmt.Printf("\n$ %s\n", step)
		begin := time.Now()
		if err := enter(ctx, tree, dir, argv); err != nil {
			return fmt.Errorf("%s: %w, after %s", step, err, time.Since(begin).Round(time.Second))
		}
		fmt.Printf("(%s)\n", time.Since(begin).Round(time.Second))
	}
	return nil
}

// fill unpacks the tree and puts into it the repository, how this host finds
// names, and the certificates that this host's administrator has added.
func fill(tree, tar string) error {
	for _, argv := range [][]string{
		{"tar", "-C", tree, "--numeric-owner", "-xpf", tar},
		{"git", "clone", "--quiet", "--bare", ".", filepath.Join(tree, "src.git")},
	} {
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", argv[0], err, strings.TrimSpace(string(out)))
		}
	}
	certificates, err := filepath.Glob("/usr/local/share/ca-certificates/*.crt")
	if err != nil {
		return err
	}
	for _, path := range append(certificates, "/etc/resolv.conf", "/etc/hosts") {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		to := filepath.Join(tree, path)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		os.Remove(to) // it may be a link to what the tree does not have
		if err := os.WriteFile(to, data, 0o644); err != nil {
			return err
		}
	}
	return os.MkdirAll(filepath.Join(tree, goRoot), 0o755)
}

// goRoot is where Go is in the tree, as its own instructions have it.
const goRoot = "/usr/local/go"

// passed are the variables that the tree's programs get from here: how this
// host reaches others.
var passed = []string{"http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "GOPROXY", "GOSUMDB", "GONOSUMDB", "GOPRIVATE"}

// enter runs argv in the tree and directory dir of it.
func enter(ctx context.Context, tree, dir string, argv []string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("go env: %w", err)
	}
	cmd := exec.CommandContext(ctx, self, append([]string{strings.TrimSpace(string(root)), dir}, argv...)...)
	cmd.Env = []string{insideVariable + "=" + tree, "HOME=" + home, "LANG=C.UTF-8", "PATH=" + goRoot + "/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	for _, name := range passed {
		if v, ok := os.LookupEnv(name); ok {
			cmd.Env = append(cmd.Env, name+"="+v)
		}
	}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL,
	}
	return cmd.Run()
}

// inside is PID 1 of the tree: it makes the tree its root, with Go's directory
// args[0] in it, runs args[2:] in the directory args[1], and takes care of
// whoever is left an orphan, until that has ended. It returns its exit code.
func inside(tree string, args []string) (int, error) {
	os.Unsetenv(insideVariable)
	// In the namespaces of this host it would change the host's own root.
	if os.Getpid() != 1 {
		return 0, fmt.Errorf("%s is for the first process of a namespace only", insideVariable)
	}
	// Nothing that is mounted here is to be seen outside.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return 0, err
	}
	for _, m := range []struct {
		source, target, kind string
		flags                uintptr
	}{
		{tree, "", "", unix.MS_BIND},
		{args[0], goRoot, "", unix.MS_BIND},
		{"", goRoot, "", unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY},
		{"proc", "/proc", "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"/sys", "/sys", "", unix.MS_BIND | unix.MS_REC},
		{"/dev", "/dev", "", unix.MS_BIND | unix.MS_REC},
		{"tmpfs", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV},
	} {
		if err := unix.Mount(m.source, filepath.Join(tree, m.target), m.kind, m.flags, ""); err != nil {
			return 0, fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	// A root of its own rather than chroot(2): mounts and namespaces that are
	// made below work then as anywhere.
	if err := errors.Join(os.Chdir(tree), unix.PivotRoot(".", "."), unix.Unmount(".", unix.MNT_DETACH), os.Chdir(args[1])); err != nil {
		return 0, err
	}
	path, err := exec.LookPath(args[2])
	if err != nil {
		return 0, err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	child, err := os.StartProcess(path, args[2:], &os.ProcAttr{Files: []*os.File{null, os.Stdout, os.Stderr}})
	if err != nil {
		return 0, err
	}
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 0, err
		case pid == child.Pid && status.Signaled():
			return 128 + int(status.Signal()), nil
		case pid == child.Pid:
			return status.ExitStatus(), nil
		}
	}
}
