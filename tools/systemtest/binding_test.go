package systemtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"a3os.app/libs/binding"
	"a3os.app/libs/blob"
	"a3os.app/libs/config"
	"a3os.app/libs/id"
	"a3os.app/libs/secret"
)

// signer signs marks as this plane's provisioner does.
func (p *plane) signer(t testing.TB) *binding.Signer {
	t.Helper()
	key, err := os.ReadFile(filepath.Join(p.home, "plane", "keys", "marks.secret"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := binding.NewSigner("dev", config.NewSecret(strings.TrimSpace(string(key))))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// owner is the tenant, to open its stores with.
func (x *tenant) owner(t testing.TB) *binding.Owner {
	t.Helper()
	keys, err := os.ReadFile(filepath.Join(x.plane.home, "plane", "keys", "marks.public"))
	if err != nil {
		t.Fatal(err)
	}
	o, err := binding.NewOwner(strings.TrimSpace(string(keys)), "dev", x.identity(t, "iam").Tenant)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// imposter is a second process of one of acme's services, with its configuration but for what a test changes. It runs as the service's
// own user.
type imposter struct {
	component string
	environ   map[string]string
	uid       uint32
	groups    []uint32
}

func newImposter(t *testing.T, component string) *imposter {
	t.Helper()
	name := acme().id + "/" + component
	uid, groups := shared.idsOf(t, name)
	return &imposter{component: component, environ: shared.environment(t, name), uid: uid, groups: groups}
}

// hand gives what the test made to the process's user.
func (i *imposter) hand(t *testing.T, root string) string {
	t.Helper()
	if int(i.uid) == os.Geteuid() {
		return root
	}
	err := filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, int(i.uid), int(i.uid)))
	})
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// points leads a secret of the configuration to a file with this content.
func (i *imposter) points(t *testing.T, variable, content string) {
	t.Helper()
	file := filepath.Join(walkedDir(t), "secret")
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	i.environ[variable+"_FILE"] = i.hand(t, file)
}

// refuses runs the process, which has to end by itself, with exit code 1 and the sentence, and without having listened: somebody else
// listens on the addresses it was told, so that one which tried would end with another sentence.
func (i *imposter) refuses(t *testing.T, sentence ...string) {
	t.Helper()
	for _, variable := range []string{"A3_LISTEN", "A3_OPS_LISTEN"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		i.environ[variable] = l.Addr().String()
	}
	const most = 40 * time.Second
	ctx, cancel := context.WithTimeout(t.Context(), most)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(programs, "accessos"), i.component)
	cmd.Dir = "/"
	for name, value := range i.environ {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	if int(i.uid) != os.Geteuid() {
		// As root a test would open what the service can't.
		cmd.Path = worldReadable(t)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: i.uid, Gid: i.uid, Groups: i.groups}}
	}
	s, err := finish(cmd)
	if err != nil || ctx.Err() != nil {
		t.Fatalf("%s didn't end by itself: %v %s", i.component, err, s)
	}
	if s.code != 1 {
		t.Errorf("%s ended with %s, want exit code 1", i.component, s)
	}
	said := strings.ReplaceAll(s.out+s.err, `\"`, `"`)
	for _, want := range sentence {
		if !strings.Contains(said, want) {
			t.Errorf("%s says %q, want %q in it", i.component, said, want)
		}
	}
	if strings.Contains(said, "address already in use") || strings.Contains(said, `"msg":"serving"`) {
		t.Errorf("%s listened before it was sure: %s", i.component, said)
	}
}

