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
	{page: "/log", api: "/log", role: access.Viewer, name: "log", title: "Log", do: (*Server).logView},
	{method: http.MethodPost, page: "/log/verify", api: "/log/verify", role: access.Viewer, title: "Verify the log", do: (*Server).verifyLog},
}

func (s *Server) openAPI(w http.ResponseWriter, r *http.Request) {}
