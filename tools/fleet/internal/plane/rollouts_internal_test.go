package plane

import (
	"context"
	"errors"
	"net"
	"slices"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/timestamppb"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/fault"
	"a3os.app/tools/fleet/internal/holder"
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
	registryv1.UnimplementedTenantServiceServer
	registryv1.UnimplementedOperationServiceServer
	registryv1.UnimplementedOperationWriteServiceServer
	refuses error
}

func (w *worked) GetOperation(_ context.Context, req *registryv1.GetOperationRequest) (*registryv1.GetOperationResponse, error) {
	return &registryv1.GetOperationResponse{Operation: &registryv1.Operation{Id: req.GetOperationId(), RolloutId: "rol_1",
		Kind: registryv1.OperationKind_OPERATION_KIND_UPGRADE, State: registryv1.OperationState_OPERATION_STATE_UNFINISHED, CreatedAt: timestamppb.Now()}}, nil
}

func (w *worked) AbortOperation(context.Context, *registryv1.AbortOperationRequest) (*registryv1.AbortOperationResponse, error) {
	return nil, fault.Status(w.refuses)
}

func (w *worked) GetTenant(context.Context, *registryv1.GetTenantRequest) (*registryv1.GetTenantResponse, error) {
	return &registryv1.GetTenantResponse{Status: &registryv1.TenantStatus{ServiceSet: &registryv1.ServiceSet{Release: "1.0.0"},
		Tenant: &registryv1.Tenant{Slug: "acme", State: registryv1.TenantState_TENANT_STATE_ACTIVE, LastOperation: "opr_1"}}}, nil
}

func (w *worked) TakeLease(_ context.Context, req *registryv1.TakeLeaseRequest) (*registryv1.TakeLeaseResponse, error) {
	return &registryv1.TakeLeaseResponse{Operation: &registryv1.Operation{Id: req.GetOperationId()}, LeaseToken: req.GetLeaseToken()}, nil
}

func (w *worked) ReleaseLease(context.Context, *registryv1.ReleaseLeaseRequest) (*registryv1.ReleaseLeaseResponse, error) {
	return &registryv1.ReleaseLeaseResponse{}, nil
}

// connected is a connection to it.
func (w *worked) connected(t *testing.T) *grpc.ClientConn {
	t.Helper()
	listener, server := bufconn.Listen(1<<16), grpc.NewServer()
	registryv1.RegisterTenantServiceServer(server, w)
	registryv1.RegisterOperationServiceServer(server, w)
	registryv1.RegisterOperationWriteServiceServer(server, w)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	conn, err := grpc.NewClient("passthrough:///registry", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// The rollout is told when an attempt of its waits for another command of the machine, and for no longer than it does.
func TestAttemptSaysThatItWaitsForAnotherCommand(t *testing.T) {
	conn, happened := (&worked{}).connected(t), []string{}
	tells := func(what string) { happened = append(happened, what) }
	stop := errors.New("that is all")
	engine := &operate.Engine{Conn: conn, Memory: holder.Memory(t.TempDir()), Lock: func(context.Context) (func(), error) {
		tells("it locks")
		return nil, stop
	}}
	err := (&rolloutOperator{conn: conn, engine: engine}).Bring(t.Context(), rollout.Attempt{
		Rollout: &registryv1.Rollout{Id: "rol_1", Release: "2.0.0"}, Tenant: &registryv1.RolloutTenant{TenantId: "tnt_1", Slug: "acme", ReleaseFrom: "1.0.0"}, Release: "2.0.0",
		Begun: func(operation string) error {
			tells(operation + " is begun")
			return nil
		},
		Waits: func(what string) func() {
			tells(what)
			return func() { tells("no more") }
		},
	})
	if want := []string{"opr_1 is begun", "another command changes this plane", "it locks", "no more"}; !slices.Equal(happened, want) || !errors.Is(err, stop) {
		t.Errorf("what happened is %q, and %v; want %q", happened, err, want)
	}
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
			conn := (&worked{refuses: c.refuses}).connected(t)
			_, _, err := (&rolloutOperator{conn: conn}).last(t.Context(), &registryv1.Rollout{Id: "rol_1"}, &registryv1.RolloutTenant{},
				&registryv1.TenantStatus{Tenant: &registryv1.Tenant{LastOperation: "opr_1"}}, registryv1.OperationKind_OPERATION_KIND_DOWNGRADE)
			if err == nil || errors.Is(err, rollout.ErrInHand) != c.is {
				t.Errorf("it is told %v", err)
			}
		})
	}
}
