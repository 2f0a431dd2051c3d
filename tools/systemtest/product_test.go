package systemtest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"
	"a3os.app/tools/systemtest/notes/notestest"
)

// notes asks another product's set through the gateway; a note that isn't empty is written.
func (r *rolling) notes(slug, note string) (status int, body string) {
	r.t.Helper()
	if note == "" {
		return r.ask(slug, http.MethodGet, "/notes", "")
	}
	return r.ask(slug, http.MethodPost, "/notes", note)
}

// ask sends a set of another product a request through the gateway.
func (r *rolling) ask(slug, method, path, text string) (status int, body string) {
	r.t.Helper()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(readFile(r.t, filepath.Join(r.home, "web", "ca.pem")))) {
		r.t.Fatal("the plane's authority for the web can't be read")
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, r.address())
		}}}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(r.t.Context(), method, fmt.Sprintf("https://%s.%s:%d%s", slug, r.domain, r.port, path), strings.NewReader(text))
	if err != nil {
		r.t.Fatal(err)
	}
	res, err := client.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return res.StatusCode, string(answer)
}

// Another product than AccessOS goes through the whole of fleet, each release of it an artefact of its own: what a set consists of is
// the blueprint's alone.
func TestAnotherProductGoesThroughTheWholeOfFleet(t *testing.T) {
	full(t)
	t.Parallel()
	file := notestest.Product(t)
	dir := walkable(t)
	p := planeIn(t, dir, "A3_TENANTS=acme,globex", "A3_UNIX_TENANTS=none", "A3_BLUEPRINT="+file)
	if err := p.up(t.Context()); err != nil {
		t.Fatal(err)
	}
	r := &rolling{plane: p, t: t, dir: dir}
	// What was said once is remembered.
	p.environ = slices.DeleteFunc(p.environ, func(kv string) bool { return strings.HasPrefix(kv, "A3_BLUEPRINT=") })
	if s := r.must("plane", "up"); !strings.Contains(s, "nothing changed") {
		t.Errorf("a second up: %s", s)
	}
	if status, body := r.notes("acme", "acme's own"); status != http.StatusOK {
		t.Fatalf("write a note: %d %s", status, body)
	}
	r.must("tenant", "create", "initech")
	for _, slug := range []string{"globex", "initech"} {
		if status, body := r.notes(slug, ""); status != http.StatusOK || strings.Contains(body, "acme") {
			t.Errorf("%s reads %d %s", slug, status, body)
		}
	}
	r.must("isolation", "verify")

	first := r.runs("acme")
	program, err := os.ReadFile(filepath.Join(filepath.Dir(file), "notes"))
	if err != nil {
		t.Fatal(err)
	}
	second := filepath.Join(dir, "notes-1.1.0")
	if err := os.WriteFile(second, otherDigest(program), 0o755); err != nil {
		t.Fatal(err)
	}
	r.must("release", "register", "--version", "1.1.0", "--artefact", "notes="+second)
	p.apply(t, p.plan(t, upgrade, "initech", "1.1.0"))
	if now := r.runs("initech"); !strings.HasPrefix(now, "1.1.0@") || r.runs("acme") != first {
		t.Errorf("after an upgrade of initech it runs %s, and acme %s", now, r.runs("acme"))
	}
	p.apply(t, r.rollout("1.1.0", "--tenant", "acme", "--tenant", "globex", "--wave-size", "1", "--bake", "0s", "--samples", "0"))
	if done := r.newest(); done.GetState() != registryv1.RolloutState_ROLLOUT_STATE_SUCCEEDED {
		t.Errorf("the rollout is %s: %s", done.GetState(), done.GetDetail())
	}
	r.must("backup", "--tenant", "acme")

	p.apply(t, p.plan(t, suspend, "globex", ""))
	if status, _ := r.notes("globex", ""); status != http.StatusNotFound {
		t.Errorf("globex is suspended and answers %d", status)
	}
	p.apply(t, p.plan(t, resume, "globex", ""))
	if status, body := r.notes("acme", ""); status != http.StatusOK || !strings.Contains(body, "acme's own") {
		t.Errorf("acme's note after all of it: %d %s", status, body)
	}
	if err := p.learn(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(r.processesOf("initech")) == 0 {
		t.Error("initech has no processes")
	}
	p.apply(t, p.plan(t, offboard, "initech", ""))
	if left := r.processesOf("initech"); len(left) > 0 {
		t.Errorf("initech left and %v run", left)
	}
	if status, _ := r.notes("initech", ""); status != http.StatusNotFound {
		t.Errorf("initech left and answers %d", status)
	}

	// A plane stays at its product.
	other := strings.Replace(readFile(t, file), "name: notes", "name: other", 1)
	if err := os.WriteFile(file, []byte(other), 0o600); err != nil {
		t.Fatal(err)
	}
	if s := r.fleet("plane", "up"); s.code == 0 || !strings.Contains(s.err, "a plane stays at the product that it was made for") {
		t.Errorf("another product on the same plane: %s", s)
	}
	// What became of the file is no hindrance to taking the plane down, which the test's end does.
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if s := r.fleet("plane", "up"); s.code == 0 || !strings.Contains(s.err, "say with A3_BLUEPRINT where it is") {
		t.Errorf("the blueprint is gone: %s", s)
	}
}

// A blueprint that can't be carried out is refused before anything is made: by file, line and field, and with what to do next.
func TestBlueprintThatIsWrongIsRefused(t *testing.T) {
	t.Parallel()
	right := notestest.Blueprint(t)
	for name, c := range map[string]struct {
		// old is what stands in the file where the blueprint is right, and now what stands there instead.
		old, now string
		says     []string
	}{
		"no YAML":             {"scope: tenant", "scope: [tenant", []string{"notes.yaml:", "did not find expected"}},
		"a tab":               {"  cookie:", "\tcookie:", []string{"notes.yaml:7: ", "cannot start any token"}},
		"unknown field":       {"artefact: notes", "artefct: notes", []string{"notes.yaml:3: artefct: there is no such field here", "Mend it"}},
		"a word for a number": {"connections: 4", "connections: some", []string{"notes.yaml:13: database.roles.writer.connections: ", "blueprint.schema.json"}},
		"a role that isn't":   {"{database: [writer]}", "{database: [reader]}", []string{"notes.yaml:", "components[0].needs.database[0]: ", "reader"}},
		"a kind that isn't":   {"kind: random", "kind: rsa", []string{"notes.yaml:7: keys.cookie.kind: "}},
		"of a plane":          {"scope: tenant", "scope: plane", []string{"notes.yaml:5: answers: "}},
		"nothing":             {right, "", []string{"notes.yaml:1: there is nothing in the file"}},
		"two documents":       {"name: notes", "name: notes\n---\nname: notes", []string{"more than one document"}},
		"no program beside":   {"", "", []string{"there is no program", "/notes"}},
		"no file":             {"", "", []string{"no such file", "say with A3_BLUEPRINT where it is"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			file := filepath.Join(dir, "notes.yaml")
			if name != "no file" {
				if err := os.WriteFile(file, []byte(strings.Replace(right, c.old, c.now, 1)), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			p, err := newPlane(filepath.Join(dir, "plane"), "A3_BLUEPRINT="+file)
			if err != nil {
				t.Fatal(err)
			}
			s, err := p.command(t.Context(), "fleet", "plane", "up")
			if err != nil || s.code == 0 {
				t.Fatalf("it was taken: %v %s", err, s)
			}
			t.Log(s.err)
			for _, says := range c.says {
				if !strings.Contains(s.err, says) {
					t.Errorf("it doesn't say %q:\n%s", says, s.err)
				}
			}
			if running := p.running(); len(running) > 0 {
				t.Errorf("it was refused and %v run", running)
			}
		})
	}
}

func readFile(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
