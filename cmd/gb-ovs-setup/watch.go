package main

import (
	"bytes"
	"errors"
	"os"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/durable"
	"github.com/ghostbridge/ghostbridge/pkg/ovs"
	"github.com/ghostbridge/ghostbridge/pkg/systemd"
)

func watchCommand() *cli.Command {
	return &cli.Command{
		Name:  "watch",
		Usage: "print an event for each change of the switch, and put flows back",
		Description: `Prints events, one JSON object a line, as gb-chain append reads them: each
change of bridges, ports and interfaces, and each drift from the configuration
in force. Flows that are gone, as after a restart of ovs-vswitchd, and offloads
that a driver has switched on again are put back, and a change that nobody
confirmed is rolled back if nothing else has done it; what else differs is only
reported.

Where the one that records is to have no rights, two share the work, as the
units do: watch --dry-run writes nothing but events, and watch --no-events puts
things back.

Example:

   gb-ovs-setup watch | gb-chain append --log L -`,
		Flags: setupFlags(configFlag(),
			&cli.BoolFlag{Name: "dry-run", Aliases: []string{"n"}, Usage: "put nothing back"},
			&cli.BoolFlag{Name: "no-events", Usage: "print nothing"},
			&cli.DurationFlag{Name: "every", Value: 5 * time.Second, Usage: "how often to look without a reason: a `DURATION`"},
			&cli.StringFlag{Name: "metrics", EnvVars: []string{"GB_OVS_METRICS"}, Usage: "write metrics to `FILE` for Prometheus' textfile collector"},
		),
		Action: runWatch,
	}
}

func runWatch(c *cli.Context) error {
	if c.Bool("dry-run") && c.Bool("no-events") && c.String("metrics") == "" {
		return cli.Usagef("watch --dry-run --no-events would do nothing")
	}
	s, err := setup(c)
	if err != nil {
		return err
	}
	defer s.Close()
	fallback, err := inForce(c, s)
	if err != nil {
		return err
	}
	o := ovs.WatchOptions{
		Fallback: fallback, Mend: !c.Bool("dry-run"), Every: c.Duration("every"),
		Emit: func(e ovs.Event) error {
			line, err := e.Line()
			if err != nil {
				return err
			}
			_, err = c.App.Writer.Write(append(line, '\n'))
			return err
		},
	}
	if c.Bool("no-events") {
		// A service of its own. The one that records is gb-chain's child, and
		// systemd hears from gb-chain.
		o.Emit = nil
		var watchdog systemd.Watchdog
		o.Alive = watchdog.Alive
		if _, err := systemd.Notify("READY=1"); err != nil {
			return err
		}
	}
	if file := c.String("metrics"); file != "" {
		o.Status = func(st *ovs.Status) {
			var b bytes.Buffer
			st.WriteMetrics(&b)
			// The collector is another user, whatever umask this process has.
			if err := errors.Join(durable.Replace(file, b.Bytes(), 0o644), os.Chmod(file, 0o644)); err != nil {
				s.Log.Warn("metrics", "error", err)
			}
		}
	}
	return s.Watch(c.Context, o)
}
