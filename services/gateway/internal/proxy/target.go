package proxy

import (
	"context"

	"a3os.app/services/gateway/internal/routes"
)

// target is where a request goes.
type target struct {
	upstream *routes.Upstream
	route    *routes.Route
	// last says that the request is the last on its connection.
	last bool
	// client is who sent the request.
	client *client
}

type targetKey struct{}

func withTarget(ctx context.Context, t target) context.Context {
	return context.WithValue(ctx, targetKey{}, t)
}

// targetFrom answers the zero target outside of ServeHTTP, which leads nowhere.
func targetFrom(ctx context.Context) target {
	t, _ := ctx.Value(targetKey{}).(target)
	if t.upstream == nil {
		t.upstream = &routes.Upstream{Service: &routes.Service{}}
	}
	return t
}
