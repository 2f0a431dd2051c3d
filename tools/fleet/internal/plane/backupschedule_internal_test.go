package plane

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/config"
	"a3os.app/libs/id"
	"a3os.app/libs/pgserver"
	"a3os.app/tools/fleet/internal/backup"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/local"
	"a3os.app/tools/fleet/internal/settings"
	"a3os.app/tools/fleet/internal/supervise"
)

// A set is backed up at its pace, and tried again soon after an attempt that came to nothing: also where a backup was made, which could not be
// restored, and which is the newest that there is.
func TestBackupIsDueAtItsPaceAndSoonAfterAFailure(t *testing.T) {
	const every = 24 * time.Hour
	began := time.Date(2026, 9, 1, 3, 0, 0, 0, time.UTC)
	failedAt := began.Add(30 * time.Hour)
	s := schedule{every: every, began: began, failed: map[string]failure{
		"nothing-made": {at: failedAt}, "took-long": {at: failedAt, took: time.Hour}, "not-restored": {at: failedAt, made: "20260902T085900Z-k3f9q2"}, "good-since": {at: failedAt, made: "20260902T085900Z-k3f9q2"},
	}}
	for _, c := range []struct {
		set, says       string
		newest          time.Time
		soonest, latest time.Time
	}{
		{"good", "a pace after its backup, less its share of a fifth", began, began.Add(every - every/5), began.Add(every)},
		{"new", "soon after the plane began", time.Time{}, began.Add(firstBackup), began.Add(firstBackup + every/5)},
		{"nothing-made", "a quarter of an hour after the attempt", began, failedAt.Add(retryBackup), failedAt.Add(retryBackup)},
		{"took-long", "four times as long after the attempt as that took", began, failedAt.Add(4 * time.Hour), failedAt.Add(4 * time.Hour)},
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

// A backup that nobody tried out, as one that is made by hand with --no-verify, or while the one before the supervisor's restart could not be
// restored, puts the next one off by nothing.
func TestOnlyBackupsThatWereTriedOutPutTheNextOneOff(t *testing.T) {
	store := backup.Store{Dir: filepath.Join(t.TempDir(), "backups")}
	p := &Plane{platform: &local.Platform{Settings: settings.Settings{BackupDir: store.Dir}}}
	taken := backups(t, store)
	newest := func() time.Time {
		at, err := p.newestBackup(platform.Set{})
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	first := time.Now().Add(-48 * time.Hour).Truncate(time.Second)
	tried := taken("plane", first)
	if at := newest(); !at.IsZero() {
		t.Errorf("a backup that nobody tried out passes for one of %s", at)
	}
	if err := store.SetVerified("plane", tried, true); err != nil {
		t.Fatal(err)
	}
	taken("plane", first.Add(time.Hour))
	if at := newest(); !at.Equal(first) {
		t.Errorf("the newest one that was tried out is of %s, want %s", at, first)
	}
}

// backups makes such that hold nothing, of a set and a moment, and answers their names.
func backups(t *testing.T, store backup.Store) (taken func(set string, at time.Time) string) {
	t.Helper()
	raw := make([]byte, 32)
	_, _ = rand.Read(raw)
	key, err := backup.ParseKey(config.NewSecret(base64.StdEncoding.EncodeToString(raw)))
	if err != nil {
		t.Fatal(err)
	}
	private, _, err := backup.NewManifestKey("dev")
	if err != nil {
		t.Fatal(err)
	}
	return func(set string, at time.Time) string {
		t.Helper()
		unlock, err := store.Lock(set)
		if err != nil {
			t.Fatal(err)
		}
		defer unlock()
		m := &backup.Manifest{Plane: "dev", PlaneID: "one", Set: set, TakenAt: at}
		w, err := store.Begin(key, m, at)
		if err = errors.Join(err, w.Commit(t.Context(), private, at)); err != nil {
			t.Fatal(err)
		}
		return m.Name
	}
}

// A manifest that nobody can read any more, as bits rot and copies are cut short, has its own set backed up anew. Every other set is, at its time,
// as if it weren't there, and the list of backups shows all of them.
func TestDamagedManifestKeepsNobodyElseFromBeingBackedUp(t *testing.T) {
	s := settings.Settings{Home: t.TempDir(), BackupDir: filepath.Join(t.TempDir(), "backups")}
	p, err := New(s, quiet{})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.openState(); err != nil {
		t.Fatal(err)
	}
	store, sets := p.platform.Backups(), []platform.Set{}
	taken, now := backups(t, store), time.Now()
	for name, age := range map[string]time.Duration{"damaged": time.Hour, "due": 48 * time.Hour, "new": time.Hour} {
		set := platform.Set{Tenant: id.NewTenant(), Slug: name}
		sets = append(sets, set)
		made := taken(set.Name(), now.Add(-age))
		err := store.SetVerified(set.Name(), made, true)
		if name == "damaged" {
			err = errors.Join(err, os.Truncate(filepath.Join(store.Path(set.Name(), made), "manifest.json"), 20))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	var due []string
	for _, set := range p.due(schedule{every: 24 * time.Hour, began: now.Add(-72 * time.Hour)}, sets) {
		due = append(due, set.Slug)
	}
	if slices.Sort(due); !slices.Equal(due, []string{"damaged", "due"}) {
		t.Errorf("due are %q", due)
	}
	all, err := p.Backups(nil)
	if err != nil || len(all) != len(sets) {
		t.Fatalf("the list has %d of %d (%v)", len(all), len(sets), err)
	}
	for _, b := range all {
		damaged := slices.ContainsFunc(sets, func(s platform.Set) bool { return s.Name() == b.Set && s.Slug == "damaged" })
		if (b.Unreadable != "") != damaged || b.Name == "" || b.Dir == "" {
			t.Errorf("the list has %+v", b)
		}
	}
}

// The directory of backups may be the root of a disk, with a lost+found that is root's alone: whoever isn't root lists backups and finds one by its name
// all the same. What of a set can't be read is told in its row, and hides no other.
func TestBackupsAreListedBesideWhatIsSomebodyElses(t *testing.T) {
	s := settings.Settings{Home: t.TempDir(), BackupDir: filepath.Join(t.TempDir(), "disk")}
	p, err := New(s, quiet{})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.openState(); err != nil {
		t.Fatal(err)
	}
	store, acme, other := p.platform.Backups(), id.NewTenant().String(), id.NewTenant().String()
	taken := backups(t, store)
	made := taken(acme, time.Now())
	taken("lost+found", time.Now()) // as a set's would be: it is none by its name
	if sets, err := store.Sets(); err != nil || !slices.Equal(sets, []string{acme}) {
		t.Errorf("sets with backups are %q (%v), want %s", sets, err, acme)
	}
	closed := filepath.Join(store.Dir, other)
	if err := os.Mkdir(closed, 0); err != nil {
		t.Fatal(err)
	}
	want := 1
	if _, err := os.ReadDir(closed); err != nil {
		want = 2
	} else {
		t.Log("NOT PLAYED: a set whose backups can't be read needs a user who isn't root")
	}
	all, err := p.Backups(nil)
	if err != nil || len(all) != want {
		t.Errorf("the list has %+v (%v)", all, err)
	}
	for _, b := range all {
		if (b.Set == other) != (b.Unreadable != "") || b.Set == acme && b.Name != made {
			t.Errorf("the list has %+v", b)
		}
	}
	if dir, err := p.findBackup(made); err != nil || dir != store.Path(acme, made) {
		t.Errorf("%s is found in %q (%v)", made, dir, err)
	}
}

// Whoever brings the plane up anew, with other settings than it was started with, has backups made by those: there and at that pace.
func TestBackupsGoByTheSettingsThatThePlaneWasLastBroughtUpWith(t *testing.T) {
	began := settings.Settings{Home: t.TempDir(), BackupDir: filepath.Join(t.TempDir(), "before"), BackupEvery: time.Hour}
	supervisor, err := New(began, quiet{})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	// due says that one was to be made: there is no plane to make it of.
	due := func() bool {
		t.Helper()
		err := supervisor.backUpDue(t.Context(), &schedule{every: time.Hour, began: now.Add(-48 * time.Hour), failed: map[string]failure{}})
		if err != nil && !errors.Is(err, supervise.ErrNotRunning) && !strings.Contains(err.Error(), "there is no plane") {
			t.Fatal(err)
		}
		return err != nil
	}
	if !due() {
		t.Error("by the settings that it was started with no backup is due")
	}
	up := func(change func(*settings.Settings)) {
		t.Helper()
		s := began
		change(&s)
		p, err := New(s, quiet{})
		if err != nil {
			t.Fatal(err)
		}
		if err := p.keepSettings(); err != nil {
			t.Fatal(err)
		}
	}
	up(func(s *settings.Settings) { s.BackupEvery = 0 })
	if due() {
		t.Error("a backup is due of a plane that was brought up to make none")
	}
	elsewhere := backup.Store{Dir: filepath.Join(t.TempDir(), "after")}
	if err := elsewhere.SetVerified("plane", backups(t, elsewhere)("plane", now.Add(-3*time.Hour)), true); err != nil {
		t.Fatal(err)
	}
	up(func(s *settings.Settings) { s.BackupDir = elsewhere.Dir })
	if !due() {
		t.Error("no backup is due at a pace of an hour with one of three hours ago")
	}
	up(func(s *settings.Settings) { s.BackupDir, s.BackupEvery = elsewhere.Dir, 24*time.Hour })
	if due() {
		t.Error("a backup is due where one was made three hours ago, at a pace of a day")
	}
}

// What is kept of settings is all of them, but for who brought the plane up: a turn of the supervisor goes by what they said, and is nobody's who may
// be removed.
func TestSettingsThatThePlaneIsBroughtUpWithAreKeptWhole(t *testing.T) {
	home := t.TempDir()
	said, err := settings.Load([]string{"A3_HOME=" + home, "A3_DOMAIN=access.example.com", "A3_TENANTS=one,two", "A3_OUTSIDE_NETWORKS=10.20.0.0/16", "A3_NETWORKS=10.90.0.0/16",
		"A3_BACKUP_DIR=/mnt/backups", "A3_BACKUP_EVERY=6h", "A3_BACKUP_KEEP=3", "A3_AWS_REGION=eu-central-1", "A3_TENANT_RATE=7.5"}, home)
	if err != nil {
		t.Fatal(err)
	}
	before, err := settings.Load([]string{"A3_HOME=" + home, "A3_CORS_ORIGINS=https://app.example.com", "A3_OUTSIDE_NETWORKS=10.30.0.0/16,10.40.0.0/16"}, home)
	if err != nil {
		t.Fatal(err)
	}
	up, err := New(said, quiet{})
	if err == nil {
		up.Settings.Operator, up.Settings.OperatorDir = "ann", "/home/ann/a3"
		err = up.keepSettings()
	}
	if err != nil {
		t.Fatal(err)
	}
	supervisor, err := New(before, quiet{})
	if err != nil {
		t.Fatal(err)
	}
	q, err := supervisor.asBroughtUp()
	if err != nil || !reflect.DeepEqual(q.Settings, said) {
		t.Errorf("it goes by %+v (%v)\nwant %+v", q.Settings, err, said)
	}
}

// For as long as this machine can't try a backup out, as one that has no room for that, a set isn't copied anew each quarter of an hour: its backup is there,
// and tried once that can be done. The next one is made at its own time.
func TestBackupThatNobodyCouldTryIsTriedAgainAndNotMadeAnew(t *testing.T) {
	s := settings.Settings{Home: t.TempDir(), BackupDir: filepath.Join(t.TempDir(), "backups"), BackupKeep: 3}
	p, err := New(s, quiet{})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.openState(); err != nil {
		t.Fatal(err)
	}
	set := platform.Set{Tenant: id.NewTenant(), Slug: "acme", Blueprint: &blueprint.Blueprint{Name: "files", Keys: map[string]blueprint.Key{"backup": {Kind: blueprint.KeyBackup}},
		Backup: &blueprint.Backup{Key: "backup"}}}
	for _, of := range []platform.Set{p.own, set} {
		if _, err := p.platform.KeysAndStores(of); err != nil {
			t.Fatal(err)
		}
	}
	// Where backups are tried out nothing can be made.
	trials, err := pgserver.DirFor(filepath.Join(s.Home, "rehearsals"), "")
	if err == nil {
		err = errors.Join(os.MkdirAll(filepath.Dir(trials), 0o711), os.WriteFile(trials, nil, 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(trials) })

	pace, before := schedule{every: 24 * time.Hour}, failure{}
	turn := func() string {
		t.Helper()
		made, err := p.turn(t.Context(), pace, set, before)
		if !errors.Is(err, local.ErrNotTried) || made == nil {
			t.Fatalf("a backup that can't be tried out is %+v (%v)", made, err)
		}
		names, err := p.platform.Backups().Names(set.Name())
		if err != nil || !slices.Equal(names, []string{made.Name}) {
			t.Errorf("there are %q (%v), want %s", names, err, made.Name)
		}
		before = failedNow(time.Now(), before, made, local.ErrNotTried)
		return made.Name
	}
	first := turn()
	if again := turn(); again != first {
		t.Errorf("%s was made, and %s a quarter of an hour later", first, again)
	}
	before.untried = before.untried.Add(-pace.every)
	second := turn()
	if second == first {
		t.Error("a day later no other is made")
	}
	if err := os.Remove(trials); err != nil {
		t.Fatal(err)
	}
	if made, err := p.turn(t.Context(), pace, set, before); err != nil || made.Name != second || made.Verified.IsZero() {
		t.Errorf("once it can be tried out it is %+v (%v), want %s", made, err, second)
	}
	if tried, err := p.platform.Backups().Verified(set.Name()); err != nil || tried != second {
		t.Errorf("the newest that was tried out is %q (%v), want %s", tried, err, second)
	}
}

// Whoever has fewer backups kept, for there is no room for another one, has that done at the next attempt, though it comes to nothing. The newest that
// could be restored stays.
func TestFewerBackupsAreKeptAlsoWhereThereIsNoRoomForAnother(t *testing.T) {
	s := settings.Settings{Home: t.TempDir(), BackupDir: filepath.Join(t.TempDir(), "backups")}
	p, err := New(s, quiet{})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.openState(); err != nil {
		t.Fatal(err)
	}
	set, store := platform.Set{Tenant: id.NewTenant(), Slug: "acme"}, p.platform.Backups()
	taken, now := backups(t, store), time.Now()
	good := taken(set.Name(), now.Add(-72*time.Hour))
	if err := store.SetVerified(set.Name(), good, true); err != nil {
		t.Fatal(err)
	}
	taken(set.Name(), now.Add(-48*time.Hour))
	newest := taken(set.Name(), now.Add(-24*time.Hour))
	for range 2 {
		if _, err := p.noteBackup(t.Context(), set, nil, local.ErrNoRoom, true, 1, ""); !errors.Is(err, local.ErrNoRoom) {
			t.Errorf("it ends with %v", err)
		}
		if names, err := store.Names(set.Name()); err != nil || !slices.Equal(names, []string{good, newest}) {
			t.Errorf("kept are %q (%v), want %s, which was tried out, and %s", names, err, good, newest)
		}
	}
}
