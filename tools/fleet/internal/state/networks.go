package state

import (
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// SubnetBits is the size of each network: 29 members, the machine and the two that mean all.
const SubnetBits = 27

// Subnet is the network of a name, chosen once: the first of the pool that is no other one's, and that taken says nothing of.
func (s *State) Subnet(name string, pool netip.Prefix, taken func() ([]netip.Prefix, error)) (netip.Prefix, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n, ok := s.noted.Subnets[name]; ok {
		return n, nil
	}
	others, err := taken()
	if err != nil {
		return netip.Prefix{}, err
	}
	others = slices.AppendSeq(others, maps.Values(s.noted.Subnets))
	for at := netip.PrefixFrom(pool.Masked().Addr(), SubnetBits); pool.Contains(at.Addr()); at = after(at) {
		if slices.ContainsFunc(others, at.Overlaps) {
			continue
		}
		s.noted.Subnets[name] = at
		return at, s.save()
	}
	return netip.Prefix{}, fmt.Errorf("every network of %s is used: give the plane a larger one with A3_NETWORKS", pool)
}

func after(p netip.Prefix) netip.Prefix {
	raw := p.Addr().As4()
	binary.BigEndian.PutUint32(raw[:], binary.BigEndian.Uint32(raw[:])+1<<(32-SubnetBits))
	return netip.PrefixFrom(netip.AddrFrom4(raw), SubnetBits)
}

// Host is the address of a member of a network, chosen once. The network's first address is the machine's.
func (s *State) Host(network, member string) (netip.Addr, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a, ok := s.noted.Hosts[network+"/"+member]; ok {
		return a, nil
	}
	subnet, ok := s.noted.Subnets[network]
	if !ok {
		return netip.Addr{}, fmt.Errorf("there is no network %q", network)
	}
	used := slices.Collect(maps.Values(s.noted.Hosts))
	for a := subnet.Addr().Next().Next(); subnet.Contains(a.Next()); a = a.Next() {
		if slices.Contains(used, a) {
			continue
		}
		s.noted.Hosts[network+"/"+member] = a
		return a, s.save()
	}
	return netip.Addr{}, fmt.Errorf("every address of the network %q (%s) is used", network, subnet)
}

// ForgetNetwork gives up a network and the addresses in it.
func (s *State) ForgetNetwork(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.noted.Subnets[name]; !ok {
		return nil
	}
	delete(s.noted.Subnets, name)
	maps.DeleteFunc(s.noted.Hosts, func(k string, _ netip.Addr) bool { return strings.HasPrefix(k, name+"/") })
	return s.save()
}

// NetworkOwners are those whose networks there are: what stands before the first slash of each name.
func (s *State) NetworkOwners() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for name := range s.noted.Subnets {
		owner, _, _ := strings.Cut(name, "/")
		if !slices.Contains(out, owner) {
			out = append(out, owner)
		}
	}
	return out
}
