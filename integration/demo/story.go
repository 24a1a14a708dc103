//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/ghostbridge/ghostbridge/pkg/vecsync"
)

// A story is told on a host.
type story struct {
	*host
	out    io.Writer
	pause  time.Duration
	colour bool
}

// say is the narration.
func (s *story) say(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if s.colour {
		text = "\x1b[1;36m" + text + "\x1b[0m"
	}
	fmt.Fprintf(s.out, "\n%s\n", text)
	select {
	case <-s.ctx.Done():
	case <-time.After(s.pause):
	}
}

// show runs a command and shows both it and what it printed, standard error too.
func (s *story) show(argv ...string) (string, error) {
	out, err := s.showAny(argv...)
	if err != nil {
		return out, fmt.Errorf("%s: %w", strings.Join(argv, " "), err)
	}
	return out, nil
}

// showAny is show for a command that may fail.
func (s *story) showAny(argv ...string) (string, error) { return s.showAs(0, argv...) }

// showAs is showAny as another user.
func (s *story) showAs(uid uint32, argv ...string) (string, error) {
	prompt := "# "
	if uid != 0 {
		prompt = "nobody$ "
	}
	s.prompt(prompt, quoted(argv))
	cmd := s.command(argv...)
	if uid != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uid, Gid: uid}
	}
	var both bytes.Buffer
	cmd.Stdout, cmd.Stderr = &both, &both
	err := cmd.Run()
	s.print(both.String())
	return both.String(), err
}

// prompt shows what somebody types, or calls.
func (s *story) prompt(who, what string) {
	if s.colour {
		what = "\x1b[1m" + what + "\x1b[0m"
	}
	fmt.Fprintf(s.out, "%s%s\n", who, what)
}

func (s *story) print(text string) {
	for line := range strings.Lines(text) {
		fmt.Fprintf(s.out, "  %s\n", strings.TrimRight(line, "\n"))
	}
}

// quoted is a command as a shell would take it.
func quoted(argv []string) string {
	var words []string
	for _, w := range argv {
		if strings.ContainsAny(w, " \"{}*") {
			w = "'" + w + "'"
		}
		words = append(words, w)
	}
	return strings.Join(words, " ")
}

// ask has the agent call a tool, and shows the call and the parts of the answer
// that keys name.
func (s *story) ask(session *sdk.ClientSession, tool string, args map[string]any, keys ...string) (answer, error) {
	data, err := json.Marshal(args)
	if err != nil {
		return nil, err
	}
	s.prompt("agent> ", tool+" "+string(data))
	a, err := s.call(session, tool, args)
	if err != nil {
		return nil, err
	}
	part, err := a.only(keys...)
	if err != nil {
		whole, _ := json.Marshal(a)
		return a, fmt.Errorf("tool %s: %w: %.2000s", tool, err, whole)
	}
	s.print(part)
	return a, nil
}

// reaches says whether the web server's pings come to the database.
func (s *story) reaches() (bool, error) {
	_, err := s.showAny("ip", "netns", "exec", s.web, "ping", "-c", "1", "-W", "1", "-q", dbIP)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 {
		return false, nil
	}
	return err == nil, err
}

// tag is the VLAN of the database's port, as the switch has it.
func (s *story) tag() (string, error) {
	out, err := s.show("ovs-vsctl", "--db="+s.sw.DB, "get", "port", "vnet-db", "tag")
	return strings.TrimSpace(out), err
}

// tell tells it. A fact that does not hold is an error.
func (s *story) tell() error {
	begin := time.Now()
	for _, chapter := range []func() error{s.theHost, s.theAgent, s.theInvestigation} {
		if err := chapter(); err != nil {
			return err
		}
		if err := s.ctx.Err(); err != nil {
			return err
		}
	}
	s.say("Every fact above was checked as it was shown. %.0f seconds.", time.Since(begin).Seconds())
	return nil
}

// confirmSeconds is how long the agent's change stays without anybody
// confirming it.
const confirmSeconds = 12

func (s *story) theHost() error {
	s.say("A host: Open vSwitch, a web server and a database on the bridge %s. The operator sets it up. (Each command has GB_* variables that lead to this host.)", bridge)
	state := s.dir + "/state.json"
	if err := os.WriteFile(state, []byte(wanted(10)), 0o644); err != nil {
		return err
	}
	if _, err := s.show("opdbus", "apply", state); err != nil {
		return err
	}
	if ok, err := s.reaches(); err != nil || !ok {
		return errors.Join(errors.New("the web server does not reach the database"), err)
	}
	return nil
}

