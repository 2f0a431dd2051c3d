package plane

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/failpoint"
	"a3os.app/libs/fault"
	"a3os.app/libs/release"
	"a3os.app/tools/fleet/internal/backup"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/local"
	"a3os.app/tools/fleet/internal/state"
)

// RestoreRequest says what is restored.
type RestoreRequest struct {
	// From is a backup: its directory, or its name.
	From string
	// To is the tenant, by slug or id: the backup's own, or one that was made to be a copy of that.
	To string
	// RecoveryKey is the file of a recovery key; empty where the set's backup key is still there.
	RecoveryKey string
	// Reason is why, for the tenant's record, and Actor who.
	Reason, Actor string
	// Replace stops a set that runs, and gives up what it has.
	Replace bool
	// plan that is carried out; nil for none.
	plan *restorePlan
}

// Restored says what came of a restore.
type Restored struct {
	BackedUp
	// Lost is how long before this restore the backup was taken: what was written in between is not in it.
	Lost time.Duration `json:"lost_ns"`
	// LostEntries is how many entries the tenant's audit log had, by what its witness saw last, and has no more: what was written after that
	// look, which is seconds, comes on top.
	LostEntries int64 `json:"lost_entries"`
	// Serves says that the tenant answers; a suspended one stays suspended.
	Serves bool `json:"serves"`
	// Total is how long all of it took, from the command to the answer.
	Total time.Duration `json:"total_ns"`
}

const (
	shortestReason = 10
	longestReason  = 500
)

