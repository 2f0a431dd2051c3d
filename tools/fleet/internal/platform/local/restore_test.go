package local_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/id"
	"a3os.app/tools/fleet/internal/backup"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/local"
)

// kept is a set of the tiny product that is backed up, and at work.
type kept struct {
	p   *local.Platform
	set platform.Set
	r   platform.Release
}

func backedUpSet(t *testing.T, with ...func(*blueprint.Blueprint)) *kept {
	t.Helper()
	k := &kept{p: machine(t), set: platform.Set{Blueprint: tiny(t), Tenant: id.NewTenant(), Slug: "acme"}}
	k.p.Settings.BackupDir = filepath.Join(k.p.Settings.Home, "backups")
	k.set.Blueprint.Keys["backup"] = blueprint.Key{Kind: blueprint.KeyBackup}
	k.set.Blueprint.Backup = &blueprint.Backup{Key: "backup"}
	for _, change := range with {
		change(k.set.Blueprint)
	}
	carryOut(t, k.p, k.set)
	k.r = built(t, k.p, "")
	return k
}

// backUp makes a backup of the set, unlocked.
func (k *kept) backUp(t *testing.T) (*backup.Backup, backup.Key) {
	t.Helper()
	m, err := k.p.BackUp(t.Context(), k.set)
	if err != nil {
		t.Fatal(err)
	}
	return k.open(t, m.Name)
}