// walkedDir is a directory of the test's that every user can walk to.
func walkedDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	const walk = 0o711
	if err := errors.Join(os.Chmod(filepath.Dir(dir), walk), os.Chmod(dir, walk)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// worldReadable is a copy of the program that every user may run.
func worldReadable(t *testing.T) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(programs, "accessos"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(walkedDir(t), "accessos")
	if err := os.WriteFile(path, raw, 0o755); err != nil { //nolint:gosec // it is a program, and no secret
		t.Fatal(err)
	}
	return path
}

// scratch is an empty database with one role, which can connect to it alone, and what the comments of the database and of its schema
// `queue` say.
func scratch(t *testing.T, database, queue string) (called, roleURL string) {
	t.Helper()
	admin := shared.superuser(t, "postgres", "postgres")
	called = name("scratch")
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		conn, err := pgx.Connect(ctx, shared.superuserURL(t, "postgres", "postgres"))
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close(ctx)
		for _, sql := range []string{"DROP DATABASE " + quoted(called) + " WITH (FORCE)", "DROP OWNED BY " + quoted(called), "DROP ROLE " + quoted(called)} {
			if _, err := conn.Exec(ctx, sql); err != nil {
				t.Error(err)
			}
		}
	})
	for _, sql := range []string{
		"CREATE ROLE " + quoted(called) + " LOGIN PASSWORD 'scratch'", "CREATE DATABASE " + quoted(called) + " ALLOW_CONNECTIONS false",
		"REVOKE ALL ON DATABASE " + quoted(called) + " FROM PUBLIC", "GRANT CONNECT ON DATABASE " + quoted(called) + " TO " + quoted(called),
		"ALTER DATABASE " + quoted(called) + " ALLOW_CONNECTIONS true", "COMMENT ON DATABASE " + quoted(called) + " IS '" + strings.ReplaceAll(database, "NAME", called) + "'",
	} {
		if _, err := admin.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	conn := shared.superuser(t, "postgres", called)
	for _, sql := range []string{"CREATE SCHEMA queue", "COMMENT ON SCHEMA queue IS '" + strings.ReplaceAll(queue, "NAME", called) + "'"} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	_ = conn.Close(t.Context())
	u, err := url.Parse(shared.superuserURL(t, "postgres", "postgres"))
	if err != nil {
		t.Fatal("a connection string is not one")
	}
	u.User, u.Path = url.UserPassword(called, "scratch"), "/"+called
	return called, u.String()
}

// marks are the ways in which a resource of acme's can be marked wrongly, each with what is said of it.
func marks(t *testing.T, own binding.Mark) map[string]struct{ text, says string } {
	t.Helper()
	sign := func(s *binding.Signer, m binding.Mark) string {
		text, err := s.Sign(m)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	other := own
	other.Tenant = globex().identity(t, "iam").Tenant
	private, _, err := binding.NewKey("dev")
	if err != nil {
		t.Fatal(err)
	}
	gone, err := binding.NewSigner("dev", private)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]struct{ text, says string }{
		"other's":       {sign(shared.signer(t), other), "carries the mark of tenant " + globex().id + ", this set is " + acme().id},
		"none":          {"", "carries no mark"},
		"forged":        {strings.Replace(sign(shared.signer(t), other), globex().id, acme().id, 1), "it is forged, or was changed"},
		"expired plane": {sign(gone, own), "this plane's marks are signed by"},
	}
}

