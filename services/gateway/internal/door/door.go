// Package door is the gateway's listener to the world. It promises that a client who is slow, idle or greedy costs a bounded amount.
// It relies on libs/drain that no request is dropped when the gateway ends.
package door

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"time"

	"a3os.app/libs/drain"
	"a3os.app/services/gateway/internal/turns"
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
	// Connection makes of a client's connection one that takes turns.
	Connection func(net.Conn) *turns.Conn
	// Certificate is shown to every client.
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// Welcome says whether a handshake goes on, once the client has said whom it wants and before anything is computed. It may wait.
	Welcome func(*tls.ClientHelloInfo) error
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
			GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
				return nil, cfg.Welcome(hello)
			},
		},
		ReadHeaderTimeout: cfg.HeaderTimeout,
		IdleTimeout:       cfg.IdleTimeout,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if one, ok := drain.Conn(c).(*turns.Conn); ok {
				return one.With(ctx)
			}
			return ctx
		},
		MaxHeaderBytes: cfg.MaxHeaderBytes,
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
	return drain.Serve(ctx, srv, l, drain.Config{Ask: cfg.Handler.Drain, MaxConnections: cfg.MaxConnections,
		Wrap:        func(c net.Conn) net.Conn { return cfg.Connection(c) },
		LeaveWithin: cfg.LeaveWithin, DrainWithin: cfg.DrainWithin})
}
