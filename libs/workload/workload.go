// Package workload is who a service is to another service: a certificate whose URI SAN says plane, tenant and service, issued by
// the tenant's own authority (or the control plane's) and proven by mutual TLS 1.3. It promises that a certificate speaks for no
// identity but the one in it, only under the root of that identity's own trust domain, that a client reaches the workload it asked
// for or nobody, and that certificates renew without a restart. It relies on its callers for which root belongs to which trust
// domain (Anchors), for addresses (Resolver), and for what a proven workload may do.
//
// Names are SPIFFE IDs (SPIFFE-ID §2, X509-SVID §2–4):
//
//	spiffe://tnt-01h455vb4pex5vsknk084sn02q.prod.a3os/discovery     a service of a tenant
//	spiffe://plane.prod.a3os/registry                               a service of the control plane
//
// and each has a pseudo-host, its DNS SAN, by which it is dialled: discovery.tnt-01h455vb4pex5vsknk084sn02q.prod.a3os. No
// resolver knows pseudo-hosts; they exist so that connections are pooled per tenant and service and never per address.
package workload

import (
	"fmt"
	"regexp"
	"strings"

	"a3os.app/libs/clip"
	"a3os.app/libs/id"
)

// mostTold keeps errors short when the text is hostile.
const mostTold = 128

const (
	uriScheme    = "spiffe://"
	domainSuffix = ".a3os"
	// planeLabel stands where tenants have their id. Tenants' labels begin with "tnt-", so the two can't meet.
	planeLabel = "plane"
)

// Services that are no process of a blueprint.
const (
	// Operator is the plane's first operator: who made the plane. Others have names, OperatorPrefix and what follows.
	Operator = "operator"
	// OperatorPrefix begins the service of an operator with a name: `operator-ann`.
	OperatorPrefix = Operator + "-"
	// Provisioner is whoever carries out an operation on a tenant, in that tenant's trust domain. Only the plane makes one.
	Provisioner = "provisioner"
)

// Reserved says of a service's name that no issuer of a tenant may certify it: it is an operator's or the provisioner's.
func Reserved(service string) bool {
	return service == Provisioner || service == Operator || strings.HasPrefix(service, OperatorPrefix)
}

// serviceName is a DNS label, shorter than the 63 octets DNS allows so that the whole pseudo-host stays well within its 253.
var serviceName = regexp.MustCompile(`^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$`)

// TrustDomain is whose authority vouches: a tenant's in a plane or, with no tenant, the plane's own (the control plane).
type TrustDomain struct {
	// Plane is "dev" or "prod".
	Plane string
	// Tenant is zero for the control plane.
	Tenant id.Tenant
}

// Identity is one service of a tenant or, with no tenant, of the control plane. The zero Identity is nobody.
type Identity struct {
	// Plane is "dev" or "prod".
	Plane string
	// Tenant is zero for a service of the control plane.
	Tenant id.Tenant
	// Service is a DNS label in lower case, 32 octets at most: "discovery-worker".
	Service string
}

// Validate refuses a trust domain without a known plane.
func (d TrustDomain) Validate() error {
	switch d.Plane {
	case "dev", "prod":
		return nil
	default:
		return fmt.Errorf("%q is not a plane, want dev or prod", clip.Text(d.Plane, mostTold))
	}
}

// Host is the trust domain's name and the host of its identities' URIs: `tnt-….prod.a3os` or `plane.prod.a3os`; empty when the
// trust domain is not valid.
func (d TrustDomain) Host() string {
	if d.Validate() != nil {
		return ""
	}
	label := planeLabel
	if !d.Tenant.IsZero() {
		label = strings.ReplaceAll(d.Tenant.String(), "_", "-")
	}
	return label + "." + d.Plane + domainSuffix
}

// String is Host, for messages.
func (d TrustDomain) String() string { return d.Host() }

// ParseTrustDomain reads what Host writes and nothing else.
func ParseTrustDomain(host string) (TrustDomain, error) {
	label, plane, ok := strings.Cut(strings.TrimSuffix(host, domainSuffix), ".")
	d := TrustDomain{Plane: plane}
	if ok && label != planeLabel {
		tenant, err := id.ParseTenant(strings.Replace(label, "-", "_", 1))
		if err != nil {
			return TrustDomain{}, fmt.Errorf("%q is not a trust domain: %w", clip.Text(host, mostTold), err)
		}
		d.Tenant = tenant
	}
	// One name, one spelling: what doesn't come back the same (case, a missing suffix, more labels) was not ours.
	if d.Host() == "" || d.Host() != host {
		return TrustDomain{}, fmt.Errorf("%q is not a trust domain, want <tenant>.<plane>%s or %s.<plane>%s", clip.Text(host, mostTold), domainSuffix, planeLabel, domainSuffix)
	}
	return d, nil
}

// TrustDomain is whose authority must vouch for the identity.
func (i Identity) TrustDomain() TrustDomain { return TrustDomain{Plane: i.Plane, Tenant: i.Tenant} }

// Validate refuses an identity without a known plane or with a service that isn't a DNS label.
func (i Identity) Validate() error {
	if err := i.TrustDomain().Validate(); err != nil {
		return err
	}
	if !serviceName.MatchString(i.Service) {
		return fmt.Errorf("%q is not a service name, want a lower-case DNS label of at most 32 octets", clip.Text(i.Service, mostTold))
	}
	return nil
}

// URI is the SPIFFE ID, `spiffe://<trust domain>/<service>`; empty when the identity is not valid.
func (i Identity) URI() string {
	if i.Validate() != nil {
		return ""
	}
	return uriScheme + i.TrustDomain().Host() + "/" + i.Service
}

// ServerName is the pseudo-host, `<service>.<trust domain>`: the name to dial and to ask TLS for; empty when the identity is not
// valid.
func (i Identity) ServerName() string {
	if i.Validate() != nil {
		return ""
	}
	return i.Service + "." + i.TrustDomain().Host()
}

// String is the URI, for messages.
func (i Identity) String() string {
	if uri := i.URI(); uri != "" {
		return uri
	}
	return "no workload"
}

// ParseURI reads what URI writes and nothing else: no other scheme or case, no port, user, query, fragment or escape.
func ParseURI(uri string) (Identity, error) {
	rest, ok := strings.CutPrefix(uri, uriScheme)
	host, service, hasPath := strings.Cut(rest, "/")
	if !ok || !hasPath {
		return Identity{}, fmt.Errorf("%q is not a workload's URI, want %s<trust domain>/<service>", clip.Text(uri, mostTold), uriScheme)
	}
	return join(host, service, uri)
}

// ParseServerName reads what ServerName writes and nothing else.
func ParseServerName(name string) (Identity, error) {
	service, host, ok := strings.Cut(name, ".")
	if !ok {
		return Identity{}, fmt.Errorf("%q is not a workload's pseudo-host, want <service>.<trust domain>", clip.Text(name, mostTold))
	}
	return join(host, service, name)
}

func join(host, service, whole string) (Identity, error) {
	d, err := ParseTrustDomain(host)
	if err != nil {
		return Identity{}, fmt.Errorf("read workload name %q: %w", clip.Text(whole, mostTold), err)
	}
	i := Identity{Plane: d.Plane, Tenant: d.Tenant, Service: service}
	if err := i.Validate(); err != nil {
		return Identity{}, fmt.Errorf("read workload name %q: %w", clip.Text(whole, mostTold), err)
	}
	return i, nil
}
