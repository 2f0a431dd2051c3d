package plane

import (
	"context"
	"errors"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/fault"
	"a3os.app/tools/fleet/internal/operate"
	"a3os.app/tools/fleet/internal/rollout"
)

// Where a blueprint says nothing that anybody may ask a set, nothing is asked, and nothing counts as a request that was answered.
func TestSetThatNobodyCanAskIsNotProbed(t *testing.T) {
	if probe := (&Plane{blueprint: &blueprint.Blueprint{Name: "mute"}}).probe(); probe != nil {
		t.Error("it is probed")
	}
	if probe := (&Plane{blueprint: &blueprint.Blueprint{Name: "notes", Answers: "/up"}}).probe(); probe == nil {
		t.Error("one that answers is not probed")
	}
	if err := (operate.Front{}).Ask(t.Context()); err == nil {
		t.Error("what asked nothing heard that all is well")
	}
}

// worked is a registry that has one operation of a rollout, and refuses to have it given up. It is a fake, for a real one can't be held in the
// moment in which somebody else takes the operation up.
type worked struct {
	registryv1.UnimplementedOperationServiceServer
	registryv1.UnimplementedOperationWriteServiceServer
	refuses error
}

func (w *worked) GetOperation(_ context.Context, req *registryv1.GetOperationRequest) (*registryv1.GetOperationResponse, error) {
	return &registryv1.GetOperationResponse{Operation: &registryv1.Operation{Id: req.GetOperationId(), RolloutId: "rol_1",
		Kind: registryv1.OperationKind_OPERATION_KIND_UPGRADE, State: registryv1.OperationState_OPERATION_STATE_UNFINISHED}}, nil
}

func (w *worked) AbortOperation(context.Context, *registryv1.AbortOperationRequest) (*registryv1.AbortOperationResponse, error) {
	return nil, fault.Status(w.refuses)
}

// Somebody else who works on the upgrade that is in the way of going back is waited for; whatever else keeps it from being given up is not.
func TestUpgradeInTheWayThatSomebodyWorksOnIsWaitedFor(t *testing.T) {
	for name, c := range map[string]struct {
		refuses error
		is      bool
	}{
		"somebody works on it": {fault.Declare(fault.Aborted, "LEASE_LOST", "the lease is not this one: ben took it"), true},
		"its keys are gone":    {fault.New(fault.FailedPrecondition, "it began to destroy the tenant's keys"), false},
	} {
		t.Run(name, func(t *testing.T) {
			listener, server := bufconn.Listen(1<<16), grpc.NewServer()
			registryv1.RegisterOperationServiceServer(server, &worked{refuses: c.refuses})
			registryv1.RegisterOperationWriteServiceServer(server, &worked{refuses: c.refuses})
			go func() { _ = server.Serve(listener) }()
			t.Cleanup(server.Stop)
			conn, err := grpc.NewClient("passthrough:///registry", grpc.WithTransportCredentials(insecure.NewCredentials()),
				grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_, _, err = (&rolloutOperator{conn: conn}).last(t.Context(), &registryv1.Rollout{Id: "rol_1"}, &registryv1.RolloutTenant{},
				&registryv1.TenantStatus{Tenant: &registryv1.Tenant{LastOperation: "opr_1"}}, registryv1.OperationKind_OPERATION_KIND_DOWNGRADE)
			if err == nil || errors.Is(err, rollout.ErrInHand) != c.is {
				t.Errorf("it is told %v", err)
			}
		})
	}
}
