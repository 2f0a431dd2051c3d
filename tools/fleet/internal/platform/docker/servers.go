package docker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/pg"
	"a3os.app/libs/pgserver"
	"a3os.app/tools/fleet/internal/container"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/local"
	"a3os.app/tools/fleet/internal/supervise"
)

const (
	postgresPort = 5432
	// Units of the servers that the plane has: its own, the one that tenants share, and the sample company's.
	postgresComponent = "postgres"
	databasesUnit     = "plane/databases"
	sampleUnit        = "plane/sample-postgres"

	// mostMemory is what a server may hold that many share: 1.6 MB for each of its connections, and what is cached.
	mostMemory = 4 << 30
	dataDir    = "/data"
)

// server is a PostgreSQL server in a container.
type server struct {
	*pgserver.Server
	// unit that keeps it, of a group, and the network that it stands in first: there the machine calls it, and its superuser is the
	// machine's alone.
	unit, group, network string
	// member of the network, and of others that it joined; callers is the network that roles call it from.
	member, callers string
	// memory in bytes that it may hold.
	memory int64
	p      *Platform
}

// serverOf is the server that has a set's database: the plane's own, the tenant's own, or the one that tenants share.
func (p *Platform) serverOf(s platform.Set) (*server, error) {
	switch {
	case s.Tenant.IsZero():
		return p.server("postgres", unitName(s, postgresComponent), s.Name(), network(s), postgresComponent, network(s))
	case s.Dedicated():
		own, err := p.server(ownServer(s), unitName(s, postgresComponent), s.Name(), network(s), postgresComponent, network(s))
		if err == nil {
			own.memory = local.OwnServerMemory
		}
		return own, err
	default:
		return p.server("databases", databasesUnit, p.Own.Name(), databasesNetwork, databasesNetwork, network(s))
	}
}

func (p *Platform) sample() (*server, error) {
	return p.server("sample-postgres", sampleUnit, p.Own.Name(), sampleNetwork, sampleNetwork, sampleNetwork)
}

func (p *Platform) server(place, unit, group, network, member, callers string) (*server, error) {
	dir, err := local.ServerPlace(p.Settings.Home, place)
	if err != nil {
		return nil, err
	}
	pg, err := pgserver.New(pgserver.Config{Binaries: p.Binaries, Dir: dir, Port: postgresPort, MaxConnections: local.MostConnections})
	if err != nil {
		return nil, err
	}
	return &server{Server: pg, unit: unit, group: group, network: network, member: member, callers: callers, memory: mostMemory, p: p}, nil
}

// ownServer names the place of a tenant's own server, outside of the set's directory: a restore takes that aside while the server runs.
func ownServer(s platform.Set) string { return "postgres-" + s.Name() }

// Serve implements local.Places. A server that runs stays as it runs.
func (p *Platform) Serve(ctx context.Context, s platform.Set) (changed bool, err error) {
	if s.Tenant.IsZero() {
		server, err := p.serverOf(s)
		if err != nil {
			return false, err
		}
		return p.take(ctx, server)
	}
	return p.networksOf(ctx, s, p.take)
}

// takeOutside moves the data of a tenant's own server out of the set's directory, where an earlier release kept them.
func (p *Platform) takeOutside(ctx context.Context, s platform.Set, server *server) error {
	was, err := local.ServerPlace(p.Settings.Home, filepath.Join("tenants", s.Name(), postgresComponent))
	if err != nil {
		return err
	}
	if _, err := os.Lstat(was); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if _, err := p.Engine.Remove(ctx, server.unit); err != nil {
		return err
	}
	if err := os.Rename(was, server.Dir()); err != nil {
		return fmt.Errorf("move the data of the database server of %s out of the set's directory: %w", s.Name(), err)
	}
	return nil
}

// Databases implements local.Places.
func (p *Platform) Databases(s platform.Set) (local.Databases, error) { return p.serverOf(s) }

// URL of a database as the superuser, who is let in from the machine alone.
func (s *server) URL(database string) (string, error) {
	text, err := s.Server.URL(database)
	if err != nil {
		return "", err
	}
	return s.at(text, s.network)
}

// Address implements local.Databases: in the server's own network, whoever else's it joined.
func (s *server) Address() string {
	host, err := s.p.State.Host(s.network, s.member)
	if err != nil {
		return "" // there is no such network yet: the registry refuses an empty place
	}
	return net.JoinHostPort(host.String(), strconv.Itoa(postgresPort))
}

// URLAs is the URL of a database for any role, from the network of the set that it serves.
func (s *server) URLAs(role, password, database string) string {
	text, err := s.at(s.Server.URLAs(role, password, database), s.callers)
	if err != nil {
		return "" // there is no such network: what is made of it is refused by whoever reads it
	}
	return text
}

