package isolation

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"syscall"

	authzv1 "a3os.app/proto/gen/go/a3os/authz/v1"

	"a3os.app/libs/apilint"
	"a3os.app/libs/authz"
	"a3os.app/libs/workload"
)

func identity(w *World, s *Set, c *Component) workload.Identity {
	return workload.Identity{Plane: w.Plane, Tenant: s.Tenant, Service: c.Name}
}

// door is how an HTTP request is made.
type door struct {
	// dial connects; name and roots are what the server is held to.
	dial  func(ctx context.Context) (net.Conn, error)
	name  string
	roots *x509.CertPool
	// certificate and token are the credentials.
	certificate *tls.Certificate
	token       string
	// host is the Host header, where it is another than name.
	host string
}

// direct is a component's own door, past the gateway.
func direct(w *World, s *Set, c *Component) door {
	return door{dial: dialer(c.Address), name: identity(w, s, c).ServerName(), roots: s.Roots}
}

func dialer(address string) func(ctx context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", address)
	}
}

// call is one empty request on a connection of its own: the code and reason of Connect's errors, and the HTTP status.
func (d door) call(ctx context.Context, path string) (status int, code, reason string, err error) {
	return d.send(ctx, path, "application/json", []byte("{}"), func(_ int, from io.Reader) ([]byte, error) { return io.ReadAll(from) })
}

// send makes one request on a connection of its own, and reads of the answer what read does, within a bound.
func (d door) send(ctx context.Context, path, contentType string, body []byte, read func(status int, from io.Reader) ([]byte, error)) (status int, code, reason string, err error) {
	cfg := &tls.Config{RootCAs: d.roots, ServerName: d.name, MinVersion: tls.VersionTLS12}
	if d.certificate != nil {
		// Whatever authorities the server names: what is tried is whether it refuses.
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return d.certificate, nil }
	}
	tr := &http.Transport{TLSClientConfig: cfg, DisableKeepAlives: true, ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return d.dial(ctx) }}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+d.name+path, bytes.NewReader(body))
	if err != nil {
		return 0, "", "", err
	}
	req.Header.Set("Content-Type", contentType)
	if d.token != "" {
		req.Header.Set("Authorization", "Bearer "+d.token)
	}
	if d.host != "" {
		req.Host = d.host
	}
	res, err := tr.RoundTrip(req)
	if err != nil {
		return 0, "", "", err
	}
	defer res.Body.Close()
	const most = 64 << 10
	said, err := read(res.StatusCode, io.LimitReader(res.Body, most))
	if err != nil {
		return 0, "", "", err
	}
	code, reason = refusal(said)
	return res.StatusCode, code, reason, nil
}

// refusal is the code and the reason of an error of Connect's; other answers have neither.
func refusal(body []byte) (code, reason string) {
	type refused struct {
		Code    string
		Details []struct {
			Debug struct{ Reason string }
		}
	}
	var said struct {
		refused
		// Error is where the last envelope of a stream has it.
		Error refused
	}
	_ = json.Unmarshal(bytes.TrimSpace(body), &said)
	if said.Code == "" {
		said.refused = said.Error
	}
	for _, d := range said.Details {
		if d.Debug.Reason != "" {
			reason = d.Debug.Reason
		}
	}
	return said.Code, reason
}

// handshake says what a certificate came to: a TLS alert refuses, and any HTTP answer but 401 and 403 is an open door.
func (d door) handshake(ctx context.Context, path string) answer {
	// In TLS 1.3 a client has sent its request by the time it is told that its certificate is refused, and the server may have hung up
	// before that is read.
	const tries = 5
	status, code, _, err := d.call(ctx, path)
	for try := 1; try < tries && hungUp(err); try++ {
		status, code, _, err = d.call(ctx, path)
	}
	switch {
	case err == nil && (status == http.StatusUnauthorized || status == http.StatusForbidden):
		return refusedWith("HTTP %d %s", status, code)
	case err == nil:
		return openedWith("HTTP %d %s", status, code)
	case unreachable(err):
		return unclearWith("nobody answered: %v", err)
	case strings.Contains(err.Error(), "remote error: tls:"):
		return refusedWith("TLS handshake refused: %v", tail(err))
	case hungUp(err):
		return refusedWith("the server hung up without an answer, %d times", tries)
	}
	return unclearWith("%v", err)
}

