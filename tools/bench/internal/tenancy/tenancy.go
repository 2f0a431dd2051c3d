// Package tenancy measures what changes of tenants cost: how long a new one takes until it answers its first admin, and a rollout over
// many, each beside the least that anybody would have to do for it. It promises a plane of its own, that both sides are measured in turn,
// and that what was created answers and what was rolled out says so itself.
package tenancy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"

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
}

// processes of a set.
const processes = 5

// MeasureCreate answers the figure of a tenant that is made.
func MeasureCreate(ctx context.Context, cfg Config) (f figure.Figure, err error) {
	f = figure.Figure{
		Name: "tenant create to its first authenticated answer ÷ a database and five minimal processes", Unit: "s",
		Measured: figure.Series{What: "fleet tenant create, a3 login, a3 whoami"}, Against: figure.Series{What: "CREATE DATABASE from a template, five minimal servers that answer"},
		Bound: figure.Bound{AtMost: 3},
		Note:  "platform local; the template is the database of a tenant, migrated, and the servers are built like those of the memory's figure",
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
		m, err := p.create(ctx, fmt.Sprintf("bench-%02d", i))
		if err != nil {
			return f, fmt.Errorf("make a tenant: %w", err)
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

// create makes a tenant and has its first admin ask who they are.
func (p *plane) create(ctx context.Context, slug string) (time.Duration, error) {
	began := time.Now()
	said, err := p.run(ctx, "fleet", "tenant", "create", slug)
	if err != nil {
		return 0, err
	}
	code, err := setupCode(said)
	if err != nil {
		return 0, err
	}
	if _, err := p.run(ctx, "a3", "--profile", slug, "login", "--url", fmt.Sprintf("https://%s.localhost:%s", slug, p.port),
		"--ca-cert", filepath.Join(p.home, "web", "ca.pem"), "--dial", net.JoinHostPort("127.0.0.1", p.port), "--setup-code", code); err != nil {
		return 0, err
	}
	if _, err := p.run(ctx, "a3", "--profile", slug, "whoami"); err != nil {
		return 0, err
	}
	return time.Since(began), nil
}

// peer makes what a tenant is held against: a database, and servers.
type peer struct {
	server *pgx.Conn
	binary string
	dir    string
}

const template = "bench_template"

// newPeer makes the template of a tenant's database.
func (p *plane) newPeer(ctx context.Context, root string) (*peer, error) {
	const slug = "template"
	if _, err := p.run(ctx, "fleet", "tenant", "create", slug); err != nil {
		return nil, err
	}
	id, err := p.idOf(ctx, slug)
	if err != nil {
		return nil, err
	}
	// A database is copied while nobody is connected to it.
	hash, err := p.planned(ctx, "plan", "suspend", "--tenant", slug, "--reason", "its database is copied")
	if err != nil {
		return nil, err
	}
	if _, err := p.run(ctx, "fleet", "apply", hash); err != nil {
		return nil, err
	}
	conn, err := p.superuser(ctx)
	if err != nil {
		return nil, err
	}
	if err := copied(ctx, conn, id, template); err != nil {
		return nil, fmt.Errorf("make the template: %w", err)
	}
	binary, err := p.minimal(ctx, root)
	return &peer{server: conn, binary: binary, dir: p.dir}, err
}

// copied makes a database that nobody else may open: a service that could would rightly not start.
func copied(ctx context.Context, server *pgx.Conn, from, to string) error {
	name := pgx.Identifier{to}.Sanitize()
	if _, err := server.Exec(ctx, "CREATE DATABASE "+name+" TEMPLATE "+pgx.Identifier{from}.Sanitize()); err != nil {
		return err
	}
	_, err := server.Exec(ctx, "REVOKE ALL ON DATABASE "+name+" FROM PUBLIC")
	return err
}

// create makes a database and starts servers, each until it answers.
func (p *peer) create(ctx context.Context, n int) (took time.Duration, err error) {
	began := time.Now()
	if err := copied(ctx, p.server, template, fmt.Sprintf("bench_%02d", n)); err != nil {
		return 0, err
	}
	var servers [processes]*minimal
	defer func() {
		for _, s := range servers {
			if s != nil {
				err = errors.Join(err, s.stop())
			}
		}
	}()
	for i := range servers {
		if servers[i], err = start(ctx, p.binary); err != nil {
			return 0, err
		}
	}
	for _, s := range servers {
		if err := s.answers(ctx); err != nil {
			return 0, err
		}
	}
	return time.Since(began), nil
}

// MeasureRollout answers the figure of a rollout.
func MeasureRollout(ctx context.Context, cfg Config) (f figure.Figure, err error) {
	f = figure.Figure{
		Name: fmt.Sprintf("rollout of a no-op release over %d tenants ÷ restarting their processes in order", cfg.Tenants), Unit: "s",
		Measured: figure.Series{What: "fleet apply of a rollout, bake 0"}, Against: figure.Series{What: "each process ended and serving again, one after the other"},
		Bound: figure.Bound{AtMost: 2},
		Note:  fmt.Sprintf("platform local, %d tenants at once, as many as there are processors by default; each set says itself that it runs the release", parallel()),
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
	var measured, against []float64
	for i := range cfg.Rounds {
		hash, err := p.rollout(ctx, program, i, slugs)
		if err != nil {
			return f, err
		}
		began := time.Now()
		if _, err := p.run(ctx, "fleet", "apply", hash); err != nil {
			return f, err
		}
		measured = append(measured, time.Since(began).Seconds())
		took, err := p.restart(ctx, slugs)
		if err != nil {
			return f, fmt.Errorf("restart the processes in order: %w", err)
		}
		against = append(against, took.Seconds())
	}
	return f, f.Fill(measured, against)
}
