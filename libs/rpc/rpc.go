// Package rpc makes servers and clients, and nothing else does: every server carries both chains (chain.go), every client checks
// whom it reached. It promises that no method is served without a rule, no plain route without one, and that unary calls and
// streams, Connect and gRPC, pass the same links. It relies on authn, authz and workload for the decisions.
package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"buf.build/go/protovalidate"
	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	authzv1 "a3os.app/proto/gen/go/a3os/authz/v1"

	"a3os.app/libs/authn"
	"a3os.app/libs/authz"
	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/pace"
	"a3os.app/libs/workload"
)

// ServerConfig is what a server is made of.
type ServerConfig struct {
	// Identity is whose server this is; its tenant is the bound tenant.
	Identity workload.Identity
	// TLS is the listener's configuration; nil serves plain HTTP, for tests of handlers only.
	TLS *tls.Config
	// Peer is who the other side of a connection is: no certificate is (zero, false, nil). Nil means that nobody has one.
	Peer func(tls.ConnectionState) (workload.Identity, bool, error)
	// Tokens verifies access tokens; nil means that no user may call.
	Tokens *authn.Verifier
	// Revocations is what Tokens follows; nil where Tokens is.
	Revocations *authn.Revocations
	// Envelopes verifies what a workload presents in the header `A3-Envelope`; nil means that none is believed.
	Envelopes func(header string) (Presented, error)
	// Recorder takes denials and reads; nil records none, for tests of handlers only.
	Recorder *Recorder
	// Licence says whether a licensed method may go on; nil where no method is licensed.
	Licence interface {
		Allows(ctx context.Context, feature string) error
	}
	// CORSOrigins are the browser origins that may call; none means that CORS is off.
	CORSOrigins []string
	// MaxInFlight bounds requests in flight; 0 means 256. A quarter of them may be one principal's.
	MaxInFlight int
	// UnaryTimeout bounds unary calls, from when they have come whole, and how long a caller may keep the server waiting for one; 0 means 30 s.
	UnaryTimeout time.Duration
}

// Service is a Connect service to be mounted.
type Service struct {
	descriptor protoreflect.ServiceDescriptor
	mount      func(opts ...connect.HandlerOption) (string, http.Handler)
	maxBytes   int64
}

const defaultMaxBytes = 4 << 20

// Mount makes a Service of a generated handler constructor and its implementation.
func Mount[S any](newHandler func(S, ...connect.HandlerOption) (string, http.Handler), impl S) Service {
	path, _ := newHandler(impl)
	name := protoreflect.FullName(strings.Trim(path, "/"))
	s := Service{
		mount:    func(opts ...connect.HandlerOption) (string, http.Handler) { return newHandler(impl, opts...) },
		maxBytes: defaultMaxBytes,
	}
	if d, err := protoregistry.GlobalFiles.FindDescriptorByName(name); err == nil {
		s.descriptor, _ = d.(protoreflect.ServiceDescriptor)
	}
	return s
}

// MaxBytes is the service with another bound on the size of a message.
func (s Service) MaxBytes(n int64) Service {
	s.maxBytes = n
	return s
}

// Server serves one service's API.
type Server struct {
	cfg    ServerConfig
	rules  authz.Table
	bounds map[string]bound
	// validator is the process's one: it reads every message's rules once, when the first call comes.
	validator protovalidate.Validator
	handler   http.Handler
	admission *admission
	// clients are those that the server may wait for, each with the principal whose place it holds.
	clients *pace.Watch[string]
	metrics metrics
	spans   spans
	links   []link
	// draining is closed, by drain, when the server begins to drain.
	draining chan struct{}
	drain    func()
}

