package server

import (
	"context"

	"connectrpc.com/connect"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"

	"a3os.app/services/discovery/internal/answer"
)

// Access serves AccessService.
type Access struct{ answers *answer.Answers }

// NewAccess makes the handlers.
func NewAccess(a *answer.Answers) *Access { return &Access{answers: a} }

// ListResources pages through resources.
func (h *Access) ListResources(ctx context.Context, req *connect.Request[discoveryv1.ListResourcesRequest]) (*connect.Response[discoveryv1.ListResourcesResponse], error) {
	return reply(h.answers.Resources(ctx, req.Msg))
}

// ListHolders answers who has access to a resource.
func (h *Access) ListHolders(ctx context.Context, req *connect.Request[discoveryv1.ListHoldersRequest]) (*connect.Response[discoveryv1.ListHoldersResponse], error) {
	return reply(h.answers.Holders(ctx, req.Msg))
}

// ExplainAccess answers why.
func (h *Access) ExplainAccess(ctx context.Context, req *connect.Request[discoveryv1.ExplainAccessRequest]) (*connect.Response[discoveryv1.ExplainAccessResponse], error) {
	return reply(h.answers.Explain(ctx, req.Msg))
}

// ListAccess answers what a principal reaches.
func (h *Access) ListAccess(ctx context.Context, req *connect.Request[discoveryv1.ListAccessRequest]) (*connect.Response[discoveryv1.ListAccessResponse], error) {
	return reply(h.answers.Reaches(ctx, req.Msg))
}

// ListGrants pages through grants.
func (h *Access) ListGrants(ctx context.Context, req *connect.Request[discoveryv1.ListGrantsRequest]) (*connect.Response[discoveryv1.ListGrantsResponse], error) {
	return reply(h.answers.Grants(ctx, req.Msg))
}

// ListChanges answers what came and went between two runs.
func (h *Access) ListChanges(ctx context.Context, req *connect.Request[discoveryv1.ListChangesRequest]) (*connect.Response[discoveryv1.ListChangesResponse], error) {
	return reply(h.answers.Changes(ctx, req.Msg))
}
