package systemtest

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"a3os.app/libs/redact"
	"a3os.app/libs/workload"
	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"
	"a3os.app/proto/gen/go/a3os/iam/v1/iamv1connect"
	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"
	"a3os.app/proto/gen/go/a3os/integrations/v1/integrationsv1connect"
)

// canaries are what must not be found again: a marker that all secrets of the test's own begin with, and the plane's own secrets, each
// with the file that it rests in.
type canaries struct {
	marker string
	forms  map[string][]byte

	mu    sync.Mutex
	live  map[string]string // secret → where it rests
	tried int
	hits  []string
}

func newCanaries() *canaries {
	c := &canaries{marker: "c4nary" + strings.ToLower(rand.Text()[:16]), forms: map[string][]byte{}, live: map[string]string{}}
	c.forms["plain"], c.forms["hex"] = []byte(c.marker), []byte(hex.EncodeToString([]byte(c.marker)))
	for shift := range 3 {
		// In base64 a text looks different by where in three octets it begins; the edges depend on its neighbours.
		text := base64.RawStdEncoding.EncodeToString(append(make([]byte, shift), c.marker...))
		c.forms[fmt.Sprintf("base64, %d", shift)] = []byte(text[4 : len(text)-4])
	}
	return c
}

// another is a secret of the test's own.
func (c *canaries) another() string {
	c.tried++
	return c.marker + rand.Text()
}

// keep remembers a secret of the plane's own.
func (c *canaries) keep(secret, where string) {
	const short = 16
	if secret = strings.TrimSpace(secret); len(secret) >= short {
		c.mu.Lock()
		c.live[secret] = where
		c.mu.Unlock()
	}
}

// look searches what some process wrote.
func (c *canaries) look(where string, data []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for form, text := range c.forms {
		if bytes.Contains(data, text) {
			c.hits = append(c.hits, fmt.Sprintf("%s holds a canary (%s): %s", where, form, around(data, text)))
		}
	}
	for secret, rests := range c.live {
		if rests != where && bytes.Contains(data, []byte(secret)) {
			c.hits = append(c.hits, fmt.Sprintf("%s holds the secret that rests in %s", where, rests))
		}
	}
}

func around(data, text []byte) string {
	const room = 120
	at := bytes.Index(data, text)
	return fmt.Sprintf("%q", data[max(0, at-room):min(len(data), at+len(text)+room)])
}

// collector is an OTLP collector that keeps what it is sent.
type collector struct {
	*httptest.Server
	mu     sync.Mutex
	bodies map[string][]byte
}

func startCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{bodies: map[string][]byte{}}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body io.Reader = r.Body
		if r.Header.Get("Content-Encoding") == "gzip" {
			var err error
			if body, err = gzip.NewReader(r.Body); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
		}
		raw, err := io.ReadAll(body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		c.mu.Lock()
		c.bodies[r.URL.Path] = append(c.bodies[r.URL.Path], raw...)
		c.mu.Unlock()
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(c.Close)
	return c
}

// Row S43: secrets go through every method as a field that the proto marks, as tokens, as parts of URLs and as what a system is logged
// in with; calls succeed, are refused, can't be read, and fail because the database is killed under them; every process is told to
// print what it was doing and ends. Then everything that any process wrote is searched: logs, traces, metrics, every table, the data
// and the log of PostgreSQL, and every file of the plane but the one that a secret rests in.
func TestSecretsNeverSurface(t *testing.T) {
	full(t)
	c, traces := newCanaries(), startCollector(t)
	p := planeIn(t, walkable(t), "A3_TENANTS=acme", "A3_LOG_LEVEL=debug", "OTEL_EXPORTER_OTLP_ENDPOINT="+traces.URL,
		"OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf", "OTEL_TRACES_SAMPLER=always_on", "OTEL_BSP_SCHEDULE_DELAY=100", "OTEL_METRIC_EXPORT_INTERVAL=500")
	if err := p.up(t.Context()); err != nil {
		t.Fatal(err)
	}
	x := p.tenants["acme"]
	token := strings.TrimSpace(p.a3(t, "acme-admin", "token"))
	c.keep(token, filepath.Join(p.home, "profiles", "acme-admin.json"))
	c.collect(t, p)

	c.fields(t, x, token)
	c.credentials(t, x, token)
	c.systems(t, x)
	c.control(t, p)
	c.whileTheDatabaseDies(t, p, x, token)
	ends := 0
	for unit := range p.pids(t) {
		// Some are started again with others: a number that was read before may be another process's by now, of another plane.
		was, err := p.process(t.Context(), unit)
		if err != nil || was.PID == 0 {
			t.Fatalf("%s runs as process %d: %v", unit, was.PID, err)
		}
		pid := was.PID
		if strings.Contains(unit, "postgres") {
			continue
		}
		if !strings.HasSuffix(unit, "/machine-reader") { // which listens to its client alone
			c.metrics(t, p, unit)
		}
		// Both have a Go process print its stacks; the second is also what the C library ends with, and what would leave a core file.
		ends++
		signal := []syscall.Signal{syscall.SIGQUIT, syscall.SIGABRT}[ends%2]
		if err := syscall.Kill(pid, signal); err != nil {
			t.Fatal(err)
		}
		within(t, backWithin, func() error {
			now, err := p.process(t.Context(), unit)
			if err != nil || now.State != "serving" || now.PID == pid {
				return errors.Join(err, fmt.Errorf("%s is %s", unit, now.State))
			}
			return nil
		})
		if raw := read(t, filepath.Join(p.home, "log", unit+".log")); !strings.Contains(raw, map[syscall.Signal]string{syscall.SIGQUIT: "SIGQUIT", syscall.SIGABRT: "SIGABRT"}[signal]) || !strings.Contains(raw, "goroutine 1 ") {
			t.Errorf("%s did not print what it was doing: this test proves less than it says", unit)
		}
	}
	c.tables(t, p, x.id)
	c.tables(t, p, "registry")
	c.files(t, p)
	traces.mu.Lock()
	defer traces.mu.Unlock()
	for path, raw := range traces.bodies {
		c.look("the collector at "+path, raw)
	}
	if len(traces.bodies["/v1/traces"]) == 0 {
		t.Error("the collector was sent no traces: this test proves less than it says")
	}
	for _, hit := range c.hits {
		t.Error(hit)
	}
	t.Logf("%d canaries and %d secrets of the plane's own were looked for; the collector was sent %v", c.tried, len(c.live), slices.Sorted(maps.Keys(traces.bodies)))
	t.Attr("row", fmt.Sprintf("S43 %d", c.tried+len(c.live)))
}

