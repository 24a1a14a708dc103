package main

import (
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/hoststate"
	"github.com/ghostbridge/ghostbridge/pkg/names"
	"github.com/ghostbridge/ghostbridge/pkg/ovs"
)

// hostFlags are those of every command that knows the host's state.
func hostFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "state", EnvVars: []string{"GB_STATE"}, Value: names.HostStateDir, Usage: "`DIR` of the journal of the desired state"},
		&cli.StringFlag{Name: "db", EnvVars: []string{"GB_OVS_DB"}, Value: "unix:/var/run/openvswitch/db.sock", Usage: "the switch's database, unix:`PATH`; ovs-vswitchd's sockets are beside it, or in $OVS_RUNDIR"},
		&cli.StringFlag{Name: "ovs-state", EnvVars: []string{"GB_OVS_STATE"}, Value: names.OVSStateDir, Usage: "`DIR` of the switch's checkpoints and of its confirmed configuration"},
		&cli.StringFlag{Name: "ovs-config", EnvVars: []string{"GB_OVS_CONFIG"}, Value: names.OVSConfig, Usage: "`FILE` that says what bridges there are where nothing was ever confirmed"},
		&cli.DurationFlag{Name: "ovs-timeout", EnvVars: []string{"GB_OVS_TIMEOUT"}, Value: 10 * time.Second, Usage: "how long the switch may take for a step: a `DURATION`"},
		&cli.StringFlag{Name: "ovs-socket", EnvVars: []string{"GB_OVS_SOCKET"}, Value: names.SwitchSocket, Usage: "`SOCKET` of who changes the switch; where there is none this process does"},
		&cli.StringFlag{Name: "root", EnvVars: []string{"GB_ROOT"}, Value: "/", Usage: "`DIR` in which the host's files are looked for"},
	}
}

// switchHost is the switch of the flags.
func switchHost(c *cli.Context) (*hoststate.SwitchHost, error) {
	remote, runDir := c.String("db"), os.Getenv("OVS_RUNDIR")
	if path, ok := strings.CutPrefix(remote, "unix:"); ok && runDir == "" {
		runDir = filepath.Dir(path)
	}
	state, err := filepath.Abs(c.String("ovs-state"))
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
	timeout := c.Duration("ovs-timeout")
	// Whatever becomes of this process, gb-ovs-setup takes back what nobody
	// confirms.
	guard := &ovs.Guard{Argv: []string{filepath.Join(filepath.Dir(self), names.GBOVSSetup), "rollback", "--db", remote, "--timeout", timeout.String(),
		"--state", state, "--socket", c.String("socket"), "--spool", spool}}
	logger := cli.Logger(c.App.ErrWriter)
	store := &ovs.Store{Dir: state}
	return &hoststate.SwitchHost{
		Config: c.String("ovs-config"), Store: store,
		Open: func() hoststate.Switch {
			s := &ovs.Setup{Remote: remote, RunDir: runDir, Timeout: timeout, Store: store, Journal: &ovs.Journal{Socket: c.String("socket"), Spool: spool},
				Log: logger, Arm: guard.Arm, Disarm: guard.Disarm}
			if _, err := os.Stat(c.String("ovs-socket")); err == nil {
				return &ovs.Remote{Setup: s, Socket: c.String("ovs-socket")}
			}
			return s
		},
	}, nil
}
