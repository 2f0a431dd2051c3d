package systemtest

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"
	"a3os.app/proto/gen/go/a3os/iam/v1/iamv1connect"
	"a3os.app/tools/internal/profile"
)

// signsOut ends the person's session (RFC 7009), and answers the profile that it was kept in.
func (p *person) signsOut(t *testing.T) *profile.Profile {
	t.Helper()
	kept, err := p.session.Profile()
	if err != nil {
		t.Fatal(err)
	}
	res, err := acme().client(t).PostForm(acme().url+"/oauth2/revoke", url.Values{"token": {kept.RefreshToken}})
	if err != nil {
		t.Fatal(err)
	}
	if err := res.Body.Close(); err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("signing out: %s (%v)", res.Status, err)
	}
	return kept
}

// A person who signed out, or whose session was ended, comes back with a code of their admin's, and finds all they had.
func TestPersonWhoSignedOutComesBack(t *testing.T) {
	full(t)
	t.Parallel()
	person := acme().invite(t)
	p := person.signsOut(t)
	if _, err := person.anew(t, ""); err == nil {
		t.Fatal("the session goes on")
	}
	s := shared.tryA3(t, "acme-admin", "-o", "json", "user", "reinvite", person.email, "--reason", "signed out by mistake, checked by phone")
	var answer struct{ SetupCode string }
	if err := json.Unmarshal([]byte(s.out), &answer); err != nil || answer.SetupCode == "" {
		t.Fatalf("reinvite: %s", s)
	}
	shared.a3(t, name("back"), "login", "--url", acme().url, "--ca-cert", shared.store().Path(p.CACert), "--dial", shared.address(), "--setup-code", answer.SetupCode)
	if s := shared.tryA3(t, name("thief"), "login", "--url", acme().url, "--ca-cert", shared.store().Path(p.CACert), "--dial", shared.address(), "--setup-code", answer.SetupCode); s.code != 3 {
		t.Errorf("the code works twice: %s", s)
	}
	if events := shared.recorded(t, "acme-admin", "iam.setup_code.reissued", person.id, "checked by phone"); strings.Contains(events, answer.SetupCode) {
		t.Errorf("the code is on the record: %s", events)
	}
	if s := shared.tryA3(t, "acme-member", "user", "reinvite", person.email, "--reason", "I am no admin of anything"); s.code == 0 {
		t.Error("somebody who is no admin lets people in")
	}

}

// The operator's way back is for a tenant whose last admin has no session, and never works without being on the tenant's own record.
func TestOperatorLetsTheLastAdminInOnTheRecord(t *testing.T) {
	full(t)
	t.Parallel()
	x := borrow(t)
	admin := x.plane.as(t, x, "spare-admin")
	token := admin.token(t, "")
	x.accepts(t, token)
	reason := "case " + name("no") + ": her laptop was stolen"
	s, err := shared.command(t.Context(), "fleet", "tenant", "recover-admin", "spare", "--reason", reason)
	if err != nil || s.code != 0 {
		t.Fatalf("recover-admin: %v %s", err, s)
	}
	login := printedLogin(t, s)
	db := x.database(t, "iam_tenant")
	if n := count(t, db, "SELECT count(*) FROM iam.setup_codes WHERE user_id = '"+uuidOf(t, admin.id)+"'"); n != 1 {
		t.Errorf("%d codes wait for the admin", n)
	}
	x.refusesWithin(t, token, endsWithin)
	if _, err := admin.anew(t, ""); err == nil {
		t.Error("the session that was stolen goes on")
	}
	if s := shell(t, login); s.code != 0 {
		t.Fatalf("%s: %s", login, s)
	}
	shared.recorded(t, "spare-admin", "iam.admin.recovered", reason, "workload:operator", admin.id)
	// With another admin at work the tenant helps itself.
	other := x.person(t, iamv1.TenantRole_TENANT_ROLE_ADMIN)
	for address, want := range map[string]string{admin.email: other.email, "nobody@example.com": "no user"} {
		s, err := shared.command(t.Context(), "fleet", "tenant", "recover-admin", "spare", "--admin", address, "--reason", reason)
		if err != nil || s.code != 1 || !strings.Contains(s.err, want) {
			t.Errorf("%s: %v %s", address, err, s)
		}
	}
	shared.recorded(t, "spare-admin", "iam.admin.recovered", "OUTCOME_DENIED", "nobody@example.com")
	ask(t, client(x.plane.as(t, x, "spare-admin"), "", iamv1connect.NewUserWriteServiceClient).DeactivateUser, &iamv1.DeactivateUserRequest{UserId: other.id, Reason: "was here to be in the way"})
}

