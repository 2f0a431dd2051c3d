package answer

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"
)

const (
	// askWithin is how long an answer waits to learn which integrations there are, and restFor how long nobody is kept waiting again
	// after that failed: an answer that says what it doesn't know is better than none.
	askWithin = time.Second
	restFor   = 5 * time.Second
	// sourcesAtOnce is a page of integrations, and mostSources what a workspace is asked for.
	sourcesAtOnce = 500
	mostSources   = 10_000
)

// asked is integrations, asked which there are.
type asked struct {
	client Sources
	// rest is until when it isn't asked, in nanoseconds since 1970.
	rest atomic.Int64
}

// known are the integrations that there are.
type known struct {
	sources []*integrationsv1.KnownSource
	// unknown says why that can't be said; empty where it can.
	unknown string
}

// list asks for the integrations of the caller's workspace.
func (a *asked) list(ctx context.Context) known {
	const unknown = "it could not be asked which integrations there are, so one that was never discovered is not named"
	if time.Now().UnixNano() < a.rest.Load() {
		return known{unknown: unknown}
	}
	waiting, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	var out known
	var token string
	for {
		res, err := a.client.ListSources(waiting, connect.NewRequest(&integrationsv1.ListSourcesRequest{PageSize: sourcesAtOnce, PageToken: token}))
		if err != nil {
			// A caller who gave up says nothing about integrations.
			if ctx.Err() == nil {
				a.rest.Store(time.Now().Add(restFor).UnixNano())
				slog.WarnContext(ctx, "integrations does not say which there are, answers say so", "error", err)
			}
			return known{unknown: unknown}
		}
		out.sources = append(out.sources, res.Msg.GetSources()...)
		if token = res.Msg.GetNextPageToken(); token == "" || len(out.sources) >= mostSources {
			return out
		}
	}
}
