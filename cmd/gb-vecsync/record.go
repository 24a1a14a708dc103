package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/index/local"
	"github.com/ghostbridge/ghostbridge/pkg/names"
	"github.com/ghostbridge/ghostbridge/pkg/record"
	"github.com/ghostbridge/ghostbridge/pkg/vecsync"
)

func socketFlag() cli.Flag {
	return &cli.StringFlag{Name: "socket", EnvVars: []string{"GB_CHAIN_SOCKET"}, Usage: "the `SOCKET` of the log's daemon, which records findings (default: " + names.ChainSocket + ", if it is there; \"\" for none)"}
}

// A eventRecorder makes events of findings, in the log that the index is of and
// in no other.
type eventRecorder struct {
	c      *cli.Context
	db     *local.DB
	socket string // "" for none
}

func recorder(c *cli.Context, db *local.DB) *eventRecorder {
	r := &eventRecorder{c, db, c.String("socket")}
	if !c.IsSet("socket") {
		if _, err := os.Stat(names.ChainSocket); err == nil {
			r.socket = names.ChainSocket
		}
	}
	return r
}

// findings returns what records a new finding, nil where there is no daemon or
// the index does not know yet which log it is of.
func (r *eventRecorder) findings() func(*vecsync.Finding) error {
	if key, err := vecsync.LogKey(r.db); r.socket == "" || err == nil && key == "" {
		return nil
	}
	return func(f *vecsync.Finding) error {
		return r.append(line{Type: "vecsync.finding", Severity: "crit", Message: f.Error(), Data: f})
	}
}

func (r *eventRecorder) accepted(f *vecsync.Finding, left []vecsync.Span) error {
	if r.socket == "" {
		return errors.New("no daemon of the log is there")
	}
	data := struct {
		*vecsync.Finding
		Left []vecsync.Span `json:"left_out,omitempty"`
	}{f, left}
	return r.append(line{Type: "vecsync.accepted", Severity: "warning", Message: fmt.Sprintf("tamper finding %d is accepted: %s", f.Number, f.Accepted), Data: data})
}

// A line is an event as a producer gives it.
type line struct {
	Source   string `json:"source"`
	Type     string `json:"type"`
	Severity string `json:"severity"`
	Message  string `json:"message"`
	Data     any    `json:"data"`
}

func (r *eventRecorder) append(l line) error {
	key, err := vecsync.LogKey(r.db)
	if err != nil {
		return err
	}
	if key == "" {
		return errors.New("the index does not know of which log it is")
	}
	l.Source = "vecsync"
	text, err := json.Marshal(l)
	if err != nil {
		return err
	}
	client, err := record.Dial(r.c.Context, r.socket, record.Hello{Key: key})
	if err != nil {
		return err
	}
	defer client.Close()
	return client.Append([][]byte{text}, nil)
}
