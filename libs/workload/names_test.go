package workload_test

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"strings"
	"testing"

	"a3os.app/libs/id"
	"a3os.app/libs/workload"
)

const aTenant = "tnt_01h455vb4pex5vsknk084sn02q"

func tenant(t testing.TB) id.Tenant {
	t.Helper()
	parsed, err := id.ParseTenant(aTenant)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func TestIdentityHasOneURIAndOnePseudoHost(t *testing.T) {
	for _, c := range []struct {
		identity        workload.Identity
		uri, serverName string
	}{
		{
			workload.Identity{Plane: "prod", Tenant: tenant(t), Service: "discovery-worker"},
			"spiffe://tnt-01h455vb4pex5vsknk084sn02q.prod.a3os/discovery-worker",
			"discovery-worker.tnt-01h455vb4pex5vsknk084sn02q.prod.a3os",
		},
		{
			workload.Identity{Plane: "dev", Service: "registry"},
			"spiffe://plane.dev.a3os/registry",
			"registry.plane.dev.a3os",
		},
	} {
		if got := c.identity.URI(); got != c.uri {
			t.Errorf("URI is %q, want %q", got, c.uri)
		}
		if got := c.identity.ServerName(); got != c.serverName {
			t.Errorf("pseudo-host is %q, want %q", got, c.serverName)
		}
		if got, err := workload.ParseURI(c.uri); err != nil || got != c.identity {
			t.Errorf("ParseURI(%q) = %v, %v", c.uri, got, err)
		}
		if got, err := workload.ParseServerName(c.serverName); err != nil || got != c.identity {
			t.Errorf("ParseServerName(%q) = %v, %v", c.serverName, got, err)
		}
		if got, err := workload.ParseTrustDomain(c.identity.TrustDomain().Host()); err != nil || got != c.identity.TrustDomain() {
			t.Errorf("ParseTrustDomain(%q) = %v, %v", c.identity.TrustDomain().Host(), got, err)
		}
	}
}

func TestWhatIsNotAnIdentityHasNoName(t *testing.T) {
	for name, identity := range map[string]workload.Identity{
		"nobody":            {},
		"no plane":          {Tenant: tenant(t), Service: "iam"},
		"unknown plane":     {Plane: "staging", Tenant: tenant(t), Service: "iam"},
		"no service":        {Plane: "dev", Tenant: tenant(t)},
		"service with path": {Plane: "dev", Tenant: tenant(t), Service: "iam/admin"},
		"service with dot":  {Plane: "dev", Tenant: tenant(t), Service: "iam.x"},
		"long service":      {Plane: "dev", Tenant: tenant(t), Service: strings.Repeat("a", 33)},
	} {
		t.Run(name, func(t *testing.T) {
			if identity.URI() != "" || identity.ServerName() != "" || identity.Validate() == nil {
				t.Errorf("%#v is named %q and %q", identity, identity.URI(), identity.ServerName())
			}
		})
	}
}

// hostileURIs are near misses of an identity: each differs from one in a single way.
var hostileURIs = []string{
	"",
	"spiffe://",
	"spiffe:///iam",
	"spiffe://plane.dev.a3os",
	"spiffe://plane.dev.a3os/",
	"spiffe://plane.dev.a3os//iam",
	"spiffe://plane.dev.a3os/iam/",
	"spiffe://plane.dev.a3os/iam/x",
	"spiffe://plane.dev.a3os/../iam",
	"spiffe://plane.dev.a3os/iam?",
	"spiffe://plane.dev.a3os/iam?x=1",
	"spiffe://plane.dev.a3os/iam#",
	"spiffe://plane.dev.a3os/iam#x",
	"spiffe://plane.dev.a3os/%69am",
	"spiffe://plane.dev.a3os/IAM",
	"spiffe://plane.dev.a3os/iam ",
	" spiffe://plane.dev.a3os/iam",
	"spiffe://plane.dev.a3os/iam\x00",
	"spiffe://plane.dev.a3os/iam\n",
	"spiffe://plane.dev.a3os/-iam",
	"spiffe://plane.dev.a3os/iam-",
	"spiffe://plane.dev.a3os/1am",
	"spiffe://plane.dev.a3os/іam", // Cyrillic і
	"spiffe://plane.dev.a3os:443/iam",
	"spiffe://plane.dev.a3os:/iam",
	"spiffe://user@plane.dev.a3os/iam",
	"spiffe://@plane.dev.a3os/iam",
	"spiffe://plane.dev.a3os./iam",
	"spiffe://.plane.dev.a3os/iam",
	"spiffe://x.plane.dev.a3os/iam",
	"spiffe://plane.dev.a3os.a3os/iam",
	"spiffe://plane.dev.a3os.example/iam",
	"spiffe://plane.dev/iam",
	"spiffe://plane.test.a3os/iam",
	"spiffe://plane..a3os/iam",
	"spiffe://dev.a3os/iam",
	"spiffe://a3os/iam",
	"spiffe://Plane.dev.a3os/iam",
	"spiffe://plane.DEV.a3os/iam",
	"SPIFFE://plane.dev.a3os/iam",
	"Spiffe://plane.dev.a3os/iam",
	"https://plane.dev.a3os/iam",
	"spiffe:plane.dev.a3os/iam",
	"spiffe:/plane.dev.a3os/iam",
	"spiffe://tnt_01h455vb4pex5vsknk084sn02q.dev.a3os/iam",
	"spiffe://tnt-01H455VB4PEX5VSKNK084SN02Q.dev.a3os/iam",
	"spiffe://tnt-01h455vb4pex5vsknk084sn02.dev.a3os/iam",
	"spiffe://tnt-01h455vb4pex5vsknk084sn02qq.dev.a3os/iam",
	"spiffe://tnt-01h455vb4pex5vsknk084sn02u.dev.a3os/iam", // u is not in the alphabet
	"spiffe://tnt-81h455vb4pex5vsknk084sn02q.dev.a3os/iam", // more than 128 bits
	"spiffe://tnt-00000000000000000000000000.dev.a3os/iam",
	"spiffe://tnt-.dev.a3os/iam",
	"spiffe://wsp-01h455vb4pex5vsknk084sn02q.dev.a3os/iam",
	"spiffe://acme.dev.a3os/iam",
	"spiffe://127.0.0.1/iam",
	"spiffe://[::1]/iam",
	"spiffe://plane.dev.a3os/" + strings.Repeat("a", 4096),
}

func TestURIsThatAreNearMissesAreRefused(t *testing.T) {
	for _, uri := range hostileURIs {
		if got, err := workload.ParseURI(uri); err == nil {
			t.Errorf("%q was read as %v", uri, got)
		} else if len(err.Error()) > 1024 {
			t.Errorf("the error for a text of %d octets has %d", len(uri), len(err.Error()))
		}
	}
}

// claiming is a certificate with these URI SANs, octet by octet as given.
func claiming(t testing.TB, uris ...string) *x509.Certificate {
	t.Helper()
	var names []asn1.RawValue
	for _, uri := range uris {
		names = append(names, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(uri)})
	}
	value, err := asn1.Marshal(names)
	if err != nil {
		t.Fatal(err)
	}
	return &x509.Certificate{
		KeyUsage:   x509.KeyUsageDigitalSignature,
		Extensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: value}},
	}
}

