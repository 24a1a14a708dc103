package ovs

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/ghostbridge/ghostbridge/pkg/ovsdb"
)

// A Plan is the difference between a desired state and what is there.
type Plan struct {
	Changes  []Change `json:"changes"`
	Foreign  []Report `json:"foreign,omitempty"`  // what others have put on our bridges, and stays
	Warnings []string `json:"warnings,omitempty"` // what will not be as one might expect

	ops    []ovsdb.Operation // what does Changes to the database, without its guard
	guard  []ovsdb.Operation
	judged []string // interfaces that must be up afterwards
}

// A Change is one thing that is not as it should be.
type Change struct {
	Action string            `json:"action"` // create, update, adopt, delete
	Kind   string            `json:"kind"`   // switch, bridge, port, interface, offload, flows, mtu
	Name   string            `json:"name"`
	Bridge string            `json:"bridge,omitempty"`
	Fields map[string]*Delta `json:"fields,omitempty"`
}

// A Delta is a field's value as it is and as it should be, as JSON has them.
type Delta struct {
	From any `json:"from"`
	To   any `json:"to"`
}

// A Report names a row that is not ours.
type Report struct {
	Kind   string `json:"kind"` // bridge, port
	Name   string `json:"name"`
	Bridge string `json:"bridge,omitempty"`
	Note   string `json:"note,omitempty"`
}

// Facts are what a plan needs to know of the host.
type Facts struct {
	MACs map[string]string // of the network interfaces that are there
}

// Empty says whether nothing is to be done.
func (p *Plan) Empty() bool { return len(p.Changes) == 0 }

// A ConflictError says that a name is taken by something that is not ours.
type ConflictError struct{ Name, Reason, Advice string }

func (e *ConflictError) Error() string { return e.Name + ": " + e.Reason }

// Hint says what to do.
func (e *ConflictError) Hint() string { return e.Advice }

// NewPlan compares. It changes nothing and asks nobody.
func NewPlan(c *Config, s *State, f Facts) (*Plan, error) {
	b := &planner{config: c, state: s, facts: f, plan: &Plan{Changes: []Change{}}, kept: make(map[ovsdb.UUID]bool)}
	b.root()
	for _, name := range names(c.Bridges) {
		if err := b.bridge(name); err != nil {
			return nil, err
		}
	}
	b.remove()
	b.finish()
	return b.plan, nil
}

// A planner collects a plan.
type planner struct {
	config *Config
	state  *State
	facts  Facts
	plan   *Plan
	kept   map[ovsdb.UUID]bool // bridges and ports that are wanted as they are or changed

	newBridges []ovsdb.Value
	deadBridge []ovsdb.Value
	ports      map[ovsdb.UUID]*portMoves
	touched    []touched
	named      int
}

type portMoves struct{ add, remove []ovsdb.Value }

// touched is a row that the plan changes because of the columns read.
type touched struct {
	table string
	id    ovsdb.UUID
	read  ovsdb.Row
}

func (b *planner) change(c Change) { b.plan.Changes = append(b.plan.Changes, c) }

func (b *planner) name() ovsdb.Named {
	b.named++
	return ovsdb.Named(fmt.Sprintf("gb%d", b.named))
}

func (b *planner) moves(bridge ovsdb.UUID) *portMoves {
	if b.ports == nil {
		b.ports = make(map[ovsdb.UUID]*portMoves)
	}
	m := b.ports[bridge]
	if m == nil {
		m = new(portMoves)
		b.ports[bridge] = m
	}
	return m
}

// root plans the keys of the switch's own row.
func (b *planner) root() {
	other := maps.Clone(b.config.OtherConfig)
	if other == nil {
		other = map[string]string{}
	}
	other["hw-offload"] = fmt.Sprint(b.config.HWOffload)
	row := b.state.Root
	had := splitKeys(row.Strings("external_ids")[keysKey])
	want := ovsdb.Row{
		"other_config": ovsdb.StringMap(merge(row.Strings("other_config"), had["o"], other)),
	}
	ids := merge(row.Strings("external_ids"), had["e"], b.config.ExternalIDs)
	ids[keysKey] = joinKeys(map[string][]string{"o": names(other), "e": names(b.config.ExternalIDs)})
	want["external_ids"] = ovsdb.StringMap(ids)
	b.update("Open_vSwitch", row, want, Change{Action: "update", Kind: "switch", Name: Database})
}

// merge returns a shared map as it should be: what others have put there,
// without the keys that we had set, with those that we want.
func merge(have map[string]string, had []string, want map[string]string) map[string]string {
	out := maps.Clone(have)
	for _, k := range had {
		delete(out, k)
	}
	maps.Copy(out, want)
	return out
}