// Restore puts a tenant's set back to what it was when a backup was taken. The backup is tried out first, whole, so that nothing is given
// up for one that can't be restored. On planes where changes are planned only the plane's own registry is restored by it: see ApplyRestore.
func (p *Plane) Restore(ctx context.Context, r RestoreRequest) (*Restored, error) {
	if n := utf8.RuneCountInString(strings.TrimSpace(r.Reason)); n < shortestReason || n > longestReason {
		return nil, fault.New(fault.InvalidArgument, "--reason has %d characters: say why in %d to %d, for the tenant's own record", n, shortestReason, longestReason)
	}
	if r.To == p.own.Name() {
		return p.restorePlane(ctx, r)
	}
	began := time.Now()
	unlock, err := p.readyToRestore(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if p.state.Plane == prod {
		return nil, fault.New(fault.FailedPrecondition, "tenants of this plane are restored by plan: %s, then fleet approve HASH --reason '…', of another operator, and fleet apply HASH%s", r.planned(), r.withKey())
	}
	return p.restore(ctx, r, began)
}

// planned is the command that plans the restore.
func (r RestoreRequest) planned() string {
	replace := ""
	if r.Replace {
		replace = " --replace"
	}
	return fmt.Sprintf("fleet plan restore --from %s --to %s%s%s --reason '…'", r.From, r.To, replace, r.withKey())
}

func (r RestoreRequest) withKey() string {
	if r.RecoveryKey == "" {
		return ""
	}
	return " --recovery-key " + r.RecoveryKey
}

// readyToRestore opens a plane that is up, for the one command that changes it.
func (p *Plane) readyToRestore(ctx context.Context) (unlock func(), err error) {
	if !state.Exists(p.Settings.Home) {
		return nil, fault.New(fault.NotFound, "there is no plane in %s: of one that was lost, the plane itself is restored first: fleet restore --from BACKUP --to plane --recovery-key FILE --reason '…'", p.Settings.Home)
	}
	if err := p.supervisor.Ping(ctx); err != nil {
		return nil, p.whyNot(err)
	}
	if unlock, err = p.lock(ctx); err != nil {
		return nil, err
	}
	if err = p.whereBackupsAre(); err == nil {
		err = p.open(ctx)
	}
	if err != nil {
		unlock()
		return nil, err
	}
	return unlock, nil
}

// restore is Restore of a tenant, by who holds the plane's lock.
func (p *Plane) restore(ctx context.Context, r RestoreRequest, began time.Time) (*Restored, error) {
	s, err := p.set(r.To)
	if err != nil {
		return nil, err
	}
	// What can't be started again is not put back.
	if s, err = p.started(ctx, s); err != nil {
		return nil, fmt.Errorf("nothing was changed: %w", err)
	}
	s.Blueprint = mended(s.Blueprint, p.blueprint)
	of, b, key, err := p.believe(ctx, s, r)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(r.plan.of(b), p.mayReplace(ctx, s, r), p.noOperation(ctx, s)); err != nil {
		return nil, err
	}
	if r.Reason, err = reasonOf(strings.TrimSpace(r.Reason), s, b.Manifest); err != nil {
		return nil, err
	}
	if of.Name() != s.Name() {
		if b, key, err = p.copyOf(ctx, of, s, b, r); err != nil {
			return nil, err
		}
	}
	locked, err := p.platform.Backups().Lock(s.Name())
	if err != nil {
		return nil, err
	}
	defer locked()
	out := &Restored{BackedUp: backedUp(p.platform.Backups(), b.Manifest), Lost: began.Sub(b.Manifest.TakenAt)}
	out.Dir = b.Dir
	tried, err := p.platform.RehearseToRestore(ctx, s, p.builtFor(s), b)
	if err != nil {
		return nil, refused(err)
	}
	out.tried(tried)
	if err := p.platform.Backups().SetVerified(s.Name(), b.Manifest.Name, true); err != nil {
		return nil, fmt.Errorf("nothing was changed: %w", err)
	}
	p.report.Done(s.Slug+": the backup is whole, tried out in a throwaway server", tried.Took)
	if _, err := p.recordRestore(ctx, s, b, r, true); err != nil {
		return nil, fmt.Errorf("nothing was changed: %w", err)
	}
	if err := failpoint.Here("fleet.restore.begun"); err != nil {
		return nil, err
	}
	if err := p.putBack(ctx, s, b, key, r); err != nil {
		return nil, err
	}
	if out.LostEntries, err = p.recordRestore(ctx, s, b, r, false); err != nil {
		return nil, err
	}
	if err := failpoint.Here("fleet.restore.recorded"); err != nil {
		return nil, err
	}
	return p.endRestore(ctx, s, out, began)
}

// endRestore has a set that was put back serve.
func (p *Plane) endRestore(ctx context.Context, s platform.Set, out *Restored, began time.Time) (*Restored, error) {
	var err error
	out.Serves, err = p.serveAgain(ctx, s)
	if err != nil {
		return nil, err
	}
	if out.CopyOf != "" && len(s.Blueprint.RecoverAdmin.Command) > 0 {
		p.report.Note(fmt.Sprintf("who may sign in is as it was at %s: fleet tenant recover-admin %s --admin ADDRESS --reason '…', with the address of one of its admins", out.CopyOf, s.Slug))
	}
	out.Total = time.Since(began)
	return out, p.platform.Restored(ctx, s)
}

// reasonOf is what the tenant's record says: where its set becomes a copy, also of whom.
func reasonOf(reason string, s platform.Set, m *backup.Manifest) (string, error) {
	from := backup.Copied{Set: m.Set, Slug: m.Slug, Backup: m.Name}
	switch {
	case m.Copied != nil:
		from = *m.Copied
	case m.Set == s.Name():
		return reason, nil
	}
	out := fmt.Sprintf("Copy of %s (%s), backup %s: %s", cmp.Or(from.Slug, from.Set), from.Set, from.Backup, reason)
	if n := utf8.RuneCountInString(out) - longestReason; n > 0 {
		return "", fault.New(fault.InvalidArgument, "--reason is %d characters too long: the record also says whose copy the tenant becomes", n)
	}
	return out, nil
}

// refused is a trial before a restore that came to nothing. Of a backup that nobody could try it doesn't say that it can't be restored.
func refused(err error) error {
	if errors.Is(err, local.ErrNotTried) || errors.Is(err, local.ErrNotCopied) {
		return fmt.Errorf("nothing was changed: %w", err)
	}
	return fmt.Errorf("nothing was changed, the backup can't be restored: %w", err)
}

// believe opens the backup: it has to be this plane's, and this tenant's, or that of the one whose copy this tenant was made to be. It answers whose.
func (p *Plane) believe(ctx context.Context, s platform.Set, r RestoreRequest) (of platform.Set, b *backup.Backup, key backup.Key, err error) {
	if of, b, err = p.found(ctx, s, r); err != nil {
		return of, nil, key, err
	}
	key, err = p.openWith(of, b, b.Dir, r.RecoveryKey)
	return of, b, key, err
}

// found is believe for who reads the manifest alone, which takes no key of the set's.
func (p *Plane) found(ctx context.Context, s platform.Set, r RestoreRequest) (of platform.Set, b *backup.Backup, err error) {
	dir, err := p.findBackup(r.From)
	if err != nil {
		return of, nil, err
	}
	whose, err := p.platform.Whose()
	if errors.Is(err, fs.ErrNotExist) && r.RecoveryKey != "" {
		// What manifests are verified with is gone as well, and the recovery key has it.
		var recovery *backup.Recovery
		if recovery, err = recoveryIn(r.RecoveryKey); err == nil {
			whose = backup.Whose{Plane: p.state.Plane, ID: p.state.ID, ManifestKey: recovery.ManifestKey}
		}
	}
	if err != nil {
		return of, nil, err
	}
	if b, err = openBelieved(ctx, dir, whose, r.RecoveryKey); err != nil {
		return of, nil, err
	}
	if of = s; b.Manifest.Set != s.Name() {
		if of, err = p.original(ctx, s, b.Manifest); err != nil {
			return of, nil, err
		}
	}
	return of, b, nil
}

// original is the set that a backup is of, where the registry says that the tenant was made to be its copy.
func (p *Plane) original(ctx context.Context, s platform.Set, m *backup.Manifest) (platform.Set, error) {
	refused := fmt.Errorf("%w: %s is of %s (%s), and not of %s (%s)", backup.ErrRefused, m.Name, cmp.Or(m.Slug, m.Set), m.Set, cmp.Or(s.Slug, s.Name()), s.Name())
	if s.Tenant.IsZero() || m.Set == p.own.Name() {
		return platform.Set{}, refused
	}
	status, err := p.ShowTenant(ctx, s.Name())
	if err != nil {
		return platform.Set{}, err
	}
	if status.GetTenant().GetCopyOf() != m.Set {
		return platform.Set{}, fmt.Errorf("%w, and no copy of that one: a tenant that is to be one is made by fleet plan provision --tenant NAME --copy-of %s --reason '…'", refused, cmp.Or(m.Slug, m.Set))
	}
	of, err := p.set(m.Set)
	if err != nil {
		return of, fmt.Errorf("find the tenant that the backup is of: %w", err)
	}
	return p.started(ctx, of)
}

// copyOf makes a backup of one tenant's set one of another's, tried out on the way, and answers that, unlocked.
func (p *Plane) copyOf(ctx context.Context, of, s platform.Set, b *backup.Backup, r RestoreRequest) (*backup.Backup, backup.Key, error) {
	ran, err := platform.ParseRelease(b.Manifest.Release)
	if runs := p.runs(s); err == nil && release.Compare(ran.Version, runs.Version) > 0 {
		return nil, backup.Key{}, fault.New(fault.FailedPrecondition, "nothing was changed: %s is of release %s, and %s runs %s, which does not know such a database: bring it there first, fleet plan upgrade --tenant %s --release %s --reason '…'",
			b.Manifest.Name, ran.Version, s.Slug, runs.Version, s.Slug, ran.Version)
	}
	locked, err := p.platform.Backups().Lock(s.Name())
	if err != nil {
		return nil, backup.Key{}, err
	}
	defer locked()
	m, tried, err := p.platform.Copy(ctx, of, s, p.builtFor(of), b)
	if err != nil {
		return nil, backup.Key{}, refused(err)
	}
	p.report.Done(fmt.Sprintf("%s: %s of %s is whole, tried out in a throwaway server, and made a backup of %s: %s", s.Slug, b.Manifest.Name, of.Slug, s.Slug, m.Name), tried.Took)
	r.From, r.RecoveryKey = p.platform.Backups().Path(s.Name(), m.Name), ""
	_, made, key, err := p.believe(ctx, s, r)
	return made, key, err
}

func recoveryIn(file string) (*backup.Recovery, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the recovery key: %w", err)
	}
	return backup.ParseRecovery(text)
}

