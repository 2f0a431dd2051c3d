package egress_test

import (
	"errors"
	"net"
	"net/netip"
	"testing"

	"a3os.app/services/discoveryworker/internal/egress"
)

func TestOwnMachineAndMetadataAreRefused(t *testing.T) {
	p, err := egress.Parse([]string{"127.0.0.1:5432", ""})
	if err != nil {
		t.Fatal(err)
	}
	for address, allowed := range map[string]bool{
		"127.0.0.1:5432": true, "[::ffff:127.0.0.1]:5432": true, "203.0.113.7:5432": true, "10.1.2.3:5432": true, "[2001:db8::1]:443": true,
		"[fd12:3456::1]:443": true, "[64:ff9b::cb00:7107]:443": true, "[2002:cb00:7107::]:443": true,
		"127.0.0.1:5433": false, "127.9.9.9:5432": false, "[::1]:5432": false, "169.254.169.254:80": false, "[fe80::1]:80": false,
		"0.0.0.0:5432": false, "0.1.2.3:5432": false, "[::]:80": false, "224.0.0.1:80": false, "[ff02::1]:80": false, "255.255.255.255:80": false,
		"240.0.0.1:80": false, "192.0.0.192:80": false, "[fec0::1]:80": false, "[fe80::1%eth0]:80": false,
		"[fd00:ec2::254]:80": false, "[fd20:ce::254]:80": false, "100.100.100.200:80": false, "168.63.129.16:80": false,
		"[::ffff:169.254.169.254]:80": false, "[::169.254.169.254]:80": false, "[::ffff:0:127.0.0.1]:80": false,
		"[64:ff9b::a9fe:a9fe]:80": false, "[64:ff9b:1::a9fe:a9fe]:80": false, "[64:ff9b:1:a9fe:a9:fe00::]:80": false,
		"[2002:7f00:1::]:80": false, "[2001:0:1234::5601:5601]:80": false, "[2001:db8::5efe:127.0.0.1]:80": false,
		// What is allowed by its own form is not by another.
		"[64:ff9b::7f00:1]:5432": false,
	} {
		if err := p.Check(netip.MustParseAddrPort(address)); (err == nil) != allowed {
			t.Errorf("%s: allowed is %v, want %v", address, err == nil, allowed)
		}
	}
}

func TestNameThatLeadsHomeIsRefusedAtTheSocket(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	none, err := egress.Parse(nil)
	if err != nil {
		t.Fatal(err)
	}
	var refused *egress.RefusedError
	if _, err := none.Dial(t.Context(), "tcp", net.JoinHostPort("localhost", port)); !errors.As(err, &refused) {
		t.Fatalf("localhost: want a refusal, got %v", err)
	}
	own, err := egress.Parse([]string{l.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	c, err := own.Dial(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatalf("the allowed address: %v", err)
	}
	c.Close()
}

func TestAddressThatIsNoneIsNamed(t *testing.T) {
	if _, err := egress.Parse([]string{"db.example"}); err == nil {
		t.Fatal("a name was taken for an address")
	}
}

func TestAddressesOfThisMachinesInterfacesAreRefused(t *testing.T) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	p, err := egress.Parse(nil)
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, a := range all {
		addr, ok := netip.AddrFromSlice(a.(*net.IPNet).IP)
		if !ok {
			continue
		}
		seen++
		if err := p.Check(netip.AddrPortFrom(addr, 5432)); err == nil {
			t.Errorf("%s, an address of this machine, is not refused", addr)
		}
	}
	if seen == 0 {
		t.Fatal("this machine has no address to try")
	}
}
