package systemtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"
	"a3os.app/proto/gen/go/a3os/iam/v1/iamv1connect"
	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"
)

// The registry's database is dropped, and comes back from a backup while the tenant is served; those that came after the backup are adopted, of which one is stopped; the machine is lost, and all of the plane
// comes back from the backups and the recovery key. A backup that is killed, wherever, leaves nothing that looks like one.
func TestPlaneThatIsLostIsBroughtBack(t *testing.T) {
	full(t)
	t.Parallel()
	dir := walkable(t)
	backups := filepath.Join(dir, "elsewhere")
	p := planeIn(t, dir, "A3_TENANTS=acme", "A3_UNIX_TENANTS=none", "A3_BACKUP_EVERY=none", "A3_BACKUP_DIR="+backups)
	if err := p.up(t.Context()); err != nil {
		t.Fatal(err)
	}
	recovery := filepath.Join(dir, "recovery.json")
	p.ok(t, "backup", "recovery-key", recovery)
	if s := p.fleet(t, "backup", "recovery-key", recovery); s.code == 0 || strings.Contains(s.err, "sealed to the new one") {
		t.Errorf("another recovery key in the place of one that is there: %s", s)
	}
	p.a3(t, "acme-admin", "user", "invite", "before@acme.example")
	p.killBackups(t, filepath.Join(backups, p.tenants["acme"].id))
	var made []backupMade
	if err := json.Unmarshal([]byte(p.ok(t, "-o", "json", "backup", "--all")), &made); err != nil {
		t.Fatal(err)
	}
	last := map[string]string{}
	for _, m := range made {
		if last[m.Slug] = m.Name; m.Verified == "" {
			t.Errorf("%s was backed up and not tried out", m.Slug)
		}
	}
	p.losesItsRegistry(t, last["plane"])
	p.losesItsMachine(t, last, recovery)
}

// ok runs fleet and answers what it said; the test fails where that is refused.
func (p *plane) ok(t *testing.T, args ...string) string {
	t.Helper()
	s := p.fleet(t, args...)
	if s.code != 0 {
		t.Fatalf("fleet %s: %s", strings.Join(args, " "), s)
	}
	return s.out
}

// killBackups kills a backup with SIGKILL at each thing that it lays down, and while it is tried out.
func (p *plane) killBackups(t *testing.T, of string) {
	t.Helper()
	rehearsals := filepath.Join(p.home, "rehearsals", "of-*")
	for _, at := range []string{".unfinished-*", ".unfinished-*/files", ".unfinished-*/stores", ".unfinished-*/database", ".unfinished-*/manifest.json", "rehearsal"} {
		pattern := filepath.Join(of, at)
		if at == "rehearsal" {
			pattern = rehearsals
		}
		before := p.backupsOf(t)
		cmd := exec.CommandContext(t.Context(), filepath.Join(programs, "fleet"), "backup", "--tenant", "acme")
		var out bytes.Buffer
		cmd.Env, cmd.Stdout, cmd.Stderr = p.environ, &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		killed := killWhen(cmd, ended, pattern)
		// One that was over before it was seen is a whole one; the first of these points is never missed.
		if after := p.backupsOf(t); len(after)-len(before) > 1 || killed && at != "rehearsal" && at != ".unfinished-*/manifest.json" && len(after) != len(before) {
			t.Errorf("killed at %s: there were %v and are %v", at, before, after)
		}
		if !killed && at == ".unfinished-*" {
			t.Errorf("the backup ended before it could be killed: %s", out.String())
		}
		t.Logf("%s: killed %v", at, killed)
	}
	made := p.backUp(t, "acme")
	if made.Verified == "" {
		t.Errorf("after backups that were killed: %+v", made)
	}
	for _, pattern := range []string{filepath.Join(of, ".unfinished-*"), rehearsals} {
		if left, err := filepath.Glob(pattern); err != nil || len(left) > 0 {
			t.Errorf("what killed backups left is there after the next one: %v %v", left, err)
		}
	}
	for _, name := range p.backupsOf(t) {
		p.ok(t, "backup", "verify", name)
	}
}

// killWhen kills a command when something is there; false where it ended before.
func killWhen(cmd *exec.Cmd, ended <-chan error, pattern string) bool {
	return endWhen(cmd, syscall.SIGKILL, ended, pattern)
}

// endWhen sends a command a signal when something is there; false where it came to its end before.
func endWhen(cmd *exec.Cmd, with syscall.Signal, ended <-chan error, pattern string) bool {
	for {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			if cmd.Process.Signal(with) != nil {
				return false
			}
			err := <-ended
			exit, ok := errors.AsType[*exec.ExitError](err)
			return ok && (with != syscall.SIGKILL || exit.Sys().(syscall.WaitStatus).Signaled())
		}
		select {
		case <-ended:
			return false
		case <-time.After(time.Millisecond):
		}
	}
}

// backupsOf are the names of acme's backups.
func (p *plane) backupsOf(t *testing.T) []string {
	t.Helper()
	var all []backupMade
	if err := json.Unmarshal([]byte(p.ok(t, "-o", "json", "backup", "list", "--tenant", "acme")), &all); err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, b := range all {
		out = append(out, b.Name)
	}
	return out
}

