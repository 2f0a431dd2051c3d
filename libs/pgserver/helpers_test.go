package pgserver_test

import (
	"context"
	"errors"
	"net"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"a3os.app/libs/pgserver"
)

func newServer(t *testing.T, cfg pgserver.Config) *pgserver.Server {
	t.Helper()
	binaries, err := pgserver.Find(t.Context(), pgserver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	cfg.Binaries = binaries
	server, err := pgserver.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return server
}

func started(t *testing.T, cfg pgserver.Config) *pgserver.Server {
	t.Helper()
	server := newServer(t, cfg)
	if err := errors.Join(server.Init(t.Context()), server.Start(t.Context())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Remove(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return server
}

func url(t *testing.T, server *pgserver.Server) string {
	t.Helper()
	u, err := server.URL("postgres")
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// ask runs statements and returns the last one's value.
func ask(t *testing.T, server *pgserver.Server, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url(t, server))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	results, err := conn.PgConn().Exec(t.Context(), sql).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	return string(results[len(results)-1].Rows[0][0])
}

// reachableDir is a temporary directory that any user can walk to, as t.TempDir is not.
func reachableDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "a3-pgserver-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, entry := range entries {
		found = append(found, entry.Name())
	}
	return found
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func uidOf(t *testing.T, pid int) uint32 {
	t.Helper()
	info, err := os.Stat("/proc/" + strconv.Itoa(pid))
	if err != nil {
		t.Skipf("whose process the server is is not tested, there is no /proc to look its user up in: %v", err)
	}
	return info.Sys().(*syscall.Stat_t).Uid
}

// until waits for a condition, at most 30 s.
func until(t *testing.T, condition func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-deadline:
			t.Error("waited 30 s in vain")
			return
		case <-tick.C:
		}
	}
}
