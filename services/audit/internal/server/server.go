// Package server answers the API of the log: AuditService for readers, LogService for those who verify. It relies on the chain for
// permissions, on row-level security beside its own filter for workspaces, and decides nothing about the log itself.
package server

import (
	"context"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/page"
	"a3os.app/libs/pg"
	"a3os.app/libs/scope"
	"a3os.app/libs/tlog"
	auditv1 "a3os.app/proto/gen/go/a3os/audit/v1"
	"a3os.app/proto/gen/go/a3os/audit/v1/auditv1connect"

	"a3os.app/services/audit/internal/ledger"
)

// Server implements AuditService and LogService.
type Server struct {
	tenant    ledger.Ledger
	workspace ledger.Ledger
	pages     *page.Sealer
	verifier  *tlog.Verifier
}

var (
	_ auditv1connect.AuditServiceHandler = (*Server)(nil)
	_ auditv1connect.LogServiceHandler   = (*Server)(nil)
)

// New makes the server of a log. The verifier is that of its key.
func New(db *pg.DB, pages *page.Sealer, verifier *tlog.Verifier) *Server {
	return &Server{tenant: ledger.New(db.Tenant), workspace: ledger.New(db.ReadWorkspace), pages: pages, verifier: verifier}
}

// filter is what a page token is bound to.
type filter struct {
	Action, Actor, Target string
	Since, Until          time.Time
	Outcome               auditv1.Outcome
}

// ListEvents pages through sealed events, newest first.
func (s *Server) ListEvents(ctx context.Context, req *connect.Request[auditv1.ListEventsRequest]) (*connect.Response[auditv1.ListEventsResponse], error) {
	sc, err := scope.From(ctx)
	if err != nil {
		return nil, err
	}
	m := req.Msg
	f := filter{Action: m.GetAction(), Actor: m.GetActor(), Target: m.GetTarget(), Outcome: m.GetOutcome()}
	if f.Since, err = instant("since", m.GetSince()); err != nil {
		return nil, err
	}
	if f.Until, err = instant("until", m.GetUntil()); err != nil {
		return nil, err
	}
	const newest = int64(1)<<62 - 1
	below := newest
	if err := s.pages.Open(ctx, auditv1connect.AuditServiceListEventsProcedure, f, m.GetPageToken(), &below); err != nil {
		return nil, err
	}
	book := s.tenant
	if !sc.Workspace.IsZero() {
		book = s.workspace
	}
	size := page.Size(m.GetPageSize())
	entries, err := book.Search(ctx, ledger.Filter{Workspace: sc.Workspace, Action: f.Action, Actor: f.Actor, Target: f.Target,
		Since: f.Since, Until: f.Until, Outcome: f.Outcome}, below, size+1)
	if err != nil {
		return nil, err
	}
	res := new(auditv1.ListEventsResponse)
	if len(entries) > int(size) {
		entries = entries[:size]
		res.NextPageToken, err = s.pages.Seal(ctx, auditv1connect.AuditServiceListEventsProcedure, f, entries[size-1].Index)
		if err != nil {
			return nil, err
		}
	}
	for _, e := range entries {
		res.Events = append(res.Events, sealed(e))
	}
	if sc.Workspace.IsZero() {
		if res.Backlog, err = s.tenant.Backlog(ctx); err != nil {
			return nil, err
		}
	}
	return connect.NewResponse(res), nil
}

// GetCheckpoint answers the newest signed checkpoint.
func (s *Server) GetCheckpoint(ctx context.Context, _ *connect.Request[auditv1.GetCheckpointRequest]) (*connect.Response[auditv1.GetCheckpointResponse], error) {
	if err := wholeLog(ctx); err != nil {
		return nil, err
	}
	h, err := s.tenant.Newest(ctx)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&auditv1.GetCheckpointResponse{Checkpoint: h.Note, VerifierKey: s.verifier.String()}), nil
}

// GetConsistencyProof proves that one tree begins with another.
func (s *Server) GetConsistencyProof(ctx context.Context, req *connect.Request[auditv1.GetConsistencyProofRequest]) (*connect.Response[auditv1.GetConsistencyProofResponse], error) {
	if err := wholeLog(ctx); err != nil {
		return nil, err
	}
	hashes, err := s.tenant.Consistency(ctx, req.Msg.GetFromSize(), req.Msg.GetToSize())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&auditv1.GetConsistencyProofResponse{Hashes: hashes}), nil
}

