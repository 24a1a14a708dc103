package web

import (
	"encoding/json"
	"net/http"
	"slices"

	"github.com/ghostbridge/ghostbridge/pkg/web/access"
)

// answered is what came of an answer to an approval.
type answered struct {
	ID    string `json:"id"`
	State string `json:"state"`
}

// views are all views. openapi.json is made from them.
var views = []view{
	{page: "/{$}", api: "/overview", role: access.Viewer, name: "overview", title: "Overview", do: (*Server).overview,
		doc: "How the host is: a verdict for each part, the success factors, the newest errors and changes.", answer: overview{}},
	{page: "/timeline", api: "/events", role: access.Viewer, name: "timeline", title: "Timeline", do: (*Server).timeline,
		doc: "Events, newest first. A page looks at a bounded number of events; partial says that it stopped.", answer: timelineView{},
		params: slices.Concat(filterParams, []string{"limit", "before", "after"})},
	{api: "/counts", role: access.Viewer, do: (*Server).countsJSON,
		doc: "Events over time, by severity, and how many there are of each source, type, host and actor, whatever is chosen.", answer: countsView{}, params: append(slices.Clone(filterParams), "range")},
	{page: "/events/{index}", api: "/events/{index}", role: access.Viewer, name: "event", title: "Event", do: (*Server).event,
		doc: "One event as it is stored, and those around it.", answer: eventView{}},
	{page: "/search", api: "/search", role: access.Viewer, name: "search", title: "Search", do: (*Server).search,
		doc: "Events that answer a question, best first.", answer: searchView{}, params: []string{"q", "like", "limit", "source", "type", "host", "actor", "severity", "since", "until"}},
	{page: "/approvals", api: "/approvals", role: access.Viewer, name: "approvals", title: "Approvals", do: (*Server).approvals,
		doc: "What waits for a person, and what was answered.", answer: approvalsView{}, params: []string{"state"}},
	{page: "/approvals/{id}", api: "/approvals/{id}", role: access.Viewer, name: "approval", title: "Approval", do: (*Server).approval,
		doc: "One of them.", answer: approvalView{}},
	{method: http.MethodPost, page: "/approvals/{id}/{answer}", api: "/approvals/{id}/{answer}", role: access.Approver, title: "Approvals", do: (*Server).answer,
		doc: "Answers one: approve or deny.", answer: answered{}, params: []string{"assertion"}},
	{method: http.MethodPost, api: "/keys/challenge", role: access.Approver, do: (*Server).challenge,
		doc: "What a security key has to sign.", answer: json.RawMessage(nil), params: []string{"about"}},
	{method: http.MethodPost, page: "/keys", api: "/keys", role: access.Approver, title: "Approvals", do: (*Server).registerKey,
		doc: "Registers a security key of the user who has logged in.", answer: json.RawMessage(nil), params: []string{"key", "assertion"}},
	{page: "/network", api: "/network", role: access.Viewer, name: "network", title: "Network", do: (*Server).network,
		doc: "Bridges, ports, offloads, flows and drift, as gb-ovs-setup status --json.", answer: networkView{}, params: []string{"bridge"}},
	{page: "/snapshots", api: "/snapshots", role: access.Viewer, name: "snapshots", title: "Snapshots", do: (*Server).snapshots,
		doc: "Snapshots, newest first, and how taking them goes.", answer: snapshotsView{}, params: []string{"before"}},
	{page: "/snapshots/diff", api: "/snapshots/diff", role: access.Viewer, name: "diff", title: "Snapshots", do: (*Server).snapshotDiff,
		doc: "Files that differ between two snapshots, in size or time.", answer: snapshotDiff{}, params: []string{"old", "new"}},
	{page: "/dbus", api: "/bus/names", role: access.Viewer, name: "dbus", title: "D-Bus", do: (*Server).busNames,
		doc: "Who is on the bus.", answer: namesView{}, params: []string{"all", "match"}},
	{page: "/dbus/{name}", api: "/bus/names/{name}", role: access.Viewer, name: "object", title: "D-Bus", do: (*Server).object,
		doc: "An object of a service: its interfaces, values of the one that is asked for, and what the policy says of its methods.", answer: objectView{}, params: []string{"path", "interface"}},
	{method: http.MethodPost, page: "/dbus/call", api: "/bus/call", role: access.Viewer, name: "call", title: "D-Bus", do: (*Server).call,
		doc: "Looks what would come of a call, and makes it where step is call.", answer: callView{}, params: []string{"name", "path", "interface", "member", "signature", "args", "step"}},
	{page: "/agents", api: "/agents", role: access.Viewer, name: "agents", title: "Agents", do: (*Server).agents,
		doc: "What AI agents did: clients, tools, refusals, latency.", answer: agentsView{}, params: []string{"before"}},
	{page: "/policy", api: "/policy", role: access.Viewer, name: "policy", title: "Policy", do: (*Server).policy,
		doc: "The rules, and what they say of a call by who asks.", answer: policyView{}, params: []string{"name", "path", "interface", "member", "signature", "args"}},
	{page: "/log", api: "/log", role: access.Viewer, name: "log", title: "Log", do: (*Server).logView,
		doc: "Checkpoints, segments, witnesses, and how far the log is verified.", answer: logView{}, params: []string{"before"}},
	{method: http.MethodPost, page: "/log/verify", api: "/log/verify", role: access.Viewer, title: "Verify the log", do: (*Server).verifyLog,
		doc: "Has the whole log verified; /log tells how far it is.", answer: checkView{}},
}
