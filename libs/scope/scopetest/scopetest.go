// Package scopetest puts scopes into contexts for tests of code behind the chain. Lint keeps it out of everything but tests.
package scopetest

import (
	"context"
	"slices"

	"a3os.app/libs/internal/scopectx"
	"a3os.app/libs/scope"
)

// With is ctx with a scope.
func With(ctx context.Context, s scope.Scope) context.Context {
	slices.Sort(s.Permissions)
	return scopectx.With(ctx, s)
}
