package docker

import (
	"context"
	"fmt"
	"maps"
	"slices"
)

// Walls says, a sentence each, how containers are kept apart, and what isn't.
func (p *Platform) Walls(ctx context.Context) []string {
	out := []string{"Each component is a container: read-only, without capabilities or new privileges, under the engine's seccomp filter, bounded in memory, CPU and processes."}
	if ids := slices.Sorted(maps.Values(p.State.Accounts())); len(ids) > 0 {
		out = append(out, fmt.Sprintf("Each runs as a user of its own, of the ids %d to %d, which are nobody's.", ids[0], ids[len(ids)-1]))
	}
	if p.Rules().Standing(ctx) {
		out = append(out, fmt.Sprintf("Each tenant has a network of its own in %s; the packet filter (chains A3-%s-IN and -FWD) keeps it from the machine, from private networks and from every other one.", p.Settings.Networks, p.State.ID))
	} else {
		out = append(out, "The plane's packet filter is not in force: containers may reach what the machine listens on. Bring it back with `fleet plane up`.")
	}
	for _, n := range p.Settings.Outside {
		out = append(out, fmt.Sprintf("A3_OUTSIDE_NETWORKS lets every tenant's discovery reach %s.", n))
	}
	return append(out, "All containers share this machine's kernel and its Docker engine: whoever may speak to the engine is root here. A tenant sees none of this machine; nothing of it can be discovered.")
}
