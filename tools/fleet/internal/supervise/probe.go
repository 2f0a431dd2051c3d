package supervise

import (
	"context"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// probeTime is how long one question for readiness may take.
const probeTime = 2 * time.Second

var probeClient = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: probeTime}

// ready asks once whether what is at where serves; see Unit.Ready.
func ready(ctx context.Context, where string) bool {
	scheme, addr, _ := strings.Cut(where, "://")
	switch scheme {
	case "":
		return true
	case "postgres":
		return postgresReady(ctx, addr)
	case "unix":
		return socketReady(ctx, addr)
	default:
		return httpReady(ctx, where)
	}
}

// socketReady says whether somebody listens at a socket; nothing is said there.
func socketReady(ctx context.Context, path string) bool {
	d := net.Dialer{Timeout: probeTime}
	conn, err := d.DialContext(ctx, "unix", path)
	return err == nil && conn.Close() == nil
}

func httpReady(ctx context.Context, url string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	res, err := probeClient.Do(req)
	if err != nil {
		return false
	}
	return res.Body.Close() == nil && res.StatusCode == http.StatusOK
}

// postgresReady says whether a PostgreSQL server asks who we are, which one that starts or recovers does not do: it answers
// cannot_connect_now (57P03). Nobody is logged in, and nothing is logged.
func postgresReady(ctx context.Context, addr string) bool {
	d := net.Dialer{Timeout: probeTime}
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return false
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(probeTime)); err != nil {
		return false
	}
	front := pgproto3.NewFrontend(conn, conn)
	front.Send(&pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersion30, Parameters: map[string]string{"user": "a3-probe"}})
	if err := front.Flush(); err != nil {
		return false
	}
	answer, err := front.Receive()
	if err != nil {
		return false
	}
	_, refused := answer.(*pgproto3.ErrorResponse)
	return !refused
}
