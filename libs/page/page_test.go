package page_test

import (
	"errors"
	"testing"

	"a3os.app/libs/id"
	"a3os.app/libs/page"
	"a3os.app/libs/scope"
	"a3os.app/libs/scope/scopetest"
)

func TestTokenServesOnlyItsCallerMethodAndFilter(t *testing.T) {
	s, err := page.NewSealer([]byte("0123456789abcdef0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	own := scope.Scope{Plane: "dev", Tenant: id.NewTenant(), Workspace: id.NewWorkspace(), Principal: "usr_a"}
	ctx := scopetest.With(t.Context(), own)
	token, err := s.Seal(ctx, "List", "filter", 7)
	if err != nil {
		t.Fatal(err)
	}
	var got int
	if err := s.Open(ctx, "List", "filter", token, &got); err != nil || got != 7 {
		t.Fatalf("own token: got %d, %v", got, err)
	}
	other := func(change func(*scope.Scope)) scope.Scope {
		o := own
		change(&o)
		return o
	}
	for name, c := range map[string]struct {
		scope                 scope.Scope
		method, filter, token string
	}{
		"another workspace": {other(func(o *scope.Scope) { o.Workspace = id.NewWorkspace() }), "List", "filter", token},
		"another tenant":    {other(func(o *scope.Scope) { o.Tenant = id.NewTenant() }), "List", "filter", token},
		"another principal": {other(func(o *scope.Scope) { o.Principal = "usr_b" }), "List", "filter", token},
		"another method":    {own, "ListOther", "filter", token},
		"another filter":    {own, "List", "other", token},
		"cut":               {own, "List", "filter", token[:len(token)-2]},
		"no base64":         {own, "List", "filter", "*"},
	} {
		t.Run(name, func(t *testing.T) {
			var into int
			if err := s.Open(scopetest.With(t.Context(), c.scope), c.method, c.filter, c.token, &into); !errors.Is(err, page.ErrToken) {
				t.Fatalf("want ErrToken, got %v with %d", err, into)
			}
		})
	}
}
