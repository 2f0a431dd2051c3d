package systemtest

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// losesKeys has files of keys go that were made once, one after the other: no command makes another in their place, the page says which is gone, and each is
// put back from a backup, data untouched. Where the backup key is gone for good another is made, and the recovery key opens what was made before.
func (p *plane) losesKeys(t *testing.T, made backupMade) {
	t.Helper()
	recovery := filepath.Join(filepath.Dir(p.home), "recovery.json")
	p.ok(t, "backup", "recovery-key", recovery)
	of := p.backUp(t, "plane", "--no-verify")
	sealed := p.backUp(t, "acme", "--no-verify")
	mine := filepath.Join(p.home, "tenants", p.tenants["acme"].id)
	planes, err := filepath.Glob(filepath.Join(p.home, "*", "keys", "manifests.secret"))
	if err != nil || len(planes) != 1 {
		t.Fatalf("the key that signs manifests is %q (%v)", planes, err)
	}
	for _, c := range []struct {
		file, to, from string
		more           []string
	}{
		{filepath.Join(mine, "keys", "kek.secret"), "acme", made.Name, nil},
		{filepath.Join(mine, "keys", "log.secret"), "acme", made.Name, nil},
		{filepath.Join(mine, "keys", "secrets.secret"), "acme", made.Name, nil},
		{filepath.Join(mine, "keys", "log.public"), "acme", made.Name, nil},
		{filepath.Join(mine, "pki", "root.pem"), "acme", made.Name, nil},
		{filepath.Join(mine, "keys", "backup.secret"), "acme", sealed.Name, []string{"--recovery-key", recovery}},
		{planes[0], "plane", of.Name, nil},
		{strings.TrimSuffix(planes[0], ".secret") + ".public", "plane", of.Name, []string{"--recovery-key", recovery}},
	} {
		was, err := os.ReadFile(c.file)
		if err == nil {
			err = os.Remove(c.file)
		}
		if err != nil {
			t.Fatal(err)
		}
		commands := [][]string{{"plane", "up"}}
		if c.to == "acme" {
			commands = append(commands, []string{"repair", "--tenant", "acme"})
		}
		for _, args := range commands {
			if s := p.fleet(t, args...); s.code == 0 || !strings.Contains(s.err, c.file) || !strings.Contains(s.err, "put-back-keys") {
				t.Errorf("%s is gone, and fleet %s says %s", c.file, strings.Join(args, " "), s)
			}
		}
		if _, err := os.Stat(c.file); err == nil {
			t.Errorf("another %s was made", c.file)
		}
		if s := p.fleet(t, "backup", "--tenant", c.to, "--no-verify"); s.code == 0 {
			t.Errorf("a backup without %s is made, and pushes out the last with it: %s", c.file, s)
		}
		if s := p.fleet(t, "status", "-o", "json"); !strings.Contains(s.out, "key_gone") || !strings.Contains(s.out, filepath.Base(c.file)) {
			t.Errorf("%s is gone, and the page says %s", c.file, s)
		}
		p.ok(t, append([]string{"backup", "put-back-keys", "--from", c.from, "--to", c.to}, c.more...)...)
		if is, err := os.ReadFile(c.file); err != nil || !bytes.Equal(bytes.TrimSpace(is), bytes.TrimSpace(was)) {
			t.Errorf("%s was put back as something else (%v)", c.file, err)
		}
	}
	// All that the plane itself has, the key that manifests are verified with among it.
	if err := os.RemoveAll(filepath.Dir(planes[0])); err != nil {
		t.Fatal(err)
	}
	if s := p.fleet(t, "restore", "--from", of.Name, "--to", "plane", "--recovery-key", recovery, "--reason", "its keys are gone, and it is here"); s.code == 0 || !strings.Contains(s.err, "put-back-keys") {
		t.Errorf("a plane that is here is taken up as one that was lost: %s", s)
	}
	p.ok(t, "backup", "put-back-keys", "--from", of.Name, "--to", "plane", "--recovery-key", recovery)
	p.ok(t, "plane", "up")
	p.a3(t, "acme-admin", "audit", "verify")

	if s := p.fleet(t, "backup", "new-key", "acme"); s.code == 0 || !strings.Contains(s.err, "is there") {
		t.Errorf("a backup key that is there is exchanged: %s", s)
	}
	if err := os.Remove(filepath.Join(mine, "keys", "backup.secret")); err != nil {
		t.Fatal(err)
	}
	// From a shell that doesn't say where backups are kept.
	environ := p.environ
	p.environ = slices.DeleteFunc(slices.Clone(environ), func(v string) bool { return strings.HasPrefix(v, "A3_BACKUP_DIR=") })
	p.ok(t, "backup", "new-key", "acme")
	p.environ = environ
	next := p.backUp(t, "acme")
	if s := p.fleet(t, "backup", "put-back-keys", "--from", sealed.Name, "--to", "acme"); s.code == 0 {
		t.Errorf("a backup of the key before opens with another one: %s", s)
	}
	for _, name := range []string{sealed.Name, next.Name} {
		if s := p.fleet(t, "backup", "put-back-keys", "--from", name, "--to", "acme", "--recovery-key", recovery); s.code != 0 || !strings.Contains(s.out, "nothing was changed") {
			t.Errorf("%s with the recovery key: %s", name, s)
		}
	}
}
