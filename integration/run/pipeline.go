package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/names"
)

// A pipeline is the running children and where their data is.
type pipeline struct {
	bin, dir string
	run      string // for the socket: its path must be short
	started  time.Time

	serve, take *child
	recorders   []*child
	lookers     []*child  // search and gb-web, which only read
	shipped     time.Time // when a stream was applied last
	full        bool      // the next stream must be a full one
	rebuilt     bool      // the index was made anew, since another version had made it
	failures    int       // of send and ingest, in a row
}

// A child is a process that runs as long as the pipeline.
type child struct {
	name string
	cmd  *exec.Cmd
	done chan error
}

func newPipeline(bin, dir string) (*pipeline, error) {
	run, err := os.MkdirTemp("", "gb-run-")
	if err != nil {
		return nil, err
	}
	for _, d := range []string{"state", "messages"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return nil, err
		}
	}
	return &pipeline{bin: bin, dir: dir, run: run, started: time.Now()}, nil
}

func (p *pipeline) tool(name string) string { return filepath.Join(p.bin, name) }
func (p *pipeline) source() string          { return filepath.Join(p.dir, "mnt", timing) }
func (p *pipeline) log() string             { return filepath.Join(p.source(), "log") }
func (p *pipeline) snapshots() string       { return filepath.Join(p.dir, "mnt", snapshots) }
func (p *pipeline) index() string           { return filepath.Join(p.dir, "mnt", vectors, "index.db") }
func (p *pipeline) keys() string            { return filepath.Join(p.dir, "state", "keys") }
func (p *pipeline) cursor() string          { return filepath.Join(p.dir, "state", "cursor.json") }
func (p *pipeline) door() string            { return filepath.Join(p.run, "web.sock") }
func (p *pipeline) socket() string          { return filepath.Join(p.run, "chain.sock") }

// start makes the log if need be and starts daemon, recorders and snapshots.
func (p *pipeline) start() error {
	if _, err := p.output(names.GBChain, "init", "--log", p.log(), "--keys", p.keys()); err != nil {
		return err
	}
	after, err := p.lastKernelMessage()
	if err != nil {
		return err
	}
	if p.serve, err = p.spawn(names.GBChain, "serve", "--log", p.log(), "--keys", p.keys(), "--socket", p.socket(), "--writers", ""); err != nil {
		return err
	}
	if err := p.awaitSocket(); err != nil {
		return err
	}
	for _, args := range recorders(after) {
		r, err := p.spawn(names.GBChain, append([]string{"append", "--socket", p.socket()}, args...)...)
		if err != nil {
			return err
		}
		p.recorders = append(p.recorders, r)
	}
	if p.take, err = p.spawn(names.GBSnap, "take", "--every", "1s", "--snapshots", p.snapshots(), "--run", p.run, p.source()); err != nil {
		return err
	}
	return p.look()
}

// look starts what only reads: the search, and the web interface on its port if
// that is free.
func (p *pipeline) look() error {
	address := fmt.Sprintf("127.0.0.1:%d", names.WebPort)
	if l, err := net.Listen("tcp", address); err == nil {
		l.Close()
	} else {
		address = "127.0.0.1:0"
	}
	search := filepath.Join(p.run, "search.sock")
	for _, argv := range [][]string{
		{names.GBVecsync, "search", "--listen", "--index", p.index(), "--socket", search},
		{names.GBWeb, "serve", "--listen", address, "--log", p.log(), "--search", search, "--socket", p.door(), "--sessions", filepath.Join(p.run, "sessions"), "--bus", "", "--policy", "/nonexistent",
			"--snapshots", p.snapshots(), "--source", p.source(), "--run", p.run, "--cursor", p.cursor(), "--no-doctor"},
	} {
		c, err := p.spawn(argv[0], argv[1:]...)
		if err != nil {
			return err
		}
		p.lookers = append(p.lookers, c)
	}
	for range 100 {
		if conn, err := net.Dial("unix", p.door()); err == nil {
			return conn.Close()
		}
		time.Sleep(50 * time.Millisecond)
	}
	return errors.New("gb-web serve does not answer")
}

