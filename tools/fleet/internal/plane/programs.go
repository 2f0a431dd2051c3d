package plane

import (
	"context"
	"os"
	"path/filepath"

	"a3os.app/libs/pgserver"
	"a3os.app/tools/fleet/internal/state"
)

// programs finds PostgreSQL's. While a plane runs they are those that it was brought up with, as long as they are the same file: to ask each
// installation of a machine what it is takes longer than much that a command does.
func (p *Plane) programs(ctx context.Context) (pgserver.Binaries, error) {
	if known := p.state.Postgres; known != nil && os.Getenv("A3_PG_BIN") == "" && p.supervisor.Ping(ctx) == nil && *known == stamped(known.Binaries) {
		return known.Binaries, nil
	}
	found, err := pgserver.Find(ctx, pgserver.Options{Progress: p.report.Note})
	if err != nil {
		return found, err
	}
	// Up writes it down.
	programs := stamped(found)
	p.state.Postgres = &programs
	return found, nil
}

// stamped is an installation with what its server's file is like now.
func stamped(b pgserver.Binaries) state.Programs {
	out := state.Programs{Binaries: b}
	if info, err := os.Stat(filepath.Join(b.Dir, "postgres")); err == nil {
		out.Size, out.Changed = info.Size(), info.ModTime().UnixNano()
	}
	return out
}
