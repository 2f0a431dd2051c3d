package scope_test

import (
	"context"
	"errors"
	"testing"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/scope"
	"a3os.app/libs/scope/scopetest"
)

func full() scope.Scope {
	return scope.Scope{Plane: "dev", Tenant: id.NewTenant(), Workspace: id.NewWorkspace(), Principal: scope.Principal(id.NewUser().String()),
		Permissions: []string{"self", "audit.read"}}
}

func TestScopeThatLacksAnythingIsRefused(t *testing.T) {
	without := func(change func(*scope.Scope)) context.Context {
		s := full()
		change(&s)
		return scopetest.With(t.Context(), s)
	}
	for name, ctx := range map[string]context.Context{
		"none":         t.Context(),
		"zero":         scopetest.With(t.Context(), scope.Scope{}),
		"no plane":     without(func(s *scope.Scope) { s.Plane = "" }),
		"no tenant":    without(func(s *scope.Scope) { s.Tenant = id.Tenant{} }),
		"no principal": without(func(s *scope.Scope) { s.Principal = "" }),
	} {
		for what, read := range map[string]func(context.Context) (scope.Scope, error){"From": scope.From, "InWorkspace": scope.InWorkspace} {
			s, err := read(ctx)
			if !errors.Is(err, scope.ErrNone) || fault.KindOf(err) != fault.Internal {
				t.Errorf("%s, %s: %v", name, what, err)
			}
			if !s.Tenant.IsZero() || !s.Workspace.IsZero() || s.Principal != "" || s.Permissions != nil {
				t.Errorf("%s, %s: answered %+v beside the error", name, what, s)
			}
		}
	}
}

func TestScopeOfTheTenantIsInNoWorkspace(t *testing.T) {
	s := full()
	s.Workspace = id.Workspace{}
	ctx := scopetest.With(t.Context(), s)
	if got, err := scope.From(ctx); err != nil || got.Tenant != s.Tenant {
		t.Errorf("From: %+v, %v", got, err)
	}
	if got, err := scope.InWorkspace(ctx); !errors.Is(err, scope.ErrNone) || !got.Tenant.IsZero() {
		t.Errorf("InWorkspace: %+v, %v", got, err)
	}
}

func TestScopeIsTheOneThatWasPutInLast(t *testing.T) {
	outer, inner := full(), full()
	ctx := scopetest.With(t.Context(), outer)
	got, err := scope.InWorkspace(scopetest.With(ctx, inner))
	if err != nil || got.Workspace != inner.Workspace || got.Tenant != inner.Tenant {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err = scope.InWorkspace(ctx); err != nil || got.Workspace != outer.Workspace {
		t.Errorf("the outer call: %+v, %v", got, err)
	}
}

func TestHasSaysWhatTheScopeCarries(t *testing.T) {
	s, err := scope.From(scopetest.With(t.Context(), full()))
	if err != nil {
		t.Fatal(err)
	}
	for permission, want := range map[string]bool{"self": true, "audit.read": true, "audit": false, "audit.read ": false, "audit.verify": false, "": false, "*": false} {
		if got := s.Has(permission); got != want {
			t.Errorf("%q: %t, want %t", permission, got, want)
		}
	}
	if (scope.Scope{}).Has("self") || (scope.Scope{}).Has("") {
		t.Error("the zero scope carries a permission")
	}
}

func TestPrincipalIsAUserOnlyByAUsersID(t *testing.T) {
	user := id.NewUser()
	for p, want := range map[scope.Principal]id.User{
		scope.Principal(user.String()):                   user,
		scope.Principal(id.NewServiceAccount().String()): {},
		scope.Workload("iam"):                            {},
		"":                                               {},
		"usr_":                                           {},
		scope.Principal("workload:" + user.String()):      {},
		scope.Principal(user.String() + " "):              {},
		scope.Workload(user.String()):                     {},
		scope.Principal("usr_00000000000000000000000000"): {},
	} {
		if got := p.User(); got != want {
			t.Errorf("%q is user %q, want %q", p, got, want)
		}
	}
}
