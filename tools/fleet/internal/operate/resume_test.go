package operate_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/deploy/blueprint"
	"a3os.app/tools/fleet/internal/holder"
	"a3os.app/tools/fleet/internal/operate"
	"a3os.app/tools/fleet/internal/platform"
)

// here is a platform that says where it is. Nothing else is asked of it before the lease is.
type here struct{ platform.Platform }

func (here) Name() string { return "local" }

func (here) Where(context.Context) (platform.Where, error) {
	return platform.Where{Account: "box-1/plane-1", Region: "local"}, nil
}

// oneOperation is a registry that has one operation with its plan, and gives its lease to nobody: who asks for it has come far enough. That a
// real one gives it, and what is done then, the system tests see.
type oneOperation struct {
	registryv1.UnimplementedOperationServiceServer
	registryv1.UnimplementedOperationWriteServiceServer
	registryv1.UnimplementedPlanServiceServer
	operation *registryv1.Operation
	plan      *registryv1.StoredPlan
}

func (r oneOperation) GetOperation(context.Context, *registryv1.GetOperationRequest) (*registryv1.GetOperationResponse, error) {
	return &registryv1.GetOperationResponse{Operation: r.operation}, nil
}

func (r oneOperation) GetPlan(context.Context, *registryv1.GetPlanRequest) (*registryv1.GetPlanResponse, error) {
	return &registryv1.GetPlanResponse{Plan: r.plan}, nil
}

func (oneOperation) TakeLease(context.Context, *registryv1.TakeLeaseRequest) (*registryv1.TakeLeaseResponse, error) {
	return nil, status.Error(codes.FailedPrecondition, "the lease was asked for")
}

type notes []string

func (*notes) Done(string, time.Duration) {}
func (n *notes) Note(text string)         { *n = append(*n, text) }

// What is half done goes on where its plan was made for, by the blueprint that was approved with it, and nowhere else; a tenant that leaves goes on
// to leave, whatever blueprint there is by then.
func TestOperationIsTakenUpWhereItsPlanIsFor(t *testing.T) {
	t.Parallel()
	const asked, other = "the lease was asked for", "not taken up here"
	leaving := func(_ *registryv1.Plan, o *registryv1.Operation) {
		o.Kind = registryv1.OperationKind_OPERATION_KIND_OFFBOARD
	}
	blueprintOther := func(p *registryv1.Plan, _ *registryv1.Operation) { p.BlueprintDigest = "sha256:2" }
	accountOther := func(p *registryv1.Plan, _ *registryv1.Operation) { p.Account = "box-2/plane-2" }
	hostOther := func(p *registryv1.Plan, _ *registryv1.Operation) { p.Account = "box-2/plane-1" }
	type changes []func(*registryv1.Plan, *registryv1.Operation)
	for name, c := range map[string]struct {
		change changes
		says   []string
		noted  string
	}{
		"all as planned":                   {nil, []string{asked}, ""},
		"another plane":                    {changes{func(p *registryv1.Plan, _ *registryv1.Operation) { p.Plane = "prod" }}, []string{other, "for plane prod"}, ""},
		"another account":                  {changes{accountOther}, []string{other, "for account box-2", "fleet operation abort opr_1"}, ""},
		"another blueprint":                {changes{blueprintOther}, []string{other, "with the digest sha256:2", "fleet operation abort opr_1"}, ""},
		"another blueprint, of who leaves": {changes{blueprintOther, leaving}, []string{asked}, "with the digest sha256:2"},
		"another account, of who leaves":   {changes{accountOther, leaving}, []string{other, "for account box-2"}, ""},
		"another host":                     {changes{hostOther}, []string{other, "for account box-2/plane-1"}, ""},
		"another host, of who leaves":      {changes{hostOther, leaving}, []string{asked}, "box-2/plane-1, where this plane was before"},
		"another host, and region, of who leaves": {changes{hostOther, leaving, func(p *registryv1.Plan, _ *registryv1.Operation) { p.Region = "eu-central-1" }},
			[]string{other, "for region eu-central-1"}, ""},
		"a plan that somebody changed": {changes{func(_ *registryv1.Plan, o *registryv1.Operation) { o.PlanHash = "changed" }},
			[]string{"not the one with the hash"}, ""},
		"ended": {changes{accountOther, func(_ *registryv1.Plan, o *registryv1.Operation) {
			o.State = registryv1.OperationState_OPERATION_STATE_ABORTED
		}}, []string{asked}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			planned := &registryv1.Plan{Plane: "dev", Platform: "local", Account: "box-1/plane-1", Region: "local", Blueprint: "notes", BlueprintDigest: "sha256:1"}
			r := oneOperation{operation: &registryv1.Operation{Id: "opr_1", State: registryv1.OperationState_OPERATION_STATE_UNFINISHED}}
			for _, change := range c.change {
				change(planned, r.operation)
			}
			document, err := proto.Marshal(planned)
			if err != nil {
				t.Fatal(err)
			}
			sum := sha256.Sum256(document)
			r.plan = &registryv1.StoredPlan{Document: document, Hash: "sha256:" + hex.EncodeToString(sum[:])}
			if r.operation.GetPlanHash() == "changed" {
				r.plan.Hash = "sha256:0"
			}
			r.operation.PlanHash = r.plan.GetHash()
			said := &notes{}
			e := &operate.Engine{Platform: here{}, Blueprint: &blueprint.Blueprint{Name: "notes", Digest: "sha256:1"}, Registry: operate.Registry{Plane: "dev"},
				Conn: served(t, r), Memory: holder.Memory(t.TempDir()), Report: said}
			_, err = e.Resume(t.Context(), "opr_1")
			if err == nil {
				err = errors.New("nothing")
			}
			for _, says := range c.says {
				if !strings.Contains(err.Error(), says) {
					t.Errorf("it ended with %q, want %q", err, says)
				}
			}
			if noted := strings.Join(*said, "\n"); !strings.Contains(noted, c.noted) || (noted == "") != (c.noted == "") {
				t.Errorf("it is said %q, want %q", noted, c.noted)
			}
		})
	}
}

// served is a connection to a registry of the test's.
func served(t *testing.T, r oneOperation) *grpc.ClientConn {
	t.Helper()
	listener, server := bufconn.Listen(1<<16), grpc.NewServer()
	registryv1.RegisterOperationServiceServer(server, r)
	registryv1.RegisterOperationWriteServiceServer(server, r)
	registryv1.RegisterPlanServiceServer(server, r)
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
