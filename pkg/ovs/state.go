package ovs

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/ghostbridge/ghostbridge/pkg/ovsdb"
)

// Database is the name of the switch's database.
const Database = "Open_vSwitch"

// Our keys in external_ids.
const (
	ownerKey   = "gb-owner" // on every row that is ours
	ownerValue = "gb-ovs-setup"
	flowsKey   = "gb-flows" // on a bridge whose flows are ours
	keysKey    = "gb-keys"  // which keys of shared maps we have set, to take them back
)

// A DB is a connection to the switch's database.
type DB interface {
	// Transact makes one transaction of ops: all of it or nothing. There is a
	// result for each; an error if one of them failed.
	Transact(ctx context.Context, db string, ops ...ovsdb.Operation) ([]ovsdb.Result, error)
}

// The columns that this package reads, by table.
var columns = map[string][]string{
	"Open_vSwitch": {"_uuid", "bridges", "other_config", "external_ids", "next_cfg", "cur_cfg", "ovs_version"},
	"Bridge":       {"_uuid", "name", "ports", "datapath_type", "fail_mode", "protocols", "other_config", "external_ids"},
	"Port":         {"_uuid", "name", "interfaces", "tag", "trunks", "vlan_mode", "other_config", "external_ids"},
	"Interface": {"_uuid", "name", "type", "options", "mtu_request", "mac", "external_ids",
		"ofport", "error", "mtu", "mac_in_use", "admin_state", "link_state"},
}

// A State is what the database held at one moment.
type State struct {
	Root       ovsdb.Row
	Bridges    map[ovsdb.UUID]ovsdb.Row
	Ports      map[ovsdb.UUID]ovsdb.Row
	Interfaces map[ovsdb.UUID]ovsdb.Row
}

// ErrEmptyDatabase says that nobody has ever initialised the database.
var ErrEmptyDatabase error = emptyDatabaseError{}

type emptyDatabaseError struct{}

func (emptyDatabaseError) Error() string {
	return "the Open_vSwitch table is empty: the switch has never been started on this database"
}

// Hint says what to do.
func (emptyDatabaseError) Hint() string { return "systemctl start openvswitch-switch, which makes it" }

// ReadState reads the database in one transaction.
func ReadState(ctx context.Context, db DB) (*State, error) { return readState(ctx, db) }

// readState is ReadState after operations that give no rows.
func readState(ctx context.Context, db DB, ops ...ovsdb.Operation) (*State, error) {
	first := len(ops)
	tables := []string{"Open_vSwitch", "Bridge", "Port", "Interface"}
	for _, t := range tables {
		ops = append(ops, ovsdb.Select(t, "", columns[t]...))
	}
	res, err := db.Transact(ctx, Database, ops...)
	if err != nil {
		return nil, fmt.Errorf("read the switch's database: %w", err)
	}
	if res = res[first:]; len(res[0].Rows) == 0 {
		return nil, ErrEmptyDatabase
	}
	return &State{Root: res[0].Rows[0], Bridges: byUUID(res[1].Rows), Ports: byUUID(res[2].Rows), Interfaces: byUUID(res[3].Rows)}, nil
}

func byUUID(rows []ovsdb.Row) map[ovsdb.UUID]ovsdb.Row {
	m := make(map[ovsdb.UUID]ovsdb.Row, len(rows))
	for _, r := range rows {
		m[r.ID()] = r
	}
	return m
}

func byName(rows map[ovsdb.UUID]ovsdb.Row, name string) ovsdb.Row {
	for _, r := range rows {
		if r.String("name") == name {
			return r
		}
	}
	return nil
}

// sortedRows returns rows by name.
func sortedRows(rows map[ovsdb.UUID]ovsdb.Row) []ovsdb.Row {
	out := make([]ovsdb.Row, 0, len(rows))
	for _, r := range rows {
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b ovsdb.Row) int { return strings.Compare(a.String("name"), b.String("name")) })
	return out
}

// ours says whether a row carries the owner tag.
func ours(r ovsdb.Row) bool { return r.Strings("external_ids")[ownerKey] == ownerValue }

// bridgeOf returns the bridge that has port.
func (s *State) bridgeOf(port ovsdb.UUID) ovsdb.Row {
	for _, b := range s.Bridges {
		if slices.Contains(b.UUIDs("ports"), port) {
			return b
		}
	}
	return nil
}

// interfacesOf returns a port's interfaces.
func (s *State) interfacesOf(port ovsdb.Row) []ovsdb.Row {
	var out []ovsdb.Row
	for _, id := range port.UUIDs("interfaces") {
		if r, ok := s.Interfaces[id]; ok {
			out = append(out, r)
		}
	}
	return out
}

// portsOf returns a bridge's ports by name, its own among them.
func (s *State) portsOf(bridge ovsdb.Row) []ovsdb.Row {
	rows := make(map[ovsdb.UUID]ovsdb.Row)
	for _, id := range bridge.UUIDs("ports") {
		if p, ok := s.Ports[id]; ok {
			rows[id] = p
		}
	}
	return sortedRows(rows)
}

// behind says whether the switch has not yet taken the latest configuration,
// and that one's number.
func (s *State) behind() (next int64, behind bool) {
	next, _ = s.Root.Int("next_cfg")
	cur, _ := s.Root.Int("cur_cfg")
	return next, cur < next
}
