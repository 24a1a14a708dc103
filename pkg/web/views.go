package web

import (
	"net/http"

	"github.com/ghostbridge/ghostbridge/pkg/web/access"
)

// views are all views. A test holds openapi.json to them.
var views = []view{
	{page: "/{$}", api: "/overview", role: access.Viewer, name: "overview", title: "Overview", do: (*Server).overview},
	{page: "/timeline", api: "/events", role: access.Viewer, name: "timeline", title: "Timeline", do: (*Server).timeline},
	{api: "/counts", role: access.Viewer, do: (*Server).countsJSON},
	{page: "/events/{index}", api: "/events/{index}", role: access.Viewer, name: "event", title: "Event", do: (*Server).event},
	{page: "/search", api: "/search", role: access.Viewer, name: "search", title: "Search", do: (*Server).search},
	{page: "/approvals", api: "/approvals", role: access.Viewer, name: "approvals", title: "Approvals", do: (*Server).approvals},
	{page: "/approvals/{id}", api: "/approvals/{id}", role: access.Viewer, name: "approval", title: "Approval", do: (*Server).approval},
	{method: http.MethodPost, page: "/approvals/{id}/{answer}", api: "/approvals/{id}/{answer}", role: access.Approver, title: "Approvals", do: (*Server).answer},
	{method: http.MethodPost, api: "/keys/challenge", role: access.Approver, do: (*Server).challenge},
	{method: http.MethodPost, page: "/keys", api: "/keys", role: access.Approver, title: "Approvals", do: (*Server).registerKey},
	{page: "/network", api: "/network", role: access.Viewer, name: "network", title: "Network", do: (*Server).network},
	{page: "/snapshots", api: "/snapshots", role: access.Viewer, name: "snapshots", title: "Snapshots", do: (*Server).snapshots},
	{page: "/snapshots/diff", api: "/snapshots/diff", role: access.Viewer, name: "diff", title: "Snapshots", do: (*Server).snapshotDiff},
	{page: "/dbus", api: "/bus/names", role: access.Viewer, name: "dbus", title: "D-Bus", do: (*Server).busNames},
	{page: "/dbus/{name}", api: "/bus/names/{name}", role: access.Viewer, name: "object", title: "D-Bus", do: (*Server).object},
	{method: http.MethodPost, page: "/dbus/call", api: "/bus/call", role: access.Viewer, name: "call", title: "D-Bus", do: (*Server).call},
	{page: "/agents", api: "/agents", role: access.Viewer, name: "agents", title: "Agents", do: (*Server).agents},
	{page: "/policy", api: "/policy", role: access.Viewer, name: "policy", title: "Policy", do: (*Server).policy},
	{page: "/log", api: "/log", role: access.Viewer, name: "log", title: "Log", do: (*Server).logView},
	{method: http.MethodPost, page: "/log/verify", api: "/log/verify", role: access.Viewer, title: "Verify the log", do: (*Server).verifyLog},
}

func (s *Server) openAPI(w http.ResponseWriter, r *http.Request) {}
