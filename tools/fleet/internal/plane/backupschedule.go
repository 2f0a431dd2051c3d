package plane

import (
	"context"
	"hash/fnv"
	"io"
	"log/slog"
	"time"

	"a3os.app/tools/fleet/internal/backup"
	"a3os.app/tools/fleet/internal/platform"
)

const (
	// firstBackup is how long a plane runs before a set without a backup gets its first one, and retryBackup how long after a failure
	// it is tried again; both at most as long as the pace that was asked for.
	firstBackup = 10 * time.Minute
	retryBackup = 15 * time.Minute
)

// schedule is when which set is backed up next.
type schedule struct {
	// every is the pace.
	every time.Duration
	// began is when the plane's supervisor started.
	began time.Time
	// failed is when a set's last attempt came to nothing, by set.
	failed map[string]time.Time
}

// due is when a set with its newest backup is to be backed up again. Sets are spread over a fifth of the pace, each always by the same
// share of it, so that not all are copied at once.
func (s schedule) due(set string, newest time.Time) time.Time {
	h := fnv.New32a()
	_, _ = io.WriteString(h, set)
	const parts = 1000
	spread := time.Duration(float64(s.every) / 5 * float64(h.Sum32()%parts) / parts)
	at := newest.Add(s.every - spread)
	if newest.IsZero() {
		at = s.began.Add(min(firstBackup, s.every) + spread)
	}
	if failed, ok := s.failed[set]; ok {
		if again := failed.Add(min(retryBackup, s.every)); again.After(at) {
			return again
		}
	}
	return at
}

// backUpAlways backs every set up at its time, until ctx ends.
func (p *Plane) backUpAlways(ctx context.Context) {
	if p.Settings.BackupEvery == 0 {
		return
	}
	s := schedule{every: p.Settings.BackupEvery, began: time.Now(), failed: map[string]time.Time{}}
	const look = time.Minute
	tick := time.NewTicker(min(look, s.every/4))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := p.backUpDue(ctx, s); err != nil && ctx.Err() == nil {
			slog.Error("it can't be seen which sets are to be backed up", "alarm", "backup_failed", "error", err)
		}
	}
}

// backUpDue backs up the sets whose time has come, one after the other. What comes of each is told to the registry.
func (p *Plane) backUpDue(ctx context.Context, s schedule) error {
	// A plane of its own: others of this process go on with theirs meanwhile.
	q, err := New(p.Settings, quiet{})
	if err != nil {
		return err
	}
	if err := q.openState(); err != nil {
		return err
	}
	var due []platform.Set
	for _, set := range q.everySet() {
		newest, err := q.newestBackup(set)
		if err != nil {
			return err
		}
		if !time.Now().Before(s.due(set.Name(), newest)) && q.platform.NotRestoring(set) == nil {
			due = append(due, set)
		}
	}
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
		delete(s.failed, set.Name())
		made, err := q.backUp(ctx, set, true, q.Settings.BackupKeep)
		if err != nil {
			s.failed[set.Name()] = time.Now()
			slog.Error("a set was not backed up", "alarm", "backup_failed", "set", set.Name(), "tenant", set.Tenant.String(), "error", err)
			continue
		}
		slog.Info("a set was backed up, and the backup restored into a throwaway server", "set", set.Name(), "backup", made.Name, "bytes", made.Size,
			"took", made.Took.String(), "restore_took", made.RestoreTook.String())
	}
	return nil
}

// newestBackup is as of when a set's newest backup is; zero where there is none.
func (p *Plane) newestBackup(s platform.Set) (time.Time, error) {
	store := p.platform.Backups()
	names, err := store.Names(s.Name())
	if err != nil || len(names) == 0 {
		return time.Time{}, err
	}
	m, err := backup.Claimed(store.Path(s.Name(), names[len(names)-1]))
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
