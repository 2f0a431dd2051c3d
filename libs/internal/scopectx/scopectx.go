// Package scopectx holds the one key under which a scope travels in a context. It is internal to libs, so that nothing but libs,
// which verify what a scope is made from, can put one there.
package scopectx

import "context"

type key struct{}

// With puts a scope into a context.
func With[S any](ctx context.Context, s S) context.Context { return context.WithValue(ctx, key{}, s) }

// From takes the scope out of a context.
func From[S any](ctx context.Context) (S, bool) {
	s, ok := ctx.Value(key{}).(S)
	return s, ok
}
