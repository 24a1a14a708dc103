//go:build linux

// Package completion tries what make install installs in the shells that it is
// for: bash, zsh and fish complete command lines, and man shows the pages.
package completion

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ghostbridge/ghostbridge/integration/privatebus"
	"github.com/ghostbridge/ghostbridge/integration/require"
	"github.com/ghostbridge/ghostbridge/integration/tools"
)

func TestMain(m *testing.M) { tools.Main(m) }

// install runs make install and returns the directory that it installed below.
func install(t *testing.T) string {
	t.Helper()
	require.Tool(t, "make")
	dir := t.TempDir()
	cmd := exec.Command("make", "install", "BIN="+tools.Dir(t), "DESTDIR="+dir, "PREFIX=/usr")
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make install: %v\n%s", err, out)
	}
	return filepath.Join(dir, "usr")
}

// The lines that are typed, up to the key that completes, and what must and
// must not be on the screen then. BUS is the bus' address. Descriptions are
// fish's and zsh's.
var typed = []struct {
	line           string
	want, unwanted []string
	described      string
}{
	{line: "gb-chain ", want: []string{"append", "rotate-key", "witness"}, described: "print events", unwanted: []string{"completion", "generate"}},
	{line: "gb-chain witness ", want: []string{"add", "offer"}, described: "offer the latest checkpoint", unwanted: []string{"append"}},
	{line: "gb-chain query --s", want: []string{"--since", "--severity", "--source"}, described: "of this SEVERITY or graver", unwanted: []string{"--log"}},
	{line: "gb-chain query --severity ", want: []string{"emerg", "warning", "debug"}, unwanted: []string{"--log"}},
	{line: "gb-chain append --format=", want: []string{"journald", "kmsg", "busctl"}},
	{line: "gb-chain query --log D/", want: []string{"sub-one", "sub-two"}, unwanted: []string{"file-one"}},
	{line: "gb-chain query --log=D/", want: []string{"sub-one", "sub-two"}, unwanted: []string{"file-one"}},
	{line: "gb-vecsync dump D/", want: []string{"file-one", "file-two", "sub-one"}},
	{line: "gb-snap take D/", want: []string{"sub-one", "sub-two"}, unwanted: []string{"file-one"}},
	{line: "gb-web login --role ", want: []string{"viewer", "operator", "approver"}},
	{line: "gb-ovs-setup render networkd l", want: []string{"networkd lo"}},
	{line: "gb-chain append -- unsha", want: []string{"unshare"}},
	{line: "opdbus get --bus BUS org.freedesktop.", want: []string{"org.freedesktop.hostname1", "org.freedesktop.DBus"}, described: ", pid "},
	{line: "opdbus get --bus=BUS org.freedesktop.", want: []string{"org.freedesktop.hostname1", "org.freedesktop.DBus"}},
	{line: "opdbus get --bus BUS org.freedesktop.hostname1 /", want: []string{"/org/freedesktop/hostname1"}},
	{line: "opdbus get --bus BUS org.freedesktop.hostname1 /org/freedesktop/hostname1 org.freedesktop.hostname1.", want: []string{"hostname1.Hostname", "hostname1.PrettyHostname"}, described: "s, read"},
	{line: "opdbus call --bus BUS org.freedesktop.hostname1 /org/freedesktop/hostname1 org.freedesktop.hostname1.Set", want: []string{"hostname1.SetStaticHostname", "hostname1.SetPrettyHostname"}, described: "(sb) -> ()", unwanted: []string{"hostname1.Hostname"}},
	{line: "opdbus names --json --a", want: []string{"--all"}},
}

// A world is a directory in which the lines above are typed, and a bus.
type world struct {
	usr, dir, address string
}

