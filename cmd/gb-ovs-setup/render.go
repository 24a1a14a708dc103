package main

import (
	"io"
	"net"

	"github.com/ghostbridge/ghostbridge/pkg/cli"
)

func renderCommand() *cli.Command {
	return &cli.Command{
		Name:  "render",
		Usage: "print what other programs are to be told",
		Description: `Prints what the desired state means for programs that own it: nft(8) owns the
translation of a bridge's network, systemd-networkd owns addresses and DHCP.`,
		Subcommands: []*cli.Command{{
			Name:  "nftables",
			Usage: "print the ruleset for nat",
			Description: `Prints the nftables ruleset of the desired state's nat: masquerading, a
filter by which nothing outside begins a connection to the bridge's network,
and the kill switch, by which nothing leaves but through the tunnel.
Forwarding itself (net.ipv4.ip_forward) is the host's.

Example:

   gb-ovs-setup render nftables | nft -f -`,
			Flags: []cli.Flag{configFlag()},
			Action: func(c *cli.Context) error {
				config, err := readConfig(c)
				if err != nil {
					return err
				}
				rules, err := config.Nftables()
				if err != nil {
					return cli.Usagef("%s: %w", c.String("config"), err)
				}
				_, err = io.WriteString(c.App.Writer, rules)
				return err
			},
		}, {
			Name:      "networkd",
			Usage:     "print a .network file for a link",
			ArgsUsage: "LINK",
			Description: `Prints the file with which systemd-networkd runs a link as the desired state
wants it: nothing on an uplink, DHCP on its bridge, and on the bridge of nat
the first address of its network and a DHCP server.

Example:

   gb-ovs-setup render networkd ovsbr1 > /etc/systemd/network/20-ovsbr1.network`,
			Flags: []cli.Flag{configFlag()},
			BashComplete: func(c *cli.Context) {
				links, err := net.Interfaces()
				if err != nil || c.Args().Present() {
					return
				}
				for _, l := range links {
					cli.Offer(c, l.Name, l.HardwareAddr.String())
				}
			},
			Action: func(c *cli.Context) error {
				if c.Args().Len() != 1 {
					return cli.Usagef("render networkd takes the name of one link")
				}
				config, err := loadConfig(c)
				if err != nil {
					return err
				}
				text, err := config.NetworkFile(c.Args().First())
				if err != nil {
					return cli.Usagef("%w", err)
				}
				_, err = io.WriteString(c.App.Writer, text)
				return err
			},
		}},
	}
}
