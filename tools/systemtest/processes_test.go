package systemtest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"a3os.app/libs/config"
	"a3os.app/libs/secret"
)

// secretsOf says which of a tenant's secrets are whose: part of a path, and the components that may be told of it.
var secretsOf = map[string][]string{
	"database/audit.url": {"audit"}, "database/iam.url": {"iam"}, "database/iam_tenant.url": {"iam"},
	"database/integrations.url": {"integrations"}, "database/integrations_tenant.url": {"integrations"},
	"database/discovery.url": {"discovery"}, "database/discovery_tenant.url": {"discovery"}, "database/worker.url": {"discovery-worker"},
	"database/owner.url": {}, "keys/kek.secret": {"iam"}, "keys/log.secret": {"audit"}, "keys/envelope.secret": {"discovery"}, "keys/secrets.secret": {"discovery-worker"},
	"keys/integrations-pages.secret": {"integrations"}, "keys/discovery-pages.secret": {"discovery"},
}

// Each process has its own credentials and nothing else: no other tenant's, no sibling's, and no secret as such.
func TestProcessIsToldItsOwnCredentialsAndNothingElse(t *testing.T) {
	t.Parallel()
	secrets := map[string]string{}
	for _, x := range []*tenant{acme(), globex()} {
		for path := range secretsOf {
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
			for path, allowed := range secretsOf {
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

// Where the plane is started as root, each process is a user of its own: whoever takes over one of them reads nothing of another's,
// neither of a sibling nor of another tenant. A process with that user's ids and nothing else tries every file of the plane.
func TestProcessReadsNoOtherProcessesFiles(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("the plane is not started as root, so its processes run as one user of this machine and the files are no wall between them here")
	}
	units := shared.pids(t)
	users := map[uint32]string{0: "root"}
	tried := 0
	for unit := range units {
		uid, groups := shared.idsOf(t, unit)
		if strings.Contains(unit, "postgres") {
			continue
		}
		if other, taken := users[uid]; taken {
			t.Errorf("%s runs as user %d, as %s does", unit, uid, other)
		}
		users[uid] = unit
		for _, path := range readable(t, uid, groups) {
			tried++
			if !mayRead(unit, strings.TrimPrefix(path, shared.home+"/")) {
				t.Errorf("%s can read %s", unit, path)
			}
		}
	}
	if tried < len(units) {
		t.Errorf("only %d files could be read by anybody: this test proves nothing", tried)
	}
}

// mayRead says whether a unit has business with a file of the plane: what is public, its own, and the stores it shares.
func mayRead(unit, path string) bool {
	group, component, _ := strings.Cut(unit, "/")
	dir := "tenants/" + group + "/"
	if group == "plane" {
		dir = "plane/"
	}
	switch {
	case strings.HasSuffix(path, "pki/roots.pem"), strings.HasPrefix(path, "releases/"):
		return true
	case strings.HasPrefix(path, dir+"components/"+component+"/"):
		return true
	case strings.HasPrefix(path, dir+"stores/"):
		return component == "integrations" || component == "discovery-worker"
	case component == "gateway":
		return path == "web/key.pem" || path == "web/certificate.pem"
	case component == "registry":
		return path == dir+"database/registry.url" || path == dir+"keys/snapshot.secret"
	}
	for file, who := range secretsOf {
		if path == dir+file {
			return slices.Contains(who, component)
		}
	}
	return false
}

// readable are the files below the plane's home that a process with these ids and no others can open, found by one that tries.
func readable(t *testing.T, uid uint32, groups []uint32) []string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(shared.home, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			fmt.Fprintln(&all, path)
		}
		if err == nil && d.Name() == "data" && strings.Contains(path, "postgres") {
			// Thousands of files of PostgreSQL's own; one of them is enough, for it lets nobody else in or all of them are open.
			fmt.Fprintln(&all, filepath.Join(path, "PG_VERSION"))
			return fs.SkipDir
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it was replaced meanwhile
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", `while IFS= read -r f; do if (exec <"$f") 2>/dev/null; then printf '%s\n' "$f"; fi; done`)
	cmd.Stdin, cmd.Dir = strings.NewReader(all.String()), "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid, Groups: groups}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return strings.Fields(string(out))
}

// idsOf is whom a process runs as, and the groups it has besides its own. Whose its directory in /proc is does not say it.
func (p *plane) idsOf(t *testing.T, process string) (uid uint32, groups []uint32) {
	t.Helper()
	for line := range strings.Lines(p.kernelTells(t, process, "status")) {
		name, rest, _ := strings.Cut(line, ":")
		for i, field := range strings.Fields(rest) {
			n, err := strconv.ParseUint(field, 10, 32)
			if err != nil || name != "Uid" && name != "Groups" {
				continue
			}
			if name == "Uid" && i == 0 {
				uid = uint32(n)
			} else if name == "Groups" {
				groups = append(groups, uint32(n))
			}
		}
	}
	return uid, groups
}

// What a process is denied by the kernel, whoever takes it over: new privileges, capabilities, core files, and descriptors of whoever
// started the plane. Where there is no /proc nothing can be seen.
func TestProcessIsConfined(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("that processes have no rights to gain is not tested: this system doesn't tell")
	}
	seen := 0
	for unit, pid := range shared.pids(t) {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			continue // it doesn't run, or another test ended it just now
		}
		may := "0000000000000000"
		if strings.HasSuffix(unit, "/machine-reader") {
			may = "0000000000000004" // CAP_DAC_READ_SEARCH
		}
		for _, want := range []string{"NoNewPrivs:\t1", "CapEff:\t" + may, "CapPrm:\t" + may, "CapAmb:\t" + may} {
			if !strings.Contains(string(status), want) {
				t.Errorf("%s: no line %q in its status", unit, want)
			}
		}
		limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
		if err != nil {
			continue // as above
		}
		seen++
		for line := range strings.Lines(string(limits)) {
			f := strings.Fields(line)
			if strings.HasPrefix(line, "Max core file size") && (f[4] != "0" || f[5] != "0") {
				t.Errorf("%s may leave core files: %s", unit, line)
			}
			if strings.HasPrefix(line, "Max open files") && f[4] == "unlimited" {
				t.Errorf("%s may open any number of files", unit)
			}
		}
	}
	const least = 5
	if seen < least {
		t.Errorf("of %d processes alone it could be seen", seen)
	}
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
