package ovs

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/rtnetlink"
)

// A ProbeError says who did not answer after a change.
type ProbeError struct{ Silent []string }

func (e *ProbeError) Error() string { return "no answer from " + strings.Join(e.Silent, ", ") }

// gatewaysThat returns the default gateways that answer, within limit.
func gatewaysThat(ctx context.Context, limit time.Duration) []netip.Addr {
	gateways, err := rtnetlink.DefaultGateways()
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var out []netip.Addr
	for _, link := range names(gateways) {
		for _, g := range gateways[link] {
			if _, err := probeGateway(ctx, g); err == nil {
				out = append(out, g)
			}
		}
	}
	return out
}

// probe waits until every gateway is resolved over the link that now leads to
// it, and every host answers, until ctx ends.
func probe(ctx context.Context, gateways []netip.Addr, hosts []string) error {
	var silent []string
	for _, g := range gateways {
		if links, err := probeGateway(ctx, g); err != nil {
			over := "no default route leads to it"
			if len(links) > 0 {
				over = "over " + strings.Join(links, ", ")
			}
			silent = append(silent, fmt.Sprintf("the gateway %s (%s)", g, over))
		}
	}
	for _, h := range hosts {
		if err := probeHost(ctx, h); err != nil {
			silent = append(silent, fmt.Sprintf("%s (%v)", h, err))
		}
	}
	if len(silent) > 0 {
		return &ProbeError{silent}
	}
	return nil
}

// probeGateway asks the neighbour table: a gateway must answer ARP or
// neighbour solicitation, while it may drop everything else. It returns the
// links that led to it when it was asked last.
func probeGateway(ctx context.Context, g netip.Addr) (links []string, err error) {
	forgotten := make(map[string]bool) // links of which what was known before does not count
	for {
		gateways, err := rtnetlink.DefaultGateways()
		if err != nil {
			return nil, err
		}
		links = nil
		for link, list := range gateways {
			for _, have := range list {
				if have != g {
					continue
				}
				links = append(links, link)
				if !forgotten[link] {
					rtnetlink.Forget(link, g)
					forgotten[link] = true
				}
				// A datagram to the discard port has the kernel ask for it.
				if c, err := net.Dial("udp", netip.AddrPortFrom(g.WithZone(zone(g, link)), 9).String()); err == nil {
					c.Write([]byte{0})
					c.Close()
				}
				answers, heard, _ := rtnetlink.Answers(link, g)
				if answers {
					return links, nil
				}
				if heard { // it spoke first: it is asked at once instead of in 5 s
					rtnetlink.Forget(link, g)
				}
			}
		}
		select {
		case <-ctx.Done():
			return links, context.Cause(ctx)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func zone(a netip.Addr, link string) string {
	if a.Is6() && a.IsLinkLocalUnicast() {
		return link
	}
	return ""
}

// probeHost connects to address:port, or pings an address, until it answers
// or ctx ends.
func probeHost(ctx context.Context, host string) error {
	addr, port, err := splitProbe(host)
	if err != nil {
		return err
	}
	for {
		try, cancel := context.WithTimeout(ctx, time.Second)
		if port != "" {
			var d net.Dialer
			var c net.Conn
			if c, err = d.DialContext(try, "tcp", net.JoinHostPort(addr.String(), port)); err == nil {
				c.Close()
			}
		} else {
			err = ping(try, addr)
		}
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// ping sends one ICMP echo request (RFC 792, RFC 4443) and waits for its
// reply. It needs CAP_NET_RAW.
func ping(ctx context.Context, a netip.Addr) error {
	network, request, reply := "ip4:icmp", byte(8), byte(0)
	if a.Is6() {
		network, request, reply = "ip6:ipv6-icmp", 128, 129
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, network, a.String())
	if err != nil {
		return err
	}
	defer c.Close()
	if deadline, ok := ctx.Deadline(); ok {
		c.SetDeadline(deadline)
	}
	id := uint16(os.Getpid())
	b := make([]byte, 16)
	b[0] = request
	binary.BigEndian.PutUint16(b[4:], id)
	binary.BigEndian.PutUint64(b[8:], uint64(time.Now().UnixNano()))
	if !a.Is6() { // the kernel does it for IPv6
		binary.BigEndian.PutUint16(b[2:], checksum(b))
	}
	if _, err := c.Write(b); err != nil {
		return err
	}
	buf := make([]byte, 1500)
	for {
		n, err := c.Read(buf)
		if err != nil {
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				return errors.New("no echo reply")
			}
			return err
		}
		if n >= 16 && buf[0] == reply && string(buf[4:16]) == string(b[4:16]) {
			return nil
		}
	}
}

// checksum is the Internet checksum (RFC 1071).
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
