package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/chain"
	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/index"
	"github.com/ghostbridge/ghostbridge/pkg/index/local"
	"github.com/ghostbridge/ghostbridge/pkg/index/qdrant"
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
has verified the log. Words are looked for in any form, and by others that mean
the same. Addresses, names with digits, paths, units and text in double quotes
must be in the event as they stand; of the events that hold them the newest 300
are looked at, and it is said if there are more. Time words ("yesterday evening", "in the
last hour") become the window, which is shown; --since and --until override it.
Their TIME is RFC 3339, a day (2006-01-02), a time of today (15:04), now, today,
yesterday, or an age such as -15m or -2d. No answer is an empty answer. Where no --index is named, a search that listens
is asked first.

--like N prints events that are similar to event N, --around N those before and
after it.

With --listen it answers questions that come through a Unix socket, one JSON
object a line as package search describes it; started by systemd, through the
sockets that it was started with.

Examples:

   gb-vecsync search --index I --since 2026-01-01T00:00:00Z "who touched the bridge"
   gb-vecsync search --explain "which disk failed last night"
   gb-vecsync search --around 4711 --source ovs
   gb-vecsync search --listen --index I --socket /run/ghostbridge/search.sock`,
		Flags: append([]cli.Flag{
			indexFlag(),
			&cli.IntFlag{Name: "n", Value: 10, Usage: "at most `N` hits"},
			&cli.StringFlag{Name: "since", Usage: "not before `TIME`"},
			&cli.StringFlag{Name: "until", Usage: "before `TIME`"},
			&cli.StringSliceFlag{Name: "source", Usage: "of this `SOURCE` (may be repeated)"},
			&cli.StringSliceFlag{Name: "type", Usage: "of this `TYPE` (may be repeated)"},
			&cli.StringSliceFlag{Name: "host", Usage: "of this `HOST` (may be repeated)"},
			&cli.StringSliceFlag{Name: "actor", Usage: "by this `ACTOR` (may be repeated)"},
			&cli.StringFlag{Name: "severity", Usage: "of this `SEVERITY` or graver"},
			&cli.Int64Flag{Name: "like", Usage: "similar to event `INDEX`, instead of a question"},
			&cli.Int64Flag{Name: "around", Usage: "before and after event `INDEX`, instead of a question"},
			&cli.BoolFlag{Name: "explain", Usage: "say why each hit is one"},
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object a hit"},
			&cli.StringFlag{Name: "socket", EnvVars: []string{"GB_SEARCH_SOCKET"}, Value: names.SearchSocket, Usage: "`SOCKET` of a search that listens"},
			&cli.BoolFlag{Name: "listen", Usage: "answer questions that come through --socket"},
			&cli.DurationFlag{Name: "idle-exit", Usage: "with --listen: end when nobody has been there for `TIME`"},
		}, slices.Concat(embedderFlags(), qdrantFlags())...),
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
			err = printHit(c.App.Writer, h, cli.IsTerminal(c.App.Writer), c.Bool("explain"))
		}
		if err != nil {
			return err
		}
	}
	if w := end.Window; w != nil {
		fmt.Fprintf(c.App.ErrWriter, "gb-vecsync: %q is taken for %s; --since and --until say otherwise\n", w.Words, w)
	}
	if end.More {
		fmt.Fprintf(c.App.ErrWriter, "gb-vecsync: more events hold that than the newest %d, which this answer is of; --since, --until or more words narrow it\n", search.MaxHolding)
	}
	if len(end.Logs) > 0 {
		return printLogs(c.App.ErrWriter, len(hits), end.Logs)
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

// printLogs says what is verified of each log.
func printLogs(w io.Writer, hits int, logs map[string]search.State) error {
	var size int64
	for _, name := range slices.Sorted(maps.Keys(logs)) {
		st := logs[name]
		switch {
		case st.Finding != "":
			fmt.Fprintf(w, "gb-vecsync: %s is NOT VERIFIED: %s\n", cli.Printable(name), cli.Printable(st.Finding))
		case st.Verified != nil:
			size += st.Verified.TreeSize
		}
	}
	_, err := fmt.Fprintf(w, "gb-vecsync: %d hits in %d logs; their indexes have verified %d events (--json names the root of each)\n", hits, len(logs), size)
	return err
}

// request is what the flags and arguments ask for.
func request(c *cli.Context) (search.Request, error) {
	r := search.Request{
		Question: strings.Join(c.Args().Slice(), " "), Limit: c.Int("n"), Severity: c.String("severity"),
		Sources: c.StringSlice("source"), Types: c.StringSlice("type"), Hosts: c.StringSlice("host"), Actors: c.StringSlice("actor"),
	}
	r.Explain = c.Bool("explain") || !c.Bool("json") && cli.IsTerminal(c.App.Writer) // the words to mark
	for name, i := range map[string]**int64{"like": &r.Like, "around": &r.Around} {
		if c.IsSet(name) {
			v := c.Int64(name)
			*i = &v
		}
	}
	if r.Limit <= 0 || r.Limit > search.MaxLimit {
		return r, cli.Usagef("-n %d: want 1 to %d", r.Limit, search.MaxLimit)
	}
	now := time.Now()
	for name, t := range map[string]**time.Time{"since": &r.Since, "until": &r.Until} {
		if s := c.String(name); s != "" {
			v, err := chain.ParseTime(s, now)
			if err != nil {
				return r, cli.Usagef("--%s: %w", name, err)
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
	open, done, err := opener(c)
	if err != nil {
		return nil, nil, err
	}
	defer done()
	ix, st, err := open()
	if err != nil {
		return nil, nil, err
	}
	defer ix.Close()
	e, err := embedder(c)
	if err != nil {
		return nil, nil, err
	}
	return (&search.Searcher{Embedder: e}).Answer(c.Context, ix, r, st)
}

// opener returns what opens the index that the flags name, as often as it is
// wanted, and what is to be called in the end.
func opener(c *cli.Context) (open func() (index.Reader, search.State, error), done func(), err error) {
	t, err := indexTarget(c)
	if err != nil {
		return nil, nil, err
	}
	pool := &indexPool{path: t.path}
	if t.remote == nil {
		return pool.open, func() {}, nil
	}
	t.remote.Patience = min(t.remote.Patience, askPatience)
	client, err := qdrant.Dial(*t.remote)
	if err != nil {
		return nil, nil, err
	}
	return func() (index.Reader, search.State, error) {
		ix, st, err := openRemote(c.Context, client, t.tenant)
		var down *qdrant.UnavailableError
		if errors.As(err, &down) {
			// This host's own log can be searched without.
			if own, ost, oerr := pool.open(); oerr == nil {
				if name, oerr := own.(*shared).Published(); oerr != nil || t.tenant != "" && t.tenant != name {
					own.Close()
				} else {
					fmt.Fprintf(c.App.ErrWriter, "gb-vecsync: %s; what follows is from %s, of this log alone\n", cli.Printable(err.Error()), t.path)
					return own, ost, nil
				}
			}
		}
		return ix, st, err
	}, func() { client.Close() }, nil
}

// askPatience is how long a question waits for a server that does not answer.
const askPatience = 5 * time.Second

// An indexPool keeps an index open between the questions, as long as nothing took
// its place.
type indexPool struct {
	path string
	mu   sync.Mutex
	last *shared
}

// A shared index is closed when its last user is done and another has come.
type shared struct {
	*local.DB
	pool  *indexPool
	users int
}

func (p *indexPool) open() (index.Reader, search.State, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.last == nil || !p.last.Current() {
		db, err := local.OpenReader(p.path)
		if err != nil {
			return nil, search.State{}, cli.WithHint(err, "gb-vecsync ingest or gb-vecsync rebuild makes it")
		}
		if p.last != nil && p.last.users == 0 {
			p.last.DB.Close()
		}
		p.last = &shared{DB: db, pool: p}
	}
	st, err := state(p.last.DB)
	if err != nil {
		return nil, st, err
	}
	p.last.users++
	return p.last, st, nil
}

func (s *shared) Close() error {
	s.pool.mu.Lock()
	defer s.pool.mu.Unlock()
	s.users--
	if s.users == 0 && s.pool.last != s {
		return s.DB.Close()
	}
	return nil
}

// runListen answers questions until it is stopped or nobody asks any more.
func runListen(c *cli.Context) error {
	if c.Args().Present() {
		return cli.Usagef("--listen takes no question; questions come through the socket")
	}
	open, done, err := opener(c)
	if err != nil {
		return err
	}
	defer done()
	listeners, err := listeners(c.String("socket"))
	if err != nil {
		return err
	}
	e, err := embedder(c)
	if err != nil {
		return err
	}
	logger := cli.Logger(c.App.ErrWriter)
	var watchdog systemd.Watchdog
	s := &search.Server{
		Open:     open,
		Searcher: search.Searcher{Embedder: e}, Logger: logger, Idle: c.Duration("idle-exit"), Alive: watchdog.Alive,
	}
	logger.Info("listening", "index", c.String("index"), "socket", listeners[0].Addr())
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

// printHit prints a hit for a person. mark says that the words by which it
// matched are marked.
func printHit(w io.Writer, h search.Hit, mark, explain bool) error {
	where := h.Source + " " + h.Type
	if h.Host != "" {
		where = h.Host + " " + where
	}
	if h.Log != "" && h.Log != h.Host {
		where = h.Log + ": " + where
	}
	if h.Subject != "" {
		where += " " + h.Subject
	}
	if h.Actor != "" {
		where += " by " + h.Actor
	}
	message := cli.Printable(h.Message)
	if mark && h.Why != nil {
		message = h.Why.Mark(message, "\x1b[1m", "\x1b[0m")
	}
	times := ""
	if h.Count > 1 {
		more := ""
		if h.More {
			more = "at least "
		}
		times = fmt.Sprintf("\n        %s%d times since %s", more, h.Count, h.First.Local().Format("2006-01-02 15:04:05"))
		if n := min(len(h.Occurrences), 4); n > 1 {
			times += ", also"
			for _, o := range h.Occurrences[1:n] {
				times += fmt.Sprintf(" #%d", o.Index)
			}
		}
	}
	why := ""
	if explain && h.Why != nil {
		why = "\n        why: " + cli.Printable(h.Why.String())
	}
	_, err := fmt.Fprintf(w, "%6.2f  #%-8d %s  %-7s  %s\n        %s%s%s\n", h.Score, h.Occurrences[0].Index,
		h.Last.Local().Format("2006-01-02 15:04:05"), h.Severity, cli.Printable(where), message, times, why)
	return err
}
