package plane

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

	"github.com/google/renameio/v2"

	"a3os.app/libs/fault"
	"a3os.app/tools/fleet/internal/backup"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/local"
	"a3os.app/tools/fleet/internal/state"
)

// BackedUp is a backup that was made, or looked at.
type BackedUp struct {
	// Slug of the tenant, or `plane`; Set its id.
	Slug string `json:"slug"`
	Set  string `json:"set"`
	// Name of the backup, and the directory that it is in.
	Name string `json:"name"`
	Dir  string `json:"dir"`
	// TakenAt is the moment that it is as of, Took how long it took.
	TakenAt time.Time     `json:"taken_at"`
	Took    time.Duration `json:"took_ns"`
	// Size in bytes.
	Size int64 `json:"size"`
	// Release that the set ran.
	Release string `json:"release"`
	// Tried says that a real restore of it came out well, now or before.
	Tried bool `json:"tried"`
	// Verified is when a real restore of it came out well; zero when none was tried. RestoreTook is how long that was.
	Verified    time.Time     `json:"verified,omitzero"`
	RestoreTook time.Duration `json:"restore_took_ns"`
	Rows        int64         `json:"rows"`
	// Files of stores that were restored, Credentials how many of them are credentials that the backup's key opens.
	Files       int `json:"files"`
	Credentials int `json:"credentials"`
	// CopyOf is the tenant whose backup it was made of; empty where it is of the tenant itself.
	CopyOf string `json:"copy_of,omitempty"`
	// Elsewhere are stores that are not in it, and stay as they are when it is restored.
	Elsewhere []string `json:"elsewhere,omitempty"`
	Said      string   `json:"said,omitempty"`
	// Unreadable says why nothing but its name and its directory is known of it, or, where it has no name, of any backup of the set; empty where its
	// manifest could be read.
	Unreadable string `json:"unreadable,omitempty"`
}

// openForBackup reads the plane's state and lets its lock go again: a backup changes nothing of the plane, and may take long.
func (p *Plane) openForBackup(ctx context.Context) error {
	if err := p.supervisor.Ping(ctx); err != nil {
		return p.whyNot(err)
	}
	unlock, err := p.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := p.whereBackupsAre(); err != nil {
		return err
	}
	return p.open(ctx)
}

// set finds a set by its tenant's slug or id, or the plane's own by `plane`.
func (p *Plane) set(name string) (platform.Set, error) {
	if name == p.own.Name() {
		return p.own, nil
	}
	t, ok := p.state.Tenant(name)
	if !ok || t.ID.IsZero() {
		return platform.Set{}, fault.New(fault.NotFound, "there is no tenant %q", name)
	}
	return p.setOf(t), nil
}

// everySet are the plane's own and every tenant's.
func (p *Plane) everySet() []platform.Set {
	out := []platform.Set{p.own}
	for _, t := range p.state.Tenants() {
		if !t.ID.IsZero() {
			out = append(out, p.setOf(t))
		}
	}
	return out
}

// BackUp makes a backup of the named sets, or of every one, tries each out unless told not to, and removes those that are more than keep.
// One that fails does not keep the others from being made.
func (p *Plane) BackUp(ctx context.Context, names []string, all, verify bool, keep int) ([]BackedUp, error) {
	if all != (len(names) == 0) {
		return nil, fault.New(fault.InvalidArgument, "say which tenants to back up with --tenant, or --all for every tenant and the plane's own registry")
	}
	if err := p.openForBackup(ctx); err != nil {
		return nil, err
	}
	var sets []platform.Set
	for _, name := range names {
		s, err := p.set(name)
		if err != nil {
			return nil, err
		}
		sets = append(sets, s)
	}
	if all {
		sets = p.everySet()
	}
	if _, err := os.Stat(p.platform.RecoveryPublic()); errors.Is(err, fs.ErrNotExist) {
		p.report.Note("no recovery key was made: these backups open on this machine alone, and are lost with it; make one with fleet backup recovery-key FILE")
	}
	var out []BackedUp
	var errs []error
	for _, s := range sets {
		one, err := p.backUp(ctx, s, verify, keep, "")
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", cmp.Or(s.Slug, s.Name()), err))
			continue
		}
		out = append(out, *one)
	}
	return out, errors.Join(errs...)
}

