package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/config"
	"a3os.app/libs/fault"
	"a3os.app/tools/fleet/internal/backup"
	"a3os.app/tools/fleet/internal/dump"
	"a3os.app/tools/fleet/internal/platform"
)

// Parts of a set's backup.
const (
	partFiles    = "files"
	partStores   = "stores"
	partDatabase = "database"
)

// Backups are where backups lie.
func (p *Platform) Backups() backup.Store { return backup.Store{Dir: p.Settings.BackupDir} }

// Whose is what this plane's backups are held to.
func (p *Platform) Whose() (backup.Whose, error) {
	name, err := p.ownKey(blueprint.KeyManifest)
	if err != nil {
		return backup.Whose{}, err
	}
	key, err := os.ReadFile(p.publicFile(p.Own, name))
	if err != nil {
		return backup.Whose{}, fmt.Errorf("read the key that manifests of backups are verified with: %w: make up makes it", err)
	}
	return backup.Whose{Plane: p.State.Plane, ID: p.State.ID, ManifestKey: strings.TrimSpace(string(key))}, nil
}

// BackupKey is the key that a set's backups are encrypted under, also of one whose restore was cut off. The error is fs.ErrNotExist where
// it is gone.
func (p *Platform) BackupKey(s platform.Set) (backup.Key, error) {
	if s.Blueprint.Backup == nil {
		return backup.Key{}, fault.New(fault.Unimplemented, "the blueprint %s does not say how its sets are backed up", s.Blueprint.Name)
	}
	file := p.keyFile(s, s.Blueprint.Backup.Key)
	text, err := p.secretFile(file)
	if errors.Is(err, fs.ErrNotExist) && p.NotRestoring(s) != nil {
		// No backup holds it: until the restore has unpacked all else, it is with what the set had.
		text, err = p.secretFile(filepath.Join(p.replacedDir(s), "keys", filepath.Base(file)))
	}
	if err != nil {
		return backup.Key{}, fmt.Errorf("read the backup key of %s: %w", s.Name(), err)
	}
	return backup.ParseKey(text)
}

// RecoveryPublic is the file with the public half of the plane's recovery key.
func (p *Platform) RecoveryPublic() string { return p.home("recovery.public") }

// BackUp makes a backup of a set that may be at work: the database as of one moment, the stores with everything that they held at it, and
// the keys without which neither could be read. It answers the manifest. A backup that is interrupted leaves nothing that looks like one.
func (p *Platform) BackUp(ctx context.Context, s platform.Set) (*backup.Manifest, error) {
	// The key first: of a set that left, not even a directory of backups is made again.
	key, err := p.BackupKey(s)
	if err != nil {
		return nil, err
	}
	if gone := p.KeysGone(s); len(gone) > 0 {
		// It would push out the last that has them, and be called well.
		return nil, fmt.Errorf("back up %s: of its keys %w: %s: docs/operations.md#a-key-is-gone", s.Name(), ErrKeyGone, strings.Join(gone, ", "))
	}
	if err := p.KeepBackupsHere(); err != nil {
		return nil, err
	}
	unlock, err := p.Backups().Lock(s.Name())
	if err != nil {
		return nil, err
	}
	defer unlock()
	url, done, err := p.toCopy(ctx, s)
	if err != nil {
		return nil, fmt.Errorf("back up %s: %w", s.Name(), err)
	}
	m := &backup.Manifest{Release: p.State.Runs()[s.Name()]}
	err = p.makeBackup(ctx, s, m, key, source{url: url, stores: func(tree *backup.Tree) error { return p.packStores(ctx, s, tree) }})
	if err = errors.Join(err, done()); err != nil {
		return nil, fmt.Errorf("back up %s: %w", s.Name(), err)
	}
	return m, nil
}

// source is where a backup is taken from.
type source struct {
	// url of the database.
	url config.Secret
	// stores packs what the stores have. It is called twice: see writeParts.
	stores func(*backup.Tree) error
}

// makeBackup writes a backup of a set, whose lock the caller holds. m says which release it ran, and what it was made of.
func (p *Platform) makeBackup(ctx context.Context, s platform.Set, m *backup.Manifest, key backup.Key, from source) error {
	store := p.Backups()
	if err := p.escrow(store, s, key); err != nil {
		return err
	}
	name, err := p.ownKey(blueprint.KeyManifest)
	if err != nil {
		return err
	}
	signKey, err := p.secretFile(p.keyFile(p.Own, name))
	if err != nil {
		return fmt.Errorf("read the key that signs manifests of backups: %w", err)
	}
	m.Plane, m.PlaneID, m.Set, m.Slug, m.Blueprint = p.State.Plane, p.State.ID, s.Name(), s.Slug, s.Blueprint.Name
	if s.Blueprint.Database != nil {
		if m.DatabaseBytes, err = dump.Size(ctx, from.url); err != nil {
			return err
		}
	}
	if err := p.roomToBackUp(s); err != nil {
		return err
	}
	w, err := store.Begin(key, m, p.Now())
	if err != nil {
		return err
	}
	var none error
	w.Room = func() error { none = moreRoom(store.Dir); return none }
	if err = p.writeParts(ctx, s, w, from); err == nil {
		err = w.Commit(ctx, signKey.Reveal(), p.Now())
	}
	if none != nil {
		err = none // and not that of a program whose words nobody took any more
	} else if full(err) {
		err = fmt.Errorf("%w: %w", ErrNoRoom, err)
	}
	if err != nil {
		return errors.Join(err, w.Abandon())
	}
	return nil
}

