package chain

import (
	"errors"

	"github.com/ghostbridge/ghostbridge/pkg/merkle"
	"github.com/ghostbridge/ghostbridge/pkg/record"
)

// A RemoteSink appends through the daemon that has the log.
type RemoteSink struct{ Client *record.Client }

// Append implements Sink. The daemon may make several ranges of one batch,
// with other producers' events between them; then First is of the first one
// and Ranges has them all.
func (s RemoteSink) Append(b *Batch) error {
	lines := make([][]byte, len(b.Drafts))
	for i, d := range b.Drafts {
		lines[i] = d.Line()
	}
	b.Stored, b.Leaves, b.Err = 0, nil, nil
	var bad error
	err := s.Client.Append(lines, func(a record.Ack) {
		if b.Stored == 0 {
			b.First = a.First
		}
		for i := a.First; i <= a.Last; i++ {
			b.Indexes = append(b.Indexes, i)
		}
		b.Stored += int(a.Last - a.First + 1)
		for _, l := range a.Leaves {
			h, err := merkle.ParseHash(l)
			if err != nil {
				bad = err
			}
			b.Leaves = append(b.Leaves, h)
		}
	})
	var refused *record.RefusedError
	if errors.As(err, &refused) && refused.Line > 0 && b.Stored < len(b.Drafts) {
		b.Err = &remoteRefusal{refused}
		return nil
	}
	return errors.Join(err, bad)
}

// A remoteRefusal is the daemon's reason, without its own count of lines.
type remoteRefusal struct{ *record.RefusedError }

func (r *remoteRefusal) Error() string { return r.Reason }

// Lost implements Sink.
func (s RemoteSink) Lost(l record.Lost) error { return s.Client.ReportLost(l) }

// Idle implements Sink; the daemon signs by itself.
func (s RemoteSink) Idle() error { return nil }

// Close ends the connection.
func (s RemoteSink) Close() error { return s.Client.Close() }
