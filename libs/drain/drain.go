// Package drain ends an HTTP server without dropping a request: each connection is asked to leave before it is closed. It relies on
// the handler to ask (Config.Ask), because only an answer can carry the wish.
package drain

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"
)

// Config is how a server drains.
type Config struct {
	// Ask makes each answer from now on ask its client to come back on a new connection (`Connection: close`, which HTTP/2 says as
	// GOAWAY).
	Ask func()
	// MaxConnections bounds open connections; more wait in the kernel's queue. 0 is no bound.
	MaxConnections int
	// Wrap makes of a connection what the server reads and writes; nil leaves it as it is. Conn answers it again.
	Wrap func(net.Conn) net.Conn
	// LeaveWithin is how long clients are asked to leave before connections that are idle are closed.
	LeaveWithin time.Duration
	// DrainWithin bounds how long requests in flight may take to end after that.
	DrainWithin time.Duration
}

// Listen opens a socket that Serve can end without resetting anybody. Multipath TCP, which Go's sockets speak where nothing else is
// said, takes no filter.
func Listen(ctx context.Context, addr string) (net.Listener, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	return lc.Listen(ctx, "tcp", addr)
}

// inherited is a socket that is not this process's own: what is not accepted from it is for the next process that gets it.
type inherited struct{ net.Listener }

// Inherit takes a socket over that whoever started this process keeps open (as sd_listen_fds(3) has it). Serve ends by accepting no
// more from it, and leaves those who wait in its queue to the next process. The descriptor is this process's to close.
func Inherit(fd int) (net.Listener, error) {
	file := os.NewFile(uintptr(fd), "inherited socket") //nolint:gosec // a descriptor is a small number
	if file == nil {
		return nil, fmt.Errorf("%d is not a descriptor", fd)
	}
	l, err := net.FileListener(file) // which duplicates the descriptor
	if err = errors.Join(err, file.Close()); err != nil {
		return nil, fmt.Errorf("descriptor %d is not a socket that listens: %w", fd, err)
	}
	return &inherited{l}, nil
}

// Serve serves on l, with TLS where srv has a configuration for it, until ctx ends, and then drains.
func Serve(ctx context.Context, srv *http.Server, l net.Listener, cfg Config) error {
	door := newListener(l, cfg)
	srv.ConnState = door.watch
	failed := make(chan error, 1)
	go func() {
		if srv.TLSConfig == nil {
			failed <- srv.Serve(door)
			return
		}
		failed <- srv.ServeTLS(door, "", "")
	}()
	select {
	case err := <-failed:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	// The context that ended must not end the draining.
	return end(context.WithoutCancel(ctx), srv, door, cfg, failed)
}

// halfWay is how long a connection may take to be made: a round trip or two.
const halfWay = 100 * time.Millisecond

// end ends a server without dropping a request.
//
// net/http closes an idle connection at once, HTTP/2 included, and a client may be sending on it just then; so for a while every
// answer asks its client to leave, and what is idle after that was idle all the while. Then nobody new is let in, the socket is closed,
// and connections that were made before are given time to bring their one request, which the server would not answer any more once it shuts down.
func end(ctx context.Context, srv *http.Server, door *listener, cfg Config, failed <-chan error) error {
	slog.InfoContext(ctx, "draining", "leave_within", cfg.LeaveWithin, "drain_within", cfg.DrainWithin)
	cfg.Ask()
	if err := wait(cfg.LeaveWithin, failed); err != nil {
		return err
	}
	door.noMore()
	if err := wait(halfWay, failed); err != nil {
		return err
	}
	if err := door.Close(); err != nil {
		slog.WarnContext(ctx, "the socket did not close cleanly", "error", err)
	}
	// When it has returned, every connection is the server's. The socket being closed is what it ends with.
	if err := <-failed; !errors.Is(err, net.ErrClosed) {
		slog.WarnContext(ctx, "the server stopped accepting for another reason than its end", "error", err)
	}
	dctx, cancel := context.WithTimeout(ctx, cfg.DrainWithin)
	defer cancel()
	waitForFresh(dctx, door)
	if err := srv.Shutdown(dctx); err != nil {
		_ = srv.Close()
		return fmt.Errorf("requests were still in flight after %s and were cut: %w", cfg.DrainWithin, err)
	}
	return nil
}

func wait(d time.Duration, failed <-chan error) error {
	over := time.NewTimer(d)
	defer over.Stop()
	select {
	case <-over.C:
		return nil
	case err := <-failed:
		return fmt.Errorf("serve: %w", err)
	}
}

// freshFor is how long a connection may take to its first request. One that has brought none by then was made in advance, as browsers do, and net/http
// holds it for idle as well (golang/go#22682).
const freshFor = 5 * time.Second

// waitForFresh waits until every connection has brought a request or was made too long ago to be about to, or until ctx ends. On a machine that is busy
// a handshake takes its time.
func waitForFresh(ctx context.Context, door *listener) {
	const look = 5 * time.Millisecond
	tick := time.NewTicker(look)
	defer tick.Stop()
	for door.fresher(time.Now().Add(-freshFor)) && ctx.Err() == nil {
		<-tick.C
	}
}