// escrow keeps the sealed copy of the backup key beside the backups, where a recovery key was made.
func (p *Platform) escrow(store backup.Store, s platform.Set, key backup.Key) error {
	public, err := os.ReadFile(p.RecoveryPublic())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	sealed, err := backup.SealKey(string(public), key, p.State.Plane, p.State.ID, s.Name())
	if err != nil {
		return err
	}
	return store.PutEscrow(s.Name(), sealed)
}

// writeParts writes a set's parts. The stores are packed twice: before the snapshot, and after it what is new. A file that a row of the
// snapshot names was there at that moment, and so is in the part, unless it came and went within the few milliseconds between.
func (p *Platform) writeParts(ctx context.Context, s platform.Set, w *backup.Writer, from source) error {
	if err := p.packFiles(ctx, s, w); err != nil {
		return err
	}
	part, err := w.Part(partStores)
	if err != nil {
		return err
	}
	stores := backup.NewTree(part)
	if err := from.stores(stores); err != nil {
		return err
	}
	return p.writeDatabase(ctx, s, w, from.url, func() error {
		err := from.stores(stores)
		w.Manifest.Gone = stores.Gone
		for _, name := range slices.Sorted(maps.Keys(s.Blueprint.Stores)) {
			w.Manifest.Stores = append(w.Manifest.Stores, stores.Below(name).Contents(name))
		}
		return errors.Join(err, stores.Close(), part.Close())
	})
}

func (p *Platform) packStores(ctx context.Context, s platform.Set, t *backup.Tree) error {
	if elsewhere := p.storesElsewhere(s); elsewhere != nil {
		return elsewhere.Pack(ctx, t)
	}
	for _, name := range slices.Sorted(maps.Keys(p.storesHere(s))) {
		err := t.Dir(ctx, name, p.store(s, name), unwritten)
		if err != nil {
			return err
		}
	}
	return nil
}

// toCopy lends a login that reads a set's database, until done; empty where the set has none.
func (p *Platform) toCopy(ctx context.Context, s platform.Set) (url config.Secret, done func() error, err error) {
	if s.Blueprint.Database == nil {
		return url, func() error { return nil }, nil
	}
	if err := p.programs().Find(); err != nil {
		return url, nil, err
	}
	if p.Places != nil {
		// Where the server is, a platform of servers of somebody else's finds out so.
		if _, err := p.Places.Serve(ctx, s); err != nil {
			return url, nil, err
		}
	}
	return p.reader(ctx, s)
}

// writeDatabase writes the database; after is called when the moment is taken.
func (p *Platform) writeDatabase(ctx context.Context, s platform.Set, w *backup.Writer, url config.Secret, after func() error) error {
	if s.Blueprint.Database == nil {
		w.Manifest.TakenAt = p.Now()
		return after()
	}
	return p.dump(ctx, s, w, p.programs(), url, after)
}

func (p *Platform) dump(ctx context.Context, s platform.Set, w *backup.Writer, programs dump.Programs, url config.Secret, after func() error) error {
	m := w.Manifest
	snapshot, err := dump.Begin(ctx, url)
	if err != nil {
		return err
	}
	defer snapshot.Close(ctx)
	m.Postgres, m.Database = p.binaries().Major, databaseName(s)
	if m.Copied == nil {
		m.TakenAt = snapshot.TakenAt.UTC()
	}
	if err := after(); err != nil {
		return err
	}
	if query := s.Blueprint.Backup.Checkpoint; query != "" {
		if m.Checkpoint, err = snapshot.Value(ctx, query); err != nil {
			return fmt.Errorf("read the newest checkpoint: %w", err)
		}
	}
	tables, err := snapshot.Tables(ctx)
	if err != nil {
		return err
	}
	for _, t := range tables {
		m.Tables = append(m.Tables, backup.Table{Name: t.String(), Rows: t.Rows})
	}
	part, err := w.Part(partDatabase)
	if err != nil {
		return err
	}
	return errors.Join(snapshot.Dump(ctx, programs, part), part.Close())
}

// kept are a set's files that can't be made anew, relative to its directory: keys but the one that the backup is encrypted under, and the
// root of its authority.
func (p *Platform) kept(s platform.Set) map[string]string {
	out := map[string]string{"pki/root.pem": p.pki(s, "root.pem")}
	for name, k := range s.Blueprint.Keys {
		if k.Kind == blueprint.KeyBackup {
			continue
		}
		out["keys/"+name+".secret"] = p.keyFile(s, name)
		out["keys/"+name+".public"] = p.publicFile(s, name)
	}
	if s.Tenant.IsZero() {
		out[planeFile], out["web/ca.pem"], out["web/ca-key.pem"] = p.home(planeFile), p.home("web", "ca.pem"), p.home("web", "ca-key.pem")
		out["recovery.public"] = p.RecoveryPublic()
	} else {
		out["first-admin.json"] = p.firstAdminFile(s)
	}
	return out
}

func (p *Platform) packFiles(_ context.Context, s platform.Set, w *backup.Writer) error {
	part, err := w.Part(partFiles)
	if err != nil {
		return err
	}
	files := p.kept(s)
	if s.Tenant.IsZero() {
		texts, err := blueprintsIn(p.Settings.Home)
		if err != nil {
			return errors.Join(fmt.Errorf("look for the blueprints of releases: %w", err), part.Close())
		}
		maps.Copy(files, texts)
	}
	tree := backup.NewTree(part)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		text, err := os.ReadFile(files[name])
		if errors.Is(err, fs.ErrNotExist) {
			continue // a key without a public half, a plane with a certificate of its owner's
		}
		if err == nil {
			err = tree.Bytes(path.Clean(name), text)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("pack %s: %w", name, err), part.Close())
		}
	}
	return errors.Join(tree.Close(), part.Close())
}
