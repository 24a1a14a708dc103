// Opdbus is D-Bus for people, programs and AI agents: see its man page.
package main

import (
	"github.com/ghostbridge/ghostbridge/pkg/bus"
	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/mcp"
	"github.com/ghostbridge/ghostbridge/pkg/names"
	"github.com/ghostbridge/ghostbridge/pkg/opdbus"
)

func main() { cli.Main(app()) }

func app() *cli.App {
	return &cli.App{
		Name:  names.OPDBus,
		Usage: "D-Bus for people, programs and AI agents, with one choke point",
		Description: `opdbus looks at a D-Bus bus and changes what is behind it. Values are JSON, without
loss; FORMATS.md has the forms.

   opdbus names
   opdbus tree org.freedesktop.systemd1
   opdbus get org.freedesktop.hostname1 /org/freedesktop/hostname1 org.freedesktop.hostname1.Hostname

--bus names the bus: system (the default), session, or an address such as
unix:path=/run/dbus/system_bus_socket.

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 verification
failed, 4 nothing to do, with --exit-code, 75 temporary, try again.`,
		Commands: []*cli.Command{
			namesCommand(), treeCommand(), introspectCommand(), describeCommand(), getCommand(), watchCommand(),
			callCommand(), setCommand(), planCommand(), applyCommand(), confirmCommand(), rollbackCommand(), diffCommand(), changesCommand(), stateCommand(), schemaCommand(),
			approvalsCommand(), intentsCommand(), policyCommand(), serveCommand(), mcpCommand(), tokenCommand(), doctorCommand(),
		},
		Values: map[string][]string{
			"BUS":    {bus.System, bus.Session},
			"KIND":   {opdbus.KindCall, opdbus.KindSet},
			"WHAT":   opdbus.Found(),
			"SCOPES": {mcp.ScopeRead, mcp.ScopeRead + "," + mcp.ScopePropose, mcp.ScopeRead + "," + mcp.ScopePropose + "," + mcp.ScopeExecute},
		},
	}
}
