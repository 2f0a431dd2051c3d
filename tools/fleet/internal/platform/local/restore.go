package local

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/config"
	"a3os.app/libs/fault"
	"a3os.app/tools/fleet/internal/backup"
	"a3os.app/tools/fleet/internal/platform"
)

// Restoring says that a set is being put back, from the moment on at which what it had is taken aside. While it is there the set is not
// started: half of it may be from the backup and half from before.
type Restoring struct {
	// Backup by its name, and the directory that it is in.
	Backup string `json:"backup"`
	Dir    string `json:"dir"`
	// Began is when.
	Began time.Time `json:"began"`
	// Actor and Reason, for the record.
	Actor  string `json:"actor"`
	Reason string `json:"reason"`
	// Plan that is carried out, by its hash; empty for none.
	Plan string `json:"plan,omitempty"`
}

func (p *Platform) restoringFile(s platform.Set) string { return p.home("restoring", s.Name()+".json") }

// Restoring is the restore of the set that is unfinished; nil where none is.
func (p *Platform) Restoring(s platform.Set) (*Restoring, error) {
	text, err := os.ReadFile(p.restoringFile(s))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // that there is none is an answer
	}
	r := &Restoring{}
	if err != nil || json.Unmarshal(text, r) != nil {
		return nil, fmt.Errorf("%s says that a restore of %s is unfinished, and can't be read: run the restore again", p.restoringFile(s), s.Name())
	}
	return r, nil
}

// NotRestoring fails while a restore of the set is unfinished.
func (p *Platform) NotRestoring(s platform.Set) error {
	r, err := p.Restoring(s)
	if r == nil || err != nil {
		return err
	}
	var recovery string
	if b := s.Blueprint; b != nil && b.Backup != nil {
		key := p.keyFile(s, b.Backup.Key)
		_, here := os.Stat(key)
		_, aside := os.Stat(filepath.Join(p.replacedDir(s), "keys", filepath.Base(key)))
		if errors.Is(here, fs.ErrNotExist) && errors.Is(aside, fs.ErrNotExist) {
			recovery = " --recovery-key FILE"
		}
	}
	return fault.New(fault.FailedPrecondition, "a restore of %s, begun at %s, is unfinished: run it again: %s", s.Name(), r.Began.Format(time.RFC3339), p.again(s, r)+recovery)
}

// again is what takes a restore up. Where changes are planned one that nobody planned yet is one of a plane that was lost.
func (p *Platform) again(s platform.Set, r *Restoring) string {
	switch {
	case r.Plan != "":
		return "fleet apply " + r.Plan
	case p.State.Plane == "prod" && !s.Tenant.IsZero():
		return fmt.Sprintf("fleet plan restore --from %s --to %s --reason '…', then fleet approve HASH --reason '…', of another operator, and fleet apply HASH", r.Dir, cmp.Or(s.Slug, s.Name()))
	}
	return fmt.Sprintf("fleet restore --from %s --to %s --reason '…'", r.Dir, cmp.Or(s.Slug, s.Name()))
}

// replaced is where what a set had rests until the set that takes its place serves.
func (p *Platform) replacedDir(s platform.Set) string      { return p.dir(s) + ".replaced" }
func (p *Platform) replacedDatabase(s platform.Set) string { return databaseName(s) + "_replaced" }

// Restore puts a set's files, stores and database back to what they were in a backup, which was unlocked and tried out. What the set had is
// taken aside. The set doesn't run. The database is brought up to release to, and programs of release with are run on it. Killed anywhere, it is done again from the beginning.
func (p *Platform) Restore(ctx context.Context, s platform.Set, to, with platform.Release, b *backup.Backup, key backup.Key, r Restoring) error {
	if err := p.BeginRestoring(ctx, s, r); err != nil {
		return err
	}
	if err := p.restoreFiles(ctx, s, b, key); err != nil {
		return fmt.Errorf("restore the files of %s: %w", s.Name(), err)
	}
	if s.Blueprint.Database == nil {
		return nil
	}
	if err := p.restoreDatabase(ctx, s, to, with, b, r); err != nil {
		return fmt.Errorf("restore the database of %s: %w", s.Name(), err)
	}
	return nil
}

// RestoreDatabase is Restore of a set whose files are there: of the database alone.
func (p *Platform) RestoreDatabase(ctx context.Context, s platform.Set, to platform.Release, b *backup.Backup, r Restoring) error {
	if err := p.BeginRestoring(ctx, s, r); err != nil {
		return err
	}
	return p.restoreDatabase(ctx, s, to, to, b, r)
}