// backUp backs one set up, and tells the registry what came of it. The plane's own can be restored while the registry is away, so that
// its silence makes no backup a failed one. Of one that was interrupted, or kept from its turn by another command, nothing came. It answers what was made also where that could not be restored. instead is one before it that could
// not be restored either and goes now, so that tries again and again neither fill the disk nor push good ones out; empty for none.
func (p *Plane) backUp(ctx context.Context, s platform.Set, verify bool, keep int, instead string) (*BackedUp, error) {
	if err := p.platform.NotRestoring(s); err != nil {
		return nil, err
	}
	out, err := p.makeAndTry(ctx, s, verify)
	return p.noteBackup(ctx, s, out, err, verify, keep, instead)
}

// tryAgain tries a backup out that was made and that nobody could try then, as backUp does; one that is not there any more, or can't be read, is
// made anew.
func (p *Plane) tryAgain(ctx context.Context, s platform.Set, name string, keep int) (*BackedUp, error) {
	store := p.platform.Backups()
	m, err := backup.Claimed(store.Path(s.Name(), name))
	if err != nil {
		return p.backUp(ctx, s, true, keep, name)
	}
	if err := p.platform.NotRestoring(s); err != nil {
		return nil, err
	}
	out := backedUp(store, m)
	trial, cancel := context.WithTimeout(ctx, longestBackup)
	defer cancel()
	return p.noteBackup(ctx, s, &out, p.tryMade(trial, s, &out), true, keep, "")
}

// noteBackup is what backUp does of what came of one.
func (p *Plane) noteBackup(ctx context.Context, s platform.Set, out *BackedUp, err error, verify bool, keep int, instead string) (*BackedUp, error) {
	if err != nil && (ctx.Err() != nil || out == nil && errors.Is(err, backup.ErrBusy)) {
		return out, err
	}
	if told := p.recordBackup(ctx, s, out, err); told != nil {
		p.report.Note(told.Error())
	}
	noRoom := errors.Is(err, local.ErrNoRoom)
	if out == nil && !noRoom {
		return nil, err
	}
	store := p.platform.Backups()
	unlock, lerr := store.Lock(s.Name())
	if lerr != nil {
		return out, errors.Join(err, lerr)
	}
	defer unlock()
	if out == nil {
		return nil, errors.Join(err, p.keepBackups(s, keep))
	}
	if verify && !errors.Is(err, local.ErrNotTried) {
		err = errors.Join(err, store.SetVerified(s.Name(), out.Name, err == nil))
	}
	if instead != "" {
		err = errors.Join(err, store.Discard(s.Name(), instead))
	}
	if err != nil && !noRoom {
		return out, err
	}
	return out, errors.Join(err, p.keepBackups(s, keep))
}

// keepBackups removes what is beyond the newest backups of a set, which the caller has locked: also where there was no room for another one, or for its
// trial, for whoever keeps fewer then makes room.
func (p *Plane) keepBackups(s platform.Set, keep int) error {
	gone, err := p.platform.Backups().Keep(s.Name(), keep)
	if len(gone) > 0 {
		p.report.Note(fmt.Sprintf("%s: removed %s: the newest %d are kept", cmp.Or(s.Slug, s.Name()), strings.Join(gone, ", "), keep))
	}
	return err
}

// longestBackup is how long one set may take, its trial included: sets are backed up one after the other, and what hangs in one keeps all others
// from theirs.
const longestBackup = 12 * time.Hour

// makeAndTry answers what was made also where it could not be restored.
func (p *Plane) makeAndTry(ctx context.Context, s platform.Set, verify bool) (*BackedUp, error) {
	ctx, cancel := context.WithTimeout(ctx, longestBackup)
	defer cancel()
	began := time.Now()
	m, err := p.platform.BackUp(ctx, s)
	if err != nil {
		return nil, err
	}
	out := backedUp(p.platform.Backups(), m)
	out.Took = time.Since(began)
	p.report.Done(out.Slug+": backed up", out.Took)
	if !verify {
		return &out, nil
	}
	return &out, p.tryMade(ctx, s, &out)
}

func (p *Plane) tryMade(ctx context.Context, s platform.Set, out *BackedUp) error {
	err := p.rehearse(ctx, s, out)
	switch {
	case errors.Is(err, local.ErrNotTried):
		return fmt.Errorf("backup %s was made: %w", out.Dir, err)
	case err != nil:
		return fmt.Errorf("backup %s was made and could not be restored: %w", out.Dir, err)
	}
	return nil
}

