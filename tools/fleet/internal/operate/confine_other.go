//go:build !linux

package operate

import (
	"log/slog"

	"a3os.app/tools/fleet/internal/platform"
)

// confine can't do anything here, and says so.
func confine(platform.Delegation) error {
	slog.Warn("this system has no Landlock: what keeps the process to one tenant's files is that it is told of no others")
	return nil
}
