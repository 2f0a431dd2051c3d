package local

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/binding"
	"a3os.app/libs/config"
	"a3os.app/libs/pg"
	"a3os.app/libs/pgserver"
	"a3os.app/tools/fleet/internal/backup"
	"a3os.app/tools/fleet/internal/dump"
	"a3os.app/tools/fleet/internal/platform"
)

// Rehearsal is what came of a restore into a throwaway server.
type Rehearsal struct {
	// Took is how long the restore took, checks included.
	Took time.Duration
	// Tables and Rows that were counted, and were as many as in the manifest.
	Tables int
	Rows   int64
	// Files are those of stores, and Credentials how many of them are credentials, each of which its key opened.
	Files, Credentials int
	// Said is what the blueprint's own verification said.
	Said string
}

// ErrNotTried is of a trial that came to nothing for a reason that isn't the backup's: it says nothing of that.
var ErrNotTried = errors.New("the backup was not tried out")

func notTried(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrNotTried, err)
}

// full says that there was no room for what was tried. PostgreSQL's programs say so in words.
func full(err error) bool {
	return err != nil && (errors.Is(err, syscall.ENOSPC) || strings.Contains(err.Error(), syscall.ENOSPC.Error()) || strings.Contains(err.Error(), "No space left on device"))
}

// Rehearse restores a backup for real, into a server that is made for it and removed afterwards, counts every row and every file of stores, holds
// the files to the rows that name them, and has the blueprint's
// own program verify what is in it, logged in as the set's own role: so the roles' rights were restored as well. Every part is read to
// its end. The backup is unlocked. The error is ErrNotTried where it says nothing of the backup.
func (p *Platform) Rehearse(ctx context.Context, s platform.Set, with platform.Release, b *backup.Backup) (Rehearsal, error) {
	return p.rehearse(ctx, s, with, b, false, nil)
}

// RehearseToRestore is Rehearse of a backup that is restored for good next: it may take what is free of the disk, for whoever's data are lost doesn't
// wait until it is emptier.
func (p *Platform) RehearseToRestore(ctx context.Context, s platform.Set, with platform.Release, b *backup.Backup) (Rehearsal, error) {
	return p.rehearse(ctx, s, with, b, true, nil)
}

// trial is a backup that was restored into a throwaway server and is known to be whole.
type trial struct {
	server throwaway
	// urls by role, the owner's among them.
	urls map[string]config.Secret
	// dir is where files and stores were unpacked.
	dir string
}

// rehearse is Rehearse; then, if set, is called while the trial's server is there.
func (p *Platform) rehearse(ctx context.Context, s platform.Set, with platform.Release, b *backup.Backup, urgent bool, then func(trial) error) (r Rehearsal, err error) {
	began := p.Now()
	dir, done, err := p.scratch(s.Name())
	if err != nil {
		return r, notTried(err)
	}
	defer func() {
		if full(err) {
			err = notTried(err)
		}
		err = errors.Join(err, done())
	}()
	// By what was signed of the parts, before all of them are read.
	if err := roomToRehearse(dir, b.Manifest, urgent); err != nil {
		return r, notTried(err)
	}
	if err := b.Check(ctx); err != nil {
		return r, err
	}
	for _, part := range []string{partFiles, partStores} {
		if err := unpack(ctx, b, part, filepath.Join(dir, part)); err != nil {
			return r, err
		}
	}
	kept, err := storesOpen(s, b.Manifest, filepath.Join(dir, partStores), filepath.Join(dir, partFiles, "keys"))
	if err != nil {
		return r, err
	}
	r.Files, r.Credentials = kept.files, kept.credentials
	if b.Has(partDatabase) {
		if err := p.rehearseDatabase(ctx, s, with, b, dir, kept, &r, then); err != nil {
			return r, err
		}
	}
	r.Took = p.Now().Sub(began)
	return r, nil
}

func unpack(ctx context.Context, b *backup.Backup, part, dir string) error {
	r, err := b.Part(ctx, part)
	if err != nil {
		return err
	}
	return errors.Join(backup.Unpack(r, dir), r.Close())
}

