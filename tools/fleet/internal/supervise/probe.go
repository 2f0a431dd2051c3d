package supervise

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// probeTime is how long one question for readiness may take.
const probeTime = 2 * time.Second

// probeClient goes nowhere else than it was told: it may be root's, and who answers is a tenant's, which is let to few ports itself.
var probeClient = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: probeTime,
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

// word is what came of a question for readiness.
type word int

// The answers.
const (
	// silent is none, in probeTime.
	silent word = iota
	// refuses is one that says no.
	refuses
	// serves is one that says yes.
	serves
)

// ask asks once whether what is at where serves; see Unit.Ready.
func ask(ctx context.Context, where string) word {
	scheme, addr, _ := strings.Cut(where, "://")
	switch scheme {
	case "":
		return serves
	case "postgres":
		return askPostgres(ctx, addr)
	case "unix":
		return askSocket(ctx, addr)
	default:
		return askHTTP(ctx, where)
	}
}

// askSocket asks whether somebody listens at a socket; nothing is said there. One whose process hangs takes connections all the same.
func askSocket(ctx context.Context, path string) word {
	d := net.Dialer{Timeout: probeTime}
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil || conn.Close() != nil {
		return silent
	}
	return serves
}

func askHTTP(ctx context.Context, at string) word {
	switch get(ctx, at) {
	case 0:
		return silent
	case http.StatusOK:
		return serves
	default:
		return refuses
	}
}

// alive says whether what is at where answers anything at all, after nothing came of the question for readiness: that may itself wait for what
// hangs, as a database. Any answer of another page is one, and be it that there is no such page.
func alive(ctx context.Context, where string) bool {
	u, err := url.Parse(where)
	if err != nil || !strings.HasPrefix(u.Scheme, "http") {
		return false
	}
	return get(ctx, (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: "/healthz"}).String()) != 0
}

// get is the status of an answer, 0 for none.
func get(ctx context.Context, at string) int {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return 0
	}
	res, err := probeClient.Do(req)
	if err != nil || res.Body.Close() != nil {
		return 0
	}
	return res.StatusCode
}

// askPostgres asks whether a PostgreSQL server asks who we are, which one that starts or recovers does not do: it answers
// cannot_connect_now (57P03). Nobody is logged in, and nothing is logged.
func askPostgres(ctx context.Context, addr string) word {
	d := net.Dialer{Timeout: probeTime}
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return silent
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(probeTime)); err != nil {
		return silent
	}
	front := pgproto3.NewFrontend(conn, conn)
	front.Send(&pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersion30, Parameters: map[string]string{"user": "a3-probe"}})
	if err := front.Flush(); err != nil {
		return silent
	}
	said, err := front.Receive()
	if err != nil {
		return silent
	}
	if _, refused := said.(*pgproto3.ErrorResponse); refused {
		return refuses
	}
	return serves
}
