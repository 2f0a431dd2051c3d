package plane

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"a3os.app/tools/fleet/internal/backup"
	"a3os.app/tools/fleet/internal/platform/local"
	"a3os.app/tools/fleet/internal/process"
	"a3os.app/tools/fleet/internal/settings"
	"a3os.app/tools/fleet/internal/state"
)

// listeningHome is a home that remembers a port, and something that listens there.
func listeningHome(t *testing.T) (home string, ports map[string]int) {
	t.Helper()
	// A socket's path has to be short.
	home, err := os.MkdirTemp("", "a3-open-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(home) })
	st, err := state.Open(home)
	if err != nil {
		t.Fatal(err)
	}
	st.Plane = "dev"
	port, err := st.Port("plane/postgres")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return home, map[string]int{"plane/postgres": port}
}

// The ports of a plane that runs are all listened on. Whoever could not hear whether it runs does not take them for somebody else's.
func TestOpenThatIsInterruptedOrRefusedKeepsThePorts(t *testing.T) {
	t.Parallel()
	openIn := func(t *testing.T, ctx context.Context, home string) error {
		t.Helper()
		p, err := New(settings.Settings{Home: home}, quiet{})
		if err != nil {
			t.Fatal(err)
		}
		return p.open(ctx)
	}
	kept := func(t *testing.T, home string, want map[string]int) {
		t.Helper()
		st, err := state.Open(home)
		if err != nil {
			t.Fatal(err)
		}
		if got := st.Ports(); !maps.Equal(got, want) {
			t.Errorf("the ports are %v afterwards, want %v", got, want)
		}
	}
	t.Run("interrupted", func(t *testing.T) {
		t.Parallel()
		home, ports := listeningHome(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := openIn(t, ctx, home); !errors.Is(err, context.Canceled) {
			t.Errorf("it ends with %v", err)
		}
		kept(t, home, ports)
	})
	t.Run("refused", func(t *testing.T) {
		t.Parallel()
		home, ports := listeningHome(t)
		if err := os.Mkdir(filepath.Join(home, "run"), 0o700); err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("unix", RunDir(home).Socket())
		if err != nil {
			t.Fatal(err)
		}
		busy := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "too busy", http.StatusInternalServerError)
		})} //nolint:gosec // of this test alone
		go func() { _ = busy.Serve(l) }()
		t.Cleanup(func() { _ = busy.Close() })
		if err := openIn(t, t.Context(), home); err == nil || !strings.Contains(err.Error(), "too busy") {
			t.Errorf("it ends with %v", err)
		}
		kept(t, home, ports)
	})
	t.Run("silent", func(t *testing.T) {
		t.Parallel()
		home, ports := listeningHome(t)
		self, err := process.Self()
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(self)
		if err := errors.Join(err, os.Mkdir(filepath.Join(home, "run"), 0o700), os.WriteFile(filepath.Join(home, "run", "supervisor.json"), text, 0o600)); err != nil {
			t.Fatal(err)
		}
		if err := openIn(t, t.Context(), home); err == nil || !strings.Contains(err.Error(), "does not answer") {
			t.Errorf("it ends with %v", err)
		}
		kept(t, home, ports)
	})
}

// On the day of the restore a disk is full, and the backup is good: the operator is told to make room, and not to look for another backup.
func TestBackupThatNobodyCouldTryIsNotCalledBad(t *testing.T) {
	for cause, bad := range map[error]bool{fmt.Errorf("%w: %w", local.ErrNotTried, local.ErrNoRoom): false, backup.ErrRefused: true} {
		err := refused(cause)
		if !errors.Is(err, cause) || !strings.HasPrefix(err.Error(), "nothing was changed") || strings.Contains(err.Error(), "can't be restored") != bad {
			t.Errorf("of %v a restore says %q", cause, err)
		}
	}
}
