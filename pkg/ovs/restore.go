package ovs

import (
	"fmt"
	"slices"

	"github.com/ghostbridge/ghostbridge/pkg/ovsdb"
)

// restore returns the operations that bring the database from what now holds
// back to what s holds, and their guard. Rows that are gone are made again
// under another UUID. What others have added meanwhile to bridges that stay,
// stays.
func (s *Snapshot) restore(now *Snapshot) (guard, ops []ovsdb.Operation) {
	refs := make(map[ovsdb.UUID]ovsdb.Value) // what a UUID of s is called now
	where := make(map[ovsdb.UUID]string)     // the table of each row that is there now
	for table, rows := range now.Tables {
		for id := range rows {
			where[id] = table
			refs[id] = id
		}
	}
	n := 0
	for _, table := range names(s.Tables) {
		for id := range s.Tables[table] {
			if _, there := now.Tables[table][id]; !there {
				n++
				refs[id] = ovsdb.Named(fmt.Sprintf("gb%d", n))
			}
		}
	}
	for _, table := range names(s.Tables) {
		for _, id := range sortedIDs(s.Tables[table]) {
			want := make(ovsdb.Row)
			have, there := now.Tables[table][id]
			for column, v := range s.Tables[table][id] {
				v = redirect(v, refs)
				if table == Database && column == "bridges" || table == "Bridge" && column == "ports" {
					v = keepForeign(v, have[column], s, now, where)
				}
				if !there || !ovsdb.Equal(v, have[column]) {
					want[column] = v
				}
			}
			switch {
			case !there:
				ops = append(ops, ovsdb.Insert(table, refs[id].(ovsdb.Named), want))
			case len(want) > 0:
				ops = append(ops, ovsdb.Update(table, id, want))
				read := make(ovsdb.Row)
				for column := range want {
					read[column] = have[column]
				}
				guard = append(guard, ovsdb.Wait(table, id, read))
			}
		}
	}
	return guard, ops
}

func sortedIDs(rows map[ovsdb.UUID]ovsdb.Row) []ovsdb.UUID {
	out := make([]ovsdb.UUID, 0, len(rows))
	for id := range rows {
		out = append(out, id)
	}
	slices.Sort(out)
	return out
}

// redirect replaces UUIDs by what they are called now.
func redirect(v ovsdb.Value, refs map[ovsdb.UUID]ovsdb.Value) ovsdb.Value {
	switch v := v.(type) {
	case ovsdb.UUID:
		if to, ok := refs[v]; ok {
			return to
		}
	case ovsdb.Set:
		out := make(ovsdb.Set, len(v))
		for i, e := range v {
			out[i] = redirect(e, refs)
		}
		return out
	case ovsdb.Map:
		out := make(ovsdb.Map, len(v))
		for k, e := range v {
			out[redirect(k, refs)] = redirect(e, refs)
		}
		return out
	}
	return v
}

// keepForeign adds to a set of rows those that are in it now, were not there
// then, and are not ours, unless what was there then has their name.
func keepForeign(v, have ovsdb.Value, s, now *Snapshot, where map[ovsdb.UUID]string) ovsdb.Value {
	out := slices.Clone(ovsdb.Set(ovsdb.Elements(v)))
	for _, e := range ovsdb.Elements(have) {
		id, ok := e.(ovsdb.UUID)
		table := where[id]
		if _, known := s.Tables[table][id]; !ok || known || ours(now.Tables[table][id]) {
			continue
		}
		if byName(s.Tables[table], now.Tables[table][id].String("name")) == nil {
			out = append(out, e)
		}
	}
	return out
}