// joinKeys writes the memory of which keys are ours: "o:hw-offload,e:site".
func joinKeys(keys map[string][]string) string {
	var list []string
	for _, kind := range names(keys) {
		for _, k := range keys[kind] {
			list = append(list, kind+":"+k)
		}
	}
	return strings.Join(list, ",")
}

func splitKeys(s string) map[string][]string {
	out := make(map[string][]string)
	for _, f := range strings.Split(s, ",") {
		if kind, key, ok := strings.Cut(f, ":"); ok {
			out[kind] = append(out[kind], key)
		}
	}
	return out
}

// tagged returns external_ids of a row of ours: what others have put there
// and what we want.
func tagged(have ovsdb.Row, want map[string]string) ovsdb.Map {
	old := have.Strings("external_ids")
	out := merge(old, splitKeys(old[keysKey])["e"], want)
	delete(out, keysKey)
	if len(want) > 0 {
		out[keysKey] = joinKeys(map[string][]string{"e": names(want)})
	}
	out[ownerKey] = ownerValue
	return ovsdb.StringMap(out)
}

func optional(s string) ovsdb.Value {
	if s == "" {
		return ovsdb.Set{}
	}
	return s
}

func number(n int) ovsdb.Value {
	if n == 0 {
		return ovsdb.Set{}
	}
	return int64(n)
}

func (b *planner) bridgeColumns(name string, have ovsdb.Row) ovsdb.Row {
	c := b.config.Bridges[name]
	failMode := c.FailMode
	switch {
	case failMode == "" && c.isolated():
		failMode = "secure" // while the flows are not there, nothing passes
	case failMode == "":
		failMode = "standalone"
	}
	datapath := c.DatapathType
	if datapath == "system" {
		datapath = ""
	}
	other := maps.Clone(c.OtherConfig)
	if other == nil {
		other = make(map[string]string)
	}
	mac := c.MAC
	if uplink := c.uplink(); mac == "" && uplink != "" {
		if mac = b.facts.MACs[uplink]; mac == "" {
			mac = have.Strings("other_config")["hwaddr"] // of the NIC when it was there
		}
	}
	if mac != "" {
		other["hwaddr"] = mac
	}
	protocols := ovsdb.Set{}
	for _, p := range c.Protocols {
		protocols = append(protocols, p)
	}
	ids := maps.Clone(c.ExternalIDs)
	if c.Flows != nil {
		if ids == nil {
			ids = make(map[string]string)
		}
		ids[flowsKey] = "replaced"
	}
	return ovsdb.Row{
		"datapath_type": datapath,
		"fail_mode":     failMode,
		"protocols":     protocols,
		"other_config":  ovsdb.StringMap(other),
		"external_ids":  tagged(have, ids),
	}
}

func portColumns(p Port, have ovsdb.Row) ovsdb.Row {
	tag := ovsdb.Value(ovsdb.Set{})
	if p.Tag != nil {
		tag = int64(*p.Tag)
	}
	trunks := ovsdb.Set{}
	for _, v := range p.Trunks {
		trunks = append(trunks, int64(v))
	}
	return ovsdb.Row{
		"tag":          tag,
		"trunks":       trunks,
		"vlan_mode":    optional(p.VLANMode),
		"other_config": ovsdb.StringMap(p.OtherConfig),
		"external_ids": tagged(have, nil),
	}
}

func interfaceColumns(p Port, have ovsdb.Row) ovsdb.Row {
	typ, options := "", map[string]string{}
	switch p.Type {
	case "internal":
		typ = "internal"
	case "patch":
		typ, options = "patch", map[string]string{"peer": p.Peer}
	}
	return ovsdb.Row{
		"type":         typ,
		"options":      ovsdb.StringMap(options),
		"mtu_request":  number(p.MTU),
		"mac":          optional(p.MAC),
		"external_ids": tagged(have, p.ExternalIDs),
	}
}

