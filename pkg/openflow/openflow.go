// Package openflow puts flows on bridges through digitalocean/go-openvswitch,
// which runs ovs-ofctl(8). Flows are replaced as one OpenFlow 1.4 bundle, so
// that no packet meets a half of them.
//
// Two things go past the library, which parses flows into its own types: flows
// are handed to it as text, since its parser leaves out matches that it does
// not know, so that a flow would match more than it says; and the comparison
// is ovs-ofctl's own (diff-flows), which knows when two texts are one flow.
package openflow

import (
	"bytes"
	"context"
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

	"github.com/digitalocean/go-openvswitch/ovs"
)

// Our flows carry cookies that begin with these 16 bits, and our meter has
// their number.
const (
	CookiePrefix uint64 = 0x6762 << 48
	cookieMask   uint64 = 0xffff << 48
	Meter               = 0x6762
)

// A Flow is one flow, as ovs-ofctl(8) writes them.
type Flow struct {
	Table    int    // 0 to 254
	Priority int    // 0 to 65535; the greatest that matches decides
	Match    string // such as "tcp,tp_dst=22"; empty matches all
	Actions  string
	Cookie   uint64 // with CookiePrefix
}

// String is the flow in the syntax of ovs-ofctl.
func (f Flow) String() string {
	match := ""
	if f.Match != "" {
		match = "," + f.Match
	}
	return fmt.Sprintf("cookie=%#x,table=%d,priority=%d%s,actions=%s", f.Cookie, f.Table, f.Priority, match, f.Actions)
}

// A Switch is a running ovs-vswitchd.
type Switch struct {
	// RunDir is where its sockets are, OVS_RUNDIR; the system's if empty.
	RunDir string
	// Timeout bounds each command.
	Timeout time.Duration
}

// An Error is a command that failed.
type Error struct {
	Bridge, Command string
	Output          string
	Err             error
}

func (e *Error) Error() string {
	if out := strings.TrimSpace(e.Output); out != "" {
		return fmt.Sprintf("%s of bridge %s: %s", e.Command, e.Bridge, strings.Join(strings.Fields(out), " "))
	}
	return fmt.Sprintf("%s of bridge %s: %v", e.Command, e.Bridge, e.Err)
}
func (e *Error) Unwrap() error { return e.Err }

// Hint says what to look at where the switch has no socket for the bridge.
func (e *Error) Hint() string {
	if strings.Contains(e.Output, "is not a bridge or a socket") || strings.Contains(e.Output, "failed to connect to socket") {
		return "is ovs-vswitchd running? systemctl status openvswitch-switch"
	}
	return ""
}

// run runs an argument vector and returns what it printed.
func (s *Switch) run(ctx context.Context, stdin io.Reader, name string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout())
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = stdin
	cmd.WaitDelay = time.Second
	cmd.Env = os.Environ()
	if s.RunDir != "" {
		cmd.Env = append(cmd.Env, "OVS_RUNDIR="+s.RunDir)
	}
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		err = fmt.Errorf("no answer from ovs-vswitchd: %w", context.Cause(ctx))
	}
	return out, err
}

func (s *Switch) timeout() time.Duration {
	if s.Timeout > 0 {
		return s.Timeout
	}
	return 10 * time.Second
}

// client returns the library's client for one call.
func (s *Switch) client(ctx context.Context) *ovs.Client {
	return ovs.New(
		ovs.Exec(func(cmd string, args ...string) ([]byte, error) { return s.run(ctx, nil, cmd, args...) }),
		ovs.Pipe(func(stdin io.Reader, cmd string, args ...string) ([]byte, error) {
			return s.run(ctx, stdin, cmd, args...)
		}),
		ovs.Protocols([]string{ovs.ProtocolOpenFlow14}),
	)
}

// ownFlow is what a switch in standalone mode puts on a bridge that has no
// flows.
const ownFlow = "priority=0 actions=NORMAL"

// part is a part of a flow that the library passes on as it is.
type part string

func (p part) MarshalText() ([]byte, error) { return []byte(p), nil }
func (p part) GoString() string             { return fmt.Sprintf("part(%q)", string(p)) }

// Replace makes flows the bridge's flows that are ours, atomically. Flows with
// cookies of others stay, unless they have match, priority and table of one
// that is added.
func (s *Switch) Replace(ctx context.Context, bridge string, flows []Flow) error {
	err := s.client(ctx).OpenFlow.AddFlowBundle(bridge, func(tx *ovs.FlowTransaction) error {
		tx.Delete(&ovs.MatchFlow{Table: ovs.AnyTable, Cookie: CookiePrefix, CookieMask: cookieMask})
		for _, f := range flows {
			x := &ovs.Flow{Table: f.Table, Priority: f.Priority, Cookie: f.Cookie, Actions: []ovs.Action{part(f.Actions)}}
			if f.Match != "" {
				x.Matches = []ovs.Match{part(f.Match)}
			}
			tx.Add(x)
		}
		return tx.Commit()
	})
	if err != nil {
		return &Error{Bridge: bridge, Command: "replace the flows", Err: err}
	}
	return nil
}

