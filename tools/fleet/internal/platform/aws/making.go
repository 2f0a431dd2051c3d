package aws

import (
	"context"
	"encoding/json"
	"fmt"

	sdk "github.com/aws/aws-sdk-go-v2/aws"

	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/aws/session"
)

// making is who makes a set's stack: in a session that begins now, and may make the zone of a tenant's names, and its services, besides.
func (p *Platform) making(ctx context.Context, t *tenant) (sdk.Config, error) {
	if t.set.Tenant.IsZero() || p.lent != nil {
		return t.cfg, nil
	}
	cfg, err := p.config(ctx)
	if err != nil {
		return cfg, err
	}
	return taken(ctx, cfg, t.place, t.id, session.MakingTenant)
}

// askMaking is how the process that works on a set asks for the step that it is at to be done by fleet itself, where the set's stack lacks services.
const askMaking = "services"

// byWhoMakes has a set be started or stopped by who may make its services, where its stack lacks some of the blueprint's, as that of a release before may. A
// process that works on one tenant may not, for which groups and which load balancer a service stands behind AWS can't bound, so that it has fleet do
// the whole step, which renders and plans what is made: done is true then. Elsewhere t is who may from now on.
func (t *tenant) byWhoMakes(ctx context.Context) (done, changed bool, err error) {
	if t.set.Tenant.IsZero() {
		return false, false, nil
	}
	lacks, err := t.lacks(ctx)
	if err != nil || !lacks {
		return false, false, err
	}
	if t.lent == nil {
		t.cfg, err = t.making(ctx, t)
		return false, false, err
	}
	answer, err := t.door(ctx, json.RawMessage(`"`+askMaking+`"`))
	if err != nil {
		err = fmt.Errorf("have fleet make the services that stack %s lacks: %w", t.stackName(), err)
	}
	return true, answer.Changed, err
}

// lacks says whether a stack that is there hasn't all of the blueprint's services.
func (t *tenant) lacks(ctx context.Context) (bool, error) {
	services, err := t.services(ctx)
	if err != nil {
		return false, err
	}
	for _, c := range t.set.Blueprint.Components {
		if _, is := services[c.Name]; !is {
			there, err := t.outputs(ctx, t.stackName())
			return there != nil, err
		}
	}
	return false, nil
}

// make does, for the process that works on a set, the step that it is at and that makes services: nothing but that, and only where there are some to make.
func (p *Platform) make(ctx context.Context, s platform.Set, r platform.Release, step string) (changed bool, err error) {
	t, err := p.of(ctx, s)
	if err != nil {
		return false, err
	}
	lacks, err := t.lacks(ctx)
	if err != nil {
		return false, err
	}
	switch {
	case lacks && step == platform.StepStart:
		return p.Start(ctx, s, r)
	case lacks && step == platform.StepStop:
		return p.Stop(ctx, s)
	}
	return false, fmt.Errorf("refused to who works on %s: at step %s there are no services to make", s.Name(), step)
}
