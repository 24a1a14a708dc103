package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/index"
	"github.com/ghostbridge/ghostbridge/pkg/index/local"
	"github.com/ghostbridge/ghostbridge/pkg/names"
	"github.com/ghostbridge/ghostbridge/pkg/search"
	"github.com/ghostbridge/ghostbridge/pkg/systemd"
)

func searchCommand() *cli.Command {
	return &cli.Command{
		Name:      "search",
		Usage:     "ask the index a question",
		ArgsUsage: "QUESTION",
		Description: `Prints the events that answer QUESTION, best first, and up to where the index
has verified the log. Words in double quotes are looked for as a phrase. No
answer is an empty answer. Where no --index is named, a search that listens is
asked first.

With --listen it answers questions that come through a Unix socket, one JSON
object a line as package search describes it; started by systemd, through the
sockets that it was started with.

Examples:

   gb-vecsync search --index I --since 2026-01-01T00:00:00Z "who touched the bridge"
   gb-vecsync search --listen --index I --socket /run/ghostbridge/search.sock`,
		Flags: []cli.Flag{
			indexFlag(),
			&cli.IntFlag{Name: "n", Value: 10, Usage: "at most `N` hits"},
			&cli.StringFlag{Name: "since", Usage: "not before `TIME` (RFC 3339)"},
			&cli.StringFlag{Name: "until", Usage: "before `TIME` (RFC 3339)"},
			&cli.StringSliceFlag{Name: "source", Usage: "of this `SOURCE` (may be repeated)"},
			&cli.StringSliceFlag{Name: "type", Usage: "of this `TYPE` (may be repeated)"},
			&cli.StringSliceFlag{Name: "host", Usage: "of this `HOST` (may be repeated)"},
			&cli.StringSliceFlag{Name: "actor", Usage: "by this `ACTOR` (may be repeated)"},
			&cli.StringFlag{Name: "severity", Usage: "of this `SEVERITY` or graver"},
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object a hit"},
			&cli.StringFlag{Name: "socket", EnvVars: []string{"GB_SEARCH_SOCKET"}, Value: names.SearchSocket, Usage: "`SOCKET` of a search that listens"},
			&cli.BoolFlag{Name: "listen", Usage: "answer questions that come through --socket"},
			&cli.DurationFlag{Name: "idle-exit", Usage: "with --listen: end when nobody has been there for `TIME`"},
		},
		Action: runSearch,
	}
}

func runSearch(c *cli.Context) error {
	if c.Bool("listen") {
		return runListen(c)
	}
	r, err := request(c)
	if err != nil {
		return err
	}
	hits, end, err := answer(c, r)
	if err != nil {
		return err
	}
	for _, h := range hits {
		if c.Bool("json") {
			err = cli.PrintJSON(c.App.Writer, h)
		} else {
			err = printHit(c.App.Writer, h)
		}
		if err != nil {
			return err
		}
	}
	switch {
	case end.Finding != "":
		fmt.Fprintf(c.App.ErrWriter, "gb-vecsync: NOT VERIFIED: %s\n", end.Finding)
	case end.Verified != nil:
		fmt.Fprintf(c.App.ErrWriter, "gb-vecsync: %d hits; the index has verified the log up to %d events, root %s\n", len(hits), end.Verified.TreeSize, end.Verified.Root)
	default:
		fmt.Fprintln(c.App.ErrWriter, "gb-vecsync: the index is empty")
	}
	return nil
}

// request is what the flags and arguments ask for.
func request(c *cli.Context) (search.Request, error) {
	r := search.Request{
		Question: strings.Join(c.Args().Slice(), " "), Limit: c.Int("n"), Severity: c.String("severity"),
		Sources: c.StringSlice("source"), Types: c.StringSlice("type"), Hosts: c.StringSlice("host"), Actors: c.StringSlice("actor"),
	}
	if r.Limit <= 0 || r.Limit > search.MaxLimit {
		return r, cli.Usagef("-n %d: want 1 to %d", r.Limit, search.MaxLimit)
	}
	for name, t := range map[string]**time.Time{"since": &r.Since, "until": &r.Until} {
		if s := c.String(name); s != "" {
			v, err := time.Parse(time.RFC3339Nano, s)
			if err != nil {
				return r, cli.Usagef("--%s %q: want an RFC 3339 time", name, s)
			}
			*t = &v
		}
	}
	if r.Severity != "" {
		if _, err := event.ParseSeverity(r.Severity); err != nil {
			return r, cli.Usagef("--severity: %w", err)
		}
	}
	return r, nil
}

// answer asks the search that listens, where one does and no index is named,
// else the index.
func answer(c *cli.Context, r search.Request) ([]search.Hit, *search.End, error) {
	if c.IsSet("socket") || !c.IsSet("index") {
		hits, end, err := search.AskSocket(c.Context, c.String("socket"), r)
		var none *search.UnavailableError
		if c.IsSet("socket") || !errors.As(err, &none) {
			return hits, end, err
		}
	}
	path, err := indexPath(c)
	if err != nil {
		return nil, nil, err
	}
	ix, st, err := openIndex(path)
	if err != nil {
		return nil, nil, err
	}
	defer ix.Close()
	hits, err := search.Answer(ix, r, st)
	return hits, &search.End{Hits: len(hits), Verified: st.Verified, Finding: st.Finding}, err
}

func openIndex(path string) (index.Reader, search.State, error) {
	db, err := local.OpenReader(path)
	if err != nil {
		return nil, search.State{}, cli.WithHint(err, "gb-vecsync ingest or gb-vecsync rebuild makes it")
	}
	st, err := state(db)
	if err != nil {
		return nil, st, errors.Join(err, db.Close())
	}
	return db, st, nil
}

// runListen answers questions until it is stopped or nobody asks any more.
func runListen(c *cli.Context) error {
	if c.Args().Present() {
		return cli.Usagef("--listen takes no question; questions come through the socket")
	}
	path, err := indexPath(c)
	if err != nil {
		return err
	}
	listeners, err := listeners(c.String("socket"))
	if err != nil {
		return err
	}
	logger := cli.Logger(c.App.ErrWriter)
	var watchdog systemd.Watchdog
	s := &search.Server{
		Open:   func() (index.Reader, search.State, error) { return openIndex(path) },
		Logger: logger, Idle: c.Duration("idle-exit"), Alive: watchdog.Alive,
	}
	logger.Info("listening", "index", path, "socket", listeners[0].Addr())
	if _, err := systemd.Notify("READY=1"); err != nil {
		logger.Warn("notify", "error", err)
	}
	err = s.Serve(c.Context, listeners...)
	systemd.Notify("STOPPING=1")
	return err
}

// listeners returns the sockets that systemd has passed, else one at path.
func listeners(path string) ([]net.Listener, error) {
	passed, err := systemd.Listeners()
	if err != nil || len(passed) > 0 {
		return passed, err
	}
	l, err := systemd.ListenUnix(path)
	return []net.Listener{l}, err
}

func printHit(w io.Writer, h search.Hit) error {
	where := h.Source + " " + h.Type
	if h.Subject != "" {
		where += " " + h.Subject
	}
	_, err := fmt.Fprintf(w, "%6.2f  #%-8d %s  %-7s  %s\n        %s\n", h.Score, h.Occurrences[0].Index,
		h.Last.Local().Format("2006-01-02 15:04:05"), h.Severity, cli.Printable(where), cli.Printable(h.Message))
	return err
}
