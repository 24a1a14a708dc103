package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/bus"
	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/names"
	"github.com/ghostbridge/ghostbridge/pkg/opdbus"
	"github.com/ghostbridge/ghostbridge/pkg/systemd"
	"github.com/ghostbridge/ghostbridge/pkg/web"
	"github.com/ghostbridge/ghostbridge/pkg/web/access"
)

func serveCommand() *cli.Command {
	return &cli.Command{
		Name:  "serve",
		Usage: "serve the web interface",
		Description: `Serves pages for people, a JSON interface for programs under /api/v1/ (described by
/api/v1/openapi.json), the log as C2SP tiles under /tlog/, /metrics for Prometheus,
/jsonrpc with the openflow methods, and /healthz.

Everything but /healthz, and /metrics on loopback, needs a login. Beyond loopback it
refuses to start without TLS. Started by systemd it takes the sockets that it was
started with: the TCP one for browsers, the Unix one for gb-web login.

Sessions are kept in --sessions, which is to be a directory that a boot empties, so
that a restart logs nobody out.

Examples:

   gb-web serve --log L --listen 127.0.0.1:8096 --socket ./web.sock --sessions ./sessions
   gb-web serve --listen 192.0.2.1:443 --tls-cert host.pem --tls-key host.key --host host.example`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "listen", EnvVars: []string{"GB_WEB_LISTEN"}, Value: fmt.Sprintf("127.0.0.1:%d", names.WebPort), Usage: "`ADDRESS` for browsers"},
			&cli.StringFlag{Name: "log", EnvVars: []string{"GB_LOG"}, Value: names.LogDir, Usage: "`DIR` of the log"},
			&cli.StringFlag{Name: "search", EnvVars: []string{"GB_SEARCH_SOCKET"}, Value: names.SearchSocket, Usage: "`SOCKET` of the search"},
			doorFlag(),
			&cli.StringFlag{Name: "sessions", EnvVars: []string{"GB_WEB_SESSIONS"}, Value: names.WebSessionsDir, Usage: "`DIR` of the sessions"},
			&cli.StringFlag{Name: "witnesses", EnvVars: []string{"GB_WITNESSES"}, Value: names.WitnessDir, Usage: "`DIR` that says where the log's witnesses stand"},
			&cli.StringFlag{Name: "bus", EnvVars: []string{"GB_BUS"}, Value: bus.System, Usage: "`BUS` of the daemon opdbus, and to look at: system, session or an address; empty for none"},
			&cli.StringFlag{Name: "policy", EnvVars: []string{"GB_POLICY"}, Value: names.PolicyFile, Usage: "policy `FILE` of the daemon, to show"},
			&cli.StringFlag{Name: "snapshots", EnvVars: []string{"GB_SNAPSHOTS"}, Value: names.SnapshotsDir, Usage: "`DIR` of the snapshots; empty for none"},
			&cli.StringFlag{Name: "source", Usage: "the `SUBVOLUME` that they are of (default: the one that gb-snap take takes)"},
			&cli.StringFlag{Name: "run", EnvVars: []string{"GB_RUN"}, Value: names.RunDir, Usage: "`DIR` in which gb-snap take leaves how it goes"},
			&cli.StringFlag{Name: "cursor", EnvVars: []string{"GB_CURSOR"}, Value: names.CursorFile, Usage: "cursor `FILE` of the index; empty for none"},
			&cli.BoolFlag{Name: "no-doctor", EnvVars: []string{"GB_WEB_NO_DOCTOR"}, Usage: "don't check the host as opdbus doctor does"},
			&cli.StringFlag{Name: "tls-cert", EnvVars: []string{"GB_WEB_TLS_CERT"}, Usage: "certificate `FILE`, PEM"},
			&cli.StringFlag{Name: "tls-key", EnvVars: []string{"GB_WEB_TLS_KEY"}, Usage: "its key's `FILE`, PEM"},
			&cli.StringSliceFlag{Name: "host", EnvVars: []string{"GB_WEB_HOST"}, Usage: "`NAME` under which browsers reach it, beside localhost (may be repeated)"},
			&cli.StringFlag{Name: "url", EnvVars: []string{"GB_WEB_URL"}, Usage: "`URL` that login links begin with"},
			&cli.StringFlag{Name: "novnc", EnvVars: []string{"GB_NOVNC"}, Usage: "`URL` of the screens of virtual machines, to link to"},
		},
		Action: runServe,
	}
}

