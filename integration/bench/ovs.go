//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/vswitch"
	"github.com/ghostbridge/ghostbridge/pkg/names"
	"github.com/ghostbridge/ghostbridge/pkg/ovs"
	"github.com/ghostbridge/ghostbridge/pkg/ovsdb"
)

// switches compare bringing up two bridges and four ports, and finding them
// up, with the runs of ovs-vsctl that a script would make of it: one command a
// run, each waiting until the switch has done it, as ovs-vsctl does by default.
// They start from the same database and the same switch, and what they leave
// in the database is compared after each round: the same, but for UUIDs. Ours
// also records what it does, checks offloads, brings links up and judges every
// port.
var switches = []comparison{
	{
		name:    "ovs/apply",
		title:   "two bridges and four ports, from nothing until the switch has them",
		rounds:  21,
		metrics: []metric{{"time", "ms", less}},
		wants: []want{ // twenty times as quick
			{"read, plan, commit, settle", "time", atMost, 0.05, sequenceName},
			{"gb-ovs-setup apply", "time", atMost, 0.05, sequenceName},
		},
		setup: func(ctx context.Context, e *env) ([]contender, error) { return switchContenders(e, false) },
	},
	{
		name:    "ovs/noop",
		title:   "the same again, when all is as it should be",
		rounds:  21,
		metrics: []metric{{"time", "ms", less}},
		wants:   []want{{"gb-ovs-setup apply", "time", atMost, 15, ""}},
		setup:   func(ctx context.Context, e *env) ([]contender, error) { return switchContenders(e, true) },
	},
}

// untagged are the runs of ovs-vsctl of one who does not say whose rows they
// are.
var untagged = []string{
	"set Open_vSwitch . other_config:hw-offload=false",
	"--may-exist add-br ovsbr0 -- set bridge ovsbr0 datapath_type=netdev",
	"set-fail-mode ovsbr0 standalone",
	"--may-exist add-br ovsbr1 -- set bridge ovsbr1 datapath_type=netdev",
	"set-fail-mode ovsbr1 standalone",
	"--may-exist add-port ovsbr0 ens1",
	"--may-exist add-port ovsbr0 p1",
	"--may-exist add-port ovsbr1 va",
	"--may-exist add-port ovsbr1 p2",
	"set port va tag=7",
	"set interface p1 type=internal",
	"set interface p2 type=internal",
	"set bridge ovsbr0 other_config:hwaddr=02:00:00:00:00:01",
}

// sequence are those that leave what ours leaves: every row says whose it is.
var sequence = func() []string {
	const tag = " external_ids:gb-owner=gb-ovs-setup"
	out := append(slices.Clone(untagged), `set Open_vSwitch . external_ids:gb-keys="o:hw-offload"`)
	for _, bridge := range []string{"ovsbr0", "ovsbr1"} {
		out = append(out, "set bridge "+bridge+tag)
	}
	for _, port := range []string{"ovsbr0", "ovsbr1", "ens1", "p1", "va", "p2"} {
		out = append(out, "set port "+port+tag, "set interface "+port+tag)
	}
	return out
}()

var sequenceName = fmt.Sprintf("%d runs of ovs-vsctl", len(sequence))

const sequenceConfig = `{"bridges": {
	"ovsbr0": {"datapath_type": "netdev", "mac": "02:00:00:00:00:01", "ports": {"ens1": {"type": "uplink"}, "p1": {"type": "internal"}}},
	"ovsbr1": {"datapath_type": "netdev", "ports": {"va": {"tag": 7}, "p2": {"type": "internal"}}}}}`

