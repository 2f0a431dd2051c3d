package report

import (
	"context"
	"log/slog"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"
)

// licence says what licence the set holds, and, when it is time, how much it uses. What can't be said now is said next time.
func (r *Reporter) licence(ctx context.Context, req *registryv1.ReportRequest) {
	if r.Licence == nil {
		return
	}
	standing, err := r.Licence.Look(ctx)
	if err != nil {
		slog.WarnContext(ctx, "the licence is not reported this time", "error", err)
		return
	}
	req.Licence = standing.Report()
	if r.Usage == nil {
		return
	}
	if req.Usage, err = r.Usage.Due(ctx); err != nil {
		slog.WarnContext(ctx, "use is not reported this time", "error", err)
	}
}

// answered takes what the registry handed over beside its answer. A licence that is refused is told where it is refused, and the report
// was taken all the same.
func (r *Reporter) answered(ctx context.Context, res *registryv1.ReportResponse) {
	if r.Licence == nil {
		return
	}
	if res.GetNow().IsValid() {
		r.Licence.Heard(res.GetNow().AsTime())
	}
	if res.GetUsageKept() && r.Usage != nil {
		r.Usage.Kept()
	}
	if len(res.GetLicence()) == 0 {
		return
	}
	if err := r.Licence.Take(ctx, res.GetLicence()); err != nil {
		slog.DebugContext(ctx, "the licence that the registry handed over was not taken", "error", err)
	}
}
