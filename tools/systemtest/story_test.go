package systemtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"a3os.app/libs/pgserver"
	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"
)

// The tenants of the story, by the ring that each is in.
var (
	storyEarly   = []string{"initech", "hooli", "umbrella"}
	storyGeneral = []string{"globex", "stark", "wayne", "wonka", "tyrell", "soylent", "cyberdyne", "vandelay"}
)

// A fleet of twelve tenants, as an operator lives through it: they are made by plan and apply; a bad release halts at its canary and
// goes back (row F32); a good one goes through three waves, with a pause in the middle and fleet killed twice; one tenant is suspended
// and resumed, one leaves; and the registry is away for the whole of a load and of restarts (row F17).
func TestStoryOfAFleet(t *testing.T) {
	long(t)
	t.Parallel()
	r := newRolling(t, "acme")
	began := time.Now()
	chapter := func(what string, tell func()) {
		if t.Failed() {
			t.FailNow()
		}
		tell()
		t.Logf("%6.1f s: %s", time.Since(began).Seconds(), what)
	}
	chapter("twelve tenants", r.storyTenants)
	chapter("a bad release", r.storyBadRelease)
	chapter("a good release", r.storyGoodRelease)
	chapter("one is suspended and resumed", r.storySuspended)
	chapter("one leaves", r.storyLeaves)
	chapter("without the registry", r.storyWithoutRegistry)
}

