package docker

import (
	"context"

	"a3os.app/tools/fleet/internal/isolation"
	"a3os.app/tools/fleet/internal/platform"
)

// World is what every set holds, for who proves that they are isolated.
func (p *Platform) World(_ context.Context, sets []platform.Set, pids map[string]int) (*isolation.World, error) {
	return p.Machine.World(sets, pids)
}
