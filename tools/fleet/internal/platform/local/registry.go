package local

import (
	"context"
	"crypto/tls"
	"slices"
	"time"

	"google.golang.org/grpc"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/workload"
	"a3os.app/tools/fleet/internal/asked"
	"a3os.app/tools/fleet/internal/platform"
)

// registryService is the service of the control plane that knows the tenants.
const registryService = blueprint.Registry

// Registry connects to the plane's registry as the operator that the settings name. It connects when it is used.
func (p *Platform) Registry(opts ...grpc.DialOption) (*grpc.ClientConn, error) {
	plane := platform.Set{}
	source, err := p.worker()
	if err != nil {
		return nil, err
	}
	roots, err := p.Roots(plane)
	if err != nil {
		return nil, err
	}
	pool, err := workload.ParseRoots(p.domain(plane), roots)
	if err != nil {
		return nil, err
	}
	creds, err := workload.GRPCClientCredentials(source, workload.Trust{Plane: p.State.Plane, PlaneRoots: pool},
		workload.Identity{Plane: p.State.Plane, Service: registryService})
	if err != nil {
		return nil, err
	}
	addr, err := p.Address(plane, registryService, "api")
	if err != nil {
		return nil, err
	}
	return grpc.NewClient("passthrough:///"+addr, append([]grpc.DialOption{asked.Named(), grpc.WithTransportCredentials(creds)}, opts...)...)
}

// Meet sees that who answers at an address proves with its certificate that it is a component of the set.
func (p *Platform) Meet(ctx context.Context, s platform.Set, component, address string) error {
	source, err := workload.OpenSource(p.served("pki", workload.Operator), workload.Identity{Plane: p.State.Plane, Service: workload.Operator})
	if err != nil {
		return err
	}
	roots, err := p.pool(s)
	if err != nil {
		return err
	}
	config, err := workload.ClientTLS(source, workload.Trust{Plane: p.State.Plane, Tenant: s.Tenant, TenantRoots: roots}, workload.Identity{Plane: p.State.Plane, Tenant: s.Tenant, Service: component})
	if err != nil {
		return err
	}
	const most = 10 * time.Second
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	d := tls.Dialer{Config: config}
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}

// Placed implements platform.Platform.
func (p *Platform) Placed(_ context.Context, s platform.Set, r platform.Release) (*registryv1.ServiceSet, error) {
	roots, err := p.Roots(s)
	if err != nil {
		return nil, err
	}
	database, err := p.placeOfDatabase(s)
	if err != nil {
		return nil, err
	}
	out := &registryv1.ServiceSet{Database: database, CaCertificatesPem: string(roots), Release: r.String()}
	for _, c := range s.Blueprint.Components {
		if !slices.Contains(c.Ports, "api") {
			continue
		}
		addr, err := p.Address(s, c.Name, "api")
		if err != nil {
			return nil, err
		}
		if slices.Contains(c.Needs.Plane, blueprint.Registry) {
			out.Reporter = c.Name
		}
		out.Components = append(out.Components, &registryv1.Component{Name: c.Name, Address: addr, PathPrefixes: c.Routes})
	}
	return out, nil
}

// placeOfDatabase is where a set has its database; nil where it has none.
func (p *Platform) placeOfDatabase(s platform.Set) (*registryv1.DatabasePlace, error) {
	if s.Blueprint.Database == nil {
		return nil, nil //nolint:nilnil // none is an answer
	}
	server, err := p.databases(s)
	if err != nil {
		return nil, err
	}
	if server.Address() == "" {
		return nil, nil //nolint:nilnil // the network that it will be in is not made yet
	}
	return &registryv1.DatabasePlace{Server: server.Address(), Name: databaseName(s)}, nil
}