// fields calls every method with a canary in every field that is marked, in both codecs: as it should be, too long, of the wrong kind,
// and cut off.
func (c *canaries) fields(t *testing.T, x *tenant, token string) {
	t.Helper()
	marked, spoken := 0, 0
	for _, m := range methods(t) {
		calls := []caller{through(t, x).bearer(token), through(t, x).bearer(c.another()), through(t, x)}
		var bodies [][2][]byte // codec, body
		add := func(codec string, body []byte) { bodies = append(bodies, [2][]byte{[]byte(codec), body}) }
		add("json", []byte(`{"secret":"`+c.another()+`"`))
		add("json", []byte(`{`+c.another()+`}`))
		if redact.Has(m.Input()) {
			marked++
			for _, long := range []int{1, 500} {
				msg := dynamicpb.NewMessage(m.Input())
				c.fill(msg, long)
				inJSON, err1 := protojson.Marshal(msg)
				binary, err2 := proto.Marshal(msg)
				if err := errors.Join(err1, err2); err != nil {
					t.Fatal(err)
				}
				add("json", inJSON)
				add("proto", binary)
				add("json", inJSON[:len(inJSON)-3])
				add("proto", binary[:len(binary)-3])
			}
			for i := range m.Input().Fields().Len() {
				f := m.Input().Fields().Get(i)
				if redact.Secret(f) {
					for _, wrong := range []string{`{"x":"%s"}`, `["%s"]`, `%s`, `"%s\ud800"`, "\"%s\xff\""} {
						add("json", []byte(fmt.Sprintf(`{"%s":`+wrong+`}`, f.JSONName(), c.another())))
					}
				}
			}
		}
		for _, call := range calls {
			for _, b := range bodies {
				a, err := call.with("Idempotency-Key", name("canary")).try(t, m.path(), contentType(m, string(b[0])), frame(m, b[1]))
				if err != nil {
					t.Fatalf("%s: %v", m.path(), err)
				}
				if a.status >= http.StatusInternalServerError {
					t.Errorf("%s answers %s", m.path(), a)
				}
				if string(b[0]) != "proto" {
					continue
				}
				for _, protocol := range []string{"application/grpc-web+proto", "application/grpc+proto"} {
					a, err := call.with("Te", "trailers").try(t, m.path(), protocol, envelope(b[1]))
					if err != nil || a.status >= http.StatusInternalServerError {
						t.Errorf("%s, %s: %s, %v", m.path(), protocol, a, err)
					}
					spoken++
				}
			}
		}
	}
	if spoken < 3 {
		t.Errorf("only %d messages with secrets were sent over gRPC and gRPC-Web", spoken)
	}
	if marked < 3 {
		t.Errorf("only %d methods take a secret, by the descriptors", marked)
	}
}

// control calls every method of the control plane as its operator and with a set's certificate, with a canary in every marked field, in
// each text that may hold anything, and as a token, which the registry has no use for.
func (c *canaries) control(t *testing.T, p *plane) {
	t.Helper()
	conns := []*grpc.ClientConn{p.operator(t)}
	for _, x := range p.tenants {
		conns = append(conns, p.registry(t, x.file("components", "audit", "certificate"), workload.Identity{Plane: "dev", Tenant: x.owner(t).Tenant(), Service: "audit"}))
	}
	sent := 0
	for _, m := range planeMethods(t) {
		if m.IsStreamingClient() || m.IsStreamingServer() {
			continue
		}
		for _, conn := range conns {
			msg := dynamicpb.NewMessage(m.Input())
			c.fill(msg, 1)
			ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+c.another(), "x-canary", c.another()), 10*time.Second)
			err := conn.Invoke(ctx, m.path(), msg, dynamicpb.NewMessage(m.Output()))
			cancel()
			if grpcstatus.Code(err) == codes.Internal || grpcstatus.Code(err) == codes.Unknown {
				t.Errorf("%s: %v", m.path(), err)
			}
			sent++
		}
	}
	if sent < 3 {
		t.Errorf("the control plane was called %d times", sent)
	}
}

