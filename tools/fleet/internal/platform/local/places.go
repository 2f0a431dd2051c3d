package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/binding"
	"a3os.app/libs/pg"
	"a3os.app/libs/pgserver"
	"a3os.app/tools/fleet/internal/backup"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/supervise"
)

// Databases is a PostgreSQL server as a set reaches it.
type Databases interface {
	// URL of a database as the superuser.
	URL(database string) (string, error)
	// URLAs is the URL of a database for any role.
	URLAs(role, password, database string) string
	// Address of it, host:port, the same for every set that uses it.
	Address() string
}

// Places says where things are that don't stand on this machine's loopback, for a platform that keeps its files as this one does and
// runs what reads them elsewhere; and runs for this one what has to stand there.
type Places interface {
	// Address is where a component of a set is reached, of the machine as of its set.
	Address(s platform.Set, component, port string) (string, error)
	// Databases is the server that has a set's database.
	Databases(s platform.Set) (Databases, error)
	// Serve has that server serve, also of a set that doesn't run.
	Serve(ctx context.Context, s platform.Set) (changed bool, err error)
	// Migrate brings a set's database up to a release.
	Migrate(ctx context.Context, s platform.Set, r platform.Release) (changed bool, err error)
	// OneOff runs a program of the blueprint on the set's own database, with the logins that it names, and answers the last line of what
	// it said.
	OneOff(ctx context.Context, s platform.Set, r platform.Release, program blueprint.OneOff, facts blueprint.Facts) (said string, err error)
	// Zone is the zone of names that sets have their addresses in; empty where they are at IP addresses.
	Zone() string
	// Stores are the set's where they lie elsewhere than on this machine, where the platform makes, marks and exports them; else nil.
	Stores(s platform.Set) Stores
	// CertificateLife is how long a certificate lives that components are started with: as long as they may be, before somebody hands over another.
	CertificateLife() time.Duration
	// Installed are the PostgreSQL programs that the servers are made of.
	Installed() pgserver.Binaries
}

// Stores are those of a set that a platform keeps, as a backup has them: each in a directory of its name, laid out as a store on this machine is.
type Stores interface {
	// Pack packs what is there; again into the same tree, what is new since.
	Pack(ctx context.Context, t *backup.Tree) error
	// Unpack makes the stores what they were, and ends what is on its way to the set.
	Unpack(ctx context.Context, packed io.Reader) error
}

// binaries are the programs of the sets' servers.
func (p *Platform) binaries() pgserver.Binaries {
	if p.Places != nil {
		return p.Places.Installed()
	}
	return p.Postgres.Binaries()
}

// databases is the server that has a set's database.
func (p *Platform) databases(s platform.Set) (Databases, error) {
	if p.Places != nil {
		return p.Places.Databases(s)
	}
	if p.hasOwnServer(s) {
		return p.ownServer(s)
	}
	return p.Postgres, nil
}

// storesHere are the set's stores that lie on this machine.
func (p *Platform) storesHere(s platform.Set) map[string]blueprint.Store {
	if p.storesElsewhere(s) != nil {
		return nil
	}
	return s.Blueprint.Stores
}

// storesElsewhere are they where they don't; else nil.
func (p *Platform) storesElsewhere(s platform.Set) Stores {
	if p.Places == nil {
		return nil
	}
	return p.Places.Stores(s)
}

// connect connects to a database of a set's server, as the superuser.
func (p *Platform) connect(ctx context.Context, s platform.Set, database string) (*pgx.Conn, error) {
	server, err := p.databases(s)
	if err != nil {
		return nil, err
	}
	url, err := server.URL(database)
	if err != nil {
		return nil, err
	}
	conn, err := pg.Connect(ctx, url)
	if err != nil {
		return nil, fmt.Errorf("connect to the server of %s: %w", s.Name(), err)
	}
	return conn, nil
}

// Files are where a set's files lie on this machine.
type Files struct {
	p *Platform
	s platform.Set
}

// Files of a set.
func (p *Platform) Files(s platform.Set) Files { return Files{p: p, s: s} }

// Roots are the certificates that the set's are verified with.
func (f Files) Roots() string { return f.p.pki(f.s, "roots.pem") }

// PlaneRoots are those of the plane.
func (f Files) PlaneRoots() string { return f.p.served("pki", "roots.pem") }

// Key is the secret half of a key.
func (f Files) Key(name string) string { return f.p.keyFile(f.s, name) }

