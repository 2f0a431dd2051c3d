package server_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/mod/sumdb/note"
	sumdb "golang.org/x/mod/sumdb/tlog"
	"google.golang.org/protobuf/types/known/timestamppb"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/page"
	"a3os.app/libs/scope"
	"a3os.app/libs/scope/scopetest"
	"a3os.app/libs/tlog"
	auditv1 "a3os.app/proto/gen/go/a3os/audit/v1"
	"a3os.app/proto/gen/go/a3os/audit/v1/auditv1connect"

	"a3os.app/services/audit/internal/audittest"
	"a3os.app/services/audit/internal/seal"
	"a3os.app/services/audit/internal/server"
)

// running is the service's handlers over real HTTP, with a scope that the test chooses in the place of the chain.
type running struct {
	db     *audittest.Database
	sealer *seal.Sealer
	signer *tlog.Signer
	scope  scope.Scope
	log    auditv1connect.LogServiceClient
	events auditv1connect.AuditServiceClient
	web    *httptest.Server
}

func start(t *testing.T) *running {
	t.Helper()
	r := &running{db: audittest.New(t), signer: audittest.Signer(t),
		scope: scope.Scope{Plane: "dev", Tenant: id.NewTenant(), Principal: scope.Principal(id.NewUser().String())}}
	db := r.db.DB(t)
	r.sealer = seal.New(db, r.signer)
	pages, err := page.NewSealer([]byte("a page key of the tests"))
	if err != nil {
		t.Fatal(err)
	}
	s := server.New(db, pages, r.signer.Verifier())
	mux := http.NewServeMux()
	opts := connect.WithInterceptors(faults{})
	mux.Handle(auditv1connect.NewAuditServiceHandler(s, opts))
	mux.Handle(auditv1connect.NewLogServiceHandler(s, opts))
	for _, route := range s.Routes() {
		mux.HandleFunc(route.Pattern, func(w http.ResponseWriter, req *http.Request) {
			if err := route.Serve(w, req); err != nil {
				http.Error(w, err.Error(), map[fault.Kind]int{fault.NotFound: 404, fault.PermissionDenied: 403}[fault.KindOf(err)])
			}
		})
	}
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		mux.ServeHTTP(w, req.WithContext(scopetest.With(req.Context(), r.scope)))
	}))
	t.Cleanup(web.Close)
	r.web = web
	r.log = auditv1connect.NewLogServiceClient(web.Client(), web.URL)
	r.events = auditv1connect.NewAuditServiceClient(web.Client(), web.URL)
	return r
}

// faults is the chain's link that gives errors their codes.
type faults struct{}

func (faults) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		res, err := next(ctx, req)
		if err != nil {
			return nil, fault.Connect(err)
		}
		return res, nil
	}
}

func (faults) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

func (faults) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		if err := next(ctx, conn); err != nil {
			return fault.Connect(err)
		}
		return nil
	}
}