// recorders returns the arguments of gb-chain append for each source of events
// that this machine has.
func recorders(afterKernel int64) [][]string {
	var list [][]string
	if f, err := os.Open("/dev/kmsg"); err == nil {
		f.Close()
		list = append(list, []string{"--format", "kmsg", "--after-seq", strconv.FormatInt(afterKernel, 10), "/dev/kmsg"})
	}
	if _, err := os.Stat("/run/dbus/system_bus_socket"); err == nil {
		if busctl, err := exec.LookPath("busctl"); err == nil {
			list = append(list, []string{"--format", "busctl", "--", busctl, "--system", "--json=short", "--match=type='signal'", "monitor"})
		}
	}
	if _, err := os.Stat("/run/systemd/system"); err == nil {
		if journalctl, err := exec.LookPath("journalctl"); err == nil {
			list = append(list, []string{"--format", "journald", "--", journalctl, "--follow", "--lines=0", "--output=json"})
		}
	}
	return list
}

// lastKernelMessage returns the number of the kernel message that an earlier
// run of this boot recorded last, -1 if none.
func (p *pipeline) lastKernelMessage() (int64, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return -1, nil
	}
	out, err := p.output(names.GBChain, "query", "--log", p.log(), "--source", "kernel", "--match", "boot_id="+strings.TrimSpace(string(boot)), "-n", "1", "--json")
	if err != nil {
		return -1, err
	}
	var e struct {
		Data struct {
			Seq *int64 `json:"seq"`
		} `json:"data"`
	}
	if json.Unmarshal(bytes.TrimSpace(out), &e) != nil || e.Data.Seq == nil {
		return -1, nil
	}
	return *e.Data.Seq, nil
}

func (p *pipeline) awaitSocket() error {
	for range 200 {
		if conn, err := net.Dial("unix", p.socket()); err == nil {
			return conn.Close()
		}
		select {
		case err := <-p.serve.done:
			p.serve.done <- err
			return p.died(p.serve, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
	return errors.New("gb-chain serve does not answer")
}

// spawn starts a child that ends with this process; what it says goes into a
// file of its own.
func (p *pipeline) spawn(tool string, args ...string) (*child, error) {
	name := tool + "-" + args[0]
	for i, a := range args {
		if a == "--format" && i+1 < len(args) {
			name += "-" + args[i+1]
		}
	}
	messages, err := os.Create(filepath.Join(p.dir, "messages", name))
	if err != nil {
		return nil, err
	}
	defer messages.Close()
	cmd := exec.Command(p.tool(tool), args...)
	cmd.Stdout, cmd.Stderr = messages, messages
	cmd.SysProcAttr = childAttributes()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c := &child{name: name, cmd: cmd, done: make(chan error, 1)}
	go func() { c.done <- cmd.Wait() }()
	return c, nil
}

// childAttributes lets a child die with this process, and keeps the terminal's
// Ctrl-C from it: it is stopped in order instead.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}

func (p *pipeline) died(c *child, err error) error {
	text, _ := os.ReadFile(filepath.Join(p.dir, "messages", c.name))
	return fmt.Errorf("%s ended: %v: %s", c.name, err, strings.TrimSpace(string(text)))
}

// output runs a tool to its end and returns what it printed.
func (p *pipeline) output(tool string, args ...string) ([]byte, error) {
	cmd := exec.Command(p.tool(tool), args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	cmd.SysProcAttr = childAttributes()
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("%s %s: %w: %s", tool, args[0], err, strings.TrimSpace(stderr.String()))
	}
	return out, nil
}

// ship sends what is new to the index: gb-snap send | gb-vecsync ingest.
func (p *pipeline) ship() error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	defer w.Close()
	sendArgs := []string{"send", "--snapshots", p.snapshots(), "--cursor", p.cursor(), p.source()}
	if p.full {
		sendArgs = []string{"send", "--snapshots", p.snapshots(), "--parent", "none", p.source()}
	}
	var sendText, ingestText bytes.Buffer
	send := exec.Command(p.tool(names.GBSnap), sendArgs...)
	send.Stdout, send.Stderr, send.SysProcAttr = w, &sendText, childAttributes()
	ingest := exec.Command(p.tool(names.GBVecsync), "ingest", "--index", p.index(), "--cursor", p.cursor(), "--exit-code")
	ingest.Stdin, ingest.Stderr, ingest.SysProcAttr = r, &ingestText, childAttributes()
	if err := send.Start(); err != nil {
		return err
	}
	if err := ingest.Start(); err != nil {
		w.Close()
		return errors.Join(err, send.Wait())
	}
	r.Close()
	w.Close()
	sendErr, ingestErr := send.Wait(), ingest.Wait()
	sendCode, ingestCode := send.ProcessState.ExitCode(), ingest.ProcessState.ExitCode()
	switch {
	case sendCode == cli.ExitLostParent || ingestCode == cli.ExitLostParent:
		p.full = true
		return nil
	case sendCode == 0 && (ingestCode == 0 || ingestCode == cli.ExitNothing):
		p.full = false
		p.shipped = time.Now()
		return nil
	case ingestCode == cli.ExitUsage && !p.rebuilt:
		// Another version of gb-vecsync has made the index.
		p.rebuilt, p.full = true, true
		fmt.Fprintf(os.Stderr, "\nrun: %s\nrun: making the index anew from the log\n", strings.TrimSpace(ingestText.String()))
		_, err := p.output(names.GBVecsync, "rebuild", "--log", p.log(), "--index", p.index(), "--cursor", p.cursor(), "--socket", "")
		return err
	case ingestCode == cli.ExitTryAgain || sendCode == cli.ExitTryAgain:
		return nil
	}
	return fmt.Errorf("gb-snap send: %v: %s; gb-vecsync ingest: %v: %s", sendErr, strings.TrimSpace(sendText.String()), ingestErr, strings.TrimSpace(ingestText.String()))
}

// loop ships once a second and shows the state until ctx ends or limit is over.
func (p *pipeline) loop(ctx context.Context, limit time.Duration) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var end <-chan time.Time
	if limit > 0 {
		end = time.After(limit)
	}
	terminal := cli.IsTerminal(os.Stdout)
	if terminal {
		defer fmt.Println()
	}
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return nil
		case <-end:
			return nil
		case err := <-p.serve.done:
			p.serve.done <- err
			return p.died(p.serve, err)
		case err := <-p.take.done:
			p.take.done <- err
			return p.died(p.take, err)
		case <-tick.C:
		}
		if err := p.ship(); err != nil {
			p.failures++
			if p.failures >= 5 {
				return err
			}
		} else {
			p.failures = 0
		}
		if terminal {
			fmt.Printf("\r%s\x1b[K", p.status())
		} else if n%5 == 0 {
			fmt.Println(p.status())
		}
	}
}

