package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

type codedError struct{}

func (codedError) Error() string { return "bad root" }
func (codedError) ExitCode() int { return ExitVerify }
func (codedError) Hint() string  { return "look closer" }

// demo returns an app whose command "do" records what it was given.
func demo(got *[]string) *App {
	return &App{
		Name: "demo",
		Commands: []*Command{
			{
				Name:  "do",
				Flags: []Flag{&StringFlag{Name: "log", EnvVars: []string{"GB_TEST_LOG"}}, &BoolFlag{Name: "json"}, &IntFlag{Name: "n"}},
				Action: func(c *Context) error {
					after, ok := AfterDashes(c)
					*got = []string{c.String("log"), fmt.Sprint(c.Bool("json")), fmt.Sprint(c.Int("n")),
						strings.Join(c.Args().Slice(), " "), fmt.Sprint(ok), strings.Join(after, " ")}
					return nil
				},
			},
			{Name: "fail", Action: func(c *Context) error { return fmt.Errorf("verify x: %w", codedError{}) }},
			{Name: "plain", Action: func(c *Context) error { return errors.New("no") }},
			{Name: "nothing", Action: func(c *Context) error { return Exit(ExitNothing) }},
			{Name: "hold", Description: "A hold keeps something.", Subcommands: []*Command{{
				Name:   "add",
				Flags:  []Flag{&StringFlag{Name: "reason"}},
				Action: func(c *Context) error { *got = append(c.Args().Slice(), c.String("reason")); return nil },
			}}},
		},
	}
}

func run(t *testing.T, args ...string) (code int, got []string, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = Run(context.Background(), demo(&got), args, Streams{strings.NewReader(""), &out, &errs})
	return code, got, out.String(), errs.String()
}

func TestFlagsStandAnywhere(t *testing.T) {
	for _, c := range []struct{ args, want []string }{
		{[]string{"do", "--log", "L", "a"}, []string{"L", "false", "0", "a", "false", ""}},
		{[]string{"do", "a", "--log", "L", "--json"}, []string{"L", "true", "0", "a", "false", ""}},
		{[]string{"do", "-", "--n", "-5", "--log=L", "b"}, []string{"L", "false", "-5", "- b", "false", ""}},
		{[]string{"do", "--json=false", "--", "--log", "x"}, []string{"", "false", "0", "--log x", "true", "--log x"}},
		{[]string{"do", "a", "--"}, []string{"", "false", "0", "a", "true", ""}},
		{[]string{"do", "do"}, []string{"", "false", "0", "do", "false", ""}},
		{[]string{"hold", "add", "S", "--reason", "why"}, []string{"S", "why"}},
	} {
		code, got, _, stderr := run(t, c.args...)
		if code != 0 || !slices.Equal(got, c.want) {
			t.Errorf("%q: exit %d, got %q, want %q; %s", c.args, code, got, c.want, stderr)
		}
	}
}

func TestExitCodesAndMessages(t *testing.T) {
	for _, c := range []struct {
		args   []string
		code   int
		stderr string
	}{
		{[]string{"fail"}, 3, "demo: verify x: bad root\nhint: look closer\n"},
		{[]string{"plain"}, 1, "demo: no\n"},
		{[]string{"nothing"}, 4, ""},
		{[]string{"do", "--nope"}, 2, "demo: unknown flag --nope\nhint: did you mean -n? see demo do --help\n"},
		{[]string{"do", "--n", "x"}, 2, "demo: invalid value \"x\" for flag -n: parse error\nhint: see demo do --help\n"},
		{[]string{"dp"}, 2, "demo: unknown command \"dp\"\nhint: did you mean \"do\"? demo --help lists the commands\n"},
		{[]string{"--nope"}, 2, "demo: unknown flag --nope\nhint: did you mean --help? see demo --help\n"},
	} {
		code, _, stdout, stderr := run(t, c.args...)
		if code != c.code || stderr != c.stderr || stdout != "" {
			t.Errorf("%q: exit %d, stderr %q, stdout %q; want %d, %q", c.args, code, stderr, stdout, c.code, c.stderr)
		}
	}
}

func TestNoCommandShowsHelpOnStderr(t *testing.T) {
	code, _, stdout, stderr := run(t)
	if code != ExitUsage || stdout != "" || !strings.Contains(stderr, "COMMANDS") {
		t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	if code, _, _, stderr := run(t, "hold", "bad"); code != ExitUsage || !strings.Contains(stderr, "unknown command") {
		t.Errorf("exit %d, stderr %q", code, stderr)
	}
}

func TestEnvironmentTwin(t *testing.T) {
	t.Setenv("GB_TEST_LOG", "E")
	if _, got, _, _ := run(t, "do"); got[0] != "E" {
		t.Errorf("got %q", got)
	}
	if _, got, _, _ := run(t, "do", "--log", "F"); got[0] != "F" {
		t.Errorf("got %q", got)
	}
}

func TestCompletionAndMan(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		code, _, stdout, stderr := run(t, "completion", shell)
		if code != 0 || !strings.Contains(stdout, "demo") || strings.Contains(stdout, "@") && strings.Contains(stdout, "@NAME") {
			t.Errorf("%s: exit %d, %q, %q", shell, code, stdout, stderr)
		}
	}
	for _, args := range [][]string{{"completion"}, {"completion", "csh"}, {"completion", "bash", "zsh"}} {
		if code, _, stdout, _ := run(t, args...); code != ExitUsage || stdout != "" {
			t.Errorf("%q: exit %d, %q", args, code, stdout)
		}
	}
	var got []string
	page, err := Man(demo(&got))
	if err != nil || !strings.Contains(page, ".TH DEMO 1") {
		t.Errorf("man page %q, %v", page, err)
	}
	// A command with others under it is described too.
	if !strings.Contains(page, ".SS \"demo hold\"\n") || !strings.Contains(page, "A hold keeps something.") || !strings.Contains(page, ".SS \"demo hold add\"\n") {
		t.Errorf("man page %q", page)
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"plain ünïcode":      "plain ünïcode",
		"a\x1b[2Jb\n":        `a\x1b[2Jb\x0a`,
		"bad\xffutf8":        `bad\xffutf8`,
		"right\u202eto left": `right\u202eto left`,
	} {
		if got := Printable(in); got != want {
			t.Errorf("Printable(%q) = %q, want %q", in, got, want)
		}
	}
}