// Fleet is killed at each point of the step in which a tenant's first admin gets in: while it asks, when the code is spent and the
// session not kept, and right after it was kept.
func TestFirstAdminIsNotLostWhereverFleetIsKilled(t *testing.T) {
	full(t)
	slug := "killed"
	x, _ := create(t, slug)
	db := x.database(t, "iam_tenant")
	profileFile := filepath.Join(shared.store().Dir, slug+"-admin.json")
	for _, point := range []struct {
		name string
		kill func(up *exec.Cmd)
	}{
		{"asked, and not answered", func(up *exec.Cmd) {
			letGo := lockRights(t, x)
			waits(t, db)
			signal(t, up, syscall.SIGKILL)
			letGo()
		}},
		{"the code spent, and the session not kept", func(up *exec.Cmd) {
			letGo := lockRights(t, x)
			waits(t, db)
			signal(t, up, syscall.SIGSTOP)
			letGo()
			within(t, backWithin, func() error {
				if count(t, db, "SELECT count(*) FROM iam.sessions WHERE ended_at IS NULL") == 0 {
					return errors.New("nobody is in")
				}
				return nil
			})
			signal(t, up, syscall.SIGKILL)
		}},
		{"the session kept", func(up *exec.Cmd) {
			within(t, backWithin, func() error {
				_, err := shared.store().Load(slug + "-admin")
				return err
			})
			signal(t, up, syscall.SIGKILL)
		}},
	} {
		up := exec.CommandContext(t.Context(), filepath.Join(programs, "fleet"), "plane", "up")
		up.Env, up.Dir = append(shared.environ[:len(shared.environ):len(shared.environ)], "A3_TENANTS=acme,globex,"+slug), filepath.Dir(programs)
		if err := up.Start(); err != nil {
			t.Fatal(err)
		}
		point.kill(up)
		if err := up.Wait(); err == nil {
			t.Fatalf("%s: fleet had ended before it was killed", point.name)
		}
		t.Logf("killed with %s; the profile is there: %v", point.name, exists(profileFile))
	}
	again := *shared
	again.environ = append(shared.environ[:len(shared.environ):len(shared.environ)], "A3_TENANTS=acme,globex,"+slug)
	if s, err := again.command(t.Context(), "fleet", "plane", "up"); err != nil || s.code != 0 {
		t.Fatalf("after all of that: %v %s", err, s)
	}
	if who := shared.a3(t, slug+"-admin", "whoami"); !strings.Contains(who, "admin@"+slug+".example") {
		t.Errorf("the first admin is %s", who)
	}
	if users := count(t, db, "SELECT count(*) FROM iam.users WHERE tenant_role = 'admin'"); users != 1 {
		t.Errorf("the tenant has %d admins", users)
	}
	shared.recorded(t, slug+"-admin", "iam.admin.recovered", "workload:operator")
}

// lockRights keeps iam from letting anybody in, until letGo.
func lockRights(t *testing.T, x *tenant) (letGo func()) {
	t.Helper()
	tx, err := x.database(t, "iam_tenant").Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "SELECT sequence FROM iam.revocation_head FOR UPDATE"); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := tx.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// waits returns when somebody waits for a lock in the database.
func waits(t *testing.T, db *pgx.Conn) {
	t.Helper()
	within(t, time.Minute, func() error {
		if count(t, db, "SELECT count(*) FROM pg_locks WHERE NOT granted") == 0 {
			return errors.New("nobody asks to be let in")
		}
		return nil
	})
}

func signal(t *testing.T, cmd *exec.Cmd, s syscall.Signal) {
	t.Helper()
	if err := cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}
