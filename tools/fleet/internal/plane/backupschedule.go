package plane

import (
	"context"
	"errors"
	"hash/fnv"
	"io"
	"log/slog"
	"time"

	"a3os.app/tools/fleet/internal/backup"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/local"
)

const (
	// firstBackup is how long a plane runs before a set without a backup gets its first one, and retryBackup how long after a failure
	// it is tried again; both at most as long as the pace that was asked for.
	firstBackup = 10 * time.Minute
	retryBackup = 15 * time.Minute
	restAfter   = 4
)

// schedule is when which set is backed up next.
type schedule struct {
	// every is the pace; zero for never.
	every time.Duration
	// began is when the plane's supervisor started.
	began time.Time
	// failed is the last attempt of a set, by set, where it came to nothing.
	failed map[string]failure
}

// failure is an attempt that came to nothing.
type failure struct {
	at time.Time
	// took is how long that took. The next one begins no sooner than after restAfter times as long: what can't be done is not read and written whole, day
	// and night, while every other set waits for its turn.
	took time.Duration
	// made is the backup that was made and could not be restored; empty where none was made.
	made string
	// untried is as of when that backup is, where nothing is known to be wrong with it, for its trial came to nothing for a reason of this machine's;
	// zero otherwise.
	untried time.Time
}

// failedNow is an attempt that came to nothing now, of a set of which another may have before.
func failedNow(began time.Time, before failure, made *BackedUp, err error) failure {
	out := failure{at: time.Now(), took: time.Since(began), made: before.made}
	if made != nil {
		out.made = made.Name
		if errors.Is(err, local.ErrNotTried) {
			out.untried = made.TakenAt
		}
	}
	return out
}

// due is when a set with its newest backup is to be backed up again. Sets are spread over a fifth of the pace, each always by the same
// share of it, so that not all are copied at once. A backup that could not be restored is none, however new it is; one that was made by hand
// after a failure is.
func (s schedule) due(set string, newest time.Time) time.Time {
	if failed, ok := s.failed[set]; ok && !newest.After(failed.at) {
		return failed.at.Add(min(max(retryBackup, restAfter*failed.took), s.every))
	}
	if newest.IsZero() {
		return s.began.Add(min(firstBackup, s.every) + s.spread(set))
	}
	return s.next(set, newest)
}

// next is when a set with a good backup as of a moment is to be backed up again.
func (s schedule) next(set string, at time.Time) time.Time { return at.Add(s.every - s.spread(set)) }

// spread is a set's own share of a fifth of the pace.
func (s schedule) spread(set string) time.Duration {
	h := fnv.New32a()
	_, _ = io.WriteString(h, set)
	const parts = 1000
	return time.Duration(float64(s.every) / 5 * float64(h.Sum32()%parts) / parts)
}

// backUpAlways backs every set up at its time, until ctx ends.
func (p *Plane) backUpAlways(ctx context.Context) {
	s := schedule{every: p.Settings.BackupEvery, began: time.Now(), failed: map[string]failure{}}
	for {
		look := time.Minute
		if s.every != 0 {
			look = min(look, s.every/4)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(look):
		}
		if err := p.backUpDue(ctx, &s); err != nil && ctx.Err() == nil {
			slog.Error("it can't be seen which sets are to be backed up", "alarm", "backup_failed", "error", err)
		}
	}
}

// backUpDue backs up the sets whose time has come, one after the other, at the pace that the plane was last brought up with. What comes of each is
// told to the registry.
func (p *Plane) backUpDue(ctx context.Context, s *schedule) error {
	q, err := p.asBroughtUp()
	if err != nil {
		return err
	}
	if s.every = q.Settings.BackupEvery; s.every == 0 {
		return nil
	}
	if err := q.openState(); err != nil {
		return err
	}
	if err := q.platform.RecogniseBackups(); err != nil { // who backs up there next fails by it
		slog.Warn("the directory of backups was not marked as such", "error", err)
	}
	due := q.due(*s, q.everySet())
	if len(due) == 0 {
		return nil
	}
	if err := q.openForBackup(ctx); err != nil {
		return err
	}
	for _, set := range due {
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the supervisor ends: what is due is due when it is back
		}
		began, before := time.Now(), s.failed[set.Name()]
		delete(s.failed, set.Name())
		made, err := q.turn(ctx, *s, set, before)
		if errors.Is(err, backup.ErrBusy) && (made == nil || !made.Verified.IsZero()) { // by hand: what comes of that is seen at the next turn
			if !before.at.IsZero() {
				s.failed[set.Name()] = before
			}
			continue
		}
		if err != nil {
			s.failed[set.Name()] = failedNow(began, before, made, err)
			slog.Error("a set was not backed up", "alarm", "backup_failed", "set", set.Name(), "tenant", set.Tenant.String(), "error", err)
			continue
		}
		slog.Info("a set was backed up, and the backup restored into a throwaway server", "set", set.Name(), "backup", made.Name, "bytes", made.Size,
			"took", made.Took.String(), "restore_took", made.RestoreTook.String())
	}
	return nil
}

// turn backs up a set whose time has come. Where only the trial of its backup came to nothing, that is made up for, and no other one is made before its
// own time: it would be copied whole each quarter of an hour for as long as a disk has no room for its trial, and every other set would wait for that.
func (p *Plane) turn(ctx context.Context, s schedule, set platform.Set, before failure) (*BackedUp, error) {
	if !before.untried.IsZero() && time.Now().Before(s.next(set.Name(), before.untried)) {
		return p.tryAgain(ctx, set, before.made, p.Settings.BackupKeep)
	}
	return p.backUp(ctx, set, true, p.Settings.BackupKeep, before.made)
}

// due are those of some sets whose time has come. One whose newest backup can't be read has none, and keeps no other from its turn.
func (p *Plane) due(s schedule, sets []platform.Set) []platform.Set {
	var due []platform.Set
	for _, set := range sets {
		newest, err := p.newestBackup(set)
		if time.Now().Before(s.due(set.Name(), newest)) || p.platform.NotRestoring(set) != nil {
			continue
		}
		if err != nil {
			slog.Error("the newest backup of a set can't be read, and another one is made", "alarm", "backup_failed", "set", set.Name(), "tenant", set.Tenant.String(), "error", err)
		}
		due = append(due, set)
	}
	return due
}

// newestBackup is as of when a set's newest backup is that was restored for trial; zero where there is none. One that nobody tried keeps
// none from being made.
func (p *Plane) newestBackup(s platform.Set) (time.Time, error) {
	store := p.platform.Backups()
	name, err := store.Verified(s.Name())
	if err != nil || name == "" {
		return time.Time{}, err
	}
	m, err := backup.Claimed(store.Path(s.Name(), name))
	if err != nil {
		return time.Time{}, err
	}
	return m.TakenAt, nil
}

// quiet reports to nobody: what matters is logged.
type quiet struct{}

// Done implements Reporter.
func (quiet) Done(string, time.Duration) {}

// Note implements Reporter.
func (quiet) Note(string) {}
