package plane

import (
	"testing"
	"time"
)

// A set is backed up at its pace, and tried again soon after an attempt that came to nothing: also where a backup was made, which could not be
// restored, and which is the newest that there is.
func TestBackupIsDueAtItsPaceAndSoonAfterAFailure(t *testing.T) {
	const every = 24 * time.Hour
	began := time.Date(2026, 9, 1, 3, 0, 0, 0, time.UTC)
	failedAt := began.Add(30 * time.Hour)
	s := schedule{every: every, began: began, failed: map[string]failure{
		"nothing-made": {at: failedAt}, "not-restored": {at: failedAt, made: "20260902T085900Z-k3f9q2"}, "good-since": {at: failedAt, made: "20260902T085900Z-k3f9q2"},
	}}
	for _, c := range []struct {
		set, says       string
		newest          time.Time
		soonest, latest time.Time
	}{
		{"good", "a pace after its backup, less its share of a fifth", began, began.Add(every - every/5), began.Add(every)},
		{"new", "soon after the plane began", time.Time{}, began.Add(firstBackup), began.Add(firstBackup + every/5)},
		{"nothing-made", "a quarter of an hour after the attempt", began, failedAt.Add(retryBackup), failedAt.Add(retryBackup)},
		{"not-restored", "a quarter of an hour after the attempt", failedAt.Add(-time.Minute), failedAt.Add(retryBackup), failedAt.Add(retryBackup)},
		{"good-since", "a pace after the one that was made by hand", failedAt.Add(time.Hour), failedAt.Add(time.Hour + every - every/5), failedAt.Add(time.Hour + every)},
	} {
		if at := s.due(c.set, c.newest); at.Before(c.soonest) || at.After(c.latest) {
			t.Errorf("%s is due at %s, want %s: between %s and %s", c.set, at, c.says, c.soonest, c.latest)
		}
	}
	const quick = 2 * time.Minute
	hasty := schedule{every: quick, began: began, failed: map[string]failure{"a": {at: failedAt}}}
	if at := hasty.due("a", time.Time{}); !at.Equal(failedAt.Add(quick)) {
		t.Errorf("at a pace of %s it is tried again at %s, which failed at %s", quick, at, failedAt)
	}
}

// Two sets are not copied at the same moment, and each has a moment of its own that stays.
func TestBackupsOfSetsAreSpread(t *testing.T) {
	s := schedule{every: 24 * time.Hour}
	newest := time.Date(2026, 9, 1, 3, 0, 0, 0, time.UTC)
	one, other := s.due("tnt_01h455vb4pex5vsknk084sn02q", newest), s.due("tnt_01h455vb4pex5vsknk084sn02r", newest)
	if one.Equal(other) || !one.Equal(s.due("tnt_01h455vb4pex5vsknk084sn02q", newest)) {
		t.Errorf("two sets with backups of the same moment are due at %s and at %s", one, other)
	}
}
