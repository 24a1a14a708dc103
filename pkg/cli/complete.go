package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	urfave "github.com/urfave/cli/v2"
)

// What a placeholder may stand for beside fixed words: the shell looks for
// these itself.
const (
	Files    = ":files"
	Dirs     = ":dirs"
	programs = ":programs"
)

// known are the placeholders that mean the same in every tool.
var known = map[string][]string{"FILE": {Files}, "SOCKET": {Files}, "PATH": {Files}, "DIR": {Dirs}}

// completeName is the command that the shells' scripts ask: what may stand in
// the place of the last of its arguments, which are the words of a command line
// behind the tool's name, as far as the cursor. It prints a line for each
// candidate, with a tab and a description if it has one, and ":files", ":dirs"
// or ":programs" where the shell is to offer those as well.
const completeName = "complete"

// complete answers completeName. What can't be completed, or not in time, has
// no candidates: a shell has no place for an error.
func (a *App) complete(ctx context.Context, words []string, w io.Writer) error {
	if len(words) == 0 {
		words = []string{""}
	}
	u := a.build(Streams{strings.NewReader(""), io.Discard, io.Discard})
	l := readLine(u, words[:len(words)-1])
	for _, candidate := range a.candidates(ctx, u, l, words[len(words)-1]) {
		if _, err := fmt.Fprintln(w, strings.TrimSuffix(candidate, "\t")); err != nil {
			return err
		}
	}
	return nil
}

// A line is a command line as far as it is written.
type line struct {
	command *Command   // nil before the first command's name
	path    []string   // the commands' names
	offered []*Command // what may be named next
	flags   []Flag     // of command
	given   []string   // flags and their values
	used    []string   // the names of those flags
	args    []string
	value   Flag // the next word is this flag's value
	dashes  int  // how many arguments stand behind "--", -1 without one
}

func readLine(u *urfave.App, words []string) line {
	l := line{offered: u.Commands, flags: []Flag{urfave.HelpFlag, urfave.VersionFlag}, dashes: -1}
	for i, word := range words {
		switch {
		case l.value != nil:
			l.given, l.value = append(l.given, word), nil
		case word == "--":
			l.dashes = len(words) - i - 1
			l.args = append(l.args, words[i+1:]...)
			return l
		case len(word) > 1 && word[0] == '-':
			l.given = append(l.given, word)
			if f := findFlag(l.flags, word); f != nil {
				l.used = append(l.used, f.Names()...)
				if takesValue(l.flags, word) {
					l.value = f
				}
			}
		default:
			if cmd := find(l.offered, word); cmd != nil && len(l.args) == 0 {
				l.command, l.offered, l.path = cmd, cmd.Subcommands, append(l.path, word)
				l.flags = append(slices.Clone(cmd.Flags), urfave.HelpFlag)
				continue
			}
			l.args = append(l.args, word)
		}
	}
	return l
}

func findFlag(flags []Flag, word string) Flag {
	name, _, _ := strings.Cut(strings.TrimLeft(word, "-"), "=")
	for _, f := range flags {
		if slices.Contains(f.Names(), name) {
			return f
		}
	}
	return nil
}

// candidates returns what begins with word and may stand behind l.
func (a *App) candidates(ctx context.Context, u *urfave.App, l line, word string) []string {
	if l.value != nil {
		return begin(word, "", a.valuesOf(l.value))
	}
	if l.dashes >= 0 {
		switch {
		case l.command == nil || !strings.Contains(l.command.ArgsUsage, "-- "):
			return nil
		case l.dashes == 0:
			return []string{programs}
		}
		return []string{Files}
	}
	if strings.HasPrefix(word, "-") {
		if flag, value, ok := strings.Cut(word, "="); ok {
			if f := findFlag(l.flags, flag); f != nil {
				return begin(value, flag+"=", a.valuesOf(f))
			}
			return nil
		}
		if word != "-" || !strings.Contains(argsUsage(l.command), "-") {
			return begin(word, "", l.flagNames(strings.HasPrefix(word, "--")))
		}
		return append(begin(word, "", l.flagNames(false)), "-")
	}
	var list []string
	if len(l.args) == 0 {
		for _, cmd := range l.offered {
			if !cmd.Hidden {
				list = append(list, cmd.Name+"\t"+cmd.Usage)
			}
		}
	}
	if l.command != nil && len(l.command.Subcommands) == 0 {
		if l.command.BashComplete != nil {
			list = append(list, a.ask(ctx, l)...)
		} else {
			list = append(list, a.argument(l.command.ArgsUsage, len(l.args))...)
		}
	}
	return begin(word, "", list)
}

