package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/layout"
)

// greet says what runs and what to try.
func (p *pipeline) greet(w io.Writer, limit time.Duration) {
	sources := make([]string, 0, len(p.recorders))
	for _, r := range p.recorders {
		sources = append(sources, strings.TrimPrefix(r.name, "gb-chain-append-"))
	}
	if len(sources) == 0 {
		sources = []string{"nothing: this machine has no kernel log, system bus or journal to read"}
	}
	until := "Ctrl-C stops it"
	if limit > 0 {
		until = fmt.Sprintf("it stops after %s", limit)
	}
	fmt.Fprintf(w, "recording %s; a snapshot a second; %s, the data stays in %s\n", strings.Join(sources, ", "), until, p.dir)
	if link, err := p.output("gb-web", "login", "--socket", p.door()); err == nil {
		fmt.Fprintf(w, "see it in a browser, once, within two minutes:\n  %s\n", strings.TrimSpace(string(link)))
	}
	fmt.Fprintf(w, "try, in another terminal:\n")
	fmt.Fprintf(w, "  %s login --socket %s\n", p.tool("gb-web"), p.door())
	fmt.Fprintf(w, "  %s query --log %s -n 5\n", p.tool("gb-chain"), p.log())
	fmt.Fprintf(w, "  %s search --index %s \"what happened to the disk\"\n", p.tool("gb-vecsync"), p.index())
	fmt.Fprintf(w, "  %s verify --log %s\n", p.tool("gb-chain"), p.log())
}

// status is one line: how far each stage has come, out of the files that each
// publishes.
func (p *pipeline) status() string {
	covered := int64(-1)
	if note, err := os.ReadFile(filepath.Join(p.log(), layout.Checkpoint)); err == nil {
		if lines := strings.SplitN(string(note), "\n", 3); len(lines) == 3 {
			covered, _ = strconv.ParseInt(lines[1], 10, 64)
		}
	}
	snaps := 0
	if entries, err := os.ReadDir(p.snapshots()); err == nil {
		for _, e := range entries {
			if e.IsDir() && strings.HasPrefix(e.Name(), "2") {
				snaps++
			}
		}
	}
	var cursor struct {
		Size int64 `json:"tree_size"`
	}
	if data, err := os.ReadFile(p.cursor()); err == nil {
		json.Unmarshal(data, &cursor)
	}
	lag := "not yet applied"
	if !p.shipped.IsZero() {
		lag = fmt.Sprintf("%d events behind, applied %.1f s ago", max(covered-cursor.Size, 0), time.Since(p.shipped).Seconds())
	}
	return fmt.Sprintf("%4.0f s  log %d events  snapshots %d  index %d events, %s", time.Since(p.started).Seconds(), covered, snaps, cursor.Size, lag)
}
