// Package egress decides which addresses the worker may connect to. It promises that no integration, whatever host it names and
// whatever that name resolves to at the moment of connecting, leads to this machine, to a link-local address or to a cloud's metadata
// service, unless the platform allows that very address. The check is made on the address of the socket, after name resolution, so
// that a name that resolves differently the second time gains nothing.
package egress

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// Policy says which otherwise refused addresses are allowed.
type Policy struct{ allowed map[netip.AddrPort]bool }

// Parse makes a policy of addresses of the form 127.0.0.1:5432.
func Parse(addresses []string) (*Policy, error) {
	p := &Policy{allowed: map[netip.AddrPort]bool{}}
	for _, a := range addresses {
		if a == "" {
			continue
		}
		ap, err := netip.ParseAddrPort(a)
		if err != nil {
			return nil, fmt.Errorf("%q is no address and port, as 127.0.0.1:5432: check A3_ALLOW_ADDRESSES", a)
		}
		p.allowed[netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())] = true
	}
	return p, nil
}

// RefusedError names the address that was refused.
type RefusedError struct{ Address netip.AddrPort }

// Error says what to do.
func (e *RefusedError) Error() string {
	return fmt.Sprintf("the address %s is refused: it leads to this machine or its network's own services, which integrations don't reach; an operator can allow that very address in A3_ALLOW_ADDRESSES", e.Address)
}

// Check refuses an address that an integration has no business at.
func (p *Policy) Check(a netip.AddrPort) error {
	addr := a.Addr().Unmap().WithZone("")
	ap := netip.AddrPortFrom(addr, a.Port())
	if p.allowed[ap] {
		return nil
	}
	if !addr.IsValid() || addr.IsLoopback() || addr.IsUnspecified() || addr.IsLinkLocalUnicast() || addr.IsMulticast() ||
		addr.IsLinkLocalMulticast() || addr.IsInterfaceLocalMulticast() || metadata[addr] || embedded(addr, p) {
		return &RefusedError{Address: ap}
	}
	return nil
}

// metadata are the metadata services of clouds that are not link-local.
var metadata = map[netip.Addr]bool{
	netip.MustParseAddr("fd00:ec2::254"):   true, // AWS, IPv6
	netip.MustParseAddr("100.100.100.200"): true, // Alibaba Cloud
	netip.MustParseAddr("192.0.0.192"):     true, // Oracle Cloud
	netip.MustParseAddr("168.63.129.16"):   true, // Azure
}

var (
	nat64    = netip.MustParsePrefix("64:ff9b::/96")
	sixToFor = netip.MustParsePrefix("2002::/16")
)

// embedded says whether an IPv6 address leads to an IPv4 one that is refused (RFC 6052, RFC 3056).
func embedded(addr netip.Addr, p *Policy) bool {
	b := addr.As16()
	switch {
	case nat64.Contains(addr):
		return p.Check(netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[12:16])), 1)) != nil
	case sixToFor.Contains(addr):
		return p.Check(netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[2:6])), 1)) != nil
	}
	return false
}

// Dial connects, or refuses.
func (p *Policy) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := &net.Dialer{
		Timeout: 10 * time.Second,
		ControlContext: func(_ context.Context, network, address string, _ syscall.RawConn) error {
			if network != "tcp4" && network != "tcp6" {
				return fmt.Errorf("connections of the kind %s are not made", network)
			}
			ap, err := netip.ParseAddrPort(address)
			if err != nil {
				return fmt.Errorf("read the address: %w", err)
			}
			return p.Check(ap)
		},
	}
	return d.DialContext(ctx, network, address)
}
