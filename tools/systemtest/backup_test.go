package systemtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gofrs/flock"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"
)

// backupMade is what `fleet backup -o json` says of one.
type backupMade struct {
	Slug     string `json:"slug"`
	Name     string `json:"name"`
	Dir      string `json:"dir"`
	Verified string `json:"verified"`
	Rows     int64  `json:"rows"`
}

func (p *plane) fleet(t *testing.T, args ...string) said {
	t.Helper()
	s, err := p.command(t.Context(), "fleet", args...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (p *plane) backUp(t *testing.T, slug string, more ...string) backupMade {
	t.Helper()
	s := p.fleet(t, append([]string{"-o", "json", "backup", "--tenant", slug}, more...)...)
	var made []backupMade
	if err := json.Unmarshal([]byte(s.out), &made); err != nil || s.code != 0 || len(made) != 1 {
		t.Fatalf("backup of %s: %v %s", slug, err, s)
	}
	return made[0]
}

// A tenant that works is backed up and put back: everything that was acknowledged before the backup began is there, a session from before
// is nobody's, the restore is on the tenant's own record, and who remembers a later checkpoint of the log notices. A backup that was
// changed, cut short, or is another tenant's is refused and nothing is given up for it; a restore that was killed is run again.
func TestTenantIsPutBackToItsBackup(t *testing.T) {
	full(t)
	t.Parallel()
	dir := walkable(t)
	p := planeIn(t, dir, "A3_TENANTS=acme,globex", "A3_UNIX_TENANTS=none", "A3_BACKUP_EVERY=none")
	if err := p.up(t.Context()); err != nil {
		t.Fatal(err)
	}
	recovery := filepath.Join(dir, "recovery.json")
	if s := p.fleet(t, "backup", "recovery-key", recovery); s.code != 0 {
		t.Fatalf("recovery key: %s", s)
	}
	acknowledged, made := p.backUpUnderLoad(t)
	if made.Verified == "" || made.Rows == 0 {
		t.Errorf("the backup was not restored for trial: %+v", made)
	}
	p.missesBackup(t, made)
	p.a3(t, "acme-admin", "user", "invite", "later@acme.example")
	p.remembersLog(t)
	p.refusesBackups(t, made)

	// Killed as soon as what the set had is taken aside; until it is run again, nothing starts the set, and another tenant's comes up beside it.
	p.killRestore(t, made, "acme", p.tenants["acme"].id)
	p.ok(t, "plane", "down")
	if s := p.fleet(t, "plane", "up"); s.code == 0 || !strings.Contains(s.err, "tenant acme: ") || !strings.Contains(s.err, "is unfinished: run it again") || strings.Contains(s.err, "tenant globex") {
		t.Errorf("a plane comes up with half a restored set: %s", s)
	}
	if s := p.tryA3(t, "globex-admin", "user", "list"); s.code != 0 {
		t.Errorf("half a restored set keeps another one down: %s", s)
	}
	s := p.fleet(t, "restore", "--from", made.Name, "--to", "acme", "--reason", "the restore was killed")
	if s.code != 0 {
		t.Fatalf("the restore that was killed is run again: %s", s)
	}
	t.Log(s.out)
	if s := p.fleet(t, "plane", "up"); s.code != 0 || !strings.Contains(s.err, "fleet tenant recover-admin acme") {
		t.Errorf("the plane comes up before the admin signed in again: %s", s)
	}
	if s := p.tryA3(t, "acme-admin", "user", "list"); s.code == 0 {
		t.Error("a session from before the restore goes on")
	}
	p.signInAgain(t, "acme")
	users := p.a3(t, "acme-admin", "-o", "json", "user", "list")
	for _, address := range acknowledged {
		if !strings.Contains(users, address) {
			t.Errorf("%s was acknowledged before the backup began, and is not there after the restore", address)
		}
	}
	if strings.Contains(users, "later@acme.example") {
		t.Error("somebody who was invited after the backup is there")
	}
	if events := p.a3(t, "acme-admin", "audit", "list", "--action", "iam.set.restored"); !strings.Contains(events, "the restore was killed") || !strings.Contains(events, "workload:operator") {
		t.Errorf("the restore is not on the record: %s", events)
	}
	if s := p.tryA3(t, "acme-admin", "audit", "verify"); s.code == 0 || !strings.Contains(s.err, "restored it from a backup") {
		t.Errorf("who remembers a later checkpoint is told %s", s)
	}
	if s := p.tryA3(t, "globex-admin", "user", "list"); s.code != 0 {
		t.Errorf("another tenant noticed: %s", s)
	}
}

// Whoever works on a plane need not have in their environment what it was brought up with: what they type removes no more backups than the plane was
// told to keep, where it was told to, has alarms go by its pace, and looks at the disk that its backups are on.
func TestWhatIsTypedElsewhereGoesByWhatThePlaneWasToldOfBackups(t *testing.T) {
	full(t)
	t.Parallel()
	dir := walkable(t)
	kept := filepath.Join(dir, "kept")
	p := planeIn(t, dir, "A3_TENANTS=acme", "A3_UNIX_TENANTS=none", "A3_BACKUP_EVERY=72h", "A3_BACKUP_KEEP=2", "A3_BACKUP_DIR="+kept)
	if err := p.up(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.environ = append(p.environ, "A3_BACKUP_EVERY=none", "A3_BACKUP_KEEP=1", "A3_BACKUP_DIR=")
	var names []string
	for range 2 {
		made := p.backUp(t, "plane", "--no-verify")
		if names = append(names, made.Name); !strings.HasPrefix(made.Dir, kept) {
			t.Errorf("backups are kept in %s, and one is made in %s", kept, made.Dir)
		}
	}
	s := p.fleet(t, "backup", "--tenant", "plane", "--no-verify")
	listed := p.ok(t, "backup", "list", "--tenant", "plane")
	if s.code != 0 || !strings.Contains(s.err, "removed "+names[0]) || strings.Contains(listed, names[0]) || !strings.Contains(listed, names[1]) {
		t.Errorf("of 3 backups, 2 of which are to be kept: %s\n%s", s, listed)
	}
	p.ok(t, "observability", filepath.Join(dir, "watching"))
	const late = "388800" // one and a half times 72h, in seconds
	if rules, err := os.ReadFile(filepath.Join(dir, "watching", "rules.yaml")); err != nil || !strings.Contains(string(rules), late) {
		t.Errorf("the rules don't go by the pace of backups (%v): %s", err, rules)
	}
	if err := syscall.Mount("tmpfs", kept, "tmpfs", 0, "size=8m,mode=0700"); err != nil {
		t.Logf("NOT PLAYED: a disk of backups that fills needs a mount, which needs root: %v", err)
		return
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(kept, 0); err != nil {
			t.Error(err)
		}
	})
	fillUp(t, filepath.Join(kept, "ballast"))
	p.environ = append(p.environ, "A3_BACKUP_DIR="+filepath.Join(dir, "another"))
	if said := p.ok(t, "status"); !strings.Contains(said, "the disk of "+kept+" has 0 MiB free") {
		t.Errorf("the disk of backups is full, and fleet status says nothing of it:\n%s", said)
	}
}

// Who interrupts a backup or the trial of one, or asks for one while another command makes it, is told, and nobody is alarmed: on record stands what a backup
// was found to be, and not what somebody typed.
func TestWhatIsOnRecordOfABackupStandsWhereATrialIsInterrupted(t *testing.T) {
	full(t)
	t.Parallel()
	dir := walkable(t)
	kept := filepath.Join(dir, "kept")
	p := planeIn(t, dir, "A3_TENANTS=acme", "A3_UNIX_TENANTS=none", "A3_BACKUP_EVERY=none", "A3_BACKUP_DIR="+kept)
	if err := p.up(t.Context()); err != nil {
		t.Fatal(err)
	}
	made := p.backUp(t, "acme")
	of, db := filepath.Dir(made.Dir), p.superuser(t, "postgres", "registry")
	stands := func(after string) {
		t.Helper()
		if rows := column(t, db, "SELECT concat_ws(' ', name, verified_at IS NOT NULL, failure) FROM registry.backups"); len(rows) != 1 || strings.TrimSpace(rows[0]) != made.Name+" t" {
			t.Errorf("%s, on record is %q", after, rows)
		}
		if text, err := os.ReadFile(filepath.Join(of, ".verified")); err != nil || strings.TrimSpace(string(text)) != made.Name {
			t.Errorf("%s, the newest good backup is %q (%v)", after, text, err)
		}
	}
	stands("a backup was made")
	for _, c := range []struct {
		at   string
		args []string
	}{
		{filepath.Join(p.home, "rehearsals", "of-*"), []string{"backup", "verify", made.Name}},
		{filepath.Join(of, ".unfinished-*"), []string{"backup", "--tenant", "acme"}},
		{filepath.Join(p.home, "rehearsals", "of-*"), []string{"backup", "--tenant", "acme"}},
	} {
		cmd := exec.CommandContext(t.Context(), filepath.Join(programs, "fleet"), c.args...)
		cmd.Env = p.environ
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		if !endWhen(cmd, syscall.SIGINT, ended, c.at) {
			t.Fatalf("fleet %s ended before it could be interrupted", strings.Join(c.args, " "))
		}
		stands("interrupted in " + strings.Join(c.args, " "))
	}
	lock := flock.New(filepath.Join(of, ".lock"))
	if err := lock.Lock(); err != nil {
		t.Fatal(err)
	}
	if s := p.fleet(t, "backup", "--tenant", "acme"); s.code == 0 || !strings.Contains(s.err, "another command works on the backups") {
		t.Errorf("a second command says %s", s)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	stands("a second command was told of the first")
	p.losesKeys(t, made)
}

// missesBackup has the operators' page look where backups are kept, and not only at what was said of them once.
func (p *plane) missesBackup(t *testing.T, made backupMade) {
	t.Helper()
	says := func() bool {
		s := p.fleet(t, "status", "-o", "json")
		if s.code != 0 {
			t.Fatalf("status: %s", s)
		}
		return strings.Contains(s.out, "backup_gone")
	}
	if says() {
		t.Error("a backup that is there is told to be gone")
	}
	aside := made.Dir + ".aside"
	if err := os.Rename(made.Dir, aside); err != nil {
		t.Fatal(err)
	}
	if !says() {
		t.Error("the only backup is gone, and the page of operators says nothing of it")
	}
	if err := os.Rename(aside, made.Dir); err != nil {
		t.Fatal(err)
	}
}

// backUpUnderLoad invites people for as long as the backup takes, and answers those whose invitation was acknowledged before it began.
func (p *plane) backUpUnderLoad(t *testing.T) (before []string, made backupMade) {
	t.Helper()
	invite := func(n int) string {
		address := fmt.Sprintf("load%d@acme.example", n)
		p.a3(t, "acme-admin", "user", "invite", address)
		return address
	}
	const first = 5
	for n := range first {
		before = append(before, invite(n))
	}
	var stop atomic.Bool
	var load sync.WaitGroup
	load.Go(func() {
		for n := first; !stop.Load() && !t.Failed(); n++ {
			if s, err := p.command(t.Context(), "a3", "--profile", "acme-admin", "user", "invite", fmt.Sprintf("load%d@acme.example", n)); err != nil || s.code != 0 {
				t.Errorf("a call fails while a backup is made: %v %s", err, s)
			}
		}
	})
	p.backUp(t, "acme")
	stop.Store(true)
	load.Wait()
	made = p.backUpWithOldEvents(t, func() { before = append(before, invite(-1)) })
	return before, made
}

// backUpWithOldEvents backs acme up while an event of what is done waits for the log, older than that may be once the backup is restored: of a
// tenant at work one does wait, and who restores does it later.
func (p *plane) backUpWithOldEvents(t *testing.T, do func()) backupMade {
	t.Helper()
	db := p.superuser(t, "postgres", p.tenants["acme"].id)
	if _, err := db.Exec(t.Context(), "SELECT pg_advisory_lock(hashtextextended('a3 audit sealer', 0))"); err != nil {
		t.Fatal(err)
	}
	do()
	const old = "ALTER TABLE audit.inbox DISABLE TRIGGER append_only; UPDATE audit.inbox SET recorded_at = recorded_at - interval '1 hour'; " +
		"ALTER TABLE audit.inbox ENABLE ALWAYS TRIGGER append_only; UPDATE audit.progress SET drained_until = drained_until - interval '1 hour'; " +
		"SELECT setval('audit.open_until', extract(epoch FROM now() - interval '59 minutes')::bigint)"
	if _, err := db.Exec(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	made := p.backUp(t, "acme")
	if _, err := db.Exec(t.Context(), "SELECT pg_advisory_unlock_all()"); err != nil {
		t.Fatal(err)
	}
	p.awaitSealed(t)
	return made
}

// awaitSealed returns when no event of acme's waits for the log.
func (p *plane) awaitSealed(t *testing.T) {
	t.Helper()
	db := p.superuser(t, "postgres", p.tenants["acme"].id)
	eventually(t, "what was done is sealed", func() (sealed bool) {
		if err := db.QueryRow(t.Context(), "SELECT NOT EXISTS (SELECT FROM audit.inbox)").Scan(&sealed); err != nil {
			t.Fatal(err)
		}
		return sealed
	})
}

// remembersLog has the client remember the log's newest checkpoint, once what was done is sealed.
func (p *plane) remembersLog(t *testing.T) {
	t.Helper()
	p.awaitSealed(t)
	p.a3(t, "acme-admin", "audit", "verify")
}

func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	const most = 30 * time.Second
	deadline, tick := time.After(most), time.NewTicker(200*time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-deadline:
			t.Fatalf("%s: not within %s", what, most)
		case <-tick.C:
		}
	}
}

// refusesBackups tries what is no backup of acme's, each with --replace, so that nothing but the check stands in the way.
func (p *plane) refusesBackups(t *testing.T, made backupMade) {
	t.Helper()
	other := p.backUp(t, "globex", "--no-verify")
	copyOf := func() string {
		to := filepath.Join(filepath.Dir(p.home), "copy", filepath.Base(made.Dir))
		if err := os.RemoveAll(to); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(to, os.DirFS(made.Dir)); err != nil {
			t.Fatal(err)
		}
		return to
	}
	for name, c := range map[string]struct {
		from func() string
		says string
	}{
		"another tenant's": {func() string { return other.Dir }, "is of globex"},
		"a changed part": {func() string {
			dir := copyOf()
			text, err := os.ReadFile(filepath.Join(dir, "database"))
			if err != nil {
				t.Fatal(err)
			}
			text[len(text)/2] ^= 1
			if err := os.WriteFile(filepath.Join(dir, "database"), text, 0o600); err != nil {
				t.Fatal(err)
			}
			return dir
		}, "changed or damaged"},
		"a part cut short": {func() string {
			dir := copyOf()
			if err := os.Truncate(filepath.Join(dir, "stores"), 100); err != nil {
				t.Fatal(err)
			}
			return dir
		}, "cut short"},
	} {
		s := p.fleet(t, "restore", "--from", c.from(), "--to", "acme", "--reason", "this must not be taken", "--replace")
		if s.code == 0 || !strings.Contains(s.err, "the backup is refused") || !strings.Contains(s.err, c.says) {
			t.Errorf("%s: %s", name, s)
		}
	}
	if s := p.fleet(t, "restore", "--from", made.Name, "--to", "acme", "--reason", "nobody said replace"); s.code == 0 || !strings.Contains(s.err, "--replace") {
		t.Errorf("a set that runs is given up without being asked: %s", s)
	}
	begun, err := registryv1.NewOperationWriteServiceClient(p.operator(t)).BeginOperation(t.Context(),
		&registryv1.BeginOperationRequest{PlanHash: p.plan(t, suspend, "acme", ""), Tenant: p.tenants["acme"].id})
	if err != nil {
		t.Fatal(err)
	}
	operation := begun.GetOperation().GetId()
	if s := p.fleet(t, "restore", "--from", made.Name, "--to", "acme", "--reason", "an operation is under way", "--replace"); s.code == 0 || !strings.Contains(s.err, "fleet operation abort "+operation) {
		t.Errorf("a set is put back under an operation that goes on after it: %s", s)
	}
	p.ok(t, "operation", "abort", operation, "--reason", "the restore comes first")
	if s := p.tryA3(t, "acme-admin", "user", "list"); s.code != 0 {
		t.Errorf("after what was refused the tenant does not serve: %s", s)
	}
}

// killRestore kills a restore with SIGKILL once it has begun to replace.
func (p *plane) killRestore(t *testing.T, made backupMade, slug, id string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(programs, "fleet"), "restore", "--from", made.Name, "--to", slug, "--reason", "this one will be killed", "--replace")
	var out bytes.Buffer
	cmd.Env, cmd.Stdout, cmd.Stderr = p.environ, &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	marker := filepath.Join(p.home, "restoring", id+".json")
	eventually(t, "the restore begins to replace", func() bool {
		_, err := os.Stat(marker)
		return err == nil
	})
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatalf("the restore ended before it could be killed: %v: %s", err, out.String())
	}
	_ = cmd.Wait()
}

// signInAgain lets a tenant's admin in as an operator does.
func (p *plane) signInAgain(t *testing.T, slug string) {
	t.Helper()
	s := p.fleet(t, "tenant", "recover-admin", slug, "--reason", "everybody signs in again after the restore")
	_, code, ok := strings.Cut(strings.TrimSpace(s.err), "--setup-code ")
	if !ok {
		t.Fatalf("recover-admin: %s", s)
	}
	p.a3(t, slug+"-admin", "login", "--url", p.tenants[slug].url, "--ca-cert", filepath.Join(p.home, "web", "ca.pem"), "--dial", p.address(), "--setup-code", strings.Fields(code)[0])
}
