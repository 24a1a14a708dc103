package cli

import (
	"strings"

	urfave "github.com/urfave/cli/v2"
)

// reorder moves the flags of the command that args name before its arguments,
// since the library stops looking for flags at the first argument. A flag that
// nobody knows is left where the library will complain about it. The second
// result is what stood behind "--", nil if there was none.
func reorder(app *urfave.App, args []string) (ordered, after []string) {
	cmds, flags := app.Commands, app.Flags
	leaf := false
	var rest []string
	for i := 0; i < len(args); i++ {
		arg := args[i]
		switch {
		case arg == "--":
			after = append([]string{}, args[i+1:]...)
			rest = append(rest, after...)
			i = len(args)
		case len(arg) > 1 && arg[0] == '-':
			ordered = append(ordered, arg)
			if takesValue(flags, arg) && i+1 < len(args) {
				i++
				ordered = append(ordered, args[i])
			}
		case !leaf && len(cmds) > 0 && find(cmds, arg) != nil:
			cmd := find(cmds, arg)
			ordered = append(ordered, arg)
			cmds, flags = cmd.Subcommands, cmd.Flags
			leaf = len(cmds) == 0
		default:
			leaf = true // an argument ends the search for sub-commands
			rest = append(rest, arg)
		}
	}
	if rest != nil || after != nil {
		ordered = append(append(ordered, "--"), rest...)
	}
	return ordered, after
}

func find(cmds []*urfave.Command, name string) *urfave.Command {
	for _, c := range cmds {
		if c.HasName(name) {
			return c
		}
	}
	return nil
}

// takesValue says whether the flag that arg names is followed by its value.
func takesValue(flags []urfave.Flag, arg string) bool {
	name := strings.TrimLeft(arg, "-")
	if strings.Contains(name, "=") {
		return false
	}
	for _, f := range flags {
		for _, n := range f.Names() {
			if n != name {
				continue
			}
			d, ok := f.(urfave.DocGenerationFlag)
			return ok && d.TakesValue()
		}
	}
	return false
}
