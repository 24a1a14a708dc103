package ovsdb

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// An Operation is one of RFC 7047, section 5.2. The functions below make them.
type Operation struct {
	fields map[string]any
}

// MarshalJSON writes the operation.
func (o Operation) MarshalJSON() ([]byte, error) { return json.Marshal(o.fields) }

// Name returns what the operation is: insert, update, ...
func (o Operation) Name() string { s, _ := o.fields["op"].(string); return s }

func (o Operation) String() string {
	b, _ := json.Marshal(o.fields)
	return string(b)
}

// byID is the condition that names one row; a zero UUID means every row.
func byID(id UUID) []any {
	if id == "" {
		return []any{}
	}
	return []any{[]any{"_uuid", "==", id}}
}

// Select reads columns, all if none is named, of the row id or of every row.
func Select(table string, id UUID, columns ...string) Operation {
	f := map[string]any{"op": "select", "table": table, "where": byID(id)}
	if len(columns) > 0 {
		f["columns"] = columns
	}
	return Operation{f}
}

// Insert makes a row, which other operations of the transaction call name.
func Insert(table string, name Named, row Row) Operation {
	f := map[string]any{"op": "insert", "table": table, "row": row}
	if name != "" {
		f["uuid-name"] = string(name)
	}
	return Operation{f}
}

// Update sets columns of the row id.
func Update(table string, id UUID, row Row) Operation {
	return Operation{map[string]any{"op": "update", "table": table, "where": byID(id), "row": row}}
}

// Delete removes the row id.
func Delete(table string, id UUID) Operation {
	return Operation{map[string]any{"op": "delete", "table": table, "where": byID(id)}}
}

// Mutate changes a column of the row id, or of every row, by a mutator: "+=",
// "insert", "delete", ...
func Mutate(table string, id UUID, column, mutator string, v Value) Operation {
	return Operation{map[string]any{"op": "mutate", "table": table, "where": byID(id), "mutations": []any{[]any{column, mutator, v}}}}
}

// Wait fails the transaction at once, with an error that is ErrConflict,
// unless the columns of the row id are as in row.
func Wait(table string, id UUID, row Row) Operation {
	columns := make([]string, 0, len(row))
	for c := range row {
		columns = append(columns, c)
	}
	return Operation{map[string]any{"op": "wait", "table": table, "timeout": 0, "where": byID(id),
		"columns": columns, "until": "==", "rows": []Row{row}}}
}

// WaitGone fails the transaction like Wait if a row with that name is there.
func WaitGone(table, name string) Operation {
	return Operation{map[string]any{"op": "wait", "table": table, "timeout": 0, "where": []any{[]any{"name", "==", name}},
		"columns": []string{"name"}, "until": "==", "rows": []Row{}}}
}

// Await holds the transaction back until the integer column of a table's one
// row is at least n, at most for limit. A limit that is over is an error with
// Code "timed out". The server looks whenever the database changes.
func Await(table, column string, n int64, limit time.Duration) Operation {
	return Operation{map[string]any{"op": "wait", "table": table, "timeout": max(limit.Milliseconds(), 1),
		"where": []any{[]any{column, "<", n}}, "columns": []string{column}, "until": "==", "rows": []Row{}}}
}

// Comment puts text into the database's log.
func Comment(text string) Operation {
	return Operation{map[string]any{"op": "comment", "comment": text}}
}

// A Result is what an operation gave.
type Result struct {
	Count int   `json:"count"`
	ID    UUID  `json:"-"`
	Rows  []Row `json:"rows"`
}

// ErrConflict says that the database was not as a Wait demanded.
var ErrConflict = errors.New("the database has changed in between")

// An OperationError is the server's refusal of one operation, and so of its
// whole transaction.
type OperationError struct {
	Op      string // the operation, as JSON; empty if the commit itself failed
	Code    string // as in RFC 7047: "constraint violation", "timed out", ...
	Details string
}

func (e *OperationError) Error() string {
	s := e.Code
	if e.Details != "" {
		s += ": " + e.Details
	}
	if e.Op != "" {
		s += fmt.Sprintf(" (in %.200s)", e.Op)
	}
	return s
}

// Is makes a wait that was not fulfilled an ErrConflict.
func (e *OperationError) Is(target error) bool {
	return target == ErrConflict && e.Code == "timed out"
}

// results reads the answer to a transaction. Errors stand among the results:
// one for the operation that failed, with null for those behind it, or one
// more than there are operations if the commit failed.
func results(ops []Operation, data []byte) ([]Result, error) {
	var raw []json.RawMessage
	if err := json.Unmarshal(data, &raw); err != nil {
		return nil, fmt.Errorf("answer to a transaction: %w", err)
	}
	out := make([]Result, len(ops))
	for i, r := range raw {
		var x struct {
			Result
			UUID    [2]string `json:"uuid"`
			Error   *string   `json:"error"`
			Details string    `json:"details"`
		}
		if string(r) == "null" {
			continue
		}
		if err := json.Unmarshal(r, &x); err != nil {
			return nil, fmt.Errorf("answer to a transaction: %w", err)
		}
		if x.Error != nil {
			e := &OperationError{Code: *x.Error, Details: x.Details}
			if i < len(ops) {
				e.Op = ops[i].String()
			}
			return nil, e
		}
		if i < len(ops) {
			out[i] = x.Result
			out[i].ID = UUID(x.UUID[1])
		}
	}
	if len(raw) < len(ops) {
		return nil, fmt.Errorf("answer to a transaction of %d operations has %d results", len(ops), len(raw))
	}
	return out, nil
}
