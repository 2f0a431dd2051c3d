package discoveryworker

import (
	"context"
	"fmt"
	"os"

	"a3os.app/libs/garbage"
	"a3os.app/services/discoveryworker/internal/machine"
)

// MachineReaderConfig is what the role machine-reader is told: it holds nothing of a tenant's.
type MachineReaderConfig struct {
	Socket string   `env:"MACHINE_SOCKET" desc:"socket that the worker asks at"`
	UID    uint32   `env:"MACHINE_CLIENT" desc:"id of the user who may ask, the worker's"`
	Closed []string `env:"MACHINE_CLOSED" desc:"directories of the plane's own, which stay closed to it"`
}

// ReadMachine answers the worker with what only root may read of this machine, until ctx ends.
func ReadMachine(ctx context.Context, cfg MachineReaderConfig) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	garbage.AsAlways()
	return machine.Reader{Socket: cfg.Socket, UID: cfg.UID, Closed: cfg.Closed, Snapshot: []string{self, "machine-snapshot"}}.Run(ctx)
}

// SnapshotMachine reads this machine once, for ReadMachine, which starts it: it takes no configuration.
func SnapshotMachine(ctx context.Context, _ struct{}) error { return machine.Snapshot(ctx, os.Stdout) }
