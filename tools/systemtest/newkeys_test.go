package systemtest

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What no backup holds is made anew: each key of the plane's own and of a tenant's is lost before the first backup, and the commands of the runbook, typed, end with a plane and a tenant that
// serve. Nothing is made anew that is there, or whose loss wasn't accepted.
func TestKeysThatNoBackupHasAreMadeAnew(t *testing.T) {
	full(t)
	t.Parallel()
	p := planeIn(t, walkable(t), "A3_TENANTS=acme", "A3_UNIX_TENANTS=none", "A3_BACKUP_EVERY=none")
	if err := p.up(t.Context()); err != nil {
		t.Fatal(err)
	}
	own, err := filepath.Glob(filepath.Join(p.home, "*", "keys", "manifests.secret"))
	if err != nil || len(own) != 1 {
		t.Fatalf("the plane's own keys are %q (%v)", own, err)
	}
	t.Run("plane", func(t *testing.T) { p.renewsOwnKeys(t, filepath.Dir(own[0])) })
	t.Run("tenant", func(t *testing.T) { p.renewsKeysOf(t, "acme") })
}

const keyLost = "Case 4713: it was lost before the first backup"

// lose removes files, of which one at least is there.
func lose(t *testing.T, files ...string) {
	t.Helper()
	n := 0
	for _, file := range files {
		if err := os.Remove(file); err == nil {
			n++
		}
	}
	if n == 0 {
		t.Fatalf("none of %q is there", files)
	}
}

// renews has a key made anew, once its loss is accepted.
func (p *plane) renews(t *testing.T, of, key string) said {
	t.Helper()
	if s := p.fleet(t, "backup", "new-key", of, "--key", key); s.code == 0 || !strings.Contains(s.err, "--accept-loss") || !strings.Contains(s.err, key+": ") {
		t.Errorf("key %s is made anew though its loss wasn't accepted: %s", key, s)
	}
	s := p.fleet(t, "backup", "new-key", of, "--key", key, "--accept-loss", "--reason", keyLost)
	if s.code != 0 {
		t.Fatalf("key %s can't be made anew: %s", key, s)
	}
	if again := p.fleet(t, "backup", "new-key", of, "--key", key, "--accept-loss", "--reason", keyLost); again.code == 0 || !strings.Contains(again.err, "is there") {
		t.Errorf("key %s, which is there, is exchanged: %s", key, again)
	}
	return s
}

func (p *plane) renewsOwnKeys(t *testing.T, keys string) {
	for _, key := range []string{"snapshot", "marks", "proofs", "releases", "licences", "manifests", "backup"} {
		lose(t, filepath.Join(keys, key+".secret"), filepath.Join(keys, key+".public"))
		if s := p.fleet(t, "plane", "up"); s.code == 0 || !strings.Contains(s.err, "--key "+key) {
			t.Errorf("%s is gone, and plane up says %s", key, s)
		}
		p.renews(t, "plane", key)
		p.ok(t, "plane", "up")
		p.a3(t, "acme-admin", "user", "list")
	}
	p.ok(t, "licence", "issue", "acme", "--plan", "team", "--reason", keyLost)
	p.backUp(t, "plane")
	p.backUp(t, "acme")

	// What the secret half of a key signed that is gone is believed on.
	lose(t, filepath.Join(keys, "releases.secret"))
	p.renews(t, "plane", "releases")
	if text, err := os.ReadFile(filepath.Join(keys, "releases.public")); err != nil || strings.Count(string(text), ",") != 1 {
		t.Errorf("the former key of releases is not believed any more: %s (%v)", text, err)
	}
	// Nothing is lost with a public half.
	public := filepath.Join(keys, "snapshot.public")
	was, err := os.ReadFile(public)
	if err != nil {
		t.Fatal(err)
	}
	lose(t, public)
	p.ok(t, "backup", "new-key", "plane", "--key", "snapshot")
	if is, err := os.ReadFile(public); err != nil || string(is) != string(was) {
		t.Errorf("the public half is another: %s, and was %s (%v)", is, was, err)
	}
	p.ok(t, "plane", "up")

	roots, err := filepath.Glob(filepath.Join(p.home, "*", "pki", "root.pem"))
	roots = append(roots, filepath.Join(filepath.Dir(filepath.Dir(keys)), "pki", "root.pem"), filepath.Join(p.home, "pki", "root.pem"))
	roots = slices.DeleteFunc(roots, func(f string) bool { _, err := os.Stat(f); return err != nil })
	if err != nil || len(roots) == 0 {
		t.Fatalf("the plane's root is not found (%v)", err)
	}
	lose(t, roots[0])
	if s := p.fleet(t, "backup", "new-key", "plane", "--key", "root", "--accept-loss", "--reason", keyLost); s.code == 0 || !strings.Contains(s.err, "fleet plane down") {
		t.Errorf("the root is exchanged under a plane that runs: %s", s)
	}
	p.ok(t, "plane", "down")
	p.renews(t, "plane", "root")
	p.ok(t, "plane", "up")
	p.a3(t, "acme-admin", "user", "list")
	p.backUp(t, "plane")
}

func (p *plane) renewsKeysOf(t *testing.T, slug string) {
	home := filepath.Join(p.home, "tenants", p.tenants[slug].id)
	for _, key := range []string{"kek", "envelope", "secrets", "discovery-pages", "root"} {
		lose(t, filepath.Join(home, "keys", key+".secret"), filepath.Join(home, "keys", key+".public"), filepath.Join(home, "pki", key+".pem"))
		if s := p.fleet(t, "repair", "--tenant", slug); s.code == 0 || !strings.Contains(s.err, "--key "+key) {
			t.Errorf("%s is gone, and repair says %s", key, s)
		}
		p.renews(t, slug, key)
		p.ok(t, "repair", "--tenant", slug)
		p.signInAgain(t, slug)
		p.backUp(t, slug)
	}
	if events := p.a3(t, slug+"-admin", "audit", "list", "--action", "iam.set.restored"); !strings.Contains(events, keyLost) || !strings.Contains(events, "key kek") {
		t.Errorf("the tenant's record does not say that its keys were made anew: %s", events)
	}
	p.a3(t, slug+"-admin", "audit", "verify")

	log := filepath.Join(home, "keys", "log.secret")
	was, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	lose(t, log)
	if s := p.fleet(t, "backup", "new-key", slug, "--key", "log", "--accept-loss", "--reason", keyLost); s.code == 0 || !strings.Contains(s.err, "fleet plan offboard") {
		t.Errorf("the log gets another key: %s", s)
	}
	if err := os.WriteFile(log, was, 0o600); err != nil {
		t.Fatal(err)
	}
	p.ok(t, "repair", "--tenant", slug)
}
