// Package idemctx carries a call's idempotency key from the chain to the transaction of the deed.
package idemctx

import "context"

// Key is an idempotency key and the method it was given for.
type Key struct{ Method, Value string }

type key struct{}

// With puts a key into a context.
func With(ctx context.Context, k Key) context.Context { return context.WithValue(ctx, key{}, k) }

// From takes the key out of a context.
func From(ctx context.Context) (Key, bool) {
	k, ok := ctx.Value(key{}).(Key)
	return k, ok
}