// A SyntaxError is a flow that ovs-ofctl can't read.
type SyntaxError struct {
	Flow   Flow
	Reason string
}

func (e *SyntaxError) Error() string { return fmt.Sprintf("flow %q: %s", e.Flow, e.Reason) }

// Check reads flows as a switch would, without one. An error is a
// *SyntaxError if it is about a flow.
func (s *Switch) Check(ctx context.Context, bridge string, flows []Flow) error {
	if len(flows) == 0 {
		return nil
	}
	out, err := s.run(ctx, text(flows), "ovs-ofctl", "-O", "OpenFlow14", "parse-flows", "/dev/stdin")
	if err != nil {
		return refused(bridge, "read the flows", out, err, flows)
	}
	return nil
}

// text writes flows, a line each.
func text(flows []Flow) io.Reader {
	var b bytes.Buffer
	for _, f := range flows {
		fmt.Fprintln(&b, f)
	}
	return &b
}

// refused makes an error of what ovs-ofctl said about flows that it was given.
func refused(bridge, command string, out []byte, err error, flows []Flow) error {
	if _, after, ok := strings.Cut(string(out), "/dev/stdin:"); ok {
		number, reason, _ := strings.Cut(after, ": ")
		if n, nerr := strconv.Atoi(number); nerr == nil && n > 0 && n <= len(flows) {
			return &SyntaxError{flows[n-1], strings.Join(strings.Fields(reason), " ")}
		}
	}
	return &Error{bridge, command, string(out), err}
}

// maxKept bounds what Keep takes along, in bytes.
const maxKept = 8 << 20

// Keep returns all flows of a bridge, those of others too, in the syntax of
// ovs-ofctl(8), one each, for Restore. Those that end by themselves, after a
// time-out, are left out. It is an error if they are over 8 MiB.
func (s *Switch) Keep(ctx context.Context, bridge string) ([]string, error) {
	out, err := s.run(ctx, nil, "ovs-ofctl", "-O", "OpenFlow14", "dump-flows", "--no-stats", bridge)
	if err == nil && len(out) > maxKept {
		out, err = nil, fmt.Errorf("they are %d MiB, and %d are kept at most", len(out)>>20, maxKept>>20)
	}
	if err != nil {
		return nil, &Error{bridge, "keep the flows", string(out), err}
	}
	var list []string
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSpace(line)
		if strings.Contains(line, "actions=") && !strings.Contains(line, "_timeout=") {
			list = append(list, line)
		}
	}
	return list, nil
}

// Restore brings a bridge back to flows that Keep returned, atomically: flows
// of ours that are not among them go, and those of them that are missing come,
// such as one of another that a flow of ours has replaced. What others have
// added since stays.
func (s *Switch) Restore(ctx context.Context, bridge string, kept []string) error {
	out, err := s.run(ctx, strings.NewReader(strings.Join(kept, "\n")+"\n"), "ovs-ofctl", "-O", "OpenFlow14", "diff-flows", bridge, "/dev/stdin")
	var exit *exec.ExitError
	if err == nil {
		return nil
	}
	if !errors.As(err, &exit) || exit.ExitCode() != 2 { // 2: they differ
		return &Error{bridge, "compare the flows with those kept", string(out), err}
	}
	var changes strings.Builder
	fmt.Fprintf(&changes, "delete cookie=%#x/%#x\n", CookiePrefix, cookieMask)
	for _, flow := range kept {
		if isOurs(flow) {
			fmt.Fprintf(&changes, "add %s\n", flow)
		}
	}
	for line := range strings.Lines(string(out)) {
		if flow, missing := strings.CutPrefix(line, "+"); missing && !isOurs(flow) {
			fmt.Fprintf(&changes, "add %s", flow)
		}
	}
	out, err = s.run(ctx, strings.NewReader(changes.String()), "ovs-ofctl", "-O", "OpenFlow14", "--bundle", "add-flows", bridge, "/dev/stdin")
	if err != nil {
		return &Error{bridge, "restore the flows", string(out), err}
	}
	return nil
}

// A Difference is how a bridge's flows differ from what they should be.
type Difference struct {
	Missing []string // should be there
	Extra   []string // are ours and should not be there
	Foreign []string // are of others
	Meter   bool     // the meter is missing or another
}

// Empty says whether the flows that are ours are as they should be.
func (d *Difference) Empty() bool { return len(d.Missing) == 0 && len(d.Extra) == 0 && !d.Meter }

// Compare compares a bridge's flows with flows, and its meter with rate, in
// frames a second; 0 is none.
func (s *Switch) Compare(ctx context.Context, bridge string, flows []Flow, rate int) (*Difference, error) {
	out, err := s.run(ctx, text(flows), "ovs-ofctl", "-O", "OpenFlow14", "diff-flows", bridge, "/dev/stdin")
	var exit *exec.ExitError
	if err != nil && !(errors.As(err, &exit) && exit.ExitCode() == 2) { // 2: they differ
		return nil, refused(bridge, "compare the flows", out, err, flows)
	}
	d := new(Difference)
	for line := range strings.Lines(string(out)) {
		line = strings.TrimRight(line, "\n")
		if line == "" {
			continue
		}
		sign, text := line[0], line[1:]
		switch {
		case sign == '-' && text == ownFlow:
		case sign == '+':
			d.Missing = append(d.Missing, text)
		case sign == '-' && isOurs(text):
			d.Extra = append(d.Extra, text)
		case sign == '-':
			d.Foreign = append(d.Foreign, text)
		default:
			return nil, &Error{bridge, "compare the flows", string(out), errors.New("unexpected output")}
		}
	}
	if rate > 0 {
		have, err := s.meter(ctx, bridge)
		if err != nil {
			return nil, err
		}
		d.Meter = have != rate
	}
	return d, nil
}

