// Tesseraappend appends to a Tessera log with its POSIX driver, for the
// comparison in integration/bench.
//
//	tesseraappend DIR BATCHFILE
//
// The lines of BATCHFILE are the entries of one batch. For each line that it
// reads from standard input, a number of seconds, it appends batches for so
// long, each when the one before is durable, and prints {"took":[ms,...],
// "total":seconds}. One caller submits a batch whole and waits for all of it;
// Tessera's batch size is the same, and it publishes a checkpoint a second.
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/transparency-dev/tessera"
	"github.com/transparency-dev/tessera/storage/posix"
	"golang.org/x/mod/sumdb/note"
)

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "tesseraappend:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("usage: tesseraappend DIR BATCHFILE")
	}
	data, err := os.ReadFile(args[1])
	if err != nil {
		return err
	}
	lines := bytes.Split(bytes.TrimSuffix(data, []byte("\n")), []byte("\n"))
	skey, _, err := note.GenerateKey(rand.Reader, "bench.example/tessera")
	if err != nil {
		return err
	}
	signer, err := note.NewSigner(skey)
	if err != nil {
		return err
	}
	driver, err := posix.New(ctx, posix.Config{Path: args[0]})
	if err != nil {
		return err
	}
	options := tessera.NewAppendOptions().WithCheckpointSigner(signer).
		WithBatching(uint(len(lines)), time.Second).WithCheckpointInterval(time.Second)
	appender, shutdown, _, err := tessera.NewAppender(ctx, driver, options)
	if err != nil {
		return err
	}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		seconds, err := strconv.ParseFloat(in.Text(), 64)
		if err != nil {
			return err
		}
		var answer struct {
			Took  []float64 `json:"took"`
			Total float64   `json:"total"`
		}
		begin := time.Now()
		futures := make([]tessera.IndexFuture, len(lines))
		for time.Since(begin).Seconds() < seconds {
			t := time.Now()
			for i, l := range lines {
				futures[i] = appender.Add(ctx, tessera.NewEntry(l))
			}
			for _, f := range futures {
				if _, err := f(); err != nil {
					return err
				}
			}
			answer.Took = append(answer.Took, float64(time.Since(t))/float64(time.Millisecond))
		}
		answer.Total = time.Since(begin).Seconds()
		if err := json.NewEncoder(os.Stdout).Encode(answer); err != nil {
			return err
		}
	}
	if err := in.Err(); err != nil {
		return err
	}
	return shutdown(ctx)
}
