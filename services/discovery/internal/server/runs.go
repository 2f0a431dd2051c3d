// Package server is discovery's API: handlers that hand over to runs and answers, and know nothing else.
package server

import (
	"context"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/page"
	"a3os.app/services/discovery/internal/runs"
)

// Runs serves RunService, RunWriteService, IngestService and SourceService.
type Runs struct {
	runs  *runs.Runs
	pages *page.Sealer
}

// NewRuns makes the handlers.
func NewRuns(r *runs.Runs, pages *page.Sealer) *Runs { return &Runs{runs: r, pages: pages} }

// GetRun answers one run.
func (h *Runs) GetRun(ctx context.Context, req *connect.Request[discoveryv1.GetRunRequest]) (*connect.Response[discoveryv1.Run], error) {
	return reply(h.runs.Get(ctx, req.Msg.GetRunId()))
}

// ListRuns pages through runs, newest first.
func (h *Runs) ListRuns(ctx context.Context, req *connect.Request[discoveryv1.ListRunsRequest]) (*connect.Response[discoveryv1.ListRunsResponse], error) {
	const method = "ListRuns"
	var integration id.Integration
	if err := integration.UnmarshalText([]byte(req.Msg.GetIntegrationId())); err != nil {
		return nil, fault.New(fault.InvalidArgument, "integration_id: %v", err)
	}
	var before id.Run
	if err := h.pages.Open(ctx, method, integration, req.Msg.GetPageToken(), &before); err != nil {
		return nil, err
	}
	size := page.Size(req.Msg.GetPageSize())
	views, err := h.runs.List(ctx, integration, before, size+1)
	if err != nil {
		return nil, err
	}
	res := &discoveryv1.ListRunsResponse{Runs: views}
	if len(views) > int(size) {
		res.Runs = views[:size]
		last, err := id.ParseRun(views[size-1].GetId())
		if err != nil {
			return nil, err
		}
		if res.NextPageToken, err = h.pages.Seal(ctx, method, integration, last); err != nil {
			return nil, err
		}
	}
	return connect.NewResponse(res), nil
}

// WatchRun sends the run whenever it changed, until it has ended.
func (h *Runs) WatchRun(ctx context.Context, req *connect.Request[discoveryv1.WatchRunRequest], stream *connect.ServerStream[discoveryv1.Run]) error {
	const lookEvery = 300 * time.Millisecond
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var sent *discoveryv1.Run
	for {
		run, err := h.runs.Get(ctx, req.Msg.GetRunId())
		if err != nil {
			return err
		}
		if sent == nil || !proto.Equal(sent, run) {
			if err := stream.Send(run); err != nil {
				return err
			}
			sent = run
		}
		switch run.GetState() {
		case integrationsv1.RunState_RUN_STATE_COMPLETE, integrationsv1.RunState_RUN_STATE_PARTIAL,
			integrationsv1.RunState_RUN_STATE_FAILED, integrationsv1.RunState_RUN_STATE_CANCELLED:
			return nil
		default:
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// StartRun asks for a run.
func (h *Runs) StartRun(ctx context.Context, req *connect.Request[discoveryv1.StartRunRequest]) (*connect.Response[discoveryv1.Run], error) {
	return reply(h.runs.Start(ctx, req.Msg))
}

// CancelRun stops a run.
func (h *Runs) CancelRun(ctx context.Context, req *connect.Request[discoveryv1.CancelRunRequest]) (*connect.Response[discoveryv1.Run], error) {
	return reply(h.runs.Cancel(ctx, req.Msg))
}

// BeginSlice claims a slice.
func (h *Runs) BeginSlice(ctx context.Context, req *connect.Request[discoveryv1.BeginSliceRequest]) (*connect.Response[discoveryv1.BeginSliceResponse], error) {
	return reply(h.runs.BeginSlice(ctx, req.Msg.GetAttempt(), req.Msg.GetJobId()))
}

// IngestRecords stages records of the claimed slice.
func (h *Runs) IngestRecords(ctx context.Context, stream *connect.ClientStream[discoveryv1.IngestRecordsRequest]) (*connect.Response[discoveryv1.IngestRecordsResponse], error) {
	in, err := h.runs.Open(ctx)
	if err != nil {
		return nil, err
	}
	for stream.Receive() {
		if err := in.Put(ctx, stream.Msg().GetAttempt(), stream.Msg().GetRecords()); err != nil {
			return nil, err
		}
	}
	if err := stream.Err(); err != nil {
		return nil, err
	}
	return connect.NewResponse(&discoveryv1.IngestRecordsResponse{Staged: in.Staged()}), nil
}

// SealSlice makes what was staged count.
func (h *Runs) SealSlice(ctx context.Context, req *connect.Request[discoveryv1.SealSliceRequest]) (*connect.Response[discoveryv1.SealSliceResponse], error) {
	state, err := h.runs.Seal(ctx, req.Msg)
	return reply(&discoveryv1.SealSliceResponse{State: state}, err)
}

// ReportProgress notes what is being read.
func (h *Runs) ReportProgress(ctx context.Context, req *connect.Request[discoveryv1.ReportProgressRequest]) (*connect.Response[discoveryv1.ReportProgressResponse], error) {
	stop, err := h.runs.Progress(ctx, req.Msg.GetAttempt(), req.Msg.GetProgress())
	return reply(&discoveryv1.ReportProgressResponse{Stop: stop}, err)
}

// FailRun ends a run that can't go on.
func (h *Runs) FailRun(ctx context.Context, req *connect.Request[discoveryv1.FailRunRequest]) (*connect.Response[discoveryv1.FailRunResponse], error) {
	return reply(&discoveryv1.FailRunResponse{}, h.runs.Fail(ctx, req.Msg.GetAttempt(), req.Msg.GetError()))
}

func reply[M any](m *M, err error) (*connect.Response[M], error) {
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(m), nil
}

// RetireSource closes what a removed integration showed.
func (h *Runs) RetireSource(ctx context.Context, req *connect.Request[discoveryv1.RetireSourceRequest]) (*connect.Response[discoveryv1.RetireSourceResponse], error) {
	closed, err := h.runs.Retire(ctx, req.Msg.GetIntegrationId())
	return reply(&discoveryv1.RetireSourceResponse{GrantsClosed: closed}, err)
}
