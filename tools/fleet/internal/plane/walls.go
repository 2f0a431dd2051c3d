package plane

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"a3os.app/tools/fleet/internal/accounts"
	"a3os.app/tools/fleet/internal/platform/local"
	"a3os.app/tools/fleet/internal/state"
)

// walls says how processes are kept apart on this machine, and what can't be.
func (p *Plane) walls(ctx context.Context, st *state.State) []string {
	if p.docker != nil {
		return p.containerWalls(ctx)
	}
	var out []string
	if why := accounts.Possible(); why != "" {
		out = append(out, fmt.Sprintf("Every process runs as user %d, because %s: who takes over one of them reads the files of all. A plane that root starts gives each a user of its own.",
			os.Geteuid(), why))
	} else if ids := slices.Sorted(maps.Values(st.Accounts())); len(ids) > 0 {
		out = append(out, fmt.Sprintf("Each process runs as a user of its own, of the ids %d to %d, which are nobody's: none can read another's files.", ids[0], ids[len(ids)-1]))
	}
	switch about, err := p.supervisor.About(ctx); {
	case err != nil:
	case about.Unbounded != "":
		out = append(out, fmt.Sprintf("Memory and CPU of processes are not bounded: %s.", about.Unbounded))
	default:
		out = append(out, "Each service has a bound of memory, CPU and processes, held by a cgroup: one that goes over it is ended alone.")
	}
	if m := p.Settings.MachineTenants; len(m) > 0 {
		how := "read by a process that opens the files which only root reads, gives up every right, and then looks into them: none of a password leaves it"
		if why := local.NoMachineReader(); why != "" {
			how = fmt.Sprintf("read with the rights of its discovery-worker, because %s: what those don't reach is named in completeness", why)
		}
		out = append(out, fmt.Sprintf("This machine is a system of %s, %s.", strings.Join(m, ", "), how))
	}
	return out
}

// Walls is what Status says of them. The plane is up.
func (p *Plane) Walls(ctx context.Context) []string { return p.walls(ctx, p.state) }
