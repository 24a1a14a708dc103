package ovs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/durable"
	"github.com/ghostbridge/ghostbridge/pkg/record"
)

// A Journal is where what is done to the switch is recorded: the log's daemon
// and, for what restores only, a spool on disk while the daemon is away.
type Journal struct {
	Socket string        // of the log's daemon
	Spool  string        // directory
	Limit  time.Duration // how long an append may take

	mu     sync.Mutex     // covers client
	client *record.Client // of the last append, kept for the next one
	stop   func()         // ends a Greet
}

// An Event is what the journal records.
type Event struct {
	Time     time.Time `json:"time"`
	Source   string    `json:"source"` // ovs
	Type     string    `json:"type"`
	Subject  string    `json:"subject,omitempty"`
	Severity string    `json:"severity,omitempty"`
	Message  string    `json:"message"`
	Data     any       `json:"data,omitempty"`
}

// Line is the event as one line without newline.
func (e Event) Line() ([]byte, error) {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	e.Source = "ovs"
	return json.Marshal(e)
}

// An UnrecordedError says that nothing was done, since the log does not take
// the intent: exit code 75.
type UnrecordedError struct{ Err error }

func (e *UnrecordedError) Error() string {
	return fmt.Sprintf("nothing was changed, since it can't be recorded: %v", e.Err)
}
func (e *UnrecordedError) Unwrap() error { return e.Err }

// ExitCode is EX_TEMPFAIL.
func (e *UnrecordedError) ExitCode() int { return 75 }

// Hint says what to look at.
func (e *UnrecordedError) Hint() string {
	return "is gb-chain serve running? systemctl status blockchain-log.socket; or name its socket with --socket"
}

// Intent records what is about to be done, durably.
func (j *Journal) Intent(ctx context.Context, e Event) error {
	if err := j.append(ctx, e); err != nil {
		return &UnrecordedError{err}
	}
	return nil
}

// Restoring records the intent or the outcome of what must not be refused:
// where the log is away, it waits in the spool. Where there is no room for it
// either, what restores goes on all the same.
func (j *Journal) Restoring(ctx context.Context, e Event) error {
	err := j.append(ctx, e)
	if err == nil {
		return nil
	}
	if serr := j.spool(e); serr != nil {
		return errors.Join(err, serr)
	}
	return nil
}

func (j *Journal) append(ctx context.Context, e Event) error {
	limit := j.Limit
	if limit == 0 {
		limit = 5 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	line, err := e.Line()
	if err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.client != nil {
		if err := j.appendTo(ctx, line); err == nil || ctx.Err() != nil {
			return err
		}
		// The daemon may have been started anew since.
	}
	if j.client, err = record.Dial(ctx, j.Socket, record.Hello{}); err != nil {
		j.client = nil
		return err
	}
	return j.appendTo(ctx, line)
}

// Greet connects to the log's daemon meanwhile, for an append that is likely to
// come. Whether that goes well shows when it comes.
func (j *Journal) Greet(ctx context.Context) {
	ctx, j.stop = context.WithTimeout(ctx, time.Second)
	j.mu.Lock()
	go func() {
		defer j.mu.Unlock()
		if j.client == nil {
			j.client, _ = record.Dial(ctx, j.Socket, record.Hello{})
		}
	}()
}

// appendTo appends what waits in the spool and a line over the connection,
// and ends that where it fails.
func (j *Journal) appendTo(ctx context.Context, line []byte) error {
	client := j.client
	stop := context.AfterFunc(ctx, func() { client.Close() })
	err := j.flush(client)
	if err == nil {
		err = client.Append([][]byte{line}, nil)
	}
	if !stop() || err != nil {
		client.Close()
		j.client = nil
	}
	return err
}

// Close ends the connection to the log's daemon. The next append makes
// another.
func (j *Journal) Close() {
	if j.stop != nil {
		j.stop()
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.client != nil {
		j.client.Close()
		j.client = nil
	}
}

// maxSpool bounds what waits, in bytes.
const maxSpool = 16 << 20

func (j *Journal) path() string { return filepath.Join(j.Spool, "ovs.jsonl") }

// spool writes an event to disk, durably, marked as spooled.
func (j *Journal) spool(e Event) error {
	e.Data = map[string]any{"spooled": true, "event": e.Data}
	line, err := e.Line()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(j.Spool, 0o750); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	f, err := os.OpenFile(j.path(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640)
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	defer f.Close()
	if err := durable.WaitLock(f); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	if info, err := f.Stat(); err != nil || info.Size()+int64(len(line)) > maxSpool {
		return errors.Join(errors.New("spool: full"), err)
	}
	// A line that a crash has left in half is ended first.
	if _, err := f.Write(append(append([]byte("\n"), line...), '\n')); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	return errors.Join(durable.Datasync(f), durable.SyncDir(j.Spool))
}

// Flush appends what waits in the spool.
func (j *Journal) Flush(ctx context.Context) error {
	if info, err := os.Stat(j.path()); err != nil || info.Size() == 0 {
		return nil
	}
	client, err := record.Dial(ctx, j.Socket, record.Hello{})
	if err != nil {
		return err
	}
	defer client.Close()
	return j.flush(client)
}

// flush appends what waits in the spool and empties it. A crash between the
// two has it appended twice.
func (j *Journal) flush(client *record.Client) error {
	f, err := os.OpenFile(j.path(), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	defer f.Close()
	if err := durable.WaitLock(f); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSpool+1))
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	var lines [][]byte
	for line := range bytes.Lines(data) {
		if line = bytes.TrimSpace(line); json.Valid(line) {
			lines = append(lines, line)
		}
	}
	if len(lines) > 0 {
		if err := client.Append(lines, nil); err != nil {
			return err
		}
	}
	if len(data) == 0 {
		return nil
	}
	if err := f.Truncate(0); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	return nil
}
