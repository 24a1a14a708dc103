package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/chain"
	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/merkle"
	"github.com/ghostbridge/ghostbridge/pkg/names"
)

// pins reads what --pin names.
func pins(c *cli.Context) ([]chain.Pin, error) {
	var pins []chain.Pin
	for _, name := range c.StringSlice("pin") {
		var data []byte
		var err error
		if strings.HasPrefix(name, "http://") || strings.HasPrefix(name, "https://") {
			data, err = get(c.Context, name)
		} else {
			data, err = os.ReadFile(name)
		}
		if err != nil {
			return nil, fmt.Errorf("pin: %w", err)
		}
		pin, err := chain.ReadPin(name, data)
		if err != nil {
			return nil, err
		}
		pins = append(pins, pin)
	}
	return pins, nil
}

// stands returns where those stand that prune must not go past.
func stands(c *cli.Context, logKey merkle.Verifier) ([]chain.Stand, error) {
	var stands []chain.Stand
	outside, err := pins(c)
	if err != nil {
		return nil, err
	}
	for _, p := range outside {
		if p.Note != nil {
			cp, err := merkle.Open(p.Note, logKey)
			if err != nil {
				return nil, fmt.Errorf("pin %s: %w", p.Name, err)
			}
			p.Size = cp.Size
		}
		stands = append(stands, chain.Stand{Name: "pin " + p.Name, Size: p.Size})
	}
	w, err := witnesses(c)
	if err != nil {
		return nil, err
	}
	if w != nil {
		list, err := w.List()
		if err != nil {
			return nil, err
		}
		for _, s := range list {
			if s.Size > 0 { // one that has seen nothing goes on from any size
				stands = append(stands, chain.Stand{Name: "witness " + s.Key.Name(), Size: s.Size})
			}
		}
	}
	cursors := c.StringSlice("cursor")
	if len(cursors) == 0 && c.String("log") == names.LogDir {
		if _, err := os.Stat(names.CursorFile); err == nil {
			cursors = []string{names.CursorFile}
		}
	}
	for _, file := range cursors {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("cursor: %w", err)
		}
		p, err := chain.ReadPin(file, data)
		if err != nil {
			return nil, err
		}
		if p.Note != nil {
			return nil, cli.Usagef("cursor %s: it is a checkpoint; name it with --pin", file)
		}
		stands = append(stands, chain.Stand{Name: "cursor " + file, Size: p.Size})
	}
	return stands, nil
}

// maxPin bounds what a server may answer: a checkpoint with many signatures.
const maxPin = 64 << 10

// pinClient fetches pins. Nobody between may turn a fetch that was to be
// encrypted into one that is not.
var pinClient = &http.Client{
	Timeout: 10 * time.Second, // with the body
	CheckRedirect: func(req *http.Request, via []*http.Request) error {
		if via[len(via)-1].URL.Scheme == "https" && req.URL.Scheme != "https" {
			return fmt.Errorf("is sent on to %s, without encryption", req.URL.Redacted())
		}
		if len(via) >= 5 {
			return errors.New("is sent on more than five times")
		}
		return nil
	},
}

// An unreachableError is of a server that may answer another time.
type unreachableError struct{ error }

func (e *unreachableError) Unwrap() error { return e.error }
func (e *unreachableError) ExitCode() int { return cli.ExitTryAgain }
func (e *unreachableError) Hint() string {
	return "without the pin nothing was verified; try again, or name a copy of it in a file"
}

func get(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, cli.Usagef("%w", err)
	}
	resp, err := pinClient.Do(req)
	if err != nil {
		return nil, &unreachableError{err}
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		err := fmt.Errorf("%s: %s", url, resp.Status)
		if resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests {
			err = &unreachableError{err}
		}
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxPin+1))
	if err != nil {
		return nil, &unreachableError{fmt.Errorf("%s: %w", url, err)}
	}
	if len(data) > maxPin {
		return nil, fmt.Errorf("%s: longer than %d bytes", url, maxPin)
	}
	return data, nil
}

// readState reads the file of --since-checkpoint; nil if there is none yet.
func readState(file string) (*chain.State, error) {
	if file == "" {
		return nil, nil
	}
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("--since-checkpoint: %w", err)
	}
	s, err := chain.ReadState(data)
	if err != nil {
		return nil, cli.WithHint(fmt.Errorf("--since-checkpoint: %s: %w", file, err), "name another FILE; one that is not there yet is made after the whole was verified")
	}
	return s, nil
}