// record puts events in and seals them.
func (r *running) record(t *testing.T, events ...*auditv1.Event) {
	t.Helper()
	audittest.Put(t, r.db.As(t, "role_iam"), events...)
	if err := r.sealer.Round(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// list reads all pages.
func (r *running) list(t *testing.T, req *auditv1.ListEventsRequest) []*auditv1.SealedEvent {
	t.Helper()
	var out []*auditv1.SealedEvent
	for {
		res, err := r.events.ListEvents(t.Context(), connect.NewRequest(req))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, res.Msg.GetEvents()...)
		if req.PageToken = res.Msg.GetNextPageToken(); req.GetPageToken() == "" {
			return out
		}
	}
}

func TestEventsAreListedNewestFirstPageByPageOnceEach(t *testing.T) {
	r := start(t)
	for i := range 25 {
		r.record(t, audittest.Event("iam.user.invited", fmt.Sprintf("usr_%d", i)))
	}
	got := r.list(t, &auditv1.ListEventsRequest{PageSize: 10})
	if len(got) != 25 {
		t.Fatalf("%d events, want 25", len(got))
	}
	for i, e := range got {
		if want := fmt.Sprintf("usr_%d", 24-i); e.GetEvent().GetTarget() != want || e.GetIndex() != int64(24-i) {
			t.Errorf("event %d is %d about %s, want %s", i, e.GetIndex(), e.GetEvent().GetTarget(), want)
		}
	}
}

func TestFiltersNarrowTheList(t *testing.T) {
	r := start(t)
	with := func(change func(*auditv1.Event)) *auditv1.Event {
		e := audittest.Event("iam.user.invited", "usr_a")
		change(e)
		return e
	}
	r.record(t,
		with(func(*auditv1.Event) {}),
		with(func(e *auditv1.Event) { e.Action = "iam.workspace.created" }),
		with(func(e *auditv1.Event) { e.Action = "iamx.thing" }),
		with(func(e *auditv1.Event) { e.Actor = "svc_x" }),
		with(func(e *auditv1.Event) { e.Target = "usr_b" }),
		with(func(e *auditv1.Event) { e.Outcome = auditv1.Outcome_OUTCOME_DENIED }))
	middle := timestamppb.Now()
	r.record(t, audittest.Event("discovery.run.started", "run_a"))
	for name, c := range map[string]struct {
		req  *auditv1.ListEventsRequest
		want []int64
	}{
		"all":           {&auditv1.ListEventsRequest{}, []int64{6, 5, 4, 3, 2, 1, 0}},
		"action":        {&auditv1.ListEventsRequest{Action: "iam.workspace.created"}, []int64{1}},
		"action prefix": {&auditv1.ListEventsRequest{Action: "iam."}, []int64{5, 4, 3, 1, 0}},
		"actor":         {&auditv1.ListEventsRequest{Actor: "svc_x"}, []int64{3}},
		"target":        {&auditv1.ListEventsRequest{Target: "usr_b"}, []int64{4}},
		"outcome":       {&auditv1.ListEventsRequest{Outcome: auditv1.Outcome_OUTCOME_DENIED}, []int64{5}},
		"since":         {&auditv1.ListEventsRequest{Since: middle}, []int64{6}},
		"until":         {&auditv1.ListEventsRequest{Until: middle}, []int64{5, 4, 3, 2, 1, 0}},
		"two at once":   {&auditv1.ListEventsRequest{Action: "iam.", Target: "usr_b"}, []int64{4}},
		"not LIKE":      {&auditv1.ListEventsRequest{Action: "%."}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var got []int64
			for _, e := range r.list(t, c.req) {
				got = append(got, e.GetIndex())
			}
			if fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("entries %v, want %v", got, c.want)
			}
		})
	}
}