// Row S42: each kind of resource, with another's mark, with none, with a forged one, and with one of a plane that is no more.
func TestServiceWithAResourceThatIsNotItsOwnDoesNotStart(t *testing.T) {
	t.Parallel()
	own := acme().identity(t, "iam").Tenant
	cases := 0
	for _, kind := range []struct {
		mark      binding.Mark
		component string
		setting   string
		lead      func(t *testing.T, i *imposter, mark string)
	}{
		{binding.Mark{Tenant: own, Kind: binding.Objects}, "integrations", "A3_BLOB_DIR", func(t *testing.T, i *imposter, mark string) {
			i.environ["A3_BLOB_DIR"] = markedDir(t, i, mark, func(dir string) error { _, err := blob.CreateLocal(dir, shared.signer(t), own); return err })
		}},
		{binding.Mark{Tenant: own, Kind: binding.Secrets, Key: "x"}, "discovery-worker", "A3_SECRET_DIR", func(t *testing.T, i *imposter, mark string) {
			i.environ["A3_SECRET_DIR"] = markedDir(t, i, mark, func(dir string) error {
				_, err := secret.CreateLocal(dir, shared.signer(t), own, strings.TrimSpace(read(t, acme().file("keys", "secrets.public"))))
				return err
			})
		}},
		{binding.Mark{Tenant: own, Kind: binding.Database, Name: "x"}, "audit", "A3_DATABASE_URL", func(t *testing.T, i *imposter, mark string) {
			_, url := scratch(t, mark, "")
			i.points(t, "A3_DATABASE_URL", url)
		}},
		{binding.Mark{Tenant: own, Kind: binding.Queue, Name: "x"}, "discovery-worker", "A3_QUEUE_URL", func(t *testing.T, i *imposter, mark string) {
			name, url := scratch(t, "", mark)
			text, err := shared.signer(t).Sign(binding.Mark{Tenant: own, Kind: binding.Database, Name: name})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := shared.superuser(t, "postgres", "postgres").Exec(t.Context(), "COMMENT ON DATABASE "+quoted(name)+" IS '"+text+"'"); err != nil {
				t.Fatal(err)
			}
			i.points(t, "A3_QUEUE_URL", url)
		}},
	} {
		for name, mark := range marks(t, kind.mark) {
			cases++
			t.Run(string(kind.mark.Kind)+" "+name, func(t *testing.T) {
				i := newImposter(t, kind.component)
				kind.lead(t, i, mark.text)
				i.refuses(t, string(kind.mark.Kind)[:5], mark.says, kind.setting)
			})
		}
	}
	// The mistake that is made: the real thing of the other tenant.
	for _, c := range []struct{ component, setting, file, says string }{
		{"audit", "A3_DATABASE_URL", "database/audit.url", `database "` + globex().id + `" carries the mark of tenant ` + globex().id + ", this set is " + acme().id + ": check A3_DATABASE_URL"},
		{"iam", "A3_TENANT_DATABASE_URL", "database/iam_tenant.url", globex().id + ", this set is " + acme().id + ": check A3_TENANT_DATABASE_URL"},
		{"discovery", "A3_TENANT_DATABASE_URL", "database/discovery_tenant.url", globex().id + ", this set is " + acme().id + ": check A3_TENANT_DATABASE_URL"},
		{"discovery-worker", "A3_QUEUE_URL", "database/worker.url", globex().id + ", this set is " + acme().id + ": check A3_QUEUE_URL"},
		{"discovery-worker", "A3_SECRET_PRIVATE_KEY", "keys/secrets.secret", "this role was given key"},
	} {
		cases++
		t.Run(c.component+" with globex's "+c.file, func(t *testing.T) {
			i := newImposter(t, c.component)
			i.points(t, c.setting, read(t, globex().file(c.file)))
			i.refuses(t, c.says)
		})
	}
	for variable, store := range map[string]string{"A3_SECRET_DIR": "secrets", "A3_BLOB_DIR": "objects"} {
		cases++
		t.Run("integrations with globex's "+store, func(t *testing.T) {
			i := newImposter(t, "integrations")
			i.environ[variable] = globex().file("stores", store)
			if int(i.uid) != os.Geteuid() {
				// Here the files themselves are a wall, which is tried elsewhere: a copy that the process can read.
				dir := filepath.Join(walkedDir(t), store)
				if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, "MARK"), []byte(read(t, globex().file("stores", store, "MARK"))), 0o600)); err != nil {
					t.Fatal(err)
				}
				i.environ[variable] = i.hand(t, dir)
			}
			i.refuses(t, "carries the mark of tenant "+globex().id+", this set is "+acme().id+": check "+variable)
		})
	}
	t.Attr("row", fmt.Sprintf("S42 %d", cases))
}

// markedDir is a store of acme's whose mark is replaced.
func markedDir(t *testing.T, i *imposter, mark string, create func(dir string) error) string {
	t.Helper()
	dir := filepath.Join(walkedDir(t), "store")
	if err := create(dir); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "MARK")
	if mark == "" {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	} else if err := os.WriteFile(file, []byte(mark), 0o600); err != nil {
		t.Fatal(err)
	}
	return i.hand(t, dir)
}

