// Package placement says where a tenant's set may be. The gateway connects to whatever a set names, so it promises that no set can
// name an address that isn't a service's: metadata endpoints, the platform itself, hosts outside of the platform's networks; and
// that a set's authority can vouch for nobody but that tenant. Whose an address is already, the database knows.
package placement

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/clip"
	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/workload"
)

// mostTold keeps errors short when the text is hostile.
const mostTold = 64

// Policy is where the platform of a plane puts sets.
type Policy struct {
	// Plane is "dev" or "prod".
	Plane string
	// Networks are those that sets are in; none means that no set can be placed.
	Networks []netip.Prefix
	// Reserved are addresses of the platform's own servers.
	Reserved []netip.AddrPort
	// Zone is the zone of names that the platform keeps for sets, where it keeps one: a component of a tenant is at
	// `<component>.<tenant>.<zone>` there and nowhere else, since its address changes with each task. Empty for none.
	Zone string
}

// metadata endpoints that are outside of the link-local networks.
var metadata = []netip.Addr{
	netip.MustParseAddr("fd00:ec2::254"),   // AWS, IPv6
	netip.MustParseAddr("100.100.100.200"), // Alibaba Cloud
	netip.MustParseAddr("168.63.129.16"),   // Azure
	netip.MustParseAddr("192.0.0.192"),     // Oracle Cloud
}

// Check refuses a set that may not be placed, and answers it with its addresses in one spelling.
func (p Policy) Check(tenant id.Tenant, set *registryv1.ServiceSet) ([]*registryv1.Component, error) {
	domain := workload.TrustDomain{Plane: p.Plane, Tenant: tenant}
	if _, err := workload.ParseRoots(domain, []byte(set.GetCaCertificatesPem())); err != nil {
		return nil, fault.Wrap(fault.InvalidArgument, err, "service_set.ca_certificates_pem must hold root certificates alone, each constrained to %s", domain)
	}
	names, addresses := map[string]bool{}, map[string]bool{}
	checked := make([]*registryv1.Component, 0, len(set.GetComponents()))
	for _, c := range set.GetComponents() {
		addr, err := p.place(tenant, c)
		if err != nil {
			return nil, fault.New(fault.InvalidArgument, "component %s can't be at %q: %v", c.GetName(), clip.Text(c.GetAddress(), mostTold), err)
		}
		if err := (workload.Identity{Plane: p.Plane, Tenant: tenant, Service: c.GetName()}).Validate(); err != nil {
			return nil, fault.New(fault.InvalidArgument, "component %q: %v", clip.Text(c.GetName(), mostTold), err)
		}
		if names[c.GetName()] {
			return nil, fault.New(fault.InvalidArgument, "component %s comes twice", c.GetName())
		}
		if addresses[addr] {
			return nil, fault.New(fault.InvalidArgument, "component %s is at %s, and so is another", c.GetName(), addr)
		}
		names[c.GetName()], addresses[addr] = true, true
		checked = append(checked, &registryv1.Component{Name: c.GetName(), Address: addr, PathPrefixes: c.GetPathPrefixes()})
	}
	return checked, prefixes(checked)
}

// prefixes refuses a path prefix that leads to two components.
func prefixes(components []*registryv1.Component) error {
	owner := map[string]string{}
	for _, c := range components {
		for _, prefix := range c.GetPathPrefixes() {
			if strings.Contains(prefix, "//") || slices.ContainsFunc(strings.Split(prefix, "/"), func(s string) bool { return s == "." || s == ".." }) {
				return fault.New(fault.InvalidArgument, "component %s: the path prefix %q has an empty or a dot segment", c.GetName(), prefix)
			}
			if other, taken := owner[prefix]; taken {
				return fault.New(fault.InvalidArgument, "the path prefix %q leads to both %s and %s", prefix, other, c.GetName())
			}
			owner[prefix] = c.GetName()
		}
	}
	return nil
}

// place is where a component is: at an address, or at the one name that the platform's own zone has for it. Who may write that zone is who
// starts tasks, so that no set can lead the gateway elsewhere by it; and whoever answers there has to prove who they are.
func (p Policy) place(tenant id.Tenant, c *registryv1.Component) (string, error) {
	host, port, err := net.SplitHostPort(c.GetAddress())
	if p.Zone == "" || err != nil || !strings.HasSuffix(host, "."+p.Zone) {
		return p.address(c.GetAddress())
	}
	if own := c.GetName() + "." + strings.ReplaceAll(tenant.String(), "_", "-") + "." + p.Zone; host != own {
		return "", fmt.Errorf("its name is %s in the zone of this plane's sets", own)
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil || number == 0 {
		return "", fmt.Errorf("it has no port from 1 to 65535")
	}
	return net.JoinHostPort(host, strconv.FormatUint(number, 10)), nil
}

// address checks host:port, where the host is an address: a name could lead elsewhere tomorrow.
func (p Policy) address(s string) (string, error) {
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		return "", fmt.Errorf("write it as an IP address and a port, a name can lead elsewhere tomorrow")
	}
	if ap.Addr().Zone() != "" {
		return "", fmt.Errorf("it has a zone")
	}
	// ::ffff:169.254.169.254 is 169.254.169.254 to the kernel.
	addr := ap.Addr().Unmap()
	ap = netip.AddrPortFrom(addr, ap.Port())
	switch {
	case ap.Port() == 0:
		return "", fmt.Errorf("it has no port")
	case addr.IsUnspecified():
		return "", fmt.Errorf("it is every address and none")
	case addr.IsLinkLocalUnicast(), addr.IsMulticast(), slices.Contains(metadata, addr), addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "", fmt.Errorf("it is link-local, multicast, broadcast or a metadata endpoint")
	case slices.Contains(p.Reserved, ap):
		return "", fmt.Errorf("it is the platform's own")
	case !slices.ContainsFunc(p.Networks, func(n netip.Prefix) bool { return n.Contains(addr) }):
		return "", fmt.Errorf("it is outside of the networks that this plane's sets are in")
	}
	return ap.String(), nil
}

// hostName is a lower-case DNS name, fully written: one that ends in a digit alone would be an address in another spelling.
var hostName = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)*[a-z]([a-z0-9-]*[a-z0-9])?$`)

// Database answers a database's place in its one spelling, so that two tenants can't have one database under two names of its server.
// What a name leads to, the platform answers for.
func (p Policy) Database(d *registryv1.DatabasePlace) (*registryv1.DatabasePlace, error) {
	if d == nil {
		if p.Plane == "prod" {
			return nil, fault.New(fault.InvalidArgument, "service_set.database says where the set's database is: in plane prod it must be set")
		}
		return nil, nil
	}
	host, port, err := net.SplitHostPort(d.GetServer())
	if err != nil {
		return nil, fault.New(fault.InvalidArgument, "service_set.database.server %q is not host:port", clip.Text(d.GetServer(), mostTold))
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil || number == 0 {
		return nil, fault.New(fault.InvalidArgument, "service_set.database.server %q has no port from 1 to 65535", clip.Text(d.GetServer(), mostTold))
	}
	if addr, err := netip.ParseAddr(host); err == nil && addr.Zone() == "" && !addr.IsUnspecified() {
		host = addr.Unmap().String()
	} else if host == "localhost" || !hostName.MatchString(host) {
		return nil, fault.New(fault.InvalidArgument, "service_set.database.server %q must be an IP address or a lower-case name that is one host's", clip.Text(d.GetServer(), mostTold))
	}
	return &registryv1.DatabasePlace{Server: net.JoinHostPort(host, strconv.FormatUint(number, 10)), Name: d.GetName()}, nil
}
