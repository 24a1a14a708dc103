package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/ghostbridge/ghostbridge/pkg/dbusjson"
)

const (
	introspectable = "org.freedesktop.DBus.Introspectable"
	properties     = "org.freedesktop.DBus.Properties"
)

// Introspect returns what the object says of itself. It is asked once for each
// owner of the name.
func (c *Conn) Introspect(ctx context.Context, name, path string, start bool) (*dbusjson.Node, error) {
	owner, err := c.KnownOwner(ctx, name, start)
	if err != nil {
		return nil, err
	}
	if n := c.cache.get(owner, path); n != nil {
		return n, nil
	}
	b, err := c.Call(ctx, Call{Name: owner, Path: path, Interface: introspectable, Member: "Introspect", NoAutoStart: true})
	if err != nil {
		return nil, err
	}
	text, ok := first[string](b)
	if !ok {
		return nil, fmt.Errorf("%s %s: Introspect answered %q", name, path, b.Signature())
	}
	n, err := dbusjson.ParseIntrospection([]byte(text))
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", name, path, err)
	}
	c.cache.put(owner, path, n)
	return n, nil
}

func first[T any](b Body) (T, bool) {
	var zero T
	if len(b.Values) != 1 {
		return zero, false
	}
	v, ok := b.Values[0].(T)
	return v, ok
}

// An Object of a tree.
type Object struct {
	Path string
	Node *dbusjson.Node
	Err  error // why it could not be introspected
}

// MaxObjects bounds a tree.
const MaxObjects = 20_000

// Tree returns the objects of name below path, sorted by path. A service that
// makes up ever more children is cut off at MaxObjects, which is an error.
func (c *Conn) Tree(ctx context.Context, name, path string, start bool) ([]Object, error) {
	owner, err := c.Owner(ctx, name, start)
	if err != nil {
		return nil, err
	}
	var all []Object
	level := []string{path}
	seen := map[string]bool{path: true}
	for len(level) > 0 {
		objects := make([]Object, len(level))
		if err := each(len(level), func(i int) error {
			n, err := c.Introspect(ctx, owner, level[i], false)
			objects[i] = Object{level[i], n, err}
			if ctx.Err() != nil || errors.Is(err, ErrClosed) {
				return err
			}
			return nil
		}); err != nil {
			return nil, err
		}
		all = append(all, objects...)
		level = level[:0:0]
		for _, o := range objects {
			if o.Node == nil {
				continue
			}
			for _, child := range o.Node.Children {
				p := strings.TrimSuffix(o.Path, "/") + "/" + child
				if !seen[p] {
					seen[p] = true
					level = append(level, p)
				}
			}
		}
		if len(all)+len(level) > MaxObjects {
			return all, fmt.Errorf("%s has more than %d objects", name, MaxObjects)
		}
	}
	slices.SortFunc(all, func(a, b Object) int { return strings.Compare(a.Path, b.Path) })
	return all, nil
}

// A NamedTree is one name's.
type NamedTree struct {
	Name    Name
	Objects []Object
	Err     error
}

// TreeOfAll looks over every name of the bus that has an owner; nobody is
// started. Names of one owner share its objects. The second time on a connection
// the bus is asked for its names only: owners and objects are known.
func (c *Conn) TreeOfAll(ctx context.Context) ([]NamedTree, error) {
	names, err := c.owned(ctx, false, []string{"ListNames"}, c.KnownOwner)
	if err != nil {
		return nil, err
	}
	var list []NamedTree
	for _, n := range names {
		if n.Owner != "" {
			list = append(list, NamedTree{Name: n})
		}
	}
	var wg sync.WaitGroup
	for i := range list {
		wg.Go(func() { list[i].Objects, list[i].Err = c.Tree(ctx, list[i].Name.Owner, "/", false) })
	}
	wg.Wait()
	return list, ctx.Err()
}

// Get returns a property, as a variant.
func (c *Conn) Get(ctx context.Context, name, path, iface, property string) (dbusjson.Variant, error) {
	b, err := c.Call(ctx, Call{Name: name, Path: path, Interface: properties, Member: "Get", Args: NewBody("ss", iface, property)})
	if err != nil {
		return dbusjson.Variant{}, err
	}
	v, ok := first[dbusjson.Variant](b)
	if !ok {
		return v, fmt.Errorf("%s %s: Get answered %q", name, path, b.Signature())
	}
	return v, nil
}

// GetAll returns the properties of an interface, in the order of the answer.
func (c *Conn) GetAll(ctx context.Context, name, path, iface string) (dbusjson.Dict, error) {
	b, err := c.Call(ctx, Call{Name: name, Path: path, Interface: properties, Member: "GetAll", Args: NewBody("s", iface)})
	if err != nil {
		return nil, err
	}
	d, ok := first[dbusjson.Dict](b)
	if !ok || b.Signature() != "a{sv}" {
		return d, fmt.Errorf("%s %s: GetAll answered %q", name, path, b.Signature())
	}
	return d, nil
}
