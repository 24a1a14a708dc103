package ovs

import (
	"encoding/json"
	"reflect"
	"strconv"
	"strings"
)

// SchemaID names the JSON Schema of a desired state.
const SchemaID = "https://github.com/ghostbridge/ghostbridge/ovs.schema.json"

// Schema returns the JSON Schema (draft 2020-12) of a desired state.
func Schema() []byte {
	s := schemaOf(reflect.TypeFor[Config](), "")
	s["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	s["$id"] = SchemaID
	s["title"] = "GhostBridge: desired state of Open vSwitch"
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		panic(err) // maps and strings
	}
	return append(b, '\n')
}

const (
	ifnamePattern = `^[A-Za-z0-9._@][A-Za-z0-9._@-]{0,14}$`
	macPattern    = `^[0-9a-f][02468ace](:[0-9a-f]{2}){5}$`
)

func schemaOf(t reflect.Type, tag reflect.StructTag) map[string]any {
	switch t.Kind() {
	case reflect.Pointer:
		return schemaOf(t.Elem(), tag)
	case reflect.Struct:
		properties, required := map[string]any{}, []string{}
		for i := range t.NumField() {
			f := t.Field(i)
			p := schemaOf(f.Type, f.Tag)
			p["description"] = f.Tag.Get("doc")
			properties[fieldName(f)] = p
			if f.Tag.Get("required") == "true" {
				required = append(required, fieldName(f))
			}
		}
		s := map[string]any{"type": "object", "properties": properties, "additionalProperties": false}
		if len(required) > 0 {
			s["required"] = required
		}
		return s
	case reflect.Map:
		s := map[string]any{"type": "object", "additionalProperties": schemaOf(t.Elem(), tag)}
		if tag.Get("key") == "ifname" {
			s["propertyNames"] = map[string]any{"pattern": ifnamePattern}
		}
		return s
	case reflect.Slice:
		return map[string]any{"type": "array", "items": schemaOf(t.Elem(), tag)}
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Int:
		s := map[string]any{"type": "integer"}
		for _, bound := range []struct{ tag, key string }{{"min", "minimum"}, {"max", "maximum"}} {
			if n, err := strconv.Atoi(tag.Get(bound.tag)); err == nil {
				s[bound.key] = n
			}
		}
		return s
	}
	s := map[string]any{"type": "string"}
	if enum := tag.Get("enum"); enum != "" {
		s["enum"] = strings.Split(enum, ",")
	}
	switch tag.Get("format") {
	case "ifname":
		s["pattern"] = ifnamePattern
	case "mac":
		s["pattern"] = macPattern
	case "cidr":
		s["pattern"] = `^[0-9a-fA-F.:]+/[0-9]+$`
	}
	return s
}

// SchemaOf returns the JSON Schema of what Decode takes for a type.
func SchemaOf(t reflect.Type) map[string]any { return schemaOf(t, "") }
