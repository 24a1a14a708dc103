package bus

import (
	"context"
	"strings"
	"sync"
)

// ownerCache keeps who owns names. The bus tells each change of owner, in order
// with everything else it sends, so that what is kept is never older than the
// answer to a question would be by the time it is read.
type ownerCache struct {
	asking sync.Mutex // held while the bus is asked for more

	mu      sync.Mutex
	matched map[string]bool   // names whose changes the bus tells
	owners  map[string]string // unique names
	changes uint64            // seen, of any name
}

// maxMatched bounds the match rules; the system bus allows 512 a connection.
const maxMatched = 128

// changed takes a NameOwnerChanged of the bus.
func (o *ownerCache) changed(m *message) {
	b, err := m.open()
	if err != nil || b.Signature() != "sss" {
		return
	}
	name, owner := b.Values[0].(string), b.Values[2].(string)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.changes++
	if owner != "" && o.matched[name] {
		o.owners[name] = owner
	} else {
		delete(o.owners, name)
	}
}

// get returns the owner of name, "" if it is not known.
func (o *ownerCache) get(name string) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.owners[name]
}

// KnownOwner is Owner for names that are asked for again and again: the second
// time the bus is not asked, since it tells of changes.
func (c *Conn) KnownOwner(ctx context.Context, name string, start bool) (string, error) {
	if strings.HasPrefix(name, ":") || name == driverName {
		return name, nil
	}
	if owner := c.owners.get(name); owner != "" {
		return owner, nil
	}
	o := &c.owners
	if !c.match(ctx, name) {
		return c.Owner(ctx, name, start)
	}
	o.mu.Lock()
	before := o.changes
	o.mu.Unlock()
	owner, err := c.Owner(ctx, name, start)
	if err != nil {
		return "", err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	// Was there a change while the bus was asked, the answer may be older.
	if o.changes == before {
		o.owners[name] = owner
	}
	return owner, nil
}

// match has the bus tell the changes of name's owner. It returns false if it
// does not.
func (c *Conn) match(ctx context.Context, name string) bool {
	o := &c.owners
	known := func() (matched, full bool) {
		o.mu.Lock()
		defer o.mu.Unlock()
		return o.matched[name], len(o.matched) >= maxMatched
	}
	if matched, full := known(); matched || full {
		return matched
	}
	o.asking.Lock()
	defer o.asking.Unlock()
	if matched, full := known(); matched || full {
		return matched
	}
	rule, err := Match{Sender: driverName, Path: driverPath, Interface: driverName, Member: "NameOwnerChanged", Arg0: name}.rule()
	if err != nil {
		return false
	}
	if _, err := c.driver(ctx, "AddMatch", "s", rule); err != nil {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.matched == nil {
		o.matched, o.owners = map[string]bool{}, map[string]string{}
	}
	o.matched[name] = true
	return true
}