// finish stops the recorders and brings what they recorded into the index.
func (p *pipeline) finish() error {
	var errs []error
	for _, r := range append(p.lookers, p.recorders...) {
		errs = append(errs, r.stop())
	}
	p.lookers = nil
	p.recorders = nil
	errs = append(errs, p.take.stop(), p.serve.stop())
	p.take, p.serve = nil, nil
	if _, err := p.output(names.GBSnap, "take", "--snapshots", p.snapshots(), "--run", p.run, p.source()); err != nil {
		errs = append(errs, err)
	}
	err := p.ship()
	if err == nil && p.full {
		err = p.ship()
	}
	return errors.Join(append(errs, err)...)
}

// stop ends what still runs.
func (p *pipeline) stop() error {
	var errs []error
	for _, c := range append(append(p.lookers, p.recorders...), p.take, p.serve) {
		if c != nil {
			errs = append(errs, c.stop())
		}
	}
	return errors.Join(append(errs, os.RemoveAll(p.run))...)
}

// stop asks a child to end and waits; one that does not is killed.
func (c *child) stop() error {
	select {
	case <-c.done:
		return nil // it ended before, which loop has said
	default:
	}
	c.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-c.done:
		if err != nil && !strings.Contains(err.Error(), "signal: terminated") {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		return nil
	case <-time.After(20 * time.Second):
		c.cmd.Process.Kill()
		return fmt.Errorf("%s did not end and was killed", c.name)
	}
}

// ask prints the answer to one question.
func (p *pipeline) ask(w io.Writer, question string) error {
	out, err := p.output(names.GBVecsync, "search", "--index", p.index(), "-n", "5", question)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "\n$ gb-vecsync search %q\n%s", question, out)
	return err
}
