//go:build linux

// Package docs holds the documents to what the tools do: the sessions in them
// are run as written, and what is printed is compared.
package docs

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/ghostbridge/ghostbridge/integration/loopbtrfs"
	"github.com/ghostbridge/ghostbridge/integration/require"
	"github.com/ghostbridge/ghostbridge/integration/tools"
)

// A session is a block of a document between ```console and ```, below a line
// <!-- session: NAME -->. Lines that begin with "$ " are commands, "> " goes on
// with one, the others are what it prints, standard error included. A line of
// "..." stands for any number of lines. The directory is a btrfs with the
// subvolume @blockchain-timing and the directory snapshots.
type session struct {
	name     string
	line     int
	commands []command
}

type command struct {
	text   string
	output []string
}

var marker = regexp.MustCompile(`^<!-- session: ([a-z0-9-]+) -->$`)

func sessions(t *testing.T, file string) []session {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var list []session
	lines := strings.Split(string(data), "\n")
	for i := 0; i < len(lines); i++ {
		m := marker.FindStringSubmatch(lines[i])
		if m == nil {
			continue
		}
		if i+1 >= len(lines) || lines[i+1] != "```console" {
			t.Fatalf("%s:%d: no console block below the marker", file, i+1)
		}
		s := session{name: m[1], line: i + 1}
		for i += 2; i < len(lines) && lines[i] != "```"; i++ {
			text, isCommand := strings.CutPrefix(lines[i], "$ ")
			more, goesOn := strings.CutPrefix(lines[i], "> ")
			switch n := len(s.commands); {
			case isCommand:
				s.commands = append(s.commands, command{text: text})
			case n == 0:
				t.Fatalf("%s:%d: output before the first command", file, i+1)
			case goesOn:
				s.commands[n-1].text += "\n" + more
			default:
				s.commands[n-1].output = append(s.commands[n-1].output, lines[i])
			}
		}
		list = append(list, s)
	}
	return list
}

// varying is what differs from one run to the next.
var varying = []struct {
	pattern *regexp.Regexp
	mask    string
}{
	{regexp.MustCompile(`\d{8}T\d{6}\.\d{9}Z`), "SNAPSHOT"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?`), "TIME"},
	{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`), "UUID"},
	{regexp.MustCompile(`\+[0-9a-f]{8}\+[A-Za-z0-9+/=]{44}`), "+KEY"},
	{regexp.MustCompile(`[A-Za-z0-9+/]{43}=`), "HASH"},
	{regexp.MustCompile(`"c":"[0-9a-f]{8}"`), `"c":CRC`},
	{regexp.MustCompile(`"host":"[^"]*"`), `"host":HOST`},
	{regexp.MustCompile(`"unit":"[^"]*"`), `"unit":UNIT`},
	{regexp.MustCompile(`\d+(\.\d+)? ?(KiB|MiB|B|ms|s)\b`), "AMOUNT"},
	{regexp.MustCompile(`transid=\d+`), "transid=N"},
	{regexp.MustCompile(`"score":[0-9.]+`), `"score":SCORE`},
	{regexp.MustCompile(` +`), " "}, // columns are as wide as what is in them
}

func mask(line string) string {
	for _, v := range varying {
		line = v.pattern.ReplaceAllString(line, v.mask)
	}
	return strings.TrimRight(line, " ")
}

// matches compares what was printed with what the document says, in which "..."
// stands for any number of lines.
func matches(printed, document []string) error {
	if len(document) == 0 {
		if len(printed) > 0 {
			return fmt.Errorf("it prints more: %q", printed[0])
		}
		return nil
	}
	if document[0] == "..." {
		for skip := 0; skip <= len(printed); skip++ {
			if matches(printed[skip:], document[1:]) == nil {
				return nil
			}
		}
		return fmt.Errorf("nothing behind ... matches")
	}
	if len(printed) == 0 {
		return fmt.Errorf("it does not print %q", document[0])
	}
	if got, want := mask(printed[0]), mask(document[0]); got != want {
		return fmt.Errorf("it prints\n\t%s\nthe document says\n\t%s\nmasked\n\t%s\n\t%s", printed[0], document[0], got, want)
	}
	return matches(printed[1:], document[1:])
}

func TestMain(m *testing.M) { tools.Main(m) }

func TestSessions(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	bin := tools.Dir(t)
	documents, err := filepath.Glob(root + "/*.md")
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, file := range documents {
		for _, s := range sessions(t, file) {
			ran++
			t.Run(strings.TrimSuffix(filepath.Base(file), ".md")+"/"+s.name, func(t *testing.T) { s.run(t, file, bin) })
		}
	}
	if ran == 0 {
		t.Fatal("no document has a session")
	}
}

func (s session) run(t *testing.T, file, bin string) {
	require.Tool(t, "jq")
	mnt := loopbtrfs.Mount(t, loopbtrfs.Options{})
	if out, err := exec.Command("btrfs", "-q", "subvolume", "create", filepath.Join(mnt, "@blockchain-timing")).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := os.Mkdir(filepath.Join(mnt, "snapshots"), 0o755); err != nil {
		t.Fatal(err)
	}
	keys := t.TempDir()
	for _, c := range s.commands {
		// One shell a command: what a session relies on is in files.
		cmd := exec.Command("bash", "-euo", "pipefail", "-c", c.text)
		cmd.Dir = mnt
		cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "GB_KEYS="+keys)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		err := cmd.Run()
		if err != nil {
			t.Fatalf("%s:%d: $ %s\n%s%v", file, s.line, c.text, out.Bytes(), err)
		}
		var printed []string
		if out.Len() > 0 {
			printed = strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
		}
		if err := matches(printed, c.output); err != nil {
			t.Errorf("%s:%d: $ %s\n%v\nall of it:\n%s", file, s.line, c.text, err, out.Bytes())
		}
	}
}