// isOurs looks for our cookie in a line of diff-flows.
func isOurs(flow string) bool {
	for field := range strings.FieldsFuncSeq(flow, func(r rune) bool { return r == ' ' || r == ',' }) {
		if hex, ok := strings.CutPrefix(field, "cookie=0x"); ok {
			cookie, err := strconv.ParseUint(hex, 16, 64)
			return err == nil && cookie&cookieMask == CookiePrefix
		}
	}
	return false
}

// meter returns the rate of our meter, 0 if there is none.
func (s *Switch) meter(ctx context.Context, bridge string) (int, error) {
	out, err := s.run(ctx, nil, "ovs-ofctl", "-O", "OpenFlow14", "dump-meters", bridge)
	if err != nil {
		return 0, &Error{bridge, "read the meters", string(out), err}
	}
	mine := false
	for field := range strings.FieldsSeq(string(out)) {
		if n, ok := strings.CutPrefix(field, "meter="); ok {
			mine = n == strconv.Itoa(Meter)
		}
		if rate, ok := strings.CutPrefix(field, "rate="); ok && mine {
			return strconv.Atoi(rate)
		}
	}
	return 0, nil
}

// SetMeter makes our meter let rate frames a second pass, with bursts of as
// many.
func (s *Switch) SetMeter(ctx context.Context, bridge string, rate int) error {
	spec := fmt.Sprintf("meter=%d,pktps,burst,band=type=drop,rate=%d,burst_size=%d", Meter, rate, rate)
	out, err := s.run(ctx, nil, "ovs-ofctl", "-O", "OpenFlow14", "add-meter", bridge, spec)
	if err != nil && bytes.Contains(out, []byte("METER_EXISTS")) {
		out, err = s.run(ctx, nil, "ovs-ofctl", "-O", "OpenFlow14", "mod-meter", bridge, spec)
	}
	if err != nil {
		return &Error{bridge, "set the meter", string(out), err}
	}
	return nil
}

// Ours returns how many flows of ours a bridge has.
func (s *Switch) Ours(ctx context.Context, bridge string) (int, error) {
	out, err := s.run(ctx, nil, "ovs-ofctl", "-O", "OpenFlow14", "dump-flows", "--no-stats", bridge,
		fmt.Sprintf("cookie=%#x/%#x", CookiePrefix, cookieMask))
	if err != nil {
		return 0, &Error{bridge, "read the flows", string(out), err}
	}
	return bytes.Count(out, []byte("cookie=")), nil
}

// Ping asks ovs-vswitchd whether it is there.
func (s *Switch) Ping(ctx context.Context) error {
	dir := s.RunDir
	if dir == "" {
		dir = "/var/run/openvswitch"
	}
	// A pid file names the control socket; a switch that was started with
	// another --unixctl is asked by its bridges instead.
	if pid, err := os.ReadFile(filepath.Join(dir, "ovs-vswitchd.pid")); err == nil {
		sock := filepath.Join(dir, "ovs-vswitchd."+strings.TrimSpace(string(pid))+".ctl")
		ctx, cancel := context.WithTimeout(ctx, s.timeout())
		defer cancel()
		var d net.Dialer
		c, err := d.DialContext(ctx, "unix", sock)
		if err != nil {
			return fmt.Errorf("ovs-vswitchd does not answer: %w", err)
		}
		return c.Close()
	}
	return nil
}

// Instance returns what changes when ovs-vswitchd starts anew: the identity of
// a bridge's management socket, which each start makes again. It is empty
// while there is none.
func (s *Switch) Instance(bridge string) string {
	dir := s.RunDir
	if dir == "" {
		dir = "/var/run/openvswitch"
	}
	info, err := os.Stat(filepath.Join(dir, bridge+".mgmt"))
	if err != nil {
		return ""
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	return fmt.Sprintf("%d %d %d", st.Ino, st.Ctim.Sec, st.Ctim.Nsec)
}

// Dump returns all flows of a bridge, those of others too, as ovs-ofctl(8)
// prints them, a line each.
func (s *Switch) Dump(ctx context.Context, bridge string) ([]string, error) {
	out, err := s.run(ctx, nil, "ovs-ofctl", "-O", "OpenFlow14", "dump-flows", bridge)
	if err != nil {
		return nil, &Error{bridge, "read the flows", string(out), err}
	}
	list := []string{}
	for line := range strings.Lines(string(out)) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "cookie=") {
			list = append(list, line)
		}
	}
	return list, nil
}