func TestCertificateNamesExactlyOneWorkload(t *testing.T) {
	const good = "spiffe://plane.dev.a3os/registry"
	if got, err := workload.FromCertificate(claiming(t, good)); err != nil || got.URI() != good {
		t.Fatalf("FromCertificate = %v, %v", got, err)
	}
	authority := claiming(t, good)
	authority.IsCA = true
	signer := claiming(t, good)
	signer.KeyUsage |= x509.KeyUsageCertSign
	cipher := claiming(t, good)
	cipher.KeyUsage = x509.KeyUsageKeyEncipherment
	garbled := claiming(t, good)
	garbled.Extensions[0].Value = append(garbled.Extensions[0].Value, 0)
	for name, certificate := range map[string]*x509.Certificate{
		"no certificate":           nil,
		"no name":                  {KeyUsage: x509.KeyUsageDigitalSignature},
		"no URI":                   claiming(t),
		"two URIs":                 claiming(t, good, "spiffe://plane.dev.a3os/gateway"),
		"one URI twice":            claiming(t, good, good),
		"a URI and an empty one":   claiming(t, good, ""),
		"an authority":             authority,
		"a key for certificates":   signer,
		"a key for encipherment":   cipher,
		"names with a tail":        garbled,
		"a scheme in another case": claiming(t, "SPIFFE://plane.dev.a3os/registry"),
		"an empty fragment":        claiming(t, good+"#"),
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := workload.FromCertificate(certificate); err == nil {
				t.Errorf("it was read as %v", got)
			}
		})
	}
	for _, uri := range hostileURIs {
		if got, err := workload.FromCertificate(claiming(t, uri)); err == nil {
			t.Errorf("%q was read as %v", uri, got)
		}
	}
}

func FuzzParseURI(f *testing.F) {
	f.Add("spiffe://plane.dev.a3os/registry")
	f.Add("spiffe://tnt-01h455vb4pex5vsknk084sn02q.prod.a3os/discovery-worker")
	for _, uri := range hostileURIs {
		f.Add(uri)
	}
	f.Fuzz(func(t *testing.T, uri string) {
		identity, err := workload.ParseURI(uri)
		if err != nil {
			if identity != (workload.Identity{}) {
				t.Fatalf("%q was refused and read as %v", uri, identity)
			}
			return
		}
		if identity.URI() != uri {
			t.Fatalf("%q was read as %q: two spellings of one identity", uri, identity.URI())
		}
		if back, err := workload.ParseServerName(identity.ServerName()); err != nil || back != identity {
			t.Fatalf("the pseudo-host of %q leads to %v, %v", uri, back, err)
		}
	})
}

// FuzzFromCertificate puts arbitrary alternative names into an otherwise good certificate. What crypto/x509 reads of it is the
// oracle: an identity must be the one URI that stands there, and an authority's signature must have covered it.
func FuzzFromCertificate(f *testing.F) {
	uri := func(texts ...string) []byte { return claiming(f, texts...).Extensions[0].Value }
	const good = "spiffe://tnt-01h455vb4pex5vsknk084sn02q.prod.a3os/discovery-worker"
	f.Add(uri(good))
	f.Add(uri(good, good))
	f.Add(uri())
	f.Add([]byte{})
	f.Add(append(uri(good), 0))
	f.Add(append([]byte{0x30, 0x80}, uri(good)[2:]...)) // indefinite length, which DER forbids
	for _, text := range hostileURIs {
		f.Add(uri(text))
	}

	rogue := rogueRoot(f)
	f.Fuzz(func(t *testing.T, names []byte) {
		der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
			KeyUsage:        x509.KeyUsageDigitalSignature,
			ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: names}},
		}, rogue.certificate, rogue.key.Public(), rogue.key)
		if err != nil {
			return
		}
		certificate, err := x509.ParseCertificate(der)
		if err != nil {
			return
		}
		identity, err := workload.FromCertificate(certificate)
		if err != nil {
			return
		}
		if len(certificate.URIs) != 1 || certificate.URIs[0].String() != identity.URI() {
			t.Fatalf("a certificate with the URIs %v was read as %v", certificate.URIs, identity)
		}
	})
}
