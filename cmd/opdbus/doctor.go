package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/ghostbridge/ghostbridge/pkg/bus"
	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/opdbus"
)

func doctorCommand() *cli.Command {
	return &cli.Command{
		Name:  "doctor",
		Usage: "look over the host: what must hold, with evidence and remedy",
		Description: `Checks the bus, the daemon, polkit and the policy; the log and whether each
intent has its outcome; bridges, snapshots, index and mounts; boot loader, SSH
keys, networkd. Each check is ok or failed. It changes nothing. Exit code 1 if
one failed.

Examples:

   opdbus doctor
   opdbus doctor --dbus
   opdbus doctor --json | jq -r 'select(.state == "failed") | .remedy'`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "bus", EnvVars: []string{"GB_BUS"}, Value: bus.System, Usage: "`BUS`: system, session or an address"},
			logFlag(), policyFlag(), spoolFlag(),
			&cli.BoolFlag{Name: "dbus", Usage: "only what concerns D-Bus"},
			&cli.BoolFlag{Name: "json", Usage: "print JSON"},
		},
		Action: runDoctor,
	}
}

func runDoctor(c *cli.Context) error {
	if c.Args().Present() {
		return cli.Usagef("doctor takes no argument")
	}
	d := &opdbus.Doctor{Address: c.String("bus"), LogDir: c.String("log"), PolicyFile: c.String("policy"), Spool: &opdbus.Spool{Dir: c.String("spool")}, Root: "/"}
	if self, err := os.Executable(); err == nil {
		d.Tools = filepath.Dir(self)
	}
	failed := 0
	for _, check := range opdbus.Checks() {
		if c.Bool("dbus") && !check.DBus {
			continue
		}
		f := d.Run(c.Context, check)
		if f.State != opdbus.StateOK {
			failed++
		}
		if c.Bool("json") {
			if err := cli.PrintJSON(c.App.Writer, f); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintf(c.App.Writer, "%-6s  %-14s  %s\n", f.State, f.Check, cli.Printable(f.Evidence))
		if f.Remedy != "" {
			fmt.Fprintf(c.App.Writer, "%24s-> %s\n", "", f.Remedy)
		}
	}
	if err := c.Context.Err(); err != nil {
		return err
	}
	switch failed {
	case 0:
		return nil
	case 1:
		return errors.New("one check failed")
	}
	return fmt.Errorf("%d checks failed", failed)
}
