package rpc

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"buf.build/go/protovalidate"
	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	authzv1 "a3os.app/proto/gen/go/a3os/authz/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/internal/callctx"
	"a3os.app/libs/internal/idemctx"
	"a3os.app/libs/internal/scopectx"
	"a3os.app/libs/scope"
)

// Refusals of the chain.
var (
	errNobody    = fault.Declare(fault.Unauthenticated, "NO_CREDENTIALS", "this method needs an access token: get one from the tenant's token endpoint")
	errNotYours  = fault.Declare(fault.PermissionDenied, "NOT_ALLOWED", "you may not call this method")
	errNoTenant  = fault.Declare(fault.PermissionDenied, "WRONG_TENANT", "the token belongs to another tenant")
	errNoSpace   = fault.Declare(fault.PermissionDenied, "NO_WORKSPACE", "the token is for no workspace: exchange it for one of a workspace")
	errNoPresent = fault.Declare(fault.PermissionDenied, "NOTHING_PRESENTED", "a workload acts for a workspace only with what authorised it")
)

// mapFault gives every error a code, and logs the cause of those that are ours.
func (s *Server) mapFault(ctx context.Context, c *call, err error) error {
	if err == nil {
		return nil
	}
	// A stream that was ended for a reason (revoked, expired) says the reason and not that its context ended.
	if cause := context.Cause(ctx); cause != nil && errors.Is(err, context.Canceled) {
		err = cause
	}
	mapped := fault.Connect(err)
	level := slog.LevelDebug
	if mapped.Code() == connect.CodeInternal {
		level = slog.LevelError
	}
	slog.Log(ctx, level, "call failed", "procedure", c.rule.Procedure, "code", mapped.Code().String(),
		"request_id", callctx.From(ctx).RequestID, "error", loggable(err))
	return mapped
}

// loggable is an error as a log may hold it. What Connect itself says of a message that it can't read repeats a part of that message,
// which may be a secret: the caller is told, and nobody else.
func loggable(err error) error {
	if _, ours := errors.AsType[*fault.Error](err); ours {
		return err
	}
	if ce, ok := errors.AsType[*connect.Error](err); ok && !connect.IsWireError(ce) {
		return errors.New("the message can't be taken; why is told to the caller alone, for it repeats what was sent")
	}
	return err
}

// makeScope makes the scope from what was proven, and from nothing else.
func (s *Server) makeScope(ctx context.Context, c *call) (context.Context, error) {
	who := c.caller
	sc := scope.Scope{Plane: s.cfg.Identity.Plane, Tenant: s.boundTenant()}
	switch {
	case who.member(s.boundTenant()):
		sc.Principal = scope.Workload(who.peer.Service)
		switch {
		case who.presented != nil:
			sc.Workspace, sc.OnBehalfOf = who.presented.Workspace, who.presented.OnBehalfOf
			ctx = who.presented.With(ctx)
		case who.claims != nil:
			if who.claims.Tenant != s.boundTenant() {
				return ctx, errNoTenant
			}
			sc.Workspace, sc.OnBehalfOf, sc.Transfer = who.claims.Workspace, who.claims.Principal, who.claims.Transfer
		}
	case who.claims != nil:
		// The key already says whose token it is; this stands when that wall has fallen.
		if who.claims.Tenant != s.boundTenant() {
			return ctx, errNoTenant
		}
		sc.Principal, sc.Workspace = who.claims.Principal, who.claims.Workspace
		sc.Permissions, sc.Transfer = who.claims.Permissions, who.claims.Transfer
	default:
		if c.rule.GetOpen() == "" {
			return ctx, errNobody
		}
		return ctx, nil
	}
	if who.claims != nil {
		sc.ExpiresAt = who.claims.ExpiresAt
	}
	if c.streaming && who.claims != nil {
		ctx = s.endWhenRevoked(ctx, who)
	}
	return scopectx.With(ctx, sc), nil
}

