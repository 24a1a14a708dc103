package opdbus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/chain"
	logevent "github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/record"
)

// A Journal makes events durable. Record returns when they are, or an error;
// then they may or may not be.
type Journal interface {
	Record(ctx context.Context, lines ...[]byte) error
	Close() error
}

// A LogJournal appends to the log through its daemon. What several callers
// record at once goes out in one batch, so that one fdatasync serves all.
type LogJournal struct {
	Socket string // of the daemon
	Key    string // of the log that is meant; "" for whatever it has

	mu      sync.Mutex
	waiting []recorded
	running bool
	client  *record.Client
	closed  bool
}

type recorded struct {
	lines [][]byte
	done  chan error
}

// recordTimeout bounds how long the log may take for a batch.
const recordTimeout = 10 * time.Second

// Record implements Journal.
func (j *LogJournal) Record(ctx context.Context, lines ...[]byte) error {
	r := recorded{lines, make(chan error, 1)}
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		return errors.New("the journal is closed")
	}
	j.waiting = append(j.waiting, r)
	if !j.running {
		j.running = true
		go j.run()
	}
	j.mu.Unlock()
	// The event is on its way whatever becomes of ctx: wait for it, so that
	// who acts knows.
	return <-r.done
}

// run writes batches until nothing waits.
func (j *LogJournal) run() {
	for {
		j.mu.Lock()
		batch := j.waiting
		j.waiting = nil
		if len(batch) == 0 {
			j.running = false
			j.mu.Unlock()
			return
		}
		client := j.client
		j.mu.Unlock()
		client, err := j.write(client, batch)
		j.mu.Lock()
		j.client = client
		if j.closed && client != nil {
			client.Close()
			j.client = nil
		}
		j.mu.Unlock()
		for _, r := range batch {
			r.done <- err
		}
	}
}

func (j *LogJournal) write(client *record.Client, batch []recorded) (*record.Client, error) {
	ctx, cancel := context.WithTimeout(context.Background(), recordTimeout)
	defer cancel()
	var lines [][]byte
	for _, r := range batch {
		lines = append(lines, r.lines...)
	}
	for fresh := false; ; fresh = true {
		if client == nil {
			var err error
			if client, err = record.Dial(ctx, j.Socket, record.Hello{Key: j.Key}); err != nil {
				return nil, err
			}
			fresh = true
		}
		acked := 0
		stop := context.AfterFunc(ctx, func() { client.Close() })
		err := client.Append(lines, func(a record.Ack) { acked += int(a.Last - a.First + 1) })
		stop()
		if err == nil {
			return client, nil
		}
		client.Close()
		client = nil
		// The daemon may have been started anew since the last batch; then
		// nothing of this one was stored, as far as it said.
		var gone *record.UnavailableError
		if fresh || acked > 0 || !errors.As(err, &gone) {
			return nil, err
		}
	}
}

// Close ends the connection to the daemon.
func (j *LogJournal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.closed = true
	if j.client != nil && !j.running {
		err := j.client.Close()
		j.client = nil
		return err
	}
	return nil
}

// A FileJournal appends to a log that no daemon has, opening it for each
// batch: for a tool that makes a change and ends.
type FileJournal struct {
	Dir, Keys string
}

// Record implements Journal.
func (j *FileJournal) Record(ctx context.Context, lines ...[]byte) error {
	peer := logevent.Peer{UID: uint32(os.Getuid()), Unit: chain.UnitOf(os.Getpid())}
	l, err := chain.Open(j.Dir, j.Keys, chain.Options{Peer: peer, Wait: recordTimeout})
	if err != nil {
		return err
	}
	_, err = chain.Feed(ctx, bytes.NewReader(append(bytes.Join(lines, []byte("\n")), '\n')), chain.DirectSink{Log: l}, chain.FeedOptions{Peer: peer})
	return errors.Join(err, l.Close())
}

// Close implements Journal.
func (j *FileJournal) Close() error { return nil }

// OpenJournal returns the journal of the log in dir: through its daemon at
// socket if one answers, else directly.
func OpenJournal(ctx context.Context, dir, socket, keys string) (Journal, error) {
	created, err := chain.ReadCreated(os.DirFS(dir))
	if err != nil {
		return nil, fmt.Errorf("log %s: %w", dir, err)
	}
	key := created.LogKey.String()
	client, err := record.Dial(ctx, socket, record.Hello{Key: key})
	if err == nil {
		return &LogJournal{Socket: socket, Key: key, client: client}, nil
	}
	var gone *record.UnavailableError
	if !errors.As(err, &gone) {
		return nil, err
	}
	return &FileJournal{Dir: dir, Keys: keys}, nil
}
