package systemtest

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// Between the export and the destruction of keys there is time: for the customer to say that everything is there, and for the operator to give it
// up, after which the tenant is resumed as if nothing had been. Whoever takes the operation up in that time destroys nothing, and is told until
// when; no other tenant of the plan waits for that; and nobody is told of trouble.
func TestTenantThatLeavesIsThereUntilItHasWaited(t *testing.T) {
	full(t)
	slugs := []string{"hesitant", "undecided"}
	args := []string{"plan", "offboard", "--wait", "720h", "--reason", "they may think again"}
	for _, slug := range slugs {
		shared.apply(t, shared.plan(t, provision, slug, releaseOf(t, programs)))
		args = append(args, "--tenant", slug)
	}
	admin := shared.admitAdmin(t, slugs[0])
	var made struct{ Plan struct{ Hash string } }
	if err := shared.json(t.Context(), &made, args...); err != nil {
		t.Fatal(err)
	}
	if shown := shared.must(t, "plan", "show", made.Plan.Hash); !strings.Contains(shown, "30 days between the export and the destruction of keys") {
		t.Errorf("the plan does not say how long it waits:\n%s", shown)
	}
	begun := time.Now()
	s := shared.fleet(t, "apply", made.Plan.Hash)
	ids := regexp.MustCompile(`opr_[0-9a-z]{26}`).FindAllString(s.out, -1)
	if s.code != 0 || len(ids) != len(slugs) {
		t.Fatalf("the plan carried out as far as it goes: %s", s)
	}
	// The plan itself is long over when the wait is.
	if _, err := shared.superuser(t, "postgres", "registry").Exec(t.Context(), "UPDATE registry.plans SET expires_at = now() - interval '1 day' WHERE hash = $1", made.Plan.Hash); err != nil {
		t.Fatal(err)
	}
	ops := map[string]string{}
	for _, slug := range slugs {
		listed := shared.must(t, "operation", "list", "--tenant", slug, "--unfinished")
		ops[slug] = regexp.MustCompile(`opr_[0-9a-z]{26}`).FindString(listed)
		until := regexp.MustCompile(`at wait, until (\S+)`).FindStringSubmatch(listed)
		if until == nil {
			t.Fatalf("where %s stands: %s", slug, listed)
		}
		if at, err := time.Parse(time.RFC3339, until[1]); err != nil || at.Before(begun.Add(720*time.Hour-time.Second)) {
			t.Errorf("%s waits until %s (%v), begun at %s", slug, at, err, begun)
		}
		for _, again := range []said{s, shared.fleet(t, "operation", "resume", ops[slug]), shared.fleet(t, "apply", made.Plan.Hash)} {
			if again.code != 0 || !strings.Contains(again.err, "keys are not destroyed before "+until[1]) || !strings.Contains(again.err, "fleet operation abort "+ops[slug]) {
				t.Errorf("until when %s waits is not told: %s", slug, again)
			}
		}
		if got := shared.hostAnswers(t, slug); got != http.StatusNotFound {
			t.Errorf("while %s waits its host answers %d", slug, got)
		}
		stands := shared.stands(t, slug)
		if stands.Severity != "notice" || !strings.Contains(fmt.Sprint(stands.Findings), "operation_waits") || !strings.Contains(fmt.Sprint(stands.Findings), until[1]) {
			t.Errorf("while %s waits it stands so: %+v", slug, stands)
		}
		exports, err := filepath.Glob(filepath.Join(shared.home, "operations", "export-"+slug+"-*"))
		if err != nil || len(exports) != 1 {
			t.Fatalf("the export of %s: %v %v", slug, exports, err)
		}
		if err := os.RemoveAll(exports[0]); err != nil {
			t.Fatal(err)
		}
	}

	shared.must(t, "operation", "abort", ops[slugs[0]], "--reason", "they thought again")
	shared.apply(t, shared.plan(t, resume, slugs[0], ""))
	if got := shared.selfAnswers(t, slugs[0], strings.TrimSpace(shared.a3(t, admin, "token"))); got != http.StatusOK {
		t.Errorf("given up and resumed, its admin is answered %d", got)
	}
	shared.apply(t, shared.plan(t, offboard, slugs[0], ""))

	shared.endsWaiting(t, slugs[1])
	if stands := shared.stands(t, slugs[1]); !strings.Contains(fmt.Sprint(stands.Findings), "operation_left") {
		t.Errorf("after its wait it stands so: %+v", stands)
	}
	// The plane may be on another machine by then, and a tenant whose keys are gone has nothing to stay with.
	if s := shared.onAnotherHost(t, "operation", "resume", ops[slugs[1]]); s.code != 0 || !strings.Contains(s.out, "succeeded") {
		t.Errorf("taken up after its wait: %s", s)
	}
}

// onAnotherHost runs fleet where the machine has another name, which only root can give it.
func (p *plane) onAnotherHost(t *testing.T, args ...string) said {
	t.Helper()
	if os.Geteuid() != 0 {
		return p.fleet(t, args...)
	}
	cmd := exec.CommandContext(t.Context(), "unshare", append([]string{"--uts", "--", "sh", "-c", `hostname moved && exec "$0" "$@"`, filepath.Join(programs, "fleet")}, args...)...)
	cmd.Env, cmd.Dir = p.environ, programs
	s, err := finish(cmd)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(s.err, "where this plane was before") {
		t.Errorf("it doesn't notice that the plane came here: %s", s)
	}
	return s
}

// stands is what the page says of a tenant.
func (p *plane) stands(t *testing.T, slug string) row {
	t.Helper()
	var all page
	if err := p.json(t.Context(), &all, "status"); err != nil {
		t.Fatal(err)
	}
	for _, y := range all.Tenants {
		if y.Slug == slug {
			return y
		}
	}
	t.Fatalf("the page has no tenant %s", slug)
	return row{}
}
