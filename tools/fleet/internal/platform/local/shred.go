package local

import (
	"context"
	"errors"
	"fmt"
	"os"

	"a3os.app/tools/fleet/internal/platform"
)

// Shred implements platform.Platform: the set's keys and credentials go first, so that what was sealed with them can't be read any
// more, whatever copy of it is somewhere. The authority of the set goes with its directories at last, and its backups with the sealed copy of
// their key: until then the process that carries the steps out can be taken up with a certificate of that authority.
func (p *Platform) Shred(_ context.Context, s platform.Set) (changed bool, err error) {
	for _, dir := range []string{p.dir(s, "keys"), p.dir(s, "components"), p.dir(s, "database")} {
		if _, err := os.Lstat(dir); errors.Is(err, os.ErrNotExist) {
			continue
		}
		changed = true
		if err := os.RemoveAll(dir); err != nil {
			return changed, fmt.Errorf("destroy the keys of %s: %w", s.Name(), err)
		}
	}
	return changed, nil
}
