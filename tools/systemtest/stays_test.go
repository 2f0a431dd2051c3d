package systemtest

import (
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"
)

// A suspension and an offboarding go on by the word of somebody who names them, and nothing else destroys anything: neither `plane up` nor `tenant
// create`, for which there are a dozen reasons, whatever time is over. That holds as well where the registry comes back from a backup in which a
// customer leaves who stayed, and for one who leaves by what it does not know.
func TestNobodyIsDestroyedByTheWay(t *testing.T) {
	full(t)
	t.Parallel()
	const stays, leaves = "stays", "leaves"
	p := planeIn(t, walkable(t), "A3_TENANTS="+stays+","+leaves, "A3_UNIX_TENANTS=none", "A3_BACKUP_EVERY=none")
	if err := p.up(t.Context()); err != nil {
		t.Fatal(err)
	}
	left := p.waiting(t, stays)
	backup := p.backUp(t, "plane")
	p.endsWaiting(t, stays)
	untouched := func(what string, do func() said, slug, op string, want ...string) {
		t.Helper()
		were := p.pids(t)
		s := do()
		says(t, what, s.err, append(want, op)...)
		if now := p.pids(t); !maps.Equal(now, were) {
			t.Errorf("%s touched something: of %v there is %v", what, were, now)
		}
		if s := p.ok(t, "operation", "list", "--tenant", slug, "--unfinished"); !strings.Contains(s, op) {
			t.Errorf("%s took the operation up: %s", what, s)
		}
	}
	asIs := func(slug, op string, args ...string) {
		t.Helper()
		untouched("fleet "+strings.Join(args, " "), func() said {
			s := p.fleet(t, args...)
			if s.code != 0 {
				t.Errorf("%v fails because somebody leaves: %s", args, s)
			}
			return s
		}, slug, op, "is left as it stands", "fleet operation resume "+op, "fleet operation abort "+op)
	}
	p.ok(t, "plane", "down")
	if s := p.fleet(t, "plane", "up"); s.code != 0 || !strings.Contains(s.err, "fleet operation resume "+left) {
		t.Errorf("brought up while one of its tenants leaves: %s", s)
	}
	for unit := range p.pids(t) {
		if strings.HasPrefix(unit, p.tenants[stays].id+"/") {
			t.Errorf("of who leaves %s was started", unit)
		}
	}
	asIs(stays, left, "plane", "up")
	asIs(stays, left, "tenant", "create", stays)

	p.ok(t, "operation", "abort", left, "--reason", "they thought again")
	p.apply(t, p.plan(t, resume, stays, ""))
	p.waiting(t, leaves)

	if _, err := p.superuser(t, "postgres", "postgres").Exec(t.Context(), "DROP DATABASE registry WITH (FORCE)"); err != nil {
		t.Fatal(err)
	}
	s := p.fleet(t, "restore", "--from", backup.Name, "--to", "plane", "--reason", "Case 4713: its database was dropped")
	if s.code != 0 {
		t.Fatalf("restore: %s", s)
	}
	says(t, "the restore", s.err, "offboard of "+stays, "fleet operation abort "+left, leaves+" was suspended here")
	p.endsWaiting(t, stays)
	untouched("plane up over a registry of before", func() said { return p.fleet(t, "plane", "up") }, stays, left, "fleet operation abort "+left, leaves+" was suspended here")
	proof := p.fleet(t, "isolation", "verify", "--out", t.TempDir())
	if !strings.Contains(proof.out, leaves+" was not tried") || strings.Contains(proof.out, stays+" was not tried") {
		t.Errorf("of one who is served, one who isn't, and a registry that has both otherwise the proof says %s", proof)
	}
	untouched("an offboarding of who is served", func() said { return p.fleet(t, "operation", "resume", left) }, stays, left, "its set runs", "fleet operation abort "+left)
	p.ok(t, "operation", "abort", left, "--reason", "they had stayed, before the registry was lost")
	p.apply(t, p.plan(t, resume, stays, ""))
	p.serves200(t, stays)

	res, err := registryv1.NewOperationWriteServiceClient(p.operator(t)).BeginOperation(t.Context(),
		&registryv1.BeginOperationRequest{PlanHash: p.plan(t, suspend, stays, ""), Tenant: p.tenants[stays].id})
	if err != nil {
		t.Fatal(err)
	}
	begun := res.GetOperation().GetId()
	untouched("plane up while one is being suspended", func() said { return p.fleet(t, "plane", "up") }, stays, begun, "suspend of "+stays)
	p.ok(t, "operation", "resume", begun)
	if got := p.hostAnswers(t, stays); got != http.StatusNotFound {
		t.Errorf("suspended by name its host answers %d", got)
	}
}

// waiting has a tenant leave, up to where its operation waits, and answers that.
func (p *plane) waiting(t *testing.T, slug string) (operation string) {
	t.Helper()
	var made struct{ Plan struct{ Hash string } }
	if err := p.json(t.Context(), &made, "plan", "offboard", "--tenant", slug, "--wait", "720h", "--reason", "they may think again"); err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile(`opr_[0-9a-z]{26}`).FindString(p.ok(t, "apply", made.Plan.Hash))
}

// endsWaiting has the time be over for which a tenant's operation waits.
func (p *plane) endsWaiting(t *testing.T, slug string) {
	t.Helper()
	if _, err := p.superuser(t, "postgres", "registry").Exec(t.Context(), `UPDATE registry.operation_steps s SET ended_at = s.ended_at - interval '720 hours'
		FROM registry.tenants t JOIN registry.operations o ON o.tenant_id = t.id WHERE t.slug = $1 AND o.id = s.operation_id AND s.name = 'export'`, slug); err != nil {
		t.Fatal(err)
	}
}

// serves200 returns when a tenant's host answers 200.
func (p *plane) serves200(t *testing.T, slug string) {
	t.Helper()
	within(t, time.Minute, func() error {
		if got := p.hostAnswers(t, slug); got != http.StatusOK {
			return fmt.Errorf("the host of %s answers %d", slug, got)
		}
		return nil
	})
}
