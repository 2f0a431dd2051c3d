// Package tenancy measures what tenants cost: how long a new one takes until it answers its first admin, and a rollout over many, each beside
// the least that anybody would have to do for it; and what one that floods costs its neighbour. It promises a plane of its own, that both sides are measured in turn,
// and that what was created answers and what was rolled out says so itself.
package tenancy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"a3os.app/tools/bench/internal/figure"
)

// Config says how to measure.
type Config struct {
	// Root is the checkout, whose bin/fleet makes the plane.
	Root string
	// Rounds is how often both sides are measured; at least figure.Rounds.
	Rounds int
	// Tenants of a rollout.
	Tenants int
	// Self is this program, which runs Ask and Flood where it is told to.
	Self string
}

// processes of a set.
const processes = 5

// MeasureCreate answers the figure of a tenant that is made.
func MeasureCreate(ctx context.Context, cfg Config) (f figure.Figure, err error) {
	f = figure.Figure{
		Name: "tenant create to its first authenticated answer ÷ a database and five minimal processes", Unit: "s",
		Measured: figure.Series{What: "fleet tenant create and a3 login, which ends with the set's answer to who is signed in"}, Against: figure.Series{What: "CREATE DATABASE from a template, five minimal servers, each until it answers from it"},
		Bound: figure.Bound{AtMost: 3},
		Note:  "platform local; the tenant's database was copied beforehand, as a plane does a moment after each tenant, and without that comes later by what CREATE DATABASE takes; the template is the database of a tenant, migrated; the servers start at once, each makes a key, serves TLS and logs in to the database",
	}
	p, err := newPlane(ctx, cfg.Root)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, p.close(context.WithoutCancel(ctx))) }()
	peer, err := p.newPeer(ctx, cfg.Root)
	if err != nil {
		return f, err
	}
	var measured, against []float64
	// The first of each is for what is warm afterwards.
	for i := range cfg.Rounds + 1 {
		slug := fmt.Sprintf("bench-%02d", i)
		m, err := p.create(ctx, slug)
		if err != nil {
			return f, fmt.Errorf("make a tenant: %w", err)
		}
		// What a new set does once it answers, to tell who it is above all, is not to be the peer's burden.
		if err := p.settled(ctx, slug); err != nil {
			return f, err
		}
		if err := peer.spared(ctx); err != nil {
			return f, err
		}
		a, err := peer.create(ctx, i)
		if err != nil {
			return f, fmt.Errorf("make a database and minimal servers: %w", err)
		}
		if i > 0 {
			measured, against = append(measured, m.Seconds()), append(against, a.Seconds())
		}
	}
	return f, f.Fill(measured, against)
}

// create makes a tenant and has its first admin sign in. Signing in ends with what the set answers to who asks with their token who they are:
// that is its first authenticated answer, and the end of what is measured. That the next command is answered too is seen after it.
func (p *plane) create(ctx context.Context, slug string, flags ...string) (time.Duration, error) {
	began := time.Now()
	said, err := p.run(ctx, "fleet", append([]string{"tenant", "create", slug}, flags...)...)
	if err != nil {
		return 0, err
	}
	code, err := setupCode(said)
	if err != nil {
		return 0, err
	}
	if said, err = p.run(ctx, "a3", "--profile", slug, "login", "--url", fmt.Sprintf("https://%s.localhost:%s", slug, p.port),
		"--ca-cert", filepath.Join(p.home, "web", "ca.pem"), "--dial", net.JoinHostPort("127.0.0.1", p.port), "--setup-code", code); err != nil {
		return 0, err
	}
	took := time.Since(began)
	if who := "admin@" + slug + ".example is signed in"; !strings.Contains(said, who) {
		return 0, fmt.Errorf("a3 login does not say that %s: %s", who, said)
	}
	_, err = p.run(ctx, "a3", "--profile", slug, "whoami")
	return took, err
}

// MeasureRollout answers the figure of a rollout.
func MeasureRollout(ctx context.Context, cfg Config) (f figure.Figure, err error) {
	f = figure.Figure{
		Name: fmt.Sprintf("rollout of a no-op release over %d tenants ÷ restarting their processes in order", cfg.Tenants), Unit: "s",
		Measured: figure.Series{What: "fleet apply of a rollout, bake 0"}, Against: figure.Series{What: "each process ended and serving again, one after the other"},
		Bound: figure.Bound{AtMost: 2},
	}
	p, err := newPlane(ctx, cfg.Root)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, p.close(context.WithoutCancel(ctx))) }()
	var slugs []string
	for i := range cfg.Tenants {
		slug := fmt.Sprintf("bench-%02d", i)
		if _, err := p.run(ctx, "fleet", "tenant", "create", slug); err != nil {
			return f, err
		}
		slugs = append(slugs, slug)
	}
	program, err := os.ReadFile(filepath.Join(p.bin, "accessos"))
	if err != nil {
		return f, err
	}
	releases := 0
	apply := func(parallel int) (float64, error) {
		hash, err := p.rollout(ctx, program, releases, slugs, parallel)
		if err != nil {
			return 0, err
		}
		releases++
		began := time.Now()
		_, err = p.run(ctx, "fleet", "apply", hash)
		return time.Since(began).Seconds(), err
	}
	var measured, against, oneByOne []float64
	for range cfg.Rounds {
		took, err := apply(runtime.NumCPU())
		if err != nil {
			return f, err
		}
		measured = append(measured, took)
		restarted, err := p.restart(ctx, slugs)
		if err != nil {
			return f, fmt.Errorf("restart the processes in order: %w", err)
		}
		against = append(against, restarted.Seconds())
	}
	// It is typed without the flag as well.
	const few = 3
	for range few {
		took, err := apply(1)
		if err != nil {
			return f, err
		}
		oneByOne = append(oneByOne, took)
	}
	slices.Sort(oneByOne)
	if err := f.Fill(measured, against); err != nil {
		return f, err
	}
	f.Note = fmt.Sprintf("platform local, with --max-parallel %d, as many as there are processors; with 1, as it is unless it is said, it takes %.1f s (median of %d), which is %.2f times as long as the restart, and has no bound; each set says itself that it runs the release",
		runtime.NumCPU(), oneByOne[few/2], few, oneByOne[few/2]/f.Against.Median)
	return f, nil
}
