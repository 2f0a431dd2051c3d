package docker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"a3os.app/deploy/blueprint"
	"a3os.app/tools/fleet/internal/container"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/local"
)

// Migrate implements platform.Platform: once for each release.
func (p *Platform) Migrate(ctx context.Context, s platform.Set, r platform.Release) (changed bool, err error) {
	d := s.Blueprint.Database
	if d == nil || len(d.Migrate.Command) == 0 || p.State.Migrated()[s.Name()] == r.String() {
		return false, nil
	}
	user, err := p.Machine.User(ctx, s, local.Migrator)
	if err != nil {
		return false, err
	}
	secrets, err := p.secretsOf(s, local.Migrator, user)
	if err != nil {
		return false, err
	}
	secrets.file(p.Machine.Files(s).URL(local.OwnerRole), ownerURL)
	err = p.while(secrets, func() error { return p.migrate(ctx, s, r, secrets) })
	if err != nil {
		return false, fmt.Errorf("migrate database %s: %w", local.DatabaseName(s), err)
	}
	return true, p.State.SetMigrated(s.Name(), r.String())
}

// recoverer is what a container is called that lets an admin in again.
const recoverer = "recover-admin"

// ownerURL is the file that a migration finds the owner's connection string in.
const ownerURL = "owner.url"

// migrate runs a release's migrations, whose files were given to them.
func (p *Platform) migrate(ctx context.Context, s platform.Set, r platform.Release, secrets *secrets) error {
	if p.door != nil {
		_, err := p.ask(ctx, askMigrate)
		return err
	}
	d := s.Blueprint.Database
	facts := blueprint.Facts{Plane: p.State.Plane, Tenant: s.Tenant.String(), Release: r.String(), LogLevel: p.Settings.LogLevel,
		OwnerURL: secretsDir + "/" + ownerURL, RoleNames: map[string]string{}}
	for name := range d.Roles {
		facts.RoleNames[name] = local.RealRole(s, name)
	}
	const most = 10 * time.Minute
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	env, err := facts.Environ(d.Migrate.Env)
	if err != nil {
		return err
	}
	said, code, err := p.run(ctx, s, r, secrets, d.Migrate.Command, env)
	if err == nil && code != 0 {
		err = fmt.Errorf("it ended with %d: %s", code, said)
	}
	return err
}

// while gives a container its files for as long as do takes.
func (p *Platform) while(secrets *secrets, do func() error) (err error) {
	if err := secrets.put(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, secrets.takeAway()) }()
	return do()
}

// run runs the artefact to its end in a container of the set's network, and answers the last line of what it said.
func (p *Platform) run(ctx context.Context, s platform.Set, r platform.Release, secrets *secrets, args, env []string) (last string, code int, err error) {
	image, _, err := p.image(ctx, s.Blueprint, r)
	if err != nil {
		return "", 0, err
	}
	at, err := p.State.Host(network(s), secrets.component)
	if err != nil {
		return "", 0, err
	}
	said, code, err := p.Engine.Run(ctx, container.Unit{
		Name: unitName(s, secrets.component), Group: s.Name(), Release: r.String(), Image: image, Args: args, Env: env, User: secrets.user.UID, Groups: secrets.user.Groups,
		Mounts: secrets.mounts(), Links: []container.Link{{Network: p.Engine.Thing(network(s)), Address: at}}, Limits: limits(blueprint.DefaultResources),
	})
	lines := strings.Split(said, "\n")
	return lines[len(lines)-1], code, err
}

// RecoverAdmin lets a tenant's admin redeem a setup code, with the set's own program and credentials.
func (p *Platform) RecoverAdmin(ctx context.Context, s platform.Set, r blueprint.Recovery) error {
	program := s.Blueprint.RecoverAdmin
	if len(program.Command) == 0 {
		return local.NoWayBack(s)
	}
	release, err := platform.ParseRelease(p.State.Runs()[s.Name()])
	if err != nil {
		return fmt.Errorf("what %s runs: %w", s.Name(), err)
	}
	facts := blueprint.Facts{Plane: p.State.Plane, Tenant: s.Tenant.String(), Recovery: &r}
	if facts.MarkKeys, err = p.Machine.MarkKeys(); err != nil {
		return err
	}
	said, code, err := p.oneOff(ctx, s, release, recoverer, program, facts)
	if err == nil && code == local.RefusedExit {
		return local.NotLetIn(r, said)
	}
	if err == nil && code != 0 {
		err = fmt.Errorf("it ended with %d", code)
	}
	if err != nil {
		return fmt.Errorf("let %s in again: %w: %s", r.Email, err, said)
	}
	return nil
}

// OneOff implements local.Places.
func (p *Platform) OneOff(ctx context.Context, s platform.Set, r platform.Release, program blueprint.OneOff, facts blueprint.Facts) (said string, err error) {
	said, code, err := p.oneOff(ctx, s, r, local.Migrator, program, facts)
	if err == nil && code != 0 {
		err = fmt.Errorf("it ended with %d", code)
	}
	return said, err
}

// oneOff runs a program of the blueprint in a container of the set's network, which is called and given what it reads as a component is.
func (p *Platform) oneOff(ctx context.Context, s platform.Set, r platform.Release, component string, program blueprint.OneOff, facts blueprint.Facts) (said string, code int, err error) {
	user, err := p.Machine.User(ctx, s, component)
	if err != nil {
		return "", 0, err
	}
	secrets, err := p.secretsOf(s, component, user)
	if err != nil {
		return "", 0, err
	}
	facts.DatabaseURLs = map[string]string{}
	for _, role := range program.Database {
		facts.DatabaseURLs[role] = secrets.file(p.Machine.Files(s).URL(role), "database/"+role+".url")
	}
	env, err := facts.Environ(program.Env)
	if err != nil {
		return "", 0, err
	}
	err = p.while(secrets, func() error {
		said, code, err = p.run(ctx, s, r, secrets, program.Command, env)
		return err
	})
	return said, code, err
}
