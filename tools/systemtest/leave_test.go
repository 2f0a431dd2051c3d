package systemtest

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"a3os.app/libs/pgserver"
	"a3os.app/proto/gen/go/a3os/iam/v1/iamv1connect"
	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"
)

// A tenant that leaves takes everything along, the rows of all workspaces, and nothing of it is found afterwards: not its words in any
// file of the plane, those of the database server that others use too included, nor its id in a name. What can't be destroyed alone is named.
// Row H20: who takes its slug later answers nothing to its tokens, of either kind. Cookies there are none: no answer sets one.
func TestNothingIsFoundOfATenantThatLeft(t *testing.T) {
	full(t)
	const slug, word = "departing", "zanzibarquartz"
	shared.apply(t, shared.plan(t, provision, slug, releaseOf(t, programs)))
	id := shared.idOf(t, slug)
	admin := shared.admitAdmin(t, slug)
	for _, who := range []string{"one", "two"} {
		shared.a3(t, admin, "user", "invite", who+"@"+word+".example")
		shared.a3(t, admin, "workspace", "create", word+"-"+who)
	}
	old, session := strings.TrimSpace(shared.a3(t, admin, "token")), shared.refreshToken(t, admin)
	if got := shared.selfAnswers(t, slug, old); got != http.StatusOK {
		t.Fatalf("its token is answered %d", got)
	}
	shared.backUp(t, slug)
	// What a search doesn't find while it is there, it can't find to be gone.
	if holds := shared.found(t, word); !slices.ContainsFunc(holds, func(file string) bool { return strings.Contains(file, "/data/base/") }) {
		t.Fatalf("the word is not in the database's files before the tenant leaves, but in %v", holds)
	}

	shared.apply(t, shared.plan(t, offboard, slug, ""))
	told := shared.fleet(t, "operation", "list", "--tenant", slug)
	shown := shared.fleet(t, "operation", "show", regexp.MustCompile(`opr_[0-9a-z]{26}`).FindString(told.out))
	for _, place := range []string{"the registry keeps its id", "history of who did what when", "logs", "write-ahead log"} {
		if !strings.Contains(shown.out, place) {
			t.Errorf("that something stays in the %s is not said: %s%s", place, told, shown)
		}
	}
	if got := shared.hostAnswers(t, slug); got != http.StatusNotFound {
		t.Errorf("its host answers %d", got)
	}
	within(t, time.Minute, func() error {
		if names := shared.certified(t); slices.Contains(names, slug+"."+shared.domain) {
			return fmt.Errorf("whoever connects is shown a certificate of %v", names)
		}
		return nil
	})

	exports, err := filepath.Glob(filepath.Join(shared.home, "*", "export-"+slug+"-*"))
	if err != nil || len(exports) != 1 {
		t.Fatalf("its export: %v %v", exports, err)
	}
	dump, err := os.ReadFile(filepath.Join(exports[0], "database.sql"))
	if err != nil {
		t.Fatal(err)
	}
	for _, theirs := range []string{"one@" + word, "two@" + word, word + "-one", word + "-two", "iam.user.invited"} {
		if !bytes.Contains(dump, []byte(theirs)) {
			t.Errorf("%q is not in what the tenant takes along", theirs)
		}
	}
	if err := os.RemoveAll(exports[0]); err != nil {
		t.Fatal(err)
	}
	lookForIt(t, id, word)

	// The slug is nobody's for a while, and then somebody else's.
	if s := shared.fleet(t, "tenant", "create", slug); s.code == 0 || !strings.Contains(s.err, slug) {
		t.Errorf("a slug that was set free just now: %s", s)
	}
	if _, err := shared.superuser(t, "postgres", "registry").Exec(t.Context(), "UPDATE registry.slugs SET freed_at = now() - interval '31 days' WHERE slug = $1", slug); err != nil {
		t.Fatal(err)
	}
	if s := shared.fleet(t, "tenant", "create", slug); s.code != 0 {
		t.Fatalf("a slug after its quarantine: %s", s)
	}
	if again := shared.idOf(t, slug); again == id {
		t.Errorf("the new tenant has the id of the old one, %s", id)
	}
	if got := shared.selfAnswers(t, slug, old); got != http.StatusUnauthorized {
		t.Errorf("a token of the slug's former holder is answered %d", got)
	}
	// A refresh token that is good gets another one, so that the new holder's goes last.
	if got := shared.refreshed(t, slug, session); got != http.StatusBadRequest {
		t.Errorf("a refresh token of the slug's former holder is answered %d", got)
	}
	if got := shared.selfAnswers(t, slug, strings.TrimSpace(shared.a3(t, shared.admitAdmin(t, slug), "token"))); got != http.StatusOK {
		t.Errorf("a token of the slug's holder is answered %d", got)
	}
	if got := shared.refreshed(t, slug, shared.refreshToken(t, admin)); got != http.StatusOK {
		t.Errorf("a refresh token of the slug's holder is answered %d", got)
	}
	shared.apply(t, shared.plan(t, offboard, slug, ""))
	held(t, 2, "H20")
}

// certified are the names in the certificate that the gateway shows to who says no name.
func (p *plane) certified(t *testing.T) []string {
	t.Helper()
	conn, err := (&tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}}).DialContext(t.Context(), "tcp", p.address()) //nolint:gosec // what it shows is read, and not believed
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0].DNSNames
}

// refreshToken is the one that a profile holds.
func (p *plane) refreshToken(t *testing.T, profile string) string {
	t.Helper()
	session, err := p.store().Open(profile)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := session.Profile()
	if err != nil {
		t.Fatal(err)
	}
	return kept.RefreshToken
}

