package rpc

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	auditv1 "a3os.app/proto/gen/go/a3os/audit/v1"
	authzv1 "a3os.app/proto/gen/go/a3os/authz/v1"
	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	"a3os.app/proto/gen/go/a3os/discovery/v1/discoveryv1connect"
	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"
	"a3os.app/proto/gen/go/a3os/iam/v1/iamv1connect"
	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/authn"
	"a3os.app/libs/authz"
	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/internal/idemctx"
	"a3os.app/libs/rpc/rpcclient"
	"a3os.app/libs/scope"
	"a3os.app/libs/workload"
)

// bare is a server whose callers are all one service of its own set, over HTTP/2 with a certificate of nobody's.
func bare(t *testing.T, change func(*ServerConfig), routes ...Route) (*Server, *httptest.Server) {
	t.Helper()
	me := workload.Identity{Plane: "dev", Tenant: id.NewTenant(), Service: "discovery"}
	cfg := ServerConfig{Identity: me, Revocations: authn.NewRevocations(nil), Peer: func(tls.ConnectionState) (workload.Identity, bool, error) {
		return workload.Identity{Plane: "dev", Tenant: me.Tenant, Service: "audit"}, true, nil
	}}
	if change != nil {
		change(&cfg)
	}
	s, err := NewServer(cfg, []Service{
		Mount(iamv1connect.NewIdentityServiceHandler, iamv1connect.IdentityServiceHandler(iamv1connect.UnimplementedIdentityServiceHandler{})),
		Mount(discoveryv1connect.NewRunServiceHandler, discoveryv1connect.RunServiceHandler(discoveryv1connect.UnimplementedRunServiceHandler{})),
		Mount(discoveryv1connect.NewIngestServiceHandler, discoveryv1connect.IngestServiceHandler(reader{})),
	}, routes)
	if err != nil {
		t.Fatal(err)
	}
	h := httptest.NewUnstartedServer(s.Handler())
	h.EnableHTTP2 = true
	h.StartTLS()
	t.Cleanup(h.Close)
	return s, h
}

// reader reads a client's stream to its end.
type reader struct {
	discoveryv1connect.UnimplementedIngestServiceHandler
}

func (reader) IngestRecords(_ context.Context, stream *connect.ClientStream[discoveryv1.IngestRecordsRequest]) (*connect.Response[discoveryv1.IngestRecordsResponse], error) {
	for stream.Receive() {
		continue
	}
	return connect.NewResponse(&discoveryv1.IngestRecordsResponse{}), stream.Err()
}

// trail notes which links a call passes, in order.
type trail struct {
	mu    sync.Mutex
	steps []string
}

func (l *trail) add(step string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.steps = append(l.steps, step)
}

func (l *trail) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := l.steps
	l.steps = nil
	return out
}

// watched are links that let everything through and note it.
func (l *trail) watched(links []link) []link {
	out := slices.Clone(links)
	for i, of := range links {
		out[i].begin = func(ctx context.Context, _ *call) (context.Context, error) {
			l.add("begin " + of.name)
			return ctx, nil
		}
		out[i].message = func(context.Context, *call, proto.Message) error { l.add("message " + of.name); return nil }
		out[i].end = func(_ context.Context, _ *call, err error) error { l.add("end " + of.name); return err }
	}
	return out
}

// want is what one call with one message passes: every link in, every link for the message, and every link out, backwards.
func want(links []link) []string {
	var begin, message, end []string
	for _, l := range links {
		begin, message, end = append(begin, "begin "+l.name), append(message, "message "+l.name), append([]string{"end " + l.name}, end...)
	}
	return slices.Concat(begin, message, end)
}

func TestUnaryCallsAndStreamsPassTheSameLinksInEveryProtocol(t *testing.T) {
	s, h := bare(t, nil)
	var seen trail
	s.links = seen.watched(s.links)
	for protocol, options := range map[string][]connect.ClientOption{
		"connect": nil, "json": {connect.WithProtoJSON()}, "grpc": {connect.WithGRPC()}, "grpc-web": {connect.WithGRPCWeb()},
	} {
		for kind, call := range map[string]func() error{
			"unary": func() error {
				_, err := iamv1connect.NewIdentityServiceClient(h.Client(), h.URL, options...).GetSelf(t.Context(), connect.NewRequest(&iamv1.GetSelfRequest{}))
				return err
			},
			"the server streams": func() error {
				stream, err := discoveryv1connect.NewRunServiceClient(h.Client(), h.URL, options...).WatchRun(t.Context(), connect.NewRequest(&discoveryv1.WatchRunRequest{}))
				if err != nil {
					return err
				}
				stream.Receive()
				return stream.Err()
			},
			"the client streams": func() error {
				stream := discoveryv1connect.NewIngestServiceClient(h.Client(), h.URL, options...).IngestRecords(t.Context())
				if err := stream.Send(&discoveryv1.IngestRecordsRequest{}); err != nil {
					return err
				}
				_, err := stream.CloseAndReceive()
				return err
			},
		} {
			err := call()
			if err != nil && connect.CodeOf(err) != connect.CodeUnimplemented {
				t.Errorf("%s, %s: %v", protocol, kind, err)
			}
			if got := seen.take(); !slices.Equal(got, want(s.links)) {
				t.Errorf("%s, %s: the call passed %v, want %v", protocol, kind, got, want(s.links))
			}
		}
	}
}

