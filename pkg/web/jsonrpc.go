package web

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/ghostbridge/ghostbridge/pkg/web/access"
)

// openflowMethods are the methods of /jsonrpc: the twins of the daemon's
// interface Network.OpenFlow, with the names of their parameters.
var openflowMethods = map[string]struct {
	member string
	params []string
	role   access.Role
	text   bool // the answer is JSON in a string
}{
	"openflow.apply_default_rules":     {"ApplyDefaultRules", []string{"bridge"}, access.Operator, false},
	"openflow.apply_all_default_rules": {"ApplyAllDefaultRules", nil, access.Operator, false},
	"openflow.add_flow":                {"AddFlowRule", []string{"bridge", "rule"}, access.Operator, false},
	"openflow.remove_flow":             {"RemoveFlowRule", []string{"bridge", "rule"}, access.Operator, false},
	"openflow.clear_flows":             {"ClearFlows", []string{"bridge"}, access.Operator, false},
	"openflow.dump_flows":              {"DumpFlows", []string{"bridge"}, access.Viewer, false},
	"openflow.list_bridges":            {"ListBridges", nil, access.Viewer, false},
	"openflow.get_bridge_config":       {"GetBridgeConfig", []string{"bridge"}, access.Viewer, true},
}

// Codes of JSON-RPC 2.0, and one of ours for what the daemon refuses.
const (
	rpcParse     = -32700
	rpcInvalid   = -32600
	rpcNoMethod  = -32601
	rpcParams    = -32602
	rpcRefused   = -32000
	rpcNoDaemon  = -32001
	maxRPCBatch  = 100
	maxRPCParam  = 64 << 10
	rpcVersion20 = "2.0"
)

type rpcRequest struct {
	Version string          `json:"jsonrpc"`
	ID      json.RawMessage `json:"id"`
	Method  string          `json:"method"`
	Params  json.RawMessage `json:"params"`
}

type rpcError struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
	Data    any    `json:"data,omitempty"`
}

type rpcAnswer struct {
	Version string          `json:"jsonrpc"`
	ID      json.RawMessage `json:"id"`
	Result  json.RawMessage `json:"result,omitempty"`
	Error   *rpcError       `json:"error,omitempty"`
}

// jsonRPC answers JSON-RPC 2.0, single requests and batches. It is for
// programs: the token is in the header, or the form token is.
func (s *Server) jsonRPC(w http.ResponseWriter, r *http.Request) {
	session := access.Of(r.Context())
	if f := s.allowed(r, access.Viewer); f != nil {
		s.answerFailure(w, r, f)
		return
	}
	if !access.ByHeader(r) && !access.CheckForm(session.Token, r.Header.Get("X-Form-Token")) {
		s.answerFailure(w, r, fail(http.StatusForbidden, "send the token as Authorization: Bearer").hint("gb-web login --token gives one"))
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		s.answerFailure(w, r, fail(http.StatusRequestEntityTooLarge, "%v", err))
		return
	}
	null := json.RawMessage("null")
	bad := func(code int, text string) {
		s.writeJSON(w, r, http.StatusOK, rpcAnswer{rpcVersion20, null, nil, &rpcError{Code: code, Message: text}})
	}
	trimmed := strings.TrimLeft(string(body), " \t\r\n")
	req := &request{r, session, r.Context()}
	if !strings.HasPrefix(trimmed, "[") {
		var q rpcRequest
		if err := json.Unmarshal(body, &q); err != nil {
			if json.Valid(body) {
				bad(rpcInvalid, "not a request")
			} else {
				bad(rpcParse, "no JSON")
			}
			return
		}
		if a := s.rpc(req, &q); a != nil {
			s.writeJSON(w, r, http.StatusOK, a)
		} else {
			s.requests.add(http.StatusNoContent)
			w.WriteHeader(http.StatusNoContent)
		}
		return
	}
	var batch []json.RawMessage
	if err := json.Unmarshal(body, &batch); err != nil {
		bad(rpcParse, "no JSON")
		return
	}
	if len(batch) == 0 || len(batch) > maxRPCBatch {
		bad(rpcInvalid, fmt.Sprintf("a batch of %d requests: want 1 to %d", len(batch), maxRPCBatch))
		return
	}
	var answers []*rpcAnswer
	for _, one := range batch {
		var q rpcRequest
		if json.Unmarshal(one, &q) != nil {
			answers = append(answers, &rpcAnswer{rpcVersion20, null, nil, &rpcError{Code: rpcInvalid, Message: "not a request"}})
			continue
		}
		if a := s.rpc(req, &q); a != nil {
			answers = append(answers, a)
		}
	}
	if answers == nil {
		s.requests.add(http.StatusNoContent)
		w.WriteHeader(http.StatusNoContent)
		return
	}
	s.writeJSON(w, r, http.StatusOK, answers)
}

