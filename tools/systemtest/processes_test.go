package systemtest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"a3os.app/libs/config"
	"a3os.app/libs/secret"
)

// Each process has its own credentials and nothing else: no other tenant's, no sibling's, and no secret as such.
func TestProcessIsToldItsOwnCredentialsAndNothingElse(t *testing.T) {
	t.Parallel()
	// Which of a tenant's secrets are whose: part of a path, and the components that may be told of it.
	holders := map[string][]string{
		"database/audit.url": {"audit"}, "database/iam.url": {"iam"}, "database/iam_tenant.url": {"iam"},
		"database/integrations.url": {"integrations"}, "database/integrations_tenant.url": {"integrations"},
		"database/discovery.url": {"discovery"}, "database/discovery_tenant.url": {"discovery"}, "database/worker.url": {"discovery-worker"},
		"database/owner.url": {}, "keys/kek.secret": {"iam"}, "keys/log.secret": {"audit"}, "keys/envelope.secret": {"discovery"}, "keys/secrets.secret": {"discovery-worker"},
	}
	secrets := map[string]string{}
	for _, x := range []*tenant{acme(), globex()} {
		for path := range holders {
			raw, err := os.ReadFile(x.file(path))
			if err != nil {
				t.Fatal(err)
			}
			secrets[x.slug+" "+path] = strings.TrimSpace(string(raw))
		}
	}
	for _, x := range []*tenant{acme(), globex()} {
		for component := range x.addresses {
			environ := shared.environment(t, x.id+"/"+component)
			all := ""
			for name, value := range environ {
				all += value + "\n"
				if !strings.HasPrefix(name, "A3_") && !strings.HasPrefix(name, "OTEL_") && name != "GOMEMLIMIT" && name != "GOGC" && name != "TZ" {
					t.Errorf("%s of %s is told %s", component, x.slug, name)
				}
			}
			for path, allowed := range holders {
				told := strings.Contains(all, path)
				if may := strings.Contains(" "+strings.Join(allowed, " ")+" ", " "+component+" "); told && !may {
					t.Errorf("%s of %s is told where %s is", component, x.slug, path)
				}
			}
			for what, secret := range secrets {
				if strings.Contains(all, secret) {
					t.Errorf("in the environment of %s of %s stands the secret %s", component, x.slug, what)
				}
			}
			for _, other := range []*tenant{acme(), globex()} {
				if other != x && strings.Contains(all, other.id) {
					t.Errorf("%s of %s is told of %s", component, x.slug, other.slug)
				}
			}
		}
	}
}

// Where processes of two tenants are one user of the machine, the files are no wall between them, and that is said aloud.
func TestFilesOfOneTenantAreClosedToTheOther(t *testing.T) {
	t.Parallel()
	users := map[uint32]bool{}
	for component := range globex().addresses {
		users[userOf(t, fmt.Sprintf("/proc/%d", shared.pids(t)[globex().id+"/"+component]))] = true
	}
	for component := range acme().addresses {
		if users[userOf(t, fmt.Sprintf("/proc/%d", shared.pids(t)[acme().id+"/"+component]))] {
			t.Skip("the sets' processes run as one user of this machine, so the files are no wall between tenants here: who takes over a process of globex reads acme's files")
		}
	}
	err := filepath.WalkDir(acme().file(), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		const others = 0o007
		if info.Mode().Perm()&others != 0 || users[userOf(t, path)] {
			t.Errorf("%s, mode %s, is open to a user of globex", path, info.Mode())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// userOf is whose a file is, or a process's directory in /proc.
func userOf(t *testing.T, path string) uint32 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Uid
}

// Row O40, of secrets and keys. The key wall holds where the files don't: what acme's store keeps is sealed to acme's key.
func TestSecretOfOneTenantIsNotOpenedByTheOthersKey(t *testing.T) {
	t.Parallel()
	read := func(x *tenant) config.Secret {
		raw, err := os.ReadFile(x.file("keys", "secrets.secret"))
		if err != nil {
			t.Fatal(err)
		}
		return config.NewSecret(strings.TrimSpace(string(raw)))
	}
	own, other := acme().owner(t), globex().owner(t)
	if r, err := secret.OpenLocalReader(acme().file("stores", "secrets"), other, read(globex())); err == nil {
		_ = r.Close()
		t.Error("acme's store carries no mark that tells globex it isn't its own")
	}
	path := secretOf(t, acme())
	sealed, err := os.ReadFile(acme().file("stores", "secrets", "secrets", path.String()+".sealed"))
	if err != nil {
		t.Fatal(err)
	}
	// A copy of it in a store that says to be sealed to the key that is tried: the mark stops nobody there, the seal has to.
	for _, who := range []*tenant{acme(), globex()} {
		public, err := os.ReadFile(who.file("keys", "secrets.public"))
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(t.TempDir(), "secrets")
		if _, err := secret.CreateLocal(dir, shared.signer(t), own.Tenant(), strings.TrimSpace(string(public))); err != nil {
			t.Fatal(err)
		}
		copied := filepath.Join(dir, "secrets", path.String()+".sealed")
		if err := errors.Join(os.MkdirAll(filepath.Dir(copied), 0o700), os.WriteFile(copied, sealed, 0o600)); err != nil {
			t.Fatal(err)
		}
		r, err := secret.OpenLocalReader(dir, own, read(who))
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := r.Get(t.Context(), path); (err == nil) != (who == acme()) {
			t.Errorf("with %s's key: %v", who.slug, err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	held(t, 2, "O40")
}

// secretOf is the path of one secret in a tenant's store.
func secretOf(t *testing.T, x *tenant) secret.Path {
	t.Helper()
	var found secret.Path
	root := x.file("stores", "secrets", "secrets")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(root, strings.TrimSuffix(path, ".sealed"))
		if err != nil {
			return err
		}
		found, err = secret.ParsePath(rel)
		return err
	})
	if err != nil || found == (secret.Path{}) {
		t.Fatalf("%s keeps no secret: %v", x.slug, err)
	}
	return found
}
