package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/bus"
	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/mcp"
	"github.com/ghostbridge/ghostbridge/pkg/names"
	"github.com/ghostbridge/ghostbridge/pkg/systemd"
)

func mcpCommand() *cli.Command {
	return &cli.Command{
		Name:  "mcp",
		Usage: "be the MCP server for AI agents",
		Description: `Lets AI agents see this host, and change it as far as policy and people allow, each
step recorded. It has no privileges: what it does goes through opdbus serve.

Without --listen it speaks with one agent on standard input and output. That agent
is the client mcp:user:NAME of the policy, where NAME is who runs this, and polkit
is asked about that user.

With --listen, or a socket of systemd's, it serves many over HTTP at ` + mcp.Endpoint + `, each with
a token (opdbus token add) and as the client mcp:TOKEN. Its user must be the one that
opdbus serve --mcp-user names. It listens on Unix sockets and on loopback only.

With --server it carries what an agent says on standard input to such a server, and
back, with the token in --token-file.

Examples:

   opdbus mcp --read-only
   opdbus mcp --listen 127.0.0.1:8097
   opdbus mcp --server unix:` + names.MCPSocket + ` --token-file ~/.config/ghostbridge/token`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "bus", EnvVars: []string{"GB_BUS"}, Value: bus.System, Usage: "`BUS`: system, session or an address"},
			&cli.BoolFlag{Name: "read-only", EnvVars: []string{"GB_MCP_READ_ONLY"}, Usage: "offer no tool that changes something"},
			&cli.StringSliceFlag{Name: "listen", EnvVars: []string{"GB_MCP_LISTEN"}, Usage: "serve on `ADDRESS`: unix:PATH, or host:port on loopback"},
			&cli.StringSliceFlag{Name: "host", EnvVars: []string{"GB_MCP_HOSTS"}, Usage: "a `NAME` beside localhost that requests may be for, behind a proxy"},
			tokensFlag(),
			&cli.StringFlag{Name: "web", EnvVars: []string{"GB_WEB_URL"}, Usage: "`URL` of gb-web, where people answer approvals"},
			&cli.DurationFlag{Name: "approval-wait", EnvVars: []string{"GB_MCP_APPROVAL_WAIT"}, Value: mcp.DefaultApprovalWait, Usage: "how long a call waits for a person, once its client asks one"},
			&cli.StringFlag{Name: "server", EnvVars: []string{"GB_MCP_SERVER"}, Usage: "carry standard input and output to the server at `ADDRESS`"},
			&cli.StringFlag{Name: "token-file", EnvVars: []string{"GB_MCP_TOKEN_FILE"}, Usage: "`FILE` with the token for --server"},
		},
		Action: runMCP,
	}
}

func runMCP(c *cli.Context) error {
	if c.Args().Present() {
		return cli.Usagef("mcp takes no argument")
	}
	if server := c.String("server"); server != "" {
		if c.IsSet("listen") {
			return cli.Usagef("--server and --listen exclude each other")
		}
		return runBridge(c, server)
	}
	logger := cli.Logger(c.App.ErrWriter)
	web := c.String("web")
	if u, err := url.Parse(web); web != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
		return cli.Usagef("--web %q: want a URL like http://127.0.0.1:%d", web, names.WebPort)
	}
	listeners, err := systemd.Listeners()
	if err != nil {
		return err
	}
	for _, address := range c.StringSlice("listen") {
		l, err := listenMCP(address)
		if err != nil {
			return err
		}
		defer l.Close()
		listeners = append(listeners, l)
	}
	conn, err := bus.Connect(c.Context, c.String("bus"))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, lost := context.WithCancelCause(c.Context)
	defer lost(nil)
	go func() {
		select {
		case <-conn.Done():
			lost(fmt.Errorf("bus %s: %w", c.String("bus"), bus.ErrClosed))
		case <-ctx.Done():
		}
	}()
	server := mcp.New(mcp.Options{Daemon: mcp.NewBus(conn), Version: cli.Version(), ReadOnly: c.Bool("read-only"), WebURL: web, ApprovalWait: c.Duration("approval-wait"), Logger: logger})
	defer server.Close()
	if len(listeners) == 0 {
		err := server.RunStdio(ctx, os.Stdin, os.Stdout)
		if cause := context.Cause(ctx); cause != nil && c.Context.Err() == nil {
			return cause
		}
		if c.Context.Err() != nil || err == io.EOF {
			return nil
		}
		return err
	}
	if _, err := systemd.Notify("READY=1"); err != nil {
		logger.Warn("notify", "error", err)
	}
	defer context.AfterFunc(c.Context, func() { systemd.Notify("STOPPING=1") })()
	go alive(ctx, conn)
	for _, l := range listeners {
		logger.Info("serving agents", "network", l.Addr().Network(), "address", l.Addr().String(), "path", mcp.Endpoint)
	}
	if err := server.Serve(ctx, mcp.HTTPOptions{Tokens: &mcp.Tokens{File: c.String("tokens")}, Hosts: c.StringSlice("host")}, listeners...); err != nil {
		return err
	}
	if cause := context.Cause(ctx); c.Context.Err() == nil {
		return cause
	}
	logger.Info("stopped")
	return nil
}

// alive feeds the watchdog for as long as the bus answers.
func alive(ctx context.Context, conn *bus.Conn) {
	var watchdog systemd.Watchdog
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		asked, cancel := context.WithTimeout(ctx, 5*time.Second)
		if _, err := conn.Owner(asked, conn.Unique(), false); err == nil {
			if _, err = conn.Owner(asked, "org.freedesktop.DBus", false); err == nil {
				watchdog.Alive()
			}
		}
		cancel()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// listenMCP listens on a Unix socket or on loopback: elsewhere a token could be
// read on the way.
func listenMCP(address string) (net.Listener, error) {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		return systemd.ListenUnix(path)
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, cli.Usagef("--listen %q: want unix:PATH or host:port", address)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, cli.WithHint(cli.Usagef("--listen %s is not loopback: tokens would go over the network in the clear", address), "put a proxy with TLS before 127.0.0.1, and name its host with --host")
	}
	return net.Listen("tcp", address)
}

func runBridge(c *cli.Context, server string) error {
	file := c.String("token-file")
	if file == "" {
		return cli.WithHint(cli.Usagef("--token-file is missing"), "opdbus token add NAME prints a token")
	}
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return cli.WithHint(cli.Usagef("%s: others may read it (mode %04o)", file, info.Mode().Perm()), "chmod 600 "+file)
	}
	token, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if strings.HasPrefix(server, "http://") || strings.HasPrefix(server, "https://") {
		u, err := url.Parse(server)
		if err != nil {
			return cli.Usagef("--server %q: %v", server, err)
		}
		if ip := net.ParseIP(u.Hostname()); u.Scheme == "http" && u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return cli.Usagef("--server %s: the token would go over the network in the clear", server)
		}
	}
	return (&mcp.Bridge{Server: server, Token: strings.TrimSpace(string(token))}).Run(c.Context, os.Stdin, os.Stdout)
}