func (s *story) theAgent() error {
	s.say("An AI agent is let in, by MCP. It gets a token; what it may do is the policy's to say: ask, and a person answers.")
	token, err := s.showSecret("opdbus", "token", "add", agent, "--scope", "read,propose,execute", "--expires", "1h")
	if err != nil {
		return err
	}
	if err := os.Chmod(s.dir+"/tokens.json", 0o644); err != nil { // the package has a group for who reads it
		return err
	}
	session, err := s.connect(token)
	if err != nil {
		return err
	}
	defer session.Close()

	s.say("It tries to take back the operator's bridge. No rule allows it to.")
	a, err := s.ask(session, "roll_back", map[string]any{}, "status", "reason")
	if err != nil {
		return err
	}
	if a.text("status") != "denied" {
		return errors.New("the agent was not refused")
	}

	s.say("It proposes a change instead: the database into VLAN 20. A plan changes nothing.")
	var desired map[string]any
	if err := json.Unmarshal([]byte(wanted(20)), &desired); err != nil {
		return err
	}
	plan, err := s.ask(session, "plan_changes", map[string]any{"state": desired}, "plan.hash", "plan.differences", "plan.decision")
	if err != nil {
		return err
	}
	apply := map[string]any{"plan": plan.text("plan", "hash"), "confirm_seconds": confirmSeconds}
	s.say("It asks to apply the plan, and is refused: a person has to say yes first.")
	a, err = s.ask(session, "apply_changes", apply, "status", "reason", "approval.id")
	if err != nil {
		return err
	}
	id := a.text("approval", "id")
	if a.text("status") != "approval_needed" || id == "" {
		return errors.New("the agent did not need an approval")
	}
	if tag, err := s.tag(); err != nil || tag != "10" {
		return fmt.Errorf("the tag is %s before anybody has approved, %w", tag, err)
	}

	s.say("The agent's own user tries to approve it, on the bus. polkit wants a person's password for that.")
	if out, err := s.showAs(mcpUID, "dbus-send", "--bus="+s.address, "--print-reply", "--dest=org.freedesktop.opdbus", "/org/freedesktop/opdbus",
		"org.freedesktop.opdbus.Approvals.Approve", "string:"+id); err == nil || !strings.Contains(out, "polkit wants a person's password") {
		return fmt.Errorf("a user without rights has approved it, or polkit was not asked: %v", err)
	}
	s.say("The operator looks at what waits, and approves exactly this, once.")
	if _, err := s.show("opdbus", "approvals", "list"); err != nil {
		return err
	}
	if _, err := s.show("opdbus", "approvals", "approve", id); err != nil {
		return err
	}

	s.say("Now it may. Nobody confirms the change: then it lasts %d seconds.", confirmSeconds)
	a, err = s.ask(session, "apply_changes", apply, "status", "change.result", "change.confirm_by", "rule")
	if err != nil {
		return err
	}
	if a.text("status") != "done" || a.text("change", "result") != "pending" {
		return errors.New("the change was not made")
	}
	change := a.text("change", "id")
	if tag, err := s.tag(); err != nil || tag != "20" {
		return fmt.Errorf("the tag is %s after the change, %w", tag, err)
	}
	s.say("The database is in a VLAN of its own, and the web server does not reach it. The agent has broken it.")
	if ok, err := s.reaches(); err != nil || ok {
		return errors.Join(errors.New("the web server reaches the database in another VLAN"), err)
	}

	s.say("The time runs out, and the host takes the change back by itself.")
	if err := s.await("the way back", func() bool {
		out, err := s.run("opdbus", "changes")
		return err == nil && strings.Contains(out, "rolled-back")
	}); err != nil {
		return err
	}
	if tag, err := s.tag(); err != nil || tag != "10" {
		return fmt.Errorf("the tag is %s after the way back, %w", tag, err)
	}
	if ok, err := s.reaches(); err != nil || !ok {
		return errors.Join(errors.New("the web server does not reach the database again"), err)
	}
	out, err := s.show("opdbus", "changes")
	if err != nil {
		return err
	}
	if !strings.Contains(out, "rolled-back") || !strings.Contains(out, change) {
		return errors.New("the change is not shown as rolled back")
	}

	s.say("It tries once more. An approval is for one time.")
	a, err = s.ask(session, "apply_changes", map[string]any{"state": desired, "plan": apply["plan"], "confirm_seconds": confirmSeconds}, "status", "approval.id")
	if err != nil {
		return err
	}
	if a.text("status") != "approval_needed" || a.text("approval", "id") == id {
		return errors.New("an approval was used twice")
	}
	return nil
}

// showSecret is show for a command that prints a secret, which is returned and
// not shown.
func (s *story) showSecret(argv ...string) (string, error) {
	s.prompt("# ", quoted(argv))
	out, err := s.run(argv...)
	if err != nil {
		return "", err
	}
	secret := strings.TrimSpace(out)
	s.print(secret[:min(8, len(secret))] + strings.Repeat("*", max(0, len(secret)-8)))
	return secret, nil
}