func (r *rolling) storyTenants() {
	r.t.Helper()
	r.must("tenant", "label", "acme", "ring=canary")
	for ring, slugs := range map[string][]string{"early": storyEarly, "general": storyGeneral} {
		args := []string{"plan", "provision", "--set-label", "ring=" + ring, "--reason", "the story needs twelve tenants"}
		for _, slug := range slugs {
			args = append(args, "--tenant", slug)
		}
		var made struct{ Plan struct{ Hash string } }
		if err := r.json(r.t.Context(), &made, args...); err != nil {
			r.t.Fatal(err)
		}
		r.must("apply", made.Plan.Hash, "--max-parallel", "2")
	}
	if err := r.learn(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	if len(r.tenants) != 1+len(storyEarly)+len(storyGeneral) {
		r.t.Fatalf("there are %d tenants", len(r.tenants))
	}
}

// storyPlan is a rollout to all three rings.
func (r *rolling) storyPlan(version string) string {
	r.t.Helper()
	return r.rollout(version, "--label", "ring=canary", "--label", "ring=early", "--label", "ring=general",
		"--max-parallel", "4", "--bake", "1s", "--samples", "5", "--p99-factor", "0")
}

func (r *rolling) storyBadRelease() {
	r.t.Helper()
	first := r.runs("acme")
	r.register("1.1.0", broken)
	untouched := r.pids(r.t)
	maps.DeleteFunc(untouched, func(name string, _ int) bool { return strings.HasPrefix(name, r.tenants["acme"].id) })
	s := r.fleet("apply", r.storyPlan("1.1.0"))
	if s.code == 0 {
		r.t.Fatalf("a bad release went through: %s", s)
	}
	halted := r.newest()
	if halted.GetState() != registryv1.RolloutState_ROLLOUT_STATE_HALTED || !strings.HasPrefix(halted.GetDetail(), "acme: ") {
		r.t.Fatalf("the rollout is %s: %s\n%s", halted.GetState(), halted.GetDetail(), s)
	}
	for _, x := range halted.GetTenants() {
		want := registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_PENDING
		if x.GetSlug() == "acme" {
			want = registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_ROLLED_BACK
		}
		if x.GetState() != want {
			r.t.Errorf("%s is %s, want %s", x.GetSlug(), x.GetState(), want)
		}
		if is := r.runs(x.GetSlug()); is != first {
			r.t.Errorf("%s is at %s, it was at %s", x.GetSlug(), is, first)
		}
	}
	now := r.pids(r.t)
	for name, pid := range untouched {
		if now[name] != pid {
			r.t.Errorf("%s was touched: its process was %d and is %d", name, pid, now[name])
		}
	}
	r.answers("acme")
	r.must("rollout", "abort", halted.GetId(), "--reason", "the release is bad")
	r.t.Attr("row", fmt.Sprintf("F32 %d", len(halted.GetTenants())))
}

func (r *rolling) storyGoodRelease() {
	r.t.Helper()
	good := r.register("1.2.0", otherDigest)
	s := r.fleet("release", "register", "--version", "1.2.0", "--artefact", "accessos="+filepath.Join(r.dir, "accessos-1.1.0"))
	if s.code == 0 || !strings.Contains(s.err, "give the new one a version of its own") {
		r.t.Errorf("the version of another release: %s", s)
	}
	hash := r.storyPlan("1.2.0")
	const canary, early, general = 0, 1, 2
	c := r.carry(hash)
	r.under(canary)
	c.killed(r.t)

	c = r.carry(hash)
	id := r.under(early).GetId()
	r.must("rollout", "pause", id, "--reason", "the customer asks to wait")
	var paused *registryv1.Rollout
	within(r.t, time.Minute, func() error {
		paused = r.newest()
		for _, x := range paused.GetTenants() {
			if x.GetState() == registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_CHANGING || x.GetState() == registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_BAKING {
				return fmt.Errorf("%s is still %s", x.GetSlug(), x.GetState())
			}
		}
		return nil
	})
	pending := 0
	for _, x := range paused.GetTenants() {
		if x.GetState() == registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_PENDING {
			pending++
		}
	}
	if paused.GetState() != registryv1.RolloutState_ROLLOUT_STATE_PAUSED || pending < len(storyGeneral) {
		r.t.Errorf("paused it is %s, and %d tenants are not begun", paused.GetState(), pending)
	}
	if page := r.must("rollout", "status", id); !strings.Contains(page, "paused") || !strings.Contains(page, "the customer asks to wait") {
		r.t.Errorf("who looks at it doesn't learn why it stands still:\n%s", page)
	}
	r.must("rollout", "resume", id, "--reason", "the customer is ready")
	r.under(general)
	c.killed(r.t)
	r.must("apply", hash)

	done := r.newest()
	if done.GetState() != registryv1.RolloutState_ROLLOUT_STATE_SUCCEEDED || done.GetId() != id {
		r.t.Fatalf("the good one is %s: %s", done.GetState(), done.GetDetail())
	}
	for _, x := range done.GetTenants() {
		if x.GetState() != registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_PASSED || x.GetSamples() < 5 || x.GetAttempts() != 1 {
			r.t.Errorf("%s: %v", x.GetSlug(), x)
		}
		if is := r.runs(x.GetSlug()); is != good {
			r.t.Errorf("%s runs %s, want %s", x.GetSlug(), is, good)
		}
	}
	r.answers("acme")
}

// does plans and carries out a change of one tenant.
func (r *rolling) does(kind registryv1.OperationKind, slug string) {
	r.t.Helper()
	r.apply(r.t, r.plan(r.t, kind, slug, ""))
}

// front is what the gateway answers at a host to who only asks.
func (r *rolling) front(slug string) answer {
	r.t.Helper()
	c := caller{http: r.tenants["acme"].client(r.t), base: fmt.Sprintf("https://%s.%s:%d", slug, r.domain, r.port), header: http.Header{}}
	a, err := c.get(r.t, "/.well-known/openid-configuration")
	if err != nil {
		r.t.Fatal(err)
	}
	a.header.Del("Date")
	return a
}

// isUnknown sees that a host is answered as one that nobody ever had.
func (r *rolling) isUnknown(slug string) {
	r.t.Helper()
	is, want := r.front(slug), r.front("nobody-ever")
	if want.status != http.StatusNotFound || is.status != want.status || is.body != want.body || fmt.Sprint(is.header) != fmt.Sprint(want.header) {
		r.t.Errorf("%s is answered %d %v %q, and a host that there isn't %d %v %q", slug, is.status, is.header, is.body, want.status, want.header, want.body)
	}
}

func (r *rolling) storySuspended() {
	r.t.Helper()
	const slug = "globex"
	r.does(suspend, slug)
	r.isUnknown(slug)
	if now := r.processesOf(slug); len(now) > 0 {
		r.t.Errorf("suspended it still runs %v", now)
	}
	r.does(resume, slug)
	if a := r.front(slug); a.status != http.StatusOK {
		r.t.Errorf("resumed it is answered %s", a)
	}
}

func (r *rolling) storyLeaves() {
	r.t.Helper()
	const slug = "soylent"
	id := r.tenants[slug].id
	r.does(offboard, slug)
	r.isUnknown(slug)
	for _, line := range r.running() {
		if strings.Contains(line, id) {
			r.t.Errorf("a process of it is left: %s", line)
		}
	}
	admin := r.superuser(r.t, "postgres", "postgres")
	for what, sql := range map[string]string{"roles": "SELECT count(*) FROM pg_roles WHERE starts_with(rolname, $1)", "databases": "SELECT count(*) FROM pg_database WHERE starts_with(datname, $1)"} {
		var n int
		if err := admin.QueryRow(r.t.Context(), sql, id).Scan(&n); err != nil || n != 0 {
			r.t.Errorf("%d %s of it are left: %v", n, what, err)
		}
	}
	delete(r.tenants, slug)
	told := r.must("operation", "list", "--tenant", slug)
	told = r.must("operation", "show", regexp.MustCompile(`opr_[0-9a-z]{26}`).FindString(told))
	for _, place := range []string{"the registry keeps its id", "history of who did what when", "the gateway", "catalogue", "logs", "write-ahead log"} {
		if !strings.Contains(told, place) {
			r.t.Errorf("that its id stays in the %s is not said: %s", place, told)
		}
	}
	for _, path := range r.mentions(id) {
		r.t.Errorf("it is found in %s", path)
	}
	for _, path := range r.mentionsOfServer(id) {
		r.t.Errorf("it is found in the database server's %s", path)
	}
}

// mentionsOfServer are the files of the plane's database server that have a word in them, but for what the operation names: the
// registry's own database, the write-ahead log, and the catalogue of the server, where dead rows of databases and roles lie until they
// are written over, with its statistics, which each database keeps a copy of.
func (r *rolling) mentionsOfServer(word string) (found []string) {
	r.t.Helper()
	ctx := r.t.Context()
	admin := r.superuser(r.t, "postgres", "postgres")
	if _, err := admin.Exec(ctx, "CHECKPOINT"); err != nil {
		r.t.Fatal(err)
	}
	rows, err := admin.Query(ctx, "SELECT datname, 'base/' || oid || '/' FROM pg_database WHERE datallowconn")
	if err != nil {
		r.t.Fatal(err)
	}
	named := []string{"global/", "pg_wal/"}
	var database, dir string
	dirs := map[string]string{}
	if _, err := pgx.ForEachRow(rows, []any{&database, &dir}, func() error { dirs[database] = dir; return nil }); err != nil {
		r.t.Fatal(err)
	}
	for database, dir := range dirs {
		if database == "registry" {
			named = append(named, dir)
			continue
		}
		var statistics, toast string
		err := r.superuser(r.t, "postgres", database).QueryRow(ctx, "SELECT pg_relation_filepath(oid), pg_relation_filepath(reltoastrelid) FROM pg_class WHERE oid = 'pg_statistic'::regclass").Scan(&statistics, &toast)
		if err != nil {
			r.t.Fatal(err)
		}
		named = append(named, statistics, toast)
	}
	server, err := pgserver.DirFor(filepath.Join(r.home, "postgres"), "")
	if err != nil {
		r.t.Fatal(err)
	}
	data, seen := filepath.Join(server, "data"), 0
	err = filepath.WalkDir(data, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil //nolint:nilerr // it came and went
		}
		rel, _ := filepath.Rel(data, path)
		text, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(text, []byte(word)) {
			return nil //nolint:nilerr // as before
		}
		seen++
		if !slices.ContainsFunc(named, func(at string) bool { return strings.HasPrefix(rel, at) }) {
			found = append(found, rel)
		}
		return nil
	})
	if err != nil || seen == 0 {
		r.t.Errorf("the server's files were searched in vain, though the registry keeps the id: %v", err)
	}
	return found
}

