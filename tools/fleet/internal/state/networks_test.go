package state_test

import (
	"net/netip"
	"testing"

	"a3os.app/tools/fleet/internal/state"
)

func none() ([]netip.Prefix, error) { return nil, nil }

func TestNetworksNeverOverlapAndStay(t *testing.T) {
	home := t.TempDir()
	s, err := state.Open(home)
	if err != nil {
		t.Fatal(err)
	}
	pool := netip.MustParsePrefix("10.83.0.0/24")
	taken := func() ([]netip.Prefix, error) { return []netip.Prefix{netip.MustParsePrefix("10.83.0.32/28")}, nil }
	got := map[netip.Prefix]string{}
	for _, name := range []string{"a", "b", "c", "d", "e", "f", "g"} {
		n, err := s.Subnet(name, pool, taken)
		if err != nil {
			t.Fatal(err)
		}
		for other, of := range got {
			if other.Overlaps(n) {
				t.Errorf("%s of %s overlaps %s of %s", n, name, other, of)
			}
		}
		if n.Overlaps(netip.MustParsePrefix("10.83.0.32/28")) || !pool.Overlaps(n) || n.Bits() != state.SubnetBits {
			t.Errorf("%s is the network of %s", n, name)
		}
		got[n] = name
	}
	if n, err := s.Subnet("h", pool, taken); err == nil {
		t.Errorf("a network more than there is room for is %s", n)
	}
	first, err := s.Host("a", "x")
	if err != nil || first != netip.MustParseAddr("10.83.0.2") {
		t.Errorf("the first member is at %s: %v", first, err)
	}
	again, err := state.Open(home)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := again.Subnet("a", pool, none); err != nil || got[n] != "a" {
		t.Errorf("opened again it is %s: %v", n, err)
	}
	if a, err := again.Host("a", "x"); err != nil || a != first {
		t.Errorf("opened again the member is at %s: %v", a, err)
	}
	if second, err := again.Host("a", "y"); err != nil || second == first {
		t.Errorf("a second member is at %s: %v", second, err)
	}
	if err := again.ForgetNetwork("a"); err != nil {
		t.Fatal(err)
	}
	if a, err := again.Host("a", "x"); err == nil {
		t.Errorf("a member of no network is at %s", a)
	}
}
