package cli

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"

	"golang.org/x/sys/unix"
)

// Logger returns the logger of a daemon: text on w. Where w is the journal,
// the lines have no time stamps, which journald adds, but their priority.
func Logger(w io.Writer) *slog.Logger {
	if !isJournal(w) {
		return slog.New(slog.NewTextHandler(w, nil))
	}
	opts := &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) {
			return slog.Attr{}
		}
		return a
	}}
	h := make(journalHandler)
	for level := range priorities {
		h[level] = slog.NewTextHandler(&prefixed{w, priority(w, level)}, opts)
	}
	return slog.New(h)
}

// priorities are what sd-daemon(3) puts in front of a line for each level.
var priorities = map[slog.Level]int{slog.LevelDebug: 7, slog.LevelInfo: 6, slog.LevelWarn: 4, slog.LevelError: 3}

// priority returns what to put in front of a line on w for it to have the
// priority of level in the journal: nothing if w is something else. Without
// it, whatever a service says is informational, and LogLevelMax= drops it.
func priority(w any, level slog.Level) string {
	if !isJournal(w) {
		return ""
	}
	return fmt.Sprintf("<%d>", priorities[level])
}

// isJournal says whether w is the stream that systemd has connected to the
// journal (systemd.exec(5), JOURNAL_STREAM).
func isJournal(w any) bool {
	stream := os.Getenv("JOURNAL_STREAM")
	f, ok := w.(*os.File)
	if stream == "" || !ok {
		return false
	}
	var st unix.Stat_t
	return unix.Fstat(int(f.Fd()), &st) == nil && stream == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

// A journalHandler has a handler for each level, which puts the level's
// priority in front.
type journalHandler map[slog.Level]slog.Handler

func (h journalHandler) at(level slog.Level) slog.Handler {
	switch {
	case level >= slog.LevelError:
		return h[slog.LevelError]
	case level >= slog.LevelWarn:
		return h[slog.LevelWarn]
	case level >= slog.LevelInfo:
		return h[slog.LevelInfo]
	}
	return h[slog.LevelDebug]
}

func (h journalHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.at(level).Enabled(ctx, level)
}

func (h journalHandler) Handle(ctx context.Context, r slog.Record) error {
	return h.at(r.Level).Handle(ctx, r)
}

func (h journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	n := make(journalHandler)
	for level, each := range h {
		n[level] = each.WithAttrs(attrs)
	}
	return n
}

func (h journalHandler) WithGroup(name string) slog.Handler {
	n := make(journalHandler)
	for level, each := range h {
		n[level] = each.WithGroup(name)
	}
	return n
}

// A prefixed writer gets whole lines.
type prefixed struct {
	w      io.Writer
	prefix string
}

func (p *prefixed) Write(line []byte) (int, error) {
	if _, err := p.w.Write(append([]byte(p.prefix), line...)); err != nil {
		return 0, err
	}
	return len(line), nil
}
