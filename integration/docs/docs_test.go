//go:build linux

// Package docs holds the documents to what the tools do: the sessions in them
// are run as written, and what is printed is compared; a block that nobody runs
// says why; commands and flags that are spoken of are there.
package docs

import (
	"fmt"
	"html"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/document"
	"github.com/ghostbridge/ghostbridge/integration/loopbtrfs"
	"github.com/ghostbridge/ghostbridge/integration/require"
	"github.com/ghostbridge/ghostbridge/integration/tools"
	"github.com/ghostbridge/ghostbridge/integration/vswitch"
)

func TestMain(m *testing.M) { tools.Main(m) }

const root = "../.."

// documents returns every document of the repository.
func documents(t *testing.T) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "node_modules" || d.Name() == "testdata" || d.Name() == ".git" || path == root+"/var" || path == root+"/dist"):
			return fs.SkipDir
		case strings.HasSuffix(path, ".md"):
			list = append(list, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(list) < 8 {
		t.Fatalf("only %q", list)
	}
	return list
}

func blocks(t *testing.T, file string) []document.Block {
	t.Helper()
	list, err := document.Read(file)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func short(file string) string { return strings.TrimPrefix(file, root+"/") }

func TestSessions(t *testing.T) {
	bin, err := filepath.Abs(tools.Dir(t))
	if err != nil {
		t.Fatal(err)
	}
	names := make(map[string]bool)
	for _, file := range documents(t) {
		for _, b := range blocks(t, file) {
			if b.Kind != "session" {
				continue
			}
			name := strings.TrimSuffix(short(file), ".md") + "/" + b.Name()
			if names[name] {
				t.Errorf("%s:%d: a second session of this name", file, b.Line)
			}
			names[name] = true
			t.Run(name, func(t *testing.T) { session(t, b, bin) })
		}
	}
	if len(names) == 0 {
		t.Fatal("no document has a session")
	}
}

// session runs a block and compares.
func session(t *testing.T, b document.Block, bin string) {
	require.Tool(t, "jq")
	place := document.Place{Bin: bin, Keys: t.TempDir()}
	switch {
	case b.Option() == "switch":
		ns, env := aSwitch(t, bin)
		place.Within, place.Env = []string{"ip", "netns", "exec", ns}, env
	case b.Option() != "" && b.Size() == 0:
		t.Fatalf("%s:%d: what is %q?", b.File, b.Line, b.Option())
	}
	place.Dir = loopbtrfs.Mount(t, loopbtrfs.Options{Size: b.Size()})
	if err := place.Prepare(); err != nil {
		t.Fatal(err)
	}
	commands, err := b.Commands()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range commands {
		out, err := place.Run(t.Context(), c)
		if err != nil {
			t.Fatalf("%s:%d: $ %s\n%s%v", b.File, c.Line, c.Text, out, err)
		}
		if err := document.Matches(document.Lines(out), c.Output); err != nil {
			t.Errorf("%s:%d: $ %s\n%v\nall of it:\n%s", b.File, c.Line, c.Text, err, out)
		}
	}
}

// aSwitch makes an Open vSwitch in a network namespace with the NIC ens1, and
// starts a log's daemon, without which nothing is changed. It returns the
// namespace and the environment in which the tools find both.
func aSwitch(t *testing.T, bin string) (ns string, env []string) {
	t.Helper()
	s := vswitch.Start(t, vswitch.Options{})
	far, err := s.Namespace()
	if err == nil {
		err = s.Link("ens1", far, "far0")
	}
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	env = []string{"OVS_RUNDIR=" + s.Dir, "GB_OVS_DB=" + s.DB, "GB_OVS_STATE=" + dir + "/state", "GB_SPOOL=" + dir + "/spool",
		"GB_CHAIN_SOCKET=" + dir + "/chain.sock"}
	keys := dir + "/keys"
	if out, err := exec.Command(bin+"/gb-chain", "init", "--log", dir+"/log", "--keys", keys, "--origin", "host.example/log", "--recovery-file", dir+"/recovery").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	daemon := exec.Command(bin+"/gb-chain", "serve", "--log", dir+"/log", "--keys", keys, "--socket", dir+"/chain.sock")
	daemon.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { daemon.Process.Signal(syscall.SIGTERM); daemon.Wait() })
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(dir + "/chain.sock"); err == nil {
			return s.NS, env
		}
		if time.Now().After(deadline) {
			t.Fatal("the log's daemon does not come")
		}
	}
}

