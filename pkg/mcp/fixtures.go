//go:build conformance

package mcp

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// The conformance suite of the protocol looks at a server through tools,
// resources and prompts of given names (modelcontextprotocol/conformance,
// SDK_INTEGRATION.md). A build with the tag conformance has them beside our
// own, behind the same transport, authentication and middleware.
//
//lint:file-ignore SA1019 the suite wants logging, roots and sampling, which are deprecated.

const (
	pixel   = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==" // a PNG of one pixel
	silence = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAIA+AAACABAAZGF0YQAAAAA="                                     // a WAV without samples

	watchedURI = "test://watched-resource"
)

func init() { fixtures = addFixtures }

func data(s string) []byte {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

func say(format string, args ...any) *mcp.CallToolResult {
	return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: fmt.Sprintf(format, args...)}}}
}

// object is a schema of an object with one property that must be there.
func object(name, kind string) json.RawMessage {
	return json.RawMessage(fmt.Sprintf(`{"type":"object","properties":{%q:{"type":%q}},"required":[%q]}`, name, kind, name))
}

func elicit(message string, schema json.RawMessage) *mcp.ElicitParams {
	return &mcp.ElicitParams{Message: message, RequestedSchema: schema}
}

func sample(question string) *mcp.CreateMessageParams {
	return &mcp.CreateMessageParams{MaxTokens: 50, Messages: []*mcp.SamplingMessage{{Role: "user", Content: &mcp.TextContent{Text: question}}}}
}

// accepted returns what a user has filled in, nil if they have not.
func accepted(r mcp.InputResponseMap, key string) map[string]any {
	if e, ok := r[key].(*mcp.ElicitResult); ok && e != nil && e.Action == "accept" {
		return e.Content
	}
	return nil
}

// sampled returns the text of a client's model.
func sampled(r mcp.InputResponseMap, key string) (string, bool) {
	m, ok := r[key].(*mcp.CreateMessageWithToolsResult)
	if !ok || m == nil {
		return "", false
	}
	for _, c := range m.Content {
		if t, ok := c.(*mcp.TextContent); ok {
			return t.Text, true
		}
	}
	return "", true
}

func need(requests mcp.InputRequestMap, state string) *mcp.CallToolResult {
	return &mcp.CallToolResult{InputRequests: requests, RequestState: state}
}

