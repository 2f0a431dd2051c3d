package docker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/pgserver"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/local"
	"a3os.app/tools/fleet/internal/settings"
	"a3os.app/tools/fleet/internal/state"
)

// Whoever speaks to a Docker engine is root of the machine, and no engine lets somebody in for some containers alone. So the process that
// works on a set never speaks to it. What takes the tenant's credentials it does itself: it puts what containers read where they find it,
// and takes that away. For the rest it asks who has the engine, by these words and the names of the set's components; what a container
// is, its image, its mounts, its networks, its bounds, whoever has the engine reads in the blueprint, for the set of the operation.
const (
	// askPrepare: the set's networks, and who is called there.
	askPrepare = "prepare"
	// askKeep: the container of each component runs the operation's release. askAwait: it serves.
	askKeep  = "keep"
	askAwait = "await"
	// askMigrate: the release's migrations are run.
	askMigrate = "migrate"
	// askDrop: the containers of components are stopped and removed.
	askDrop = "drop"
)

// duringStep is what may be asked for at each step: nothing is started by who is there to stop it.
var duringStep = map[string][]string{
	platform.StepMigrate: {askMigrate},
	platform.StepStart:   {askPrepare, askKeep, askAwait},
	platform.StepStop:    {askDrop},
	platform.StepDelete:  {askDrop},
}

// call is what is asked for.
type call struct {
	Do         string   `json:"do"`
	Components []string `json:"components,omitempty"`
}

func (p *Platform) ask(ctx context.Context, do string, components ...string) (changed bool, err error) {
	text, err := json.Marshal(call{Do: do, Components: components})
	if err != nil {
		return false, err
	}
	answer, err := p.door(ctx, text)
	return answer.Changed, err
}

// Answer implements platform.Doorkeeper.
func (p *Platform) Answer(ctx context.Context, s platform.Set, r platform.Release, step string, text json.RawMessage) (platform.Answer, error) {
	changed, err := p.answer(ctx, s, r, step, text)
	return platform.Answer{Changed: changed}, err
}

func (p *Platform) answer(ctx context.Context, s platform.Set, r platform.Release, step string, text json.RawMessage) (changed bool, err error) {
	asked, components, err := may(s, step, text)
	if err != nil {
		return false, err
	}
	switch asked.Do {
	case askPrepare:
		return p.prepare(ctx, s, r)
	case askMigrate:
		return true, p.answerMigrate(ctx, s, r)
	case askDrop:
		if changed, err = p.drop(ctx, s, asked.Components...); err != nil {
			return changed, err
		}
		if err := p.takeAway(s, asked.Components...); err != nil {
			return changed, err
		}
		did, err := p.dropOthers(ctx, s)
		return changed || did, err
	}
	for _, c := range components {
		did := false
		if asked.Do == askKeep {
			did, err = p.keep(ctx, s, r, c)
		} else {
			err = p.await(ctx, s, c)
		}
		if changed = changed || did; err != nil {
			return changed, err
		}
	}
	return changed, nil
}

// may reads what is asked for, and refuses what is not the set's or not the step's.
func may(s platform.Set, step string, text json.RawMessage) (asked call, components []blueprint.Component, err error) {
	refuse := func(what string) (call, []blueprint.Component, error) {
		return call{}, nil, fmt.Errorf("refused to who works on %s: %s", s.Name(), what)
	}
	if s.Tenant.IsZero() {
		return refuse("the plane's own set is delegated to nobody")
	}
	words := json.NewDecoder(bytes.NewReader(text))
	words.DisallowUnknownFields()
	if err := words.Decode(&asked); err != nil {
		return refuse(err.Error() + ": what a container is, the blueprint alone says")
	}
	if _, err := words.Token(); !errors.Is(err, io.EOF) {
		return refuse("more than one thing is asked for at once")
	}
	if !slices.Contains(duringStep[step], asked.Do) {
		return refuse(fmt.Sprintf("at step %q nobody is asked to %q", step, asked.Do))
	}
	for _, name := range asked.Components {
		c, ok := s.Blueprint.Component(name)
		if !ok {
			return refuse(fmt.Sprintf("%q is none of its components, and whoever works on one tenant reaches no other", name))
		}
		components = append(components, c)
	}
	return asked, components, nil
}

// answerMigrate runs migrations whose files whoever asks has put there.
func (p *Platform) answerMigrate(ctx context.Context, s platform.Set, r platform.Release) error {
	if d := s.Blueprint.Database; d == nil || len(d.Migrate.Command) == 0 {
		return fmt.Errorf("%s has no migrations", s.Blueprint.Name)
	}
	user, err := p.Machine.User(ctx, s, local.Migrator)
	if err != nil {
		return err
	}
	secrets, err := p.secretsOf(s, local.Migrator, user)
	if err != nil {
		return err
	}
	return p.migrate(ctx, s, r, secrets)
}

// delegation is what that process opens the platform with.
type delegation struct {
	Settings settings.Settings
	// State holds the plane's own places, and one set's.
	State    *state.State
	Binaries pgserver.Binaries
}

// Delegate implements platform.Platform.
func (p *Platform) Delegate(ctx context.Context, s platform.Set, _ platform.Release, _ time.Time) (platform.Delegation, error) {
	var none platform.Delegation
	lent, err := p.Machine.Lend(ctx, s)
	if err != nil {
		return none, err
	}
	place := p.secretsPlace(s)
	if lent.Alive {
		if err := p.mountSecrets(); err != nil {
			return none, err
		}
		const walkable = 0o711
		if err := os.MkdirAll(place, walkable); err != nil {
			return none, fmt.Errorf("make the place of what the set's containers read: %w", err)
		}
	}
	config, err := json.Marshal(delegation{Settings: p.Settings, State: p.State.Part(string(blueprint.ScopePlane), s.Name()), Binaries: p.Binaries})
	if err != nil {
		return none, err
	}
	return platform.Delegation{
		Steps: lent.Steps, Config: config, Reads: append(lent.Reads, p.Machine.Files(s).PlaneRoots()), Writes: append(lent.Writes, place),
	}, nil
}

// Delegated implements platform.Platform.
func (p *Platform) Delegated(s platform.Set, r platform.Release, step string) error {
	return p.Machine.Delegated(s, r, step)
}

// Open opens the platform in a process that got it delegated: it has one set's files, and asks for the rest at the door.
func Open(config json.RawMessage, door platform.Door) (*Platform, error) {
	var d delegation
	if err := json.Unmarshal(config, &d); err != nil {
		return nil, fmt.Errorf("read what was delegated: %w", err)
	}
	machine, err := local.OpenLent(d.Settings, d.State)
	if err != nil {
		return nil, err
	}
	p := &Platform{Settings: d.Settings, State: d.State, Own: machine.Own, Machine: machine, Binaries: d.Binaries, door: door}
	machine.Places = p
	return p, nil
}