// openWith unlocks a backup of a set, and answers the key that does: the set's own, or one whose sealed copy lies beside the backups.
func (p *Plane) openWith(s platform.Set, b *backup.Backup, dir, recoveryFile string) (backup.Key, error) {
	if recoveryFile == "" {
		key, err := p.platform.BackupKey(s)
		if errors.Is(err, os.ErrNotExist) {
			return key, fmt.Errorf("the backup key of %s is not here any more: name the file of the recovery key with --recovery-key", cmp.Or(s.Slug, s.Name()))
		}
		if err != nil {
			return key, err
		}
		return key, b.Unlock(key)
	}
	recovery, err := recoveryIn(recoveryFile)
	if err != nil {
		return backup.Key{}, err
	}
	sealed, err := backup.Escrows(dir)
	if err != nil {
		return backup.Key{}, err
	}
	var all error
	for _, one := range sealed {
		key, err := recovery.Release(one, s.Name())
		if err == nil {
			err = b.Unlock(key)
		}
		if err == nil {
			return key, nil
		}
		all = cmp.Or(all, err)
	}
	return backup.Key{}, all
}

// staysHere refuses a tenant that leaves: its keys are destroyed on purpose. Where the registry can't be asked nobody is kept from keys.
func (p *Plane) staysHere(ctx context.Context, s platform.Set) error {
	conn, err := p.registry()
	if err != nil {
		return nil //nolint:nilerr // see above
	}
	defer conn.Close()
	const most = 5 * time.Second
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	op, err := unfinished(ctx, conn, s.Tenant.String())
	if err != nil || op.GetKind() != registryv1.OperationKind_OPERATION_KIND_OFFBOARD {
		return nil //nolint:nilerr // see above
	}
	return fault.New(fault.FailedPrecondition, "%s leaves by operation %s, which destroys its keys: nothing was changed", s.Slug, op.GetId())
}