func (k *kept) open(t *testing.T, name string) (*backup.Backup, backup.Key) {
	t.Helper()
	whose, err := k.p.Whose()
	if err != nil {
		t.Fatal(err)
	}
	b, err := backup.Open(t.Context(), k.p.Backups().Path(k.set.Name(), name), whose)
	if err != nil {
		t.Fatal(err)
	}
	key, err := k.p.BackupKey(k.set)
	if err == nil {
		err = b.Unlock(key)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b, key
}

// restore puts the set back to a backup, and has it serve.
func (k *kept) restore(t *testing.T, b *backup.Backup, key backup.Key) {
	t.Helper()
	if _, err := k.p.Stop(t.Context(), k.set); err != nil {
		t.Fatal(err)
	}
	if err := k.p.Restore(t.Context(), k.set, k.r, k.r, b, key, local.Restoring{Backup: b.Manifest.Name, Dir: b.Dir, Began: time.Now()}); err != nil {
		t.Fatal(err)
	}
}

// write has the set's database and its directory hold a word.
func (k *kept) write(t *testing.T, word string) {
	t.Helper()
	k.query(t, k.set.Name(), "INSERT INTO tiny.notes VALUES ('"+word+"')")
	if err := os.WriteFile(filepath.Join(k.p.Settings.Home, "tenants", k.set.Name(), word), nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

// query asks a database of the plane's server as its superuser.
func (k *kept) query(t *testing.T, database, sql string) []string {
	t.Helper()
	url, err := k.p.Postgres.URL(database)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	rows, err := conn.Query(t.Context(), sql)
	if err != nil {
		t.Fatal(err)
	}
	out, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// A restore whose process is killed between saying that it ended and removing what it had taken aside leaves that. What the set has at the
// next restore, which may be weeks later, is taken aside all the same.
func TestNextRestoreKeepsAsideWhatTheSetHasWhateverTheLastOneLeft(t *testing.T) {
	k := backedUpSet(t)
	b, key := k.backUp(t)
	k.restore(t, b, key)
	// Killed here: see Restored.
	if err := os.Remove(filepath.Join(k.p.Settings.Home, "restoring", k.set.Name()+".json")); err != nil {
		t.Fatal(err)
	}
	k.write(t, "since")
	k.restore(t, b, key)
	if _, err := os.Stat(filepath.Join(k.p.Settings.Home, "tenants", k.set.Name()+".replaced", "since")); err != nil {
		t.Errorf("the files that the set had are not kept aside: %v", err)
	}
	aside := k.set.Name() + "_replaced"
	k.query(t, "postgres", "ALTER DATABASE "+aside+" ALLOW_CONNECTIONS true")
	if notes := k.query(t, aside, "SELECT note FROM tiny.notes"); !slices.Contains(notes, "since") {
		t.Errorf("the database that the set had is not kept aside: what is has %q", notes)
	}
	// Killed in the middle, it is done again, and keeps the same aside.
	k.restore(t, b, key)
	k.query(t, "postgres", "ALTER DATABASE "+aside+" ALLOW_CONNECTIONS true")
	if notes := k.query(t, aside, "SELECT note FROM tiny.notes"); !slices.Contains(notes, "since") {
		t.Errorf("a restore that is done again gave up what was aside: what is has %q", notes)
	}
	if err := k.p.Restored(t.Context(), k.set); err != nil {
		t.Fatal(err)
	}
	if left := k.query(t, "postgres", "SELECT datname::text FROM pg_database WHERE datname LIKE '%_replaced'"); len(left) > 0 {
		t.Errorf("after the restore %q is left", left)
	}
}

// A restore that is cut off while it unpacks, by a full disk or a kill, is run again with what is on the machine: most have no recovery key there,
// and many none at all.
func TestRestoreThatWasCutOffIsRunAgainWithoutARecoveryKey(t *testing.T) {
	k := backedUpSet(t)
	k.write(t, "before")
	b, key := k.backUp(t)
	stores := filepath.Join(b.Dir, "stores")
	whole, err := os.ReadFile(stores)
	if err = errors.Join(err, os.Truncate(stores, int64(len(whole)/2))); err != nil {
		t.Fatal(err)
	}
	if _, err := k.p.Stop(t.Context(), k.set); err != nil {
		t.Fatal(err)
	}
	r := local.Restoring{Backup: b.Manifest.Name, Dir: b.Dir, Began: time.Now()}
	if err := k.p.Restore(t.Context(), k.set, k.r, k.r, b, key, r); err == nil {
		t.Fatal("stores that are half there were unpacked")
	}
	if err := os.WriteFile(stores, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	b, again := k.open(t, b.Manifest.Name)
	k.restore(t, b, again)
	if err := k.p.Restored(t.Context(), k.set); err != nil {
		t.Fatal(err)
	}
	if after, err := k.p.BackupKey(k.set); err != nil || after.Text().Reveal() != key.Text().Reveal() {
		t.Errorf("after the restore the set has another backup key: %v", err)
	}
}

// Rows and stores are backed up by different hands: a backup in which one has what the other lacks is found out when it is tried, as is a store of
// which something was lost on the way.
func TestTrialHoldsStoresToTheManifestAndToTheRowsThatNameThem(t *testing.T) {
	k := backedUpSet(t, func(b *blueprint.Blueprint) {
		b.Stores = map[string]blueprint.Store{"things": {Kind: blueprint.StoreBlob, Named: "SELECT note FROM tiny.notes WHERE note LIKE 'thing-%'"}}
	})
	objects := filepath.Join(k.p.Settings.Home, "tenants", k.set.Name(), "stores", "things", "objects", k.set.Name())
	put := func(key string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(objects, 0o750), os.WriteFile(filepath.Join(objects, key+"@"), []byte(key), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	tried := func() (local.Rehearsal, error) {
		t.Helper()
		b, _ := k.backUp(t)
		return k.p.Rehearse(t.Context(), k.set, k.r, b)
	}
	put("thing-1")
	k.write(t, "thing-1")
	if r, err := tried(); err != nil || r.Files < 1 {
		t.Errorf("a whole backup: %+v, %v", r, err)
	}
	b, _ := k.backUp(t)
	for i, c := range b.Manifest.Stores {
		for change, says := range map[string]backup.Contents{
			"and had":     {Store: c.Store, Files: c.Files + 1, SHA256: c.SHA256},
			"not those":   {Store: c.Store, Files: c.Files, SHA256: strings.Repeat("0", len(c.SHA256))},
			"doesn't say": {Store: "another", Files: c.Files, SHA256: c.SHA256},
		} {
			b.Manifest.Stores[i] = says
			if _, err := k.p.Rehearse(t.Context(), k.set, k.r, b); err == nil || !strings.Contains(err.Error(), change) {
				t.Errorf("with %+v in its manifest a backup with %+v is tried out: %v", says, c, err)
			}
		}
	}
	if len(b.Manifest.Stores) != 1 {
		t.Errorf("the manifest says of stores %+v", b.Manifest.Stores)
	}
	k.write(t, "thing-2")
	if _, err := tried(); err == nil || !strings.Contains(err.Error(), "thing-2 in store things") {
		t.Errorf("a row whose object is in no store: %v", err)
	}
}

// Whoever may write to a table may lock it, and keep it so: a backup gives up on it, and the next set has its turn.
func TestTableThatSomebodyKeepsLockedEndsTheBackup(t *testing.T) {
	k := backedUpSet(t)
	url, err := k.p.Postgres.URL(k.set.Name())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	if _, err := conn.Exec(t.Context(), "BEGIN; LOCK TABLE tiny.notes IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := k.p.BackUp(ctx, k.set); err == nil || ctx.Err() != nil || !strings.Contains(err.Error(), "lock timeout") {
		t.Errorf("a backup of a table that is locked: %v", err)
	}
	if err := conn.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	k.backUp(t)
}

// A trial of a backup holds copies of the set's keys. What of them is left when the process was killed goes with the set, and it is looked for.
func TestNoCopyOfKeysIsLeftOfATrialOfABackup(t *testing.T) {
	k := backedUpSet(t)
	held := filepath.Join(t.TempDir(), "held")
	k.set.Blueprint.Backup.Verify = blueprint.OneOff{Command: []string{"tiny-hold"}, Env: map[string]string{"TINY_HOLD": held}}
	if err := errors.Join(os.Chmod(filepath.Dir(held), 0o777), os.Chmod(filepath.Dir(filepath.Dir(held)), 0o755)); err != nil { //nolint:gosec // the program runs as another user
		t.Fatal(err)
	}
	b, _ := k.backUp(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	tried := make(chan error, 1)
	go func() {
		_, err := k.p.Rehearse(ctx, k.set, k.r, b)
		tried <- err
	}()
	for {
		if _, err := os.Stat(held); err == nil {
			break
		}
		select {
		case err := <-tried:
			t.Fatalf("the trial ended before it was held: %v", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
	found, err := filepath.Glob(filepath.Join(k.p.Settings.Home, "rehearsals", "of-"+k.set.Name()+"-*", "files", "keys", "cookie.secret"))
	if err != nil || len(found) != 1 {
		t.Fatalf("the trial holds the keys in %q (%v)", found, err)
	}
	if _, err := k.p.Clear(k.set); err == nil || !strings.Contains(err.Error(), "wait until it has ended") {
		t.Errorf("a set is cleared away while its keys are in use: %v", err)
	}
	// What a kill leaves: the directory, and a lock that nobody holds.
	used := filepath.Dir(filepath.Dir(filepath.Dir(found[0])))
	left := used[:len(used)-10] + "killedmach"
	if err := errors.Join(os.CopyFS(filepath.Join(left, "files"), os.DirFS(filepath.Join(used, "files"))), os.WriteFile(left+".lock", nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-tried; err == nil {
		t.Error("a trial that was interrupted came out well")
	}
	kept, err := k.p.Kept(t.Context(), k.set)
	if err != nil || !slices.Contains(kept, "file "+left) {
		t.Errorf("of the set is kept %q (%v), and not what was left of the trial", kept, err)
	}
	if _, err := k.p.Lend(t.Context(), k.set); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left); err == nil {
		t.Error("who is to destroy the set's keys is started while copies of them are left where it reaches none")
	}
	if err := os.WriteFile(left+".lock", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := k.p.Clear(k.set); err != nil {
		t.Fatal(err)
	}
	if kept, err := filepath.Glob(filepath.Join(filepath.Dir(left), "of-*")); err != nil || len(kept) > 0 {
		t.Errorf("after the set was cleared away there is %q (%v)", kept, err)
	}
}
