package placement_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/workload"
	"a3os.app/services/registry/internal/placement"
)

func policy() placement.Policy {
	return placement.Policy{
		Plane:    "dev",
		Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("10.20.0.0/16"), netip.MustParsePrefix("169.254.0.0/16")},
		Reserved: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:7400")},
	}
}

func root(t *testing.T, plane string, tenant id.Tenant) workload.Authority {
	t.Helper()
	a, err := workload.NewRoot(workload.TrustDomain{Plane: plane, Tenant: tenant}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func set(ca string, components ...*registryv1.Component) *registryv1.ServiceSet {
	return &registryv1.ServiceSet{CaCertificatesPem: ca, Components: components}
}

func component(name, address string, prefixes ...string) *registryv1.Component {
	return &registryv1.Component{Name: name, Address: address, PathPrefixes: prefixes}
}

// Attack row H21, as far as one set alone shows it.
func TestSetIsRefusedWhereItNamesWhatIsNoService(t *testing.T) {
	tenant := id.NewTenant()
	ca := string(root(t, "dev", tenant).CertificatePEM())
	addresses := []string{
		"169.254.169.254:80", "[::ffff:169.254.169.254]:80", "[fe80::1]:80", "[fe80::1%eth0]:80", "[fd00:ec2::254]:80", "0.0.0.0:80", "[::]:80",
		"224.0.0.1:80", "[ff02::1]:80", "255.255.255.255:80", "8.8.8.8:443", "10.21.0.1:80", "localhost:80", "metadata.google.internal:80",
		"127.0.0.1:0", "127.0.0.1", "127.0.0.1:", ":80", "127.1:80", "0177.0.0.1:80", "2130706433:80", "127.0.0.1:99999", "127.0.0.1:7400",
		"[::ffff:127.0.0.1]:7400", "http://127.0.0.1:80", "127.0.0.1:80/x", "user@127.0.0.1:80",
	}
	for _, address := range addresses {
		if _, err := policy().Check(tenant, set(ca, component("iam", address))); err == nil || fault.KindOf(err) != fault.InvalidArgument {
			t.Errorf("%s was accepted: %v", address, err)
		}
	}
	t.Attr("row", fmt.Sprintf("H21 %d", len(addresses)))
}

func TestAddressesComeBackInOneSpelling(t *testing.T) {
	tenant := id.NewTenant()
	got, err := policy().Check(tenant, set(string(root(t, "dev", tenant).CertificatePEM()), component("iam", "[::ffff:10.20.0.5]:4001", "/a.")))
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || got[0].GetAddress() != "10.20.0.5:4001" {
		t.Errorf("got %v", got)
	}
}

func TestAuthorityThatCouldVouchForAnybodyElseIsRefused(t *testing.T) {
	tenant, other := id.NewTenant(), id.NewTenant()
	own := root(t, "dev", tenant)
	withKey, err := own.Encode()
	if err != nil {
		t.Fatal(err)
	}
	intermediate, err := own.NewIntermediate(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for name, pem := range map[string]string{
		"nothing":         "",
		"garbage":         "not PEM",
		"another tenant":  string(root(t, "dev", other).CertificatePEM()),
		"another plane":   string(root(t, "prod", tenant).CertificatePEM()),
		"the plane's own": string(root(t, "dev", id.Tenant{}).CertificatePEM()),
		"with its key":    string(withKey),
		"an intermediate": string(intermediate.CertificatePEM()),
		"own and another": string(own.CertificatePEM()) + string(root(t, "dev", other).CertificatePEM()),
		"trailing text":   string(own.CertificatePEM()) + "x",
	} {
		if _, err := policy().Check(tenant, set(pem)); err == nil || fault.KindOf(err) != fault.InvalidArgument {
			t.Errorf("%s was accepted: %v", name, err)
		} else if strings.Contains(fault.Connect(err).Message(), "PRIVATE") {
			t.Errorf("%s: the message repeats the key", name)
		}
	}
}

func TestAmbiguousSetIsRefused(t *testing.T) {
	tenant := id.NewTenant()
	ca := string(root(t, "dev", tenant).CertificatePEM())
	for name, components := range map[string][]*registryv1.Component{
		"a name twice":           {component("iam", "127.0.0.1:1"), component("iam", "127.0.0.1:2")},
		"an address twice":       {component("iam", "127.0.0.1:1"), component("audit", "[::ffff:127.0.0.1]:1")},
		"a prefix twice":         {component("iam", "127.0.0.1:1", "/x"), component("audit", "127.0.0.1:2", "/x")},
		"a dot segment":          {component("iam", "127.0.0.1:1", "/x/../y")},
		"a name that is no host": {component("iam-", "127.0.0.1:1")},
	} {
		if _, err := policy().Check(tenant, set(ca, components...)); err == nil || fault.KindOf(err) != fault.InvalidArgument {
			t.Errorf("%s was accepted: %v", name, err)
		}
	}
}

// Where a platform keeps names for sets, a component is at the one that is its own, and at no other name.
func TestSetIsAtNoNameButItsOwn(t *testing.T) {
	tenant := id.NewTenant()
	ca := string(root(t, "dev", tenant).CertificatePEM())
	own := "iam." + strings.ReplaceAll(tenant.String(), "_", "-") + ".a3-dev.internal:7443"
	p := policy()
	p.Zone = "a3-dev.internal"
	got, err := p.Check(tenant, set(ca, component("iam", own)))
	if err != nil || got[0].GetAddress() != own {
		t.Fatalf("its own name: %v, %v", got, err)
	}
	another := strings.ReplaceAll(id.NewTenant().String(), "_", "-")
	for _, address := range []string{"iam." + another + ".a3-dev.internal:7443", "audit" + strings.TrimPrefix(own, "iam"), "a3-dev.internal:7443", "x" + own, strings.ToUpper(own),
		strings.Replace(own, "7443", "0", 1), strings.Replace(own, "7443", "99999", 1), strings.Replace(own, ".internal", ".internal.example.com", 1), "registry.plane.a3-dev.internal:7443"} {
		if _, err := p.Check(tenant, set(ca, component("iam", address))); err == nil || fault.KindOf(err) != fault.InvalidArgument {
			t.Errorf("%s was accepted: %v", address, err)
		}
	}
	if _, err := policy().Check(tenant, set(ca, component("iam", own))); err == nil {
		t.Error("a name was accepted where there is no zone")
	}
}
