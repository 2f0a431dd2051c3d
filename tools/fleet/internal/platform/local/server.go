package local

import (
	"context"
	"net"
	"path/filepath"
	"strconv"

	"a3os.app/libs/pgserver"
	"a3os.app/tools/fleet/internal/supervise"
)

// mostConnections of the plane's server. Each role has a bound of its own far below.
const mostConnections = 500

// Server is a private PostgreSQL server that the supervisor keeps.
type Server struct {
	*pgserver.Server
	name string
}

// Address is where it listens.
func (s *Server) Address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port())) }

// NewServer describes a server; nothing is made yet.
func (p *Platform) NewServer(binaries pgserver.Binaries, name string) (*Server, error) {
	port, err := p.State.Port("plane/" + name)
	if err != nil {
		return nil, err
	}
	dir, err := ServerPlace(p.Settings.Home, name)
	if err != nil {
		return nil, err
	}
	server, err := pgserver.New(pgserver.Config{Binaries: binaries, Dir: dir, Port: port, MaxConnections: mostConnections})
	if err != nil {
		return nil, err
	}
	return &Server{Server: server, name: name}, nil
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
		Name: "plane/" + s.name, Group: "plane", Order: orderServers,
		Path: cmd.Path, Args: cmd.Args[1:], Env: cmd.Env, Dir: cmd.Dir, Log: p.home("log", "plane", s.name+".log"),
		Ready: "postgres://" + s.Address(), Interrupt: true, StopWithin: cmd.WaitDelay,
	}
	if c := cmd.SysProcAttr.Credential; c != nil {
		unit.User = &supervise.User{UID: c.Uid, GID: c.Gid}
	}
	if changed, err = p.Supervisor.Apply(ctx, unit); err != nil {
		return changed, err
	}
	return changed, s.Ready(ctx)
}