// mayReplace refuses to give up what a running set has, unless that was asked for.
func (p *Plane) mayReplace(ctx context.Context, s platform.Set, r RestoreRequest) error {
	runs, err := p.carrier().Components(ctx, s)
	if err != nil || len(runs) == 0 || r.Replace || p.platform.NotRestoring(s) != nil {
		return err
	}
	if r.plan != nil {
		return fault.New(fault.FailedPrecondition, "%s runs, and the plan doesn't say that it is stopped: suspend it first, or plan it with --replace", s.Slug)
	}
	return fault.New(fault.FailedPrecondition, "%s runs, and what it wrote since the backup would be given up: suspend it first, or say --replace", s.Slug)
}

// noOperation refuses to restore a set that an operation is to change further: what that did to the database is undone, and it would go on
// after it, an upgrade with new programs on the schema of before.
func (p *Plane) noOperation(ctx context.Context, s platform.Set) error {
	conn, err := p.registry()
	if err != nil {
		return err
	}
	defer conn.Close()
	op, err := unfinished(ctx, conn, s.Tenant.String())
	if err != nil || op == nil {
		return err
	}
	return fault.New(fault.FailedPrecondition, "operation %s of %s is not finished, and would go on on a database of before: end it first with fleet operation resume %s, or give it up with fleet operation abort %s --reason '…'",
		op.GetId(), s.Slug, op.GetId(), op.GetId())
}

// putBack stops the set, which is marked first, and puts back what it had.
func (p *Plane) putBack(ctx context.Context, s platform.Set, b *backup.Backup, key backup.Key, r RestoreRequest) (err error) {
	mark := local.Restoring{Backup: b.Manifest.Name, Dir: b.Dir, Began: time.Now().UTC(), Actor: r.Actor, Reason: r.Reason, Plan: r.plan.hash()}
	if err := p.platform.BeginRestoring(ctx, s, mark); err != nil {
		return fmt.Errorf("nothing was changed: %w", err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w; %w", err, p.platform.NotRestoring(s))
		}
	}()
	var changed bool
	err = p.step(&changed, s.Slug+": its services stopped", func() (bool, error) { return p.carrier().Stop(ctx, s) })
	if err != nil {
		return err
	}
	return p.step(&changed, s.Slug+": keys, stores and database as of "+b.Manifest.TakenAt.Format(time.RFC3339), func() (bool, error) {
		return true, p.platform.Restore(ctx, s, p.runs(s), p.builtFor(s), b, key, mark)
	})
}

// runs is the release that a set ran last; what is built here where that isn't known, or was built on a machine that is lost.
func (p *Plane) runs(s platform.Set) platform.Release {
	r, err := platform.ParseRelease(p.state.Runs()[s.Name()])
	if err != nil {
		return p.release
	}
	if _, err := p.platform.Program(s.Blueprint, r); err != nil && r.Version == release.Development {
		return p.release
	}
	return r
}

// serveAgain starts the set, unless the registry says that its tenant is suspended.
func (p *Plane) serveAgain(ctx context.Context, s platform.Set) (bool, error) {
	status, err := p.ShowTenant(ctx, s.Name())
	if err != nil {
		return false, err
	}
	if status.GetTenant().GetState() == registryv1.TenantState_TENANT_STATE_SUSPENDED {
		p.report.Note(s.Slug + " is suspended and stays so: resume it when it may serve again")
		return false, nil
	}
	conn, err := p.registry()
	if err != nil {
		return false, err
	}
	defer conn.Close()
	t, _ := p.state.Tenant(s.Name())
	var changed bool
	return true, p.step(&changed, s.Slug+": serves again", sequence(
		func() (bool, error) { return p.carrier().Start(ctx, s, p.runs(s)) },
		func() (bool, error) { return true, p.place(ctx, conn, s, p.runs(s), status.GetServiceSet()) },
		func() (bool, error) { return p.reach(ctx, t, s) }))
}
