package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"time"
)

// bleves is bleve, in a program of its own (peers/bleveask), over the texts that
// bm25 has.
type bleves struct {
	c   *corpus
	cmd *exec.Cmd
	in  io.WriteCloser
	to  *json.Encoder
	out *json.Decoder
}

// newBleve starts program, with its index in dir, and gives it the corpus.
func newBleve(program, dir string, c *corpus) (_ *bleves, err error) {
	b := &bleves{c: c, cmd: exec.Command(program, dir)}
	b.cmd.Stderr = os.Stderr
	in, err := b.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := b.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := b.cmd.Start(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			b.cmd.Process.Kill()
			b.cmd.Wait()
		}
	}()
	b.in, b.to, b.out = in, json.NewEncoder(in), json.NewDecoder(bufio.NewReader(out))
	documents := bufio.NewWriter(in)
	e := json.NewEncoder(documents)
	for i, ev := range c.events {
		if err := e.Encode(map[string]any{"id": strconv.Itoa(i), "body": text(ev), "host": ev.Host, "source": ev.Source, "kind": ev.Type, "severity": int(ev.Severity), "time": seconds(ev.Time)}); err != nil {
			return nil, err
		}
	}
	fmt.Fprintln(documents)
	var ready struct{ Documents int }
	if err := errors.Join(documents.Flush(), b.out.Decode(&ready)); err != nil {
		return nil, err
	}
	if ready.Documents != len(c.events) {
		return nil, fmt.Errorf("%s has %d of %d documents", program, ready.Documents, len(c.events))
	}
	return b, nil
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

func (b *bleves) close() error { return errors.Join(b.in.Close(), b.cmd.Wait()) }

func (b *bleves) name() string { return "bleve" }

func (b *bleves) hits(q *question, size int) (ids []string, took time.Duration, err error) {
	whole := q.whole()
	request := map[string]any{"terms": terms(q.text), "size": size, "hosts": whole.Hosts, "sources": whole.Sources, "kinds": whole.Types}
	if whole.HasSeverity {
		request["severity"] = int(whole.Severity)
	}
	if !whole.Since.IsZero() {
		request["since"] = seconds(whole.Since)
	}
	if !whole.Until.IsZero() {
		request["until"] = seconds(whole.Until)
	}
	var answer struct {
		IDs  []string
		Took float64
	}
	if err := errors.Join(b.to.Encode(request), b.out.Decode(&answer)); err != nil {
		return nil, 0, err
	}
	return answer.IDs, time.Duration(answer.Took * float64(time.Millisecond)), nil
}

func (b *bleves) ask(_ context.Context, q *question) ([]string, error) {
	for size := 10; ; size *= 10 {
		ids, _, err := b.hits(q, size)
		if err != nil {
			return nil, err
		}
		var labels []string
		for _, id := range ids {
			i, err := strconv.Atoi(id)
			if err != nil || i < 0 || i >= len(b.c.events) {
				return nil, fmt.Errorf("bleve found %q", id)
			}
			if l := b.c.labelFor(q, i); !slices.Contains(labels, l) {
				labels = append(labels, l)
			}
		}
		if len(labels) >= depth || len(ids) < size {
			return labels[:min(len(labels), depth)], nil
		}
	}
}

// ten is as bleve's own program measures it, without the way there and back.
func (b *bleves) ten(_ context.Context, q *question) (time.Duration, error) {
	_, took, err := b.hits(q, 10)
	return took, err
}
