package pgtest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"a3os.app/libs/pgserver"
)

// EnvServer names the superuser's URL of a server for tests that runs already.
const EnvServer = "A3_TEST_PG"

// processServer is this test process's own server. It is the one global here: Go gives a test no other place that lives
// as long as the process, and a server for each test would cost a second each. The server ends with the process.
var processServer = sync.OnceValues(func() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	server, err := Shared(ctx)
	if err != nil {
		return "", err
	}
	return server.URL("postgres")
})

// syncedServer is processServer for measurements.
var syncedServer = sync.OnceValues(func() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	server, err := start(ctx, pgserver.Config{MaxConnections: 300, Throwaway: true, Synced: true}, 0)
	if err != nil {
		return "", err
	}
	return server.URL("postgres")
})

// Synced makes the databases of a benchmark on a server that syncs to disk, as one does that keeps what it acknowledged.
func Synced(b testing.TB) {
	b.Helper()
	url, err := syncedServer()
	if err != nil {
		b.Fatalf("start a PostgreSQL for the benchmark: %v", err)
	}
	b.Setenv(EnvServer, url)
}

func sharedServer(t testing.TB) string {
	t.Helper()
	if named := os.Getenv(EnvServer); named != "" {
		return named
	}
	url, err := processServer()
	if err != nil {
		t.Fatalf("start a PostgreSQL for the tests: %v", err)
	}
	return url
}

// Server makes and starts a private server of a major version, for tests that stop, restart or kill it; it is removed when
// the test ends. It listens on 127.0.0.1. The test is skipped, and says why, where that version can't be had.
func Server(t testing.TB, major int) *pgserver.Server {
	t.Helper()
	if _, err := pgserver.Find(t.Context(), pgserver.Options{Major: major}); err != nil {
		t.Skipf("this test needs PostgreSQL %d, which can't be had here: %v", major, err)
	}
	server, err := Start(t.Context(), major)
	if err != nil {
		t.Fatalf("start a private PostgreSQL %d: %v", major, err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 30*time.Second)
		defer cancel()
		if err := server.Remove(ctx); err != nil {
			t.Errorf("remove the private PostgreSQL: %v", err)
		}
	})
	return server
}

// Start makes and starts a throwaway server in a temporary directory: of a major version, or of the newest where that is
// zero. It ends, and its directory goes, with this process, or when the caller calls Remove.
func Start(ctx context.Context, major int) (*pgserver.Server, error) {
	return start(ctx, pgserver.Config{MaxConnections: 300, Throwaway: true}, major)
}

func start(ctx context.Context, cfg pgserver.Config, major int) (*pgserver.Server, error) {
	var err error
	if cfg.Binaries, err = pgserver.Find(ctx, pgserver.Options{Major: major}); err != nil {
		return nil, err
	}
	base, err := pgserver.DirFor(os.TempDir(), "")
	if err != nil {
		return nil, err
	}
	cfg.Dir = filepath.Join(base, fmt.Sprintf("a3-pgtest-%d-%s", os.Getpid(), suffix()))
	server, err := pgserver.New(cfg)
	if err != nil {
		return nil, err
	}
	if err := server.Init(ctx); err != nil {
		return nil, err
	}
	return server, server.Start(ctx)
}

// Shared is Start, for a server that the databases of many tests are on.
func Shared(ctx context.Context) (*pgserver.Server, error) {
	server, err := Start(ctx, 0)
	if err != nil {
		return nil, err
	}
	return server, closeOwn(ctx, server)
}

// closeOwn closes the server's own databases to the roles of tests, as a platform closes them to tenants'.
func closeOwn(ctx context.Context, server *pgserver.Server) error {
	url, err := server.URL("postgres")
	if err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return fmt.Errorf("connect to the test's PostgreSQL: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	_, err = conn.Exec(ctx, "REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC")
	return err
}
