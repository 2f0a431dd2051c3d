// Package work does one slice of a discovery run: it claims it, reads the system through a connector, streams what was found to
// discovery, and seals. It promises to stop when it is told to, to retry nothing that trying again won't mend, and to keep nothing
// between slices. It relies on discovery for fencing, and on the queue for delivering the slice again when it was killed.
package work

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"connectrpc.com/connect"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	"a3os.app/proto/gen/go/a3os/discovery/v1/discoveryv1connect"
	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"
	queuev1 "a3os.app/proto/gen/go/a3os/queue/v1"

	"a3os.app/libs/blob"
	"a3os.app/libs/clip"
	"a3os.app/libs/failpoint"
	"a3os.app/libs/fault"
	"a3os.app/libs/queue"
	"a3os.app/libs/secret"
	"a3os.app/services/discoveryworker/internal/connector"
	"a3os.app/services/discoveryworker/internal/connector/all"
)

// Kind is the kind of the messages that are slices.
const Kind = "discovery.slice"

const service = "discovery-worker"

// Config is what a Worker needs.
type Config struct {
	Ingest  discoveryv1connect.IngestServiceClient
	Letters discoveryv1connect.DeadLetterReportServiceClient
	Secrets secret.Reader
	Content blob.Reader
	// Dial reaches out to systems.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Machine is what the tenant may see of the worker's own machine.
	Machine all.Machine
}

// Worker works on slices.
type Worker struct{ cfg Config }

// New makes a Worker.
func New(cfg Config) *Worker { return &Worker{cfg: cfg} }

// Slice is the queue's handler.
func (w *Worker) Slice(ctx context.Context, job queue.Job) error {
	// Before anything is done: a body that names another workspace than its envelope is not to be believed.
	if err := job.Message.Decode(new(queuev1.SlicePayload)); err != nil {
		return err
	}
	ctx, err := queue.InScope(ctx, job.Message, service)
	if err != nil {
		return queue.Permanent(err)
	}
	if err := failpoint.Here("worker.slice.taken"); err != nil {
		return err
	}
	attempt := uint32(job.Attempt) //nolint:gosec // bounded by the queue's tries
	begun, err := w.cfg.Ingest.BeginSlice(ctx, connect.NewRequest(&discoveryv1.BeginSliceRequest{Attempt: attempt, JobId: job.ID}))
	if err != nil {
		return again(ctx, job, handed(err))
	}
	if begun.Msg.GetDone() {
		return nil
	}
	if err := failpoint.Here("worker.slice.begun"); err != nil {
		return err
	}
	err = w.read(ctx, attempt, begun.Msg, job.LastTry)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errStopped):
		return nil
	case (permanent(err) || job.LastTry) && !isAway(err):
		// The run is told why; that it ended is all that is left of the job.
		if ferr := w.fail(ctx, attempt, err); ferr != nil {
			return again(ctx, job, handed(fmt.Errorf("end the run: %w", ferr)))
		}
		return nil
	}
	return again(ctx, job, err)
}

// again is what becomes of a slice that failed: nothing, where this attempt has nothing left to do.
func again(ctx context.Context, job queue.Job, err error) error {
	if unlessOver(err) == nil {
		return nil
	}
	slog.InfoContext(ctx, "slice failed, it will be tried again", "job", job.ID, "attempt", job.Attempt, "error", err)
	if isAway(err) {
		return queue.Snooze(whileAway.After(1))
	}
	return err
}

// whileAway is how long a slice waits for discovery. That costs it no try, for a run's tries are its system's, and a restart may take
// longer than all of them.
var whileAway = queue.Backoff{First: 4 * time.Second, Most: 4 * time.Second}

// awayError is an error of a call of discovery that did not reach it.
type awayError struct{ error }

func (a *awayError) Unwrap() error { return a.error }

// handed is the error of a call of discovery.
func handed(err error) error {
	if fault.KindOf(err) == fault.Unavailable {
		return &awayError{err}
	}
	return err
}

func isAway(err error) bool {
	_, ok := errors.AsType[*awayError](err)
	return ok
}

// errStopped says that the run was cancelled, or that another attempt took over.
var errStopped = errors.New("told to stop")

// unlessOver is an error, unless it is one after which there is nothing left to do for this attempt.
func unlessOver(err error) error {
	if fault.KindOf(err) == fault.NotFound {
		return nil
	}
	if e, ok := errors.AsType[*fault.Error](err); ok && e.Reason == "FENCED" {
		return nil
	}
	return err
}

