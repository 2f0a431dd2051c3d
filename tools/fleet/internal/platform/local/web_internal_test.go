package local

import (
	"crypto/tls"
	"slices"
	"testing"
	"time"

	"a3os.app/tools/fleet/internal/settings"
	"a3os.app/tools/fleet/internal/state"
)

// Row H15, at the handshake: the certificate is shown to whoever connects, before anybody says which host they ask for. It names no tenant where a
// wildcard is believed, and none that left where it isn't.
func TestCertificateThatEverybodySeesNamesNoTenant(t *testing.T) {
	for domain, cases := range map[string][]struct{ slugs, want []string }{
		"access.example.com": {
			{[]string{"globex", "secret-customer"}, []string{"*.access.example.com", "access.example.com"}},
			{nil, []string{"*.access.example.com", "access.example.com"}},
		},
		"localhost": {
			{[]string{"secret-customer", "globex", "globex"}, []string{"*.localhost", "globex.localhost", "localhost", "secret-customer.localhost"}},
			{[]string{"globex"}, []string{"*.localhost", "globex.localhost", "localhost"}},
		},
	} {
		t.Run(domain, func(t *testing.T) {
			home := t.TempDir()
			st, err := state.Open(home)
			if err != nil {
				t.Fatal(err)
			}
			s, err := settings.Load([]string{"A3_HOME=" + home, "A3_DOMAIN=" + domain}, "/")
			if err != nil {
				t.Fatal(err)
			}
			p := &Platform{Settings: s, State: st, Now: time.Now}
			for _, c := range cases {
				if _, err := p.Web(c.slugs); err != nil {
					t.Fatal(err)
				}
				if did, err := p.Web(c.slugs); did || err != nil {
					t.Errorf("made again for %v: %v, %v", c.slugs, did, err)
				}
				pair, err := tls.LoadX509KeyPair(p.frontFile("certificate.pem"), p.frontFile("key.pem"))
				if err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(pair.Leaf.DNSNames, c.want) {
					t.Errorf("with tenants %v it names %v, want %v", c.slugs, pair.Leaf.DNSNames, c.want)
				}
			}
		})
	}
}
