package cli

import (
	"bytes"
	"context"
	"strings"
	"testing"
)

// shop returns an app with every kind of thing that can be completed.
func shop() *App {
	return &App{
		Name:   "shop",
		Values: map[string][]string{"COLOUR": {"red", "green\tas grass"}, "ROOM": {Dirs}},
		Commands: []*Command{
			{
				Name: "paint", Usage: "paint something", ArgsUsage: "ROOM [COLOUR...]",
				Flags: []Flag{
					&StringFlag{Name: "colour", Aliases: []string{"c"}, Usage: "the `COLOUR`"},
					&StringFlag{Name: "from", Usage: "a `FILE|COLOUR` to begin with"},
					&StringSliceFlag{Name: "also", Usage: "with `TEXT`"},
					&BoolFlag{Name: "dry", Usage: "with a dry brush"},
					&BoolFlag{Name: "secret", Hidden: true},
				},
			},
			{Name: "run", Usage: "run it", ArgsUsage: "[FILE|- | -- COMMAND ARGS...]"},
			{Name: "look", Usage: "look it up", Flags: []Flag{&StringFlag{Name: "at", Value: "home"}, &IntFlag{Name: "n"}}, BashComplete: func(c *Context) {
				Offer(c, c.String("at")+"/"+strings.Join(c.Args().Slice(), "+"), "a\nb")
				Offer(c, "bad\nvalue", "")
				Offer(c, ":files", "")
				Offer(c, "", "")
			}},
			{Name: "box", Usage: "boxes", Subcommands: []*Command{{Name: "open", Usage: "open one", ArgsUsage: "big|small"}, {Name: "odd", Hidden: true}}},
			{Name: "hidden", Hidden: true},
		},
	}
}

func TestComplete(t *testing.T) {
	for _, c := range []struct{ words, want string }{
		{"", "paint\tpaint something|run\trun it|look\tlook it up|box\tboxes"},
		{"p", "paint\tpaint something"},
		{"x", ""},
		{"--", "--help\tshow help|--version\tprint the version"},
		{"box ", "open\topen one"},
		{"box open ", "big|small"},
		{"box open s", "small"},
		{"box open small ", ""},
		{"nothing ", ""},
		{"paint ", ":dirs"},
		{"paint . ", "red|green\tas grass"},
		{"paint . red g", "green\tas grass"},
		{"paint --", "--colour\tthe COLOUR|--from\ta FILE|COLOUR to begin with|--also\twith TEXT|--dry\twith a dry brush|--help\tshow help"},
		{"paint -", "--colour\tthe COLOUR|-c\tthe COLOUR|--from\ta FILE|COLOUR to begin with|--also\twith TEXT|--dry\twith a dry brush|--help\tshow help|-h\tshow help"},
		// What was given is not offered again, but for what may be repeated.
		{"paint -c red --also x --dry --f", "--from\ta FILE|COLOUR to begin with"},
		{"paint -c red --c", ""},
		{"paint --also x --al", "--also\twith TEXT"},
		{"paint --colour ", "red|green\tas grass"},
		{"paint --colour r", "red"},
		{"paint --colour=", "--colour=red|--colour=green\tas grass"},
		{"paint --colour=g", "--colour=green\tas grass"},
		{"paint --nothing=", ""},
		{"paint --from ", ":files|red|green\tas grass"},
		{"paint --from=g", ":files|--from=green\tas grass"},
		{"paint --also ", ""},
		{"paint --dry ", ":dirs"},
		{"run ", ":files"},
		{"run -", "--help\tshow help|-h\tshow help|-"},
		{"run -- ", ":programs"},
		{"run -- cat ", ":files"},
		{"paint -- ", ""},
		{"look ", "home/\ta\\x0ab"},
		{"look --at=away x y ", "away/x+y\ta\\x0ab"},
		{"look --at away x z", ""},
		{"look --n x ", "home/\ta\\x0ab"}, // what is wrong may be mended yet
		{"look --what ", "home/\ta\\x0ab"},
	} {
		var out, errs bytes.Buffer
		code := Run(context.Background(), shop(), append([]string{"complete", "--"}, strings.Split(c.words, " ")...), Streams{nil, &out, &errs})
		got := strings.ReplaceAll(strings.TrimSuffix(out.String(), "\n"), "\n", "|")
		if code != 0 || got != c.want || errs.Len() > 0 {
			t.Errorf("%q: exit %d, %q, want %q; %s", c.words, code, got, c.want, errs.String())
		}
	}
}

func FuzzCompleteAnswersAnything(f *testing.F) {
	for _, s := range []string{"", "paint --colour=", "look --at", "run -- x", "box\x00--", "-", "--=", "paint --=x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, words string) {
		var out, errs bytes.Buffer
		if code := Run(context.Background(), shop(), append([]string{"complete", "--"}, strings.Split(words, " ")...), Streams{nil, &out, &errs}); code != 0 || errs.Len() > 0 {
			t.Errorf("exit %d, %s", code, errs.String())
		}
		for line := range strings.Lines(out.String()) {
			value, _, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
			if value == "" || strings.Contains(strings.TrimSuffix(line, "\n"), "\r") {
				t.Errorf("%q is no candidate", line)
			}
		}
	})
}
