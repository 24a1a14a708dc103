package ovs

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

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

// networkdIAID returns the number by which networkd's DHCP client tells a
// link's lease from others of this host (RFC 4361), false if the lease goes by
// something else, such as the MAC. networkd makes it of the link's name, so
// that the bridge would get another address than the uplink had.
func networkdIAID(link string) (uint32, bool) {
	i, err := net.InterfaceByName(link)
	if err != nil {
		return 0, false
	}
	b, err := os.ReadFile(fmt.Sprintf("/run/systemd/netif/leases/%d", i.Index))
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(b)) {
		id, ok := strings.CutPrefix(strings.TrimSpace(line), "CLIENTID=ff")
		if !ok || len(id) < 8 {
			continue
		}
		n, err := strconv.ParseUint(id[:8], 16, 32)
		return uint32(n), err == nil
	}
	return 0, false
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

// networkFiles returns networkd's files by which it runs the bridge as it ran
// the uplink, none where it does not run the uplink. It must be asked before
// the uplink loses its lease.
func networkFiles(uplink, bridge string) (map[string]string, error) {
	path := networkdFile(uplink)
	if path == "" || strings.HasPrefix(filepath.Base(path), "00-gb-") {
		return nil, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("networkd's file of %s: %w", uplink, err)
	}
	file := bridgeNetwork(text, bridge)
	if iaid, ok := networkdIAID(uplink); ok {
		file += fmt.Sprintf("[DHCPv4]\nIAID=%d\n", iaid)
	}
	return map[string]string{fileOf(uplink): portNetwork(uplink), fileOf(bridge): file}, nil
}

// fileOf is where networkd's file of a link is.
func fileOf(link string) string { return filepath.Join(networkdDir, "00-gb-"+link+".network") }

// tellNetworkd has networkd read those files. Netlink has moved the addresses
// already, so that the gap is as long as networkd takes for a lease that it
// had, not more.
func (s *Setup) tellNetworkd(ctx context.Context, files map[string]string, point *Checkpoint, links ...string) error {
	if len(files) == 0 {
		return nil
	}
	if point != nil {
		if point.Files == nil {
			point.Files = make(map[string]string)
		}
		maps.Copy(point.Files, files)
		if err := s.Store.Save(point); err != nil {
			return err
		}
	}
	if err := writeNetworkd(files); err != nil {
		return err
	}
	return reloadNetworkd(ctx, s, links...)
}

// keptFiles returns what boots are to tell networkd: what an apply has told
// it now, and what it was told before about links that c still has.
func keptFiles(c *Config, before, now map[string]string) map[string]string {
	out := make(map[string]string)
	for _, name := range names(c.Bridges) {
		up := c.Bridges[name].uplink()
		if up == "" {
			continue
		}
		for _, path := range []string{fileOf(name), fileOf(up)} {
			if text, ok := before[path]; ok {
				out[path] = text
			}
		}
	}
	maps.Copy(out, now)
	return out
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
	// It is as it was on disk, and netlink puts the links back.
	if err := reloadNetworkd(ctx, s, links...); err != nil {
		s.Log.Warn("networkd is not told", "error", err)
	}
	return nil
}

// writeNetworkd writes files so that networkd, which is another user, can read
// them, whatever umask this process has.
func writeNetworkd(files map[string]string) error {
	for path, text := range files {
		dir := filepath.Dir(path)
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			if err := errors.Join(os.MkdirAll(dir, 0o755), os.Chmod(dir, 0o755)); err != nil {
				return err
			}
		}
		if err := errors.Join(durable.Replace(path, []byte(text), 0o644), os.Chmod(path, 0o644)); err != nil {
			return fmt.Errorf("networkd's file: %w", err)
		}
	}
	return nil
}

// reloadNetworkd has networkd read its files and configure links anew. Where it
// has not run since the boot, it reads them when it starts.
//
// To read them is enough for networkd to configure the links whose file is
// another one now. It is told to only where it has not: a link that is
// configured twice at once loses the lease that it has just had, and an address
// that is on its way out when it is given again may stay away.
func reloadNetworkd(ctx context.Context, s *Setup, links ...string) error {
	if _, err := os.Stat("/run/systemd/netif/state"); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "networkctl", "reload").CombinedOutput(); err != nil {
		return fmt.Errorf("networkctl reload: %w: %s", err, bytes.TrimSpace(out))
	}
	for _, link := range links {
		if _, err := net.InterfaceByName(link); err != nil || followed(ctx, link) {
			continue
		}
		if out, err := exec.CommandContext(ctx, "networkctl", "reconfigure", link).CombinedOutput(); err != nil {
			return fmt.Errorf("networkctl reconfigure %s: %w: %s", link, err, bytes.TrimSpace(out))
		}
	}
	return nil
}

// followed waits, for 2 s at most, until networkd runs a link by our file where
// there is one, and by another, or not at all, where there is none.
func followed(ctx context.Context, link string) bool {
	for range 100 {
		_, err := os.Stat(fileOf(link))
		if (err == nil) == (networkdFile(link) == fileOf(link)) {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(20 * time.Millisecond):
		}
	}
	return false
}

// addressBooks are where those that give links their addresses at a boot are
// told which.
var addressBooks = []string{"/etc/systemd/network/*", "/etc/systemd/network/*.d/*", "/run/systemd/network/*", "/run/systemd/network/*.d/*",
	"/usr/lib/systemd/network/*", "/etc/network/interfaces", "/etc/network/interfaces.d/*", "/etc/netplan/*", "/etc/NetworkManager/system-connections/*"}

// addressed says whether some file tells of a link by its name.
func addressed(link string) bool {
	word := regexp.MustCompile(`(?m)(^|[^\w.@-])` + regexp.QuoteMeta(link) + `($|[^\w.@-])`)
	for _, pattern := range addressBooks {
		paths, _ := filepath.Glob(pattern)
		for _, path := range paths {
			if b, err := os.ReadFile(path); err == nil && word.Match(b) {
				return true
			}
		}
	}
	return false
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