// hungUp says that the other side closed a connection that it had taken.
func hungUp(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// tail is the last cause of an error.
func tail(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}

// bearer says whether a token is believed.
func (d door) bearer(ctx context.Context, path string) answer {
	status, code, _, err := d.call(ctx, path)
	switch {
	case err != nil:
		return unclearWith("%v", err)
	case status == http.StatusUnauthorized:
		return refusedWith("HTTP 401 %s", code)
	case status >= http.StatusInternalServerError || status == http.StatusTooManyRequests || status == http.StatusMisdirectedRequest:
		return unclearWith("HTTP %d %s", status, code)
	}
	return openedWith("HTTP %d %s", status, code)
}

// certificates of one set at the doors of another.
func (w *World) certificates(from, at *Set) []attempt {
	var out []attempt
	for _, c := range at.Components {
		right := rightful(at, c)
		d := direct(w, at, c)
		ctl := &control{what: fmt.Sprintf("the certificate of %s's own %s", at.Name(), right.Name), ask: func(ctx context.Context) answer {
			pair, err := right.Source.GetCertificate(nil)
			if err != nil {
				return unclearWith("%v", err)
			}
			own := d
			own.certificate = pair
			return own.handshake(ctx, "/")
		}}
		for _, holder := range from.Components {
			out = append(out, attempt{wall: wallKeys, from: from.Name() + "/" + holder.Name, at: at.Name() + "/" + c.Name,
				what: "present its own certificate", control: ctl, ask: func(ctx context.Context) answer {
					pair, err := holder.Source.GetCertificate(nil)
					if err != nil {
						return unclearWith("%v", err)
					}
					foreign := d
					foreign.certificate = pair
					return foreign.handshake(ctx, "/")
				}})
			if holder.Authority == "" {
				continue
			}
			out = append(out, attempt{wall: wallKeys, from: from.Name() + "/" + holder.Name, at: at.Name() + "/" + c.Name,
				what: "present a certificate in the name of " + at.Name() + "/" + right.Name + " that its own authority issued", control: ctl, ask: func(ctx context.Context) answer {
					pair, err := forge(holder.Authority, identity(w, at, right))
					if err != nil {
						return unclearWith("%v", err)
					}
					forged := d
					forged.certificate = pair
					return forged.handshake(ctx, "/")
				}})
		}
		out = append(out, w.misled(from, at, c))
	}
	return out
}

// rightful is a component whose certificate is right at c: another one of the same set where there is any.
func rightful(s *Set, c *Component) *Component {
	for _, other := range s.Components {
		if other != c {
			return other
		}
	}
	return c
}

// misled is a client of one set that was led to the address of another: it has to hang up before it says anything.
func (w *World) misled(from, at *Set, c *Component) attempt {
	caller, sought := from.Components[0], from.Components[len(from.Components)-1]
	anchors := workload.Trust{Plane: w.Plane, Tenant: from.Tenant, TenantRoots: from.Roots, PlaneRoots: w.PlaneRoots}
	greet := func(address string) ask {
		return func(ctx context.Context) answer {
			cfg, err := workload.ClientTLS(caller.Source, anchors, identity(w, from, sought))
			if err != nil {
				return unclearWith("%v", err)
			}
			conn, err := dialer(address)(ctx)
			if err != nil {
				return unclearWith("nobody answered: %v", err)
			}
			defer conn.Close()
			if err := tls.Client(conn, cfg).HandshakeContext(ctx); err != nil {
				if unreachable(err) {
					return unclearWith("%v", err)
				}
				return refusedWith("the caller hung up: %v", tail(err))
			}
			return openedWith("the caller believed it")
		}
	}
	return attempt{wall: wallKeys, from: from.Name() + "/" + caller.Name, at: at.Name() + "/" + c.Name,
		what: "be taken for its sibling " + sought.Name + " when " + from.Name() + " is misled to its address", ask: greet(c.Address),
		control: &control{what: "at the sibling's own address", ask: greet(sought.Address)}}
}

// method is one that a user's token is good for at a component.
func method(c *Component) string {
	all := apilint.Ours()
	for _, m := range all {
		r, err := authz.RuleOf(m)
		if err == nil && routed(c, r.Procedure) && r.GetPermission() != "" && r.GetEffect() == authzv1.Effect_EFFECT_READ && !m.IsStreamingClient() && !m.IsStreamingServer() {
			return r.Procedure
		}
	}
	// One without routes knows no users; whether it believes a token shows all the same.
	return fmt.Sprintf("/%s/%s", all[0].Parent().FullName(), all[0].Name())
}

func routed(c *Component, procedure string) bool {
	return slices.ContainsFunc(c.Routes, func(prefix string) bool { return strings.HasPrefix(procedure, prefix) })
}

// tokens of one set's user at the doors of another, and at the gateway under its host.
func (w *World) tokens(from, at *Set) []attempt {
	if from.Token == nil || at.Token == nil {
		return nil
	}
	user := from.Name() + " (a signed-in user)"
	with := func(d door, path string, token func(context.Context) (string, error)) ask {
		return func(ctx context.Context) answer {
			text, err := token(ctx)
			if err != nil {
				return unclearWith("get a token: %v", err)
			}
			d.token = text
			return d.bearer(ctx, path)
		}
	}
	var out []attempt
	var path string
	for _, c := range at.Components {
		m := method(c)
		if len(c.Routes) > 0 {
			path = m
		}
		d := direct(w, at, c)
		out = append(out, attempt{wall: wallKeys, from: user, at: at.Name() + "/" + c.Name, what: "present its access token, past the gateway, to " + m,
			ask: with(d, m, from.Token), control: &control{what: "a token of " + at.Name() + "'s own user", ask: with(d, m, at.Token)}})
	}
	theirs, err := url.Parse(at.URL)
	ours, err2 := url.Parse(from.URL)
	if path == "" || err != nil || err2 != nil {
		return out
	}
	front := door{dial: w.Front, name: theirs.Hostname(), roots: w.WebRoots, host: theirs.Host}
	ctl := &control{what: "a token of " + at.Name() + "'s own user", ask: with(front, path, at.Token)}
	smuggled := front
	smuggled.name = ours.Hostname()
	confused := func(ctx context.Context) answer {
		got := with(smuggled, path, from.Token)(ctx)
		if strings.HasPrefix(got.text, "HTTP 404") || strings.HasPrefix(got.text, "HTTP 421") {
			return answer{refused, got.text}
		}
		return got
	}
	return append(out,
		attempt{wall: wallGateway, from: user, at: theirs.Host, what: "present its access token under the other's host", ask: with(front, path, from.Token), control: ctl},
		attempt{wall: wallGateway, from: user, at: theirs.Host, what: "name its own host in TLS and the other's in the request", ask: confused, control: ctl})
}