func (p *Platform) rehearseDatabase(ctx context.Context, s platform.Set, with platform.Release, b *backup.Backup, dir string, kept *contents, r *Rehearsal, then func(trial) error) (err error) {
	plain, err := pgserver.New(pgserver.Config{Binaries: p.binaries(), Dir: filepath.Join(dir, "postgres"), Throwaway: true})
	if err != nil {
		return notTried(err)
	}
	if err := errors.Join(plain.Init(ctx), plain.Start(ctx)); err != nil {
		return notTried(fmt.Errorf("start a server to try the backup out: %w", err))
	}
	server := throwaway{plain}
	defer func() {
		if err != nil && !server.serves(ctx) {
			err = notTried(err)
		}
		err = errors.Join(err, plain.Remove(context.WithoutCancel(ctx)))
	}()
	urls, err := p.throwawayRoles(ctx, server, s)
	if err != nil {
		return notTried(err)
	}
	if err := restoreDump(ctx, p.programs(), b, urls[ownerRole]); err != nil {
		return err
	}
	admin, err := server.URL(databaseName(s))
	if err != nil {
		return err
	}
	if r.Tables, r.Rows, err = compare(ctx, config.NewSecret(admin), b.Manifest); err != nil {
		return err
	}
	if err := kept.named(ctx, server, s); err != nil {
		return err
	}
	if err := p.markOn(ctx, server, s); err != nil {
		return err
	}
	if s.Blueprint.Backup.PutBack != "" {
		// What fails here fails before what the set has is given up for the backup.
		if err := asWhomOwns(ctx, urls[ownerRole], putBack(ctx, s)); err != nil {
			return err
		}
	}
	// With the keys of the backup: the set's own may be lost.
	r.Said, err = p.verify(ctx, s, with, b, logins{urls: urls, keys: filepath.Join(dir, partFiles, "keys")})
	if err != nil || then == nil {
		return err
	}
	return then(trial{server: server, urls: urls, dir: dir})
}

// logins are what a program of the blueprint is given.
type logins struct {
	// urls by role; nil for the set's own.
	urls map[string]config.Secret
	// keys is the directory of public halves.
	keys string
}

// throwaway is a server that is made to try a backup out.
type throwaway struct{ *pgserver.Server }

func (t throwaway) connect(ctx context.Context, database string) (*pgx.Conn, error) {
	url, err := t.URL(database)
	if err != nil {
		return nil, err
	}
	conn, err := pg.Connect(ctx, url)
	if err != nil {
		return nil, fmt.Errorf("connect to the server that the backup is tried out in: %w", err)
	}
	return conn, nil
}

// serves says whether the server is there still: one that was ended for want of memory takes a trial with it.
func (t throwaway) serves(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	conn, err := t.connect(ctx, "postgres")
	return err == nil && conn.Close(ctx) == nil
}

func (p *Platform) programs() dump.Programs { return dump.Programs{Dir: p.binaries().Dir} }

// throwawayRoles makes a set's roles and its empty database on a server that nothing else uses, and answers their connection strings.
func (p *Platform) throwawayRoles(ctx context.Context, server throwaway, s platform.Set) (map[string]config.Secret, error) {
	admin, err := server.connect(ctx, "postgres")
	if err != nil {
		return nil, err
	}
	defer admin.Close(context.WithoutCancel(ctx))
	urls := map[string]config.Secret{}
	for _, role := range append(slices.Sorted(maps.Keys(s.Blueprint.Database.Roles)), ownerRole) {
		password := rand.Text()
		name := realRole(s, role)
		if _, err := admin.Exec(ctx, "CREATE ROLE "+pgx.Identifier{name}.Sanitize()+" LOGIN NOINHERIT PASSWORD "+literal(password)); err != nil {
			return nil, fmt.Errorf("make role %s: %w", name, err)
		}
		urls[role] = config.NewSecret(server.URLAs(name, password, databaseName(s)))
	}
	// A dump of a server without a superuser of ours has its policies.
	if err := batch(ctx, admin, makeReader(s)...); err != nil {
		return nil, fmt.Errorf("make role %s: %w", realRole(s, readerRole), err)
	}
	db := pgx.Identifier{databaseName(s)}.Sanitize()
	if _, err := admin.Exec(ctx, "CREATE DATABASE "+db+" OWNER "+pgx.Identifier{realRole(s, ownerRole)}.Sanitize()+" TEMPLATE template0"); err != nil {
		return nil, fmt.Errorf("make the database to try the backup out in: %w", err)
	}
	// A service refuses a role that can open another database than its own, here as anywhere.
	_, err = admin.PgConn().Exec(ctx, closeToPublic(db)).ReadAll()
	for role := range urls {
		_, granted := admin.Exec(ctx, "GRANT CONNECT ON DATABASE "+db+" TO "+pgx.Identifier{realRole(s, role)}.Sanitize())
		err = errors.Join(err, granted)
	}
	return urls, err
}

// restoreDump puts a backup's database into an empty one, as its owner.
func restoreDump(ctx context.Context, programs dump.Programs, b *backup.Backup, owner config.Secret) error {
	part, err := b.Part(ctx, partDatabase)
	if err != nil {
		return err
	}
	return errors.Join(dump.Restore(ctx, programs, owner, part), part.Close())
}

