package operate

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/tools/fleet/internal/platform"
)

// ending is a registry that ends an operation, and answers nobody who asked for that.
type ending struct {
	registryv1.UnimplementedOperationServiceServer
	registryv1.UnimplementedOperationWriteServiceServer
	// to is how it ends.
	to registryv1.OperationState
}

func (e *ending) GetOperation(context.Context, *registryv1.GetOperationRequest) (*registryv1.GetOperationResponse, error) {
	return &registryv1.GetOperationResponse{Operation: &registryv1.Operation{Id: "opr_1", State: e.to}}, nil
}

func (e *ending) FinishOperation(ctx context.Context, _ *registryv1.FinishOperationRequest) (*registryv1.FinishOperationResponse, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (e *ending) RenewLease(context.Context, *registryv1.RenewLeaseRequest) (*registryv1.RenewLeaseResponse, error) {
	return nil, fault.Status(fault.Declare(fault.FailedPrecondition, "OPERATION_ENDED", "the operation has ended"))
}

func (e *ending) ReleaseLease(context.Context, *registryv1.ReleaseLeaseRequest) (*registryv1.ReleaseLeaseResponse, error) {
	return &registryv1.ReleaseLeaseResponse{}, nil
}

// bare is a platform that has planned nothing.
type bare struct{ platform.Platform }

// The lease is renewed beside the word that ends the operation. Where that word's answer is late, as on a machine that is busy, the renewal hears of the
// end first: whoever ended it has not failed. Somebody else who gave it up has ended it as well, and then it has.
func TestRenewalThatHearsOfTheEndBeforeItsAnswerIsNoFailure(t *testing.T) {
	for to, wants := range map[registryv1.OperationState]string{
		registryv1.OperationState_OPERATION_STATE_SUCCEEDED: "",
		registryv1.OperationState_OPERATION_STATE_ABORTED:   "the operation has ended; take it up with fleet operation resume opr_1",
	} {
		synctest.Test(t, func(t *testing.T) {
			listener, server := bufconn.Listen(1<<16), grpc.NewServer()
			registryv1.RegisterOperationServiceServer(server, &ending{to: to})
			registryv1.RegisterOperationWriteServiceServer(server, &ending{to: to})
			go func() { _ = server.Serve(listener) }()
			conn, err := grpc.NewClient("passthrough:///registry", append(Patient(), grpc.WithTransportCredentials(insecure.NewCredentials()),
				grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))...)
			if err != nil {
				t.Fatal(err)
			}
			op := &registryv1.Operation{Id: "opr_1", Kind: registryv1.OperationKind_OPERATION_KIND_SUSPEND, State: registryv1.OperationState_OPERATION_STATE_UNFINISHED}
			e := &Engine{Conn: conn, Platform: bare{}, Blueprint: &blueprint.Blueprint{}, Report: silent{}, Lock: func(context.Context) (func(), error) { return func() {}, nil }}
			w := &work{Engine: e, op: op, looked: true, tenant: &registryv1.TenantStatus{Tenant: &registryv1.Tenant{Id: id.NewTenant().String(), Slug: "acme"}}}
			w.lease = &lease{e, op.GetId(), "token"}
			got, err := w.carry(t.Context())
			if err == nil {
				err = errors.New("")
			}
			if got.GetState() != to && wants == "" || !strings.HasSuffix(err.Error(), wants) || wants == "" && err.Error() != "" {
				t.Errorf("one that is %s ended with %q, and is said to be %s", to, err, got.GetState())
			}
			_ = conn.Close()
			server.Stop()
			synctest.Wait()
		})
	}
}

// A part of a rollout is given up by that, which may go back: whoever reads why it failed is not told to go on with it.
func TestPartOfARolloutThatIsCutOffLeadsToTheRollout(t *testing.T) {
	for rollout, says := range map[string]string{"": "fleet operation resume opr_1", "rol_1": "fleet rollout status rol_1"} {
		w := &work{op: &registryv1.Operation{Id: "opr_1", RolloutId: rollout, Kind: registryv1.OperationKind_OPERATION_KIND_UPGRADE}}
		if err := w.cutOff(errors.New("its release does not start")); !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "resume") != (rollout == "") {
			t.Errorf("of rollout %q: %v", rollout, err)
		}
	}
}
