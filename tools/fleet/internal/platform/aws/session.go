package aws

import (
	"context"

	sdk "github.com/aws/aws-sdk-go-v2/aws"

	"a3os.app/tools/fleet/internal/platform/aws/session"
	"a3os.app/tools/fleet/internal/platform/aws/stack"
)

// session is who works on a set: the provisioner, in a session that reaches that one alone. It is taken once for each, and anew when it ends. In an
// account of the tenant's own it is that account's provisioner, whom the plane's becomes.
func (p *Platform) session(ctx context.Context, t *tenant) (sdk.Config, error) {
	cfg, err := p.config(ctx)
	if err != nil || p.lent != nil {
		return cfg, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if known, is := p.sessions[t.id]; is {
		return known, nil
	}
	if t.set.Tenant.IsZero() {
		cfg, err = session.ForPlane(ctx, cfg, t.place)
	} else {
		cfg, err = taken(ctx, cfg, t.place, t.id, session.ForTenant)
	}
	if err != nil {
		return cfg, err
	}
	if p.sessions == nil {
		p.sessions = map[string]sdk.Config{}
	}
	p.sessions[t.id] = cfg
	return cfg, nil
}

// taken is a session of a kind that begins now.
func taken(ctx context.Context, cfg sdk.Config, place stack.Place, tenant string, kind func(context.Context, sdk.Config, stack.Place, string) (sdk.Config, error)) (sdk.Config, error) {
	var err error
	if place.Hub != "" {
		if cfg, err = session.InAccount(ctx, cfg, place, tenant); err != nil {
			return cfg, err
		}
	}
	return kind(ctx, cfg, place, tenant)
}
