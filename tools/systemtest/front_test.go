package systemtest

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"a3os.app/libs/fault"
	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"
)

// Row H14, through every door, past the gateway too.
func TestHeadersThatNameATenantAreNotBelieved(t *testing.T) {
	t.Parallel()
	m := methodNamed(t, "/a3os.iam.v1.IdentityService/GetSelf")
	bearer := []string{"Authorization", "Bearer " + acme().admin(t).token(t, "")}
	host := strings.TrimPrefix(globex().url, "https://")
	named := map[string]string{
		"X-Forwarded-Host": host, "Forwarded": "host=" + host + ";proto=https", "X-Original-Host": host, "X-Host": host, "X-Forwarded-Server": host,
		"X-Tenant-Id": globex().id, "X-A3-Tenant": globex().id, "A3-Tenant": globex().id, "X-Workspace-Id": globex().operations(t), "X-User-Id": globex().admin(t).id,
		"X-Original-Url": globex().url + m.path(), "X-Rewrite-Url": "/a3os.iam.v1.UserService/ListUsers", "X-Http-Method-Override": "GET",
	}
	cases := 0
	for _, d := range doors() {
		if strings.HasPrefix(d.name, "GET") {
			continue
		}
		v := d.visit(t, acme())
		want := v.send(t, m, nil, bearer...)
		if !strings.Contains(want.body, acme().id) {
			t.Fatalf("%s: GetSelf answers %s %q", d.name, want, want.body)
		}
		for header, value := range named {
			cases++
			if got := v.send(t, m, nil, append([]string{header, value}, bearer...)...); !got.same(want) {
				t.Errorf("%s, with %s: %s the answer is %s %q", d.name, header, value, got, got.body)
			}
		}
		// Who calls can't be said by a header either: neither a workload's, nor where the call comes from.
		for _, header := range []string{"A3-Envelope", "A3-Source-Address", "X-Forwarded-Client-Cert", "X-Client-Cert", "Client-Cert", "X-Remote-User"} {
			cases++
			if err := refusal(v.send(t, m, nil, header, acme().admin(t).id), fault.Unauthenticated); err != nil {
				t.Errorf("%s, with %s alone: %v", d.name, header, err)
			}
		}
	}
	held(t, cases, "H14")
}

// Row H15. Tenants whose set nobody started are enough: it is about what the gateway says.
func TestHostsOfNoTenantAreToldTheSame(t *testing.T) {
	full(t)
	t.Parallel()
	hosts := map[string]string{"nobody's": name("nobody"), "not a slug": "a_b", "the bare domain": ""}
	for what, state := range map[string]registryv1.TenantState{"suspended": registryv1.TenantState_TENANT_STATE_SUSPENDED, "left": registryv1.TenantState_TENANT_STATE_OFFBOARDED} {
		made := shared.paperTenant(t)
		hosts[what] = made.slug
		made.mustPut(t, made.set(t, freeAddress(t)))
		steps := []registryv1.TenantState{registryv1.TenantState_TENANT_STATE_ACTIVE, registryv1.TenantState_TENANT_STATE_SUSPENDED}
		if state != registryv1.TenantState_TENANT_STATE_SUSPENDED {
			steps = append(steps, state)
		}
		for _, s := range steps {
			if _, err := made.write.SetTenantState(t.Context(), &registryv1.SetTenantStateRequest{TenantId: made.id, State: s}); err != nil {
				t.Fatal(err)
			}
			if s == registryv1.TenantState_TENANT_STATE_ACTIVE {
				within(t, time.Minute, func() error {
					if got := seen(t, made.slug+"."+shared.domain, "/"); strings.HasPrefix(got, "404") {
						return errors.New("the gateway has not heard of the tenant")
					}
					return nil
				})
			}
		}
		within(t, time.Minute, func() error {
			if got := seen(t, made.slug+"."+shared.domain, "/"); !strings.HasPrefix(got, "404") {
				return fmt.Errorf("a tenant that is %s is still answered %s", what, got)
			}
			return nil
		})
	}
	var want, first string
	cases := 0
	for what, slug := range hosts {
		host := strings.TrimPrefix(slug+"."+shared.domain, ".")
		for _, path := range []string{"/", "/.well-known/openid-configuration", "/a3os.iam.v1.IdentityService/GetSelf"} {
			cases++
			got := seen(t, host, path)
			if want == "" {
				want, first = got, what
			}
			if got != want || !strings.HasPrefix(got, "404") {
				t.Errorf("the host %s (%s) at %s is answered\n%s\nand %s\n%s", host, what, path, got, first, want)
			}
		}
	}
	held(t, cases, "H15")
}

