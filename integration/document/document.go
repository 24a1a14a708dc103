// Package document reads what the documents tell people to type, so that tests
// can run it and compare what is printed.
//
// A block begins with a line of three backticks and what it is: console (a
// session), sh, bash (commands without their output), json, nix, text. The line
// above a block may be a marker, <!-- KIND: TEXT -->; the kinds are:
//
//	session: NAME          run by integration/docs, on a btrfs of its own
//	session: NAME, switch  the same, in a network namespace with an Open vSwitch
//	                       and the log's daemon
//	session: NAME, SIZE    the same as the first, on a btrfs of SIZE, such as 200M
//	booted: NAME           run by integration/e2e in the container that was booted
//	                       with the Debian package in it
//	tested: TEST, ...      run by the tests of these names
//	not run: WHY           by nobody
//
// In a session a line that begins with "$ " is a command, "> " goes on with
// one, the others are what it prints, standard error included. A line of "..."
// stands for any number of lines, "…" within a line for any text.
package document

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
)

// A Block is what stands between two fences of a document.
type Block struct {
	File string
	Line int      // of the opening fence, from 1
	Info string   // what follows the opening fence: console, json, ...
	Kind string   // of the marker; "" without one
	Text string   // of the marker, behind the colon
	Rows []string // the lines between
}

// A Command is a command of a session with what it prints.
type Command struct {
	Line   int // in the document, from 1
	Text   string
	Output []string
}

var marker = regexp.MustCompile(`^<!-- (session|booted|tested|not run): (.+) -->$`)

// Read returns the blocks of a document, in their order. A marker that has no
// block below it, and a block that does not end, are errors.
func Read(file string) ([]Block, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var list []Block
	var m []string
	lines := strings.Split(string(data), "\n")
	for i := 0; i < len(lines); i++ {
		info, fence := strings.CutPrefix(strings.TrimSpace(lines[i]), "```")
		if !fence {
			if m != nil {
				return nil, fmt.Errorf("%s:%d: a marker without a block below it", file, i)
			}
			m = marker.FindStringSubmatch(lines[i])
			continue
		}
		b := Block{File: file, Line: i + 1, Info: info}
		if m != nil {
			b.Kind, b.Text, m = m[1], m[2], nil
		}
		for i++; i < len(lines) && strings.TrimSpace(lines[i]) != "```"; i++ {
			b.Rows = append(b.Rows, lines[i])
		}
		if i == len(lines) {
			return nil, fmt.Errorf("%s:%d: the block does not end", file, b.Line)
		}
		list = append(list, b)
	}
	return list, nil
}

// Name is the name of a session or of a booted block, and Option what follows it.
func (b Block) Name() string { name, _, _ := strings.Cut(b.Text, ", "); return name }

// Option is what follows the name of a session, "" without.
func (b Block) Option() string { _, option, _ := strings.Cut(b.Text, ", "); return option }

// Commands returns the commands of a block: of one of kind console, those that
// begin with "$ "; of another, each line, which then has no output to compare.
func (b Block) Commands() ([]Command, error) {
	var list []Command
	for i, row := range b.Rows {
		line := b.Line + 1 + i
		if b.Info != "console" {
			list = append(list, Command{Line: line, Text: row})
			continue
		}
		text, isCommand := strings.CutPrefix(row, "$ ")
		more, goesOn := strings.CutPrefix(row, "> ")
		switch n := len(list); {
		case isCommand:
			list = append(list, Command{Line: line, Text: text})
		case n == 0:
			return nil, fmt.Errorf("%s:%d: output before the first command", b.File, line)
		case goesOn:
			list[n-1].Text += "\n" + more
		default:
			list[n-1].Output = append(list[n-1].Output, row)
		}
	}
	return list, nil
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
	{regexp.MustCompile(`\d+(\.\d+)? ?(KiB|MiB|GiB|B|ms|s)\b`), "AMOUNT"},
	{regexp.MustCompile(`transid=\d+`), "transid=N"},
	{regexp.MustCompile(`"score":[0-9.]+`), `"score":SCORE`},
	{regexp.MustCompile(` +`), " "}, // columns are as wide as what is in them
}

// Mask returns a line without what differs from one run to the next: times,
// keys, hashes, sizes, names of hosts, the width of columns.
func Mask(line string) string {
	for _, v := range varying {
		line = v.pattern.ReplaceAllString(line, v.mask)
	}
	return strings.TrimRight(line, " ")
}

// Matches compares what was printed with what the document says.
func Matches(printed, document []string) error {
	if len(document) == 0 {
		if len(printed) > 0 {
			return fmt.Errorf("it prints more: %q", printed[0])
		}
		return nil
	}
	if document[0] == "..." {
		for skip := 0; skip <= len(printed); skip++ {
			if Matches(printed[skip:], document[1:]) == nil {
				return nil
			}
		}
		return fmt.Errorf("nothing behind ... matches %q", document[1:])
	}
	if len(printed) == 0 {
		return fmt.Errorf("it does not print %q", document[0])
	}
	if !alike(printed[0], document[0]) {
		return fmt.Errorf("it prints\n\t%s\nthe document says\n\t%s\nmasked\n\t%s\n\t%s", printed[0], document[0], Mask(printed[0]), Mask(document[0]))
	}
	return Matches(printed[1:], document[1:])
}

// alike compares a line with one in which "…" stands for any text.
func alike(printed, document string) bool {
	got, parts := Mask(printed), strings.Split(Mask(document), "…")
	for i, p := range parts {
		if i == len(parts)-1 && i > 0 {
			return strings.HasSuffix(got, p)
		}
		at := strings.Index(got, p)
		if at < 0 || i == 0 && at > 0 {
			return false
		}
		got = got[at+len(p):]
	}
	return got == ""
}

// Lines splits what a program printed.
func Lines(out []byte) []string {
	if len(out) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
}

// Size is how many bytes the file system of a session is to have, 0 if it does
// not matter.
func (b Block) Size() int64 {
	mib, err := strconv.ParseInt(strings.TrimSuffix(b.Option(), "M"), 10, 32)
	if err != nil {
		return 0
	}
	return mib << 20
}
