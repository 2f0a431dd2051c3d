package page_test

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"a3os.app/libs/id"
	"a3os.app/libs/page"
	"a3os.app/libs/scope"
	"a3os.app/libs/scope/scopetest"
)

// place is a cursor with what cursors are made of.
type place struct {
	Name string
	At   int64
}

// FuzzOpen holds that no text is a token but the one that was sealed, in one form, and that whatever is refused leaves the cursor alone.
func FuzzOpen(f *testing.F) {
	s, err := page.NewSealer([]byte("a secret of the test's own"))
	if err != nil {
		f.Fatal(err)
	}
	ctx := scopetest.With(f.Context(), scope.Scope{Plane: "dev", Tenant: id.NewTenant(), Workspace: id.NewWorkspace(), Principal: scope.Principal(id.NewUser().String())})
	good, err := s.Seal(ctx, "List", "filter", place{"acme", 7})
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{good, good[:len(good)-1], good + "A", good + "=", good + "\n", "A", "AAAA", " " + good, base64.RawURLEncoding.EncodeToString([]byte(`{"Name":"x"}`))} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, token string) {
		if token == "" {
			return // the first page
		}
		got := place{"before", -1}
		err := s.Open(ctx, "List", "filter", token, &got)
		switch {
		case token == good && (err != nil || got != place{"acme", 7}):
			t.Fatalf("what was sealed is read as %v, %v", got, err)
		case token != good && (!errors.Is(err, page.ErrToken) || got != place{"before", -1}):
			t.Fatalf("%q is read as %v, %v", token, got, err)
		}
	})
}

// FuzzSeal holds that any cursor comes back as it was, to the same method and filter and to no other.
func FuzzSeal(f *testing.F) {
	s, err := page.NewSealer([]byte("a secret of the test's own"))
	if err != nil {
		f.Fatal(err)
	}
	ctx := scopetest.With(f.Context(), scope.Scope{Plane: "dev", Tenant: id.NewTenant(), Principal: scope.Principal(id.NewUser().String())})
	f.Add("acme", int64(7), "List", "a", "b")
	f.Add("", int64(-1), "", "", "\x00")
	f.Add(`"],["`, int64(0), `["`, `","`, `"`)
	f.Fuzz(func(t *testing.T, name string, at int64, method, filter, other string) {
		name, method, filter, other = valid(name), valid(method), valid(filter), valid(other)
		token, err := s.Seal(ctx, method, filter, place{name, at})
		if err != nil {
			t.Fatal(err)
		}
		var got place
		if err := s.Open(ctx, method, filter, token, &got); err != nil || got != (place{name, at}) {
			t.Fatalf("%q, %d comes back as %v, %v", name, at, got, err)
		}
		if other != filter && s.Open(ctx, method, other, token, &got) == nil {
			t.Fatalf("a token for the filter %q is good for %q", filter, other)
		}
		if other != method && s.Open(ctx, other, filter, token, &got) == nil {
			t.Fatalf("a token for the method %q is good for %q", method, other)
		}
	})
}

// valid is s as it may stand in a message: protobuf takes no other text.
func valid(s string) string { return strings.ToValidUTF8(s, "�") }
