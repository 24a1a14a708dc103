package local

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/index"
)

// Search implements index.Reader. With terms, the best by BM25 come first and
// the newer of equals; without, the newest.
func (d *DB) Search(q index.Query) ([]index.Match, error) {
	var where []string
	var args []any
	in := func(column string, values []string) {
		if len(values) == 0 {
			return
		}
		where = append(where, "e."+column+" IN (?"+strings.Repeat(", ?", len(values)-1)+")")
		for _, v := range values {
			args = append(args, v)
		}
	}
	from, score, order := "event e", "0.0", "e.i DESC"
	if match := matchExpression(q.Terms); match != "" {
		from = "event_text JOIN event e ON e.i = event_text.rowid"
		// Words of the message count most, those of the data least.
		score, order = "-bm25(event_text, 4.0, 2.0, 1.0, 0.5)", "1 DESC, e.i DESC"
		where, args = append(where, "event_text MATCH ?"), append(args, match)
	}
	if !q.Since.IsZero() {
		where, args = append(where, "e.time >= ?"), append(args, q.Since.UnixNano())
	}
	if !q.Until.IsZero() {
		where, args = append(where, "e.time < ?"), append(args, q.Until.UnixNano())
	}
	if q.HasSeverity {
		where, args = append(where, "e.severity <= ?"), append(args, int(q.Severity))
	}
	in("source", q.Sources)
	in("type", q.Types)
	in("host", q.Hosts)
	in("actor", q.Actors)
	query := "SELECT " + score + ", e.i, e.time, e.severity, e.host, e.source, e.type, e.subject, e.actor, e.message, e.data FROM " + from
	if len(where) > 0 {
		query += " WHERE " + strings.Join(where, " AND ")
	}
	query += " ORDER BY " + order + " LIMIT ?"
	args = append(args, q.Limit)
	rows, err := d.db.Query(query, args...)
	if err != nil {
		return nil, fmt.Errorf("index %s: %w", d.path, err)
	}
	defer rows.Close()
	var matches []index.Match
	for rows.Next() {
		var m index.Match
		var ns int64
		var severity int
		var data string
		if err := rows.Scan(&m.Score, &m.Index, &ns, &severity, &m.Host, &m.Source, &m.Type, &m.Subject, &m.Actor, &m.Message, &data); err != nil {
			return nil, fmt.Errorf("index %s: %w", d.path, err)
		}
		m.Time, m.Severity = time.Unix(0, ns).UTC(), event.Severity(severity)
		if data != "" {
			m.Data = json.RawMessage(data)
		}
		matches = append(matches, m)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("index %s: %w", d.path, err)
	}
	return matches, nil
}

// matchExpression writes terms in FTS5's query language. Every term is a
// quoted string there, so that nothing in it is an operator.
func matchExpression(terms []index.Term) string {
	var quoted []string
	for _, t := range terms {
		text := strings.TrimSpace(strings.ReplaceAll(t.Text, "\x00", " "))
		if text == "" {
			continue
		}
		quoted = append(quoted, `"`+strings.ReplaceAll(text, `"`, `""`)+`"`)
	}
	return strings.Join(quoted, " OR ")
}
