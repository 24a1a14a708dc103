// Gb-web is the web interface: see its man page.
package main

import (
	"github.com/ghostbridge/ghostbridge/pkg/bus"
	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/names"
)

func main() { cli.Main(app()) }

func app() *cli.App {
	return &cli.App{
		Name:  names.GBWeb,
		Usage: "the web interface: see the host's changes, search them, approve them",
		Description: `gb-web shows the log of changes in a browser: what happened, live and before; search
in plain words; bridges, snapshots, D-Bus; what waits for a person's approval. It
listens on 127.0.0.1:8096 and asks for a login.

   gb-web login

prints a link that logs a browser in, once, within two minutes. root may log in,
and members of the groups ghostbridge (as viewer), gb-operators (who may ask for
changes) and gb-approvers (who may approve what others ask for). From another
machine: ssh -L 8096:127.0.0.1:8096 HOST.

gb-web reads the log and changes nothing itself: changes go to the daemon opdbus
in the name of who has logged in, where the policy decides and the log records.

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 75 temporary.`,
		Commands: []*cli.Command{serveCommand(), loginCommand()},
		Values:   map[string][]string{"ROLE": {"viewer", "operator", "approver"}, "BUS": {bus.System, bus.Session}},
	}
}
