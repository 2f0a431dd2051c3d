package plane

import registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

// stepsOf are the steps of a kind of operation, in order.
func stepsOf(kind registryv1.OperationKind) []string {
	return map[registryv1.OperationKind][]string{
		registryv1.OperationKind_OPERATION_KIND_PROVISION: {"fetch", "identity", "database", "migrate", "mark", "start", "publish", "answer"},
		registryv1.OperationKind_OPERATION_KIND_UPGRADE:   {"fetch", "migrate", "start", "confirm"},
		registryv1.OperationKind_OPERATION_KIND_DOWNGRADE: {"fetch", "start", "confirm"},
		registryv1.OperationKind_OPERATION_KIND_SUSPEND:   {"unpublish", "stop"},
		registryv1.OperationKind_OPERATION_KIND_RESUME:    {"identity", "start", "publish", "answer"},
		registryv1.OperationKind_OPERATION_KIND_OFFBOARD:  {"unpublish", "export", "stop", "shred", "delete", "remains"},
	}[kind]
}
