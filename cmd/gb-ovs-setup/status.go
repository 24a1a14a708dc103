package main

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/ovs"
)

func statusCommand() *cli.Command {
	return &cli.Command{
		Name:  "status",
		Usage: "show bridges, ports, offloads, flows and drift",
		Description: `Shows what the switch has and what about it is not as it should be: what the
change that awaits its confirmation wants, else the configuration confirmed
last, else FILE.

Example:

   gb-ovs-setup status --exit-code || gb-ovs-setup plan`,
		Flags: setupFlags(configFlag(),
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object"},
			&cli.BoolFlag{Name: "metrics", Usage: "print Prometheus' text format, for the textfile collector"},
			&cli.BoolFlag{Name: "exit-code", Usage: "exit with 1 if something is not as it should be"},
		),
		Action: runStatus,
	}
}

// inForce is the configuration that counts; nil if there is none at all.
func inForce(c *cli.Context, s *ovs.Setup) (*ovs.Config, error) {
	fallback, err := ifThere(c)
	if err != nil {
		return nil, err
	}
	return s.InForce(fallback)
}

// ifThere reads the desired state; nil if nobody has named a file and the
// usual one is not there.
func ifThere(c *cli.Context) (*ovs.Config, error) {
	config, err := readConfig(c)
	if errors.Is(err, fs.ErrNotExist) && !c.IsSet("config") {
		return nil, nil
	}
	return config, err
}

func runStatus(c *cli.Context) error {
	s, err := setup(c)
	if err != nil {
		return err
	}
	defer s.Close()
	fallback, err := ifThere(c)
	if err != nil {
		return err
	}
	config, unread := s.InForce(fallback)
	st := s.Status(c.Context, config)
	if unread != nil {
		st.Problems, st.Healthy = append(st.Problems, unread.Error()), false
	}
	switch {
	case c.Bool("json"):
		err = cli.PrintJSON(c.App.Writer, st)
	case c.Bool("metrics"):
		err = st.WriteMetrics(c.App.Writer)
	default:
		err = printStatus(c, st)
	}
	if err != nil {
		return err
	}
	if c.Bool("exit-code") && !st.Healthy {
		return cli.Exit(cli.ExitFailed)
	}
	return nil
}

func printStatus(c *cli.Context, st *ovs.Status) error {
	w := c.App.Writer
	t := cli.NewTable(w, "bridge", "port", "type", "ofport", "link", "mtu", "mac", "owner", "error")
	for _, b := range st.Bridges {
		for _, p := range b.Ports {
			typ, owner := p.Type, "others"
			if typ == "" {
				typ = "system"
			}
			if p.Ours {
				owner = "ours"
			}
			t.Row(b.Name, p.Name, typ, p.OFPort, p.Link, p.MTU, p.MAC, owner, p.Error)
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	t = cli.NewTable(w, "\nbridge", "datapath", "fail mode", "addresses", "flows")
	for _, b := range st.Bridges {
		flows := "not ours"
		if f := b.Flows; f != nil {
			flows = fmt.Sprintf("%d of %d", f.Wanted-f.Missing, f.Wanted)
			if f.Foreign > 0 {
				flows += fmt.Sprintf(", %d of others", f.Foreign)
			}
		}
		t.Row(b.Name, b.Datapath, b.FailMode, strings.Join(b.Addresses, " "), flows)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if len(st.Offload) > 0 {
		t = cli.NewTable(w, "\noffload", "profile", "still on", "fixed")
		for _, o := range st.Offload {
			name := o.NIC
			if o.Peer {
				name += " (other end)"
			}
			t.Row(name, o.Profile, strings.Join(o.On, " "), strings.Join(o.Fixed, " "))
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	if st.Pending != "" && !st.ConfirmBy.IsZero() {
		fmt.Fprintf(w, "\nthe change %s awaits its confirmation until %s\n", st.Pending, st.ConfirmBy.Local().Format(time.TimeOnly))
	}
	for _, p := range st.Problems {
		fmt.Fprintf(w, "\nproblem: %s", cli.Printable(p))
	}
	if st.Healthy {
		fmt.Fprint(w, "\nhealthy")
	}
	_, err := fmt.Fprintln(w)
	return err
}