func runServe(c *cli.Context) error {
	if c.Args().Present() {
		return cli.Usagef("serve takes no argument")
	}
	cert, key := c.String("tls-cert"), c.String("tls-key")
	if (cert == "") != (key == "") {
		return cli.Usagef("--tls-cert and --tls-key go together")
	}
	base, err := url.Parse(c.String("url"))
	if err != nil || c.IsSet("url") && (base.Scheme != "https" && base.Scheme != "http" || base.Host == "" || strings.Trim(base.Path, "/") != "" || base.RawQuery != "") {
		return cli.Usagef("--url %q: want one like https://host.example:8096", c.String("url"))
	}
	logger := cli.Logger(c.App.ErrWriter)
	browsers, doors, err := webListeners(c)
	if err != nil {
		return err
	}
	for _, l := range browsers {
		if err := web.CheckListener(l, cert != ""); err != nil {
			return err
		}
	}
	sessions := &access.Sessions{Dir: c.String("sessions")}
	hosts := c.StringSlice("host")
	if base.Host != "" {
		hosts = append(hosts, base.Hostname())
	}
	var watchdog systemd.Watchdog
	o := web.Options{
		LogDir: c.String("log"), Sessions: sessions, Hosts: hosts, Secure: cert != "", Search: web.SearchSocket(c.String("search")),
		WitnessDir: c.String("witnesses"), PolicyFile: c.String("policy"), CursorFile: c.String("cursor"),
		Version: cli.Version(), NoVNC: c.String("novnc"), Logger: logger, Alive: watchdog.Alive,
	}
	parts(c, &o)
	s, err := web.New(o)
	if err != nil {
		return err
	}
	scheme := "http"
	if cert != "" {
		scheme = "https"
		config, err := web.Certificate(cert, key)
		if err != nil {
			return err
		}
		for i := range browsers {
			browsers[i] = tls.NewListener(browsers[i], config)
		}
	}
	door := &access.Door{Sessions: sessions, Groups: access.DefaultGroups(), Logger: logger, Base: func() string {
		if base.Host != "" {
			return base.Scheme + "://" + base.Host
		}
		return scheme + "://" + linkHost(browsers[0].Addr(), hosts)
	}}
	for _, l := range doors {
		go func() {
			if err := door.Serve(l); err != nil {
				logger.Error("logins", "error", err)
			}
		}()
		defer l.Close()
	}
	go s.Run(c.Context)
	logger.Info("serving", "log", c.String("log"), "address", browsers[0].Addr().String(), "logins", doors[0].Addr().String())
	if _, err := systemd.Notify("READY=1"); err != nil {
		logger.Warn("notify", "error", err)
	}
	defer context.AfterFunc(c.Context, func() { systemd.Notify("STOPPING=1") })()
	err = s.Serve(c.Context, browsers...)
	logger.Info("stopped")
	return err
}

// parts are what the flags name beside the log.
func parts(c *cli.Context, o *web.Options) {
	if address := c.String("bus"); address != "" {
		o.Bus = &web.BusLink{Address: address}
		o.Daemon = web.BusDaemon{Link: o.Bus}
		o.Switch = web.DaemonSwitch{Daemon: o.Daemon}
	}
	if dir := c.String("snapshots"); dir != "" {
		o.Snapshots = web.SnapshotsDir{Dir: dir, Run: c.String("run"), Source: c.String("source"), Period: time.Second}
	}
	if !c.Bool("no-doctor") {
		o.Doctor = doctor(c)
	}
}

// doctor checks the host as opdbus doctor does, as far as this user may.
func doctor(c *cli.Context) func(context.Context) []web.Finding {
	d := &opdbus.Doctor{Address: c.String("bus"), LogDir: c.String("log"), PolicyFile: c.String("policy"), Spool: &opdbus.Spool{Dir: names.SpoolDir}, Root: "/"}
	if self, err := os.Executable(); err == nil {
		d.Tools = filepath.Dir(self)
	}
	return func(ctx context.Context) []web.Finding {
		var list []web.Finding
		for _, check := range opdbus.Checks() {
			f := d.Run(ctx, check)
			list = append(list, web.Finding{Check: f.Check, State: f.State, Evidence: f.Evidence, Remedy: f.Remedy})
		}
		return list
	}
}

// webListeners returns the sockets that systemd has passed, else those that the
// flags name.
func webListeners(c *cli.Context) (browsers, doors []net.Listener, err error) {
	passed, err := systemd.Listeners()
	if err != nil {
		return nil, nil, err
	}
	for _, l := range passed {
		if _, ok := l.(*net.UnixListener); ok {
			doors = append(doors, l)
		} else {
			browsers = append(browsers, l)
		}
	}
	if len(browsers) == 0 {
		l, err := net.Listen("tcp", c.String("listen"))
		if err != nil {
			return nil, nil, fmt.Errorf("--listen: %w", err)
		}
		browsers = append(browsers, l)
	}
	if len(doors) == 0 {
		l, err := systemd.ListenUnix(c.String("socket"))
		if err != nil {
			return nil, nil, err
		}
		doors = append(doors, l)
	}
	return browsers, doors, nil
}

// linkHost is the host and port of login links. On loopback it is localhost:
// security keys know no addresses.
func linkHost(a net.Addr, hosts []string) string {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return a.String()
	}
	port := fmt.Sprint(tcp.Port)
	switch {
	case len(hosts) > 0:
		return net.JoinHostPort(hosts[0], port)
	case tcp.IP.IsLoopback() || tcp.IP.IsUnspecified():
		return net.JoinHostPort("localhost", port)
	}
	return tcp.String()
}
