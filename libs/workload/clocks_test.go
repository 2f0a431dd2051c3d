package workload_test

import (
	"crypto/tls"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"a3os.app/libs/workload"
)

// Row F26, of certificates: who issued one and who is shown it have clocks of their own. What a certificate may be late by is written
// into its beginning; at its end nothing is forgiven.
func TestCertificateCountsByTheClockOfWhoIsShownIt(t *testing.T) {
	cases := []struct {
		// ahead is how far the issuer's clock was ahead of the verifier's when it issued; behind, where negative.
		ahead time.Duration
		// later is how much later by the verifier's clock the certificate is shown.
		later time.Duration
		want  string // of the refusal; empty where it is believed
	}{
		{ahead: 0},
		{ahead: 4 * time.Minute},
		{ahead: 10 * time.Minute, want: "not yet valid"},
		{ahead: 10 * time.Minute, later: 6 * time.Minute},
		{ahead: -10 * time.Minute},
		{ahead: -10 * time.Minute, later: workload.LeafLife - 11*time.Minute},
		{ahead: -10 * time.Minute, later: workload.LeafLife - 9*time.Minute, want: "expired"},
		{ahead: 0, later: workload.LeafLife + time.Second, want: "expired"},
		{ahead: 0, later: workload.LeafLife + 10*time.Minute, want: "expired"},
	}
	for _, c := range cases {
		t.Run(fmt.Sprintf("issued %s ahead, shown %s later", c.ahead, c.later), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				// The first quarter of an hour is for authorities to begin in.
				pass(15 * time.Minute)
				leaf, err := w.mine.issuer.IssueKeypair(of(w.tenant(), "audit"), time.Now().Add(c.ahead))
				if err != nil {
					t.Fatal(err)
				}
				verifier, err := workload.NewVerifier(w.trust)
				if err != nil {
					t.Fatal(err)
				}
				state := presented(t, pair(t, leaf))
				pass(c.later)
				for name, peer := range map[string]func(tls.ConnectionState) (workload.Identity, bool, error){
					"handshake": func(s tls.ConnectionState) (workload.Identity, bool, error) { return workload.Peer(s, w.trust) },
					"request":   verifier.Peer,
				} {
					who, ok, err := peer(state)
					switch {
					case c.want == "" && (err != nil || !ok || who != leaf.Identity()):
						t.Errorf("%s: refused: %v", name, err)
					case c.want != "" && (err == nil || ok || !strings.Contains(err.Error(), c.want)):
						t.Errorf("%s: want a refusal that says %q, got %v", name, c.want, err)
					}
				}
			})
		})
	}
	t.Attr("row", fmt.Sprintf("F26 %d", len(cases)))
}