// plainRegistry answers nothing.
type plainRegistry struct {
	registryv1.UnimplementedTenantServiceServer
	registryv1.UnimplementedSnapshotServiceServer
}

func TestCallsAndStreamsOfTheControlPlanePassTheSameLinks(t *testing.T) {
	g, err := NewGRPCServer(GRPCConfig{Credentials: insecure.NewCredentials(), Peer: func(context.Context, credentials.AuthInfo) (workload.Identity, error) {
		return workload.Identity{Plane: "dev", Service: "operator"}, nil
	}}, func(r grpc.ServiceRegistrar) {
		registryv1.RegisterTenantServiceServer(r, plainRegistry{})
		registryv1.RegisterSnapshotServiceServer(r, plainRegistry{})
	})
	if err != nil {
		t.Fatal(err)
	}
	var seen trail
	g.chain.links = seen.watched(g.chain.links)
	const buffer = 1 << 20
	l := bufconn.Listen(buffer)
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- g.ServeListener(ctx, l) }()
	defer func() { stop(); <-served }()
	conn, err := grpc.NewClient("passthrough:///registry", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = registryv1.NewTenantServiceClient(conn).ListTenants(t.Context(), &registryv1.ListTenantsRequest{}) // unimplemented
	if got := seen.take(); !slices.Equal(got, want(g.chain.links)) {
		t.Errorf("a call passed %v, want %v", got, want(g.chain.links))
	}
	stream, err := registryv1.NewSnapshotServiceClient(conn).WatchSnapshot(t.Context(), &registryv1.WatchSnapshotRequest{})
	if err != nil {
		t.Fatal(err)
	}
	_, _ = stream.Recv() // unimplemented
	if got := seen.take(); !slices.Equal(got, want(g.chain.links)) {
		t.Errorf("a stream passed %v, want %v", got, want(g.chain.links))
	}
}