func read(t testing.TB, file string) string {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// Row S42: what is marked right and opens too much.
func TestServiceThatCanOpenMoreThanItsOwnDoesNotStart(t *testing.T) {
	t.Parallel()
	own := acme().identity(t, "iam").Tenant
	role := func(t *testing.T, sql ...string) *imposter {
		name, url := scratch(t, "", "")
		text, err := shared.signer(t).Sign(binding.Mark{Tenant: own, Kind: binding.Database, Name: name})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range append([]string{"COMMENT ON DATABASE NAME IS '" + text + "'"}, sql...) {
			if _, err := shared.superuser(t, "postgres", "postgres").Exec(t.Context(), strings.ReplaceAll(s, "NAME", quoted(name))); err != nil {
				t.Fatal(err)
			}
		}
		i := newImposter(t, "audit")
		i.points(t, "A3_DATABASE_URL", url)
		return i
	}
	other, _ := scratch(t, "", "")
	store := func(t *testing.T, break_ func(dir string) error) *imposter {
		dir := filepath.Join(walkedDir(t), "objects")
		if _, err := blob.CreateLocal(dir, shared.signer(t), own); err != nil {
			t.Fatal(err)
		}
		if err := break_(dir); err != nil {
			t.Fatal(err)
		}
		i := newImposter(t, "integrations")
		i.environ["A3_BLOB_DIR"] = i.hand(t, dir)
		return i
	}
	cases := map[string]struct {
		make func(t *testing.T) *imposter
		says []string
	}{
		"its role connects to another database": {func(t *testing.T) *imposter { return role(t, "GRANT CONNECT ON DATABASE "+quoted(other)+" TO NAME") },
			[]string{"can connect to database " + quoted(other), "check A3_DATABASE_URL"}},
		"its role is another's member": {func(t *testing.T) *imposter { return role(t, "GRANT "+quoted(other)+" TO NAME") },
			[]string{"become role " + quoted(other)}},
		"its role goes around policies": {func(t *testing.T) *imposter { return role(t, "ALTER ROLE NAME BYPASSRLS") }, []string{"bypassrls"}},
		"its role makes databases":      {func(t *testing.T) *imposter { return role(t, "ALTER ROLE NAME CREATEDB") }, []string{"createdb"}},
		"its role owns the database":    {func(t *testing.T) *imposter { return role(t, "ALTER DATABASE NAME OWNER TO NAME") }, []string{"make objects in the whole database"}},
		"its store is open to others": {func(t *testing.T) *imposter {
			return store(t, func(dir string) error { return os.Chmod(dir, 0o755) }) //nolint:gosec // that is what is tried
		}, []string{"is open to other users of the machine, its mode is 0755"}},
		"its store holds another tenant's objects": {func(t *testing.T) *imposter {
			return store(t, func(dir string) error { return os.MkdirAll(filepath.Join(dir, "objects", globex().id), 0o700) })
		}, []string{"objects/" + globex().id + ", which is another tenant's", "A3_BLOB_DIR"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) { c.make(t).refuses(t, c.says...) })
	}
	t.Attr("row", fmt.Sprintf("S42 %d", len(cases)))
}

// A database of before marks were signed gets its mark, and one that carries another's is left alone and named.
func TestUpMarksWhatItMadeAndNothingElse(t *testing.T) {
	full(t)
	admin := shared.superuser(t, "postgres", "postgres")
	comment := func(text string) {
		t.Helper()
		if _, err := admin.Exec(t.Context(), "COMMENT ON DATABASE "+quoted(globex().id)+" IS '"+text+"'"); err != nil {
			t.Fatal(err)
		}
	}
	have := func() string {
		return column(t, admin, "SELECT coalesce(shobj_description(oid, 'pg_database'), '') FROM pg_database WHERE datname = $1", globex().id)[0]
	}
	objects, before := globex().file("stores", "objects", "MARK"), have()
	stored := read(t, objects)
	t.Cleanup(func() {
		if err := os.WriteFile(objects, []byte(stored), 0o600); err != nil {
			t.Error(err)
		}
	})
	comment("")
	if err := os.WriteFile(objects, []byte(globex().id+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := shared.command(t.Context(), "fleet", "plane", "up"); err != nil || s.code != 0 {
		t.Fatalf("up: %v %s", err, s)
	}
	if have() != before || read(t, objects) != stored {
		t.Errorf("after up the database is marked %q and the objects %q", have(), read(t, objects))
	}
	text, err := shared.signer(t).Sign(binding.Mark{Tenant: id.NewTenant(), Kind: binding.Database, Name: globex().id})
	if err != nil {
		t.Fatal(err)
	}
	comment(text)
	defer comment(before)
	s, err := shared.command(t.Context(), "fleet", "plane", "up")
	if err != nil || s.code != 1 || !strings.Contains(s.err, globex().id) || !strings.Contains(s.err, "somebody else's") {
		t.Errorf("up over a database with another's mark: %v %s", err, s)
	}
	if have() != text {
		t.Error("up put its mark in the place of another's")
	}
}

// No service is told where the key that signs marks is, and each is told the one that verifies.
func TestNoServiceHoldsTheKeyOfTheMarks(t *testing.T) {
	t.Parallel()
	public := strings.TrimSpace(read(t, filepath.Join(shared.home, "plane", "keys", "marks.public")))
	for name := range shared.pids(t) {
		if strings.Contains(name, "postgres") || strings.HasSuffix(name, "/machine-reader") { // neither of which has anything of a set's
			continue
		}
		environ := shared.environment(t, name)
		for variable, value := range environ {
			if strings.Contains(value, "marks.secret") {
				t.Errorf("%s is told of the key that signs marks by %s", name, variable)
			}
		}
		if told := environ["A3_MARK_KEYS"]; told != public && !slices.Contains([]string{"plane/gateway"}, name) {
			t.Errorf("%s verifies marks with %q", name, told)
		}
	}
}