// bridge plans one desired bridge and its ports.
func (b *planner) bridge(name string) error {
	c := b.config.Bridges[name]
	row := byName(b.state.Bridges, name)
	ports := maps.Clone(c.Ports)
	if ports == nil {
		ports = make(map[string]Port)
	}
	ports[name] = Port{Type: "internal", MTU: c.MTU} // its own
	var added []ovsdb.Value
	id := ovsdb.UUID("")
	if row != nil {
		id = row.ID()
		b.kept[id] = true
		b.update("Bridge", row, b.bridgeColumns(name, row), Change{Action: "update", Kind: "bridge", Name: name})
	} else {
		want := b.bridgeColumns(name, nil)
		b.change(Change{Action: "create", Kind: "bridge", Name: name, Fields: fields(nil, want)})
	}
	for _, port := range names(ports) {
		ref, err := b.port(name, id, port, ports[port])
		if err != nil {
			return err
		}
		if ref != "" {
			added = append(added, ref)
		}
		b.plan.judged = append(b.plan.judged, port)
	}
	if row != nil {
		if len(added) > 0 {
			m := b.moves(id)
			m.add = append(m.add, added...)
		}
		return nil
	}
	want := b.bridgeColumns(name, nil)
	want["name"], want["ports"] = name, ovsdb.Set(added)
	ref := b.name()
	b.plan.ops = append(b.plan.ops, ovsdb.Insert("Bridge", ref, want))
	b.newBridges = append(b.newBridges, ref)
	return nil
}

// port plans one desired port. It returns the name of a port that is to be
// added to the bridge.
func (b *planner) port(bridge string, bridgeID ovsdb.UUID, name string, p Port) (ovsdb.Named, error) {
	if p.Type == "uplink" && b.facts.MACs[name] == "" {
		b.plan.Warnings = append(b.plan.Warnings, fmt.Sprintf("%s, the uplink of %s, is not there", name, bridge))
	}
	row := byName(b.state.Ports, name)
	if row != nil {
		in := b.state.bridgeOf(row.ID())
		switch {
		case in == nil: // nobody's: the server will have collected it
		case in.ID() == bridgeID && bridgeID != "":
			return "", b.portInPlace(bridge, row, name, p)
		case !ours(row):
			return "", &ConflictError{name, fmt.Sprintf("is a port of %s that is not ours", in.String("name")),
				fmt.Sprintf("take it off first: ovs-vsctl del-port %s %s", in.String("name"), name)}
		case in.String("name") == name:
			return "", &ConflictError{name, "is a bridge", "choose another name for the port"}
		default: // ours, on another bridge: remove takes it off there
		}
	} else if i := byName(b.state.Interfaces, name); i != nil {
		return "", &ConflictError{name, "is an interface of a bond", "take it off the bond first"}
	}
	ifRef, portRef := b.name(), b.name()
	iface, port := interfaceColumns(p, nil), portColumns(p, nil)
	shown := fields(nil, port)
	maps.Copy(shown, fields(nil, iface))
	b.change(Change{Action: "create", Kind: "port", Name: name, Bridge: bridge, Fields: shown})
	iface["name"], port["name"], port["interfaces"] = name, name, ifRef
	b.plan.ops = append(b.plan.ops, ovsdb.Insert("Interface", ifRef, iface), ovsdb.Insert("Port", portRef, port))
	return portRef, nil
}

func (b *planner) portInPlace(bridge string, row ovsdb.Row, name string, p Port) error {
	ifaces := b.state.interfacesOf(row)
	if len(ifaces) != 1 || ifaces[0].String("name") != name {
		return &ConflictError{name, fmt.Sprintf("is a port of %s with %d interfaces", bridge, len(ifaces)), "bonds are not managed: take it off first, or out of the file"}
	}
	b.kept[row.ID()] = true
	b.update("Port", row, portColumns(p, row), Change{Action: "update", Kind: "port", Name: name, Bridge: bridge})
	b.update("Interface", ifaces[0], interfaceColumns(p, ifaces[0]), Change{Action: "update", Kind: "interface", Name: name, Bridge: bridge})
	return nil
}

// update plans what is different about a row.
func (b *planner) update(table string, have, want ovsdb.Row, c Change) {
	changed, read := ovsdb.Row{}, ovsdb.Row{}
	for column, v := range want {
		if same(table, column, have[column], v) {
			continue
		}
		changed[column], read[column] = v, have[column]
	}
	if len(changed) == 0 {
		return
	}
	if table != "Open_vSwitch" && !ours(have) {
		c.Action = "adopt"
	}
	c.Fields = fields(read, changed)
	b.change(c)
	b.plan.ops = append(b.plan.ops, ovsdb.Update(table, have.ID(), changed))
	b.touched = append(b.touched, touched{table, have.ID(), read})
}

// same compares a column; the kernel's datapath and a device are called
// "system" or nothing.
func same(table, column string, a, b ovsdb.Value) bool {
	if table == "Bridge" && column == "datapath_type" || table == "Interface" && column == "type" {
		if a == "system" {
			a = ""
		}
	}
	return ovsdb.Equal(a, b)
}