// BeginRestoring marks the set, which isn't started from then on until Restored. What one before it left aside that ended and was killed before it had removed that goes first: from the mark on,
// what is aside is what the set has now.
func (p *Platform) BeginRestoring(ctx context.Context, s platform.Set, r Restoring) error {
	if _, err := os.Lstat(p.restoringFile(s)); errors.Is(err, fs.ErrNotExist) {
		if err := p.removeReplaced(ctx, s); err != nil {
			return fmt.Errorf("remove what the restore before this one left of %s: %w", s.Name(), err)
		}
	}
	return p.markRestoring(s, r)
}

func (p *Platform) markRestoring(s platform.Set, r Restoring) error {
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return writeFile(p.restoringFile(s), string(text))
}

// HasDatabase says whether a set's database is there.
func (p *Platform) HasDatabase(ctx context.Context, s platform.Set) (bool, error) {
	if err := p.serverThere(ctx, s); err != nil {
		return false, err
	}
	admin, err := p.connect(ctx, s, "postgres")
	if err != nil {
		return false, err
	}
	defer admin.Close(context.WithoutCancel(ctx))
	names, err := databaseNames(ctx, admin)
	return slices.Contains(names, databaseName(s)), err
}

// StopHolders stops the components of a set that use its database, and leaves the others at work.
func (p *Platform) StopHolders(ctx context.Context, s platform.Set) (changed bool, err error) {
	var names []string
	for _, c := range s.Blueprint.Components {
		if len(c.Needs.Database) > 0 {
			names = append(names, unitName(s, c.Name))
		}
	}
	return p.Supervisor.Drop(ctx, names...)
}