// mentions are the plane's files that have a word in their name or in their content, but for what is kept of purpose: the export that is
// handed over, what the gateway holds, signed, of who left, and the server's data, which mentionsOfServer looks through.
// sessionOf is what a line of the database server's log begins with, so that an operator knows whose session was cut off (log_line_prefix in
// libs/pgserver). The operation says that the plane's own logs keep a tenant's id; what a session was about is not to be there.
var sessionOf = regexp.MustCompile(`(?m)(^\S+ \S+ \S+ \[\d+\] )tnt_[0-9a-z_]+@tnt_[0-9a-z]+ `)

func (r *rolling) mentions(word string) (found []string) {
	r.t.Helper()
	for _, dir := range r.dirs() {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			switch {
			case errors.Is(err, fs.ErrNotExist):
				return nil
			case err != nil:
				return err
			case d.IsDir() && (strings.HasPrefix(d.Name(), "export-") || d.Name() == "data" && strings.Contains(path, "postgres") ||
				strings.HasSuffix(path, filepath.Join("components", "gateway", "state"))):
				return fs.SkipDir
			case strings.Contains(path, word):
				found = append(found, path)
			case d.Type().IsRegular():
				const most = 1 << 20 // programs are larger, and are everybody's
				if info, err := d.Info(); err != nil || info.Size() > most {
					return nil //nolint:nilerr // it came and went
				}
				text, err := os.ReadFile(path)
				if strings.HasSuffix(path, filepath.Join("log", "plane", "postgres.log")) {
					text = sessionOf.ReplaceAll(text, nil)
				}
				if err == nil && strings.Contains(string(text), word) {
					found = append(found, path)
				}
			}
			return nil
		})
		if err != nil {
			r.t.Fatal(err)
		}
	}
	return found
}

