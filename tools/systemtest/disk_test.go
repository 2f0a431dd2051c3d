package systemtest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Row F11: the disk that the plane lives on is full while people read and write. Writes are refused, reads go on; once there is room
// everything heals by itself, what was acknowledged is there, and neither PostgreSQL's own check nor the log's finds anything wrong.
func TestDatabaseStopsTakingWritesOnAFullDisk(t *testing.T) {
	full(t)
	t.Parallel()
	dir := walkable(t)
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1200m,mode=0711"); err != nil {
		t.Skipf("NOT PLAYED: a disk that can be filled needs a mount, which needs root: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	p := planeIn(t, dir, "A3_TENANTS=acme", "A3_UNIX_TENANTS=none")
	if err := p.up(t.Context()); err != nil {
		t.Fatal(err)
	}
	x := p.tenants["acme"]
	owner := x.admin(t)
	l := newLoad(t, owner, x.workspace(t, owner).GetId())
	l.healed(t, "the load began")
	before := p.pids(t)

	conn := p.superuser(t, "postgres", x.id)
	// What was made lies on the disk when the plane has a database for its next tenant.
	within(t, time.Minute, func() error {
		var there bool
		err := conn.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM pg_database WHERE starts_with(shobj_description(oid, 'pg_database'), 'a3 spare, whole'))").Scan(&there)
		if err == nil && !there {
			err = errors.New("there is no database for the next tenant")
		}
		return err
	})
	ballast := filepath.Join(dir, "ballast")
	fillUp(t, ballast)
	refused := 0
	within(t, time.Minute, func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		refused = 0
		for what, n := range l.errors {
			if what[:len("write")] == "write" {
				refused += n
			}
		}
		if refused < 20 {
			return fmt.Errorf("%d writes were refused", refused)
		}
		return nil
	})
	// Whatever writes there still are go on for hours: the log needs no room.
	for range 3 {
		for range 8 {
			if _, err := conn.Exec(t.Context(), "SELECT pg_logical_emit_message(false, 'test', repeat('0', 8 << 20))"); err != nil {
				t.Fatalf("its log ended the server: %v", err)
			}
		}
		if _, err := conn.Exec(t.Context(), "CHECKPOINT"); err != nil {
			t.Fatalf("no checkpoint comes to its end on a full disk: %v", err)
		}
	}
	if said := p.fleet(t, "status").String(); !strings.Contains(said, "0 MiB free") || !strings.Contains(said, "a-disk-fills") {
		t.Errorf("fleet status says nothing of a full disk:\n%s", said)
	}
	reads, _ := l.progress()
	const some = 50
	within(t, time.Minute, func() error {
		if now, _ := l.progress(); now < reads+some {
			return errors.New("reads are not answered while the disk is full")
		}
		return nil
	})
	l.mu.Lock()
	for what, n := range l.errors {
		if what[:len("read")] == "read" {
			t.Errorf("while the disk was full there failed %d times: %s", n, what)
		}
	}
	l.mu.Unlock()
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	l.healed(t, "there was room again")
	for name, pid := range p.pids(t) {
		if pid != before[name] {
			t.Errorf("%s ended when the disk was full", name)
		}
	}
	l.stop(t)
	sound(t, x)
	if s := p.tryA3(t, "acme-admin", "audit", "verify"); s.code != 0 {
		t.Errorf("audit verify: %s", s)
	}
	t.Attr("row", fmt.Sprint("F11 ", refused))
}

// fillUp writes a file until there is no room left.
func fillUp(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for block := make([]byte, 1<<20); ; {
		n, err := f.Write(block)
		switch {
		case errors.Is(err, syscall.ENOSPC) && len(block) > 1:
			block = block[:len(block)/2]
		case errors.Is(err, syscall.ENOSPC):
			return
		case err != nil || n == 0:
			t.Fatal(errors.Join(err, io.ErrShortWrite))
		}
	}
}

// sound has PostgreSQL check every index, that every row is in it, and every table of the tenant's database (amcheck).
func sound(t *testing.T, x *tenant) {
	t.Helper()
	conn := x.plane.superuser(t, "postgres", x.id)
	if _, err := conn.Exec(t.Context(), "CREATE EXTENSION IF NOT EXISTS amcheck"); err != nil {
		t.Logf("NOT PLAYED: PostgreSQL's own check, this server has no amcheck: %v", err)
		return
	}
	var indexes, tables, wrong int
	err := conn.QueryRow(t.Context(), `SELECT count(*) FROM (SELECT bt_index_check(i.indexrelid, true) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
		JOIN pg_am a ON a.oid = c.relam AND a.amname = 'btree' WHERE i.indisvalid AND c.relpersistence <> 't') x`).Scan(&indexes)
	if err != nil {
		t.Errorf("an index is not sound: %v", err)
	}
	err = conn.QueryRow(t.Context(), `SELECT count(DISTINCT c.oid), count(v.msg) FROM pg_class c JOIN pg_am a ON a.oid = c.relam AND a.amname = 'heap'
		LEFT JOIN LATERAL verify_heapam(c.oid) v ON true WHERE c.relkind = 'r' AND c.relpersistence <> 't'`).Scan(&tables, &wrong)
	if err != nil || wrong > 0 {
		t.Errorf("%d complaints about tables: %v", wrong, err)
	}
	t.Logf("%d indexes and %d tables are sound", indexes, tables)
	if _, err := conn.Exec(t.Context(), "DROP EXTENSION amcheck"); err != nil {
		t.Error(err)
	}
}
