package cli

import (
	"fmt"
	"os"
	"sort"
	"strings"

	urfave "github.com/urfave/cli/v2"
)

// Man returns the man page of app, section 1, as roff (man(7)). It has no date
// and no version, so that it changes only when the tool does. The library can
// write one too, but leaves out what the commands are for.
func Man(app *App) (string, error) {
	u := app.build(Streams{os.Stdin, nil, nil})
	u.Setup()
	var b strings.Builder
	fmt.Fprintf(&b, ".TH %s 1 \"\" \"\" \"GhostBridge\"\n", strings.ToUpper(roff(app.Name)))
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", roff(app.Name), roff(app.Usage))
	fmt.Fprintf(&b, ".SH SYNOPSIS\n.B %s\n.I COMMAND\n[\\fIOPTION\\fR]... [\\fIARGUMENT\\fR]...\n", roff(app.Name))
	b.WriteString(".SH DESCRIPTION\n")
	manText(&b, app.Description)
	b.WriteString(".PP\nOptions may stand before or after arguments; \\fB\\-\\-\\fR ends them.\n")
	b.WriteString(".SH COMMANDS\n")
	env := make(map[string]string)
	for _, cmd := range u.Commands {
		manCommand(&b, app.Name, cmd, env)
	}
	if len(env) > 0 {
		b.WriteString(".SH ENVIRONMENT\n")
		names := make([]string, 0, len(env))
		for name := range env {
			names = append(names, name)
		}
		sort.Strings(names)
		for _, name := range names {
			fmt.Fprintf(&b, ".TP\n.B %s\nstands for \\fB\\-\\-%s\\fR\n", roff(name), roff(env[name]))
		}
	}
	return b.String(), nil
}

func manCommand(b *strings.Builder, path string, cmd *Command, env map[string]string) {
	if cmd.Hidden {
		return
	}
	path += " " + cmd.Name
	// A command that has others under it may be one itself.
	defer func() {
		for _, sub := range cmd.Subcommands {
			manCommand(b, path, sub, env)
		}
	}()
	if len(cmd.Subcommands) > 0 && cmd.Description == "" {
		return
	}
	args := ""
	if cmd.ArgsUsage != "" {
		args = " " + roff(cmd.ArgsUsage)
	}
	fmt.Fprintf(b, ".SS \"%s%s\"\n%s.\n", roff(path), args, roff(capital(cmd.Usage)))
	if cmd.Description != "" {
		b.WriteString(".PP\n")
		manText(b, cmd.Description)
	}
	for _, f := range cmd.Flags {
		d, ok := f.(urfave.DocGenerationFlag)
		if !ok || f.Names()[0] == "help" {
			continue
		}
		var names []string
		for _, n := range f.Names() {
			if len(n) == 1 {
				names = append(names, `\fB\-`+n+`\fR`)
			} else {
				names = append(names, `\fB\-\-`+roff(n)+`\fR`)
			}
		}
		value, usage := placeholder(d.GetUsage())
		if d.TakesValue() {
			if value == "" {
				value = "VALUE"
			}
			names[len(names)-1] += ` \fI` + roff(value) + `\fR`
		}
		def := strings.Trim(d.GetDefaultText(), `"`)
		if d.TakesValue() && def != "" && def != "0" && def != "0s" && !strings.Contains(usage, "default:") {
			usage += " (default: " + def + ")"
		}
		fmt.Fprintf(b, ".TP\n%s\n%s\n", strings.Join(names, ", "), roff(usage))
		for _, e := range d.GetEnvVars() {
			env[e] = f.Names()[0]
		}
	}
}

// placeholder takes the name of a flag's value out of its usage, where it
// stands in back quotes.
func placeholder(usage string) (value, text string) {
	before, rest, ok := strings.Cut(usage, "`")
	if !ok {
		return "", usage
	}
	value, after, ok := strings.Cut(rest, "`")
	if !ok {
		return "", usage
	}
	return value, before + value + after
}

func capital(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// manText writes paragraphs; lines that are indented are examples.
func manText(b *strings.Builder, text string) {
	example, empty := false, false
	for i, line := range strings.Split(strings.TrimSpace(text), "\n") {
		indented := strings.HasPrefix(line, "   ")
		switch {
		case strings.TrimSpace(line) == "":
			empty = true
			continue
		case indented && !example:
			b.WriteString(".PP\n.RS 4\n.nf\n")
		case !indented && example:
			b.WriteString(".fi\n.RE\n.PP\n")
		case empty && !indented && i > 0:
			b.WriteString(".PP\n")
		}
		example, empty = indented, false
		b.WriteString(roff(strings.TrimPrefix(line, "   ")) + "\n")
	}
	if example {
		b.WriteString(".fi\n.RE\n")
	}
}

// roff escapes text for a line of roff.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`).Replace(s)
	if strings.HasPrefix(s, ".") {
		s = `\&` + s
	}
	return s
}
