package workload

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/maypok86/otter/v2"

	"a3os.app/libs/clip"
	"a3os.app/libs/id"
)

// maxChain is how many certificates a peer may present: leaf, intermediate, root, and one to spare while a root is replaced.
const maxChain = 4

// Anchors says which roots vouch for a trust domain; a trust domain that isn't to be trusted is an error, never an empty answer.
// The pool for one trust domain must hold that domain's roots alone, and must be another pool when the roots change.
type Anchors interface {
	Roots(TrustDomain) (*x509.CertPool, error)
}

// AnchorsFunc is a function as Anchors: for the registry and the gateway, which know many tenants.
type AnchorsFunc func(TrustDomain) (*x509.CertPool, error)

// Roots calls the function.
func (f AnchorsFunc) Roots(d TrustDomain) (*x509.CertPool, error) { return f(d) }

// Trust is what a process of one tenant's set trusts: its own tenant's root for its own tenant's services, and the plane's root for
// the control plane's. No third trust domain, and never one root for the other's names. A nil pool trusts nobody.
type Trust struct {
	// Plane is "dev" or "prod".
	Plane string
	// Tenant is zero in a process of the control plane, which then trusts no tenant.
	Tenant id.Tenant
	// TenantRoots vouch for services of Tenant.
	TenantRoots *x509.CertPool
	// PlaneRoots vouch for services of the control plane of Plane.
	PlaneRoots *x509.CertPool
}

// Roots implements Anchors.
func (t Trust) Roots(d TrustDomain) (*x509.CertPool, error) {
	switch {
	case d.Plane != t.Plane:
		return nil, fmt.Errorf("%s is of another plane, this is %s", d, t.Plane)
	case d.Tenant.IsZero() && t.PlaneRoots != nil:
		return t.PlaneRoots, nil
	case !d.Tenant.IsZero() && d.Tenant == t.Tenant && t.TenantRoots != nil:
		return t.TenantRoots, nil
	default:
		return nil, fmt.Errorf("%s is not trusted here", d)
	}
}

// ParseRoots reads the roots of one trust domain (PEM; several while a root is being replaced). It refuses what isn't a
// self-signed authority critically name-constrained to that trust domain: a root without constraints could vouch for anybody.
func ParseRoots(domain TrustDomain, rootsPEM []byte) (*x509.CertPool, error) {
	if err := domain.Validate(); err != nil {
		return nil, fmt.Errorf("read roots: %w", err)
	}
	roots, err := parseCertificates(rootsPEM)
	if err != nil {
		return nil, fmt.Errorf("read the roots of %s: %w", domain, err)
	}
	pool := x509.NewCertPool()
	for _, root := range roots {
		constrained, err := constrainedTo(root)
		if err != nil {
			return nil, fmt.Errorf("read the roots of %s: %w", domain, err)
		}
		if constrained != domain {
			return nil, fmt.Errorf("read the roots of %s: there is the root of %s among them", domain, constrained)
		}
		if err := root.CheckSignatureFrom(root); err != nil {
			return nil, fmt.Errorf("read the roots of %s: %q is not a root: %w", domain, clip.Text(root.Subject.String(), mostTold), err)
		}
		pool.AddCert(root)
	}
	return pool, nil
}

// Peer is who stands at the other end of a connection that this process serves, and whether it presented a certificate at all:
// users don't. A certificate that doesn't prove a trusted identity now is an error, never "no certificate". It verifies the whole
// chain each time; servers that ask for each request use a Verifier.
func Peer(state tls.ConnectionState, anchors Anchors) (Identity, bool, error) {
	if len(state.PeerCertificates) == 0 {
		return Identity{}, false, nil
	}
	p, err := prove(state.PeerCertificates, x509.ExtKeyUsageClientAuth, anchors, time.Now())
	if err != nil {
		return Identity{}, false, err
	}
	return p.identity, true, nil
}