// NewServer makes a server. It fails for a method without a rule and for a route without one.
func NewServer(cfg ServerConfig, services []Service, routes []Route) (*Server, error) {
	if cfg.MaxInFlight == 0 {
		cfg.MaxInFlight = 256
	}
	if cfg.UnaryTimeout == 0 {
		cfg.UnaryTimeout = 30 * time.Second
	}
	if cfg.Identity.Tenant.IsZero() {
		return nil, errors.New("a tenant's server needs a tenant: the control plane uses NewGRPCServer")
	}
	s := &Server{cfg: cfg, rules: authz.Table{}, validator: protovalidate.GlobalValidator, bounds: map[string]bound{}, admission: newAdmission(cfg.MaxInFlight), clients: pace.New[string](cfg.UnaryTimeout, fault.Connect(pace.ErrSlow)), spans: newSpans()}
	var err error
	if s.metrics, err = newMetrics(); err != nil {
		return nil, err
	}
	s.links = s.rpcChain()
	s.draining = make(chan struct{})
	s.drain = sync.OnceFunc(func() {
		close(s.draining)
		s.clients.Hurry()
	})
	mux := http.NewServeMux()
	if err := s.mountServices(mux, services); err != nil {
		return nil, err
	}
	for _, r := range routes {
		h, err := s.route(r)
		if err != nil {
			return nil, err
		}
		mux.Handle(r.Pattern, h)
	}
	s.handler = mux
	chain := s.httpChain()
	for i := len(chain) - 1; i >= 0; i-- {
		s.handler = chain[i].wrap(s.handler)
	}
	s.handler = onGrownStack(s.handler)
	return s, nil
}

// Handler is everything behind the listener, for tests.
func (s *Server) Handler() http.Handler { return s.handler }

// Tally is what the server did since it started.
func (s *Server) Tally() *Tally { return s.metrics.tally }

func (s *Server) mountServices(mux *http.ServeMux, services []Service) error {
	var descriptors []protoreflect.ServiceDescriptor
	var names []string
	for _, svc := range services {
		if svc.descriptor == nil {
			return errors.New("refusing to serve: a mounted service has no descriptor")
		}
		descriptors = append(descriptors, svc.descriptor)
		names = append(names, string(svc.descriptor.FullName()))
	}
	rules, err := authz.Load(descriptors...)
	if err != nil {
		return err
	}
	for procedure, r := range rules {
		if r.GetLicensed() != "" && s.cfg.Licence == nil {
			return fmt.Errorf("refusing to serve: %s is licensed, and this server was told no licence", procedure)
		}
	}
	s.rules = rules
	health := grpchealth.NewStaticChecker(names...)
	services = append(services,
		foreign(func(o ...connect.HandlerOption) (string, http.Handler) {
			return reflector(names, o...)
		}),
		foreign(func(o ...connect.HandlerOption) (string, http.Handler) { return grpchealth.NewHandler(health, o...) }))
	for p, r := range foreignRules {
		s.rules[p] = authz.Rule{Rule: r, Procedure: p}
		s.bounds[p] = bound{bytes: foreignMaxBytes, streams: p != unaryHealth}
	}
	for _, svc := range services {
		path, h := svc.mount(
			connect.WithInterceptors(interceptor{s}),
			codecs(),
			connect.WithReadMaxBytes(int(svc.maxBytes)),
			connect.WithCompressMinBytes(1024))
		mux.Handle(path, h)
		if svc.descriptor == nil {
			continue
		}
		for i := range svc.descriptor.Methods().Len() {
			m := svc.descriptor.Methods().Get(i)
			s.bounds[path+string(m.Name())] = bound{bytes: svc.maxBytes, streams: m.IsStreamingClient() || m.IsStreamingServer()}
		}
	}
	return nil
}

// foreignMaxBytes bounds the messages of services whose protos are not ours.
const foreignMaxBytes = 64 << 10

// unaryHealth is the one of their methods that is no stream.
const unaryHealth = "/grpc.health.v1.Health/Check"

func foreign(mount func(...connect.HandlerOption) (string, http.Handler)) Service {
	return Service{mount: mount, maxBytes: foreignMaxBytes}
}

// foreignRules are the rules of methods whose protos are not ours.
var foreignRules = map[string]*authzv1.Rule{
	"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": {
		Level: authzv1.Level_LEVEL_TENANT, Effect: authzv1.Effect_EFFECT_READ, Permission: authz.Self,
	},
	unaryHealth: {
		Level: authzv1.Level_LEVEL_TENANT, Effect: authzv1.Effect_EFFECT_READ, Open: "says serving or not, and nothing of any tenant",
	},
	"/grpc.health.v1.Health/Watch": {
		Level: authzv1.Level_LEVEL_TENANT, Effect: authzv1.Effect_EFFECT_READ, Open: "says serving or not, and nothing of any tenant",
	},
}

// boundTenant is the tenant that the server serves.
func (s *Server) boundTenant() id.Tenant { return s.cfg.Identity.Tenant }
