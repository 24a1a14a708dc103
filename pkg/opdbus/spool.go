package opdbus

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/ghostbridge/ghostbridge/pkg/durable"
)

// A Spool keeps the events of restoring actions until the log takes them. Each
// is durable before what it tells of is done. Several processes may use one.
type Spool struct{ Dir string }

const (
	spoolFile = "opdbus.jsonl"
	maxSpool  = 16 << 20
)

func (s *Spool) open() (*os.File, error) {
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(s.Dir, spoolFile), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	if err := durable.WaitLock(f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Add keeps an event line, marked as spooled.
func (s *Spool) Add(line []byte) error {
	line, err := markSpooled(line)
	if err != nil {
		return err
	}
	f, err := s.open()
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size()+int64(len(line)) > maxSpool {
		return fmt.Errorf("%s is full", f.Name())
	}
	b := append(line, '\n')
	if last := make([]byte, 1); info.Size() > 0 {
		// A kill may have left half a line.
		if _, err := f.ReadAt(last, info.Size()-1); err == nil && last[0] != '\n' {
			b = append([]byte{'\n'}, b...)
		}
	}
	if _, err := f.Write(b); err != nil {
		return err
	}
	if err := durable.Datasync(f); err != nil {
		return err
	}
	return durable.SyncDir(s.Dir)
}

func markSpooled(line []byte) ([]byte, error) {
	var e struct {
		event
		Data map[string]json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(line, &e); err != nil {
		return nil, err
	}
	if e.Data == nil {
		e.Data = map[string]json.RawMessage{}
	}
	e.Data["spooled"] = json.RawMessage("true")
	e.event.Data = e.Data
	return eventLine(e.event), nil
}

// Size returns how many bytes of events wait.
func (s *Spool) Size() int64 {
	info, err := os.Stat(filepath.Join(s.Dir, spoolFile))
	if err != nil {
		return 0
	}
	return info.Size()
}

// Flush appends what waits to the log. A process that is killed after the
// log's acknowledgement and before the file is emptied appends it twice.
func (s *Spool) Flush(ctx context.Context, j Journal) (n int, err error) {
	if _, err := os.Stat(filepath.Join(s.Dir, spoolFile)); errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	f, err := s.open()
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var lines [][]byte
	r := bufio.NewScanner(f)
	r.Buffer(nil, maxSpool)
	for r.Scan() {
		if json.Valid(r.Bytes()) {
			lines = append(lines, bytes.Clone(r.Bytes()))
		}
	}
	if err := r.Err(); err != nil {
		return 0, err
	}
	if len(lines) == 0 {
		return 0, nil
	}
	if err := j.Record(ctx, lines...); err != nil {
		return 0, err
	}
	if err := f.Truncate(0); err != nil {
		return 0, err
	}
	return len(lines), durable.Datasync(f)
}