// envelope is a message as gRPC and gRPC-Web send it.
func envelope(raw []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(raw))), raw...) //nolint:gosec // it is small
}

// fill puts canaries into every marked field, at any depth, so many times each.
func (c *canaries) fill(m protoreflect.Message, times int) {
	for i := range m.Descriptor().Fields().Len() {
		switch f := m.Descriptor().Fields().Get(i); {
		case redact.Secret(f) && f.Kind() == protoreflect.StringKind && !f.IsList():
			m.Set(f, protoreflect.ValueOfString(strings.Repeat(c.another(), times)))
		case redact.Secret(f) && f.Kind() == protoreflect.BytesKind && !f.IsList():
			m.Set(f, protoreflect.ValueOfBytes([]byte(strings.Repeat(c.another(), times))))
		case f.Message() != nil && !f.IsList() && !f.IsMap() && redact.Has(f.Message()):
			c.fill(m.Mutable(f).Message(), times)
		}
	}
}

// credentials are those that are no fields: of the issuer's own endpoints, and in URLs and headers of everything.
func (c *canaries) credentials(t *testing.T, x *tenant, token string) {
	t.Helper()
	call := through(t, x)
	for _, path := range []string{"/oauth2/token", "/oauth2/revoke", "/oauth2/introspect", "/.well-known/openid-configuration", "/nowhere"} {
		for _, grant := range []string{"refresh_token", "urn:ietf:params:oauth:grant-type:jwt-bearer", "urn:ietf:params:oauth:grant-type:token-exchange", "password", "authorization_code"} {
			form := url.Values{"grant_type": {grant}}
			for _, field := range []string{"refresh_token", "assertion", "client_assertion", "client_secret", "subject_token", "actor_token", "token", "password", "code"} {
				form.Set(field, c.another())
			}
			basic := base64.StdEncoding.EncodeToString([]byte("client:" + c.another()))
			query := path + "?access_token=" + c.another() + "&code=" + c.another()
			a, err := call.with("Authorization", "Basic "+basic).with("Cookie", "session="+c.another()).try(t, query, "application/x-www-form-urlencoded", []byte(form.Encode()))
			if err != nil || a.status >= http.StatusInternalServerError {
				t.Errorf("%s answers %s (%v)", path, a, err)
			}
		}
	}
	// A code that lets somebody in is told once, to whoever invites.
	users := client(x.admin(t), "", iamv1connect.NewUserWriteServiceClient)
	who := name("canary")
	invited := ask(t, users.InviteUser, &iamv1.InviteUserRequest{Email: who + "@example.com", DisplayName: who})
	c.keep(invited.GetSetupCode(), "nowhere: it was told to the caller")
	for _, m := range methods(t)[:5] {
		if _, err := call.bearer(token).try(t, m.path()+"?access_token="+c.another(), "application/json", []byte("{}")); err != nil {
			t.Fatal(err)
		}
	}
}

// systems stores canaries as what systems are logged in with, and has the worker try them on a real server.
func (c *canaries) systems(t *testing.T, x *tenant) {
	t.Helper()
	u, err := url.Parse(x.plane.superuserURL(t, "sample-postgres", "northwind"))
	if err != nil {
		t.Fatal("a connection string is not one")
	}
	admin := x.admin(t)
	ws := x.workspace(t, admin).GetId()
	var port uint32
	if _, err := fmt.Sscan(u.Port(), &port); err != nil {
		t.Fatal(err)
	}
	settings := &integrationsv1.Settings{Connector: &integrationsv1.Settings_Postgres{Postgres: &integrationsv1.PostgresSettings{
		Host: "127.0.0.1", Port: port, User: "accessos_reader", Database: "northwind", SslMode: "disable"}}}
	writes := client(admin, ws, integrationsv1connect.NewIntegrationWriteServiceClient)
	made := ask(t, writes.CreateIntegration, &integrationsv1.CreateIntegrationRequest{Name: name("canary"), Settings: settings, Secret: c.another()})
	ask(t, writes.UpdateIntegration, &integrationsv1.UpdateIntegrationRequest{IntegrationId: made.GetId(), Version: made.GetVersion(), Secret: proto.String(c.another())})
	if res := ask(t, writes.TestIntegration, &integrationsv1.TestIntegrationRequest{IntegrationId: made.GetId()}); res.GetOk() {
		t.Error("a canary logs in")
	}
	admin.discoverAnyhow(t, ws, made.GetId())
}