// endWhenRevoked is a context that ends when the token of an open stream is revoked or expires.
func (s *Server) endWhenRevoked(ctx context.Context, who *caller) context.Context {
	ctx, end := context.WithCancelCause(ctx)
	expiry := time.NewTimer(time.Until(who.claims.ExpiresAt))
	token := callctx.From(ctx).Presented.Token
	go func() {
		defer expiry.Stop()
		for {
			changed := s.cfg.Revocations.Changed()
			// The whole token once more: the key that it was signed with may be gone.
			if _, err := s.cfg.Tokens.Verify(ctx, token); err != nil && ctx.Err() == nil {
				end(err)
				return
			}
			select {
			case <-changed:
			case <-expiry.C:
				end(fault.New(fault.Unauthenticated, "the access token expired while the stream was open: open it again with a new one"))
				return
			case <-ctx.Done():
				end(nil)
				return
			}
		}
	}()
	return ctx
}

// checkRule lets in who the rule names.
func (s *Server) checkRule(ctx context.Context, c *call) (context.Context, error) {
	if c.rule.Rule == nil {
		return ctx, fault.New(fault.Unimplemented, "no such method")
	}
	if c.rule.GetOpen() != "" {
		return ctx, nil
	}
	sc, err := scope.From(ctx)
	if err != nil {
		return ctx, err
	}
	if c.caller.member(s.boundTenant()) {
		if !slices.Contains(c.rule.GetWorkloads(), c.caller.peer.Service) {
			return ctx, errNotYours
		}
		if c.rule.GetLevel() == authzv1.Level_LEVEL_WORKSPACE && sc.Workspace.IsZero() {
			return ctx, errNoPresent
		}
	} else {
		if c.rule.GetPermission() == "" {
			return ctx, errNotYours
		}
		if c.rule.GetLevel() == authzv1.Level_LEVEL_WORKSPACE && sc.Workspace.IsZero() {
			return ctx, errNoSpace
		}
		if !sc.Has(c.rule.GetPermission()) {
			return ctx, errNotYours.With("this needs the permission %s, which your roles do not carry", c.rule.GetPermission())
		}
	}
	if c.caller.claims != nil {
		if err := s.cfg.Revocations.Fresh(c.rule.GetEffect()); err != nil {
			return ctx, err
		}
	}
	return ctx, nil
}

// checkLicence refuses a licensed method where the tenant's licence doesn't let it go on.
func (s *Server) checkLicence(ctx context.Context, c *call) (context.Context, error) {
	if c.rule.GetLicensed() == "" {
		return ctx, nil
	}
	return ctx, s.cfg.Licence.Allows(ctx, c.rule.GetLicensed())
}

// validate holds the request against its protovalidate rules. The violation names fields, never their values.
func (s *Server) validate(_ context.Context, _ *call, m proto.Message) error {
	err := s.validator.Validate(m)
	if err == nil {
		return nil
	}
	ve, ok := errors.AsType[*protovalidate.ValidationError](err)
	if !ok || len(ve.Violations) == 0 {
		return fault.Wrap(fault.InvalidArgument, err, "the request is not valid")
	}
	v := ve.Violations[0]
	field := protovalidate.FieldPathString(v.Proto.GetField())
	return fault.New(fault.InvalidArgument, "%s: %s", field, v.Proto.GetMessage())
}

const maxKey = 128

// takeKey takes the idempotency key of a creating call for its transaction.
func takeKey(ctx context.Context, c *call) (context.Context, error) {
	key := c.header.Get("Idempotency-Key")
	if key == "" || !c.rule.GetCreates() {
		return ctx, nil
	}
	if len(key) > maxKey {
		return ctx, fault.New(fault.InvalidArgument, "the Idempotency-Key has %d characters, at most %d are kept", len(key), maxKey)
	}
	for i := range len(key) {
		if key[i] <= ' ' || key[i] > '~' {
			return ctx, fault.New(fault.InvalidArgument, "the Idempotency-Key has a character that isn't visible ASCII")
		}
	}
	return idemctx.With(ctx, idemctx.Key{Method: c.rule.Procedure, Value: key}), nil
}
