package server

import (
	"context"

	"connectrpc.com/connect"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
)

// CountUsage counts the runs that were begun since a time.
func (h *Runs) CountUsage(ctx context.Context, req *connect.Request[discoveryv1.CountUsageRequest]) (*connect.Response[discoveryv1.CountUsageResponse], error) {
	n, err := h.runs.Count(ctx, req.Msg.GetSince().AsTime())
	return reply(&discoveryv1.CountUsageResponse{Counts: map[string]int64{"discovery_runs": n}}, err)
}
