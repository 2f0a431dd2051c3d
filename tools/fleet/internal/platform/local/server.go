package local

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"a3os.app/libs/pgserver"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/supervise"
)

// MostConnections of a server that many share, whoever keeps it: a hundred sets that nobody calls hold two thirds of them. Each role has a
// bound of its own far below.
const MostConnections = 1500

// Server is a private PostgreSQL server that the supervisor keeps.
type Server struct {
	*pgserver.Server
	// unit that keeps it, of a group, with its log and what it may take.
	unit, group, log string
	bounds           supervise.Resources
}

// Address is where it listens.
func (s *Server) Address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port())) }

// NewServer describes a server of the plane's; nothing is made yet.
func (p *Platform) NewServer(binaries pgserver.Binaries, name string) (*Server, error) {
	port, err := p.State.Port("plane/" + name)
	if err != nil {
		return nil, err
	}
	dir, err := ServerPlace(p.Settings.Home, name)
	if err != nil {
		return nil, err
	}
	server, err := pgserver.New(pgserver.Config{Binaries: binaries, Dir: dir, Port: port, MaxConnections: MostConnections})
	if err != nil {
		return nil, err
	}
	return &Server{Server: server, unit: "plane/" + name, group: "plane", log: p.home("log", "plane", name+".log")}, nil
}

// ServerPlace is where a server of a home has its data: where the user that it runs as can walk, and nobody else exchange it.
func ServerPlace(home, name string) (dir string, err error) {
	return pgserver.DirFor(filepath.Join(home, name), "")
}

// Serve has the server made and kept, and returns when it takes connections.
func (p *Platform) Serve(ctx context.Context, s *Server) (changed bool, err error) {
	if err := s.Init(ctx); err != nil {
		return false, err
	}
	cmd, err := s.Command(ctx)
	if err != nil {
		return false, err
	}
	unit := supervise.Unit{
		Name: s.unit, Group: s.group, Order: orderServers,
		Path: cmd.Path, Args: cmd.Args[1:], Env: cmd.Env, Dir: cmd.Dir, Log: s.log,
		Ready: "postgres://" + s.Address(), Interrupt: true, StopWithin: cmd.WaitDelay, Resources: s.bounds,
	}
	if c := cmd.SysProcAttr.Credential; c != nil {
		unit.User = &supervise.User{UID: c.Uid, GID: c.Gid}
	}
	if changed, err = p.Supervisor.Apply(ctx, unit); err != nil {
		return changed, err
	}
	return changed, s.Ready(ctx)
}

// PostgresUnit is what the supervisor knows a set's own server by; no component is called so.
const PostgresUnit = "postgres"

// Bounds of a tenant's own server, whoever keeps it: OwnServerMemory in bytes. What it takes beyond them it takes from nobody else: the kernel ends the session that would hold more
// memory, and its processors' time is its tenant's share.
const (
	OwnServerMemory = 1 << 30
	ownCPU          = 1
	// Connections that are no service's: the superuser's, and a reader's while a backup is made.
	ownSpareConnections = 16
)

// ownServer describes the server of a tenant's own (tier dedicated): with a user, a port and data of its own. Its data lie outside of the
// set's directories, for who works on a set with the tenant's credentials reaches those, and holds no superuser's password.
func (p *Platform) ownServer(s platform.Set) (*Server, error) {
	port, err := p.State.Port(unitName(s, PostgresUnit))
	if err != nil {
		return nil, err
	}
	dir, err := p.ownServerDir(s)
	if err != nil {
		return nil, err
	}
	connections := ownSpareConnections + ownerConnections
	if s.Blueprint.Database != nil {
		for _, r := range s.Blueprint.Database.Roles {
			connections += r.Connections
		}
	}
	cfg := pgserver.Config{Binaries: p.Postgres.Binaries(), Dir: dir, Port: port, MaxConnections: connections}
	if p.Separated() {
		// Whoever serves it chose an id before; who only connects needs none.
		cfg.UID = p.ownServerUser(s)
	}
	server, err := pgserver.New(cfg)
	if err != nil {
		return nil, err
	}
	return &Server{Server: server, unit: unitName(s, PostgresUnit), group: s.Name(), log: p.home("log", s.Name(), PostgresUnit+".log"),
		bounds: supervise.Resources{Memory: OwnServerMemory, CPU: ownCPU, PIDs: int64(pgserver.MostProcesses(connections))}}, nil
}

