package dbusjson

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
)

// A Node is an object as its introspection data describe it (D-Bus
// Specification, "Introspection Data Format").
type Node struct {
	Interfaces []Interface `json:"interfaces"`
	Children   []string    `json:"children"` // names relative to the object
}

// An Interface of a Node.
type Interface struct {
	Name       string     `json:"name"`
	Doc        string     `json:"doc,omitempty"`
	Deprecated bool       `json:"deprecated,omitempty"`
	Methods    []Method   `json:"methods"`
	Signals    []Signal   `json:"signals"`
	Properties []Property `json:"properties"`
}

// A Method of an Interface.
type Method struct {
	Name       string `json:"name"`
	Doc        string `json:"doc,omitempty"`
	In         []Arg  `json:"in"`
	Out        []Arg  `json:"out"`
	Deprecated bool   `json:"deprecated,omitempty"`
	NoReply    bool   `json:"no_reply,omitempty"`
	Privileged bool   `json:"privileged,omitempty"` // org.freedesktop.systemd1.Privileged
}

// A Signal of an Interface.
type Signal struct {
	Name       string `json:"name"`
	Doc        string `json:"doc,omitempty"`
	Args       []Arg  `json:"args"`
	Deprecated bool   `json:"deprecated,omitempty"`
}

// A Property of an Interface.
type Property struct {
	Name       string `json:"name"`
	Doc        string `json:"doc,omitempty"`
	Type       string `json:"type"`
	Access     string `json:"access"` // read, write or readwrite
	Deprecated bool   `json:"deprecated,omitempty"`
	// EmitsChanged is true, false, invalidates or const: what the annotation
	// EmitsChangedSignal says, of the property or else of its interface.
	EmitsChanged string `json:"emits_changed"`
}

// An Arg is an argument.
type Arg struct {
	Name string `json:"name,omitempty"`
	Type string `json:"type"`
	Doc  string `json:"doc,omitempty"`
}

// Signature returns the joined types of args.
func argSignature(args []Arg) string {
	var b strings.Builder
	for _, a := range args {
		b.WriteString(a.Type)
	}
	return b.String()
}

// InSignature returns the signature of the arguments.
func (m *Method) InSignature() string { return argSignature(m.In) }

// OutSignature returns the signature of the results.
func (m *Method) OutSignature() string { return argSignature(m.Out) }

// Signature returns the signature of the arguments.
func (s *Signal) Signature() string { return argSignature(s.Args) }

// Interface returns the interface of that name, nil if there is none.
func (n *Node) Interface(name string) *Interface {
	for i := range n.Interfaces {
		if n.Interfaces[i].Name == name {
			return &n.Interfaces[i]
		}
	}
	return nil
}

// Method returns the method of that name, nil if there is none.
func (i *Interface) Method(name string) *Method {
	for k := range i.Methods {
		if i.Methods[k].Name == name {
			return &i.Methods[k]
		}
	}
	return nil
}

// Property returns the property of that name, nil if there is none.
func (i *Interface) Property(name string) *Property {
	for k := range i.Properties {
		if i.Properties[k].Name == name {
			return &i.Properties[k]
		}
	}
	return nil
}

// Limits of what one object may say of itself.
const (
	maxIntrospection = 16 << 20 // bytes
	maxElements      = 200_000
	maxXMLDepth      = 64
)

// element is any XML element: what is unknown is passed over.
type element struct {
	name     string
	attr     map[string]string
	children []*element
	text     strings.Builder
}

// ParseIntrospection reads what Introspect returns. Elements, attributes and
// annotations that are not known are passed over; members with names or types
// that D-Bus does not allow are an error. Documentation is taken from the
// annotations org.gtk.GDBus.DocString(.Short) and org.freedesktop.DBus.DocString,
// and from elements called docstring (telepathy, libdbus-glib).
func ParseIntrospection(data []byte) (*Node, error) {
	if len(data) > maxIntrospection {
		return nil, fmt.Errorf("introspection: %d bytes, more than %d", len(data), maxIntrospection)
	}
	root, err := parseXML(data)
	if err != nil {
		return nil, fmt.Errorf("introspection: %w", err)
	}
	if root.name != "node" {
		return nil, fmt.Errorf("introspection: the document is a %.40q, want node", root.name)
	}
	n := &Node{Interfaces: []Interface{}, Children: []string{}}
	for _, c := range root.children {
		switch c.name {
		case "node":
			name := c.attr["name"]
			// Some services give absolute paths or a path of several parts.
			if name = strings.Trim(name, "/"); name == "" || !ValidPath("/"+name) {
				continue
			}
			n.Children = append(n.Children, name)
		case "interface":
			i, err := c.iface()
			if err != nil {
				return nil, fmt.Errorf("introspection: interface %.260q: %w", c.attr["name"], err)
			}
			n.Interfaces = append(n.Interfaces, *i)
		}
	}
	return n, nil
}