func TestWorkspaceSeesItsOwnEventsAndNoneElse(t *testing.T) {
	r := start(t)
	mine, other := id.NewWorkspace(), id.NewWorkspace()
	for _, w := range []string{mine.String(), other.String(), "", mine.String(), "wsp_nonsense"} {
		e := audittest.Event("integrations.integration.created", "int_a")
		e.WorkspaceId = w
		r.record(t, e)
	}
	r.scope.Workspace = mine
	res, err := r.events.ListEvents(t.Context(), connect.NewRequest(&auditv1.ListEventsRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range res.Msg.GetEvents() {
		if e.GetEvent().GetWorkspaceId() != mine.String() {
			t.Errorf("an event of %q was shown to %s", e.GetEvent().GetWorkspaceId(), mine)
		}
	}
	if len(res.Msg.GetEvents()) != 2 || res.Msg.GetBacklog() != 0 {
		t.Errorf("%d events, backlog %d; want 2 and none told", len(res.Msg.GetEvents()), res.Msg.GetBacklog())
	}

	t.Run("even when somebody moved another's entry into it", func(t *testing.T) {
		r.db.Unlock(t)
		if _, err := r.db.As(t, "owner").Exec(t.Context(), "UPDATE audit.entries SET workspace_id = $1 WHERE idx = 1", mine); err != nil {
			t.Fatal(err)
		}
		if _, err := r.events.ListEvents(t.Context(), connect.NewRequest(&auditv1.ListEventsRequest{})); connect.CodeOf(err) != connect.CodeInternal {
			t.Errorf("err is %v, want internal", err)
		}
	})
	t.Run("and proves nothing about the whole log", func(t *testing.T) {
		_, err := r.log.GetCheckpoint(t.Context(), connect.NewRequest(&auditv1.GetCheckpointRequest{}))
		_, err2 := r.log.GetConsistencyProof(t.Context(), connect.NewRequest(&auditv1.GetConsistencyProofRequest{FromSize: 1, ToSize: 2}))
		_, err3 := r.log.GetInclusionProof(t.Context(), connect.NewRequest(&auditv1.GetInclusionProofRequest{EventId: id.NewEvent().String()}))
		_, err4 := r.log.ListCheckpoints(t.Context(), connect.NewRequest(&auditv1.ListCheckpointsRequest{}))
		stream, err5 := r.log.StreamLeaves(t.Context(), connect.NewRequest(&auditv1.StreamLeavesRequest{}))
		if err5 == nil {
			stream.Receive()
			err5 = stream.Err()
		}
		for i, err := range []error{err, err2, err3, err4, err5} {
			if connect.CodeOf(err) != connect.CodePermissionDenied {
				t.Errorf("call %d: %v, want permission_denied", i, err)
			}
		}
	})
}

func TestPageTokenIsWorthlessToAnotherCallerOrFilter(t *testing.T) {
	r := start(t)
	r.record(t, audittest.Event("a", "b"), audittest.Event("a", "b"))
	res, err := r.events.ListEvents(t.Context(), connect.NewRequest(&auditv1.ListEventsRequest{PageSize: 1}))
	if err != nil {
		t.Fatal(err)
	}
	token := res.Msg.GetNextPageToken()
	if _, err := r.events.ListEvents(t.Context(), connect.NewRequest(&auditv1.ListEventsRequest{PageToken: token, Actor: "x"})); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("with another filter: %v", err)
	}
	r.scope.Workspace = id.NewWorkspace()
	if _, err := r.events.ListEvents(t.Context(), connect.NewRequest(&auditv1.ListEventsRequest{PageToken: token})); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("in another scope: %v", err)
	}
}

func TestBacklogIsTold(t *testing.T) {
	r := start(t)
	audittest.Put(t, r.db.As(t, "role_iam"), audittest.Event("a", "b"), audittest.Event("a", "b"))
	res, err := r.events.ListEvents(t.Context(), connect.NewRequest(&auditv1.ListEventsRequest{}))
	if err != nil || res.Msg.GetBacklog() != 2 || len(res.Msg.GetEvents()) != 0 {
		t.Errorf("%v, %v; want a backlog of 2", res, err)
	}
}

