package bus

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/ghostbridge/ghostbridge/pkg/dbusjson"
)

// Credentials are what the bus knows of a connection, from the kernel.
type Credentials struct {
	UID    uint32
	HasUID bool
	PID    uint32 // 0 if unknown
	Groups []uint32
	Label  string // of a security module
}

// Credentials asks the bus who has name.
func (c *Conn) Credentials(ctx context.Context, name string) (Credentials, error) {
	b, err := c.driver(ctx, "GetConnectionCredentials", "s", name)
	if err != nil {
		return Credentials{}, err
	}
	var cr Credentials
	for _, e := range b.Values[0].(dbusjson.Dict) {
		v := e.Value.(dbusjson.Variant).Value
		switch e.Key.(string) {
		case "UnixUserID":
			cr.UID, cr.HasUID = v.(uint32)
		case "ProcessID":
			cr.PID, _ = v.(uint32)
		case "UnixGroupIDs":
			list, _ := v.([]any)
			for _, g := range list {
				if id, ok := g.(uint32); ok {
					cr.Groups = append(cr.Groups, id)
				}
			}
		case "LinuxSecurityLabel":
			if label, ok := v.([]byte); ok {
				cr.Label = strings.TrimRight(string(label), "\x00")
			}
		}
	}
	return cr, nil
}

// A Name is a bus name.
type Name struct {
	Name        string
	Owner       string // unique name; "" if nobody has it
	Activatable bool
	Credentials // of the owner
}

// parallel is how many calls are under way at once when a bus is looked over.
const parallel = 16

// Names returns the names of the bus, sorted: well-known ones, with those that
// can be started, and with all the unique ones too.
func (c *Conn) Names(ctx context.Context, all bool) ([]Name, error) {
	list, err := c.owned(ctx, all, []string{"ListNames", "ListActivatableNames"}, c.Owner)
	if err != nil {
		return list, err
	}
	err = each(len(list), func(i int) error {
		n := &list[i]
		if n.Owner == "" || n.Owner == driverName {
			return nil
		}
		var err error
		n.Credentials, err = c.Credentials(ctx, n.Owner)
		return ignoreGone(err)
	})
	return list, err
}

// owned is Names without credentials, of the names that the members of the bus
// list.
func (c *Conn) owned(ctx context.Context, all bool, members []string, ownerOf func(context.Context, string, bool) (string, error)) ([]Name, error) {
	found := map[string]*Name{}
	for _, member := range members {
		b, err := c.driver(ctx, member, "")
		if err != nil {
			return nil, err
		}
		for _, v := range b.Values[0].([]any) {
			name := v.(string)
			if strings.HasPrefix(name, ":") && !all {
				continue
			}
			n := found[name]
			if n == nil {
				n = &Name{Name: name}
				found[name] = n
			}
			n.Activatable = n.Activatable || member == "ListActivatableNames"
		}
	}
	list := make([]Name, 0, len(found))
	for _, n := range found {
		list = append(list, *n)
	}
	slices.SortFunc(list, func(a, b Name) int { return strings.Compare(a.Name, b.Name) })
	err := each(len(list), func(i int) error {
		n := &list[i]
		owner, err := ownerOf(ctx, n.Name, false)
		n.Owner = owner
		return ignoreGone(err)
	})
	return list, err
}

// ignoreGone passes over the errors of those who have left in the meantime.
func ignoreGone(err error) error {
	var e *Error
	if errors.As(err, &e) {
		return nil
	}
	return err
}

// each calls f with 0 to n-1, several at once, and returns the first error.
func each(n int, f func(int) error) error {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var first error
	next := make(chan int)
	for range min(parallel, n) {
		wg.Go(func() {
			for i := range next {
				if err := f(i); err != nil {
					mu.Lock()
					if first == nil {
						first = err
					}
					mu.Unlock()
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
	return first
}
