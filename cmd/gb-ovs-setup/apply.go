package main

import (
	"errors"
	"fmt"
	"io/fs"
	"runtime/debug"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/ovs"
)

func applyCommand() *cli.Command {
	return &cli.Command{
		Name:  "apply",
		Usage: "bring the switch to the desired state",
		Description: `Does what plan prints: one transaction of the database, guarded by what was
read; offloads, links, addresses and flows after it. It waits until the switch
has taken all of it, and fails naming each interface that is not up. A second
apply changes nothing.

With --confirm-timeout it keeps what was there, moves addresses and routes of
an uplink to its bridge, and checks that gateway and the file's probe hosts
answer within --probe-time, in which a DHCP client may have to ask three times.
If they don't, or if nobody confirms in time, what was there comes
back. A configuration that was rolled back is refused without
--confirm-timeout until it changes.

With --boot it takes back what nobody confirmed before the boot, and applies
the configuration confirmed last; FILE only where none ever was, and only if
something, such as a .network file, gives addresses to the bridge of an uplink.
Where the switch does not come up, the uplink keeps its addresses.

What is about to be done is recorded in the log first; where the log does not
take it, nothing is done (75), but with --boot.

Example:

   gb-ovs-setup apply --confirm-timeout 90s && gb-ovs-setup confirm`,
		Flags: setupFlags(configFlag(),
			&cli.DurationFlag{Name: "confirm-timeout", Usage: "roll back unless confirmed within this `DURATION`"},
			&cli.DurationFlag{Name: "probe-time", Value: 20 * time.Second, Usage: "how long gateway and hosts may take to answer: a `DURATION`"},
			&cli.BoolFlag{Name: "boot", Usage: "apply the confirmed configuration, as ovs-bridge-setup.service does"},
			&cli.BoolFlag{Name: "dry-run", Aliases: []string{"n"}, Usage: "only print what would be changed"},
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object"},
			&cli.BoolFlag{Name: "exit-code", Usage: "exit with 4 if there was nothing to do"},
		),
		Action: runApply,
	}
}

func runApply(c *cli.Context) error {
	config, err := readConfig(c)
	if c.Bool("boot") && errors.Is(err, fs.ErrNotExist) {
		config, err = nil, nil // perhaps there is a confirmed one
	}
	if err != nil {
		return err
	}
	if c.Bool("dry-run") {
		return printPlan(c, config)
	}
	// A moment's work: the collector is for what does not fit.
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(64 << 20)
	timeout := c.Duration("confirm-timeout")
	if timeout != 0 && timeout < time.Second {
		return cli.Usagef("--confirm-timeout %s: nobody can confirm within less than a second", timeout)
	}
	s, err := setup(c)
	if err != nil {
		return err
	}
	defer s.Close()
	var out *ovs.Outcome
	if c.Bool("boot") {
		out, err = s.Boot(c.Context, config)
	} else {
		out, err = s.Apply(c.Context, config, ovs.ApplyOptions{ConfirmTimeout: timeout, ProbeTime: c.Duration("probe-time")})
	}
	if out != nil {
		var perr error
		if c.Bool("json") {
			perr = cli.PrintJSON(c.App.Writer, out)
		} else {
			perr = writePlan(c.App.Writer, out.Plan)
		}
		err = errors.Join(err, perr)
	}
	if err != nil {
		return err
	}
	if out.ID != "" {
		fmt.Fprintf(c.App.ErrWriter, "gb-ovs-setup: the change %s is rolled back at %s\nhint: if all is well: gb-ovs-setup confirm %[1]s\n",
			out.ID, out.ConfirmBy.Local().Format(time.TimeOnly))
	}
	if !out.Changed && c.Bool("exit-code") {
		return cli.Exit(cli.ExitNothing)
	}
	return nil
}
