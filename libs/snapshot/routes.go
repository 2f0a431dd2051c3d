package snapshot

import (
	"fmt"
	"net"
	"strings"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/clip"
	"a3os.app/libs/id"
)

// mostTold keeps errors short when the text is hostile.
const mostTold = 64

// check refuses a snapshot that two gateways could read in two ways: a tenant or a slug that comes twice, a slug that is no host
// label, a component that can't be dialled.
func check(snap *registryv1.Snapshot) error {
	if snap.GetVersion() <= 0 {
		return fmt.Errorf("%w: it has no version", ErrMalformed)
	}
	_, err := checkRoutes(snap.GetRoutes())
	return err
}

// checkRoutes answers whose routes they are.
func checkRoutes(routes []*registryv1.Route) (map[id.Tenant]struct{}, error) {
	if len(routes) > maxRoutes {
		return nil, fmt.Errorf("%w: it has %d routes, at most %d are taken", ErrMalformed, len(routes), maxRoutes)
	}
	slugs := make(map[string]struct{}, len(routes))
	tenants := make(map[id.Tenant]struct{}, len(routes))
	for _, r := range routes {
		tenant, err := checkRoute(r)
		if err != nil {
			return nil, fmt.Errorf("%w: route of %q: %w", ErrMalformed, clip.Text(r.GetSlug(), mostTold), err)
		}
		if _, twice := slugs[r.GetSlug()]; twice {
			return nil, fmt.Errorf("%w: the slug %q comes twice", ErrMalformed, r.GetSlug())
		}
		if _, twice := tenants[tenant]; twice {
			return nil, fmt.Errorf("%w: tenant %s comes twice", ErrMalformed, tenant)
		}
		slugs[r.GetSlug()], tenants[tenant] = struct{}{}, struct{}{}
	}
	return tenants, nil
}

func checkRoute(r *registryv1.Route) (id.Tenant, error) {
	if !IsLabel(r.GetSlug()) {
		return id.Tenant{}, fmt.Errorf("the slug is not a host label")
	}
	tenant, err := id.ParseTenant(r.GetTenantId())
	if err != nil {
		return id.Tenant{}, err
	}
	if r.GetCaCertificatesPem() == "" {
		return id.Tenant{}, fmt.Errorf("it has no authority")
	}
	names := make(map[string]struct{}, len(r.GetComponents()))
	for _, c := range r.GetComponents() {
		if _, twice := names[c.GetName()]; twice || !IsLabel(c.GetName()) {
			return id.Tenant{}, fmt.Errorf("component %q comes twice or is not a label", clip.Text(c.GetName(), mostTold))
		}
		names[c.GetName()] = struct{}{}
		if host, port, err := net.SplitHostPort(c.GetAddress()); err != nil || host == "" || port == "" {
			return id.Tenant{}, fmt.Errorf("component %s has no address of the form host:port", c.GetName())
		}
		for _, p := range c.GetPathPrefixes() {
			if !strings.HasPrefix(p, "/") {
				return id.Tenant{}, fmt.Errorf("component %s has a path prefix that does not begin with a slash", c.GetName())
			}
		}
	}
	return tenant, nil
}

// IsLabel says whether s is a DNS label as slugs and components use them: lower case, a letter first, no hyphen at the end, at
// most 40 octets.
func IsLabel(s string) bool {
	if len(s) == 0 || len(s) > 40 || s[0] < 'a' || s[0] > 'z' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}