func permanent(err error) bool {
	_, ok := errors.AsType[*connector.PermanentError](err)
	return ok
}

func (w *Worker) fail(ctx context.Context, attempt uint32, cause error) error {
	const most = 2000
	_, err := w.cfg.Ingest.FailRun(ctx, connect.NewRequest(&discoveryv1.FailRunRequest{Attempt: attempt, Error: clip.Text(cause.Error(), most)}))
	return err
}

// read does the slice. On the last try a system that fails in the middle ends the run there: what was read is published, what was not
// is named as a gap, and so nothing that the run did not see is taken for gone.
func (w *Worker) read(ctx context.Context, attempt uint32, begun *discoveryv1.BeginSliceResponse, lastTry bool) error {
	source := begun.GetSource()
	c, err := all.For(source.GetSettings(), w.cfg.Machine)
	if err != nil {
		return connector.Permanent(err)
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	s := newSink(ctx, w.cfg.Ingest, attempt, begun.GetDeadline().AsTime(), stop)
	next, err := c.Read(ctx, w.source(source), begun.GetCheckpoint(), s)
	_ = failpoint.Here("worker.slice.read")
	staged := s.close()
	_ = failpoint.Here("worker.slice.staged")
	if cause := context.Cause(ctx); errors.Is(cause, errStopped) {
		return errStopped
	}
	if staged != nil {
		return errors.Join(err, staged)
	}
	ofTheSystem := err != nil && !permanent(err) && !s.broken && ctx.Err() == nil
	if ofTheSystem && lastTry && (s.sent > 0 || len(begun.GetCheckpoint()) > 0) {
		slog.WarnContext(ctx, "the system fails in the middle, the run ends there", "attempt", attempt, "error", err)
		s.Gap(source.GetName(), "the rest was not read: "+err.Error())
		next, err = nil, nil
	}
	if err != nil {
		return err
	}
	seal := &discoveryv1.SealSliceRequest{Attempt: attempt, Records: s.sent, Checkpoint: next, CompletedScopes: s.completed, Gaps: s.gaps, Last: next == nil}
	if _, err := w.cfg.Ingest.SealSlice(ctx, connect.NewRequest(seal)); err != nil {
		return handed(fmt.Errorf("seal the slice: %w", err))
	}
	return failpoint.Here("worker.slice.sealed")
}

// source is what the connector reads, with the ways to fetch what isn't in it.
func (w *Worker) source(src *integrationsv1.Source) connector.Source {
	return connector.Source{
		Name:     src.GetName(),
		Settings: src.GetSettings(),
		Dial:     w.cfg.Dial,
		Secret: func(ctx context.Context) (string, error) {
			if src.GetSecretPath() == "" {
				return "", nil
			}
			path, err := secret.ParsePath(src.GetSecretPath())
			if err != nil {
				return "", err
			}
			value, _, err := w.cfg.Secrets.Get(ctx, path)
			if err != nil {
				return "", err
			}
			return value.Reveal(), nil
		},
		Content: func(ctx context.Context) (io.ReadCloser, error) {
			if src.GetContentPath() == "" {
				return nil, connector.Permanent(errors.New("nothing was uploaded yet: upload the content first"))
			}
			content, _, err := w.cfg.Content.Get(ctx, src.GetContentPath())
			return content, err
		},
	}
}

// said is what somebody said, in at most so many bytes; discovery takes no text that is empty.
func said(s string, most int) string { return cmp.Or(clip.Text(s, most), "no reason was given") }

// TestSource reaches a system once. It serves ConnectorService.
func (w *Worker) TestSource(ctx context.Context, req *connect.Request[discoveryv1.TestSourceRequest]) (*connect.Response[discoveryv1.TestSourceResponse], error) {
	c, err := all.For(req.Msg.GetSource().GetSettings(), w.cfg.Machine)
	if err != nil {
		return nil, fault.Wrap(fault.FailedPrecondition, err, "%s", err.Error())
	}
	const within = 25 * time.Second
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	result, err := c.Test(ctx, w.source(req.Msg.GetSource()))
	if err != nil {
		return connect.NewResponse(&discoveryv1.TestSourceResponse{Message: err.Error()}), nil
	}
	return connect.NewResponse(&discoveryv1.TestSourceResponse{Ok: result.OK, Message: result.Message, Missing: result.Missing}), nil
}