func TestProofsHoldForAnIndependentVerifier(t *testing.T) {
	r := start(t)
	var events []*auditv1.Event
	for range 300 {
		events = append(events, audittest.Event("a", "b"))
	}
	r.record(t, events[:100]...)
	older := r.checkpoint(t)
	r.record(t, events[100:]...)
	newer := r.checkpoint(t)
	growth, err := r.log.GetConsistencyProof(t.Context(), connect.NewRequest(&auditv1.GetConsistencyProofRequest{FromSize: older.N, ToSize: newer.N}))
	if err != nil {
		t.Fatal(err)
	}
	if err := sumdb.CheckTree(hashes(growth.Msg.GetHashes()), newer.N, newer.Hash, older.N, older.Hash); err != nil {
		t.Error(err)
	}
	for _, at := range []int{0, 1, 99, 100, 255, 256, 299} {
		for _, tree := range []sumdb.Tree{older, newer} {
			in, err := r.log.GetInclusionProof(t.Context(), connect.NewRequest(&auditv1.GetInclusionProofRequest{EventId: events[at].GetId(), Size: tree.N}))
			if int64(at) >= tree.N {
				if connect.CodeOf(err) != connect.CodeInvalidArgument {
					t.Errorf("event %d in tree of %d: %v", at, tree.N, err)
				}
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			leaf := sumdb.RecordHash(in.Msg.GetEvent().GetLeaf())
			if err := sumdb.CheckRecord(hashes(in.Msg.GetHashes()), tree.N, tree.Hash, in.Msg.GetEvent().GetIndex(), leaf); err != nil {
				t.Errorf("event %d in tree of %d: %v", at, tree.N, err)
			}
			if in.Msg.GetEvent().GetEvent().GetId() != events[at].GetId() {
				t.Errorf("the proof is about %s", in.Msg.GetEvent().GetEvent().GetId())
			}
		}
	}
}

// checkpoint is the newest checkpoint as the Go checksum database's own code reads it.
func (r *running) checkpoint(t *testing.T) sumdb.Tree {
	t.Helper()
	res, err := r.log.GetCheckpoint(t.Context(), connect.NewRequest(&auditv1.GetCheckpointRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	key, err := note.NewVerifier(res.Msg.GetVerifierKey())
	if err != nil {
		t.Fatal(err)
	}
	n, err := note.Open([]byte(res.Msg.GetCheckpoint()), note.VerifierList(key))
	if err != nil {
		t.Fatal(err)
	}
	var origin, root string
	var tree sumdb.Tree
	if _, err := fmt.Sscanf(n.Text, "%s\n%d\n%s\n", &origin, &tree.N, &root); err != nil {
		t.Fatal(err)
	}
	if tree.Hash, err = sumdb.ParseHash(root); err != nil {
		t.Fatal(err)
	}
	if origin != r.signer.Verifier().Origin() {
		t.Errorf("origin is %q", origin)
	}
	return tree
}

func hashes(in [][]byte) []sumdb.Hash {
	out := make([]sumdb.Hash, len(in))
	for i, h := range in {
		out[i] = sumdb.Hash(h)
	}
	return out
}

func TestWhatTheLogDoesNotHaveIsRefused(t *testing.T) {
	r := start(t)
	if _, err := r.log.GetCheckpoint(t.Context(), connect.NewRequest(&auditv1.GetCheckpointRequest{})); !errors.Is(fault.FromRPC(err), tlog.ErrEmpty) {
		t.Errorf("checkpoint of an empty log: %v", err)
	}
	r.record(t, audittest.Event("a", "b"))
	for name, c := range map[string]struct {
		call func() error
		want connect.Code
	}{
		"an event that isn't there": {func() error {
			_, err := r.log.GetInclusionProof(t.Context(), connect.NewRequest(&auditv1.GetInclusionProofRequest{EventId: id.NewEvent().String()}))
			return err
		}, connect.CodeNotFound},
		"a tree that isn't there yet": {func() error {
			_, err := r.log.GetConsistencyProof(t.Context(), connect.NewRequest(&auditv1.GetConsistencyProofRequest{FromSize: 1, ToSize: 2}))
			return err
		}, connect.CodeInvalidArgument},
		"a tree that shrinks": {func() error {
			_, err := r.log.GetConsistencyProof(t.Context(), connect.NewRequest(&auditv1.GetConsistencyProofRequest{FromSize: 1, ToSize: 0}))
			return err
		}, connect.CodeInvalidArgument},
		"leaves past the end": {func() error {
			s, err := r.log.StreamLeaves(t.Context(), connect.NewRequest(&auditv1.StreamLeavesRequest{ToIndex: 9}))
			if err != nil {
				return err
			}
			s.Receive()
			return s.Err()
		}, connect.CodeInvalidArgument},
		"a time that is none": {func() error {
			_, err := r.events.ListEvents(t.Context(), connect.NewRequest(&auditv1.ListEventsRequest{Since: &timestamppb.Timestamp{Nanos: -1}}))
			return err
		}, connect.CodeInvalidArgument},
	} {
		if err := c.call(); connect.CodeOf(err) != c.want {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if at := r.list(t, &auditv1.ListEventsRequest{})[0].GetRecordedAt().AsTime(); time.Since(at) > time.Minute {
		t.Errorf("recorded at %v", at)
	}
}
