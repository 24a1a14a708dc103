package opdbus

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/bus"
	"github.com/ghostbridge/ghostbridge/pkg/chain"
	"github.com/ghostbridge/ghostbridge/pkg/dbusjson"
	"github.com/ghostbridge/ghostbridge/pkg/names"
	"github.com/ghostbridge/ghostbridge/pkg/search"
	"github.com/ghostbridge/ghostbridge/pkg/snap"
)

// What else there is to see: single events and their proofs, the journal,
// snapshots, signals, the policy.
func init() {
	filterArg := func(doc string) []dbusjson.Arg { return args(arg("filter", "a{sv}", doc)) }
	add := func(name string, list ...method) {
		for i := range interfaces {
			if interfaces[i].name == names.BusInterface+"."+name {
				interfaces[i].methods = append(interfaces[i].methods, list...)
				return
			}
		}
		panic("no interface " + name)
	}
	add("Manager",
		method{Method: dbusjson.Method{Name: "Event", Doc: "One event of the log, as it is stored, with the proof that it is in the log.", In: args(arg("index", "t", "")),
			Out: args(arg("line", "s", ""), arg("proof", "s", "As gb-chain prove: C2SP tlog-proof."), arg("key", "s", "The log's verifier key, by which the proof is checked."))}, kind: sensitive, do: (*Daemon).event},
	)
	add("Bus",
		method{Method: dbusjson.Method{Name: "Watch", Doc: "Signals of this bus that come within some seconds.",
			In:  args(arg("match", "a{sv}", "sender, path, path_namespace, interface, member, arg0 (s each)."), arg("seconds", "u", "1 to 60."), arg("limit", "u", "Ends after so many, at most 1000.")),
			Out: args(arg("signals", "as", "JSON objects: time, sender, path, interface, member, signature, args."), arg("dropped", "t", "Signals that came too fast."))}, kind: sensitive, do: (*Daemon).watch},
	)
	add("Policy",
		method{Method: dbusjson.Method{Name: "Effective", Doc: "The rules that can match the caller, in their order.", Out: args(arg("policy", "s", "JSON: revision, rules."))}, kind: sensitive, do: (*Daemon).effective},
	)
	add("Search",
		method{Method: dbusjson.Method{Name: "Ask", Doc: "Search with filters.", In: args(arg("request", "s", "JSON: question, limit, since, until, sources, types, hosts, actors, severity, like, around.")),
			Out: args(arg("hits", "as", "JSON objects, as gb-vecsync search --json."), arg("end", "s", "JSON: up to where the index has verified the log."))}, kind: sensitive, do: (*Daemon).searchWith},
	)
	add("Approvals",
		method{Method: dbusjson.Method{Name: "Request", Doc: "Asks for an approval of a call, where the policy says that one is needed, without making it.", In: callArgs(),
			Out: args(arg("approval", "s", "JSON object."))}, kind: proposing, do: (*Daemon).approvalsRequest},
	)
	interfaces = append(interfaces,
		iface{path: names.BusObject, name: names.BusInterface + ".Journal", doc: "The system's journal.",
			methods: []method{{Method: dbusjson.Method{Name: "Read", Doc: "Entries of a unit, newest first.",
				In:  slices.Concat(args(arg("unit", "s", "Like nginx.service.")), filterArg("since, until (RFC 3339), cursor (of the last entry of the page before; s each), priority (u, 0 to 7), limit (u, at most 1000; 100 without it).")),
				Out: args(arg("entries", "as", "JSON objects: time, priority, identifier, pid, message, cursor."))}, kind: sensitive, do: (*Daemon).journal}}},
		iface{path: names.BusObject, name: names.BusInterface + ".Snapshots", doc: "Snapshots of the log.",
			methods: []method{{Method: dbusjson.Method{Name: "List", Doc: "Snapshots, newest first.",
				In:  args(arg("before", "s", "A name: older ones only; \"\" for the newest."), arg("limit", "u", "At most 1000.")),
				Out: args(arg("snapshots", "as", "JSON objects: name, time."), arg("total", "t", ""))}, kind: sensitive, do: (*Daemon).snapshots}}},
	)
}

func (d *Daemon) event(_ context.Context, _ Principal, in bus.Incoming) ([]any, error) {
	i := in.Args.Values[0].(uint64)
	log := os.DirFS(d.LogDir)
	tree, err := chain.OpenTree(log)
	if err != nil {
		return nil, err
	}
	if i >= uint64(tree.Checkpoint.Size) {
		return nil, unknown("InvalidArgs", "event %d: the log's checkpoint covers %d", i, tree.Checkpoint.Size)
	}
	line, err := tree.Line(int64(i))
	if err != nil {
		return nil, err
	}
	proof, err := tree.Prove(int64(i))
	if err != nil {
		return nil, err
	}
	created, err := chain.ReadCreated(log)
	if err != nil {
		return nil, err
	}
	return []any{string(line), string(proof), created.LogKey.String()}, nil
}

