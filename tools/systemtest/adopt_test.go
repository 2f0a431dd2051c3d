package systemtest

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"
)

// comesAfterTheBackup makes a tenant that a registry which is restored from a backup before it does not know.
func (p *plane) comesAfterTheBackup(t *testing.T, slug string) *tenant {
	t.Helper()
	p.ok(t, "tenant", "create", slug, "--tier", "dedicated")
	return &tenant{slug: slug, id: p.idOf(t, slug)}
}

// adopts makes that tenant known again: nobody takes its place meanwhile, none of its processes is touched, it is on record who did it and
// why, and it is served once it was resumed, under the id that it had. One that the registry knows is not adopted, nor one of nobody's.
func (p *plane) adopts(t *testing.T, x *tenant) {
	t.Helper()
	const reason = "Case 4711: it came after the backup"
	if s := p.fleet(t, "tenant", "create", x.slug); s.code == 0 || !strings.Contains(s.err, "fleet tenant adopt "+x.slug) {
		t.Errorf("another tenant was made in the place of one whose set is here: %s", s)
	}
	for _, name := range []string{"acme", "nobody"} {
		if s := p.fleet(t, "tenant", "adopt", name, "--reason", reason); s.code == 0 {
			t.Errorf("%s was adopted: %s", name, s)
		}
	}
	before := p.pids(t)
	t.Log(p.ok(t, "tenant", "adopt", x.slug, "--reason", reason))
	for unit, pid := range p.pids(t) {
		if strings.HasPrefix(unit, x.id+"/") && pid != before[unit] {
			t.Errorf("%s was restarted when its tenant was adopted", unit)
		}
	}
	if id := p.idOf(t, x.slug); id != x.id {
		t.Errorf("the tenant that was %s is %s", x.id, id)
	}
	// The gateway held a later snapshot than the restored registry's until this one.
	within(t, time.Minute, func() error {
		if got := p.hostAnswers(t, x.slug); got != http.StatusNotFound {
			return fmt.Errorf("before it is resumed its host answers %d", got)
		}
		return nil
	})
	db := p.superuser(t, "postgres", "registry")
	if said := column(t, db, "SELECT actor || ' ' || target || ' ' || detail FROM registry.operations_log WHERE action = 'registry.tenant.adopted' AND starts_with(target, $1)", x.id); len(said) != 1 ||
		!strings.Contains(said[0], reason) || !strings.Contains(said[0], "operator "+x.id) {
		t.Errorf("on the registry's record is %q", said)
	}
	p.apply(t, p.plan(t, registryv1.OperationKind_OPERATION_KIND_RESUME, x.slug, ""))
	if got := p.hostAnswers(t, x.slug); got != http.StatusOK {
		t.Errorf("adopted and resumed its host answers %d", got)
	}
	if made := p.backUp(t, x.slug); made.Verified == "" || filepath.Base(filepath.Dir(made.Dir)) != x.id {
		t.Errorf("a backup of it: %+v", made)
	}
}