// Every block with something to type is run by a test, or says why not.
func TestEveryBlockIsRunOrSaysWhyNot(t *testing.T) {
	tests := testNames(t)
	for _, file := range documents(t) {
		for _, b := range blocks(t, file) {
			at := fmt.Sprintf("%s:%d", short(b.File), b.Line)
			switch b.Info {
			case "json", "nix", "text", "xml": // nothing to type
				for _, row := range b.Rows {
					if strings.HasPrefix(row, "$ ") {
						t.Errorf("%s: a command in a block of %s", at, b.Info)
					}
				}
				if b.Kind != "" {
					t.Errorf("%s: there is nothing to run in a block of %s", at, b.Info)
				}
				continue
			case "console", "bash", "sh":
			default:
				t.Errorf("%s: what is in this block? One of console, sh, bash, json, nix, xml and text is to follow the backticks", at)
				continue
			}
			switch b.Kind {
			case "":
				t.Errorf("%s: who runs this? A marker is to stand above the block, see the package integration/document", at)
			case "session", "booted":
				if b.Info != "console" {
					t.Errorf("%s: a block that is run is a console", at)
				}
			case "tested":
				for name := range strings.SplitSeq(b.Text, ", ") {
					if !tests[name] {
						t.Errorf("%s: there is no test %s", at, name)
					}
				}
			}
		}
	}
}

// testNames returns the names of all tests of the repository.
func testNames(t *testing.T) map[string]bool {
	t.Helper()
	names := make(map[string]bool)
	function := regexp.MustCompile(`(?m)^func (Test[A-Za-z0-9_]+)\(`)
	for _, dir := range []string{"pkg", "cmd", "integration"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			for _, m := range function.FindAllSubmatch(text, -1) {
				names[string(m[1])] = true
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return names
}

// What the text calls a command of ours is one, with these flags.
func TestCommandsAndFlagsAreThere(t *testing.T) {
	code := regexp.MustCompile("`((?:gb-chain|gb-snap|gb-vecsync|gb-ovs-setup|opdbus|gb-web) [a-z][^`]*)`")
	flag := regexp.MustCompile(`(?:^|[ =|])(--[a-z][a-z0-9-]*)`)
	found := 0
	for _, file := range documents(t) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		// A code span may go on in the next line.
		for _, m := range code.FindAllStringSubmatch(regexp.MustCompile(`\n *`).ReplaceAllString(string(text), " "), -1) {
			found++
			words := strings.Fields(m[1])
			for command := range strings.SplitSeq(words[1], "|") {
				page := manual(t, words[0], command)
				if page == "" {
					t.Errorf("%s: `%s`: man/%s.1 has no command %s", short(file), m[1], words[0], command)
				}
				for _, f := range flag.FindAllStringSubmatch(m[1], -1) {
					if f[1] != "--help" && !regexp.MustCompile(regexp.QuoteMeta(f[1])+`\b`).MatchString(page) {
						t.Errorf("%s: `%s`: %s %s has no %s", short(file), m[1], words[0], command, f[1])
					}
				}
			}
		}
	}
	if found < 20 {
		t.Errorf("only %d commands found in the documents", found)
	}
}

// manual returns what a tool's manual says of a command and its subcommands,
// "" if it knows none of this name.
func manual(t *testing.T, tool, command string) string {
	t.Helper()
	page, err := os.ReadFile(filepath.Join(root, "man", tool+".1"))
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, section := range strings.Split(strings.ReplaceAll(string(page), `\-`, "-"), "\n.S") {
		if title, ok := strings.CutPrefix(section, `S "`+tool+" "+command); ok && (title[0] == ' ' || title[0] == '"') {
			text.WriteString(section)
		}
	}
	return text.String()
}

// The picture of a terminal is of the session that the document has now.
func TestPictureOfATerminal(t *testing.T) {
	picture, err := os.ReadFile(root + "/docs/screenshots/terminal.svg")
	if err != nil {
		t.Fatal(err)
	}
	b := document.Block{File: "terminal.svg", Info: "console"}
	for _, m := range regexp.MustCompile(`<text [^>]*class="([a-z ]+)"[^>]*>([^<]*)</text>`).FindAllStringSubmatch(string(picture), -1) {
		text := html.UnescapeString(m[2])
		if strings.HasSuffix(m[1], " more") {
			b.Rows[len(b.Rows)-1] += text
		} else {
			b.Rows = append(b.Rows, text)
		}
	}
	shown, err := b.Commands()
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range blocks(t, root+"/docs/terminal.md") {
		commands, err := b.Commands()
		if err != nil {
			t.Fatal(err)
		}
		if len(shown) != len(commands) {
			t.Fatalf("the picture has %d commands, the document %d: make screenshots", len(shown), len(commands))
		}
		for i, c := range commands {
			if shown[i].Text != c.Text {
				t.Errorf("the picture has\n%s\nthe document\n%s\nmake screenshots makes it anew", shown[i].Text, c.Text)
			}
			if err := document.Matches(shown[i].Output, c.Output); err != nil {
				t.Errorf("$ %s: %v", c.Text, err)
			}
		}
	}
}