func (d *Daemon) searchWith(ctx context.Context, _ Principal, in bus.Incoming) ([]any, error) {
	var r search.Request
	dec := json.NewDecoder(strings.NewReader(in.Args.Values[0].(string)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		return nil, unknown("InvalidArgs", "request: %s", Clean(err.Error()))
	}
	if r.Limit < 0 || r.Limit > maxQuery {
		return nil, unknown("InvalidArgs", "limit %d: want at most %d", r.Limit, maxQuery)
	}
	return d.ask(ctx, r)
}

// Bounds of Watch.
const (
	maxWatch     = 60 // seconds
	maxSignals   = 1000
	maxWatchers  = 32
	maxWatchText = 2 << 20
)

func (d *Daemon) watch(ctx context.Context, _ Principal, in bus.Incoming) ([]any, error) {
	var m bus.Match
	for _, e := range in.Args.Values[0].(dbusjson.Dict) {
		field := map[string]*string{"sender": &m.Sender, "path": &m.Path, "path_namespace": &m.PathNamespace, "interface": &m.Interface, "member": &m.Member, "arg0": &m.Arg0}[e.Key.(string)]
		text, ok := e.Value.(dbusjson.Variant).Value.(string)
		if field == nil || !ok {
			return nil, unknown("InvalidArgs", "match %.50q is not known, or no string", e.Key)
		}
		*field = text
	}
	seconds, limit := in.Args.Values[1].(uint32), int(in.Args.Values[2].(uint32))
	if seconds == 0 || seconds > maxWatch || limit < 0 || limit > maxSignals {
		return nil, unknown("InvalidArgs", "%d seconds, %d signals: want 1 to %d, and at most %d", seconds, limit, maxWatch, maxSignals)
	}
	if limit == 0 {
		limit = maxSignals
	}
	if d.watchers.Add(1) > maxWatchers {
		d.watchers.Add(-1)
		return nil, unknown("LimitsExceeded", "%d watch already", maxWatchers)
	}
	defer d.watchers.Add(-1)
	w, err := bus.NewWatch(ctx, d.Address, limit, m)
	if err != nil {
		return nil, err
	}
	defer w.Close()
	until, cancel := context.WithTimeout(ctx, time.Duration(seconds)*time.Second)
	defer cancel()
	list, size := []any{}, 0
	for len(list) < limit && size < maxWatchText {
		s, err := w.Next(until)
		if err != nil {
			if until.Err() == nil || ctx.Err() != nil {
				return nil, err
			}
			break
		}
		text, err := json.Marshal(map[string]any{"time": s.Time.UTC(), "sender": s.Sender, "path": s.Path, "interface": s.Interface, "member": s.Member,
			"signature": s.Body.Signature(), "args": eventArgs(s.Body)})
		if err != nil {
			return nil, err
		}
		size += len(text)
		list = append(list, string(text))
	}
	return []any{list, w.Dropped()}, nil
}

func (d *Daemon) effective(_ context.Context, p Principal, _ bus.Incoming) ([]any, error) {
	policy := d.Gate.CurrentPolicy()
	rules := []Rule{}
	for i := range policy.Rules {
		if policy.Rules[i].matchesClient(p) {
			rules = append(rules, policy.Rules[i])
		}
	}
	text, err := json.Marshal(map[string]any{"revision": policy.Revision, "per_minute": policy.perMinute(), "rules": rules, "otherwise": "reads are allowed, changes denied"})
	return []any{string(text)}, err
}

// unitName is systemd.unit(5)'s; what journalctl would take for a pattern or an
// option is not in it.
var unitName = regexp.MustCompile(`^[A-Za-z0-9:_.@\\][A-Za-z0-9:_.@\\-]{0,254}$`)

const (
	maxJournal     = 1000
	maxJournalText = 4 << 20
	journalTimeout = 20 * time.Second
)

func (d *Daemon) journal(ctx context.Context, _ Principal, in bus.Incoming) ([]any, error) {
	unit := in.Args.Values[0].(string)
	if !unitName.MatchString(unit) {
		return nil, unknown("InvalidArgs", "%.260q is no unit's name", unit)
	}
	limit, cursor := 100, ""
	argv := []string{"--no-pager", "--quiet", "--output=json", "--reverse", "--unit=" + unit, "--output-fields=MESSAGE,PRIORITY,SYSLOG_IDENTIFIER,_PID"}
	for _, e := range in.Args.Values[1].(dbusjson.Dict) {
		key := e.Key.(string)
		switch v := e.Value.(dbusjson.Variant).Value.(type) {
		case string:
			switch key {
			case "since", "until":
				t, err := time.Parse(time.RFC3339Nano, v)
				if err != nil {
					return nil, unknown("InvalidArgs", "filter %q: want RFC 3339", key)
				}
				argv = append(argv, fmt.Sprintf("--%s=@%d", key, t.Unix()))
			case "cursor":
				if len(v) > 1024 || strings.ContainsFunc(v, func(r rune) bool { return r <= ' ' || r > '~' }) {
					return nil, unknown("InvalidArgs", "filter cursor: no cursor")
				}
				cursor = v
			default:
				return nil, unknown("InvalidArgs", "filter %.50q is not known", key)
			}
		case uint32:
			switch {
			case key == "limit" && v > 0 && v <= maxJournal:
				limit = int(v)
			case key == "priority" && v <= 7:
				argv = append(argv, fmt.Sprintf("--priority=%d", v))
			default:
				return nil, unknown("InvalidArgs", "filter %.50q: %d", key, v)
			}
		default:
			return nil, unknown("InvalidArgs", "filter %.50q is not known", key)
		}
	}
	if cursor != "" {
		// In reverse order --after-cursor goes on with what is older.
		argv = append(argv, "--after-cursor="+cursor)
	}
	argv = append(argv, "--lines="+strconv.Itoa(limit))
	ctx, cancel := context.WithTimeout(ctx, journalTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "journalctl", argv...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var said strings.Builder
	cmd.Stderr = &limited{w: &said, left: 4 << 10}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("journalctl: %w", err)
	}
	list, size, cut := []any{}, 0, false
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		entry, ok := journalEntry(lines.Bytes())
		if !ok {
			continue
		}
		text, err := json.Marshal(entry)
		if err != nil {
			continue
		}
		if size += len(text); size > maxJournalText {
			cut = true
			break
		}
		list = append(list, string(text))
	}
	if cut || lines.Err() != nil {
		cancel()
	}
	if err := cmd.Wait(); err != nil && !cut {
		// It ends with 1 where there is nothing.
		var exit *exec.ExitError
		if ctx.Err() != nil || !errors.As(err, &exit) || exit.ExitCode() != 1 || said.Len() > 0 {
			return nil, fmt.Errorf("journalctl: %w: %s", err, Clean(said.String()))
		}
	}
	return []any{list}, nil
}