// compare counts every table and holds it to the manifest.
func compare(ctx context.Context, url config.Secret, m *backup.Manifest) (tables int, rows int64, err error) {
	have, err := dump.Count(ctx, url)
	if err != nil {
		return 0, 0, err
	}
	counted := map[string]int64{}
	for _, t := range have {
		counted[t.String()] = t.Rows
	}
	for _, want := range m.Tables {
		n, there := counted[want.Name]
		switch {
		case !there:
			return 0, 0, fmt.Errorf("table %s is in the manifest and was not restored", want.Name)
		case n != want.Rows:
			return 0, 0, fmt.Errorf("table %s has %d rows after the restore, and had %d", want.Name, n, want.Rows)
		}
		rows += n
	}
	if len(have) != len(m.Tables) {
		return 0, 0, fmt.Errorf("%d tables were restored, and the manifest names %d", len(have), len(m.Tables))
	}
	return len(have), rows, nil
}

// markOn puts the set's marks on its database on a server.
func (p *Platform) markOn(ctx context.Context, server throwaway, s platform.Set) error {
	signer, err := p.signer()
	if err != nil {
		return err
	}
	name := databaseName(s)
	conn, err := server.connect(ctx, name)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	_, err = putMark(ctx, conn, signer, "DATABASE "+pgx.Identifier{name}.Sanitize(), databaseComment, binding.Mark{Tenant: s.Tenant, Kind: binding.Database, Name: name})
	return err
}

// verify runs the blueprint's own verification on a restored database.
func (p *Platform) verify(ctx context.Context, s platform.Set, with platform.Release, b *backup.Backup, given logins) (said string, err error) {
	if len(s.Blueprint.Backup.Verify.Command) == 0 {
		return "", nil
	}
	if said, err = p.oneOff(ctx, s, with, s.Blueprint.Backup.Verify, restoreFacts(b, "", ""), given); err != nil {
		return "", fmt.Errorf("what was restored is not whole: %w: %s", err, said)
	}
	return said, nil
}

func restoreFacts(b *backup.Backup, actor, reason string) *blueprint.Restore {
	return &blueprint.Restore{Backup: b.Manifest.Name, TakenAt: b.Manifest.TakenAt.Format(time.RFC3339Nano), Checkpoint: b.Manifest.Checkpoint, Actor: actor, Reason: reason}
}

// oneOff runs a program of the blueprint that does one thing.
func (p *Platform) oneOff(ctx context.Context, s platform.Set, with platform.Release, program blueprint.OneOff, restore *blueprint.Restore, given logins) (said string, err error) {
	facts := blueprint.Facts{Plane: p.State.Plane, Tenant: s.Tenant.String(), DatabaseURLs: map[string]string{}, PublicKeys: map[string]string{}, Restore: restore}
	if facts.MarkKeys, err = p.markKeys(); err != nil {
		return "", err
	}
	for _, key := range program.PublicKeys {
		text, err := os.ReadFile(filepath.Join(given.keys, key+".public"))
		if err != nil {
			return "", fmt.Errorf("read the public half of key %s: %w", key, err)
		}
		facts.PublicKeys[key] = strings.TrimSpace(string(text))
	}
	if p.Places != nil && given.urls == nil {
		return p.Places.OneOff(ctx, s, with, program, facts)
	}
	as := migrator
	for _, role := range program.Database {
		as = holder(s.Blueprint, role)
		facts.DatabaseURLs[role] = p.urlFile(s, role)
		if given.urls == nil {
			continue
		}
		file, done, err := p.lendURL(ctx, s, as, given.urls[role])
		if err != nil {
			return "", err
		}
		defer done() //nolint:errcheck // what isn't removed now is when the next one begins
		facts.DatabaseURLs[role] = file
	}
	env, err := facts.Environ(program.Env)
	if err != nil {
		return "", err
	}
	return p.once(ctx, s, with, as, program.Command, env)
}

// lendURL writes a connection string for a component's user to read.
func (p *Platform) lendURL(ctx context.Context, s platform.Set, component string, url config.Secret) (file string, done func() error, err error) {
	dir, done, err := p.scratch(s.Name())
	if err != nil {
		return "", nil, err
	}
	file = filepath.Join(dir, "url")
	user, err := p.user(ctx, s, component)
	if err == nil {
		err = writeFile(file, url.Reveal())
	}
	if err == nil && user != nil {
		err = give(file, user)
	}
	if err != nil {
		return "", nil, errors.Join(err, done())
	}
	return file, done, nil
}