// remove plans away what is ours and not wanted, and reports what is not ours.
func (b *planner) remove() {
	for _, row := range sortedRows(b.state.Bridges) {
		name := row.String("name")
		ports := b.state.portsOf(row)
		foreign := 0
		for _, p := range ports {
			if !ours(p) && !b.kept[p.ID()] && p.String("name") != name {
				foreign++
				if ours(row) || b.kept[row.ID()] {
					b.plan.Foreign = append(b.plan.Foreign, Report{Kind: "port", Name: p.String("name"), Bridge: name})
				}
			}
		}
		if !b.kept[row.ID()] && ours(row) {
			if foreign == 0 {
				b.change(Change{Action: "delete", Kind: "bridge", Name: name})
				b.deadBridge = append(b.deadBridge, row.ID())
				continue
			}
			b.plan.Foreign = append(b.plan.Foreign, Report{Kind: "bridge", Name: name, Note: fmt.Sprintf("is no longer wanted, but has %d ports of others", foreign)})
		} else if !b.kept[row.ID()] {
			b.plan.Foreign = append(b.plan.Foreign, Report{Kind: "bridge", Name: name})
		}
		for _, p := range ports {
			if ours(p) && !b.kept[p.ID()] && p.String("name") != name {
				b.change(Change{Action: "delete", Kind: "port", Name: p.String("name"), Bridge: name})
				m := b.moves(row.ID())
				m.remove = append(m.remove, p.ID())
			}
		}
	}
}

// finish writes the guard and the operations on what refers to rows.
func (b *planner) finish() {
	for id, m := range b.ports {
		if len(m.remove) > 0 {
			b.plan.ops = append(b.plan.ops, ovsdb.Mutate("Bridge", id, "ports", "delete", ovsdb.Set(m.remove)))
		}
		if len(m.add) > 0 {
			b.plan.ops = append(b.plan.ops, ovsdb.Mutate("Bridge", id, "ports", "insert", ovsdb.Set(m.add)))
		}
	}
	root := b.state.Root.ID()
	if len(b.deadBridge) > 0 {
		b.plan.ops = append(b.plan.ops, ovsdb.Mutate(Database, root, "bridges", "delete", ovsdb.Set(b.deadBridge)))
	}
	if len(b.newBridges) > 0 {
		b.plan.ops = append(b.plan.ops, ovsdb.Mutate(Database, root, "bridges", "insert", ovsdb.Set(b.newBridges)))
	}
	if len(b.plan.ops) == 0 {
		return
	}
	// Which bridges and ports there are decides what is created, moved and
	// removed, so all of it is guarded; of other columns those that change.
	b.plan.guard = append(b.plan.guard, ovsdb.Wait(Database, root, ovsdb.Row{"bridges": b.state.Root["bridges"]}))
	for _, row := range sortedRows(b.state.Bridges) {
		b.plan.guard = append(b.plan.guard, ovsdb.Wait("Bridge", row.ID(), ovsdb.Row{"name": row["name"], "ports": row["ports"]}))
	}
	for _, t := range b.touched {
		b.plan.guard = append(b.plan.guard, ovsdb.Wait(t.table, t.id, t.read))
	}
	slices.SortStableFunc(b.plan.Changes, func(x, y Change) int { return order(x) - order(y) })
}

// order puts removals first: what is created may need their names.
func order(c Change) int {
	if c.Action == "delete" {
		return 0
	}
	return 1
}

// fields returns the columns that differ, as JSON has them.
func fields(from, to ovsdb.Row) map[string]*Delta {
	out := make(map[string]*Delta)
	for column, v := range to {
		if from == nil && len(ovsdb.Elements(v)) == 0 || from == nil && ovsdb.Equal(v, ovsdb.Map{}) || from == nil && v == "" {
			continue // a default
		}
		out[column] = &Delta{plain(from[column]), plain(v)}
	}
	return out
}

// plain turns a value into what encoding/json writes plainly.
func plain(v ovsdb.Value) any {
	switch v := v.(type) {
	case ovsdb.Set:
		if len(v) == 0 {
			return nil
		}
		list := make([]any, 0, len(v))
		for _, e := range v {
			list = append(list, plain(e))
		}
		slices.SortFunc(list, func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
		return list
	case ovsdb.Map:
		m := make(map[string]any, len(v))
		for k, e := range v {
			m[fmt.Sprint(k)] = plain(e)
		}
		return m
	case ovsdb.UUID:
		return string(v)
	case ovsdb.Named:
		return string(v)
	}
	return v
}
