package systemtest

import (
	"encoding/json"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"
	"a3os.app/tools/systemtest/notes/notestest"
)

// laterNotes is the blueprint of a later release of the notes: it tells every component a setting more, which no earlier one knows, and has
// a component more.
func laterNotes(earlier string) string {
	later := strings.Replace(earlier, "\nenv:\n", "\nenv:\n  NOTES_COLOUR: blue\n", 1)
	return later + `  - name: clock
    command: [clock]
    ports: [api, ops]
    health: {port: ops, path: /up}
    resources: {memory: 64MiB, cpu: 0.5, pids: 64}
    routes: [/clock]
`
}

// untouched does something, and sees that every process of the tenants is the one that it was, and that they answer.
func (r *rolling) untouched(what string, do func(), slugs ...string) {
	r.t.Helper()
	before := map[string]map[string]int{}
	for _, slug := range slugs {
		before[slug] = r.processesOf(slug)
	}
	do()
	for _, slug := range slugs {
		if now := r.processesOf(slug); !maps.Equal(now, before[slug]) {
			r.t.Errorf("%s: of %s there were %v, and now there are %v", what, slug, before[slug], now)
		}
		if status, body := r.notes(slug, ""); status != http.StatusOK {
			r.t.Errorf("%s: %s answers %d %s", what, slug, status, body)
		}
	}
}

