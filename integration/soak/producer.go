//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/merkle"
	"github.com/ghostbridge/ghostbridge/pkg/names"
)

// A producer makes events at a rate and feeds them to gb-chain append. What is
// not acknowledged when that ends goes to the next one, first of all.
type producer struct {
	*role
	rate int // events a second
	rnd  *rand.Rand

	mu    sync.Mutex
	queue []produced // not acknowledged, in their order
	sent  int        // of them to the process that is there now
	held  int64      // that were not made, since the queue was full
}

type produced struct {
	number uint64
	line   []byte
}

// patience is for how many seconds a producer makes events that nobody takes.
const patience = 10

var numbers atomic.Uint64

// tick is how often a producer makes some.
const tick = 100 * time.Millisecond

// run produces until ctx ends, and then waits for what is not acknowledged yet,
// until drain ends.
func (p *producer) run(ctx, drain context.Context) {
	go func() {
		t := time.NewTicker(tick)
		defer t.Stop()
		due := 0.0
		for last := time.Now(); ; {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
			}
			now := time.Now()
			due += now.Sub(last).Seconds() * float64(p.rate)
			last = now
			p.mu.Lock()
			for ; due >= 1; due-- {
				if len(p.queue) >= patience*p.rate {
					p.held++
					continue
				}
				n := numbers.Add(1)
				p.queue = append(p.queue, produced{n, event(p.rnd, n)})
			}
			p.mu.Unlock()
		}
	}()
	for drain.Err() == nil && (ctx.Err() == nil || p.waiting() > 0) {
		if err := p.feed(ctx, drain); err != nil {
			p.s.violate("%s: %v", p.name, err)
			return
		}
		sleep(drain, restart)
	}
}

func (p *producer) waiting() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.queue)
}

// feed runs one gb-chain append, until it ends or there is nothing left to do.
func (p *producer) feed(ctx, drain context.Context) error {
	cmd := p.s.h.command(names.GBChain, "append", "--socket", p.s.h.socket(), "--receipts", "-")
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.sent = 0
	p.mu.Unlock()
	if err := p.start(cmd); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- p.receipts(out) }()
	werr := error(nil)
	for werr == nil && drain.Err() == nil {
		p.mu.Lock()
		batch := p.queue[p.sent:]
		p.sent = len(p.queue)
		left := len(p.queue)
		p.mu.Unlock()
		for _, e := range batch {
			if _, werr = in.Write(e.line); werr != nil {
				break
			}
		}
		if ctx.Err() != nil && left == 0 {
			break
		}
		select {
		case err := <-ended:
			ended <- err
			werr = io.EOF
		case <-time.After(tick):
		}
	}
	in.Close()
	// Whatever it was told comes before the end of what it prints.
	rerr := <-ended
	p.wait(cmd)
	return rerr
}

// receipts takes down what was acknowledged.
func (p *producer) receipts(out io.Reader) error {
	r := bufio.NewReader(out)
	for {
		line, err := r.ReadBytes('\n')
		if err != nil {
			return nil // it was killed while it printed, or has ended
		}
		var a struct {
			Index int64       `json:"index"`
			Leaf  merkle.Hash `json:"leaf"`
		}
		if err := json.Unmarshal(line, &a); err != nil {
			return fmt.Errorf("receipt %q: %w", line, err)
		}
		p.mu.Lock()
		if p.sent == 0 {
			p.mu.Unlock()
			return fmt.Errorf("a receipt for event %d, and none was sent", a.Index)
		}
		e := p.queue[0]
		p.queue = p.queue[1:]
		p.sent--
		p.mu.Unlock()
		if err := p.s.ledger.ack(a.Index, a.Leaf, e.number); err != nil {
			p.s.violate("%v", err)
		}
	}
}

// A kind of line.
type kind struct{ source, kind, severity, message string }

// lines are what hosts tell all the time, with values that are always others.
var lines = []kind{
	{"journald", "journal.sshd", "info", "Failed password for root from 192.0.2.%[1]d port %[2]d ssh2"},
	{"journald", "journal.sshd", "notice", "Accepted publickey for user%[1]d from 198.51.100.%[1]d port %[2]d"},
	{"journald", "journal.systemd", "info", "session-%[2]d.scope: Deactivated successfully."},
	{"journald", "journal.nginx", "info", "GET /api/v1/items/%[2]d 200 %[1]d ms"},
	{"kernel", "kernel", "warning", "nvme0n1: I/O error, sector %[3]d"},
	{"kernel", "kernel", "info", "eth%[1]d: link becomes ready"},
	{"web", "login.failed", "warning", "login of operator from 203.0.113.%[1]d failed"},
}

// changes are rare, and each is a point of its own in an index.
var changes = []kind{
	{"ovs", "port.added", "notice", "port vnet%[1]d added to bridge ovsbr0"},
	{"ovs", "port.removed", "notice", "port vnet%[1]d removed from bridge ovsbr0"},
	{"dbus", "property.changed", "info", "org.freedesktop.systemd1 /org/freedesktop/systemd1/unit/app_%[1]d ActiveState changed"},
	{"mcp", "tool.called", "info", "agent claude called unit_restart for app-%[1]d.service"},
}

// event is an event's line.
func event(r *rand.Rand, number uint64) []byte {
	k := lines[r.IntN(len(lines))]
	if r.IntN(50) == 0 {
		k = changes[r.IntN(len(changes))]
	}
	message := fmt.Sprintf(k.message, r.IntN(250), 1024+r.IntN(60000), r.Uint32())
	return fmt.Appendf(nil, `{"source":%q,"type":%q,"subject":"event/%d","severity":%q,"message":%q}`+"\n", k.source, k.kind, number, k.severity, message)
}
