package systemtest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// A plane's server has connections for a hundred sets. One that nobody calls gives back what its start opened, so that a hundredth is more than it
// holds; and while it is upgraded, under load, it never holds more than its pools do once: two releases' processes don't hold theirs together,
// although its roles may.
func TestSetHoldsFewConnections(t *testing.T) {
	full(t)
	t.Parallel()
	dir := walkable(t)
	p := planeIn(t, dir, "A3_TENANTS=acme", "A3_UNIX_TENANTS=none", "A3_BACKUP_EVERY=none")
	p.programs = filepath.Join(dir, "bin")
	p.install(t, "")
	if err := p.up(t.Context()); err != nil {
		t.Fatal(err)
	}
	x := p.tenants["acme"]
	owner := x.admin(t)
	w := x.workspace(t, owner).GetId()
	conn := p.superuser(t, "postgres", "postgres")

	const sets, atRest, settles = 100, 12, 4 * time.Minute
	if has, _ := strconv.Atoi(column(t, conn, "SHOW max_connections")[0]); has < sets*atRest {
		t.Errorf("the server has %d connections: %d sets that nobody calls may hold %d", has, sets, sets*atRest)
	}
	took := within(t, settles, func() error {
		if held := x.connections(t, conn); len(held) > atRest {
			return fmt.Errorf("nobody calls it, and it holds %d connections: %v", len(held), held)
		}
		return nil
	})
	t.Logf("%s after its start it holds %v", took.Round(time.Second), x.connections(t, conn))

	allowed, err := strconv.Atoi(column(t, conn, "SELECT coalesce(sum(rolconnlimit), 0)::text FROM pg_roles WHERE starts_with(rolname, '"+x.id+"_') AND rolname <> '"+x.id+"_owner'")[0])
	if err != nil || allowed == 0 {
		t.Fatalf("its roles may hold %d connections: %v", allowed, err)
	}
	// Each role may hold twice what its pool does.
	pools := allowed / 2
	l := newLoad(t, owner, w)
	l.healed(t, "the load began")
	p.install(t, "a newer release, which runs the same")
	upgraded := make(chan error, 1)
	go func() { upgraded <- p.up(t.Context()) }()
	most := []string(nil)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	before := column(t, conn, "SELECT pid::text FROM pg_stat_activity WHERE datname = '"+x.id+"'")
	for done := false; !done; {
		select {
		case err := <-upgraded:
			if err != nil {
				t.Fatal(err)
			}
			done = true
		case <-tick.C:
		}
		if held := x.connections(t, conn); len(held) > len(most) {
			most = held
		}
	}
	l.healed(t, "the upgrade")
	l.stop(t)
	for _, pid := range column(t, conn, "SELECT pid::text FROM pg_stat_activity WHERE datname = '"+x.id+"'") {
		if slices.Contains(before, pid) {
			t.Fatal("a process of before is connected still: nothing was upgraded")
		}
	}
	t.Logf("while it was upgraded it held up to %d, of pools of %d: %v", len(most), pools, most)
	if len(most) > pools {
		t.Errorf("while it was upgraded it held %d connections, its pools have %d: %v", len(most), pools, most)
	}
}

// install puts the programs under test where the plane's are; what follows accessos' own bytes has it be another release.
func (p *plane) install(t *testing.T, follows string) {
	t.Helper()
	const executable = 0o755
	if err := os.MkdirAll(p.programs, executable); err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{"accessos", "fleet", "a3"} {
		code, err := os.ReadFile(filepath.Join(programs, program))
		if err != nil {
			t.Fatal(err)
		}
		if program == "accessos" {
			code = append(code, follows...)
		}
		// One that runs is not written to.
		file := filepath.Join(p.programs, program)
		if err := os.WriteFile(file+".new", code, executable); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
}

// connections are the roles that hold the tenant's, once for each.
func (x *tenant) connections(t *testing.T, conn *pgx.Conn) []string {
	t.Helper()
	return column(t, conn, "SELECT substr(usename, length(datname) + 2) FROM pg_stat_activity WHERE datname = '"+x.id+"' AND starts_with(usename, datname || '_') ORDER BY 1")
}