func backedUp(store backup.Store, m *backup.Manifest) BackedUp {
	out := BackedUp{Slug: cmp.Or(m.Slug, m.Set), Set: m.Set, Name: m.Name, Dir: store.Path(m.Set, m.Name), TakenAt: m.TakenAt, Took: m.EndedAt.Sub(m.TakenAt),
		Size: m.Size(), Release: m.Release, Elsewhere: m.Elsewhere}
	if m.Copied != nil {
		// It is as of a moment long before it was made.
		out.CopyOf, out.Took = cmp.Or(m.Copied.Slug, m.Copied.Set), 0
	}
	return out
}

// rehearse tries a backup out.
func (p *Plane) rehearse(ctx context.Context, s platform.Set, out *BackedUp) error {
	whose, err := p.platform.Whose()
	if err != nil {
		return err
	}
	b, err := backup.Open(ctx, out.Dir, whose)
	if err != nil {
		return err
	}
	key, err := p.platform.BackupKey(s)
	if err != nil {
		return fmt.Errorf("%w: %w", local.ErrNotTried, err)
	}
	if err := b.Unlock(key); err != nil {
		return err
	}
	r, err := p.platform.Rehearse(ctx, s, p.builtFor(s), b)
	if err != nil {
		return err
	}
	out.tried(r)
	p.report.Done(fmt.Sprintf("%s: restored into a throwaway server: %d tables, %d rows, %d files, %d credentials that open, %s", out.Slug, r.Tables, r.Rows, r.Files, r.Credentials,
		cmp.Or(r.Said, "no log")), r.Took)
	return nil
}

// tried notes that a backup was restored for real.
func (b *BackedUp) tried(r local.Rehearsal) {
	b.Tried, b.Verified, b.RestoreTook, b.Rows, b.Files, b.Credentials, b.Said = true, time.Now().UTC(), r.Took, r.Rows, r.Files, r.Credentials, r.Said
}

// builtFor is what was built here of a set's programs.
func (p *Plane) builtFor(s platform.Set) platform.Release {
	if s.Tenant.IsZero() {
		return p.controls
	}
	if s.Blueprint.Digest != p.blueprint.Digest {
		return p.runs(s)
	}
	return p.release
}

// VerifyBackup tries a backup out that was made before. What is on record of it stays where the trial was interrupted, or came to nothing for a
// reason that isn't the backup's.
func (p *Plane) VerifyBackup(ctx context.Context, name string) (*BackedUp, error) {
	if err := p.openForBackup(ctx); err != nil {
		return nil, err
	}
	dir, err := p.findBackup(name)
	if err != nil {
		return nil, err
	}
	whose, err := p.platform.Whose()
	if err != nil {
		return nil, err
	}
	b, err := backup.Open(ctx, dir, whose)
	if err != nil {
		return nil, err
	}
	s, err := p.set(b.Manifest.Set)
	if err != nil {
		return nil, err
	}
	out := backedUp(p.platform.Backups(), b.Manifest)
	out.Dir = dir
	failure := p.rehearse(ctx, s, &out)
	if failure != nil && (ctx.Err() != nil || errors.Is(failure, local.ErrNotTried)) {
		return &out, failure
	}
	if err := errors.Join(p.recordBackup(ctx, s, &out, failure), p.noteTrial(s, out, failure == nil)); err != nil {
		p.report.Note(err.Error())
	}
	return &out, failure
}

// noteTrial keeps in mind what came of the trial of a backup, unless that is a copy elsewhere.
func (p *Plane) noteTrial(s platform.Set, b BackedUp, well bool) error {
	stores, err := p.backupStores()
	if err != nil {
		return err
	}
	for _, store := range stores {
		if b.Dir != store.Path(s.Name(), b.Name) {
			continue
		}
		unlock, err := store.Lock(s.Name())
		if err != nil {
			return err
		}
		defer unlock()
		return store.SetVerified(s.Name(), b.Name, well)
	}
	return nil
}