// signedIn is a tenant's first admin, let in by an operator.
func (r *rolling) signedIn(slug string) *person {
	r.t.Helper()
	if slug != "acme" {
		s := r.fleet("tenant", "recover-admin", slug, "--reason", "the story needs its admin")
		if s.code != 0 {
			r.t.Fatal(s)
		}
		if in := r.shell(r.t, printedLogin(r.t, s)); in.code != 0 {
			r.t.Fatal(in)
		}
	}
	return r.tenants[slug].admin(r.t)
}

func (r *rolling) storyWithoutRegistry() {
	r.t.Helper()
	slugs := []string{"acme", "globex", "initech", "stark"}
	var loads []*load
	for _, slug := range slugs {
		admin := r.signedIn(slug)
		loads = append(loads, newLoad(r.t, admin, r.tenants[slug].workspace(r.t, admin).GetId()))
	}
	back := r.pause(r.t, "plane/registry")
	for _, l := range loads {
		l.healed(r.t, "the registry was stopped")
	}
	for _, target := range []string{"plane/gateway", r.tenants["globex"].id + "/integrations", r.tenants["stark"].id + "/iam"} {
		before := r.pids(r.t)[target]
		if err := syscall.Kill(before, syscall.SIGTERM); err != nil {
			r.t.Fatal(err)
		}
		r.serves(r.t, target, before)
		for _, l := range loads {
			l.fares(r.t)
		}
	}
	n := 0
	for i, l := range loads {
		reads, writes := l.progress()
		n += reads + writes
		l.mu.Lock()
		if len(l.errors) > 0 {
			r.t.Errorf("without the registry, of %d requests at %s there failed %v", reads+writes, slugs[i], l.errors)
		}
		l.mu.Unlock()
		l.stop(r.t)
	}
	back()
	r.t.Attr("row", fmt.Sprintf("F17 %d", n))
}

// fares waits until both reads and writes were answered since.
func (l *load) fares(t *testing.T) {
	t.Helper()
	reads, writes := l.progress()
	const some = 20
	within(t, backWithin, func() error {
		if r, w := l.progress(); r < reads+some || w < writes+some {
			return context.DeadlineExceeded
		}
		return nil
	})
}
