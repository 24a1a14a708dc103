package opdbus

import (
	"slices"
	"strings"
	"sync"

	"github.com/ghostbridge/ghostbridge/pkg/bus"
	"github.com/ghostbridge/ghostbridge/pkg/dbusjson"
	"github.com/ghostbridge/ghostbridge/pkg/names"
)

// Standard interfaces (D-Bus Specification, "Standard Interfaces"). Peer is
// answered by package bus.
var (
	introspectableInterface = dbusjson.Interface{Name: "org.freedesktop.DBus.Introspectable",
		Methods: []dbusjson.Method{{Name: "Introspect", Out: args(arg("xml_data", "s", ""))}}}
	peerInterface = dbusjson.Interface{Name: "org.freedesktop.DBus.Peer",
		Methods: []dbusjson.Method{{Name: "Ping"}, {Name: "GetMachineId", Out: args(arg("machine_uuid", "s", ""))}}}
	propertiesInterface = dbusjson.Interface{Name: "org.freedesktop.DBus.Properties",
		Methods: []dbusjson.Method{
			{Name: "Get", In: args(arg("interface_name", "s", ""), arg("property_name", "s", "")), Out: args(arg("value", "v", ""))},
			{Name: "GetAll", In: args(arg("interface_name", "s", "")), Out: args(arg("properties", "a{sv}", ""))},
			{Name: "Set", In: args(arg("interface_name", "s", ""), arg("property_name", "s", ""), arg("value", "v", ""))},
		},
		Signals: []dbusjson.Signal{{Name: "PropertiesChanged", Args: args(arg("interface_name", "s", ""), arg("changed_properties", "a{sv}", ""), arg("invalidated_properties", "as", ""))}}}
	objectManagerInterface = dbusjson.Interface{Name: "org.freedesktop.DBus.ObjectManager",
		Methods: []dbusjson.Method{{Name: "GetManagedObjects", Out: args(arg("objects", "a{oa{sa{sv}}}", ""))}},
		Signals: []dbusjson.Signal{
			{Name: "InterfacesAdded", Args: args(arg("object_path", "o", ""), arg("interfaces_and_properties", "a{sa{sv}}", ""))},
			{Name: "InterfacesRemoved", Args: args(arg("object_path", "o", ""), arg("interfaces", "as", ""))},
		}}
)

// describe returns the interface as introspection has it.
func (f *iface) describe() dbusjson.Interface {
	i := dbusjson.Interface{Name: f.name, Doc: f.doc, Signals: f.signals}
	for _, m := range f.methods {
		i.Methods = append(i.Methods, m.Method)
	}
	for _, p := range f.properties {
		i.Properties = append(i.Properties, p.Property)
	}
	return i
}

// nodes are the objects: those with interfaces, and the ones above them.
var nodes = sync.OnceValue(func() map[string]*dbusjson.Node {
	all := map[string]*dbusjson.Node{}
	at := func(path string) *dbusjson.Node {
		if all[path] == nil {
			all[path] = &dbusjson.Node{Interfaces: []dbusjson.Interface{introspectableInterface, peerInterface}}
		}
		return all[path]
	}
	at("/")
	for i := range interfaces {
		f := &interfaces[i]
		n := at(f.path)
		if len(n.Interfaces) == 2 {
			n.Interfaces = append(n.Interfaces, propertiesInterface)
			if f.path == names.BusObject {
				n.Interfaces = append(n.Interfaces, objectManagerInterface)
			}
		}
		n.Interfaces = append(n.Interfaces, f.describe())
		for path := f.path; path != "/"; {
			k := strings.LastIndexByte(path, '/')
			up, child := path[:max(k, 1)], path[k+1:]
			if parent := at(up); !slices.Contains(parent.Children, child) {
				parent.Children = append(parent.Children, child)
			}
			path = up
		}
	}
	return all
})

func nodeAt(path string) *dbusjson.Node { return nodes()[path] }

// standard answers the standard interfaces.
func (d *Daemon) standard(in bus.Incoming, node *dbusjson.Node) (bus.Body, error) {
	described := node.Interface(in.Interface)
	if described == nil {
		return bus.Body{}, unknown("UnknownInterface", "%s has no interface %s", in.Path, in.Interface)
	}
	m := described.Method(in.Member)
	if m == nil {
		return bus.Body{}, unknown("UnknownMethod", "%s has no method %s", in.Interface, in.Member)
	}
	if want := m.InSignature(); in.Args.Signature() != want {
		return bus.Body{}, unknown("InvalidArgs", "%s takes %q, not %q", in.Member, want, in.Args.Signature())
	}
	types, err := dbusjson.ParseSignature(m.OutSignature())
	if err != nil {
		return bus.Body{}, err
	}
	one := func(v any) (bus.Body, error) { return bus.Body{Types: types, Values: []any{v}}, nil }
	switch in.Member {
	case "Introspect":
		return one(string(node.XML()))
	case "GetManagedObjects":
		return one(d.managedObjects())
	case "GetAll":
		name := in.Args.Values[0].(string)
		if node.Interface(name) == nil && name != "" {
			return bus.Body{}, unknown("UnknownInterface", "%s has no interface %s", in.Path, name)
		}
		return one(d.allProperties(in.Path, name))
	}
	name, member := in.Args.Values[0].(string), in.Args.Values[1].(string)
	for i := range interfaces {
		f := &interfaces[i]
		if f.path != in.Path || name != "" && f.name != name {
			continue
		}
		for k := range f.properties {
			p := &f.properties[k]
			if p.Name != member {
				continue
			}
			if in.Member == "Set" {
				return bus.Body{}, unknown("PropertyReadOnly", "%s is read-only", member)
			}
			return one(p.variant(d))
		}
	}
	if node.Interface(name) == nil && name != "" {
		return bus.Body{}, unknown("UnknownInterface", "%s has no interface %s", in.Path, name)
	}
	return bus.Body{}, unknown("UnknownProperty", "%s has no property %s", name, member)
}

func (p *property) variant(d *Daemon) dbusjson.Variant {
	t, err := dbusjson.ParseType(p.Type)
	if err != nil {
		panic(err)
	}
	return dbusjson.Variant{Type: t, Value: p.get(d)}
}

// allProperties returns the properties of an interface, "" for all.
func (d *Daemon) allProperties(path, name string) dbusjson.Dict {
	out := dbusjson.Dict{}
	for i := range interfaces {
		f := &interfaces[i]
		if f.path == path && (name == "" || f.name == name) {
			for k := range f.properties {
				out = append(out, dbusjson.Entry{Key: f.properties[k].Name, Value: f.properties[k].variant(d)})
			}
		}
	}
	return out
}

// managedObjects are the objects below the manager, with all their properties.
func (d *Daemon) managedObjects() dbusjson.Dict {
	objects := dbusjson.Dict{}
	seen := map[string]bool{}
	for i := range interfaces {
		path := interfaces[i].path
		if !strings.HasPrefix(path, names.BusObject+"/") || seen[path] {
			continue
		}
		seen[path] = true
		all := dbusjson.Dict{}
		for k := range nodeAt(path).Interfaces {
			name := nodeAt(path).Interfaces[k].Name
			all = append(all, dbusjson.Entry{Key: name, Value: d.allProperties(path, name)})
		}
		objects = append(objects, dbusjson.Entry{Key: dbusjson.Path(path), Value: all})
	}
	return objects
}