// findBackup is the directory of a backup: a path, or its name among those that [Plane.Backups] lists.
func (p *Plane) findBackup(name string) (string, error) {
	if info, err := os.Stat(name); err == nil && info.IsDir() {
		return filepath.Abs(name)
	}
	stores, err := p.backupStores()
	if err != nil {
		return "", err
	}
	var unread error
	for _, store := range stores {
		sets, err := store.Sets()
		unread = errors.Join(unread, err)
		for _, set := range sets {
			names, err := store.Names(set)
			if err != nil {
				unread = errors.Join(unread, err)
			}
			if slices.Contains(names, name) {
				return store.Path(set, name), nil
			}
		}
	}
	return "", errors.Join(fault.New(fault.NotFound, "there is no backup %q: it is a directory, or a name that `fleet backup list` shows", name), unread)
}

// Backups lists the backups that there are, by directory and set, the newest first. Nobody has looked whether they are whole; one that can't be read is
// among them, and hides no other on the day on which one is picked.
func (p *Plane) Backups(names []string) ([]BackedUp, error) {
	there := state.Exists(p.Settings.Home)
	if err := p.whereBackupsAre(); err != nil {
		return nil, err
	}
	if err := p.openState(); err != nil {
		return nil, err
	}
	stores, err := p.backupStores()
	if err != nil {
		return nil, err
	}
	var only []string
	for _, name := range names {
		s, err := p.set(name)
		if err != nil {
			return nil, err
		}
		only = append(only, s.Name())
	}
	out, some := []BackedUp{}, false
	for _, store := range stores {
		if err := p.platform.There(store); err != nil {
			p.report.Note(err.Error())
		}
		sets, err := store.Sets()
		if err != nil {
			return nil, err
		}
		some = some || len(sets) > 0
		if len(only) > 0 {
			sets = only
		}
		for _, set := range sets {
			out = append(out, p.listed(store, set)...)
		}
	}
	if !some && !there {
		return nil, fault.New(fault.NotFound, "there is no plane in %s, nor a backup: A3_HOME names a plane's directory", p.Settings.Home)
	}
	return out, nil
}

// listed are the backups of a set in a directory, as Backups has them.
func (p *Plane) listed(store backup.Store, set string) []BackedUp {
	var out []BackedUp
	found, err := store.Names(set)
	if err != nil {
		whose, _ := p.set(set)
		out = append(out, BackedUp{Slug: cmp.Or(whose.Slug, set), Set: set, Dir: store.Path(set, ""), Unreadable: err.Error()})
	}
	tried, err := store.Tried(set)
	if err != nil {
		p.report.Note(err.Error())
	}
	slices.Reverse(found)
	for _, name := range found {
		dir := store.Path(set, name)
		m, err := backup.Claimed(dir)
		if err != nil {
			whose, _ := p.set(set) // a set that is here no more has its id for a name
			out = append(out, BackedUp{Slug: cmp.Or(whose.Slug, set), Set: set, Name: name, Dir: dir, Unreadable: err.Error()})
			continue
		}
		b := backedUp(store, m)
		b.Tried = slices.Contains(tried, name)
		out = append(out, b)
	}
	return out
}

// AcceptBackups has a directory be one that this plane's backups are kept in, though what marked it as such is gone; or, where it is gone itself, one
// that none are in any more.
func (p *Plane) AcceptBackups(dir string, gone bool) error {
	if err := p.openExisting(); err != nil {
		return err
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if gone {
		return p.platform.ForgetBackups(backup.Store{Dir: dir})
	}
	return p.platform.AcceptBackups(backup.Store{Dir: dir})
}

// RecoveryKey makes a recovery key and writes it into a file that isn't there yet. From the next backup on, it opens them on any machine.
func (p *Plane) RecoveryKey(ctx context.Context, file string) error {
	if err := p.openExisting(); err != nil {
		return err
	}
	unlock, err := p.lockAndLook(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	whose, err := p.platform.Whose()
	if err != nil {
		return err
	}
	_, before := os.Stat(p.platform.RecoveryPublic())
	r, public, err := backup.NewRecovery(whose.Plane, whose.ID, whose.ManifestKey)
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("write the recovery key: %w: name a file that isn't there, best on a medium that leaves this machine", err)
	}
	_, err = f.Write(append(text, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write the recovery key: %w", err)
	}
	if err := renameio.WriteFile(p.platform.RecoveryPublic(), []byte(public+"\n"), 0o600); err != nil {
		return err
	}
	if before == nil {
		p.report.Note("there was a recovery key: from the next backup on, the copy of each backup key is sealed to the new one")
	}
	return nil
}
