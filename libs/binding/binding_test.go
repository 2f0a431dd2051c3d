package binding_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"a3os.app/libs/binding"
	"a3os.app/libs/id"
)

func signer(t *testing.T, plane string) (*binding.Signer, string) {
	t.Helper()
	private, public, err := binding.NewKey(plane)
	if err != nil {
		t.Fatal(err)
	}
	s, err := binding.NewSigner(plane, private)
	if err != nil {
		t.Fatal(err)
	}
	return s, public
}

func sign(t *testing.T, s *binding.Signer, m binding.Mark) string {
	t.Helper()
	text, err := s.Sign(m)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestOnlyTheOwnersMarkIsAccepted(t *testing.T) {
	dev, devKey := signer(t, "dev")
	gone, goneKey := signer(t, "dev")
	prod, prodKey := signer(t, "prod")
	mine, other := id.NewTenant(), id.NewTenant()
	own := binding.Mark{Tenant: mine, Kind: binding.Database, Name: "one"}
	good := sign(t, dev, own)
	change := func(f func(m *binding.Mark)) string { m := own; f(&m); return sign(t, dev, m) }
	o, err := binding.NewOwner(devKey, "dev", mine)
	if err != nil {
		t.Fatal(err)
	}
	place := binding.Place{What: `database "one"`, Setting: "A3_DATABASE_URL"}
	for name, c := range map[string]struct {
		text string
		kind error
		says string
	}{
		"its own":                        {good, nil, ""},
		"another tenant's":               {change(func(m *binding.Mark) { m.Tenant = other }), binding.ErrForeign, "carries the mark of tenant " + other.String() + ", this set is " + mine.String() + ": check A3_DATABASE_URL"},
		"the plane's own":                {change(func(m *binding.Mark) { m.Tenant = id.Tenant{} }), binding.ErrForeign, "the mark of plane dev"},
		"none":                           {"", binding.ErrUnmarked, `database "one" carries no mark`},
		"blank":                          {" \n", binding.ErrUnmarked, "no mark"},
		"of another kind":                {change(func(m *binding.Mark) { m.Kind = binding.Queue }), binding.ErrForeign, "mark of this set's queue"},
		"copied from elsewhere":          {change(func(m *binding.Mark) { m.Name = "two" }), binding.ErrForeign, `"two", a copy`},
		"sealed with another key":        {change(func(m *binding.Mark) { m.Key = "abc" }), binding.ErrReach, `sealed with key "abc"`},
		"of a plane that is gone":        {sign(t, gone, own), binding.ErrForged, "this plane's marks are signed by"},
		"of another plane":               {sign(t, prod, own), binding.ErrForged, "a3os.app/prod/marks"},
		"changed":                        {strings.Replace(sign(t, dev, binding.Mark{Tenant: other, Kind: binding.Database, Name: "one"}), other.String(), mine.String(), 1), binding.ErrForged, "forged"},
		"with a signature of nothing":    {good[:len(good)-8] + "AAAAAAA\n", binding.ErrForged, "forged"},
		"without a signature":            {good[:strings.Index(good, "\n\n")+1], binding.ErrForged, "can't be read"},
		"the id alone, as they once was": {mine.String() + "\n", binding.ErrForged, "can't be read"},
		"endless":                        {good + strings.Repeat("x", 1<<20), binding.ErrForged, "bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			err := o.Check(own, c.text, place)
			if !errors.Is(err, c.kind) || (err == nil) != (c.kind == nil) {
				t.Fatalf("it is judged %v", err)
			}
			if c.kind != nil && (!errors.Is(err, binding.ErrRefused) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "A3_DATABASE_URL")) {
				t.Errorf("the sentence is %q, want %q in it", err, c.says)
			}
		})
	}
	both, err := binding.NewOwner(goneKey+","+devKey, "dev", mine)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(both.Check(own, good, place), both.Check(own, sign(t, gone, own), place)); err != nil {
		t.Errorf("while the key is exchanged: %v", err)
	}
	for _, keys := range []string{"", "x", prodKey, devKey + "," + prodKey} {
		if _, err := binding.NewOwner(keys, "dev", mine); err == nil {
			t.Errorf("keys %q are taken for the plane's", keys)
		}
	}
}

func TestProvisionerReadsAMarkWithoutBelievingIt(t *testing.T) {
	s, _ := signer(t, "dev")
	want := binding.Mark{Plane: "dev", Tenant: id.NewTenant(), Kind: binding.Secrets, Key: "k"}
	if got, err := binding.Claimed(sign(t, s, want)); err != nil || got != want {
		t.Errorf("read %+v, %v", got, err)
	}
	for _, text := range []string{"", "tnt_x\n", "hello\n\n— x AAAAAAAA\n"} {
		if m, err := binding.Claimed(text); err == nil {
			t.Errorf("%q is read as %+v", text, m)
		}
	}
	if _, err := s.Sign(binding.Mark{Kind: binding.Database, Name: "a\nkey x"}); err == nil {
		t.Error("a name with a line end is signed")
	}
}

type resource func() error

func (r resource) Prove(context.Context) error { return r() }

func TestNothingProvenIsNotProof(t *testing.T) {
	_, key := signer(t, "dev")
	o, err := binding.NewOwner(key, "dev", id.NewTenant())
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Prove(t.Context()); !errors.Is(err, binding.ErrRefused) {
		t.Errorf("an owner that holds nothing proves %v", err)
	}
	refused := binding.Refuse(binding.ErrForeign, "somebody else's")
	o.Hold(resource(func() error { return nil }))
	if err := o.Prove(t.Context()); err != nil {
		t.Error(err)
	}
	o.Hold(resource(func() error { return refused }))
	o.Hold(resource(func() error { return nil }))
	if err := o.Prove(t.Context()); !errors.Is(err, refused) {
		t.Errorf("one of three is another's, and %v", err)
	}
}
