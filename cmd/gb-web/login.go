package main

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/names"
	"github.com/ghostbridge/ghostbridge/pkg/web/access"
)

func doorFlag() cli.Flag {
	return &cli.StringFlag{Name: "socket", EnvVars: []string{"GB_WEB_SOCKET"}, Value: names.WebSocket, Usage: "`SOCKET` at which logins are asked for"}
}

func loginCommand() *cli.Command {
	return &cli.Command{
		Name:  "login",
		Usage: "print a link that logs a browser in",
		Description: `Prints a link that is good once, for two minutes; the login is good for 12 hours.
The kernel tells gb-web serve who asks. Without --role it is the highest that the
user may have: viewer sees everything; operator asks for changes, which the policy
decides about; approver answers what others asked for.

--token prints a token for programs instead, to be sent as Authorization: Bearer.

Examples:

   gb-web login --role viewer
   curl -H "Authorization: Bearer $(gb-web login --token)" http://127.0.0.1:8096/api/v1/overview`,
		Flags: []cli.Flag{
			doorFlag(),
			&cli.StringFlag{Name: "role", Usage: "log in as `ROLE`: viewer, operator or approver"},
			&cli.BoolFlag{Name: "token", Usage: "print a token for programs"},
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object"},
		},
		Action: runLogin,
	}
}

func runLogin(c *cli.Context) error {
	if c.Args().Present() {
		return cli.Usagef("login takes no argument")
	}
	r := access.Request{Token: c.Bool("token")}
	if s := c.String("role"); s != "" {
		var err error
		if r.Role, err = access.ParseRole(s); err != nil {
			return cli.Usagef("--role: %w", err)
		}
	}
	a, err := access.Ask(c.Context, c.String("socket"), r)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return cli.WithHint(fmt.Errorf("login: %w", err), "root may log in, and members of the group ghostbridge")
	case err != nil:
		return cli.WithHint(fmt.Errorf("login: %w", err), "is gb-web serve running? systemctl start dbus-mcp-web.socket")
	case a.Error != "":
		return cli.WithHint(fmt.Errorf("login: %s", a.Error), a.Hint)
	case c.Bool("json"):
		return cli.PrintJSON(c.App.Writer, a)
	case a.Token != "":
		_, err = fmt.Fprintln(c.App.Writer, a.Token)
	default:
		_, err = fmt.Fprintln(c.App.Writer, a.URL)
	}
	fmt.Fprintf(c.App.ErrWriter, "gb-web: for %s as %s, until %s\n", a.User, a.Role, a.Expires.Local().Format("15:04:05"))
	return err
}
