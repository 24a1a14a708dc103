package main

import (
	"context"
	"os"

	"github.com/ghostbridge/ghostbridge/pkg/bus"
	"github.com/ghostbridge/ghostbridge/pkg/chain"
	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/names"
	"github.com/ghostbridge/ghostbridge/pkg/opdbus"
	"github.com/ghostbridge/ghostbridge/pkg/systemd"
)

func serveCommand() *cli.Command {
	return &cli.Command{
		Name:  "serve",
		Usage: "be the choke point on a bus, as " + names.BusName,
		Description: `Owns the name ` + names.BusName + ` and makes calls of other services for its
callers, whom the bus names: policy, polkit and approvals decide, the intent is
durable before the call, and the outcome before the next intent. Where the log's
daemon does not take the intent, nothing is done. It also answers questions about the log.

The policy file is read anew when it changes; one that can't be read denies every
change. A lost bus ends the process: systemd starts it again.

Examples:

   opdbus serve --bus unix:path=/tmp/bus
   busctl introspect ` + names.BusName + ` ` + names.BusObject,
		Flags: append(hostFlags(),
			&cli.StringFlag{Name: "bus", EnvVars: []string{"GB_BUS"}, Value: bus.System, Usage: "`BUS`: system, session or an address"},
			&cli.StringFlag{Name: "mcp-user", EnvVars: []string{"GB_MCP_USER"}, Value: names.MCPUser, Usage: "`USER` that may speak for AI agents"},
			&cli.StringFlag{Name: "snapshots", EnvVars: []string{"GB_SNAPSHOTS"}, Value: names.SnapshotsDir, Usage: "`DIR` of snapshots"},
			policyFlag(), approvalsFlag(), logFlag(), chainSocketFlag(), spoolFlag(),
			&cli.StringFlag{Name: "search", EnvVars: []string{"GB_SEARCH_SOCKET"}, Value: names.SearchSocket, Usage: "`SOCKET` of the search"},
			&cli.StringFlag{Name: "web-user", EnvVars: []string{"GB_WEB_USER"}, Value: names.WebUser, Usage: "`USER` of gb-web, who alone may speak for people who have logged in to it"},
			&cli.StringFlag{Name: "approvers", EnvVars: []string{"GB_APPROVERS"}, Value: names.ApproversDir, Usage: "`DIR` of the security keys of people who approve in gb-web"},
		),
		Action: runServe,
	}
}

func runServe(c *cli.Context) error {
	if c.Args().Present() {
		return cli.Usagef("serve takes no argument")
	}
	if _, err := opdbus.LoadPolicy(c.String("policy")); err != nil {
		return err
	}
	logger := cli.Logger(c.App.ErrWriter)
	journal := &opdbus.LogJournal{Socket: c.String("socket")}
	if created, err := chain.ReadCreated(os.DirFS(c.String("log"))); err == nil {
		journal.Key = created.LogKey.String()
	} else {
		logger.Warn("the log can't be read: whichever log the daemon has is taken", "log", c.String("log"), "error", err)
	}
	defer journal.Close()
	host, err := switchHost(c)
	if err != nil {
		return err
	}
	var watchdog systemd.Watchdog
	d := &opdbus.Daemon{
		Address: c.String("bus"), LogDir: c.String("log"), PolicyFile: c.String("policy"), SearchSocket: c.String("search"), StateDir: c.String("state"), Root: c.String("root"), Switch: host, Version: cli.Version(), Logger: logger,
		MCPUser: c.String("mcp-user"), SnapshotsDir: c.String("snapshots"),
		Gate: &opdbus.Gate{Journal: journal, Approvals: &opdbus.Approvals{Dir: c.String("approvals")}, Spool: &opdbus.Spool{Dir: c.String("spool")},
			DeferOutcomes: true, Lost: func(err error) { logger.Error("outcome", "error", err) }},
		Ready: func() {
			if _, err := systemd.Notify("READY=1"); err != nil {
				logger.Warn("notify", "error", err)
			}
		},
		Alive: watchdog.Alive,
	}
	d.Logins.User, d.Logins.Dir = c.String("web-user"), c.String("approvers")
	if c.String("bus") != bus.System {
		// polkit is on the system bus, which knows nothing of who calls on this one.
		if resolved, err := bus.Resolve(bus.System); err != nil || resolved != c.String("bus") {
			d.Gate.Polkit = opdbus.NoAuthority{Err: errOtherBus}
		}
	}
	defer context.AfterFunc(c.Context, func() { systemd.Notify("STOPPING=1") })()
	err = d.Serve(c.Context)
	logger.Info("stopped")
	return err
}
