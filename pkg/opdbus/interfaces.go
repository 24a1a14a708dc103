package opdbus

import (
	"context"
	"sync"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/bus"
	"github.com/ghostbridge/ghostbridge/pkg/dbusjson"
	"github.com/ghostbridge/ghostbridge/pkg/names"
)

// A kind says what a method of ours does.
type kind int

const (
	reading   kind = iota // anybody may, nothing is recorded
	sensitive             // reads what not everybody may see: uid 0, or polkit
	changing              // goes through the choke point
	proposing             // asks for something that a later change needs; changes nothing
	agents                // speaks for an agent: sees to who calls, and to what, itself
)

// A method of the daemon.
type method struct {
	dbusjson.Method
	kind kind
	do   func(d *Daemon, ctx context.Context, p Principal, in bus.Incoming) ([]any, error)
	// patience is how long it may take; 0 is defaultPatience.
	patience time.Duration

	in  string           // signature of the arguments, set by prepare
	out []*dbusjson.Type // likewise
}

// prepare reads the signatures of all methods, once; each file of the package
// may have added some.
var prepare = sync.OnceFunc(func() {
	for i := range interfaces {
		for k := range interfaces[i].methods {
			m := &interfaces[i].methods[k]
			m.in = m.InSignature()
			var err error
			if m.out, err = dbusjson.ParseSignature(m.OutSignature()); err != nil {
				panic(err)
			}
		}
	}
})

// How long a method may take.
const (
	defaultPatience = 2 * time.Minute
	statePatience   = 30 * time.Minute // an apply waits for what it starts
)

// A property of the daemon; all are read-only.
type property struct {
	dbusjson.Property
	get func(d *Daemon) any
}

// An iface is an interface of the daemon, at one object.
type iface struct {
	path       string
	name       string
	doc        string
	methods    []method
	properties []property
	signals    []dbusjson.Signal
}

func arg(name, sig, doc string) dbusjson.Arg { return dbusjson.Arg{Name: name, Type: sig, Doc: doc} }

func args(list ...dbusjson.Arg) []dbusjson.Arg { return list }

// callArgs describe a call of another service.
func callArgs() []dbusjson.Arg {
	return args(arg("name", "s", "Well-known name of the service."), arg("path", "o", "Object."), arg("interface", "s", ""), arg("member", "s", "Method."),
		arg("signature", "s", "Signature of the arguments."), arg("arguments", "s", "JSON array of them, as opdbus call --args."))
}

