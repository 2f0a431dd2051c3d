package aws_test

import (
	"context"
	"encoding/json"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/jackc/pgx/v5"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/ministacktest"
	"a3os.app/libs/pgserver"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/aws/awstest"
	"a3os.app/tools/fleet/internal/platform/aws/changeset"
	"a3os.app/tools/fleet/internal/platform/aws/stack"
	"a3os.app/tools/fleet/internal/platform/aws/stacktest"
	"a3os.app/tools/internal/enginetest"
)

// The engine, the names and the addresses of tasks are in namespaces of the test's own.
func TestMain(m *testing.M) { enginetest.Main(m, "--mount") }

const (
	// tasksReach is where tasks find the emulator, and hubAddress where the plane's services and its database server.
	tasksReach = "169.254.170.2"
	hubAddress = "10.99.0.1"
	// sharedPort is the plane's database server's, ownPort that of a tenant's own.
	sharedPort = 15432
	ownPort    = 15433
)

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
	return string(out)
}

// account is an emulated account whose tasks are containers, with a plane's stack as fleet renders it, but for a real PostgreSQL server in the
// place of RDS.
func account(t testing.TB) *ministacktest.Server {
	t.Helper()
	enginetest.Need(t)
	for _, address := range []string{tasksReach, hubAddress} {
		run(t, "ip", "addr", "replace", address+"/32", "dev", "lo")
	}
	hosts := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(hosts, []byte("127.0.0.1 localhost\n"), 0o644); err != nil { //nolint:gosec // everybody reads it, as /etc/hosts
		t.Fatal(err)
	}
	if err := syscall.Mount(hosts, "/etc/hosts", "", syscall.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount("/etc/hosts", syscall.MNT_DETACH) })
	server := ministacktest.StartTasks(t, tasksReach, hosts, func(template []byte) ([]byte, error) {
		text, err := stacktest.Emulated(template, false)
		if err != nil {
			return nil, err
		}
		return onTheServer(text)
	})

	at, user := database(t, sharedPort)
	made, err := secretsmanager.NewFromConfig(server.Root()).CreateSecret(t.Context(), &secretsmanager.CreateSecretInput{Name: sdk.String("rds!db-shared"), SecretString: &user})
	if err != nil {
		t.Fatal(err)
	}
	b, err := blueprint.Plane()
	if err != nil {
		t.Fatal(err)
	}
	d, err := changeset.Open(t.Context(), server.Root(), awstest.Where, awstest.Place.Templates())
	if err != nil {
		t.Fatal(err)
	}
	parameters := map[string]string{"AdministratorRole": "arn:aws:iam::" + ministacktest.Account + ":role/administrator"}
	for _, first := range []bool{true, false} {
		template, err := stack.Plane(stack.Input{Place: awstest.Place, Set: platform.Set{Blueprint: b}, First: first, Accounts: []string{ownAccount}})
		if err != nil {
			t.Fatal(err)
		}
		if !first {
			parameters["S3PrefixList"] = "pl-1"
			// The emulator has no RDS.
			delete(template.Resources, "Database")
			delete(template.Resources, "DatabaseFull")
			template.Outputs["DatabaseHost"], template.Outputs["DatabaseUser"] = stack.Output{Value: at}, stack.Output{Value: sdk.ToString(made.ARN)}
		}
		text, err := template.JSON()
		if err != nil {
			t.Fatal(err)
		}
		awstest.Change(t, d, awstest.Place.PlaneStack(), text, parameters)
	}
	return server
}

// database is a PostgreSQL server that tasks reach, and its first user as RDS keeps one.
func database(t testing.TB, port int) (at, user string) {
	t.Helper()
	binaries, err := pgserver.Find(t.Context(), pgserver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	dir, err := pgserver.DirFor(filepath.Join(t.TempDir(), "rds"), "")
	if err != nil {
		t.Fatal(err)
	}
	s, err := pgserver.New(pgserver.Config{Binaries: binaries, Dir: dir, Port: port, MaxConnections: 300})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	cmd, err := s.Command(ctx)
	if err != nil {
		t.Fatal(err)
	}
	access := filepath.Join(s.Dir(), "hba.conf")
	if err := os.WriteFile(access, []byte("host all all all scram-sha-256\n"), 0o644); err != nil { //nolint:gosec // the server's user reads it
		t.Fatal(err)
	}
	cmd.Args = append(cmd.Args, "-c", "listen_addresses=127.0.0.1,"+hubAddress, "-c", "hba_file="+access)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		_ = cmd.Wait()
		_ = os.RemoveAll(dir)
	})
	text, err := s.URL("postgres")
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	at = net.JoinHostPort(hubAddress, strconv.Itoa(port))
	u.Host = at
	within, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for tick := time.Tick(100 * time.Millisecond); ; <-tick {
		conn, err := pgx.Connect(within, u.String())
		if err == nil {
			_, err = conn.Exec(within, strings.Join(firstUser, ";"))
			_ = conn.Close(within)
			if err != nil {
				t.Fatal(err)
			}
			break
		}
		if within.Err() != nil {
			t.Fatal(err)
		}
	}
	secret, err := json.Marshal(map[string]string{"username": "a3", "password": firstPassword})
	if err != nil {
		t.Fatal(err)
	}
	return at, string(secret)
}

const firstPassword = "of-the-first-user"

// firstUser makes the first user that RDS makes, who is no superuser and owns the server's own databases ("Understanding the rds_superuser role",
// Amazon RDS User Guide).
var firstUser = []string{
	"CREATE ROLE rds_superuser NOLOGIN IN ROLE pg_monitor, pg_signal_backend", "CREATE ROLE rds_iam NOLOGIN",
	"CREATE ROLE a3 LOGIN NOSUPERUSER INHERIT CREATEDB CREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD '" + firstPassword + "' IN ROLE rds_superuser",
	"ALTER DATABASE postgres OWNER TO a3", "ALTER DATABASE template1 OWNER TO a3",
}
