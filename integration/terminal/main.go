//go:build linux

// Command terminal runs a session of a document, as integration/docs does, and
// draws what was typed and what was really printed as an SVG: the README's
// picture of a terminal. With -text it writes the session as a document has it.
//
//	terminal -bin bin [-text] DOCUMENT SESSION > picture.svg
//
// It needs root, for a btrfs on a loop device.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/ghostbridge/ghostbridge/integration/document"
	"github.com/ghostbridge/ghostbridge/integration/loopbtrfs"
)

func main() {
	bin := flag.String("bin", "bin", "directory of the tools")
	text := flag.Bool("text", false, "write text, not a picture")
	flag.Parse()
	if flag.NArg() != 2 {
		fmt.Fprintln(os.Stderr, "usage: terminal [-bin DIR] [-text] DOCUMENT SESSION")
		os.Exit(2)
	}
	if err := run(*bin, flag.Arg(0), flag.Arg(1), *text); err != nil {
		fmt.Fprintln(os.Stderr, "terminal:", err)
		os.Exit(1)
	}
}

func run(bin, file, name string, text bool) error {
	blocks, err := document.Read(file)
	if err != nil {
		return err
	}
	for _, b := range blocks {
		if b.Kind == "session" && b.Name() == name {
			rows, err := record(bin, b)
			if err != nil {
				return err
			}
			if text {
				return write(os.Stdout, rows)
			}
			return draw(os.Stdout, rows)
		}
	}
	return fmt.Errorf("%s has no session %s", file, name)
}

// A row is a line of the terminal: a command if typed.
type row struct {
	text  string
	typed bool
}

// record runs a session on a file system of its own and returns what a
// terminal would show.
func record(bin string, b document.Block) (rows []row, err error) {
	commands, err := b.Commands()
	if err != nil {
		return nil, err
	}
	place := document.Place{}
	if place.Bin, err = filepath.Abs(bin); err != nil {
		return nil, err
	}
	if place.Keys, err = os.MkdirTemp("", "gb-keys-"); err != nil {
		return nil, err
	}
	defer os.RemoveAll(place.Keys)
	dir, takeDown, err := loopbtrfs.Make(loopbtrfs.Options{Size: b.Size()})
	if err != nil {
		return nil, err
	}
	defer func() {
		if e := takeDown(); err == nil {
			err = e
		}
	}()
	place.Dir = dir
	if err := place.Prepare(); err != nil {
		return nil, err
	}
	for _, c := range commands {
		for i, line := range strings.Split(c.Text, "\n") {
			rows = append(rows, row{text: [2]string{"$ ", "> "}[min(i, 1)] + line, typed: true})
		}
		out, err := place.Run(context.Background(), c)
		if err != nil {
			return nil, fmt.Errorf("$ %s: %w\n%s", c.Text, err, out)
		}
		for _, line := range document.Lines(out) {
			rows = append(rows, row{text: line})
		}
	}
	return rows, nil
}

func write(w io.Writer, rows []row) error {
	for _, r := range rows {
		if _, err := fmt.Fprintln(w, r.text); err != nil {
			return err
		}
	}
	return nil
}