func (s *server) at(text, network string) (string, error) {
	u, err := url.Parse(text)
	if err != nil {
		return "", errors.New("a connection string can't be read")
	}
	host, err := s.p.State.Host(network, s.member)
	u.Host = net.JoinHostPort(host.String(), strconv.Itoa(postgresPort))
	return u.String(), err
}

// serve has a server made and kept as it is to be, and returns when it takes logins; who has to do with one set alone takes it instead. Clusters
// are made outside of the container, where initdb finds the shell that it needs, and belong to a user of the server's own after that.
func (p *Platform) serve(ctx context.Context, s *server) (changed bool, err error) {
	if changed, err = p.network(ctx, s.network, s.group); err != nil {
		return changed, err
	}
	img, did, err := p.postgresImage(ctx)
	if changed = changed || did; err != nil {
		return changed, err
	}
	if err := s.Init(ctx); err != nil {
		return changed, err
	}
	cmd, err := s.Command(ctx)
	if err != nil {
		return changed, err
	}
	account, err := p.Machine.Account(ctx, s.unit)
	if err != nil {
		return changed, err
	}
	user := &supervise.User{UID: account, GID: account}
	data := filepath.Join(s.Dir(), "data")
	if err := local.GiveTree(data, user); err != nil {
		return changed, fmt.Errorf("give %s to the server's user: %w", data, err)
	}
	secrets := p.secretsAt(s.group, strings.TrimPrefix(s.unit, s.group+"/"), user)
	secrets.text(s.access(), "pg_hba.conf")
	if err := secrets.put(); err != nil {
		return changed, err
	}
	at, err := p.State.Host(s.network, s.member)
	if err != nil {
		return changed, err
	}
	unit := container.Unit{
		Name: s.unit, Group: s.group, Image: img, Args: s.args(cmd.Args[1:]), User: account,
		Mounts:       append(secrets.mounts(), container.Mount{From: data, To: dataDir}),
		Links:        []container.Link{{Network: p.Engine.Thing(s.network), Address: at}},
		Healthy:      []string{filepath.Join(p.Binaries.Dir, "pg_isready"), "-h", "127.0.0.1", "-p", strconv.Itoa(postgresPort), "-U", pgserver.Superuser, "-q"},
		Limits:       container.Limits{Memory: s.memory, NanoCPUs: limits(blueprint.DefaultResources).NanoCPUs, PIDs: int64(pgserver.MostProcesses(local.MostConnections))},
		SharedMemory: 256 << 20, Interrupt: true, StopWithin: cmd.WaitDelay,
	}
	leave, err := p.leaves(ctx, s, unit)
	if err != nil {
		return changed, err
	}
	if !leave {
		did, err = p.Engine.Apply(ctx, unit)
		if changed = changed || did; err != nil {
			return changed, err
		}
	}
	// Made anew it stands in its first network alone. The others have it before it is waited for, which takes a while where it has to recover.
	if did, err = p.backAmongTenants(ctx, s); err != nil {
		return changed || did, err
	}
	return changed || did, p.awaitServer(ctx, s)
}

// args are what the server is told: what pgserver tells one on this machine, and where it is otherwise in a container.
func (s *server) args(own []string) []string {
	args := slices.Clone(own)
	if i := slices.Index(args, "-D"); i >= 0 {
		args[i+1] = dataDir
	}
	return append(args, "-c", "listen_addresses=*", "-c", "hba_file="+secretsDir+"/pg_hba.conf", "-c", "jit=off")
}

// access says who may log in: the superuser from the machine's address in the server's own network, everybody else by the rights that
// each database gives, with a password that is never seen on the way (SCRAM).
func (s *server) access() string {
	machine := s.p.State.Subnets()[s.network].Addr().Next()
	return fmt.Sprintf("host all %[1]s %[2]s/32 scram-sha-256\nhost all %[1]s 127.0.0.1/32 scram-sha-256\nhost all %[1]s all reject\nhost all all all scram-sha-256\n", pgserver.Superuser, machine)
}

// awaitServer returns when a server takes the superuser's login.
func (p *Platform) awaitServer(ctx context.Context, s *server) error {
	const most, every = time.Minute, 100 * time.Millisecond
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	text, err := s.URL("postgres")
	if err != nil {
		return err
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		conn, err := pg.Connect(ctx, text)
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-ctx.Done():
			said, _ := p.Engine.Said(context.WithoutCancel(ctx), s.unit, 5)
			return fmt.Errorf("the PostgreSQL server %s takes no logins (%w); it said: %s", s.unit, err, said)
		case <-tick.C:
		}
	}
}