func newWorld(t *testing.T) world {
	t.Helper()
	w := world{usr: install(t), dir: t.TempDir(), address: privatebus.Start(t, privatebus.Options{Open: true})}
	for _, d := range []string{"D/sub-one", "D/sub-two"} {
		if err := os.MkdirAll(filepath.Join(w.dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"D/file-one", "D/file-two"} {
		if err := os.WriteFile(filepath.Join(w.dir, f), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	privatebus.Mock(t, w.address, "org.freedesktop.hostname1", "../opdbus/testdata/hostname1.py")
	return w
}

// environment is that of a user of whom nothing is known, with what is
// installed below usr before what the host has.
func (w world) environment() []string {
	return []string{"HOME=" + w.dir, "ZDOTDIR=" + w.dir, "TERM=xterm", "LANG=C.UTF-8", "PATH=" + w.usr + "/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"XDG_DATA_DIRS=" + w.usr + "/share:/usr/local/share:/usr/share"}
}

func (w world) write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(w.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// try checks what complete has on the screen after each line.
func (w world) try(t *testing.T, described bool, complete func(line string) string) {
	t.Helper()
	for _, c := range typed {
		line := strings.ReplaceAll(c.line, "BUS", w.address)
		got := complete(line)
		for _, want := range c.want {
			if !strings.Contains(got, want) {
				t.Errorf("%q: %s is not offered:\n%s", line, want, got)
			}
		}
		for _, unwanted := range c.unwanted {
			if strings.Contains(got, unwanted) {
				t.Errorf("%q: %s is offered:\n%s", line, unwanted, got)
			}
		}
		if described && !strings.Contains(got, c.described) {
			t.Errorf("%q: it is not said what they are, as in %q:\n%s", line, c.described, got)
		}
	}
}

// Bash finds the scripts by itself, and words with : and = in them are no
// stumbling block.
func TestBash(t *testing.T) {
	bash, loader := require.Tool(t, "bash"), "/usr/share/bash-completion/bash_completion"
	if _, err := os.Stat(loader); err != nil {
		require.Skip(t, "needs the package bash-completion")
	}
	w := newWorld(t)
	rc := w.write(t, ".bashrc", `PS1='`+prompt+`'
bind 'set show-all-if-ambiguous on'
bind 'set completion-query-items 0'
bind 'set page-completions off'
bind 'set enable-bracketed-paste off'
bind 'set bell-style none'
. `+loader+"\n")
	s := openTerminal(t, w.dir, w.environment(), bash, "--rcfile", rc, "-i")
	w.try(t, false, func(line string) string { return s.press(line + "\t") })
	// What is completed is run.
	if got := s.press("gb-sna\tstat\t--he\t\n"); !strings.Contains(got, "gb-snap status - ") {
		t.Errorf("gb-snap status --help, completed, prints\n%s", got)
	}
}

func TestZsh(t *testing.T) {
	zsh := require.Tool(t, "zsh")
	w := newWorld(t)
	w.write(t, ".zshrc", `PROMPT='`+prompt+`'
LISTMAX=1000
setopt no_list_ambiguous no_prompt_sp no_beep
unset zle_bracketed_paste
fpath=(`+w.usr+`/share/zsh/site-functions $fpath)
autoload -U compinit
compinit -u -D
`)
	s := openTerminal(t, w.dir, w.environment(), zsh, "-d", "-i")
	w.try(t, true, func(line string) string { return s.press(line + "\t") })
	if got := s.press("gb-snap stat\t--he\t\n"); !strings.Contains(got, "gb-snap status - ") {
		t.Errorf("gb-snap status --help, completed, prints\n%s", got)
	}
}

func TestFish(t *testing.T) {
	fish := require.Tool(t, "fish")
	w := newWorld(t)
	w.try(t, true, func(line string) string {
		cmd := exec.Command(fish, "--command", "complete --do-complete=$argv[1]", line)
		cmd.Dir, cmd.Env = w.dir, w.environment()
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%q: %v", line, err)
		}
		// As on a screen: what is typed, and then what is offered.
		return line[:strings.LastIndex(line, " ")+1] + string(out)
	})
}

// The manual pages are shown without a complaint.
func TestManualPages(t *testing.T) {
	man, mandoc := require.Tool(t, "man"), require.Tool(t, "mandoc")
	usr := install(t)
	pages, err := filepath.Glob(filepath.Join(usr, "share/man/man1/*.1"))
	if err != nil || len(pages) != 6 {
		t.Fatal(pages, err)
	}
	for _, page := range pages {
		cmd := exec.Command(man, "--warnings", "--encoding=UTF-8", "--local-file", page)
		cmd.Env = append(os.Environ(), "MANWIDTH=80", "LC_ALL=C.UTF-8", "MANROFFSEQ=")
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		if err := cmd.Run(); err != nil || stderr.Len() > 0 || !strings.Contains(stdout.String(), "SYNOPSIS") {
			t.Errorf("man %s: %v\n%s\n%.200s", filepath.Base(page), err, stderr.Bytes(), stdout.Bytes())
		}
		// They have no date, so as to change with the tool only.
		out, _ := exec.Command(mandoc, "-T", "lint", "-W", "warning", page).CombinedOutput()
		for line := range strings.Lines(string(out)) {
			if !strings.Contains(line, "missing date") {
				t.Errorf("mandoc: %s", line)
			}
		}
	}
}

// A terminal is a shell on a pseudo-terminal.
type terminal struct {
	t   *testing.T
	pty *os.File
	cmd *exec.Cmd
	n   int
}

func openTerminal(t *testing.T, dir string, env []string, argv ...string) *terminal {
	t.Helper()
	pty, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		require.Skip(t, "needs pseudo-terminals: "+err.Error())
	}
	t.Cleanup(func() { pty.Close() })
	fd := int(pty.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = errors.Join(unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0), unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 100, Col: 240}))
	}
	if err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		require.Skip(t, "needs pseudo-terminals: "+err.Error())
	}
	defer tty.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir, cmd.Env = dir, env
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // its session's
		cmd.Wait()
	})
	s := &terminal{t: t, pty: pty, cmd: cmd}
	s.await("")
	return s
}

const prompt = "ready> "

// press types keys, and then a command by which the end of what they bring
// forth is known, and returns what was on the screen until then.
func (s *terminal) press(keys string) string {
	s.t.Helper()
	s.n++
	// Ctrl-U takes back what was typed. The word is not what is typed, which the
	// terminal shows as well.
	if _, err := s.pty.WriteString(keys + "\x15echo no''thing-" + fmt.Sprint(s.n) + "\n"); err != nil {
		s.t.Fatal(err)
	}
	return s.await(fmt.Sprintf("\nnothing-%d\n", s.n))
}

// await returns what is on the screen when there is text, and a prompt behind
// it: before, keys are not yet the shell's.
func (s *terminal) await(text string) string {
	s.t.Helper()
	var seen bytes.Buffer
	buf := make([]byte, 1<<16)
	for deadline := time.Now().Add(30 * time.Second); ; {
		s.pty.SetReadDeadline(deadline)
		n, err := s.pty.Read(buf)
		seen.Write(buf[:n])
		screen := plain(seen.String())
		if _, behind, ok := strings.Cut(screen, text); ok && strings.Contains(behind, prompt) {
			return screen
		}
		if err != nil {
			s.t.Fatalf("%q: %v\n%s", text, err, screen)
		}
	}
}

var escapes = regexp.MustCompile("\x1b(\\[[0-9;?>=]*[A-Za-z]|\\][^\x07]*\x07|[()][A-Z0-9]|[=>])")

// plain is text without what moves a cursor or sets a colour.
func plain(text string) string {
	return strings.ReplaceAll(escapes.ReplaceAllString(text, ""), "\r", "")
}