func argsUsage(cmd *Command) string {
	if cmd == nil {
		return ""
	}
	return cmd.ArgsUsage
}

// flagNames returns the flags that may still be given.
func (l line) flagNames(long bool) []string {
	var list []string
	for _, f := range l.flags {
		if v, ok := f.(urfave.VisibleFlag); ok && !v.IsVisible() {
			continue
		}
		if s, ok := f.(urfave.DocGenerationSliceFlag); slices.Contains(l.used, f.Names()[0]) && !(ok && s.IsSliceFlag()) {
			continue
		}
		usage := ""
		if d, ok := f.(urfave.DocGenerationFlag); ok {
			_, usage = placeholder(d.GetUsage())
		}
		for _, name := range f.Names() {
			switch {
			case len(name) > 1:
				list = append(list, "--"+name+"\t"+usage)
			case !long:
				list = append(list, "-"+name+"\t"+usage)
			}
		}
	}
	return list
}

// begin returns the candidates that begin with word, with prefix before them.
// What the shell looks for stays as it is.
func begin(word, prefix string, candidates []string) []string {
	var list []string
	for _, c := range candidates {
		switch {
		case strings.HasPrefix(c, ":"):
			list = append(list, c)
		case strings.HasPrefix(c, word):
			list = append(list, prefix+c)
		}
	}
	return list
}

// valuesOf returns what a flag's value may be.
func (a *App) valuesOf(f Flag) []string {
	d, ok := f.(urfave.DocGenerationFlag)
	if !ok {
		return nil
	}
	name, _ := placeholder(d.GetUsage())
	return a.values(name)
}

// values returns what may stand for a placeholder, such as "FILE|URL".
func (a *App) values(placeholder string) []string {
	var list []string
	for name := range strings.SplitSeq(placeholder, "|") {
		if v, ok := a.Values[name]; ok {
			list = append(list, v...)
		} else {
			list = append(list, known[name]...)
		}
	}
	return list
}

// argument returns what may be the n-th argument of a command with this
// ArgsUsage: "[FILE|-]", "NAME SNAPSHOT", "[PLUGIN...]". Words in small
// letters stand for themselves.
func (a *App) argument(usage string, n int) []string {
	usage, _, _ = strings.Cut(usage, " | ")
	fields := strings.Fields(strings.NewReplacer("[", "", "]", "").Replace(usage))
	if len(fields) == 0 {
		return nil
	}
	if n >= len(fields) {
		if n = len(fields) - 1; !strings.HasSuffix(fields[n], "...") {
			return nil
		}
	}
	field := strings.TrimSuffix(fields[n], "...")
	list := a.values(field)
	for word := range strings.SplitSeq(field, "|") {
		if word != "-" && word == strings.ToLower(word) {
			list = append(list, word)
		}
	}
	return list
}

// ask has the command itself say what its next argument may be: what its
// BashComplete prints. The library gives that the flags and arguments so far.
func (a *App) ask(ctx context.Context, l line) []string {
	var out bytes.Buffer
	u := a.build(Streams{strings.NewReader(""), &out, io.Discard})
	u.EnableBashCompletion = true
	args := slices.Concat([]string{a.Name}, l.path, l.given, l.args, []string{"--generate-bash-completion"})
	if err := u.RunContext(ctx, args); err != nil {
		return nil
	}
	return strings.FieldsFunc(out.String(), func(r rune) bool { return r == '\n' })
}

// Offer is how a BashComplete names a candidate for the next argument; the
// description may be "". Both may be of a stranger: a value that a terminal
// can't show as it is is left out.
func Offer(c *Context, value, description string) {
	if value != "" && value[0] != ':' && Printable(value) == value {
		fmt.Fprintf(c.App.Writer, "%s\t%s\n", value, Printable(description))
	}
}