// refreshed is what a tenant's issuer answers to a refresh token.
func (p *plane) refreshed(t *testing.T, slug, token string) int {
	t.Helper()
	form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.urlOf(slug)+"/oauth2/token", strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return p.statusOf(t, req)
}

// lookForIt fails for each place where something of a tenant that left is found.
func lookForIt(t *testing.T, id, word string) {
	t.Helper()
	for _, file := range shared.found(t, word) {
		// The server's log of writes is one of the places that are named.
		if !strings.Contains(file, "/pg_wal/") {
			t.Errorf("%s still holds a word of the tenant's", file)
		}
	}
	shared.files(t, func(path string, _ fs.DirEntry) {
		if strings.Contains(filepath.Base(path), id) {
			t.Errorf("%s is still there", path)
		}
	})
}

// admitAdmin lets the first admin of a tenant in that was made for a test, and answers the name of its profile.
func (p *plane) admitAdmin(t *testing.T, slug string) (profile string) {
	t.Helper()
	s := p.fleet(t, "tenant", "recover-admin", slug, "--reason", "its first admin signs in")
	_, code, ok := strings.Cut(strings.TrimSpace(s.err), "--setup-code ")
	if !ok {
		t.Fatalf("recover-admin: %s", s)
	}
	profile = slug + "-admin"
	p.a3(t, profile, "login", "--url", p.urlOf(slug), "--ca-cert", filepath.Join(p.home, "web", "ca.pem"), "--dial", p.address(), "--setup-code", strings.Fields(code)[0])
	return profile
}

// selfAnswers is what a tenant's host answers to who asks with a token who it is.
func (p *plane) selfAnswers(t *testing.T, slug, token string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.urlOf(slug)+iamv1connect.IdentityServiceGetSelfProcedure, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+token)
	return p.statusOf(t, req)
}

// Plans of several tenants are carried out like those of one, as many at once as is said.
func TestOnePlanMakesSeveralTenantsAndTakesThemAway(t *testing.T) {
	full(t)
	slugs := []string{"castor", "pollux"}
	plan := func(kind string, more ...string) string {
		args := append([]string{"plan", kind, "--reason", "they come and go together"}, more...)
		for _, slug := range slugs {
			args = append(args, "--tenant", slug)
		}
		var made struct{ Plan struct{ Hash string } }
		if err := shared.json(t.Context(), &made, args...); err != nil {
			t.Fatal(err)
		}
		return made.Plan.Hash
	}
	for _, step := range []struct {
		kind    string
		more    []string
		answers int
	}{{"provision", []string{"--release", releaseOf(t, programs)}, http.StatusOK}, {"offboard", nil, http.StatusNotFound}} {
		hash := plan(step.kind, step.more...)
		if s := shared.fleet(t, "apply", hash, "--max-parallel", "2"); s.code != 0 {
			t.Fatal(s)
		}
		shared.atOnce(t, hash)
		for _, slug := range slugs {
			if got := shared.hostAnswers(t, slug); got != step.answers {
				t.Errorf("after %s the host of %s answers %d, want %d", step.kind, slug, got, step.answers)
			}
		}
	}
}

// atOnce holds that a plan's operations were worked on at the same time.
func (p *plane) atOnce(t *testing.T, hash string) {
	t.Helper()
	res, err := registryv1.NewOperationServiceClient(p.operator(t)).ListOperations(t.Context(), &registryv1.ListOperationsRequest{PlanHash: hash})
	if err != nil {
		t.Fatal(err)
	}
	ops := res.GetOperations()
	for _, a := range ops {
		for _, b := range ops {
			if a != b && !a.GetCreatedAt().AsTime().Before(b.GetEndedAt().AsTime()) {
				t.Errorf("%s was begun after %s had ended", a.GetId(), b.GetId())
			}
		}
	}
}

// files walks all that the plane has on this machine: its home, and where a server's data and what its processes read lie where that is
// elsewhere.
func (p *plane) files(t *testing.T, each func(path string, d fs.DirEntry)) {
	t.Helper()
	var remembered struct{ Served string }
	text, err := os.ReadFile(filepath.Join(p.home, "plane.json"))
	if err == nil {
		err = json.Unmarshal(text, &remembered)
	}
	if err != nil {
		t.Fatal(err)
	}
	roots := []string{p.home}
	servers := []string{"postgres"}
	if onDocker() {
		servers = append(servers, "databases")
		roots = append(roots, filepath.Join("/run/a3", p.remembered(t).ID))
	}
	elsewhere := []string{remembered.Served}
	for _, name := range servers {
		server, err := pgserver.DirFor(filepath.Join(p.home, name), "")
		if err != nil {
			t.Fatal(err)
		}
		elsewhere = append(elsewhere, server)
	}
	for _, dir := range elsewhere {
		if dir != "" && !strings.HasPrefix(dir, p.home+"/") {
			roots = append(roots, dir)
		}
	}
	for _, root := range roots {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err == nil {
				each(path, d) // what is gone meanwhile holds nothing
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// found are the plane's files that hold a word, once its server has written what it keeps in memory.
func (p *plane) found(t *testing.T, word string) (files []string) {
	t.Helper()
	if _, err := p.superuser(t, "postgres", "postgres").Exec(t.Context(), "CHECKPOINT"); err != nil {
		t.Fatal(err)
	}
	p.files(t, func(path string, d fs.DirEntry) {
		if !d.Type().IsRegular() {
			return
		}
		if content, err := os.ReadFile(path); err == nil && bytes.Contains(content, []byte(word)) {
			files = append(files, path)
		}
	})
	return files
}
