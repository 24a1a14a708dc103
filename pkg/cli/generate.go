package cli

import "io"

// completionCommand prints a completion script for a shell. The scripts ask
// the tool itself, so they do not go stale.
func completionCommand() *Command {
	return &Command{
		Name:         "completion",
		Usage:        "print the completion script for bash, zsh or fish",
		ArgsUsage:    "bash|zsh|fish",
		Hidden:       true,
		OnUsageError: onUsageError,
		Action: func(c *Context) error {
			name := c.App.Name
			var script string
			switch c.Args().First() {
			case "bash":
				script = bashCompletion(name)
			case "zsh":
				script = zshCompletion(name)
			case "fish":
				var err error
				if script, err = c.App.ToFishCompletion(); err != nil {
					return err
				}
			default:
				return Usagef("completion wants bash, zsh or fish")
			}
			_, err := io.WriteString(c.App.Writer, script)
			return err
		},
	}
}

func bashCompletion(name string) string {
	return "_" + shellName(name) + `() {
  local words
  COMPREPLY=()
  words=("${COMP_WORDS[@]:0:$COMP_CWORD}")
  if [[ "${COMP_WORDS[COMP_CWORD]}" == -* ]]; then
    words+=("${COMP_WORDS[COMP_CWORD]}")
  fi
  COMPREPLY=($(compgen -W "$("${words[@]}" --generate-bash-completion 2>/dev/null)" -- "${COMP_WORDS[COMP_CWORD]}"))
}
complete -o bashdefault -o default -F _` + shellName(name) + " " + name + "\n"
}

func zshCompletion(name string) string {
	return "#compdef " + name + `

_` + shellName(name) + `() {
  local -a opts
  if [[ "${words[-1]}" == -* ]]; then
    opts=("${(@f)$(${words[@]:0:#words[@]} --generate-bash-completion 2>/dev/null)}")
  else
    opts=("${(@f)$(${words[@]:0:#words[@]-1} --generate-bash-completion 2>/dev/null)}")
  fi
  if [[ -n "${opts[1]}" ]]; then
    _describe 'values' opts
  else
    _files
  fi
}
compdef _` + shellName(name) + " " + name + "\n"
}

func shellName(name string) string {
	b := []byte(name)
	for i := range b {
		if b[i] == '-' {
			b[i] = '_'
		}
	}
	return string(b)
}
