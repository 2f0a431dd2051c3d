package rpc

import (
	"context"
	"net/http"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/otelconnect"

	"a3os.app/libs/internal/presentctx"
	"a3os.app/libs/rpc/rpcclient"
	"a3os.app/libs/upstream"
	"a3os.app/libs/workload"
)

const (
	// patience is how long a call waits for a service that does not listen: an ordinary restart.
	patience = 5 * time.Second
	// slowCall is a call that took too long. When most do, the next are refused at once for a while.
	slowCall = 2 * time.Second
)

// ToWorkload makes a client of another service of the set, or of the control plane. The transport reaches the target or nobody. Where
// the work in hand was authorised by a user's token or an envelope, the call presents it; errors come back with kind and reason. A service that restarts is waited for, and one that is slow is not.
func ToWorkload[C any](transport *workload.Transport, target workload.Identity, newClient func(connect.HTTPClient, string, ...connect.ClientOption) C) (C, error) {
	tracing, err := otelconnect.NewInterceptor(otelconnect.WithoutMetrics())
	if err != nil {
		var none C
		return none, err
	}
	out := rpcclient.Outgoing{Credentials: present, Enter: upstream.NewBreaker(target.Service, slowCall).Enter}
	return newClient(&http.Client{Transport: upstream.NewPatient(transport, patience)}, "https://"+target.ServerName(),
		connect.WithInterceptors(tracing, out), connect.WithReadMaxBytes(32<<20)), nil
}

// present has a call say what authorised the work in hand.
func present(ctx context.Context, h http.Header) error {
	p := presentctx.From(ctx)
	if p.Token != "" {
		h.Set("Authorization", "Bearer "+p.Token)
	}
	if p.Envelope != "" {
		h.Set(EnvelopeHeader, p.Envelope)
	}
	return nil
}
