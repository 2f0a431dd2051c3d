package local

import (
	"context"

	"a3os.app/libs/config"
	"a3os.app/tools/fleet/internal/platform"
)

// Reader lends a login that reads, until it is taken back.
func (p *Platform) Reader(ctx context.Context, s platform.Set) (config.Secret, func() error, error) {
	return p.reader(ctx, s)
}
