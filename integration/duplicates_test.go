package integration

import (
	"fmt"
	"go/scanner"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// window is how many tokens two places must have in common, names and literals
// apart, to count as one written twice.
const window = 100

// ceiling is the most of the code, in tokens of a thousand, that may stand
// twice. It was 13.5 when the measure was made: lower the ceiling when you can.
const ceiling = 15

// A span is a run of tokens of a file that stands elsewhere too.
type span struct {
	file       string
	first, end int // lines
}

// duplicates returns how many of the tokens stand at more than one place, how
// many there are, and where.
func duplicates(files map[string][]byte) (twice, all int, places []span) {
	type tok struct {
		code byte
		line int
	}
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	tokens := make(map[string][]tok)
	for _, name := range names {
		set := token.NewFileSet()
		file := set.AddFile(name, -1, len(files[name]))
		var s scanner.Scanner
		s.Init(file, files[name], func(token.Position, string) {}, 0)
		head := true // lists of imports are alike by nature
		for {
			pos, t, _ := s.Scan()
			if t == token.EOF {
				break
			}
			if t == token.FUNC || t == token.TYPE || t == token.VAR || t == token.CONST {
				head = false
			}
			if !head {
				tokens[name] = append(tokens[name], tok{byte(t), file.Line(pos)})
			}
		}
		all += len(tokens[name])
	}
	type start struct {
		file string
		at   int
	}
	seen := make(map[string][]start)
	for _, name := range names {
		list := tokens[name]
		codes := make([]byte, len(list))
		for i, t := range list {
			codes[i] = t.code
		}
		for i := 0; i+window <= len(codes); i++ {
			key := string(codes[i : i+window])
			seen[key] = append(seen[key], start{name, i})
		}
	}
	marked := make(map[string][]bool)
	for _, starts := range seen {
		first := starts[0]
		for _, s := range starts[1:] {
			// A list of the same form again and again is no copy of itself.
			if s.file == first.file && s.at < first.at+window {
				continue
			}
			for _, m := range []start{first, s} {
				if marked[m.file] == nil {
					marked[m.file] = make([]bool, len(tokens[m.file]))
				}
				for i := range window {
					marked[m.file][m.at+i] = true
				}
			}
		}
	}
	for _, name := range names {
		for i := 0; i < len(marked[name]); i++ {
			if !marked[name][i] {
				continue
			}
			p := span{file: name, first: tokens[name][i].line}
			for ; i < len(marked[name]) && marked[name][i]; i++ {
				twice++
				p.end = tokens[name][i].line
			}
			places = append(places, p)
		}
	}
	return twice, all, places
}

// No more of the code stands twice than did.
func TestDuplicates(t *testing.T) {
	out, err := exec.Command("git", "-C", "..", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", "*.go").Output()
	if err != nil {
		t.Skipf("needs a clone: git ls-files: %v", err)
	}
	files := make(map[string][]byte)
	for name := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		if strings.HasSuffix(name, "_test.go") || strings.Contains(name, "testdata/") {
			continue // tables of tests are alike by nature
		}
		data, err := os.ReadFile(filepath.Join("..", name))
		if os.IsNotExist(err) {
			continue // removed and not yet committed
		}
		if err != nil {
			t.Fatal(err)
		}
		files[name] = data
	}
	if len(files) < 100 {
		t.Fatalf("%d files", len(files))
	}
	twice, all, places := duplicates(files)
	share := 1000 * float64(twice) / float64(all)
	t.Logf("%d of %d tokens in %d files stand twice, %.1f of a thousand; the ceiling is %d", twice, all, len(files), share, ceiling)
	if share <= ceiling && !testing.Verbose() {
		return
	}
	for _, p := range places {
		t.Logf("%s:%d-%d", p.file, p.first, p.end)
	}
	if share > ceiling {
		t.Errorf("more than %d of a thousand: bring what was copied to one place", ceiling)
	}
}

func TestDuplicatesAreFound(t *testing.T) {
	body := func(name string, n int) string {
		var b strings.Builder
		fmt.Fprintf(&b, "func %s(x int) int {\n", name)
		for i := range n {
			fmt.Fprintf(&b, "\tif x > %d {\n\t\tx += %s(%d)\n\t}\n", i, name, i)
			if i%3 == 0 {
				b.WriteString("\tfor x < 0 {\n\t\tx++\n\t}\n")
			}
		}
		b.WriteString("\treturn x\n}\n")
		return b.String()
	}
	head := "package p\n\nimport (\n" + strings.Repeat("\t\"fmt\"\n", 100) + ")\n\n"
	if twice, all, places := duplicates(map[string][]byte{"a.go": []byte(head + body("f", 12)), "b.go": []byte(head + "type t int\n\n" + body("g", 12))}); len(places) != 2 || twice < all*9/10 {
		t.Errorf("%d of %d tokens, %v", twice, all, places)
	}
	if twice, _, places := duplicates(map[string][]byte{"a.go": []byte(head + body("f", 3)), "b.go": []byte(head + body("g", 3))}); twice != 0 {
		t.Errorf("too short to count: %d tokens, %v", twice, places)
	}
	if twice, _, _ := duplicates(map[string][]byte{"a.go": []byte("package p\n\nvar x = []int{" + strings.Repeat("1, ", 60) + "}\n")}); twice != 0 {
		t.Errorf("a list is a copy of itself: %d", twice)
	}
}
