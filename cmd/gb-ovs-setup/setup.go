package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/names"
	"github.com/ghostbridge/ghostbridge/pkg/ovs"
)

func configFlag() cli.Flag {
	return &cli.StringFlag{Name: "config", Aliases: []string{"c"}, EnvVars: []string{"GB_OVS_CONFIG"}, Value: names.OVSConfig,
		Usage: "the desired state, a JSON `FILE`; - is standard input"}
}

// setupFlags are those of every command that talks to the switch.
func setupFlags(more ...cli.Flag) []cli.Flag {
	return append(more,
		&cli.StringFlag{Name: "db", EnvVars: []string{"GB_OVS_DB"}, Value: "unix:/var/run/openvswitch/db.sock", Usage: "the switch's database, unix:`PATH`; ovs-vswitchd's sockets are beside it, or in $OVS_RUNDIR"},
		&cli.DurationFlag{Name: "timeout", EnvVars: []string{"GB_OVS_TIMEOUT"}, Value: 10 * time.Second, Usage: "how long the switch may take for a step: a `DURATION`"},
		&cli.StringFlag{Name: "state", EnvVars: []string{"GB_OVS_STATE"}, Value: names.OVSStateDir, Usage: "`DIR` of checkpoints and of the confirmed configuration"},
		&cli.StringFlag{Name: "socket", EnvVars: []string{"GB_CHAIN_SOCKET"}, Value: names.ChainSocket, Usage: "the log daemon's `SOCKET`"},
		&cli.StringFlag{Name: "spool", EnvVars: []string{"GB_SPOOL"}, Value: names.SpoolDir, Usage: "`DIR` in which events of what restores wait for the log"},
	)
}

// setup makes the switch of the flags.
func setup(c *cli.Context) (*ovs.Setup, error) {
	remote, state := c.String("db"), c.String("state")
	runDir := os.Getenv("OVS_RUNDIR")
	if path, ok := strings.CutPrefix(remote, "unix:"); ok && runDir == "" {
		runDir = filepath.Dir(path)
	}
	state, err := filepath.Abs(state)
	if err != nil {
		return nil, err
	}
	spool, err := filepath.Abs(c.String("spool"))
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	guard := &ovs.Guard{Argv: []string{self, "rollback", "--db", remote, "--timeout", c.Duration("timeout").String(),
		"--state", state, "--socket", c.String("socket"), "--spool", spool}}
	return &ovs.Setup{
		Remote: remote, RunDir: runDir, Timeout: c.Duration("timeout"),
		Store:   &ovs.Store{Dir: state},
		Journal: &ovs.Journal{Socket: c.String("socket"), Spool: spool},
		Log:     cli.Logger(c.App.ErrWriter),
		Arm:     guard.Arm, Disarm: guard.Disarm,
	}, nil
}

// readConfig reads the desired state.
func readConfig(c *cli.Context) (*ovs.Config, error) {
	if c.Args().Present() {
		return nil, cli.Usagef("%s takes no argument; the desired state is --config FILE", c.Command.Name)
	}
	return loadConfig(c)
}

func loadConfig(c *cli.Context) (*ovs.Config, error) {
	in, err := cli.OpenInput(c, c.String("config"))
	if err != nil {
		return nil, cli.WithHint(cli.Usagef("desired state: %w", err), "gb-ovs-setup --help shows a small one; gb-ovs-setup schema says what it may hold")
	}
	defer in.Close()
	data, err := io.ReadAll(io.LimitReader(in, ovs.MaxConfig+1))
	if err != nil {
		return nil, cli.Usagef("desired state: %w", err)
	}
	config, err := ovs.Parse(data)
	if err != nil {
		return nil, cli.WithHint(cli.Usagef("%s: %w", c.String("config"), err), hintOf(err))
	}
	return config, nil
}

func hintOf(err error) string {
	if h, ok := err.(interface{ Hint() string }); ok {
		return h.Hint()
	}
	return ""
}
