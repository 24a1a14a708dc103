// Package cli is the one place that knows the command-line library
// (urfave/cli/v2). It gives all six tools the same manners:
//
//   - flags may stand before or after arguments, "--" ends them, and what
//     stood behind "--" is known (AfterDashes);
//   - exit codes: 0 done, 1 failed, 2 wrong usage or configuration,
//     3 verification failed, 4 nothing to do (only with --exit-code), 5 the
//     parent snapshot is lost, 75 temporary;
//   - errors are printed once, here, as "TOOL: text", with a "hint: text" line
//     if the error has one;
//   - SIGINT and SIGTERM cancel the context that an action gets as c.Context;
//     a second one ends the process, and a tool whose work SIGTERM interrupted
//     dies of it in the end;
//   - --version, --help with an example, shell completion, man pages.
//
// A tool is an App, whose commands are urfave commands under this package's
// names:
//
//	func main() { cli.Main(app()) }
//
//	func app() *cli.App {
//		return &cli.App{
//			Name:     "gb-chain",
//			Usage:    "a log that nobody can rewrite",
//			Commands: []*cli.Command{appendCommand(), queryCommand()},
//		}
//	}
//
//	func queryCommand() *cli.Command {
//		return &cli.Command{
//			Name:      "query",
//			Usage:     "print events",
//			ArgsUsage: "[FILE|-]",
//			Description: "What it does, in sentences.\n\nExample:\n\n   gb-chain query --json",
//			Flags:     []cli.Flag{&cli.StringFlag{Name: "log", EnvVars: []string{"GB_LOG"}, Value: names.LogDir}},
//			Action:    func(c *cli.Context) error { return ... },
//		}
//	}
//
// An action reads c.App.Reader, writes data to c.App.Writer and words to
// c.App.ErrWriter, and returns an error.
//
// An error chooses its exit code by a method ExitCode() int and its hint by a
// method Hint() string; both are found through wrapping, so that packages
// below need not import this one. Usagef makes errors with code 2.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	urfave "github.com/urfave/cli/v2"
)

// What tools use of the library, under one name.
type (
	Command         = urfave.Command
	Context         = urfave.Context
	Flag            = urfave.Flag
	StringFlag      = urfave.StringFlag
	StringSliceFlag = urfave.StringSliceFlag
	BoolFlag        = urfave.BoolFlag
	IntFlag         = urfave.IntFlag
	IntSliceFlag    = urfave.IntSliceFlag
	Int64Flag       = urfave.Int64Flag
	Uint64Flag      = urfave.Uint64Flag
	Float64Flag     = urfave.Float64Flag
	DurationFlag    = urfave.DurationFlag
	StringSlice     = urfave.StringSlice
)

// Exit codes of every tool.
const (
	ExitDone        = 0
	ExitFailed      = 1
	ExitUsage       = 2
	ExitVerify      = 3
	ExitNothing     = 4 // only with --exit-code
	ExitLostParent  = 5
	ExitTryAgain    = 75 // EX_TEMPFAIL of sysexits.h
	exitInterrupted = 1
)

// An App is one tool.
type App struct {
	Name        string
	Usage       string // one line, no full stop
	Description string // for the man page: what it is, formats, files, an example
	Commands    []*Command
	// Values say to the shells' completion what may stand for a placeholder of
	// an ArgsUsage or of a flag's usage: words, with a tab and a description if
	// they need one, or Files or Dirs. FILE, SOCKET, PATH and DIR are known. A
	// command whose arguments are to be looked up has a BashComplete instead,
	// which Offers candidates for the argument that follows c.Args.
	Values map[string][]string
}

// Streams are the three standard streams of a process.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// Main runs app on the process's arguments and streams and exits.
func Main(app *App) {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	var terminated atomic.Bool
	go func() {
		terminated.Store(<-signals == syscall.SIGTERM)
		// The default action is back, so that a second Ctrl-C ends a tool that
		// does not come to its end.
		signal.Reset(os.Interrupt, syscall.SIGTERM)
		cancel()
	}()
	err := runApp(ctx, app, os.Args[1:], Streams{os.Stdin, os.Stdout, os.Stderr})
	code := ExitCode(err)
	// Who was told to end and did not come to the end of its work has not
	// failed: it dies of the signal, by which systemd knows that it was
	// stopped (systemd.service(5), SuccessExitStatus=).
	if terminated.Load() && (errors.Is(err, context.Canceled) || code == ExitTryAgain) {
		syscall.Kill(os.Getpid(), syscall.SIGTERM)
		time.Sleep(time.Second)
	}
	os.Exit(code)
}

// Run runs app on args (without the program's name) and returns the exit code.
func Run(ctx context.Context, app *App, args []string, s Streams) int {
	return ExitCode(runApp(ctx, app, args, s))
}

// runApp is Run. The error, of which ExitCode tells the exit code, has been
// printed.
func runApp(ctx context.Context, app *App, args []string, s Streams) error {
	if len(args) > 1 && args[0] == completeName && args[1] == "--" {
		return app.complete(ctx, args[2:], s.Out)
	}
	u := app.build(s)
	ordered, after := reorder(u, args)
	if after != nil {
		ctx = context.WithValue(ctx, afterDashesKey{}, after)
	}
	err := u.RunContext(ctx, append([]string{app.Name}, ordered...))
	var silent *exitOnly
	if errors.As(err, &silent) {
		return silent
	}
	if err != nil {
		Report(s.Err, app.Name, err)
	}
	return err
}