// GetInclusionProof proves that an event is in a tree.
func (s *Server) GetInclusionProof(ctx context.Context, req *connect.Request[auditv1.GetInclusionProofRequest]) (*connect.Response[auditv1.GetInclusionProofResponse], error) {
	if err := wholeLog(ctx); err != nil {
		return nil, err
	}
	event, err := id.ParseEvent(req.Msg.GetEventId())
	if err != nil {
		return nil, fault.New(fault.InvalidArgument, "event_id: %v", err)
	}
	in, err := s.tenant.Inclusion(ctx, event, req.Msg.GetSize())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&auditv1.GetInclusionProofResponse{
		Event: sealed(in.Entry), Size: in.Size, Hashes: in.Proof, Checkpoint: in.Head.Note,
	}), nil
}

// StreamLeaves sends every sealed leaf of a range, in order, as it is stored.
func (s *Server) StreamLeaves(ctx context.Context, req *connect.Request[auditv1.StreamLeavesRequest], stream *connect.ServerStream[auditv1.StreamLeavesResponse]) error {
	if err := wholeLog(ctx); err != nil {
		return err
	}
	h, err := s.tenant.Newest(ctx)
	if err != nil {
		return err
	}
	from, to := req.Msg.GetFromIndex(), req.Msg.GetToIndex()
	if to == 0 {
		to = h.Size
	}
	if from > to || to > h.Size {
		return fault.New(fault.InvalidArgument, "entries %d to %d were asked for, the newest checkpoint stands for %d", from, to, h.Size)
	}
	for from < to {
		// Each batch is a transaction of its own: a slow reader must not hold back the database's horizon.
		entries, err := s.tenant.Leaves(ctx, from, to)
		if err != nil {
			return err
		}
		if len(entries) == 0 {
			return nil // the log has less than its checkpoint says, which the reader sees
		}
		res := new(auditv1.StreamLeavesResponse)
		for _, e := range entries {
			res.Events = append(res.Events, sealed(e))
			res.LeafHashes = append(res.LeafHashes, e.Hash)
		}
		if err := stream.Send(res); err != nil {
			return err
		}
		from = entries[len(entries)-1].Index + 1
	}
	return nil
}

// ListCheckpoints answers the checkpoints that were signed, oldest first.
func (s *Server) ListCheckpoints(ctx context.Context, req *connect.Request[auditv1.ListCheckpointsRequest]) (*connect.Response[auditv1.ListCheckpointsResponse], error) {
	if err := wholeLog(ctx); err != nil {
		return nil, err
	}
	notes, next, err := s.tenant.Checkpoints(ctx, req.Msg.GetFromSize(), page.Size(req.Msg.GetPageSize()))
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&auditv1.ListCheckpointsResponse{Checkpoints: notes, NextFromSize: next}), nil
}

// wholeLog refuses a workspace's token: leaves and proofs are about every workspace of the tenant.
func wholeLog(ctx context.Context) error {
	sc, err := scope.From(ctx)
	if err != nil {
		return err
	}
	if !sc.Workspace.IsZero() {
		return fault.New(fault.PermissionDenied, "the log is the tenant's: use a token of the tenant, not of a workspace")
	}
	return nil
}

// sealed is an entry as the API tells it. The event is decoded from the leaf, so that what is shown is what was hashed; a leaf that
// can't be read is shown without one.
func sealed(e ledger.Entry) *auditv1.SealedEvent {
	out := &auditv1.SealedEvent{Index: e.Index, Leaf: e.Leaf}
	leaf, event, err := tlog.ParseLeaf(e.Leaf)
	if err == nil {
		out.Event = event
	}
	out.RecordedAt = timestamppb.New(time.UnixMicro(leaf.GetRecordedAtUs()))
	out.Producer = leaf.GetProducer()
	return out
}

func instant(field string, t *timestamppb.Timestamp) (time.Time, error) {
	if t == nil {
		return time.Time{}, nil
	}
	if err := t.CheckValid(); err != nil {
		return time.Time{}, fault.New(fault.InvalidArgument, "%s is not a time: give it as RFC 3339", field)
	}
	return t.AsTime(), nil
}
