package main

import (
	"context"
	"fmt"
	"os/user"
	"strconv"
	"strings"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/bus"
	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/dbusjson"
)

func busFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "bus", EnvVars: []string{"GB_BUS"}, Value: bus.System, Usage: "`BUS`: system, session or an address"},
		&cli.DurationFlag{Name: "timeout", Value: bus.DefaultTimeout, Usage: "give up after `TIME`"},
		&cli.BoolFlag{Name: "json", Usage: "print JSON"},
	}
}

func startFlag() cli.Flag {
	return &cli.BoolFlag{Name: "start", Usage: "start the service if nobody has the name"}
}

// withBus connects and calls do with a context that ends after --timeout.
func withBus(c *cli.Context, do func(ctx context.Context, conn *bus.Conn) error) error {
	if d := c.Duration("timeout"); d <= 0 {
		return cli.Usagef("--timeout %s: want more than nothing", d)
	}
	ctx, cancel := context.WithTimeout(c.Context, c.Duration("timeout"))
	defer cancel()
	conn, err := bus.Connect(ctx, c.String("bus"))
	if err != nil {
		return err
	}
	defer conn.Close()
	return do(ctx, conn)
}

// arguments returns n arguments, or a usage error that names what is missing.
func arguments(c *cli.Context, names ...string) ([]string, error) {
	args := c.Args().Slice()
	required := 0
	for _, n := range names {
		if !strings.HasPrefix(n, "[") {
			required++
		}
	}
	if len(args) < required {
		return nil, cli.WithHint(cli.Usagef("%s is missing", names[len(args)]), c.Command.HelpName+" "+strings.Join(names, " "))
	}
	if len(args) > len(names) {
		return nil, cli.Usagef("%q is one argument too many", args[len(names)])
	}
	for len(args) < len(names) {
		args = append(args, "")
	}
	if !dbusjson.ValidBusName(args[0]) {
		return nil, cli.Usagef("%q is no bus name", args[0])
	}
	if len(args) > 1 && args[1] != "" && !dbusjson.ValidPath(args[1]) {
		return nil, cli.Usagef("%q is no object path", args[1])
	}
	return args, nil
}

// splitMember splits INTERFACE.MEMBER.
func splitMember(s string) (iface, member string, err error) {
	i := strings.LastIndexByte(s, '.')
	if i < 0 || !dbusjson.ValidInterface(s[:i]) || !dbusjson.ValidMember(s[i+1:]) {
		return "", "", cli.Usagef("%q is not INTERFACE.MEMBER", s)
	}
	return s[:i], s[i+1:], nil
}

func userName(uid uint32) string {
	if u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10)); err == nil {
		return u.Username
	}
	return strconv.FormatUint(uint64(uid), 10)
}

// completeTarget completes NAME, PATH and INTERFACE.MEMBER; members says which
// members of an interface, nil for none. What each is stands behind a tab.
func completeTarget(members func(*dbusjson.Interface) []member) func(*cli.Context) {
	return func(c *cli.Context) {
		ctx, cancel := context.WithTimeout(c.Context, 2*time.Second)
		defer cancel()
		conn, err := bus.Connect(ctx, c.String("bus"))
		if err != nil {
			return
		}
		defer conn.Close()
		switch args := c.Args().Slice(); {
		case len(args) == 0:
			list, err := conn.Names(ctx, false)
			if err != nil {
				return
			}
			for _, n := range list {
				cli.Offer(c, n.Name, whoHas(&n))
			}
		case len(args) == 1:
			objects, err := conn.Tree(ctx, args[0], "/", false)
			if err != nil && objects == nil {
				return
			}
			for _, o := range objects {
				if o.Node != nil && len(o.Node.Interfaces) > 0 {
					cli.Offer(c, o.Path, ownInterfaces(o.Node))
				}
			}
		case len(args) == 2 && members != nil:
			node, err := conn.Introspect(ctx, args[0], args[1], false)
			if err != nil {
				return
			}
			for i := range node.Interfaces {
				for _, m := range members(&node.Interfaces[i]) {
					cli.Offer(c, node.Interfaces[i].Name+"."+m.name, m.form)
				}
			}
		}
	}
}

func whoHas(n *bus.Name) string {
	switch {
	case n.Owner == "":
		return "can be started"
	case !n.HasUID:
		return ""
	case n.PID == 0:
		return userName(n.UID)
	}
	return fmt.Sprintf("%s, pid %d", userName(n.UID), n.PID)
}

// ownInterfaces names what an object has beside what every object has.
func ownInterfaces(n *dbusjson.Node) string {
	var list []string
	for i := range n.Interfaces {
		if name := n.Interfaces[i].Name; !strings.HasPrefix(name, "org.freedesktop.DBus.") {
			list = append(list, name)
		}
	}
	return strings.Join(list, ", ")
}

// A member is offered with the form of its values.
type member struct{ name, form string }

func methodsOf(i *dbusjson.Interface) (list []member) {
	for _, m := range i.Methods {
		list = append(list, member{m.Name, "(" + m.InSignature() + ") -> (" + m.OutSignature() + ")"})
	}
	return list
}

func propertiesOf(i *dbusjson.Interface) (list []member) {
	for _, p := range i.Properties {
		list = append(list, member{p.Name, p.Type + ", " + p.Access})
	}
	return list
}

// lookup introspects an object and finds an interface of it.
func lookup(ctx context.Context, conn *bus.Conn, name, path, iface string, start bool) (*dbusjson.Interface, error) {
	node, err := conn.Introspect(ctx, name, path, start)
	if err != nil {
		return nil, err
	}
	if i := node.Interface(iface); i != nil {
		return i, nil
	}
	var have []string
	for _, i := range node.Interfaces {
		have = append(have, i.Name)
	}
	err = fmt.Errorf("%s %s has no interface %s", name, path, iface)
	if len(have) == 0 {
		return nil, cli.WithHint(err, "the object has none at all: opdbus tree "+name+" lists the objects")
	}
	return nil, cli.WithHint(err, "it has "+strings.Join(have, ", "))
}

func noMember(kind, name, path, iface, member string, have []member) error {
	err := fmt.Errorf("%s %s: %s has no %s %s", name, path, iface, kind, member)
	if len(have) == 0 {
		return err
	}
	list := make([]string, 0, len(have))
	for _, m := range have {
		list = append(list, m.name)
	}
	if len(list) > 12 {
		list = append(list[:12], "...")
	}
	return cli.WithHint(err, "it has "+strings.Join(list, ", "))
}