func TestServerWithAMethodWithoutARuleDoesNotStart(t *testing.T) {
	f, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: proto.String("trial.proto"), Package: proto.String("trial.v1"), Syntax: proto.String("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{{Name: proto.String("Nothing")}},
		Service: []*descriptorpb.ServiceDescriptorProto{{Name: proto.String("TrialService"), Method: []*descriptorpb.MethodDescriptorProto{
			{Name: proto.String("Try"), InputType: proto.String(".trial.v1.Nothing"), OutputType: proto.String(".trial.v1.Nothing")}}}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	mounted := func(d protoreflect.ServiceDescriptor) Service {
		return Service{descriptor: d, mount: func(...connect.HandlerOption) (string, http.Handler) {
			return "/trial.v1.TrialService/", http.NotFoundHandler()
		}}
	}
	cfg := ServerConfig{Identity: workload.Identity{Plane: "dev", Tenant: id.NewTenant(), Service: "iam"}}
	for what, d := range map[string]protoreflect.ServiceDescriptor{"no rule": f.Services().Get(0), "no descriptor": nil} {
		if _, err := NewServer(cfg, []Service{mounted(d)}, nil); err == nil || !strings.Contains(err.Error(), "refusing to serve") {
			t.Errorf("%s: want a refusal to serve, got %v", what, err)
		}
	}
}

// in runs a call through the RPC chain as if it had come over the wire.
func (s *Server) in(t *testing.T, who *caller, procedure string, m proto.Message, header http.Header) (handled bool, err error) {
	t.Helper()
	c := &call{rule: s.rule(procedure), header: header, caller: who, protocol: connect.ProtocolConnect}
	err = s.around(t.Context(), c, func(ctx context.Context) error {
		if err := s.received(ctx, c, m); err != nil {
			return err
		}
		handled = true
		return nil
	})
	return handled, err
}

func TestDenialsAndReadsOfAccessDataAreOnTheRecord(t *testing.T) {
	recorder := NewRecorder(nil)
	s, _ := bare(t, func(c *ServerConfig) { c.Recorder = recorder })
	s.rules["/access"] = authz.Rule{Procedure: "/access", Rule: ruleOf(t, (&discoveryv1.ListResourcesRequest{}).ProtoReflect().Descriptor().ParentFile(), "AccessService", "ListResources")}
	s.cfg.Revocations.Apply(nil, 0)
	user := &caller{claims: &authn.Claims{Tenant: s.boundTenant(), Workspace: id.NewWorkspace(), Principal: scope.Principal(id.NewUser().String()),
		ExpiresAt: time.Now().Add(time.Minute), Permissions: []string{"discovery.access.read"}}}
	next := func() *auditv1.Event {
		t.Helper()
		select {
		case e := <-recorder.events:
			return e
		default:
			t.Fatal("nothing is on the record")
			return nil
		}
	}
	if ok, err := s.in(t, user, "/access", &discoveryv1.ListResourcesRequest{Search: "payroll"}, nil); !ok {
		t.Fatal(err)
	}
	if e := next(); e.GetAction() != "discovery.access.read" || e.GetActor() != string(user.claims.Principal) || e.GetAfter().GetFields()["search"].GetStringValue() != "payroll" {
		t.Errorf("the read is on the record as %v", e)
	}
	user.claims.Permissions = nil
	if ok, err := s.in(t, user, "/access", &discoveryv1.ListResourcesRequest{}, nil); ok || connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Fatalf("without the permission: %v", err)
	}
	if e := next(); e.GetAction() != "rpc.call.denied" || e.GetOutcome() != auditv1.Outcome_OUTCOME_DENIED || e.GetTarget() != "/access" {
		t.Errorf("the denial is on the record as %v", e)
	}
	if len(recorder.events) > 0 {
		t.Errorf("there is more on the record: %v", <-recorder.events)
	}
	user.claims.Permissions = []string{"discovery.access.read"}
	for range 3 {
		c := &call{rule: s.rule("/access"), caller: user}
		if err := s.around(t.Context(), c, func(context.Context) error { return fault.New(fault.NotFound, "no such resource") }); connect.CodeOf(err) != connect.CodeNotFound {
			t.Fatalf("what is not found: %v", err)
		}
	}
	if len(recorder.events) > 0 {
		t.Errorf("what is counted by the minute is on the record at once: %v", <-recorder.events)
	}
	recorder.count(t.Context())
	if e := next(); e.GetAction() != "rpc.call.not_found" || e.GetActor() != string(user.claims.Principal) || e.GetTarget() != "/access" ||
		e.GetWorkspaceId() != user.claims.Workspace.String() || e.GetAfter().GetFields()["count"].GetNumberValue() != 3 {
		t.Errorf("what was not found is on the record as %v", e)
	}
	if _, err := s.in(t, &caller{}, "/access", &discoveryv1.ListResourcesRequest{}, nil); connect.CodeOf(err) != connect.CodeUnauthenticated || len(recorder.events) > 0 || len(recorder.unknown) != 1 {
		t.Errorf("nobody: %v, %d counted", err, len(recorder.unknown))
	}
}

func ruleOf(t *testing.T, f protoreflect.FileDescriptor, service, method protoreflect.Name) *authzv1.Rule {
	t.Helper()
	r, err := authz.RuleOf(f.Services().ByName(service).Methods().ByName(method))
	if err != nil {
		t.Fatal(err)
	}
	return r.Rule
}

func TestIdempotencyKeyReachesCreatingCallsAndMustBeOne(t *testing.T) {
	for key, ok := range map[string]bool{"": true, "key-1": true, strings.Repeat("k", maxKey): true, strings.Repeat("k", maxKey+1): false, "a b": false, "a\x00": false, "é": false} {
		c := &call{header: http.Header{"Idempotency-Key": {key}}, rule: authz.Rule{Procedure: "/create", Rule: &authzv1.Rule{Creates: true}}}
		ctx, err := takeKey(t.Context(), c)
		if got, there := idemctx.From(ctx); (err == nil) != ok || ok && (there != (key != "") || got.Value != key) {
			t.Errorf("%.20q: taken as %v, %v", key, got, err)
		}
		c.rule.Rule = &authzv1.Rule{}
		if ctx, err := takeKey(t.Context(), c); err != nil || ctx != t.Context() {
			t.Errorf("%.20q of a call that creates nothing: %v", key, err)
		}
	}
	var taken bool
	s := &Server{}
	for _, l := range s.rpcChain() {
		taken = taken || l.name == "idempotency" && l.begin != nil
	}
	if !taken {
		t.Error("the chain takes no keys")
	}
}

func open(pattern string, h http.HandlerFunc) Route {
	return Route{Pattern: pattern, Open: "it is a test's", Handler: h}
}

func get(t *testing.T, h *httptest.Server, method, path string, body io.Reader, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, h.URL+path, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := h.Client().Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(text)
}

func TestPanicOutsideOfAHandlerIsAnsweredAndSaysNothing(t *testing.T) {
	_, h := bare(t, nil, open("GET /panic", func(http.ResponseWriter, *http.Request) { panic("canary-4711") }))
	if res, text := get(t, h, "GET", "/panic", nil); res.StatusCode != http.StatusInternalServerError || strings.Contains(text, "canary") {
		t.Errorf("it is answered %s %q", res.Status, text)
	}
}

func TestBodyIsBoundedHoweverItIsRead(t *testing.T) {
	var n int64
	_, h := bare(t, nil, open("POST /read", func(w http.ResponseWriter, r *http.Request) {
		var err error
		if n, err = io.Copy(io.Discard, r.Body); err != nil {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
		}
	}))
	const far = 4 * defaultMaxBytes
	if res, _ := get(t, h, "POST", "/read", io.LimitReader(zeros{}, far)); res.StatusCode != http.StatusRequestEntityTooLarge || n > far/2 {
		t.Errorf("of %d octets %d were read, and answered %s", int64(far), n, res.Status)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func TestBrowsersMayCallFromListedOriginsAlone(t *testing.T) {
	preflight := func(h *httptest.Server, origin string) string {
		res, _ := get(t, h, http.MethodOptions, "/a3os.iam.v1.IdentityService/GetSelf", nil,
			"Origin", origin, "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "authorization")
		if res.Header.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("%s: cookies would be sent along", origin)
		}
		return res.Header.Get("Access-Control-Allow-Origin")
	}
	_, off := bare(t, nil)
	_, on := bare(t, func(c *ServerConfig) { c.CORSOrigins = []string{"https://app.example"} })
	for _, c := range []struct {
		h            *httptest.Server
		origin, want string
	}{{off, "https://app.example", ""}, {on, "https://app.example", "https://app.example"}, {on, "https://evil.example", ""}, {on, "null", ""}} {
		if got := preflight(c.h, c.origin); got != c.want {
			t.Errorf("%s: allowed is %q, want %q", c.origin, got, c.want)
		}
	}
}

func TestEveryAnswerHasARequestIDAndEveryCallADeadline(t *testing.T) {
	ends := make(chan bool, 2) // the second call must not get there, and would otherwise wait there
	_, h := bare(t, nil, open("GET /open", func(_ http.ResponseWriter, r *http.Request) {
		_, ok := r.Context().Deadline()
		ends <- ok
	}))
	seen := map[string]bool{}
	for _, header := range [][]string{nil, {"Authorization", "nonsense"}} {
		res, _ := get(t, h, "GET", "/open", nil, header...)
		got := res.Header.Get(rpcclient.RequestIDHeader)
		if got == "" || seen[got] {
			t.Errorf("%v: the request's id is %q", header, got)
		}
		seen[got] = true
	}
	if !<-ends {
		t.Error("the call has no deadline")
	}
}

func TestOneCallerTakesAQuarterOfThePlacesAndNoMore(t *testing.T) {
	inside, leave := make(chan bool), make(chan bool)
	const places, share = 8, 2
	s, h := bare(t, func(c *ServerConfig) { c.MaxInFlight = places }, open("GET /wait", func(http.ResponseWriter, *http.Request) { inside <- true; <-leave }),
		open("GET /other", func(http.ResponseWriter, *http.Request) {}))
	var all sync.WaitGroup
	for range share {
		all.Go(func() { get(t, h, "GET", "/wait", nil) })
		<-inside
	}
	if res, _ := get(t, h, "GET", "/other", nil); res.StatusCode != http.StatusTooManyRequests || res.Header.Get("Retry-After") == "" {
		t.Errorf("one more than its share is answered %s", res.Status)
	}
	if err := s.admission.enter("somebody else"); err != nil {
		t.Errorf("somebody else has no place: %v", err)
	}
	s.admission.leave("somebody else")
	close(leave)
	all.Wait()
	if res, _ := get(t, h, "GET", "/other", nil); res.StatusCode != http.StatusOK {
		t.Errorf("with the places free again it is answered %s", res.Status)
	}
}