// interfaces is all that the daemon offers beside the standard interfaces. A
// test holds that each changing method leaves its two events.
var interfaces = []iface{
	{
		path: names.BusObject, name: names.BusInterface + ".Manager",
		doc: "The desired state of this host, the log of changes, and how this daemon is.",
		methods: []method{
			{Method: dbusjson.Method{Name: "GetStatus", Doc: "How the daemon is: version, healthy, log_size, log_root, policy (revision), rules, spooled, faults; pending (id of the change that is under way or awaits its confirmation), drift (differences from the desired state in force).",
				Out: args(arg("status", "a{sv}", ""))}, kind: reading, do: (*Daemon).getStatus},
			{Method: dbusjson.Method{Name: "Query", Doc: "Events of the log, newest first, each the stored line. Reading needs uid 0 or org.freedesktop.opdbus.read-sensitive.",
				In:  args(arg("filter", "a{sv}", "source, type, actor, subject, host (s or as each), since, until (RFC 3339), limit (u, at most 1000; 100 without it).")),
				Out: args(arg("events", "as", ""), arg("verdict", "s", "JSON: whether the lines are what was signed, tree_size, root."))}, kind: sensitive, do: (*Daemon).query},
			{Method: dbusjson.Method{Name: "Verify", Doc: "Verifies the whole log, as gb-chain verify.", Out: args(arg("ok", "b", ""), arg("report", "s", "JSON, as gb-chain verify --json."))},
				kind: sensitive, do: (*Daemon).verify},
			{Method: dbusjson.Method{Name: "Unresolved", Doc: "Intents of the last seven days that have no outcome: whether they were done is unknown.",
				Out: args(arg("intents", "a(tsss)", "Index in the log, time (RFC 3339), actor, what."))}, kind: sensitive, do: (*Daemon).unresolved},
			{Method: dbusjson.Method{Name: "Plan", Doc: "Compares a desired state with the host and says what Apply would do, in order, and what the policy says of it. Nothing is changed.",
				In: args(arg("state", "s", "JSON: {\"version\":1,\"plugins\":{...}}; state.schema.json has all of it.")),
				Out: args(arg("plan", "s", "JSON: hash (which Apply takes), actions (plugin, object, verb, before, after, do, undo, irreversible), differences (plugin, path, have, want), "+
					"blocked (what can't be done here: reason, nix, hint), warnings, decision and decisions (of the policy), irreversible."))}, kind: sensitive, do: (*Daemon).plan},
			{Method: dbusjson.Method{Name: "Apply", Doc: "Brings the host to a desired state: each action in its order, then it looks again. If something fails, all is taken back, and the error is RolledBack, or RollbackFailed; " +
				"GetChange has the report. The call is answered when all is done. Other errors: PlanChanged, Blocked, Busy, ApprovalNeeded (call again with the same plan once it is approved).",
				In: args(arg("state", "s", "JSON, as Plan takes it; empty for that of a plan which this daemon has made a moment ago."),
					arg("plan", "s", "Hash of the plan that is meant: if it would be another one now, nothing is done. Empty: whatever it is."),
					arg("options", "a{sv}", "confirm_seconds (u): take it back unless Confirm is called within that time. partial (b): do the rest of what is blocked.")),
				Out: args(arg("change", "s", "JSON: id, result (applied, pending, nothing), confirm_by, plan, steps (title, state, error, milliseconds)."))}, kind: changing, do: (*Daemon).apply, patience: statePatience},
			{Method: dbusjson.Method{Name: "Confirm", Doc: "Makes the change that awaits it permanent.",
				In: args(arg("id", "s", "Of the change; empty for the one that awaits it.")), Out: args(arg("change", "s", "JSON, as Apply's."))}, kind: changing, do: (*Daemon).confirm},
			{Method: dbusjson.Method{Name: "Rollback", Doc: "Takes the latest change back, last action first. It is done without the log, too: the events then wait for it.",
				In: args(arg("id", "s", "Of the change; empty for the one that awaits its confirmation, or else the last that was applied.")), Out: args(arg("change", "s", "JSON, as Apply's, with result rolled-back."))},
				kind: changing, do: (*Daemon).rollback, patience: statePatience},
			{Method: dbusjson.Method{Name: "Diff", Doc: "Compares a desired state with the host.",
				In:  args(arg("state", "s", "JSON, as Plan takes it; empty for the one that was applied last.")),
				Out: args(arg("differences", "s", "JSON array of plugin, path, have, want; empty if all is as it should be."))}, kind: sensitive, do: (*Daemon).diff},
			{Method: dbusjson.Method{Name: "State", Doc: "Reads the host's state in the form that a desired state has.",
				In: args(arg("plugins", "as", "Their names; none for all that are available.")), Out: args(arg("state", "s", "JSON object, by plugin."))}, kind: sensitive, do: (*Daemon).readState},
			{Method: dbusjson.Method{Name: "ListPlugins", Doc: "What a desired state may be about.",
				Out: args(arg("plugins", "as", "JSON objects: name, doc, read_only, after, unavailable (why, on this host)."))}, kind: reading, do: (*Daemon).listPlugins},
			{Method: dbusjson.Method{Name: "Changes", Doc: "The changes that are kept, newest first.",
				Out: args(arg("changes", "as", "JSON objects, as Apply's, without plan and document."))}, kind: sensitive, do: (*Daemon).changes},
			{Method: dbusjson.Method{Name: "GetChange", Doc: "One change, with a report for each action.",
				In: args(arg("id", "s", "")), Out: args(arg("change", "s", "JSON, as Apply's."))}, kind: sensitive, do: (*Daemon).getChange},
		},
		properties: []property{
			{dbusjson.Property{Name: "Version", Doc: "Of the daemon.", Type: "s", Access: "read", EmitsChanged: "const"}, func(d *Daemon) any { return d.Version }},
			{dbusjson.Property{Name: "Healthy", Doc: "Whether the policy is valid, the log can be read and its daemon answers.", Type: "b", Access: "read"}, func(d *Daemon) any { return d.look().healthy() }},
			{dbusjson.Property{Name: "LogSize", Doc: "Events that the log's latest checkpoint covers.", Type: "t", Access: "read", EmitsChanged: "false"}, func(d *Daemon) any { return uint64(d.look().size) }},
			{dbusjson.Property{Name: "LogRoot", Doc: "Root of the log's Merkle tree at that size, in base64.", Type: "s", Access: "read", EmitsChanged: "false"}, func(d *Daemon) any { return d.look().root }},
			{dbusjson.Property{Name: "LastApply", Doc: "The latest change of the desired state, one that awaits its confirmation included: id, time (RFC 3339), result, by, plan (hash); empty if there is none.",
				Type: "a{sv}", Access: "read"}, func(d *Daemon) any { return d.lastApply() }},
		},
		signals: []dbusjson.Signal{
			{Name: "EventAppended", Doc: "The log has grown. What the events say is not in the signal: Query has it.", Args: args(arg("first", "t", "Index of the first new event."), arg("last", "t", "Index of the last one."))},
			{Name: "StateChanged", Doc: "An apply, or its way back, has done something to an object.", Args: args(arg("change", "s", "Its id."), arg("plugin", "s", ""), arg("object", "s", ""),
				arg("verb", "s", ""), arg("state", "s", "done, failed, undone, stays or undo-failed."))},
			{Name: "Applied", Doc: "A change is done, and stays unless it is to be confirmed.", Args: args(arg("change", "s", "Its id."), arg("plan", "s", "Hash."),
				arg("confirm_by", "s", "RFC 3339; empty if it need not be confirmed."))},
			{Name: "RolledBack", Doc: "A change was taken back.", Args: args(arg("change", "s", "Its id."), arg("result", "s", "rolled-back, or failed if not all could be taken back."), arg("reason", "s", ""))},
			{Name: "DriftDetected", Doc: "Something is no longer as the desired state that was applied last says.", Args: args(arg("plugin", "s", ""), arg("path", "s", "In the plugin's part."),
				arg("have", "s", "JSON."), arg("want", "s", "JSON."))},
		},
	},
	{
		path: names.BusObject, name: names.BusInterface + ".Bus",
		doc: "Calls of other services on this bus, as the caller: policy, polkit and approvals decide, intent and outcome are recorded.",
		methods: []method{
			{Method: dbusjson.Method{Name: "Call", Doc: "Calls a method of another service. Methods that only read need uid 0 or org.freedesktop.opdbus.read-sensitive, since the service sees this daemon.",
				In: callArgs(), Out: args(arg("signature", "s", "Of the results."), arg("results", "s", "JSON array."))}, kind: changing, do: (*Daemon).call},
		},
	},
	{
		path: names.BusObject, name: names.BusInterface + ".Approvals",
		doc: "What waits for a person. An approval is for one action of one caller, once, and expires.",
		methods: []method{
			{Method: dbusjson.Method{Name: "List", Doc: "All approvals, newest first.", Out: args(arg("approvals", "as", "JSON objects."))}, kind: sensitive, do: (*Daemon).approvalsList},
			{Method: dbusjson.Method{Name: "Get", Doc: "One approval.", In: args(arg("id", "s", "")), Out: args(arg("approval", "s", "JSON object."))}, kind: sensitive, do: (*Daemon).approvalsGet},
			{Method: dbusjson.Method{Name: "Approve", Doc: "Approves one; polkit must know who does (org.freedesktop.opdbus.approve).", In: args(arg("id", "s", "")), Out: args(arg("state", "s", ""))}, kind: changing, do: (*Daemon).approve},
			{Method: dbusjson.Method{Name: "Deny", Doc: "Denies one.", In: args(arg("id", "s", "")), Out: args(arg("state", "s", ""))}, kind: changing, do: (*Daemon).deny},
		},
		signals: []dbusjson.Signal{
			{Name: "Requested", Doc: "Somebody waits for a person.", Args: args(arg("id", "s", ""))},
			{Name: "Answered", Doc: "A person has answered.", Args: args(arg("id", "s", ""), arg("state", "s", "approved or denied"))},
		},
	},
	{
		path: names.BusObject, name: names.BusInterface + ".Policy",
		doc: "What may be done. The policy is a file of root's; it can't be changed here.",
		methods: []method{
			{Method: dbusjson.Method{Name: "Explain", Doc: "Says which rule decides about a call by the caller, and how; nothing is called.",
				In: callArgs(), Out: args(arg("decision", "s", "JSON: effect, read, rule, reason, polkit, policy."))}, kind: reading, do: (*Daemon).explain},
		},
	},
	{
		path: names.BusObject, name: names.BusInterface + ".Search",
		doc: "The log's index.",
		methods: []method{
			{Method: dbusjson.Method{Name: "Search", Doc: "Answers a question in plain words with events, best first.",
				In:  args(arg("question", "s", ""), arg("limit", "u", "At most so many; 0 is 10.")),
				Out: args(arg("hits", "as", "JSON objects, as gb-vecsync search --json."), arg("end", "s", "JSON: up to where the index has verified the log."))}, kind: sensitive, do: (*Daemon).search},
		},
	},
	openflowInterface(),
}