// proof is that a certificate was verified: for whom, under which roots, and for how long that holds.
type proof struct {
	identity            Identity
	roots               *x509.CertPool
	notBefore, notAfter time.Time
}

// prove reads the identity that the leaf claims and verifies that the chain leads to a root of that very identity's trust domain.
// The order matters: verified against all roots first, a root would vouch for names that aren't its own.
func prove(chain []*x509.Certificate, usage x509.ExtKeyUsage, anchors Anchors, now time.Time) (proof, error) {
	if len(chain) > maxChain {
		return proof{}, fmt.Errorf("the peer presented %d certificates, at most %d are read", len(chain), maxChain)
	}
	identity, err := FromCertificate(chain[0])
	if err != nil {
		return proof{}, fmt.Errorf("read the peer's identity: %w", err)
	}
	roots, err := anchored(anchors, identity)
	if err != nil {
		return proof{}, err
	}
	intermediates := x509.NewCertPool()
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	verified, err := chain[0].Verify(x509.VerifyOptions{
		Roots:         roots,
		Intermediates: intermediates,
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{usage},
	})
	if err != nil {
		return proof{}, fmt.Errorf("the peer claims to be %s, and its certificate doesn't prove it: %w", identity, err)
	}
	p := proof{identity: identity, roots: roots, notBefore: chain[0].NotBefore, notAfter: chain[0].NotAfter}
	for _, c := range verified[0] {
		p.notAfter = earlier(p.notAfter, c.NotAfter)
		if c.NotBefore.After(p.notBefore) {
			p.notBefore = c.NotBefore
		}
	}
	return p, nil
}

// anchored never answers nil: x509 and crypto/tls read a nil pool as the machine's own roots.
func anchored(anchors Anchors, identity Identity) (*x509.CertPool, error) {
	if anchors == nil {
		return nil, fmt.Errorf("nothing says which root vouches for %s", identity)
	}
	roots, err := anchors.Roots(identity.TrustDomain())
	if err != nil {
		return nil, fmt.Errorf("find the root that vouches for %s: %w", identity, err)
	}
	if roots == nil {
		return nil, fmt.Errorf("no root vouches for %s", identity)
	}
	return roots, nil
}

// Verifier is Peer for each request of a long connection: it remembers which leaves were proven, so that a request costs a look-up
// instead of three signatures. What it remembers ends with the first certificate of the chain that expires and with the roots that
// proved it. Safe for concurrent use.
type Verifier struct {
	anchors Anchors
	proven  *otter.Cache[*x509.Certificate, proof]
}

// NewVerifier makes a Verifier that remembers the 1024 leaves in use.
func NewVerifier(anchors Anchors) (*Verifier, error) {
	if anchors == nil {
		return nil, errors.New("make a verifier: nothing says which roots to trust")
	}
	proven, err := otter.New(&otter.Options[*x509.Certificate, proof]{MaximumSize: 1024})
	if err != nil {
		return nil, fmt.Errorf("make a verifier: %w", err)
	}
	return &Verifier{anchors: anchors, proven: proven}, nil
}

// Peer answers as the function Peer does.
func (v *Verifier) Peer(state tls.ConnectionState) (Identity, bool, error) {
	if len(state.PeerCertificates) == 0 {
		return Identity{}, false, nil
	}
	// The key is the parsed certificate of this connection, not what it says: nobody else can come up with that pointer.
	leaf, now := state.PeerCertificates[0], time.Now()
	if p, ok := v.proven.GetIfPresent(leaf); ok && !now.Before(p.notBefore) && !now.After(p.notAfter) {
		if roots, err := anchored(v.anchors, p.identity); err == nil && roots == p.roots {
			return p.identity, true, nil
		}
	}
	p, err := prove(state.PeerCertificates, x509.ExtKeyUsageClientAuth, v.anchors, now)
	if err != nil {
		v.proven.Invalidate(leaf)
		return Identity{}, false, err
	}
	v.proven.Set(leaf, p)
	return p.identity, true, nil
}
