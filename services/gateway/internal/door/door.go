// Package door is the gateway's listener to the world. It promises that a client who is slow, idle or greedy costs a bounded amount,
// and that no request is dropped when the gateway ends: each connection is asked to leave before it is closed. It relies on its
// handler to ask (Handler.Drain), because only an answer can carry the wish.
package door

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// Handler answers requests and, once told, asks clients to leave.
type Handler interface {
	http.Handler
	// Drain makes each answer from now on ask its client to come back on a new connection.
	Drain()
}

// Config is what a door is made of.
type Config struct {
	// Handler answers.
	Handler Handler
	// Certificate is shown to every client.
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// MaxConnections bounds open connections; more wait in the kernel's queue.
	MaxConnections int
	// MaxHeaderBytes bounds the headers of a request.
	MaxHeaderBytes int
	// HeaderTimeout bounds the handshake, and reading the headers of a request.
	HeaderTimeout time.Duration
	// IdleTimeout is how long a connection may stand without a request.
	IdleTimeout time.Duration
	// LeaveWithin is how long clients are asked to leave before connections that are idle are closed.
	LeaveWithin time.Duration
	// DrainWithin bounds how long requests in flight may take to end after that.
	DrainWithin time.Duration
}

const (
	maxStreams = 250 // per connection; a client that needs more opens another
	// A window per stream as large as a good line's delay and bandwidth ask for, and for all streams of a connection not much more.
	streamWindow     = 512 << 10
	connectionWindow = 1 << 20
	// pingAfter and pingTimeout find a client that is gone without a word.
	pingAfter   = 30 * time.Second
	pingTimeout = 15 * time.Second
	// writeTimeout ends a connection that takes no octet at all for so long.
	writeTimeout = 30 * time.Second
)

// Serve serves on l until ctx ends, and then drains.
func Serve(ctx context.Context, l net.Listener, cfg Config) error {
	srv := &http.Server{
		Handler: cfg.Handler,
		TLSConfig: &tls.Config{
			MinVersion:     tls.VersionTLS12,
			NextProtos:     []string{"h2", "http/1.1"},
			GetCertificate: cfg.Certificate,
		},
		ReadHeaderTimeout: cfg.HeaderTimeout,
		IdleTimeout:       cfg.IdleTimeout,
		MaxHeaderBytes:    cfg.MaxHeaderBytes,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          maxStreams,
			MaxReceiveBufferPerConnection: connectionWindow,
			MaxReceiveBufferPerStream:     streamWindow,
			SendPingTimeout:               pingAfter,
			PingTimeout:                   pingTimeout,
			WriteByteTimeout:              writeTimeout,
		},
		// What clients do wrong is theirs: scanners would fill the log.
		ErrorLog: slog.NewLogLogger(slog.Default().Handler(), slog.LevelDebug),
	}
	door := newListener(l, cfg.MaxConnections)
	srv.ConnState = door.watch
	failed := make(chan error, 1)
	go func() { failed <- srv.ServeTLS(door, "", "") }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	return drain(context.WithoutCancel(ctx), srv, door, cfg, failed)
}

// drain ends a server without dropping a request.
//
// net/http closes an idle connection at once, and a client may be sending on it just then; so for a while every answer asks its
// client to leave, and what is idle after that was idle all the while. Then the socket is closed, and connections that were made
// before are given time to bring their one request, which the server would not answer any more once it shuts down.
func drain(ctx context.Context, srv *http.Server, door *listener, cfg Config, failed <-chan error) error {
	slog.InfoContext(ctx, "draining", "leave_within", cfg.LeaveWithin, "drain_within", cfg.DrainWithin)
	cfg.Handler.Drain()
	leave := time.NewTimer(cfg.LeaveWithin)
	defer leave.Stop()
	select {
	case <-leave.C:
	case err := <-failed:
		return fmt.Errorf("serve: %w", err)
	}
	if err := door.Close(); err != nil {
		slog.WarnContext(ctx, "the socket did not close cleanly", "error", err)
	}
	// When it has returned, every connection is the server's. The socket being closed is what it ends with.
	if err := <-failed; !errors.Is(err, net.ErrClosed) {
		slog.WarnContext(ctx, "the server stopped accepting for another reason than its end", "error", err)
	}
	waitForFresh(door, cfg.LeaveWithin)
	dctx, cancel := context.WithTimeout(ctx, cfg.DrainWithin)
	defer cancel()
	if err := srv.Shutdown(dctx); err != nil {
		_ = srv.Close()
		return fmt.Errorf("requests were still in flight after %s and were cut: %w", cfg.DrainWithin, err)
	}
	return nil
}

// waitForFresh waits until every connection has brought a request, or within is over: some are made in advance and never do.
func waitForFresh(door *listener, within time.Duration) {
	const look = 5 * time.Millisecond
	tick := time.NewTicker(look)
	defer tick.Stop()
	for end := time.Now().Add(within); door.fresh.Load() > 0 && time.Now().Before(end); {
		<-tick.C
	}
}
