package pgserver_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"a3os.app/libs/pgserver"
)

// A disk that others fill takes neither the server nor what it holds: four times what its log takes is written in place. A
// server without the reserve is the control: the same ends it.
func TestServerWithAReserveOutlivesAFullDisk(t *testing.T) {
	t.Parallel()
	for _, reserved := range []bool{true, false} {
		t.Run(fmt.Sprintf("reserved=%t", reserved), func(t *testing.T) {
			t.Parallel()
			disk := smallDisk(t, "600m")
			server := newServer(t, pgserver.Config{Dir: filepath.Join(disk, "pg"), Throwaway: !reserved, Synced: !reserved})
			if err := errors.Join(server.Init(t.Context()), server.Start(t.Context())); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				ctx := context.WithoutCancel(t.Context())
				if err := server.Kill(ctx); err != nil && !errors.Is(err, pgserver.ErrNotRunning) {
					t.Error(err)
				}
				if err := server.Remove(ctx); err != nil {
					t.Error(err)
				}
			})
			conn, err := pgx.Connect(t.Context(), url(t, server))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close(context.WithoutCancel(t.Context()))
			if _, err := conn.Exec(t.Context(), "CREATE TABLE deeds AS SELECT 42 AS id"); err != nil {
				t.Fatal(err)
			}
			fill(t, filepath.Join(disk, "ballast"))
			// Between checkpoints comes half of what the log takes, as the server itself would have it.
			for range 8 {
				for range 8 {
					if err == nil {
						_, err = conn.Exec(t.Context(), "SELECT pg_logical_emit_message(false, 'test', repeat('0', 8 << 20))")
					}
				}
				if err == nil {
					_, err = conn.Exec(t.Context(), "CHECKPOINT")
				}
			}
			if !reserved {
				if err == nil {
					t.Error("nothing ends a server without a reserve: the reserve shows nothing")
				}
				return
			}
			if err != nil {
				t.Fatalf("its log ended the server on a full disk: %v", err)
			}
			if got := ask(t, server, "SELECT id::text FROM deeds"); got != "42" {
				t.Errorf("a read on a full disk says %q, want 42", got)
			}
		})
	}
}

// smallDisk is a disk of that size, in memory, where any user can walk.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := reachableDir(t)
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size="+size+",mode=755", "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("NOT PLAYED: a small disk can't be mounted here, so a full one is not tested: %v: %s", err, out)
	}
	t.Cleanup(func() {
		// The children of a server that was killed, or that its disk ended, end when they notice.
		given := time.After(time.Minute)
		for {
			out, err := exec.Command("umount", dir).CombinedOutput()
			if err == nil {
				return
			}
			select {
			case <-given:
				t.Errorf("umount: %v: %s", err, out)
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	})
	return dir
}

// fill leaves no room on a disk.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; ; {
		_, err := f.Write(make([]byte, size))
		switch {
		case errors.Is(err, syscall.ENOSPC) && size > 1:
			size /= 2
		case errors.Is(err, syscall.ENOSPC):
			return
		case err != nil:
			t.Fatal(err)
		}
	}
}
