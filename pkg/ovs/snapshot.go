package ovs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/ghostbridge/ghostbridge/pkg/ovsdb"
)

// A Snapshot is the configuration in the database: every table and column that
// the switch itself does not write, also those that this package does not
// know. It is what a rollback restores.
type Snapshot struct {
	Tables map[string]map[ovsdb.UUID]ovsdb.Row `json:"tables"`
}

// written are columns that the switch writes although the schema does not
// mark them as ephemeral.
var written = map[string][]string{
	Database: {"next_cfg", "cur_cfg", "datapaths", "ovs_version", "db_version", "system_type", "system_version",
		"datapath_types", "iface_types", "dpdk_initialized", "dpdk_version"},
	"Bridge":    {"datapath_version"},
	"Port":      {"bond_active_slave"},
	"Interface": {"ofport", "error", "cfm_flap_count"},
	"Datapath":  nil, // the whole table
	"CT_Zone":   nil,
}

// configColumns returns the columns of a table that are configuration.
func configColumns(table string, t ovsdb.Table) []string {
	skip, listed := written[table]
	if listed && skip == nil {
		return nil
	}
	var out []string
	for _, c := range t.ColumnNames() {
		if !t.Columns[c].Ephemeral && !slices.Contains(skip, c) && !strings.HasPrefix(c, "_") {
			out = append(out, c)
		}
	}
	return out
}

// A SchemaDB is a database that tells its schema.
type SchemaDB interface {
	DB
	// Schema returns the schema of a database.
	Schema(ctx context.Context, db string) (*ovsdb.Schema, error)
}

// TakeSnapshot reads the configuration in one transaction.
func TakeSnapshot(ctx context.Context, db SchemaDB) (*Snapshot, error) {
	schema, err := db.Schema(ctx, Database)
	if err != nil {
		return nil, err
	}
	var ops []ovsdb.Operation
	var tables []string
	for _, table := range names(schema.Tables) {
		if list := configColumns(table, schema.Tables[table]); list != nil {
			tables = append(tables, table)
			ops = append(ops, ovsdb.Select(table, "", append(list, "_uuid")...))
		}
	}
	res, err := db.Transact(ctx, Database, ops...)
	if err != nil {
		return nil, fmt.Errorf("read the switch's configuration: %w", err)
	}
	s := &Snapshot{Tables: make(map[string]map[ovsdb.UUID]ovsdb.Row)}
	for i, table := range tables {
		rows := make(map[ovsdb.UUID]ovsdb.Row, len(res[i].Rows))
		for _, r := range res[i].Rows {
			id := r.ID()
			delete(r, "_uuid")
			rows[id] = r
		}
		s.Tables[table] = rows
	}
	return s, nil
}

// Normalise returns the configuration as text in which rows are called by what
// they are instead of by UUID, a line each, sorted: two databases that mean
// the same give the same bytes.
func (s *Snapshot) Normalise() []byte {
	table := make(map[ovsdb.UUID]string)
	for t, rows := range s.Tables {
		for id := range rows {
			table[id] = t
		}
	}
	known := make(map[ovsdb.UUID]string)
	var label func(id ovsdb.UUID) string
	text := func(row ovsdb.Row) string {
		var parts []string
		for _, column := range names(row) {
			v := rename(row[column], label)
			if t := ovsdb.Text(v); t != "[]" && t != "{}" {
				parts = append(parts, column+"="+t)
			}
		}
		return strings.Join(parts, " ")
	}
	label = func(id ovsdb.UUID) string {
		if l, ok := known[id]; ok {
			return l
		}
		t, ok := table[id]
		if !ok {
			return "unknown"
		}
		known[id] = t + " in a circle"
		row := s.Tables[t][id]
		l := t + " " + row.String("name")
		if row.String("name") == "" {
			sum := sha256.Sum256([]byte(text(row)))
			l = t + " #" + hex.EncodeToString(sum[:6])
		}
		known[id] = l
		return l
	}
	var lines []string
	for t, rows := range s.Tables {
		for _, row := range rows {
			lines = append(lines, t+" "+text(row)+"\n")
		}
	}
	slices.Sort(lines)
	return []byte(strings.Join(lines, ""))
}

// rename replaces the UUIDs in a value by labels.
func rename(v ovsdb.Value, label func(ovsdb.UUID) string) ovsdb.Value {
	switch v := v.(type) {
	case ovsdb.UUID:
		return "<" + label(v) + ">"
	case ovsdb.Set:
		out := make(ovsdb.Set, len(v))
		for i, e := range v {
			out[i] = rename(e, label)
		}
		return out
	case ovsdb.Map:
		out := make(ovsdb.Map, len(v))
		for k, e := range v {
			out[rename(k, label)] = rename(e, label)
		}
		return out
	}
	return v
}

// MarshalJSON and UnmarshalJSON of the rows are those of RFC 7047, so that a
// checkpoint is what the server itself would print.
var _ json.Unmarshaler = (*ovsdb.Row)(nil)
