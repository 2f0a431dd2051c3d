// Package egress decides which addresses the worker may connect to. It promises that no integration, whatever host it names and
// whatever that name resolves to at the moment of connecting, leads to this machine (by any of its addresses), to a link-local
// address or to a cloud's metadata service, unless the platform allows that very address and port. The check is made on the address of the socket, after name resolution, so
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
	mine, err := own()
	if err != nil {
		return fmt.Errorf("ask for this machine's own addresses: %w", err)
	}
	addr := a.Addr().Unmap().WithZone("")
	ap := netip.AddrPortFrom(addr, a.Port())
	if p.allowed[ap] {
		return nil
	}
	// What leads to an address that is refused is refused too, in whichever form it is written; a port that is allowed there is
	// allowed by its own address alone.
	for _, target := range append(inside(addr), addr) {
		if !target.IsValid() || within(target, never) || within(target, metadata) || mine[target] {
			return &RefusedError{Address: ap}
		}
	}
	return nil
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
