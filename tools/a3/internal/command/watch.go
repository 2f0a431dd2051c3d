package command

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/retrypolicy"

	"a3os.app/libs/fault"
	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	"a3os.app/proto/gen/go/a3os/discovery/v1/discoveryv1connect"
	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"
	"a3os.app/tools/internal/show"
)

// errCut is a stream of a run that ended before the run did.
var errCut = fault.Declare(fault.Unavailable, "WATCH_CUT", "the tenant stopped telling how the run goes")

// watchRun follows a run to its end and shows it. It fails where the run did, or where the watching was stopped.
func (a *app) watchRun(ctx context.Context, t *tenant, run string) error {
	c := within(t, discoveryv1connect.NewRunServiceClient)
	p := &progress{app: a, live: show.Terminal(a.Err)}
	// A stream ends with the service, the gateway or the token; the run goes on and so does the watching.
	again := retrypolicy.NewBuilder[*discoveryv1.Run]().HandleIf(func(_ *discoveryv1.Run, err error) bool {
		ce, ok := errors.AsType[*connect.Error](err)
		kind := fault.KindOf(err)
		return errors.Is(err, errCut) || ok && (!connect.IsWireError(ce) || kind == fault.Unavailable || kind == fault.DeadlineExceeded)
	}).WithMaxRetries(30).WithDelay(time.Second).Build()
	last, err := failsafe.With[*discoveryv1.Run](again).WithContext(ctx).Get(func() (*discoveryv1.Run, error) { return p.follow(ctx, c, run) })
	p.done()
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("stopped watching; the run goes on, look again with `a3 discovery status %s --watch`", run)
	case errors.Is(err, retrypolicy.ErrExceeded):
		return fmt.Errorf("the run can't be watched, look with `a3 discovery status %s`: %w", run, err)
	case err != nil:
		return err
	}
	if published(last.GetState()) {
		return a.showRun(last)
	}
	if a.json() {
		if err := a.showRun(last); err != nil {
			return err
		}
	}
	if last.GetState() == integrationsv1.RunState_RUN_STATE_CANCELLED {
		return fmt.Errorf("the run %s was cancelled, nothing was published", run)
	}
	return fmt.Errorf("the run %s failed, nothing was published: %s", run, last.GetError())
}

// progress shows how a run goes: on a terminal in one line that changes, elsewhere a line a change.
type progress struct {
	app   *app
	live  bool
	shown string
}

// follow reads one stream to its end and answers the run when it has ended.
func (p *progress) follow(ctx context.Context, c discoveryv1connect.RunServiceClient, run string) (*discoveryv1.Run, error) {
	stream, err := c.WatchRun(ctx, connect.NewRequest(&discoveryv1.WatchRunRequest{RunId: run}))
	if err != nil {
		return nil, fault.FromRPC(err)
	}
	defer func() { _ = stream.Close() }()
	for stream.Receive() {
		r := stream.Msg()
		p.show(r)
		if ended(r.GetState()) {
			return r, nil
		}
	}
	if err := stream.Err(); err != nil {
		return nil, fault.FromRPC(err)
	}
	return nil, errCut
}

func (p *progress) show(r *discoveryv1.Run) {
	parts := []string{word(r.GetState(), runStatePrefix)}
	if c := r.GetCounts(); c.GetResources() > 0 || c.GetGrants() > 0 {
		parts = append(parts, show.Count(c.GetAccounts(), "account"), show.Count(c.GetGrants(), "grant"))
	}
	if w := reading(r); w != "" {
		parts = append(parts, w)
	}
	line := show.Text(strings.Join(parts, " · "))
	if line == p.shown {
		return
	}
	p.shown = line
	if p.live {
		// Back to the start of the line, and clear what was there.
		fmt.Fprintf(p.app.Err, "\r\x1b[K%s", line)
		return
	}
	p.app.say("%s  %s", p.app.now().Format(time.TimeOnly), line)
}

// done takes the live line away.
func (p *progress) done() {
	if p.live {
		fmt.Fprint(p.app.Err, "\r\x1b[K")
	}
}
