package systemtest

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"a3os.app/libs/release"
	"a3os.app/tools/systemtest/notes/notestest"
)

// notesOfBefore is a blueprint that a fleet took before it was refused: its web front is called as the plane's gateway, a number is read as a text, `yes`
// as true, and nothing behind a field as if it were left out.
func notesOfBefore(t *testing.T, right string) string {
	t.Helper()
	for _, c := range [][2]string{
		{"command: [store]\n    needs: {database: [writer]}", "command: [store, 8080]\n    after:\n    routes: ~\n    needs: {database: [writer], outside: yes}"},
		{"  - name: web\n", "  - name: gateway\n"},
		{"      NOTES_REGISTRY:", "      NOTES_SERVICE: gateway\n      NOTES_REGISTRY:"},
	} {
		if strings.Count(right, c[0]) != 1 {
			t.Fatalf("%q does not stand in the blueprint", c[0])
		}
		right = strings.Replace(right, c[0], c[1], 1)
	}
	return right
}

// A tenant on a release whose blueprint a later fleet would refuse is brought up, repaired, backed up, restored, suspended and resumed, leaves that
// release, and comes back to it: nobody can mend what was signed. A new release may not be made by such a one.
func TestTenantIsNotStuckOnAReleaseOfBefore(t *testing.T) {
	full(t)
	t.Parallel()
	file := notestest.Product(t)
	right := readFile(t, file)
	before := notesOfBefore(t, right)
	dir := walkable(t)
	p := planeIn(t, dir, "A3_TENANTS=acme", "A3_UNIX_TENANTS=none", "A3_BLUEPRINT="+file)
	if err := p.up(t.Context()); err != nil {
		t.Fatal(err)
	}
	r := &rolling{plane: p, t: t, dir: dir}
	write := func(file, text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	program := readFile(t, filepath.Join(filepath.Dir(file), "notes"))
	artefact := func(version string) string {
		t.Helper()
		name := filepath.Join(dir, "notes-"+version)
		if err := os.WriteFile(name, append([]byte(program), version...), 0o755); err != nil {
			t.Fatal(err)
		}
		return "notes=" + name
	}

	// The fleet of before took it: its text is kept, and it is the product's own, which the plane comes up by.
	write(filepath.Join(r.home, "blueprints", strings.TrimPrefix(release.Digest([]byte(before)), "sha256:")+".yaml"), before)
	write(file, before)
	r.must("plane", "up")
	r.must("release", "register", "--version", "1.0.0", "--artefact", artefact("1.0.0"))
	p.apply(t, p.plan(t, upgrade, "acme", "1.0.0"))
	works := func(what, version, front string) {
		t.Helper()
		status, body := r.notes("acme", "")
		if is := r.processesOf("acme")[p.tenants["acme"].id+"/"+front] != 0; status != http.StatusOK || !strings.HasPrefix(r.runs("acme"), version+"@") || !is {
			t.Errorf("%s: acme runs %s as %v and answers %d %s", what, r.runs("acme"), r.processesOf("acme"), status, body)
		}
	}
	works("on the release of before", "1.0.0", "gateway")

	// This fleet has the product's own mended.
	write(file, right)
	r.untouched("the plane came up", func() { r.must("plane", "up") }, "acme")
	r.untouched("a repair", func() { r.must("repair", "--tenant", "acme") }, "acme")
	if s := r.must("status"); strings.Contains(s, "name_taken") || strings.Contains(s, "stricter") {
		t.Errorf("the page has on platform local: %s", s)
	}
	made := p.backUp(t, "acme")
	r.must("restore", "--from", made.Name, "--to", "acme", "--replace", "--reason", "Case 4714: on the day that fleet was exchanged")
	works("restored", "1.0.0", "gateway")
	p.apply(t, p.plan(t, suspend, "acme", ""))
	p.apply(t, p.plan(t, resume, "acme", ""))
	works("resumed", "1.0.0", "gateway")
	r.must("plane", "down")
	if err := p.up(t.Context()); err != nil {
		t.Fatal(err)
	}
	works("after a down and an up", "1.0.0", "gateway")

	r.must("release", "register", "--version", "1.1.0", "--artefact", artefact("1.1.0"))
	p.apply(t, p.plan(t, upgrade, "acme", "1.1.0"))
	works("upgraded off it", "1.1.0", "web")
	p.apply(t, p.plan(t, downgrade, "acme", "1.0.0"))
	works("back on it", "1.0.0", "gateway")

	other := filepath.Join(dir, "other.yaml")
	write(other, before+"# of today\n")
	for _, args := range [][]string{{"release", "register"}, {"release", "build", "--out", filepath.Join(dir, "1.2.0.json")}} {
		s := r.fleet(append(args, "--version", "1.2.0", "--artefact", artefact("1.2.0"), "--blueprint", other)...)
		if s.code == 0 || !strings.Contains(s.err, `"gateway" is the name of`) || !strings.Contains(s.err, `"8080" is not a text`) {
			t.Errorf("a new release by a blueprint of before, %v: %s", args, s)
		}
	}
}