// Report prints err to w as the tool called name does.
func Report(w io.Writer, name string, err error) {
	text := err.Error()
	if errors.Is(err, context.Canceled) {
		text = "interrupted: " + text
	}
	mark := priority(w, slog.LevelError)
	fmt.Fprintf(w, "%s%s: %s\n", mark, name, text)
	var h interface{ Hint() string }
	if errors.As(err, &h) && h.Hint() != "" {
		fmt.Fprintf(w, "%shint: %s\n", mark, h.Hint())
	}
}

// ExitCode returns the exit code that err asks for, 1 if it asks for none.
func ExitCode(err error) int {
	if err == nil {
		return ExitDone
	}
	var c interface{ ExitCode() int }
	if !errors.As(err, &c) {
		return ExitFailed
	}
	if _, ofChild := c.(*exec.ExitError); ofChild {
		return ExitFailed // a child's exit code is not ours
	}
	return c.ExitCode()
}

// Exit returns an error that ends the tool with code and prints nothing: for
// --exit-code and for results that were printed already.
func Exit(code int) error { return &exitOnly{code} }

type exitOnly struct{ code int }

func (e *exitOnly) Error() string { return fmt.Sprintf("exit %d", e.code) }
func (e *exitOnly) ExitCode() int { return e.code }

// Usagef returns an error with exit code 2.
func Usagef(format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...)}
}

type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }
func (e *usageError) ExitCode() int { return ExitUsage }

// WithHint wraps err so that hint is printed below it.
func WithHint(err error, hint string) error { return &hinted{err, hint} }

type hinted struct {
	error
	hint string
}

func (h *hinted) Unwrap() error { return h.error }
func (h *hinted) Hint() string  { return h.hint }

// version is set by the linker in releases.
var version string

// Version returns the version of this build: the linker's, else the module's.
func Version() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}

func init() {
	urfave.SuggestDidYouMeanTemplate = "%s"
	urfave.VersionFlag = &urfave.BoolFlag{Name: "version", Usage: "print the version"}
	urfave.HelpFlag = &urfave.BoolFlag{Name: "help", Aliases: []string{"h"}, Usage: "show help"}
}

func (a *App) build(s Streams) *urfave.App {
	u := &urfave.App{
		Name:            a.Name,
		HelpName:        a.Name,
		Usage:           a.Usage,
		Description:     a.Description,
		Version:         Version(),
		Commands:        a.Commands,
		Reader:          s.In,
		Writer:          s.Out,
		ErrWriter:       s.Err,
		HideHelpCommand: true,
		Suggest:         true,
		ExitErrHandler:  func(*Context, error) {},
		OnUsageError:    onUsageError,
		CommandNotFound: nil,
		Action: func(c *Context) error {
			if name := c.Args().First(); name != "" {
				return unknownCommand(c, a.Commands, name)
			}
			c.App.Writer = c.App.ErrWriter
			urfave.ShowAppHelp(c)
			return Exit(ExitUsage)
		},
	}
	prepare(u.Commands)
	u.Commands = append(u.Commands[:len(u.Commands):len(u.Commands)], completionCommand())
	return u
}

// prepare sets what all commands have in common.
func prepare(cmds []*Command) {
	for _, cmd := range cmds {
		cmd.OnUsageError = onUsageError
		cmd.HideHelpCommand = true
		if cmd.Action == nil && len(cmd.Subcommands) > 0 {
			cmd.Action = func(c *Context) error {
				if name := c.Args().First(); name != "" {
					return unknownCommand(c, cmd.Subcommands, name)
				}
				c.App.Writer = c.App.ErrWriter
				urfave.ShowSubcommandHelp(c)
				return Exit(ExitUsage)
			}
		}
		prepare(cmd.Subcommands)
	}
}

func onUsageError(c *Context, err error, _ bool) error {
	hint := "see " + c.Command.HelpName + " --help"
	name, unknown := strings.CutPrefix(err.Error(), "flag provided but not defined: -")
	if !unknown {
		return WithHint(Usagef("%s", err), hint)
	}
	name = strings.TrimLeft(name, "-")
	if s := urfave.SuggestFlag(c.Command.Flags, name, false); s != "" {
		hint = fmt.Sprintf("did you mean %s? %s", s, hint)
	}
	return WithHint(Usagef("unknown flag --%s", name), hint)
}

func unknownCommand(c *Context, cmds []*Command, name string) error {
	err := Usagef("unknown command %q", name)
	if s := urfave.SuggestCommand(cmds, name); s != "" {
		return WithHint(err, fmt.Sprintf("did you mean %q? %s --help lists the commands", s, c.App.HelpName))
	}
	return WithHint(err, c.App.HelpName+" --help lists the commands")
}

type afterDashesKey struct{}

// AfterDashes returns the arguments that stood behind "--", and whether there
// was one. They are the last of c.Args too.
func AfterDashes(c *Context) ([]string, bool) {
	v, ok := c.Context.Value(afterDashesKey{}).([]string)
	return v, ok
}