// losesItsRegistry drops the registry's database and brings it back. Nobody's request fails for it.
func (p *plane) losesItsRegistry(t *testing.T, backup string) {
	t.Helper()
	x := p.tenants["acme"]
	if s := p.fleet(t, "restore", "--from", backup, "--to", "plane", "--reason", "nobody said that it may be replaced"); s.code == 0 || !strings.Contains(s.err, "--replace") {
		t.Errorf("a registry that is there is given up without being asked: %s", s)
	}
	p.ok(t, "tenant", "label", "acme", "ring=early")
	late, asleep := p.comesAfterTheBackup(t, "late"), p.comesAfterTheBackup(t, "asleep")
	p.apply(t, p.plan(t, suspend, asleep.slug, ""))
	if _, err := p.superuser(t, "postgres", "postgres").Exec(t.Context(), "DROP DATABASE registry WITH (FORCE)"); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var load sync.WaitGroup
	calls, self := 0, client(x.admin(t), "", iamv1connect.NewIdentityServiceClient)
	load.Go(func() {
		for ctx.Err() == nil {
			if _, err := try(t, self.GetSelf, &iamv1.GetSelfRequest{}); err != nil && ctx.Err() == nil {
				t.Errorf("call %d, while the registry is away: %v", calls, err)
				return
			}
			calls++
		}
	})
	if s := p.fleet(t, "status"); s.code == 0 {
		t.Errorf("the registry has no database, and status says %s", s)
	}
	if s := p.fleet(t, "restore", "--from", backup, "--to", "plane", "--reason", "Case 4711: its database was dropped"); s.code != 0 || !strings.Contains(s.out+s.err, "fleet tenant adopt late") {
		t.Fatalf("restore, and what comes next: %s", s)
	}
	stop()
	load.Wait()
	p.adopts(t, late)
	p.adopts(t, asleep)
	p.ownServerOutlives(t, late)
	const some = 50
	if calls < some {
		t.Errorf("only %d calls were made meanwhile", calls)
	}
	if s := p.ok(t, "-o", "json", "tenant", "show", "acme"); strings.Contains(s, "early") {
		t.Errorf("what was changed after the backup is there: %s", s)
	}
	db := p.superuser(t, "postgres", "registry")
	if said := column(t, db, "SELECT actor || ' ' || detail FROM registry.operations_log WHERE action = 'registry.restored'"); len(said) != 1 ||
		!strings.Contains(said[0], "Case 4711: its database was dropped") || !strings.Contains(said[0], "operator") {
		t.Errorf("on the registry's record is %q", said)
	}
	// The gateway takes what the restored registry publishes, though it held a later one.
	writes := registryv1.NewTenantWriteServiceClient(p.operator(t))
	for _, c := range []struct {
		state registryv1.TenantState
		works bool
	}{{registryv1.TenantState_TENANT_STATE_SUSPENDED, false}, {registryv1.TenantState_TENANT_STATE_ACTIVE, true}} {
		if _, err := writes.SetTenantState(t.Context(), &registryv1.SetTenantStateRequest{TenantId: x.id, State: c.state}); err != nil {
			t.Fatal(err)
		}
		within(t, time.Minute, func() error {
			if _, err := try(t, self.GetSelf, &iamv1.GetSelfRequest{}); (err == nil) != c.works {
				return fmt.Errorf("%s: the tenant's host answers %w", c.state, err)
			}
			return nil
		})
	}
}

// losesItsMachine removes the plane with all that it has but its backups, and brings it back as one does on another machine.
func (p *plane) losesItsMachine(t *testing.T, last map[string]string, recovery string) {
	t.Helper()
	p.ok(t, "plane", "down", "--remove-data")
	if said := p.ok(t, "plane", "down"); !strings.Contains(said, "there is no plane in "+p.home) {
		t.Errorf("where there is no plane, plane down says %s", said)
	}
	// As somebody left them there by a command of a release before, which made them where there is no plane.
	for _, stray := range []string{"pki/issuing.pem", "web/key.pem", "plane/components/gateway/certificate/workload.pem"} {
		file := filepath.Join(p.home, stray)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o711), os.WriteFile(file, []byte("another's"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	plane := []string{"restore", "--from", last["plane"], "--to", "plane", "--reason", "Case 4712: the machine burnt down"}
	if s := p.fleet(t, plane...); s.code == 0 || !strings.Contains(s.err, "--recovery-key") {
		t.Errorf("without the recovery key: %s", s)
	}
	tenant := []string{"restore", "--from", last["acme"], "--to", "acme", "--reason", "Case 4712: the machine burnt down", "--recovery-key", recovery}
	if s := p.fleet(t, tenant...); s.code == 0 {
		t.Errorf("a tenant before its plane: %s", s)
	}
	t.Log(p.ok(t, slices.Concat(plane, []string{"--recovery-key", recovery})...))
	if s := p.fleet(t, "plane", "up"); s.code == 0 || !strings.Contains(s.err, "fleet restore --from "+last["acme"]+" --to acme") {
		t.Errorf("a plane comes up with a tenant made anew in the place of the one that was lost: %s", s)
	}
	t.Log(p.ok(t, tenant...))
	if s := p.fleet(t, "plane", "up"); s.code != 0 || !strings.Contains(s.out+s.err, "fleet tenant recover-admin acme") {
		t.Errorf("the plane comes up before anybody signed in again: %s", s)
	}
	p.signInAgain(t, "acme")
	p.ok(t, "plane", "up")
	if users := p.a3(t, "acme-admin", "-o", "json", "user", "list"); !strings.Contains(users, "before@acme.example") {
		t.Errorf("who was invited before the backup isn't there: %s", users)
	}
	p.a3(t, "acme-admin", "audit", "verify")
	if made := p.backUp(t, "acme"); made.Verified == "" {
		t.Errorf("a backup of what was brought back: %+v", made)
	}
}
