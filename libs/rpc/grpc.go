package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"buf.build/go/protovalidate"
	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	authzv1 "a3os.app/proto/gen/go/a3os/authz/v1"

	"a3os.app/libs/authz"
	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/internal/callctx"
	"a3os.app/libs/workload"
)

// GRPCConfig is what a server of the control plane is made of. Its callers are workloads: there are no users.
type GRPCConfig struct {
	// Identity is whose server this is.
	Identity workload.Identity
	// Credentials are the listener's: mutual TLS.
	Credentials credentials.TransportCredentials
	// Peer is who the other side is, verified against the roots of its own trust domain.
	Peer func(ctx context.Context, info credentials.AuthInfo) (workload.Identity, error)
	// Admit says why a peer that was proven may call nothing, as a fault; nil for whoever may call what their name may. Where it is nil,
	// everybody proven is admitted. Open streams of people are asked for anew, and end where they are not admitted any more.
	Admit func(ctx context.Context, who workload.Identity, info credentials.AuthInfo) error
}

// GRPCServer is a grpc-go server behind the same links as Connect's, less those that are about tenants' users.
type GRPCServer struct {
	cfg    GRPCConfig
	server *grpc.Server
	chain  *Server
}

// NewGRPCServer makes a server. register registers the services on it; a method without a rule fails it.
func NewGRPCServer(cfg GRPCConfig, register func(grpc.ServiceRegistrar)) (*GRPCServer, error) {
	if cfg.Peer == nil || cfg.Credentials == nil {
		return nil, errors.New("a server of the control plane needs credentials and a way to know its peers")
	}
	m, err := newMetrics()
	if err != nil {
		return nil, err
	}
	g := &GRPCServer{cfg: cfg, chain: &Server{cfg: ServerConfig{Identity: cfg.Identity}, validator: protovalidate.GlobalValidator, metrics: m, spans: newSpans()}}
	g.chain.links = g.chain.planeChain(g.admit)
	g.server = grpc.NewServer(grpc.Creds(cfg.Credentials),
		grpc.ChainUnaryInterceptor(g.unary), grpc.ChainStreamInterceptor(g.stream),
		grpc.MaxRecvMsgSize(defaultMaxBytes), grpc.MaxConcurrentStreams(256), grpc.MaxHeaderListSize(64<<10),
		grpc.ConnectionTimeout(10*time.Second),
		// Ten thousand sets hold a connection each, on which little is said: what a connection reads into is small.
		grpc.ReadBufferSize(4<<10),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: 15 * time.Minute, Time: time.Minute, Timeout: 20 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}))
	register(g.server)
	var descriptors []protoreflect.ServiceDescriptor
	for name := range g.server.GetServiceInfo() {
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
		if err != nil {
			return nil, fmt.Errorf("refusing to serve: %s has no descriptor: %w", name, err)
		}
		sd, ok := d.(protoreflect.ServiceDescriptor)
		if !ok {
			return nil, fmt.Errorf("refusing to serve: %s is no service", name)
		}
		descriptors = append(descriptors, sd)
	}
	if g.chain.rules, err = authz.Load(descriptors...); err != nil {
		return nil, err
	}
	return g, nil
}

// planeChain is what every RPC of the control plane passes, outermost first.
func (s *Server) planeChain(admit func(context.Context, *call) (context.Context, error)) []link {
	return []link{
		{name: "span", reason: "outermost, so that it lasts as long as the call and tells the code that the caller gets", begin: s.spans.start, end: s.spans.end},
		{name: "fault", reason: "around all that refuses, so that every error of every link is mapped, and logged, once", end: s.mapFault},
		{name: "admit", reason: "before the rule: who is not admitted is nobody, whatever the name in the certificate may", begin: admit},
		{name: "rule", reason: "before validation, so that who may not call learns nothing of what is valid", begin: checkPlaneRule},
		{name: "validate", reason: "before the handler", message: s.validate},
	}
}

// admitEvery is how long the stream of somebody who is not admitted any more lasts at most.
const admitEvery = 2 * time.Second

// admit lets in whom the configuration admits. Streams of services are not asked for anew: there are thousands, and no list of services.
func (g *GRPCServer) admit(ctx context.Context, c *call) (context.Context, error) {
	if g.cfg.Admit == nil {
		return ctx, nil
	}
	if err := g.cfg.Admit(ctx, c.caller.peer, c.auth); err != nil {
		return ctx, err
	}
	if !c.streaming || planeName(c.caller.peer) != operator {
		return ctx, nil
	}
	ctx, end := context.WithCancelCause(ctx)
	go func() {
		tick := time.NewTicker(admitEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				end(nil)
				return
			case <-tick.C:
			}
			// That it can't be asked is no answer.
			if err := g.cfg.Admit(ctx, c.caller.peer, c.auth); fault.KindOf(err) == fault.PermissionDenied {
				end(err)
				return
			}
		}
	}()
	return ctx, nil
}

// checkPlaneRule lets in the workloads that the rule names.
func checkPlaneRule(ctx context.Context, c *call) (context.Context, error) {
	if c.rule.Rule == nil {
		return ctx, fault.New(fault.Unimplemented, "no such method")
	}
	if c.rule.GetLevel() != authzv1.Level_LEVEL_PLANE {
		return ctx, errNotYours
	}
	if name := planeName(c.caller.peer); name != "" && slices.Contains(c.rule.GetWorkloads(), name) {
		return ctx, nil
	}
	return ctx, errNotYours
}

