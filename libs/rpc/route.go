package rpc

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"connectrpc.com/connect"

	authzv1 "a3os.app/proto/gen/go/a3os/authz/v1"

	"a3os.app/libs/authz"
)

// Route is a plain HTTP route, for formats that others fixed: OAuth's, C2SP's. One without a rule is refused.
type Route struct {
	// Pattern is of net/http's mux, with its method: `POST /oauth2/token`.
	Pattern string
	// Handler serves an open route.
	Handler http.Handler
	// Open says why it may be called by someone not yet known; empty where a permission says who may.
	Open string
	// Permission is what a principal must have, by a token of the tenant, to read from the route: `audit.verify`.
	Permission string
	// AccessData says that what is read from the route goes on the record, as that of an RPC whose rule says so.
	AccessData bool
	// Serve serves a route with a permission, in the caller's scope. Its error is mapped and answered as that of an RPC, so it must
	// come before anything is written.
	Serve func(w http.ResponseWriter, r *http.Request) error
}

// route is the handler of a route, inside of the links that its rule asks for.
func (s *Server) route(r Route) (http.Handler, error) {
	switch {
	case r.Open == "" && r.Permission == "":
		return nil, fmt.Errorf("refusing to serve: route %q has no rule", r.Pattern)
	case r.Open != "" && r.Permission != "":
		return nil, fmt.Errorf("refusing to serve: the rule of route %q is open and names a permission as well", r.Pattern)
	case r.Open != "" && r.Handler == nil, r.Permission != "" && r.Serve == nil:
		return nil, fmt.Errorf("refusing to serve: route %q has a rule and nothing behind it", r.Pattern)
	case r.Open != "":
		return s.openRoute(r), nil
	}
	rule := &authzv1.Rule{Level: authzv1.Level_LEVEL_TENANT, Effect: authzv1.Effect_EFFECT_READ, Permission: r.Permission, AccessData: r.AccessData}
	if !authz.Carried(r.Permission) {
		return nil, fmt.Errorf("refusing to serve: no role carries the permission %q of route %q", r.Permission, r.Pattern)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		ctx, cancel := context.WithTimeout(req.Context(), s.cfg.UnaryTimeout)
		defer cancel()
		c := &call{rule: authz.Rule{Rule: rule, Procedure: r.Pattern}, header: req.Header, caller: callerFrom(req.Context()), protocol: "http"}
		err := s.around(ctx, c, func(ctx context.Context) error { return r.Serve(w, req.WithContext(ctx)) })
		if err != nil {
			refuse(w, req, err)
		}
	}), nil
}

// openRoute gives a route its span, for what it puts on the record names the caller's trace as that of an RPC does, and counts it.
func (s *Server) openRoute(r Route) http.Handler {
	rule := authz.Rule{Procedure: r.Pattern}
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		start := time.Now()
		c := &call{rule: rule, header: req.Header, protocol: "http"}
		ctx, cancel := context.WithTimeout(req.Context(), s.cfg.UnaryTimeout)
		defer cancel()
		ctx, err := s.spans.start(ctx, c)
		answer := &answer{ResponseWriter: w, status: http.StatusOK}
		defer func() {
			s.metrics.observe(ctx, r.Pattern, false, answer.failure(), time.Since(start))
			_ = s.spans.end(ctx, c, err)
		}()
		r.Handler.ServeHTTP(answer, req.WithContext(ctx))
	})
}

// answer remembers the status that was answered.
type answer struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(status int) {
	a.status = status
	a.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// failure is the error that a status stands for, where it is the server's; a caller's own faults are answers as good as any.
func (a *answer) failure() error {
	switch {
	case a.status == http.StatusServiceUnavailable:
		return connect.NewError(connect.CodeUnavailable, nil)
	case a.status >= http.StatusInternalServerError:
		return connect.NewError(connect.CodeInternal, nil)
	}
	return nil
}
