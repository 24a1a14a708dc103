package ovs

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/ghostbridge/ghostbridge/pkg/durable"
)

// networkdDir is where files for networkd go that end with the boot.
const networkdDir = "/run/systemd/network"

// networkdFile returns the .network file by which systemd-networkd runs a
// link, "" if it does not.
func networkdFile(link string) string {
	i, err := net.InterfaceByName(link)
	if err != nil {
		return ""
	}
	b, err := os.ReadFile(fmt.Sprintf("/run/systemd/netif/links/%d", i.Index))
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "NETWORK_FILE="); ok {
			return path
		}
	}
	return ""
}

// bridgeNetwork makes of an uplink's .network file that of its bridge: all of
// it, but for what it matches.
func bridgeNetwork(uplink []byte, bridge string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Made by gb-ovs-setup of the uplink's.\n[Match]\nName=%s\n", bridge)
	skip := true
	sc := bufio.NewScanner(bytes.NewReader(uplink))
	for sc.Scan() {
		line := strings.TrimSpace(sc.Text())
		if strings.HasPrefix(line, "[") {
			skip = line == "[Match]"
		}
		if !skip {
			b.WriteString(sc.Text() + "\n")
		}
	}
	return b.String()
}

// portNetwork is the .network file of an uplink that a bridge has.
func portNetwork(uplink string) string {
	return fmt.Sprintf(`# Made by gb-ovs-setup: this link belongs to a bridge.
[Match]
Name=%s
[Link]
RequiredForOnline=no
[Network]
DHCP=no
LinkLocalAddressing=no
IPv6AcceptRA=no
LLDP=no
`, uplink)
}

// tellNetworkd has networkd run the bridge as it ran the uplink, where it runs
// the uplink at all. Netlink has moved the addresses already, so that there is
// no gap.
func (s *Setup) tellNetworkd(ctx context.Context, uplink, bridge string, point *Checkpoint) error {
	path := networkdFile(uplink)
	if path == "" || strings.HasPrefix(filepath.Base(path), "00-gb-") {
		return nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("networkd's file of %s: %w", uplink, err)
	}
	files := map[string]string{
		filepath.Join(networkdDir, "00-gb-"+uplink+".network"): portNetwork(uplink),
		filepath.Join(networkdDir, "00-gb-"+bridge+".network"): bridgeNetwork(text, bridge),
	}
	if point != nil {
		point.Files = files
		if err := s.Store.Save(point); err != nil {
			return err
		}
	}
	if err := writeNetworkd(files); err != nil {
		return err
	}
	return reloadNetworkd(ctx, s, uplink, bridge)
}

// forgetNetworkd takes the files of a checkpoint away again.
func (s *Setup) forgetNetworkd(ctx context.Context, point *Checkpoint) error {
	if len(point.Files) == 0 {
		return nil
	}
	var links []string
	for path := range point.Files {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		links = append(links, strings.TrimSuffix(strings.TrimPrefix(filepath.Base(path), "00-gb-"), ".network"))
	}
	return reloadNetworkd(ctx, s, links...)
}

func writeNetworkd(files map[string]string) error {
	for path, text := range files {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := durable.Replace(path, []byte(text), 0o644); err != nil {
			return fmt.Errorf("networkd's file: %w", err)
		}
	}
	return nil
}

// reloadNetworkd has networkd read its files and configure links anew.
func reloadNetworkd(ctx context.Context, s *Setup, links ...string) error {
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "networkctl", "reload").CombinedOutput(); err != nil {
		return fmt.Errorf("networkctl reload: %w: %s", err, bytes.TrimSpace(out))
	}
	for _, link := range links {
		if _, err := net.InterfaceByName(link); err != nil {
			continue
		}
		if out, err := exec.CommandContext(ctx, "networkctl", "reconfigure", link).CombinedOutput(); err != nil {
			return fmt.Errorf("networkctl reconfigure %s: %w: %s", link, err, bytes.TrimSpace(out))
		}
	}
	return nil
}

// NetworkFile returns the .network file (systemd.network(5)) that fits a link
// of the desired state: none of the uplink's own, DHCP on its bridge, and on
// the bridge of nat the first address of its network and a DHCP server.
func (c *Config) NetworkFile(link string) (string, error) {
	for _, name := range names(c.Bridges) {
		b := c.Bridges[name]
		switch {
		case b.uplink() == link && link != "":
			return portNetwork(link), nil
		case name != link:
		case c.NAT != nil && c.NAT.Bridge == name:
			p, err := netip.ParsePrefix(c.NAT.Network)
			if err != nil {
				return "", err
			}
			return fmt.Sprintf(`# Made by gb-ovs-setup render networkd.
[Match]
Name=%s
[Link]
RequiredForOnline=no
[Network]
Address=%s/%d
ConfigureWithoutCarrier=yes
DHCPServer=%s
IPForward=yes
IPv6AcceptRA=no
`, name, p.Addr().Next(), p.Bits(), yes(p.Addr().Is4())), nil
		case b.uplink() != "":
			return fmt.Sprintf(`# Made by gb-ovs-setup render networkd.
[Match]
Name=%s
[Link]
RequiredForOnline=routable
[Network]
DHCP=ipv4
`, name), nil
		}
	}
	return "", fmt.Errorf("%s is no uplink, no bridge with an uplink and not the bridge of nat: its addresses are yours to say", link)
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
