package server

import (
	"context"

	"connectrpc.com/connect"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"

	"a3os.app/libs/page"
	"a3os.app/services/discovery/internal/letters"
)

// Letters serves DeadLetterService, AdminDeadLetterService and DeadLetterReportService.
type Letters struct {
	letters *letters.Letters
	pages   *page.Sealer
}

// NewLetters makes the handlers.
func NewLetters(l *letters.Letters, pages *page.Sealer) *Letters {
	return &Letters{letters: l, pages: pages}
}

// ReportDeadLetter keeps a message that is not delivered any more.
func (h *Letters) ReportDeadLetter(ctx context.Context, req *connect.Request[discoveryv1.ReportDeadLetterRequest]) (*connect.Response[discoveryv1.ReportDeadLetterResponse], error) {
	return reply(&discoveryv1.ReportDeadLetterResponse{}, h.letters.Keep(ctx, req.Msg))
}

// ListDeadLetters pages through dead letters, newest first.
func (h *Letters) ListDeadLetters(ctx context.Context, req *connect.Request[discoveryv1.ListDeadLettersRequest]) (*connect.Response[discoveryv1.ListDeadLettersResponse], error) {
	const method = "ListDeadLetters"
	var before int64
	if err := h.pages.Open(ctx, method, req.Msg.GetState(), req.Msg.GetPageToken(), &before); err != nil {
		return nil, err
	}
	views, next, err := h.letters.List(ctx, req.Msg.GetState(), before, page.Size(req.Msg.GetPageSize()))
	if err != nil {
		return nil, err
	}
	res := &discoveryv1.ListDeadLettersResponse{DeadLetters: views}
	if next > 0 {
		if res.NextPageToken, err = h.pages.Seal(ctx, method, req.Msg.GetState(), next); err != nil {
			return nil, err
		}
	}
	return connect.NewResponse(res), nil
}

// GetDeadLetter answers one.
func (h *Letters) GetDeadLetter(ctx context.Context, req *connect.Request[discoveryv1.GetDeadLetterRequest]) (*connect.Response[discoveryv1.DeadLetter], error) {
	return reply(h.letters.Get(ctx, req.Msg.GetDeadLetterId()))
}

// RetryDeadLetter puts its message back on the queue.
func (h *Letters) RetryDeadLetter(ctx context.Context, req *connect.Request[discoveryv1.RetryDeadLetterRequest]) (*connect.Response[discoveryv1.DeadLetter], error) {
	return reply(h.letters.Retry(ctx, req.Msg.GetDeadLetterId(), req.Msg.GetReason()))
}

// DropDeadLetter throws its message's bytes away.
func (h *Letters) DropDeadLetter(ctx context.Context, req *connect.Request[discoveryv1.DropDeadLetterRequest]) (*connect.Response[discoveryv1.DeadLetter], error) {
	return reply(h.letters.Drop(ctx, req.Msg.GetDeadLetterId(), req.Msg.GetReason()))
}
