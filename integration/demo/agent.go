//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"
)

// connect starts the agent's side: a client of the MCP SDK, whose server is a
// program on standard input and output, as agents' configurations have it. Its
// token is the operator's.
func (h *host) connect(token string) (*sdk.ClientSession, error) {
	file := filepath.Join(h.dir, "token")
	if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
		return nil, err
	}
	cmd := h.command("opdbus", "mcp", "--server", "unix:"+filepath.Join(h.dir, "run", "mcp.sock"), "--token-file", file)
	session, err := sdk.NewClient(&sdk.Implementation{Name: "demo-agent", Version: "1"}, nil).Connect(h.ctx, &sdk.CommandTransport{Command: cmd}, nil)
	if err != nil {
		return nil, fmt.Errorf("the agent's session: %w", err)
	}
	return session, nil
}

// An answer is what a tool has answered.
type answer map[string]any

// call calls a tool.
func (s *story) call(session *sdk.ClientSession, tool string, args map[string]any) (answer, error) {
	res, err := session.CallTool(s.ctx, &sdk.CallToolParams{Name: tool, Arguments: args})
	if err != nil {
		return nil, fmt.Errorf("tool %s: %w", tool, err)
	}
	if res.StructuredContent == nil { // it says so in words
		var words []string
		for _, c := range res.Content {
			if t, ok := c.(*sdk.TextContent); ok {
				words = append(words, t.Text)
			}
		}
		return answer{"error": strings.Join(words, "\n")}, nil
	}
	data, err := json.Marshal(res.StructuredContent)
	if err != nil {
		return nil, err
	}
	a := answer{}
	if err := json.Unmarshal(data, &a); err != nil {
		return nil, fmt.Errorf("tool %s answers %s: %w", tool, data, err)
	}
	return a, nil
}

// text is a value in an answer, by the keys that lead to it; "" if it is not
// there.
func (a answer) text(keys ...string) string {
	v := any(map[string]any(a))
	for _, k := range keys {
		m, ok := v.(map[string]any)
		if !ok {
			return ""
		}
		v = m[k]
	}
	s, _ := v.(string)
	return s
}

// only is a part of an answer as JSON: the values of some keys, "a.b" for one
// within another.
func (a answer) only(keys ...string) (string, error) {
	var parts []string
	for _, key := range keys {
		v := any(map[string]any(a))
		for _, k := range strings.Split(key, ".") {
			m, _ := v.(map[string]any)
			if v = m[k]; v == nil {
				return "", errors.New("the answer has no " + key)
			}
		}
		data, err := json.Marshal(v)
		if err != nil {
			return "", err
		}
		parts = append(parts, fmt.Sprintf("%q: %s", key, data))
	}
	return strings.Join(parts, "\n"), nil
}