func (s *story) theInvestigation() error {
	s.say("Later, somebody asks what happened. All of it is in the log; the index gets it from the snapshots of each second.")
	if err := s.ship(); err != nil {
		return err
	}
	question := "who touched the bridge"
	if _, err := s.show("gb-vecsync", "search", "-n", strconv.Itoa(wantedAnswers), question); err != nil {
		return err
	}
	out, err := s.run("gb-vecsync", "search", "-n", strconv.Itoa(wantedAnswers), "--json", question)
	if err != nil {
		return err
	}
	hits, err := parseHits(out)
	if err != nil {
		return err
	}
	for _, f := range facts {
		if !slices.ContainsFunc(hits, f.is) {
			return fmt.Errorf("no answer says that %s", f.what)
		}
	}

	s.say("Is it true? The log verifies, and each of the %d answers has a proof that it is in there.", len(hits))
	key, err := s.run("gb-chain", "key")
	if err != nil {
		return err
	}
	vkey := filepath.Join(s.dir, "log.vkey")
	if err := os.WriteFile(vkey, []byte(key), 0o644); err != nil {
		return err
	}
	if _, err := s.show("gb-chain", "verify", "--vkey", vkey); err != nil {
		return err
	}
	for _, h := range hits {
		if h.Verified.TreeSize <= h.Occurrences[0].Index {
			return fmt.Errorf("the answer with event %d is not verified", h.Occurrences[0].Index)
		}
		if err := s.prove(h, vkey, agentsChange.is(h)); err != nil {
			return err
		}
	}
	return nil
}

// wantedAnswers is how many the operator asks for.
const wantedAnswers = 14

// A hit is an answer of gb-vecsync search --json, as far as the story goes.
type hit struct {
	Type, Actor, Message string
	Occurrences          []struct{ Index int64 }
	Verified             struct {
		TreeSize int64 `json:"tree_size"`
	}
}

func parseHits(out string) (hits []hit, err error) {
	for line := range strings.Lines(out) {
		var h hit
		if err := json.Unmarshal([]byte(line), &h); err != nil || len(h.Occurrences) == 0 {
			return nil, fmt.Errorf("answer %q: %w", line, err)
		}
		hits = append(hits, h)
	}
	return hits, nil
}

// A fact is what the operator is to find.
type fact struct{ what, kind, actor, message string }

func (f fact) is(h hit) bool {
	return h.Type == f.kind && h.Actor == f.actor && strings.Contains(h.Message, f.message)
}

var agentsChange = fact{"the agent changed the bridge", "opdbus.outcome", "mcp:" + agent, "Manager.Apply "}

var facts = []fact{
	{"the agent was refused the way back", "opdbus.refused", "mcp:" + agent, "Manager.Rollback "},
	{"the agent was refused the change", "opdbus.refused", "mcp:" + agent, "Manager.Apply "},
	{"a person approved it", "opdbus.outcome", "uid:0", "Approvals.Approve "},
	agentsChange,
	{"the switch was changed", "ovs.apply.outcome", "uid:0", ""},
	{"the change was rolled back", "opdbus.outcome", "uid:0", "nobody confirmed it in time): done"},
}

// prove has the log prove an answer's event, and checks the proof with the log's
// key alone.
func (s *story) prove(h hit, vkey string, show bool) error {
	index := strconv.FormatInt(h.Occurrences[0].Index, 10)
	proof, err := s.run("gb-chain", "prove", index)
	if err != nil {
		return err
	}
	file := filepath.Join(s.dir, index+".tlog-proof")
	if err := os.WriteFile(file, []byte(proof), 0o644); err != nil {
		return err
	}
	run := s.run
	if show {
		s.prompt("# ", "gb-chain prove "+index+" > "+file)
		run = s.show
	}
	checked, err := run("gb-chain", "check", "--vkey", vkey, file)
	if err != nil {
		return err
	}
	if !strings.Contains(checked, h.Message) {
		return fmt.Errorf("event %s is proved and is not the answer %q", index, h.Message)
	}
	return nil
}

// ship brings what was recorded into the index, from the first snapshot that has
// all of it.
func (s *story) ship() error {
	var last error
	err := s.await("a snapshot with all that was recorded", func() bool {
		if last = s.pipe(); last != nil {
			return false
		}
		data, err := os.ReadFile(s.cursor())
		var cursor vecsync.Cursor
		if last = errors.Join(err, json.Unmarshal(data, &cursor)); last != nil {
			return false
		}
		status, err := s.run("gb-chain", "status", "--json")
		var log struct {
			Size  int64 `json:"size"`
			Newer int64 `json:"newer"` // that are not signed yet
		}
		if last = errors.Join(err, json.Unmarshal([]byte(status), &log)); last != nil {
			return false
		}
		return cursor.TreeSize == log.Size && log.Newer == 0
	})
	s.prompt("# ", "gb-snap send --cursor "+s.cursor()+" "+s.source()+" | gb-vecsync ingest --index "+s.index()+" --cursor "+s.cursor())
	return errors.Join(err, last)
}

// pipe runs gb-snap send | gb-vecsync ingest.
func (s *story) pipe() error {
	send := s.command("gb-snap", "send", "--cursor", s.cursor(), s.source())
	ingest := s.command("gb-vecsync", "ingest", "--index", s.index(), "--cursor", s.cursor())
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	var said, words bytes.Buffer
	send.Stdout, send.Stderr, ingest.Stdin, ingest.Stderr = w, &said, r, &words
	err = errors.Join(send.Start(), ingest.Start())
	r.Close()
	w.Close()
	if err != nil {
		return err
	}
	if err := errors.Join(send.Wait(), ingest.Wait()); err != nil {
		return fmt.Errorf("%w: %s%s", err, said.String(), words.String())
	}
	return nil
}