// completionCommand prints a completion script for a shell. The scripts ask the
// tool itself, so that they do not go stale.
func completionCommand() *Command {
	return &Command{
		Name:         "completion",
		Usage:        "print the completion script for bash, zsh or fish",
		ArgsUsage:    "bash|zsh|fish",
		Hidden:       true,
		OnUsageError: onUsageError,
		Action: func(c *Context) error {
			script, ok := scripts[c.Args().First()]
			if !ok || c.Args().Len() != 1 {
				return Usagef("completion wants bash, zsh or fish")
			}
			_, err := strings.NewReplacer("@NAME@", c.App.Name, "@FUNCTION@", strings.ReplaceAll(c.App.Name, "-", "_"), "@COMPLETE@", completeName).WriteString(c.App.Writer, script)
			return err
		},
	}
}

var scripts = map[string]string{
	"bash": `# Completion of @NAME@ for bash(1). The tool itself says what may stand where.
_@FUNCTION@() {
  local line=${COMP_LINE:0:COMP_POINT} blanks part= current prefix value candidate kind= i
  local -a words=() answer=()
  # For bash a word ends at = and at : too; here they are put together again.
  for ((i = 0; i <= COMP_CWORD; i++)); do
    blanks=${line%%[![:space:]]*} line=${line#"${line%%[![:space:]]*}"}
    part=${COMP_WORDS[i]:0:${#line}}
    if [[ $i == 0 || -n $blanks ]]; then words+=(""); fi
    words[-1]+=$part line=${line#"$part"}
  done
  current=${words[-1]}
  case $part in [=:]*) part= ;; esac
  prefix=${current%"$part"}
  mapfile -t answer < <("${words[0]/#\~\//$HOME/}" @COMPLETE@ -- "${words[@]:1}" 2>/dev/null)
  COMPREPLY=()
  for candidate in "${answer[@]}"; do
    case $candidate in
    :files) kind=file ;;
    :dirs) kind=directory ;;
    :programs) kind=command ;;
    *)
      candidate=${candidate%%$'\t'*}
      printf -v candidate %q "${candidate#"$prefix"}"
      COMPREPLY+=("$candidate")
      ;;
    esac
  done
  if [[ -n $kind ]]; then
    value=$current
    if [[ $current == -*=* ]]; then value=${current#*=}; fi
    compopt -o filenames 2>/dev/null
    while IFS= read -r candidate; do
      candidate=${current%"$value"}$candidate
      COMPREPLY+=("${candidate#"$prefix"}")
    done < <(compgen -A "$kind" -- "$value")
  fi
}
complete -F _@FUNCTION@ @NAME@
`,
	"zsh": `#compdef @NAME@
# Completion of @NAME@ for zsh(1). The tool itself says what may stand where.
_@NAME@() {
  local tool=${~${(Q)words[1]}} answer kind value
  local -a before candidates
  if (( CURRENT > 2 )); then before=("${(@Q)words[2,CURRENT-1]}"); fi
  for answer in "${(@f)$($tool @COMPLETE@ -- "${before[@]}" "${(Q)PREFIX}" 2>/dev/null)}"; do
    case $answer in
    '') ;;
    :files|:dirs|:programs) kind=$answer ;;
    *)
      value=${${answer%%$'\t'*}//:/\\:}
      if [[ $answer == *$'\t'* ]]; then value+=:${answer#*$'\t'}; fi
      candidates+=("$value")
      ;;
    esac
  done
  local found=1
  if (( $#candidates )); then _describe -V @NAME@ candidates && found=0; fi
  if [[ -n $kind && $PREFIX == -*=* ]]; then compset -P '*='; fi
  case $kind in
  :files) _files && found=0 ;;
  :dirs) _files -/ && found=0 ;;
  :programs) _command_names -e && found=0 ;;
  esac
  return found
}
# Found by compinit, this file is the function; a script may read it as well.
if [[ $funcstack[1] == _@NAME@ ]]; then _@NAME@ "$@"; else compdef _@NAME@ @NAME@; fi
`,
	"fish": `# Completion of @NAME@ for fish(1). The tool itself says what may stand where.
function __@FUNCTION@_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l flag (string match -r -- '^-[^=]*=' $current)
    set -l value (string replace -r -- '^-[^=]*=' '' $current)
    for answer in ($words[1] @COMPLETE@ -- $words[2..-1] "$current" 2>/dev/null)
        switch $answer
            case :files
                string replace -r -- '^' "$flag" (__fish_complete_path $value)
            case :dirs
                string replace -r -- '^' "$flag" (__fish_complete_directories $value '')
            case :programs
                __fish_complete_command
            case '*'
                echo $answer
        end
    end
end
complete -c @NAME@ -f -k -a '(__@FUNCTION@_complete)'
`,
}
