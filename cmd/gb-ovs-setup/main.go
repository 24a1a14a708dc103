// Gb-ovs-setup brings Open vSwitch to a desired state: see its man page.
package main

import (
	"runtime"

	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/names"
)

func main() {
	// It mostly waits: waking another thread costs more than it gains.
	runtime.GOMAXPROCS(1)
	cli.Main(app())
}

func app() *cli.App {
	return &cli.App{
		Name:  names.GBOVSSetup,
		Usage: "bridges that come up clean, and never lock you out",
		Description: `gb-ovs-setup reads which bridges, ports, offloads and flows there should be
from one JSON file, and brings Open vSwitch there in one transaction. It judges
by what the switch writes back, not by exit codes. Every row that it makes
carries external_ids:gb-owner; only such rows are ever removed.

   gb-ovs-setup plan
   gb-ovs-setup apply --confirm-timeout 90s
   gb-ovs-setup confirm

A change of the way by which you came is applied with --confirm-timeout: what
was there is kept, and comes back by itself unless you confirm in time, also
after a crash or a boot. Boots apply the configuration confirmed last.

A small file:

   {"bridges": {
     "ovsbr0": {"ports": {"ens1": {"type": "uplink"}}, "flows": {"default": true}},
     "ovsbr1": {"flows": {"default": true, "isolate": ["ovsbr0"]}}}}

Guests come onto a bridge by their own programs. What those attach is not ours:
it is reported and stays.

   QEMU     -netdev tap,ifname=tap0,script=no; "tap0": {} among the ports
   libvirt  <source bridge='ovsbr1'/><virtualport type='openvswitch'/>
   LXC      lxc.net.0.type = veth, lxc.net.0.link = ovsbr1
   Docker   ovs-docker add-port ovsbr1 eth1 CONTAINER --ipaddress=10.0.1.9/24
   Incus    incus config device add GUEST eth0 nic nictype=bridged parent=ovsbr1

The first three are tested with traffic, Docker's form on a network namespace
without dockerd; Incus' was not run. On the userspace datapath watch switches
off checksum offload at the guest's end of a veth, without which TCP fails.

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 4 nothing to do
(with --exit-code), 75 the log does not take what is about to be done.`,
		Commands: []*cli.Command{
			planCommand(), applyCommand(), confirmCommand(), rollbackCommand(), statusCommand(), watchCommand(),
			renderCommand(), schemaCommand(), answerCommand(),
		},
	}
}
