package docker_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"a3os.app/tools/internal/enginetest"
	"a3os.app/tools/systemtest/notes/notestest"
)

// Another product than AccessOS, in containers, of which nothing in here knows a component: a tenant of each tier, whose notes are its own; a bad release halts and goes
// back (row F32), a good one comes and is gone back from; each is suspended and resumed, backed up, tried out and put back; and one leaves, of which nothing is found.
func TestStoryOfAnotherProductInContainers(t *testing.T) {
	enginetest.Need(t)
	if os.Getenv("A3_LONG") == "" {
		t.Skip("this takes minutes: set A3_LONG=1")
	}
	p := newPlane(t)
	file := notestest.Product(t)
	p.product = product{program: filepath.Join(filepath.Dir(file), "notes"), setting: "NOTES_COOKIE_FILE", answers: "/up"}
	p.environ = []string{"A3_BLUEPRINT=" + file, "A3_TENANTS=globex"}
	p.fleet("plane", "up")
	// What was said once is remembered.
	p.environ = []string{"A3_TENANTS=acme,globex"}
	p.fleet("tenant", "create", "acme", "--tier", "dedicated")
	if again := p.fleet("plane", "up"); !strings.Contains(again, "nothing changed") {
		t.Errorf("a second time it says:\n%s", again)
	}
	p.ownServerIsApart(t, "acme")
	p.fleet("tenant", "label", "acme", "ring=canary")
	p.fleet("tenant", "label", "globex", "ring=general")
	p.well(t, "acme", "globex")

	// Each has its own note, and no other's.
	for _, slug := range []string{"acme", "globex"} {
		p.notes(t, slug, slug+"'s own")
	}
	p.haveTheirOwn(t, "acme", "globex")
	if _, holes, code := p.isolation(); code != 0 || len(holes) > 0 {
		t.Errorf("the proof exits with %d and finds:\n%s", code, strings.Join(holes, "\n"))
	}

	p.release(t, "1.0.0", func(program []byte) []byte { return append(program, "the first"...) })
	for _, slug := range []string{"acme", "globex"} {
		p.does(t, "upgrade", slug, "--release", "1.0.0")
	}
	p.badRelease(t)
	p.goodRelease(t, "acme", "globex")
	for _, slug := range []string{"acme", "globex"} {
		p.does(t, "downgrade", slug, "--release", "1.0.0")
		if is := p.tenant(t, slug).GetServiceSet().GetRelease(); !strings.HasPrefix(is, "1.0.0@") {
			t.Errorf("%s went back and runs %s", slug, is)
		}
		p.suspended(t, slug)
	}
	p.haveTheirOwn(t, "acme", "globex")

	for _, slug := range []string{"acme", "globex"} {
		from := p.backup(t, "--tenant", slug)[slug].Name
		p.notes(t, slug, "after the backup")
		var done restored
		p.json(t, &done, "restore", "--from", from, "--to", slug, "--replace", "--reason", "the story goes on")
		if !done.Serves || done.Verified.IsZero() {
			t.Errorf("a restore says: %+v", done)
		}
		if now := p.notes(t, slug, ""); strings.Contains(now, "after the backup") {
			t.Errorf("%s was put back and has %s", slug, now)
		}
	}
	p.haveTheirOwn(t, "acme", "globex")
	p.well(t, "acme", "globex")

	p.leaves(t, "acme")
	p.haveTheirOwn(t, "globex")
	p.leaves(t, "globex")
}

// notes has a tenant's set keep a note, unless it is empty, and answers all that it has.
func (p *plane) notes(t *testing.T, slug, note string) string {
	t.Helper()
	if note != "" {
		if code, said := p.request(t, slug, http.MethodPost, "/notes", note); code != http.StatusOK {
			t.Errorf("%s is given a note and answers %d: %s", slug, code, said)
		}
	}
	code, said := p.request(t, slug, http.MethodGet, "/notes", "")
	if code != http.StatusOK {
		t.Errorf("%s is asked for its notes and answers %d: %s", slug, code, said)
	}
	return said
}

// haveTheirOwn sees that tenants have one note each, which is the one that they gave.
func (p *plane) haveTheirOwn(t *testing.T, slugs ...string) {
	t.Helper()
	for _, slug := range slugs {
		if got, want := strings.TrimSpace(p.notes(t, slug, "")), `["`+slug+`'s own"]`; got != want {
			t.Errorf("%s has the notes %s, want %s", slug, got, want)
		}
	}
}