// ownServerUser is the id that a set's own server runs as; zero where none was chosen.
func (p *Platform) ownServerUser(s platform.Set) uint32 {
	id, err := p.State.Account(unitName(s, PostgresUnit), func(_, _ uint32, _ int) ([]uint32, error) { return nil, errors.New("none was chosen") })
	if err != nil {
		return 0
	}
	return id
}

// ownServerDir is right below the home, whose mode never changes, or beside the data of others where the server's user can't walk there.
func (p *Platform) ownServerDir(s platform.Set) (string, error) {
	dir := p.home("postgres-" + s.Name())
	if p.Separated() {
		return pgserver.DirForOthers(dir), nil
	}
	return pgserver.DirFor(dir, "")
}

// serveOwn has a tenant's own server made and kept; nothing is done for a set whose database is in the shared one.
func (p *Platform) serveOwn(ctx context.Context, s platform.Set) (changed bool, err error) {
	if p.Places != nil && s.Dedicated() && s.Blueprint.Database != nil {
		return p.Places.Serve(ctx, s)
	}
	if !p.hasOwnServer(s) {
		return false, nil
	}
	if p.Separated() {
		if _, err := p.account(ctx, unitName(s, PostgresUnit)); err != nil {
			return false, err
		}
	}
	server, err := p.ownServer(s)
	if err != nil {
		return false, err
	}
	if changed, err = p.Serve(ctx, server); err != nil {
		return changed, fmt.Errorf("the PostgreSQL server of %s: %w", s.Name(), err)
	}
	return changed, nil
}

// Wake implements platform.Waker.
func (p *Platform) Wake(ctx context.Context, s platform.Set) error {
	if !p.hasOwnServer(s) {
		return nil
	}
	_, err := p.serveOwn(ctx, s)
	return err
}

// hasOwnServer says that this platform keeps a database server for the set alone.
func (p *Platform) hasOwnServer(s platform.Set) bool {
	return p.Places == nil && s.Dedicated() && s.Blueprint.Database != nil
}

// awake has a set's own server run for as long as something is read from it: that of a suspended tenant is stopped like the rest of its set.
func (p *Platform) awake(ctx context.Context, s platform.Set) (done func() error, err error) {
	nothing := func() error { return nil }
	if !p.hasOwnServer(s) {
		_, err := p.serveOwn(ctx, s)
		return nothing, err
	}
	began, err := p.serveOwn(ctx, s)
	if err != nil || !began {
		return nothing, err
	}
	return func() error { return p.rest(context.WithoutCancel(ctx), s) }, nil
}

// rest stops a set's own server where nothing else of the set is kept.
func (p *Platform) rest(ctx context.Context, s platform.Set) error {
	if !p.hasOwnServer(s) {
		return nil
	}
	units, err := p.units(ctx, s)
	if err != nil || len(units) != 1 || units[0].Name != unitName(s, PostgresUnit) {
		return err
	}
	_, err = p.Supervisor.Drop(ctx, unitName(s, PostgresUnit))
	return err
}

// removeOwnServer stops a set's own server and removes its data.
func (p *Platform) removeOwnServer(ctx context.Context, s platform.Set) (changed bool, err error) {
	if changed, err = p.Supervisor.Drop(ctx, unitName(s, PostgresUnit)); err != nil {
		return changed, err
	}
	dir, err := p.ownServerDir(s)
	if err != nil {
		return changed, err
	}
	// What a killed making of it left lies beside it.
	found, err := filepath.Glob(dir + "*")
	if err != nil {
		return changed, err
	}
	for _, path := range found {
		changed = true
		if err := os.RemoveAll(path); err != nil {
			return changed, fmt.Errorf("remove the database server of %s: %w", s.Name(), err)
		}
	}
	return changed, nil
}

// OwnServerDirs are the directories of tenants' own servers, for who removes the plane.
func (p *Platform) OwnServerDirs() []string {
	var out []string
	for _, t := range p.State.Tenants() {
		if t.ID.IsZero() {
			continue
		}
		if dir, err := p.ownServerDir(platform.Set{Tenant: t.ID}); err == nil {
			out = append(out, dir)
		}
	}
	return out
}