// planeName is what rules of the control plane call a workload; empty for one that they have no name for. Services of the plane have
// their own names, and people are operators, each with a name in the certificate. A tenant's services are its set, of which the registry
// knows the one that reports, and the provisioner is whoever carries out an operation on that tenant: neither name is the plane's to have.
func planeName(who workload.Identity) string {
	switch {
	case who.Tenant.IsZero() && (who.Service == set || who.Service == provisioner):
		return ""
	case who.Tenant.IsZero() && strings.HasPrefix(who.Service, workload.OperatorPrefix):
		return operator
	case who.Tenant.IsZero():
		return who.Service
	case who.Service == provisioner:
		return provisioner
	}
	return set
}

const (
	// set, operator and provisioner are names of rules, beside those of the plane's services.
	set         = "set"
	operator    = workload.Operator
	provisioner = workload.Provisioner
)

// PeerFrom is the workload that calls, in a handler of a GRPCServer. It fails where there is none.
func PeerFrom(ctx context.Context) (workload.Identity, error) {
	c := callerFrom(ctx)
	if c.peer.Service == "" {
		return workload.Identity{}, errNobody
	}
	return c.peer, nil
}

func (g *GRPCServer) call(ctx context.Context, procedure string, streaming bool) (context.Context, *call, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return ctx, nil, errNobody
	}
	who, err := g.cfg.Peer(ctx, p.AuthInfo)
	if err != nil {
		return ctx, nil, fault.Wrap(fault.Unauthenticated, err, "the client certificate is not valid here")
	}
	ctx = callctx.With(ctx, &callctx.Call{RequestID: id.NewRequest().String(), SourceAddress: host(p.Addr.String()), Caller: &caller{peer: who}})
	md, _ := metadata.FromIncomingContext(ctx)
	h := http.Header{}
	for k, v := range md {
		h[http.CanonicalHeaderKey(k)] = v
	}
	c := &call{rule: g.chain.rule(procedure), header: h, caller: callerFrom(ctx), auth: p.AuthInfo, streaming: streaming, protocol: connect.ProtocolGRPC}
	return ctx, c, nil
}

func (g *GRPCServer) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	ctx, c, err := g.call(ctx, info.FullMethod, false)
	if err != nil {
		return nil, fault.Status(err)
	}
	var res any
	err = g.chain.around(ctx, c, func(ctx context.Context) (err error) {
		if err = g.chain.received(ctx, c, req); err != nil {
			return err
		}
		res, err = handler(ctx, req)
		return err
	})
	return res, asStatus(err)
}

func (g *GRPCServer) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	ctx, c, err := g.call(ss.Context(), info.FullMethod, true)
	if err != nil {
		return fault.Status(err)
	}
	return asStatus(g.chain.around(ctx, c, func(ctx context.Context) error {
		return handler(srv, &guardedStream{ServerStream: ss, s: g.chain, ctx: ctx, call: c})
	}))
}

// asStatus is the chain's error, which is Connect's, as grpc-go wants it.
func asStatus(err error) error {
	if err == nil {
		return nil
	}
	ce, ok := errors.AsType[*connect.Error](err)
	if !ok {
		return fault.Status(err)
	}
	s := status.New(codes.Code(ce.Code()), ce.Message())
	for _, d := range ce.Details() {
		v, verr := d.Value()
		if verr != nil {
			continue
		}
		switch v.(type) {
		case *errdetails.ErrorInfo, *errdetails.RetryInfo:
			if with, werr := s.WithDetails(protoadapt.MessageV1Of(v)); werr == nil {
				s = with
			}
		}
	}
	return s.Err()
}

type guardedStream struct {
	grpc.ServerStream
	s    *Server
	ctx  context.Context //nolint:containedctx // a stream lives as long as its call
	call *call
}

// Context is the call's, with what the chain put into it.
func (g *guardedStream) Context() context.Context { return g.ctx }

// RecvMsg refuses a message that a link refuses.
func (g *guardedStream) RecvMsg(m any) error {
	if err := g.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	return g.s.received(g.ctx, g.call, m)
}

// Serve listens on addr until ctx ends, then lets calls in flight finish, for 20 s at most.
func (g *GRPCServer) Serve(ctx context.Context, addr string) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", addr, err)
	}
	return g.ServeListener(ctx, l)
}

// ServeListener is Serve on a listener of one's own.
func (g *GRPCServer) ServeListener(ctx context.Context, l net.Listener) error {
	failed := make(chan error, 1)
	go func() { failed <- g.server.Serve(l) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	drained := make(chan struct{})
	go func() {
		g.server.GracefulStop()
		close(drained)
	}()
	// Streams of gateways never end by themselves, so the wait for them is short.
	const streamsWithin = 2 * time.Second
	t := time.NewTimer(streamsWithin)
	defer t.Stop()
	select {
	case <-drained:
	case <-t.C:
		slog.InfoContext(ctx, "ending open streams")
		g.server.Stop()
	}
	return nil
}