func parseXML(data []byte) (*element, error) {
	dec := xml.NewDecoder(bytes.NewReader(data))
	dec.Strict = true
	dec.CharsetReader = func(charset string, in io.Reader) (io.Reader, error) {
		if strings.EqualFold(charset, "utf8") { // as Python's dbusmock spells it
			return in, nil
		}
		return nil, fmt.Errorf("charset %q", charset)
	}
	var root *element
	var stack []*element
	count := 0
	for {
		tok, err := dec.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		switch t := tok.(type) {
		case xml.StartElement:
			if count++; count > maxElements || len(stack) >= maxXMLDepth {
				return nil, errors.New("too many elements")
			}
			e := &element{name: t.Name.Local, attr: map[string]string{}}
			for _, a := range t.Attr {
				e.attr[a.Name.Local] = a.Value
			}
			if len(stack) == 0 {
				if root != nil {
					return nil, errors.New("two documents")
				}
				root = e
			} else {
				up := stack[len(stack)-1]
				up.children = append(up.children, e)
			}
			stack = append(stack, e)
		case xml.EndElement:
			stack = stack[:len(stack)-1]
		case xml.CharData:
			if len(stack) > 0 {
				stack[len(stack)-1].text.Write(t)
			}
		}
	}
	if root == nil || len(stack) > 0 {
		return nil, errors.New("no document")
	}
	return root, nil
}

const annotationPrefix = "org.freedesktop.DBus."

func (e *element) annotation(name string) string {
	for _, c := range e.children {
		if c.name == "annotation" && c.attr["name"] == name {
			return c.attr["value"]
		}
	}
	return ""
}

func (e *element) flag(name string) bool { return e.annotation(name) == "true" }

func (e *element) doc() string {
	for _, name := range []string{"org.gtk.GDBus.DocString", "org.gtk.GDBus.DocString.Short", annotationPrefix + "DocString"} {
		if d := e.annotation(name); d != "" {
			return strings.TrimSpace(d)
		}
	}
	for _, c := range e.children {
		if c.name == "docstring" {
			return strings.TrimSpace(c.text.String())
		}
	}
	return ""
}

func (e *element) iface() (*Interface, error) {
	i := &Interface{Name: e.attr["name"], Doc: e.doc(), Deprecated: e.flag(annotationPrefix + "Deprecated"),
		Methods: []Method{}, Signals: []Signal{}, Properties: []Property{}}
	if !ValidInterface(i.Name) {
		return nil, errors.New("not a name of an interface")
	}
	emits := e.annotation(annotationPrefix + "Property.EmitsChangedSignal")
	for _, c := range e.children {
		name := c.attr["name"]
		switch c.name {
		case "method", "signal", "property":
			if !ValidMember(name) {
				return nil, fmt.Errorf("%s %.260q: not a name of a member", c.name, name)
			}
		}
		switch c.name {
		case "method":
			m := Method{Name: name, Doc: c.doc(), In: []Arg{}, Out: []Arg{}, Deprecated: c.flag(annotationPrefix + "Deprecated"),
				NoReply: c.flag(annotationPrefix + "Method.NoReply"), Privileged: c.flag("org.freedesktop.systemd1.Privileged")}
			for _, a := range c.children {
				if a.name != "arg" {
					continue
				}
				arg, err := a.arg()
				if err != nil {
					return nil, fmt.Errorf("method %s: %w", name, err)
				}
				if a.attr["direction"] == "out" {
					m.Out = append(m.Out, arg)
				} else {
					m.In = append(m.In, arg)
				}
			}
			i.Methods = append(i.Methods, m)
		case "signal":
			s := Signal{Name: name, Doc: c.doc(), Args: []Arg{}, Deprecated: c.flag(annotationPrefix + "Deprecated")}
			for _, a := range c.children {
				if a.name != "arg" {
					continue
				}
				arg, err := a.arg()
				if err != nil {
					return nil, fmt.Errorf("signal %s: %w", name, err)
				}
				s.Args = append(s.Args, arg)
			}
			i.Signals = append(i.Signals, s)
		case "property":
			p := Property{Name: name, Doc: c.doc(), Type: c.attr["type"], Access: c.attr["access"], EmitsChanged: "true",
				Deprecated: c.flag(annotationPrefix + "Deprecated")}
			if _, err := ParseType(p.Type); err != nil {
				return nil, fmt.Errorf("property %s: %w", name, err)
			}
			if p.Access != "read" && p.Access != "write" && p.Access != "readwrite" {
				return nil, fmt.Errorf("property %s: access %.40q", name, p.Access)
			}
			own := c.annotation(annotationPrefix + "Property.EmitsChangedSignal")
			for _, v := range []string{emits, own} {
				if v == "true" || v == "false" || v == "invalidates" || v == "const" {
					p.EmitsChanged = v
				}
			}
			i.Properties = append(i.Properties, p)
		}
	}
	return i, nil
}

func (e *element) arg() (Arg, error) {
	a := Arg{Name: e.attr["name"], Type: e.attr["type"], Doc: e.doc()}
	if _, err := ParseType(a.Type); err != nil {
		return a, fmt.Errorf("argument %.260q: %w", a.Name, err)
	}
	return a, nil
}