// restoreFiles takes what there is aside, once, and unpacks the backup's in its place.
func (p *Platform) restoreFiles(ctx context.Context, s platform.Set, b *backup.Backup, key backup.Key) error {
	dir, aside := p.dir(s), p.replacedDir(s)
	if _, err := os.Lstat(aside); errors.Is(err, fs.ErrNotExist) {
		if err := os.Rename(dir, aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	// A restore that was killed left this one.
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := unpack(ctx, b, partFiles, dir); err != nil {
		return err
	}
	elsewhere := p.storesElsewhere(s)
	if elsewhere == nil {
		if err := unpack(ctx, b, partStores, filepath.Join(dir, "stores")); err != nil {
			return err
		}
	}
	file := p.keyFile(s, s.Blueprint.Backup.Key)
	if was, err := p.secretFile(filepath.Join(aside, "keys", filepath.Base(file))); err != nil || strings.TrimSpace(was.Reveal()) != strings.TrimSpace(key.Text().Reveal()) {
		// The next backup lays a sealed copy of this key there.
		if err := p.escrowsAsideAtRestore(s); err != nil {
			return err
		}
	}
	if err := writeFile(file, strings.TrimSpace(key.Text().Reveal())); err != nil {
		return err
	}
	// What the backup has not, the set had not then.
	err := p.State.ForgetKeys(s.Name())
	if err == nil {
		_, err = p.Authorities(s)
	}
	if err == nil {
		_, err = p.KeysAndStores(s)
	}
	// A backup of before the platform's stores were in it leaves them as they are.
	if err != nil || elsewhere == nil || len(b.Manifest.Elsewhere) > 0 {
		return err
	}
	packed, err := b.Part(ctx, partStores)
	if err != nil {
		return err
	}
	return errors.Join(elsewhere.Unpack(ctx, packed), packed.Close())
}

// escrowsAsideAtRestore is setEscrowsAside for who holds the lock of the set's backups here. What isn't there, on a machine that takes up a plane, holds no key of this one.
func (p *Platform) escrowsAsideAtRestore(s platform.Set) error {
	stores, err := p.everyBackupPlace()
	if err != nil {
		stores = []backup.Store{p.Backups()}
	}
	for _, store := range stores {
		if _, err := os.Stat(filepath.Join(store.Dir, s.Name())); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := store.SetEscrowAside(s.Name(), p.Now()); err != nil {
			return err
		}
	}
	return nil
}

func (p *Platform) restoreDatabase(ctx context.Context, s platform.Set, to, with platform.Release, b *backup.Backup, r Restoring) error {
	if err := p.makeRoom(ctx, s); err != nil {
		return err
	}
	if err := p.State.SetMigrated(s.Name(), ""); err != nil {
		return err
	}
	if _, err := p.Database(ctx, s); err != nil {
		return err
	}
	owner, err := p.secretFile(p.urlFile(s, ownerRole))
	if err != nil {
		return err
	}
	if err := restoreDump(ctx, p.programs(), b, config.NewSecret(strings.TrimSpace(owner.Reveal()))); err != nil {
		return err
	}
	if err := p.compareRestored(ctx, s, b); err != nil {
		return err
	}
	migrate := p.Migrate
	if p.Places != nil {
		migrate = p.Places.Migrate
	}
	if _, err := migrate(ctx, s, to); err != nil {
		return err
	}
	if _, err := p.Mark(ctx, s); err != nil {
		return err
	}
	if err := p.HandOver(ctx, s); err != nil {
		return err
	}
	return p.endGivenOut(ctx, s, with, restoreFacts(b, r.Actor, r.Reason), logins{keys: p.dir(s, "keys")})
}

// putBack runs the blueprint's statement for a database that is put back.
func putBack(ctx context.Context, s platform.Set) func(*pgx.Conn) error {
	return func(conn *pgx.Conn) error {
		if _, err := conn.Exec(ctx, s.Blueprint.Backup.PutBack); err != nil {
			return fmt.Errorf("the blueprint's statement put_back: %w", err)
		}
		return nil
	}
}

// endGivenOut ends what was given out before a set's database, or a key, took the place of another, and has that on the set's record.
func (p *Platform) endGivenOut(ctx context.Context, s platform.Set, with platform.Release, restore *blueprint.Restore, given logins) error {
	if s.Blueprint.Backup.PutBack != "" {
		if err := p.asOwner(ctx, s, putBack(ctx, s)); err != nil {
			return err
		}
	}
	program := s.Blueprint.Backup.Restored
	if len(program.Command) == 0 {
		return nil
	}
	if said, err := p.oneOff(ctx, s, with, program, restore, given); err != nil {
		return fmt.Errorf("end what was given out before: %w: %s", err, said)
	}
	return nil
}

// compareRestored counts what was restored, as who reads every row.
func (p *Platform) compareRestored(ctx context.Context, s platform.Set, b *backup.Backup) error {
	url, done, err := p.reader(ctx, s)
	if err != nil {
		return err
	}
	_, _, err = compare(ctx, url, b.Manifest)
	return errors.Join(err, done())
}

// serverThere has the server of a set's database be there, and known.
func (p *Platform) serverThere(ctx context.Context, s platform.Set) error {
	serve := p.serveOwn
	if p.Places != nil {
		serve = p.Places.Serve
	}
	_, err := serve(ctx, s)
	return err
}

// makeRoom takes a set's database aside, once; one that a killed restore left half full is dropped.
func (p *Platform) makeRoom(ctx context.Context, s platform.Set) error {
	if err := p.serverThere(ctx, s); err != nil {
		return err
	}
	admin, err := p.connect(ctx, s, "postgres")
	if err != nil {
		return err
	}
	defer admin.Close(context.WithoutCancel(ctx))
	names, err := databaseNames(ctx, admin)
	if err != nil || !slices.Contains(names, databaseName(s)) {
		return err
	}
	name, aside := pgx.Identifier{databaseName(s)}.Sanitize(), pgx.Identifier{p.replacedDatabase(s)}.Sanitize()
	if slices.Contains(names, p.replacedDatabase(s)) {
		_, err = admin.Exec(ctx, "DROP DATABASE "+name+" WITH (FORCE)")
		return err
	}
	// Nobody connects to what is aside, the server's superuser excepted.
	_, err = admin.PgConn().Exec(ctx, strings.Join([]string{"ALTER DATABASE " + name + " ALLOW_CONNECTIONS false",
		"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = " + literal(databaseName(s)),
		"ALTER DATABASE " + name + " RENAME TO " + aside}, ";")).ReadAll()
	return err
}

func databaseNames(ctx context.Context, admin *pgx.Conn) ([]string, error) {
	rows, err := admin.Query(ctx, "SELECT datname::text FROM pg_database")
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// Restored ends a restore: the set serves, and what it had before is removed.
func (p *Platform) Restored(ctx context.Context, s platform.Set) error {
	if err := os.Remove(p.restoringFile(s)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// The server of a suspended tenant runs no longer than it has to.
	return errors.Join(p.removeReplaced(ctx, s), p.rest(ctx, s))
}

// removeReplaced removes what a set had before it was restored.
func (p *Platform) removeReplaced(ctx context.Context, s platform.Set) error {
	if err := os.RemoveAll(p.replacedDir(s)); err != nil || s.Blueprint.Database == nil {
		return err
	}
	if err := p.serverThere(ctx, s); err != nil {
		return err
	}
	admin, err := p.connect(ctx, s, "postgres")
	if err != nil {
		return err
	}
	defer admin.Close(context.WithoutCancel(ctx))
	_, err = admin.Exec(ctx, "DROP DATABASE IF EXISTS "+pgx.Identifier{p.replacedDatabase(s)}.Sanitize()+" WITH (FORCE)")
	return err
}
