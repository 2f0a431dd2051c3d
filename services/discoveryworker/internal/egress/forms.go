package egress

import (
	"net"
	"net/netip"
)

// never are networks that no system of a customer's is in: this host and its network (RFC 1122, RFC 3927, RFC 4291), protocols' own
// assignments (RFC 6890), what was once site-local (RFC 3879), multicast, and what is reserved.
var never = prefixes(
	"0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "192.0.0.0/24", "224.0.0.0/4", "240.0.0.0/4",
	"::/128", "::1/128", "fe80::/10", "fec0::/10", "ff00::/8",
)

// metadata are the metadata services of clouds that are not link-local.
var metadata = prefixes(
	"fd00:ec2::/32",      // AWS, IPv6: metadata, time, names
	"fd20:ce::254/128",   // Google Cloud, IPv6
	"100.100.100.200/32", // Alibaba Cloud
	"168.63.129.16/32",   // Azure
)

// forms are the IPv6 prefixes behind which something on the way finds an IPv4 address, and where in the address that stands.
var forms = []struct {
	prefix netip.Prefix
	at     int
	// flipped says that the address stands there with its bits turned over.
	flipped bool
}{
	{netip.MustParsePrefix("::/96"), 12, false},           // IPv4-compatible, RFC 4291 §2.5.5.1
	{netip.MustParsePrefix("::ffff:0:0:0/96"), 12, false}, // IPv4-translated, RFC 7915
	{netip.MustParsePrefix("64:ff9b::/96"), 12, false},    // NAT64, RFC 6052
	{netip.MustParsePrefix("2002::/16"), 2, false},        // 6to4, RFC 3056
	{netip.MustParsePrefix("2001::/32"), 12, true},        // Teredo, RFC 4380
}

// localNAT64 is a network's own NAT64 prefix (RFC 8215); where in it the IPv4 address stands is each network's choice.
var localNAT64 = netip.MustParsePrefix("64:ff9b:1::/48")

func prefixes(texts ...string) []netip.Prefix {
	out := make([]netip.Prefix, 0, len(texts))
	for _, t := range texts {
		out = append(out, netip.MustParsePrefix(t))
	}
	return out
}

func within(addr netip.Addr, all []netip.Prefix) bool {
	for _, p := range all {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// inside is every IPv4 address that an IPv6 one may lead to.
func inside(addr netip.Addr) []netip.Addr {
	if !addr.Is6() {
		return nil
	}
	b := addr.As16()
	var out []netip.Addr
	take := func(v [4]byte, flipped bool) {
		if flipped {
			for i := range v {
				v[i] = ^v[i]
			}
		}
		out = append(out, netip.AddrFrom4(v))
	}
	for _, f := range forms {
		if f.prefix.Contains(addr) {
			take([4]byte(b[f.at:f.at+4]), f.flipped)
		}
	}
	if b[8]&^2 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe {
		take([4]byte(b[12:16]), false) // ISATAP, RFC 5214 §6.1, below any prefix
	}
	if localNAT64.Contains(addr) {
		// RFC 6052 §2.2: after 48, 56, 64 or 96 bits, around the octet that is always zero.
		take([4]byte{b[6], b[7], b[9], b[10]}, false)
		take([4]byte{b[7], b[9], b[10], b[11]}, false)
		take([4]byte{b[9], b[10], b[11], b[12]}, false)
		take([4]byte(b[12:16]), false)
	}
	return out
}

// own are the addresses of this machine's interfaces, asked for each time: they come and go.
func own() (map[netip.Addr]bool, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	out := map[netip.Addr]bool{}
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok {
			if addr, ok := netip.AddrFromSlice(n.IP); ok {
				out[addr.Unmap()] = true
			}
		}
	}
	return out, nil
}
