package aws

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"a3os.app/libs/awsdoors"
	"a3os.app/libs/config"
	"a3os.app/tools/fleet/internal/isolation"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/aws/prove"
	"a3os.app/tools/fleet/internal/platform/aws/stack"
	"a3os.app/tools/fleet/internal/platform/local"
)

// Figures of asking doors.
const (
	// asksAtOnce is how many tasks ask: Fargate starts some 20 in a second, for everybody of the account.
	asksAtOnce = 6
	// doorsOfATask is how many a task is told: its definition has room for 64 KB.
	doorsOfATask = 200
)

// World is what isolation.Verify tries: what the machine's side knows of the sets, and the doors of their stacks, which tasks have asked with
// each role that there is, of their own set and of every other. Who may be asked only by tasks is asked by tasks.
func (p *Platform) World(ctx context.Context, sets []platform.Set, pids map[string]int) (*isolation.World, error) {
	tenants := make([]*tenant, len(sets))
	stacks := make([]prove.Stack, len(sets))
	var doors []awsdoors.Door
	for i, s := range sets {
		err := p.useServer(ctx, s)
		if err == nil {
			tenants[i], err = p.of(ctx, s)
		}
		if err == nil {
			stacks[i], err = tenants[i].proven(ctx)
		}
		if err != nil {
			return nil, fmt.Errorf("what %s has at AWS: %w", s.Slug, err)
		}
		doors = append(doors, stacks[i].Doors(ctx)...)
	}
	w, err := p.Machine.World(sets, pids)
	if err != nil {
		return nil, err
	}
	p.servedDatabases(w, sets)
	for _, t := range tenants {
		told, err := t.outputs(ctx, t.stackName())
		if err != nil {
			return nil, err
		}
		w.Gaps = append(w.Gaps, t.untried(told)...)
	}
	var g errgroup.Group
	g.SetLimit(asksAtOnce)
	for i, t := range tenants {
		asked := make([]prove.Session, len(stacks[i].Roles))
		for j, role := range stacks[i].Roles {
			g.Go(func() error {
				asked[j] = t.askAs(ctx, role, doors)
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			return nil, err
		}
		for j, role := range stacks[i].Roles {
			stacks[i].Sessions[role.ARN] = asked[j]
		}
		w.Sets[i].Cloud = stacks[i].Cloud()
	}
	return w, ctx.Err()
}

// untried are the stores that a stack keeps of another release: no task's role is let in there, so that none could be the control by which a refusal means something.
func (t *tenant) untried(outputs map[string]string) (gaps []string) {
	_, kept := stack.Keeping(t.place, t.set.Blueprint, t.id, outputs)
	for _, name := range kept {
		gaps = append(gaps, fmt.Sprintf("The bucket of store %s, which %s keeps of a release that had it, was not tried: no role of its set is let in, so that there is no control.", name, t.set.Slug))
	}
	return gaps
}

// servedDatabases has those databases be tried that are on the server that sets share, the registry's among them.
func (p *Platform) servedDatabases(w *isolation.World, sets []platform.Set) {
	w.Databases = nil
	w.Gaps = append(w.Gaps, "That a service refuses to start with another's store at AWS was not tried: a store's mark is read by roles of its own set alone.")
	i := slices.IndexFunc(sets, func(s platform.Set) bool { return !s.Dedicated() })
	if i < 0 {
		w.Gaps = append(w.Gaps, "The registry's database is in the server that tenants of tier database share: without one it was not tried.")
		return
	}
	w.Databases = []string{"postgres", "template1", local.DatabaseName(p.Own)}
	w.AdminURL = func(database string) (config.Secret, error) {
		server, err := p.Databases(sets[i])
		if err != nil {
			return config.Secret{}, err
		}
		url, err := server.URL(database)
		return config.NewSecret(url), err
	}
}

// proven is the set's stack as it is tried; nobody has asked as its roles yet.
func (t *tenant) proven(ctx context.Context) (prove.Stack, error) {
	told, err := t.outputs(ctx, t.stackName())
	if err != nil {
		return prove.Stack{}, err
	}
	if told == nil {
		return prove.Stack{}, fmt.Errorf("there is no stack %s", t.stackName())
	}
	return prove.Stack{Tenant: t.id, Slug: t.set.Slug, Holdings: stack.HoldingsOf(t.place, t.set), QueueURL: told[stack.QueueOutput], Key: told[stack.KeyOutput],
		Sessions: map[string]prove.Session{}, Provisioner: prove.Here{Config: t.cfg}}, nil
}

// askAs has tasks ask doors with a role of the set, started as the component's own are and standing where they do.
func (t *tenant) askAs(ctx context.Context, role stack.HeldRole, doors []awsdoors.Door) prove.Session {
	out := prove.Told{}
	for len(doors) > 0 {
		n := min(doorsOfATask, len(doors))
		if err := t.askSome(ctx, role, doors[:n], out); err != nil {
			return prove.Unasked{Why: fmt.Errorf("no task asked as %s: %w", role.ARN, err)}
		}
		doors = doors[n:]
	}
	return out
}

func (t *tenant) askSome(ctx context.Context, role stack.HeldRole, doors []awsdoors.Door, out prove.Told) error {
	text, err := json.Marshal(doors)
	if err != nil {
		return err
	}
	said, code, err := t.run(ctx, oneOff{component: role.Component, command: []string{"ask-doors"}, environ: []string{"A3_DOORS=" + string(text), "A3_PLANE=" + t.place.Plane},
		role: role.ARN, bare: true, lines: len(doors)})
	if err != nil {
		return err
	}
	if code != 0 {
		return fmt.Errorf("it ended with %d, saying %q: a release before ask-doors can't be tried so, upgrade %s", code, said, t.set.Slug)
	}
	answered := 0
	for _, line := range said {
		var a awsdoors.Answer
		if json.Unmarshal([]byte(line), &a) != nil || a.Number < 0 || a.Number >= len(doors) {
			continue
		}
		out[doors[a.Number]] = a.Err()
		answered++
	}
	if answered != len(doors) {
		return errors.New("its log lacks lines: ask again")
	}
	return nil
}