func switchContenders(e *env, noop bool) ([]contender, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("needs root for a network namespace")
	}
	s, down, err := vswitch.Make(vswitch.Options{})
	if err != nil {
		return nil, err
	}
	e.atEnd(down)
	far, err := s.Namespace()
	if err != nil {
		return nil, err
	}
	if err := errors.Join(s.Link("ens1", far, "wan0"), s.Link("va", far, "eth0")); err != nil {
		return nil, err
	}
	disk, err := e.dir("")
	if err != nil {
		return nil, err
	}
	memory, err := e.ram()
	if err != nil {
		return nil, err
	}
	if err := errors.Join(serveLog(e, disk), serveLog(e, memory)); err != nil {
		return nil, err
	}
	config := filepath.Join(disk, "ovs.json")
	if err := os.WriteFile(config, []byte(sequenceConfig), 0o644); err != nil {
		return nil, err
	}
	apply := func(dir string) func() error {
		return func() error {
			return vswitch.Enter(s.NS, func() error { // without the time of ip netns exec
				_, err := s.Run(e.tool(names.GBOVSSetup), "apply", "--config", config, "--db", s.DB,
					"--state", filepath.Join(dir, "state"), "--socket", filepath.Join(dir, "chain.sock"), "--spool", filepath.Join(dir, "spool"))
				return err
			})
		}
	}
	db, err := ovsdb.Dial(context.Background(), s.DB)
	if err != nil {
		return nil, err
	}
	e.atEnd(db.Close)
	var left []byte // in the database, by the first contender
	timed := func(same bool, do func() error) func(context.Context) (sample, error) {
		return func(ctx context.Context) (sample, error) {
			if !noop {
				if _, err := s.Vsctl("clear", "Open_vSwitch", ".", "bridges", "external_ids", "other_config"); err != nil {
					return nil, err
				}
			} else if err := do(); err != nil { // so that it finds its own
				return nil, err
			}
			begin := time.Now()
			err := do()
			took := milliseconds(time.Since(begin))
			if err != nil || !same {
				return sample{"time": took}, err
			}
			snap, err := ovs.TakeSnapshot(ctx, db)
			if err != nil {
				return nil, err
			}
			if left == nil {
				left = snap.Normalise()
			} else if now := snap.Normalise(); !bytes.Equal(now, left) {
				return nil, fmt.Errorf("the contenders leave different databases:\n%s---\n%s", left, now)
			}
			return sample{"time": took}, nil
		}
	}
	script := func(runs []string) func() error {
		return func() error {
			for _, line := range runs {
				if _, err := s.Vsctl(strings.Fields(line)...); err != nil {
					return err
				}
			}
			return nil
		}
	}
	one := strings.Fields(strings.Join(sequence, " -- "))
	return []contender{
		{name: sequenceName, run: timed(true, script(sequence))},
		{name: fmt.Sprintf("%d, without owner tags", len(untagged)), run: timed(false, script(untagged))},
		{name: "one run of ovs-vsctl", run: timed(true, func() error { _, err := s.Vsctl(one...); return err })},
		// What of it is the switch's: no process, no offloads, no log.
		{name: "read, plan, commit, settle", ours: true, run: timed(true, func() error { return transact(s.DB) })},
		{name: "gb-ovs-setup apply", ours: true, run: timed(true, apply(disk))},
		{name: "the same, the log in memory", ours: true, run: timed(true, apply(memory))},
	}, nil
}

// transact brings the switch to sequenceConfig and waits until it has done it.
func transact(remote string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	config, err := ovs.Parse([]byte(sequenceConfig))
	if err != nil {
		return err
	}
	db, err := ovsdb.Dial(ctx, remote)
	if err != nil {
		return err
	}
	defer db.Close()
	state, err := ovs.ReadState(ctx, db)
	if err != nil {
		return err
	}
	plan, err := ovs.NewPlan(config, state, ovs.Facts{MACs: map[string]string{"ens1": "02:00:00:00:00:01"}})
	if err != nil || !plan.ChangesDatabase() {
		return err
	}
	next, err := plan.Commit(ctx, db, "bench")
	if err != nil {
		return err
	}
	return ovs.Settle(ctx, db, next, []string{"ovsbr0", "ovsbr1", "ens1", "p1", "va", "p2"})
}

// serveLog runs a log's daemon on dir/chain.sock.
func serveLog(e *env, dir string) error {
	log, keys, socket := filepath.Join(dir, "log"), filepath.Join(dir, "keys"), filepath.Join(dir, "chain.sock")
	if out, err := exec.Command(e.tool(names.GBChain), "init", "--log", log, "--keys", keys, "--origin", "bench.example/log").CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	cmd := exec.Command(e.tool(names.GBChain), "serve", "--log", log, "--keys", keys, "--socket", socket)
	if err := cmd.Start(); err != nil {
		return err
	}
	e.atEnd(func() error {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
		return nil
	})
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(socket); err == nil {
			return nil
		}
	}
	return fmt.Errorf("%s did not come", socket)
}