// rpc answers one request; nil for a notification.
func (s *Server) rpc(r *request, q *rpcRequest) *rpcAnswer {
	a := &rpcAnswer{Version: rpcVersion20, ID: q.ID}
	if a.ID == nil {
		a.ID = json.RawMessage("null")
	}
	switch a.ID[0] {
	case '{', '[', 't', 'f':
		a.ID = json.RawMessage("null")
		a.Error = &rpcError{Code: rpcInvalid, Message: "id: want a string or a number"}
		return a
	}
	result, rerr := s.rpcCall(r, q)
	if q.ID == nil && (rerr == nil || rerr.Code != rpcInvalid) {
		return nil
	}
	a.Result, a.Error = result, rerr
	return a
}

func (s *Server) rpcCall(r *request, q *rpcRequest) (json.RawMessage, *rpcError) {
	if q.Version != rpcVersion20 || q.Method == "" {
		return nil, &rpcError{Code: rpcInvalid, Message: `want "jsonrpc":"2.0" and a method`}
	}
	m, ok := openflowMethods[q.Method]
	if !ok {
		return nil, &rpcError{Code: rpcNoMethod, Message: "no such method"}
	}
	if r.session.Role < m.role {
		return nil, &rpcError{Code: rpcRefused, Message: "this needs the role " + m.role.String()}
	}
	args, err := rpcArgs(q.Params, m.params)
	if err != nil {
		return nil, &rpcError{Code: rpcParams, Message: err.Error()}
	}
	d, err := s.daemon()
	if err != nil {
		return nil, &rpcError{Code: rpcNoDaemon, Message: err.Error()}
	}
	results, err := d.Call(r.ctx, r.session, nil, MethodCall{Path: openflowPath, Interface: "Network.OpenFlow", Member: m.member, Signature: strings.Repeat("s", len(args)), Args: args})
	if err != nil {
		e := &rpcError{Code: rpcRefused, Message: err.Error()}
		var refusal *Refusal
		if errors.As(err, &refusal) {
			e.Data = map[string]string{"name": refusal.Name, "hint": refusal.Advice}
		}
		return nil, e
	}
	if len(results) == 0 {
		return json.RawMessage("null"), nil
	}
	if m.text {
		var text string
		if json.Unmarshal(results[0], &text) == nil && json.Valid([]byte(text)) {
			return json.RawMessage(text), nil
		}
	}
	return results[0], nil
}

// rpcArgs takes parameters by name or by position.
func rpcArgs(raw json.RawMessage, names []string) ([]any, error) {
	args := make([]any, len(names))
	if len(raw) == 0 {
		raw = json.RawMessage("{}")
	}
	var list []json.RawMessage
	var object map[string]json.RawMessage
	switch {
	case json.Unmarshal(raw, &list) == nil && list != nil:
		if len(list) != len(names) {
			return nil, fmt.Errorf("want %d parameters: %s", len(names), strings.Join(names, ", "))
		}
	case json.Unmarshal(raw, &object) == nil && object != nil:
		list = make([]json.RawMessage, len(names))
		for i, n := range names {
			v, ok := object[n]
			if !ok && n == "bridge" {
				v, ok = object["bridge_name"]
			}
			if !ok && n == "rule" {
				v, ok = object["flow_rule"]
			}
			if !ok {
				return nil, fmt.Errorf("parameter %s is missing", n)
			}
			list[i] = v
		}
	default:
		return nil, errors.New("params: want an object or an array")
	}
	for i, v := range list {
		var text string
		if json.Unmarshal(v, &text) != nil || len(text) > maxRPCParam {
			return nil, fmt.Errorf("parameter %s: want a string", names[i])
		}
		args[i] = text
	}
	return args, nil
}
