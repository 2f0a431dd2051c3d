package pgserver_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"a3os.app/libs/pgserver"
)

// envChild makes the test binary play a process that starts a throwaway server in that directory and waits to be killed.
const envChild = "A3_PGSERVER_TEST_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(envChild); dir != "" {
		os.Exit(playChild(dir))
	}
	os.Exit(m.Run())
}

func TestEveryConnectionNeedsThePassword(t *testing.T) {
	t.Parallel()
	dir := reachableDir(t)
	server := started(t, pgserver.Config{Dir: filepath.Join(dir, "pg"), SocketDir: filepath.Join(dir, "s"), Throwaway: true, Port: freePort(t)})
	for _, host := range []string{"127.0.0.1", filepath.Join(dir, "s")} {
		config, err := pgx.ParseConfig(url(t, server))
		if err != nil {
			t.Fatal(err)
		}
		config.Host, config.Password = host, "wrong"
		conn, err := pgx.ConnectConfig(t.Context(), config)
		if err == nil {
			conn.Close(t.Context())
		}
		if pgErr, ok := errors.AsType[*pgconn.PgError](err); !ok || pgErr.Code != "28P01" {
			t.Errorf("a wrong password over %s: got %v, want it refused as invalid (28P01)", host, err)
		}
	}
	if got := ask(t, server, "SELECT string_agg(DISTINCT auth_method, ' ') FROM pg_hba_file_rules"); got != "scram-sha-256" {
		t.Errorf("pg_hba.conf has the methods %s, want scram-sha-256 alone", got)
	}
	if got := ask(t, server, "SHOW data_checksums"); got != "on" {
		t.Errorf("data checksums are %s", got)
	}
	info, err := os.Stat(filepath.Join(server.Dir(), "superuser.password"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the superuser's password: mode %v (%v), want 0600", info.Mode(), err)
	}
}

func TestServerOfASocketHasNoPort(t *testing.T) {
	t.Parallel()
	dir := reachableDir(t)
	server := started(t, pgserver.Config{Dir: filepath.Join(dir, "pg"), SocketDir: filepath.Join(dir, "s"), Throwaway: true, MaxConnections: 17})
	if got := ask(t, server, "SELECT current_setting('listen_addresses') || '|' || current_setting('max_connections')"); got != "|17" {
		t.Errorf("listen_addresses|max_connections = %s, want |17", got)
	}
}

func TestInterruptedInitLeavesNothingAndTheNextOneSucceeds(t *testing.T) {
	t.Parallel()
	dir := reachableDir(t)
	server := newServer(t, pgserver.Config{Dir: filepath.Join(dir, "pg"), Throwaway: true})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { // in the middle: initdb has begun to write
		until(t, func() bool {
			begun, _ := filepath.Glob(filepath.Join(dir, "pg.making-*", "data", "PG_VERSION"))
			return len(begun) > 0
		})
		cancel()
	}()
	if err := server.Init(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("interrupted Init returned %v, want context.Canceled", err)
	}
	if left := names(t, dir); len(left) != 0 {
		t.Errorf("an interrupted Init left %v", left)
	}
	// What a killed Init leaves, for nobody could clear it away.
	if err := os.MkdirAll(filepath.Join(dir, "pg.making-123", "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := server.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := names(t, dir); len(left) != 1 || left[0] != "pg" {
		t.Errorf("after Init there are %v, want pg alone", left)
	}
}

func TestInitKeepsAClusterThatIsThere(t *testing.T) {
	t.Parallel()
	server := started(t, pgserver.Config{Dir: filepath.Join(reachableDir(t), "pg"), Throwaway: true})
	before := url(t, server)
	if err := server.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := url(t, server); after != before || ask(t, server, "SELECT 1::text") != "1" {
		t.Error("a second Init changed the cluster")
	}
}

func TestInitRefusesADirectoryWithSomethingElseInIt(t *testing.T) {
	t.Parallel()
	dir := reachableDir(t)
	if err := os.WriteFile(filepath.Join(dir, "thesis.txt"), []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := newServer(t, pgserver.Config{Dir: dir}).Init(t.Context()); err == nil || !strings.Contains(err.Error(), "move it away") {
		t.Errorf("Init over somebody's files returned %v, want a refusal that says what to do", err)
	}
}

func TestKilledServerComesBackWithWhatItAcknowledged(t *testing.T) {
	t.Parallel()
	server := started(t, pgserver.Config{Dir: filepath.Join(reachableDir(t), "pg")})
	ask(t, server, "CREATE TABLE deeds (id int); INSERT INTO deeds VALUES (42); SELECT 'done'")
	if err := server.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if server.Running() {
		t.Error("the killed server is said to run")
	}
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := ask(t, server, "SELECT id::text FROM deeds"); got != "42" {
		t.Errorf("after the kill the row is %q, want 42", got)
	}
	for range 2 { // the second finds nothing to stop
		if err := server.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := server.Kill(t.Context()); !errors.Is(err, pgserver.ErrNotRunning) {
		t.Errorf("killing a stopped server returned %v, want ErrNotRunning", err)
	}
}

func TestKilledServerHandsNoNumberOutTwice(t *testing.T) {
	t.Parallel()
	server := started(t, pgserver.Config{Dir: filepath.Join(reachableDir(t), "pg")})
	const number = "INSERT INTO deeds DEFAULT VALUES RETURNING id::text"
	// One string of several statements is one transaction.
	ask(t, server, "CREATE TABLE deeds (id int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY); "+number)
	before := ask(t, server, number)
	if err := server.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	// An id that was handed out already would be refused by the primary key, and fail the test there.
	if after := ask(t, server, number); after == before {
		t.Errorf("%s was handed out twice", after)
	}
}

func TestStaleLockNeverLeadsToAnotherProcess(t *testing.T) {
	t.Parallel()
	server := newServer(t, pgserver.Config{Dir: filepath.Join(reachableDir(t), "pg"), Throwaway: true})
	if err := server.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	bystander := exec.Command("sleep", "600")
	if err := bystander.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- bystander.Wait() }()
	defer bystander.Process.Kill()
	data := filepath.Join(server.Dir(), "data")
	lock := strconv.Itoa(bystander.Process.Pid) + "\n" + data + "\n1700000000\n5432\n\n127.0.0.1\n\nready   \n"
	if err := os.WriteFile(filepath.Join(data, "postmaster.pid"), []byte(lock), 0o644); err != nil {
		t.Fatal(err)
	}
	if server.Running() {
		t.Error("a process that is no server is taken for one")
	}
	if err := server.Stop(t.Context()); err != nil {
		t.Errorf("Stop: %v", err)
	}
	if err := server.Start(t.Context()); err != nil {
		t.Errorf("the stale lock keeps the server down: %v", err)
	}
	select {
	case err := <-ended:
		t.Errorf("the bystander was ended: %v", err)
	default:
	}
	if err := server.Remove(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestTakenPortIsNamedWithTheNextStep(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	server := newServer(t, pgserver.Config{Dir: filepath.Join(reachableDir(t), "pg"), Port: port, Throwaway: true})
	if err := server.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	err = server.Start(t.Context())
	if !errors.Is(err, pgserver.ErrPortTaken) || !strings.Contains(err.Error(), "127.0.0.1:"+strconv.Itoa(port)) {
		t.Errorf("got %v, want ErrPortTaken with the address", err)
	}
}

func TestDataOfAnotherMajorVersionAreNotStarted(t *testing.T) {
	t.Parallel()
	server := newServer(t, pgserver.Config{Dir: filepath.Join(reachableDir(t), "pg"), Throwaway: true})
	if err := server.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(server.Dir(), "data", "PG_VERSION"), []byte("12\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{"Init": server.Init(t.Context()), "Start": server.Start(t.Context())} {
		if err == nil || !strings.Contains(err.Error(), "made by PostgreSQL 12") {
			t.Errorf("%s returned %v, want the two versions and what to do", name, err)
		}
	}
}

func TestStartBeforeInitIsRefused(t *testing.T) {
	t.Parallel()
	server := newServer(t, pgserver.Config{Dir: filepath.Join(reachableDir(t), "pg")})
	if err := server.Start(t.Context()); !errors.Is(err, pgserver.ErrNotMade) {
		t.Errorf("got %v, want ErrNotMade", err)
	}
	if _, err := server.URL("postgres"); !errors.Is(err, pgserver.ErrNotMade) {
		t.Errorf("URL: got %v, want ErrNotMade", err)
	}
}

func TestCommandIsTheServerItselfAndEndsInGoodOrder(t *testing.T) {
	t.Parallel()
	// At a socket: a port that was free before the cluster was made may be another's by now.
	dir := reachableDir(t)
	server := newServer(t, pgserver.Config{Dir: filepath.Join(dir, "pg"), SocketDir: filepath.Join(dir, "s")})
	if err := server.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd, err := server.Command(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	serving, gone := context.WithCancelCause(t.Context())
	go func() {
		err := cmd.Wait()
		gone(fmt.Errorf("it ended: %w", err))
		ended <- err
	}()
	if err := server.Ready(serving); err != nil {
		t.Fatalf("%v: %s", err, log.String())
	}
	lock, err := os.ReadFile(filepath.Join(server.Dir(), "data", "postmaster.pid"))
	if err != nil || !strings.HasPrefix(string(lock), strconv.Itoa(cmd.Process.Pid)+"\n") {
		t.Errorf("the process is %d and the server's lock says %q (%v)", cmd.Process.Pid, lock, err)
	}
	if uid := uidOf(t, cmd.Process.Pid); uid == 0 {
		t.Error("the server runs as root")
	}
	cancel()
	if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("the server ended with %v", err)
	}
	if !strings.Contains(log.String(), "database system is shut down") {
		t.Errorf("the server did not end in good order: %s", log.String())
	}
}

func TestThrowawayServerEndsWithItsProcessHoweverThatEnds(t *testing.T) {
	t.Parallel()
	parent := reachableDir(t)
	if err := os.Chmod(parent, 0o777|os.ModeSticky); err != nil { // as /tmp: the guard removes its own directory
		t.Fatal(err)
	}
	dir := filepath.Join(parent, "pg")
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), envChild+"="+dir)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("the child said %q (%v)", line, err)
	}
	server := newServer(t, pgserver.Config{Dir: dir, Throwaway: true})
	if !server.Running() {
		t.Fatal("the child's server does not run")
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait() // killed, as asked
	until(t, func() bool {
		_, err := os.Stat(dir)
		return errors.Is(err, os.ErrNotExist) && !server.Running()
	})
}

func playChild(dir string) int {
	err := func() error {
		binaries, err := pgserver.Find(context.Background(), pgserver.Options{})
		if err != nil {
			return err
		}
		server, err := pgserver.New(pgserver.Config{Binaries: binaries, Dir: dir, Throwaway: true})
		if err != nil {
			return err
		}
		return errors.Join(server.Init(context.Background()), server.Start(context.Background()))
	}()
	if err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		return 1
	}
	os.Stdout.WriteString("ready\n")
	select {} // until killed
}
