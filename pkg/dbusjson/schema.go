package dbusjson

import "fmt"

// A Schema is a JSON Schema (draft 2020-12) as encoding/json marshals it, with
// its keys in alphabetical order.
type Schema map[string]any

const draft = "https://json-schema.org/draft/2020-12/schema"

// SchemaOf returns a schema of the JSON that Unmarshal reads as a value of t.
func SchemaOf(t *Type) Schema {
	whole := func(low, high any) Schema { return Schema{"type": "integer", "minimum": low, "maximum": high} }
	switch t.Code {
	case 'y':
		return whole(0, 255)
	case 'n':
		return whole(-32768, 32767)
	case 'q':
		return whole(0, 65535)
	case 'i':
		return whole(-2147483648, 2147483647)
	case 'u':
		return whole(0, uint32(4294967295))
	case 'x':
		return Schema{"description": "64 bits with a sign, as a decimal string", "type": listOf("string", "integer"), "pattern": "^-?[0-9]{1,19}$"}
	case 't':
		return Schema{"description": "64 bits without a sign, as a decimal string", "type": listOf("string", "integer"), "pattern": "^[0-9]{1,20}$", "minimum": 0}
	case 'b':
		return Schema{"type": "boolean"}
	case 'd':
		return Schema{"type": listOf("number", "string"), "pattern": "^(-?Infinity|NaN(:[0-9a-fA-F]{16})?)$"}
	case 's':
		return Schema{"type": "string"}
	case 'o':
		return Schema{"description": "D-Bus object path", "type": "string", "pattern": "^/([A-Za-z0-9_]+(/[A-Za-z0-9_]+)*)?$"}
	case 'g':
		return Schema{"description": "D-Bus signature", "type": "string", "maxLength": MaxSignature, "pattern": "^[ybnqiuxtdsoghva(){}]*$"}
	case 'h':
		return Schema{"description": "a file descriptor, which can't be given as JSON", "not": Schema{}}
	case 'v':
		return Schema{
			"description": "a value with its D-Bus type; a string or boolean may stand for itself",
			"type":        listOf("object", "string", "boolean"), "required": listOf("t", "v"), "additionalProperties": false,
			"properties": Schema{"t": Schema{"type": "string", "minLength": 1, "maxLength": MaxSignature}, "v": Schema{}},
		}
	case '(':
		fields := make([]any, len(t.Elem))
		for i, e := range t.Elem {
			fields[i] = SchemaOf(e)
		}
		return tuple(fields)
	}
	if t.IsBytes() {
		return Schema{
			"type": listOf("object", "array"), "required": listOf("b64"), "additionalProperties": false,
			"properties": Schema{"b64": Schema{"type": "string", "contentEncoding": "base64"}},
			"items":      SchemaOf(simple['y']),
		}
	}
	if t.IsDict() {
		key, value := t.Elem[0].Elem[0], t.Elem[0].Elem[1]
		pairs := tuple([]any{SchemaOf(key), SchemaOf(value)})
		if key.Code != 's' && key.Code != 'o' && key.Code != 'g' {
			return Schema{"type": "array", "items": pairs}
		}
		return Schema{"type": listOf("object", "array"), "propertyNames": SchemaOf(key), "additionalProperties": SchemaOf(value), "items": pairs}
	}
	return Schema{"type": "array", "items": SchemaOf(t.Elem[0])}
}

// listOf returns its arguments as a list, for schemas.
func listOf[T any](list ...T) []any {
	out := make([]any, len(list))
	for i, v := range list {
		out[i] = v
	}
	return out
}

func tuple(fields []any) Schema {
	s := Schema{"type": "array", "items": false, "minItems": len(fields), "maxItems": len(fields)}
	if len(fields) > 0 {
		s["prefixItems"] = fields
	}
	return s
}

// ArgsSchema returns a schema of the array that UnmarshalArgs reads for args.
// Names and documentation of the arguments become titles and descriptions.
func ArgsSchema(title, doc string, args []Arg) (Schema, error) {
	fields := make([]any, len(args))
	for i, a := range args {
		t, err := ParseType(a.Type)
		if err != nil {
			return nil, fmt.Errorf("%s: argument %d: %w", title, i, err)
		}
		f := SchemaOf(t)
		if a.Name != "" {
			f["title"] = a.Name
		}
		if a.Doc != "" {
			f["description"] = a.Doc
		}
		fields[i] = f
	}
	s := tuple(fields)
	s["$schema"], s["title"] = draft, title
	if doc != "" {
		s["description"] = doc
	}
	return s, nil
}
