package operate

import (
	"slices"
	"strings"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/tools/fleet/internal/platform"
)

// Names of steps. A plan lists those of its tenants, the registry keeps how far each came.
const (
	StepFetch     = "fetch"
	StepIdentity  = "identity"
	StepDatabase  = "database"
	StepMigrate   = platform.StepMigrate
	StepMark      = "mark"
	StepStart     = platform.StepStart
	StepStop      = platform.StepStop
	StepPublish   = "publish"
	StepUnpublish = "unpublish"
	StepAnswer    = "answer"
	StepConfirm   = "confirm"
	StepExport    = "export"
	StepWait      = "wait"
	StepShred     = platform.StepShred
	StepDelete    = platform.StepDelete
	StepRemains   = "remains"
)

var steps = map[registryv1.OperationKind][]string{
	registryv1.OperationKind_OPERATION_KIND_PROVISION: {StepFetch, StepIdentity, StepDatabase, StepMigrate, StepMark, StepStart, StepPublish, StepAnswer},
	registryv1.OperationKind_OPERATION_KIND_UPGRADE:   {StepFetch, StepMigrate, StepStart, StepConfirm},
	registryv1.OperationKind_OPERATION_KIND_DOWNGRADE: {StepFetch, StepStart, StepConfirm},
	registryv1.OperationKind_OPERATION_KIND_SUSPEND:   {StepUnpublish, StepStop},
	registryv1.OperationKind_OPERATION_KIND_RESUME:    {StepIdentity, StepDatabase, StepStart, StepPublish, StepAnswer},
	registryv1.OperationKind_OPERATION_KIND_OFFBOARD:  {StepUnpublish, StepStop, StepExport, StepWait, StepShred, StepDelete, StepRemains},
	// What a restore is made of, for who reads its plan: it is no operation, and is done as a whole.
	registryv1.OperationKind_OPERATION_KIND_RESTORE: {"rehearse", StepStop, "restore", StepStart},
}

// Steps of a kind of operation, in order.
func Steps(kind registryv1.OperationKind) []string { return slices.Clone(steps[kind]) }

// Kind is what people call a kind of operation: `provision`.
func Kind(k registryv1.OperationKind) string {
	return strings.ToLower(strings.TrimPrefix(k.String(), "OPERATION_KIND_"))
}
