// Package scopetest puts scopes, and idempotency keys, into contexts for tests of code behind the chain. Lint keeps it out of everything but tests.
package scopetest

import (
	"context"
	"slices"

	"a3os.app/libs/internal/idemctx"
	"a3os.app/libs/internal/scopectx"
	"a3os.app/libs/scope"
)

// With is ctx with a scope.
func With(ctx context.Context, s scope.Scope) context.Context {
	slices.Sort(s.Permissions)
	return scopectx.With(ctx, s)
}

// WithKey is ctx with the idempotency key of a call of a method.
func WithKey(ctx context.Context, method, key string) context.Context {
	return idemctx.With(ctx, idemctx.Key{Method: method, Value: key})
}
