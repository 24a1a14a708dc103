package main

import (
	"bufio"
	"fmt"

	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/event"
)

// A printer writes events as stored lines or for people.
type printer struct {
	w      *bufio.Writer
	json   bool
	colour bool
}

func newPrinter(c *cli.Context) *printer {
	return &printer{
		w:      bufio.NewWriterSize(c.App.Writer, 64<<10),
		json:   c.Bool("json"),
		colour: cli.IsTerminal(c.App.Writer),
	}
}

// Colours of ECMA-48 by severity.
var colours = map[event.Severity]string{
	event.Emergency: "1;31", event.Alert: "1;31", event.Critical: "1;31", event.Error: "31",
	event.Warning: "33", event.Notice: "1", event.Debug: "2",
}

func (p *printer) print(e *event.Event, line []byte) error {
	if p.json {
		if _, err := p.w.Write(line); err != nil {
			return err
		}
		return p.w.WriteByte('\n')
	}
	text := e.Message
	if text == "" {
		text = string(e.Data)
	}
	if text == "" && e.Blob != nil {
		text = fmt.Sprintf("(%d bytes in blob %s)", e.Blob.Size, e.Blob.SHA256)
	}
	subject := e.Subject
	if subject != "" {
		subject += ": "
	}
	on, off := "", ""
	if code := colours[e.Severity]; p.colour && code != "" {
		on, off = "\x1b["+code+"m", "\x1b[0m"
	}
	_, err := fmt.Fprintf(p.w, "%7d  %s  %-7s  %-10s  %-20s  %s%s%s\n", e.Index, e.Time.Local().Format("2006-01-02 15:04:05.000"),
		e.Severity, cli.Printable(e.Source), cli.Printable(e.Type), on, cli.Printable(subject+text), off)
	return err
}

func (p *printer) flush() error { return p.w.Flush() }