// seen is an answer of the gateway for a host, as somebody sees it: all but the date.
func seen(t *testing.T, host, path string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, acme().url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = fmt.Sprintf("%s:%d", host, shared.port)
	res, err := acme().client(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	res.Header.Del("Date")
	return fmt.Sprint(res.StatusCode, res.Header, string(body))
}

// Row H17. Which requests a service sees is proven with the gateway's own tests; here, that the real chain of gateway and service
// answers at most once, refuses or serves the one request, and never serves what was smuggled behind it.
func TestAmbiguousRequestIsOneOrNone(t *testing.T) {
	full(t)
	t.Parallel()
	a, g := fmt.Sprintf("acme.%s:%d", shared.domain, shared.port), fmt.Sprintf("globex.%s:%d", shared.domain, shared.port)
	const path = "/.well-known/openid-configuration"
	smuggled := "GET " + path + " HTTP/1.1\r\nHost: " + g + "\r\n\r\n"
	head := "POST /oauth2/token HTTP/1.1\r\nHost: " + a + "\r\n"
	attempts := map[string]string{
		"two hosts":              "GET " + path + " HTTP/1.1\r\nHost: " + a + "\r\nHost: " + g + "\r\n\r\n",
		"two hosts, folded":      "GET " + path + " HTTP/1.1\r\nHost: " + a + "\r\n " + g + "\r\n\r\n",
		"space before the colon": "GET " + path + " HTTP/1.1\r\nHost : " + g + "\r\nHost: " + a + "\r\n\r\n",
		"length and chunks":      head + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled,
		"chunks and length":      head + "Transfer-Encoding: chunked\r\nContent-Length: 200\r\n\r\n0\r\n\r\n" + smuggled,
		"chunked twice":          head + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled,
		"chunked, misspelt":      head + "Transfer-Encoding: xchunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + smuggled,
		"two lengths":            head + "Content-Length: 5\r\nContent-Length: 0\r\n\r\n" + smuggled,
		"a length with a sign":   head + "Content-Length: +5\r\n\r\nhello" + smuggled,
		"a chunk with a bare LF": head + "Transfer-Encoding: chunked\r\n\r\n5\nhello\n0\n\n" + smuggled,
		"bare LF for every line": "GET " + path + " HTTP/1.1\nHost: " + a + "\nX-A: b\n\n",
		"obs-fold":               "GET " + path + " HTTP/1.1\r\nHost: " + a + "\r\nX-A: b\r\n Host: " + g + "\r\n\r\n",
		"an absolute target":     "GET https://" + a + path + " HTTP/1.1\r\nHost: " + g + "\r\n\r\n",
		"a tunnel":               "CONNECT " + g + " HTTP/1.1\r\nHost: " + a + "\r\n\r\n" + smuggled,
		"a host with a user":     "GET " + path + " HTTP/1.1\r\nHost: " + a + "@" + g + "\r\n\r\n",
	}
	for what, octets := range attempts {
		answers, closed := exchange(t, octets)
		if len(answers) > 1 {
			t.Errorf("%s: %d answers: %q", what, len(answers), answers)
		}
		for _, text := range answers {
			if strings.Contains(text, "globex") {
				t.Errorf("%s: globex answers: %q", what, text)
			}
			if strings.HasPrefix(text, "400") && !closed {
				t.Errorf("%s: the connection stays open after %q", what, text)
			}
		}
	}
	held(t, len(attempts), "H17")
}

// exchange sends octets to the gateway on a connection of its own, and reads answers until it is closed or nothing comes any more.
func exchange(t *testing.T, octets string) (answers []string, closed bool) {
	t.Helper()
	conf := acme().client(t).Transport.(*http.Transport).TLSClientConfig.Clone()
	conf.ServerName, conf.NextProtos = "acme."+shared.domain, []string{"http/1.1"}
	conn, err := (&tls.Dialer{Config: conf}).DialContext(t.Context(), "tcp", shared.address())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, octets); err != nil {
		closed = true // before it had read it all, as it may; an answer can still be there
	}
	const silence = time.Second
	for r := bufio.NewReader(conn); ; {
		_ = conn.SetReadDeadline(time.Now().Add(silence))
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			return answers, closed || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || strings.Contains(err.Error(), "reset")
		}
		body, _ := io.ReadAll(res.Body)
		answers = append(answers, fmt.Sprintf("%d %s", res.StatusCode, body))
	}
}