// URL is the file with the connection string of a role; OwnerRole's is for migrations.
func (f Files) URL(role string) string { return f.p.urlFile(f.s, role) }

// ByTokens is there where the set's roles log in by tokens of where its database is, and not by their passwords.
func (f Files) ByTokens() string { return f.p.dir(f.s, "database", "by-tokens") }

// PublicKey is the public half of a key.
func (f Files) PublicKey(name string) string { return f.p.publicFile(f.s, name) }

// Certificate is the directory of a component's keypair.
func (f Files) Certificate(component string) string {
	return f.p.dir(f.s, "components", component, "certificate")
}

// Authority is the file that a component issues its siblings' certificates with.
func (f Files) Authority(c blueprint.Component) string { return f.p.issuingAuthority(f.s, c) }

// Front is the certificate that the plane's gateway shows to clients, and its key.
func (f Files) Front() *blueprint.Front { return f.p.frontOf() }

// Store is the directory of a store.
func (f Files) Store(name string) string { return f.p.store(f.s, name) }

// State is a directory of a component's own.
func (f Files) State(component string) string { return f.p.stateDir(f.s, component) }

// Dir holds all of the set's files.
func (f Files) Dir() string { return f.p.dir(f.s) }

// OwnerRole is the role that owns a set's database and runs migrations; Migrator is whom they run as. ReaderRole is the login that copies it.
const (
	OwnerRole  = ownerRole
	Migrator   = migrator
	ReaderRole = readerRole
)

// RealRole is the name of a set's role in the server, DatabaseName that of its database.
func RealRole(s platform.Set, role string) string { return realRole(s, role) }

// DatabaseName is the name of a set's database.
func DatabaseName(s platform.Set) string { return databaseName(s) }

// Holder is the component that logs in as a role.
func Holder(b *blueprint.Blueprint, role string) string { return holder(b, role) }

// User is whom a component of a set runs as, with the groups of the stores that it shares.
func (p *Platform) User(ctx context.Context, s platform.Set, component string) (*supervise.User, error) {
	return p.user(ctx, s, component)
}

// Account is a user id that stays a name's.
func (p *Platform) Account(ctx context.Context, name string) (uint32, error) {
	return p.account(ctx, name)
}

// HandOverData gives a set's stores and its components' own directories to whom they belong, and nothing else.
func (p *Platform) HandOverData(ctx context.Context, s platform.Set) error {
	for _, c := range s.Blueprint.Components {
		user, err := p.user(ctx, s, c.Name)
		if err != nil {
			return err
		}
		if err := p.ownData(ctx, s, c, user); err != nil {
			return err
		}
	}
	return nil
}

// GiveTree makes a tree a user's own.
func GiveTree(root string, user *supervise.User) error { return giveTree(root, user, 0o700, 0o600) }

// Signer signs the marks of sets.
func (p *Platform) Signer() (*binding.Signer, error) { return p.signer() }

// StoreKey is the public half of the key that a store of secrets is sealed to.
func (p *Platform) StoreKey(s platform.Set, store blueprint.Store) (string, error) {
	text, err := os.ReadFile(p.publicFile(s, store.Key))
	if err != nil {
		return "", fmt.Errorf("read the public half of key %s: %w", store.Key, err)
	}
	return strings.TrimSpace(string(text)), nil
}

// MarkKeys are what services verify marks with.
func (p *Platform) MarkKeys() (string, error) { return p.markKeys() }

// Credentials adds to a component's facts what it may hold, by where it lies on this machine.
func (p *Platform) Credentials(f *blueprint.Facts, s platform.Set, c blueprint.Component) error {
	return p.credentials(f, s, c)
}

// Artefact is the program of a release, wherever on this machine it lies: where Fetch puts it, as [Platform.Program] answers it, or where it was built.
func (p *Platform) Artefact(b *blueprint.Blueprint, r platform.Release) (string, error) {
	path, missing := p.Program(b, r)
	if missing == nil || errors.Is(missing, errChanged) {
		return path, missing
	}
	digest, err := r.DigestOf(b.Artefact)
	if err != nil {
		return "", err
	}
	for _, program := range p.Programs {
		if got, err := digestOf(program); err == nil && got == digest {
			return program, nil
		}
	}
	return "", missing
}

// RefusedExit is how a program that an operator runs says that it may not do what it was asked.
const RefusedExit = refusedExit

// PassedOn is what every process gets of the caller's environment.
func PassedOn(environ []string) []string { return passedOn(environ) }