// A set is started by the blueprint of the release that it runs, and by no other: a release that knows a setting less than fleet's own blueprint
// tells, or has a component less, is gone back to by a rollout and by an operation, and is left at work by whatever fleet does meanwhile.
func TestReleaseIsStartedByItsOwnBlueprint(t *testing.T) {
	full(t)
	t.Parallel()
	file := notestest.Product(t)
	dir := walkable(t)
	p := planeIn(t, dir, "A3_TENANTS=acme,globex", "A3_UNIX_TENANTS=none", "A3_BLUEPRINT="+file)
	if err := p.up(t.Context()); err != nil {
		t.Fatal(err)
	}
	r := &rolling{plane: p, t: t, dir: dir}
	program, err := os.ReadFile(filepath.Join(filepath.Dir(file), "notes"))
	if err != nil {
		t.Fatal(err)
	}
	first := filepath.Join(dir, "notes-1.0.0")
	if err := os.WriteFile(first, otherDigest(program), 0o755); err != nil {
		t.Fatal(err)
	}
	r.must("release", "register", "--version", "1.0.0", "--artefact", "notes="+first)
	p.apply(t, r.rollout("1.0.0", "--tenant", "acme", "--tenant", "globex", "--bake", "0s", "--samples", "0"))

	// A later fleet comes, whose blueprint is another.
	earlier := readFile(t, file)
	was := filepath.Join(dir, "notes-1.0.0.yaml")
	for name, text := range map[string]string{was: earlier, file: laterNotes(earlier)} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r.untouched("the plane came up with a later blueprint", func() { r.must("plane", "up") }, "acme", "globex")
	r.untouched("a repair", func() { r.must("repair", "--tenant", "acme") }, "acme")
	var made backupMade
	r.untouched("a backup", func() { made = p.backUp(t, "acme") }, "acme")
	r.forgetsBlueprints()
	r.must("restore", "--from", made.Name, "--to", "acme", "--replace", "--reason", "Case 4711: on the day that fleet was exchanged")
	if status, body := r.notes("acme", ""); status != http.StatusOK || !strings.HasPrefix(r.runs("acme"), "1.0.0@") {
		t.Errorf("restored by a fleet with a later blueprint acme runs %s and answers %d %s", r.runs("acme"), status, body)
	}

	// 1.1.0 can't be started: it doesn't know what its own blueprint tells it. The rollout goes back.
	second, third := filepath.Join(dir, "notes-1.1.0"), filepath.Join(dir, "notes-1.2.0")
	notestest.Build(t, second, "NOTES_COLOR")
	notestest.Build(t, third, "NOTES_COLOUR")
	r.must("release", "register", "--version", "1.1.0", "--artefact", "notes="+second)
	r.must("release", "register", "--version", "1.2.0", "--artefact", "notes="+third)
	if s := r.fleet("apply", r.rollout("1.1.0", "--tenant", "acme", "--bake", "0s", "--samples", "0")); s.code == 0 {
		t.Fatalf("a release that can't be started came through: %s", s)
	}
	back := r.newest()
	if x := back.GetTenants()[0]; x.GetState() != registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_ROLLED_BACK || !strings.HasPrefix(r.runs("acme"), "1.0.0@") {
		t.Fatalf("acme is %s at %s: %s", x.GetState(), r.runs("acme"), back.GetDetail())
	}
	r.must("rollout", "abort", back.GetId(), "--reason", "the release is bad")
	r.untouched("the plane came up after the rollout", func() { r.must("plane", "up") }, "acme", "globex")

	// 1.2.0 has a component more, which comes with it and goes with it.
	clock := p.tenants["acme"].id + "/clock"
	p.apply(t, r.rollout("1.2.0", "--tenant", "acme", "--bake", "0s", "--samples", "0"))
	if r.processesOf("acme")[clock] == 0 || r.clock("acme") != http.StatusOK {
		t.Errorf("1.2.0 runs at acme as %v, and its clock answers %d", r.processesOf("acme"), r.clock("acme"))
	}
	r.untouched("the plane came up with two releases", func() { r.must("plane", "up") }, "acme", "globex")
	p.apply(t, p.plan(t, downgrade, "acme", "1.0.0"))
	if _, is := r.processesOf("acme")[clock]; is || r.clock("acme") == http.StatusOK {
		t.Errorf("1.0.0 runs at acme as %v, and a clock answers %d", r.processesOf("acme"), r.clock("acme"))
	}
	if status, body := r.notes("acme", "acme's own"); status != http.StatusOK {
		t.Errorf("acme went back and answers %d %s", status, body)
	}

	r.withoutText(was)
	r.must("plane", "down")
	if err := p.up(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, slug := range []string{"acme", "globex"} {
		if status, body := r.notes(slug, ""); status != http.StatusOK || !strings.HasPrefix(r.runs(slug), "1.0.0@") {
			t.Errorf("after a down and an up %s runs %s and answers %d %s", slug, r.runs(slug), status, body)
		}
	}
}

// forgetsBlueprints has this machine remember of what it started no more than a fleet of before did, which is the release.
func (r *rolling) forgetsBlueprints() {
	r.t.Helper()
	file := filepath.Join(r.home, "plane.json")
	var noted map[string]json.RawMessage
	if err := json.Unmarshal([]byte(readFile(r.t, file)), &noted); err != nil {
		r.t.Fatal(err)
	}
	if _, is := noted["blueprints"]; !is {
		r.t.Fatal("there are no blueprints to forget")
	}
	delete(noted, "blueprints")
	text, err := json.Marshal(noted)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// withoutText has the blueprint of the release that everybody runs not be there, as on a plane that registered it before its text was kept:
// nobody is touched, and nobody brought where there is no way back from, until it is kept.
func (r *rolling) withoutText(was string) {
	r.t.Helper()
	texts, err := filepath.Glob(filepath.Join(r.home, "blueprints", "*.yaml"))
	if err != nil || len(texts) < 2 {
		r.t.Fatalf("the texts that are kept: %v (%v)", texts, err)
	}
	for _, text := range texts {
		if readFile(r.t, text) == readFile(r.t, was) {
			if err := os.Remove(text); err != nil {
				r.t.Fatal(err)
			}
		}
	}
	const says = "fleet release blueprint FILE"
	r.untouched("without the blueprint's text", func() {
		for _, command := range [][]string{{"plane", "up"}, {"repair", "--tenant", "acme"}, {"rollout", "plan", "--release", "1.2.0", "--tenant", "acme", "--reason", "there is no way back"}} {
			if s := r.fleet(command...); s.code == 0 || !strings.Contains(s.err, says) {
				r.t.Errorf("%v without the blueprint's text: %s", command, s)
			}
		}
	}, "acme", "globex")
	r.untouched("the blueprint's text was given again", func() {
		if s := r.must("release", "blueprint", was); !strings.Contains(s, "1.0.0") {
			r.t.Errorf("it is kept for %s", s)
		}
		r.must("plane", "up")
	}, "acme", "globex")
}

// clock asks the component that a later release has.
func (r *rolling) clock(slug string) int {
	r.t.Helper()
	status, _ := r.ask(slug, http.MethodGet, "/clock", "")
	return status
}
