package dbusjson

import (
	"bytes"
	"encoding/xml"
	"strconv"
)

const docType = `<!DOCTYPE node PUBLIC "-//freedesktop//DTD D-BUS Object Introspection 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd">
`

// XML returns the node as introspection data, documentation as GLib's
// annotations. ParseIntrospection reads the same node from it.
func (n *Node) XML() []byte {
	w := &xmlWriter{}
	w.b.WriteString(docType)
	w.open("node")
	for _, i := range n.Interfaces {
		w.open("interface", "name", i.Name)
		w.notes(i.Doc, i.Deprecated)
		for _, m := range i.Methods {
			w.open("method", "name", m.Name)
			w.notes(m.Doc, m.Deprecated)
			w.flag("org.freedesktop.DBus.Method.NoReply", m.NoReply)
			w.flag("org.freedesktop.systemd1.Privileged", m.Privileged)
			w.args(m.In, "in")
			w.args(m.Out, "out")
			w.close("method")
		}
		for _, p := range i.Properties {
			w.open("property", "name", p.Name, "type", p.Type, "access", p.Access)
			w.notes(p.Doc, p.Deprecated)
			if p.EmitsChanged != "" && p.EmitsChanged != "true" {
				w.annotation("org.freedesktop.DBus.Property.EmitsChangedSignal", p.EmitsChanged)
			}
			w.close("property")
		}
		for _, s := range i.Signals {
			w.open("signal", "name", s.Name)
			w.notes(s.Doc, s.Deprecated)
			w.args(s.Args, "")
			w.close("signal")
		}
		w.close("interface")
	}
	for _, c := range n.Children {
		w.open("node", "name", c)
		w.close("node")
	}
	w.close("node")
	return w.b.Bytes()
}

type xmlWriter struct{ b bytes.Buffer }

func (w *xmlWriter) open(name string, attributes ...string) {
	w.b.WriteString("<" + name)
	for i := 0; i < len(attributes); i += 2 {
		w.b.WriteString(" " + attributes[i] + `="`)
		xml.EscapeText(&w.b, []byte(attributes[i+1]))
		w.b.WriteByte('"')
	}
	w.b.WriteString(">\n")
}

func (w *xmlWriter) close(name string) { w.b.WriteString("</" + name + ">\n") }

func (w *xmlWriter) annotation(name, value string) {
	w.open("annotation", "name", name, "value", value)
	w.close("annotation")
}

func (w *xmlWriter) flag(name string, set bool) {
	if set {
		w.annotation(name, strconv.FormatBool(set))
	}
}

func (w *xmlWriter) notes(doc string, deprecated bool) {
	if doc != "" {
		w.annotation("org.gtk.GDBus.DocString", doc)
	}
	w.flag("org.freedesktop.DBus.Deprecated", deprecated)
}

func (w *xmlWriter) args(list []Arg, direction string) {
	for _, a := range list {
		attributes := []string{"type", a.Type}
		if a.Name != "" {
			attributes = append(attributes, "name", a.Name)
		}
		if direction != "" {
			attributes = append(attributes, "direction", direction)
		}
		w.open("arg", attributes...)
		w.notes(a.Doc, false)
		w.close("arg")
	}
}