type limited struct {
	w    *strings.Builder
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	n := min(len(p), l.left)
	l.w.Write(p[:n])
	l.left -= n
	return len(p), nil
}

// A JournalEntry is what Journal.Read says of one.
type JournalEntry struct {
	Time       time.Time `json:"time"`
	Priority   int       `json:"priority"`
	Identifier string    `json:"identifier,omitempty"`
	PID        int       `json:"pid,omitempty"`
	Message    string    `json:"message"`
	Cursor     string    `json:"cursor"`
}

// journalEntry reads a line of journalctl --output=json (systemd.journal-fields(7)).
// A message that is not UTF-8 comes as an array of bytes.
func journalEntry(line []byte) (e JournalEntry, ok bool) {
	var raw struct {
		Message    json.RawMessage `json:"MESSAGE"`
		Priority   string          `json:"PRIORITY"`
		Identifier string          `json:"SYSLOG_IDENTIFIER"`
		PID        string          `json:"_PID"`
		Cursor     string          `json:"__CURSOR"`
		At         string          `json:"__REALTIME_TIMESTAMP"`
	}
	if json.Unmarshal(line, &raw) != nil {
		return e, false
	}
	micros, err := strconv.ParseInt(raw.At, 10, 64)
	if err != nil {
		return e, false
	}
	var text string
	if json.Unmarshal(raw.Message, &text) != nil {
		var numbers []uint8
		var list []int
		if json.Unmarshal(raw.Message, &list) == nil {
			for _, n := range list {
				numbers = append(numbers, uint8(n))
			}
		}
		text = strings.ToValidUTF8(string(numbers), "\uFFFD")
	}
	e = JournalEntry{Time: time.UnixMicro(micros).UTC(), Priority: 6, Identifier: Clean(raw.Identifier), Message: Redact(stringType, text).(string), Cursor: raw.Cursor}
	if p, err := strconv.Atoi(raw.Priority); err == nil {
		e.Priority = p
	}
	e.PID, _ = strconv.Atoi(raw.PID)
	return e, true
}

func (d *Daemon) snapshots(_ context.Context, _ Principal, in bus.Incoming) ([]any, error) {
	before, limit := in.Args.Values[0].(string), int(in.Args.Values[1].(uint32))
	if limit <= 0 || limit > maxQuery {
		return nil, unknown("InvalidArgs", "limit %d: want 1 to %d", limit, maxQuery)
	}
	dir := d.SnapshotsDir
	if dir == "" {
		dir = names.SnapshotsDir
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	list, total := []any{}, uint64(0)
	for _, e := range slices.Backward(entries) {
		t, ok := snap.ParseName(e.Name())
		if !ok || !e.IsDir() {
			continue
		}
		total++
		if len(list) >= limit || before != "" && e.Name() >= before {
			continue
		}
		text, err := json.Marshal(map[string]any{"name": e.Name(), "time": t})
		if err != nil {
			return nil, err
		}
		list = append(list, string(text))
	}
	return []any{list, total}, nil
}