func addFixtures(s *Server, srv *mcp.Server) {
	tool := func(name string, h func(ctx context.Context, req *mcp.CallToolRequest) (*mcp.CallToolResult, error)) {
		schema := json.RawMessage(`{"type":"object"}`)
		switch name {
		case "test_sampling":
			schema = object("prompt", "string")
		case "test_elicitation":
			schema = object("message", "string")
		case "test_x_mcp_header":
			schema = json.RawMessage(`{"type":"object","properties":{"region":{"type":"string","x-mcp-header":"Region"},"level":{"type":"integer"}}}`)
		case "json_schema_2020_12_tool":
			schema = json.RawMessage(`{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object",
				"$defs":{"address":{"$anchor":"addressDef","type":"object","properties":{"street":{"type":"string"},"city":{"type":"string"}}}},
				"properties":{"name":{"type":"string"},"address":{"$ref":"#/$defs/address"},"contactMethod":{"type":"string","enum":["phone","email"]},"phone":{"type":"string"},"email":{"type":"string"}},
				"allOf":[{"anyOf":[{"required":["phone"]},{"required":["email"]}]}],
				"if":{"properties":{"contactMethod":{"const":"phone"}},"required":["contactMethod"]},"then":{"required":["phone"]},"else":{"required":["email"]},"additionalProperties":false}`)
		}
		srv.AddTool(&mcp.Tool{Name: name, Description: "A fixture of the conformance suite.", InputSchema: schema}, h)
	}
	args := func(req *mcp.CallToolRequest) (m map[string]any) {
		json.Unmarshal(req.Params.Arguments, &m)
		return m
	}
	// state seals what a call goes on with, as calls of our own do.
	state := func(req *mcp.CallToolRequest, value string) string {
		return s.sealer.seal(requestState{Client: s.who(req).Client, Tool: req.Params.Name, Approval: value})
	}
	open := func(req *mcp.CallToolRequest) (string, error) {
		st, err := s.sealer.open(req.Params.RequestState, s.who(req).Client, req.Params.Name, "")
		if err != nil {
			return "", &jsonrpc.Error{Code: jsonrpc.CodeInvalidParams, Message: err.Error()}
		}
		return st.Approval, nil
	}

	tool("test_simple_text", func(context.Context, *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		return say("This is a simple text response for testing."), nil
	})
	resource := &mcp.EmbeddedResource{Resource: &mcp.ResourceContents{URI: "test://embedded-resource", MIMEType: "text/plain", Text: "an embedded resource"}}
	image := &mcp.ImageContent{Data: data(pixel), MIMEType: "image/png"}
	tool("test_image_content", func(context.Context, *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		return &mcp.CallToolResult{Content: []mcp.Content{image}}, nil
	})
	tool("test_audio_content", func(context.Context, *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		return &mcp.CallToolResult{Content: []mcp.Content{&mcp.AudioContent{Data: data(silence), MIMEType: "audio/wav"}}}, nil
	})
	tool("test_embedded_resource", func(context.Context, *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		return &mcp.CallToolResult{Content: []mcp.Content{resource}}, nil
	})
	tool("test_multiple_content_types", func(context.Context, *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: "several"}, image, resource}}, nil
	})
	tool("test_error_handling", func(context.Context, *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		r := &mcp.CallToolResult{}
		r.SetError(errors.New("this tool always fails"))
		return r, nil
	})
	tool("test_tool_with_logging", func(ctx context.Context, req *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		for _, line := range []string{"started", "under way", "done"} {
			req.Session.Log(ctx, &mcp.LoggingMessageParams{Level: "info", Data: line})
			time.Sleep(50 * time.Millisecond)
		}
		return say("logged"), nil
	})
	tool("test_logging_tool", func(ctx context.Context, req *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		req.Session.Log(ctx, &mcp.LoggingMessageParams{Level: "info", Data: "a line"})
		return say("logged, if the client wants it"), nil
	})
	tool("test_tool_with_progress", func(ctx context.Context, req *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		token := req.Params.GetProgressToken()
		for _, p := range []float64{0, 50, 100} {
			req.Session.NotifyProgress(ctx, &mcp.ProgressNotificationParams{ProgressToken: token, Progress: p, Total: 100})
			time.Sleep(50 * time.Millisecond)
		}
		return say("%v", token), nil
	})
	tool("test_sampling", func(ctx context.Context, req *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		r, err := req.Session.CreateMessage(ctx, sample(fmt.Sprint(args(req)["prompt"])))
		if err != nil {
			return nil, err
		}
		text, _ := r.Content.(*mcp.TextContent)
		if text == nil {
			text = &mcp.TextContent{}
		}
		return say("LLM response: %s", text.Text), nil
	})
	asked := func(message func(*mcp.CallToolRequest) string, schema string) func(context.Context, *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		return func(ctx context.Context, req *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
			r, err := req.Session.Elicit(ctx, elicit(message(req), json.RawMessage(schema)))
			if err != nil {
				return nil, err
			}
			return say("action=%s, content=%v", r.Action, r.Content), nil
		}
	}
	fixed := func(text string) func(*mcp.CallToolRequest) string {
		return func(*mcp.CallToolRequest) string { return text }
	}
	tool("test_elicitation", asked(func(req *mcp.CallToolRequest) string { return fmt.Sprint(args(req)["message"]) }, string(object("username", "string"))))
	tool("test_elicitation_sep1034_defaults", asked(fixed("defaults"), `{"type":"object","properties":{"name":{"type":"string","default":"John Doe"},"age":{"type":"integer","default":30},
		"score":{"type":"number","default":95.5},"status":{"type":"string","enum":["active","inactive","pending"],"default":"active"},"verified":{"type":"boolean","default":true}}}`))
	tool("test_elicitation_sep1330_enums", asked(fixed("choices"), `{"type":"object","properties":{"untitledSingle":{"type":"string","enum":["option1","option2","option3"]},
		"titledSingle":{"type":"string","oneOf":[{"const":"value1","title":"First Option"},{"const":"value2","title":"Second Option"},{"const":"value3","title":"Third Option"}]},
		"legacyEnum":{"type":"string","enum":["opt1","opt2","opt3"],"enumNames":["Option One","Option Two","Option Three"]},
		"untitledMulti":{"type":"array","minItems":1,"maxItems":3,"items":{"type":"string","enum":["option1","option2","option3"]}},
		"titledMulti":{"type":"array","minItems":1,"maxItems":3,"items":{"anyOf":[{"const":"value1","title":"First Choice"},{"const":"value2","title":"Second Choice"},{"const":"value3","title":"Third Choice"}]}}}}`))
	tool("test_reconnection", func(ctx context.Context, req *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		if req.Extra != nil && req.Extra.CloseSSEStream != nil {
			req.Extra.CloseSSEStream(mcp.CloseSSEStreamArgs{RetryAfter: 10 * time.Millisecond})
		}
		time.Sleep(100 * time.Millisecond)
		return say("the client is back"), nil
	})
	tool("json_schema_2020_12_tool", func(_ context.Context, req *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		return say("%s", req.Params.Arguments), nil
	})
	tool("test_x_mcp_header", func(_ context.Context, req *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		return say("region=%v", args(req)["region"]), nil
	})
	tool("test_missing_capability", func(_ context.Context, req *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		if c := req.ClientCapabilities(); c != nil && c.Sampling != nil {
			return say("the client can sample"), nil
		}
		missing, err := json.Marshal(mcp.MissingRequiredClientCapabilityData{RequiredCapabilities: &mcp.ClientCapabilities{Sampling: &mcp.SamplingCapabilities{}}})
		if err != nil {
			return nil, err
		}
		return nil, &jsonrpc.Error{Code: mcp.CodeMissingRequiredClientCapabilities, Message: "the client can't sample", Data: missing}
	})
	tool("test_streaming_elicitation", func(context.Context, *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		return say("no request on the stream"), nil
	})
	tool("test_trigger_tool_change", func(context.Context, *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		srv.AddTool(&mcp.Tool{Name: "test_transient", Description: "Comes and goes.", InputSchema: json.RawMessage(`{"type":"object"}`)}, func(context.Context, *mcp.CallToolRequest) (*mcp.CallToolResult, error) { return say(""), nil })
		return say("the list of tools has changed"), nil
	})
	tool("test_trigger_prompt_change", func(context.Context, *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		srv.AddPrompt(&mcp.Prompt{Name: "test_transient", Description: "Comes and goes."}, func(context.Context, *mcp.GetPromptRequest) (*mcp.GetPromptResult, error) {
			return &mcp.GetPromptResult{Messages: []*mcp.PromptMessage{}}, nil
		})
		return say("the list of prompts has changed"), nil
	})

	// Multi round-trip requests.
	name := object("name", "string")
	tool("test_input_required_result_elicitation", func(_ context.Context, req *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		if n, _ := accepted(req.Params.InputResponses, "user_name")["name"].(string); n != "" {
			return say("Hello, %s!", n), nil
		}
		return need(mcp.InputRequestMap{"user_name": elicit("What is your name?", name)}, ""), nil
	})
	tool("test_input_required_result_sampling", func(_ context.Context, req *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		if text, ok := sampled(req.Params.InputResponses, "capital_question"); ok {
			return say("%s", text), nil
		}
		return need(mcp.InputRequestMap{"capital_question": sample("What is the capital of France?")}, ""), nil
	})
	tool("test_input_required_result_list_roots", func(_ context.Context, req *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		if r, ok := req.Params.InputResponses["client_roots"].(*mcp.ListRootsResult); ok && r != nil {
			return say("%d roots", len(r.Roots)), nil
		}
		return need(mcp.InputRequestMap{"client_roots": &mcp.ListRootsParams{}}, ""), nil
	})
	confirm := func(_ context.Context, req *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		if req.Params.RequestState != "" {
			if _, err := open(req); err != nil {
				return nil, err
			}
			if accepted(req.Params.InputResponses, "confirm") != nil {
				return say("state-ok: the state is good, and confirmed"), nil
			}
		}
		return need(mcp.InputRequestMap{"confirm": elicit("Please confirm", object("ok", "boolean"))}, state(req, "")), nil
	}
	tool("test_input_required_result_request_state", confirm)
	tool("test_input_required_result_tampered_state", confirm)
	tool("test_input_required_result_multiple_inputs", func(_ context.Context, req *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		r := req.Params.InputResponses
		n, _ := accepted(r, "user_name")["name"].(string)
		greeting, greeted := sampled(r, "greeting")
		if roots, ok := r["client_roots"].(*mcp.ListRootsResult); ok && roots != nil && n != "" && greeted {
			return say("%s %s, %d roots", greeting, n, len(roots.Roots)), nil
		}
		return need(mcp.InputRequestMap{"user_name": elicit("What is your name?", name), "greeting": sample("Generate a greeting"), "client_roots": &mcp.ListRootsParams{}}, state(req, "")), nil
	})
	tool("test_input_required_result_multi_round", func(_ context.Context, req *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		round := ""
		if req.Params.RequestState != "" {
			var err error
			if round, err = open(req); err != nil {
				return nil, err
			}
		}
		switch n, _ := accepted(req.Params.InputResponses, "step1")["name"].(string); {
		case round == "":
			return need(mcp.InputRequestMap{"step1": elicit("Step 1: your name?", name)}, state(req, "1")), nil
		case round == "1":
			return need(mcp.InputRequestMap{"step2": elicit("Step 2: your favourite colour?", object("color", "string"))}, state(req, "2 "+n)), nil
		}
		return say("%s likes %v", strings.TrimPrefix(round, "2 "), accepted(req.Params.InputResponses, "step2")["color"]), nil
	})
	tool("test_input_required_result_capabilities", func(_ context.Context, req *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		if len(req.Params.InputResponses) > 0 {
			return say("answered"), nil
		}
		requests := mcp.InputRequestMap{}
		if c := req.ClientCapabilities(); c != nil {
			if c.Elicitation != nil {
				requests["user_name"] = elicit("What is your name?", name)
			}
			if c.Sampling != nil {
				requests["greeting"] = sample("Generate a short greeting")
			}
			if c.RootsV2 != nil {
				requests["client_roots"] = &mcp.ListRootsParams{}
			}
		}
		if len(requests) == 0 {
			return say("the client can't be asked anything"), nil
		}
		return need(requests, ""), nil
	})

	// Resources.
	read := func(c mcp.ResourceContents) mcp.ResourceHandler {
		return func(_ context.Context, req *mcp.ReadResourceRequest) (*mcp.ReadResourceResult, error) {
			c := c
			c.URI = req.Params.URI
			if strings.HasPrefix(c.URI, "test://template/") {
				id := strings.TrimSuffix(strings.TrimPrefix(c.URI, "test://template/"), "/data")
				c.Text = fmt.Sprintf(`{"id":%q,"templateTest":true,"data":%q}`, id, "Data for ID: "+id)
			}
			return &mcp.ReadResourceResult{Contents: []*mcp.ResourceContents{&c}}, nil
		}
	}
	srv.AddResource(&mcp.Resource{URI: "test://static-text", Name: "static-text", MIMEType: "text/plain"}, read(mcp.ResourceContents{MIMEType: "text/plain", Text: "This is the content of the static text resource."}))
	srv.AddResource(&mcp.Resource{URI: "test://static-binary", Name: "static-binary", MIMEType: "image/png"}, read(mcp.ResourceContents{MIMEType: "image/png", Blob: data(pixel)}))
	srv.AddResource(&mcp.Resource{URI: watchedURI, Name: "watched-resource", MIMEType: "text/plain"}, read(mcp.ResourceContents{MIMEType: "text/plain", Text: "watched"}))
	srv.AddResourceTemplate(&mcp.ResourceTemplate{URITemplate: "test://template/{id}/data", Name: "template", MIMEType: "application/json"}, read(mcp.ResourceContents{MIMEType: "application/json"}))
	go func() {
		for range time.Tick(3 * time.Second) {
			srv.ResourceUpdated(context.Background(), &mcp.ResourceUpdatedNotificationParams{URI: watchedURI})
		}
	}()

	// Prompts.
	prompt := func(p *mcp.Prompt, messages func(map[string]string) []mcp.Content) {
		p.Description = "A fixture of the conformance suite."
		srv.AddPrompt(p, func(_ context.Context, req *mcp.GetPromptRequest) (*mcp.GetPromptResult, error) {
			res := &mcp.GetPromptResult{Description: "a fixture"}
			for _, c := range messages(req.Params.Arguments) {
				res.Messages = append(res.Messages, &mcp.PromptMessage{Role: "user", Content: c})
			}
			return res, nil
		})
	}
	prompt(&mcp.Prompt{Name: "test_simple_prompt"}, func(map[string]string) []mcp.Content {
		return []mcp.Content{&mcp.TextContent{Text: "This is a simple prompt for testing."}}
	})
	prompt(&mcp.Prompt{Name: "test_prompt_with_arguments", Arguments: []*mcp.PromptArgument{{Name: "arg1", Required: true}, {Name: "arg2", Required: true}}}, func(a map[string]string) []mcp.Content {
		return []mcp.Content{&mcp.TextContent{Text: fmt.Sprintf("Prompt with arguments: arg1='%s', arg2='%s'", a["arg1"], a["arg2"])}}
	})
	prompt(&mcp.Prompt{Name: "test_prompt_with_embedded_resource", Arguments: []*mcp.PromptArgument{{Name: "resourceUri", Required: true}}}, func(a map[string]string) []mcp.Content {
		return []mcp.Content{&mcp.EmbeddedResource{Resource: &mcp.ResourceContents{URI: a["resourceUri"], MIMEType: "text/plain", Text: "embedded"}}, &mcp.TextContent{Text: "Look at the resource above."}}
	})
	prompt(&mcp.Prompt{Name: "test_prompt_with_image"}, func(map[string]string) []mcp.Content {
		return []mcp.Content{image, &mcp.TextContent{Text: "Look at the image above."}}
	})
	srv.AddPrompt(&mcp.Prompt{Name: "test_input_required_result_prompt", Description: "A fixture of the conformance suite."}, func(_ context.Context, req *mcp.GetPromptRequest) (*mcp.GetPromptResult, error) {
		if c := accepted(req.Params.InputResponses, "user_context"); c != nil {
			return &mcp.GetPromptResult{Messages: []*mcp.PromptMessage{{Role: "user", Content: &mcp.TextContent{Text: fmt.Sprintf("Context: %v", c["context"])}}}}, nil
		}
		return &mcp.GetPromptResult{InputRequests: mcp.InputRequestMap{"user_context": elicit("Which context?", object("context", "string"))}}, nil
	})
}
