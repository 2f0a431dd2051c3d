package server

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"a3os.app/libs/id"
	"a3os.app/libs/page"
)

func TestPageTokenIsThePlaceThatItWasMadeOf(t *testing.T) {
	at, tenant := time.UnixMicro(1_790_000_000_123_456), id.NewTenant()
	for token, place := range map[string][]any{
		tenant.String():                   {&tenant},
		"41":                              {new(int64(41))},
		"-1":                              {new(int64(-1))},
		"1790000000123456.41":             {&at, new(int64(41))},
		"1790000000123456.sha256:0123abc": {&at, new("sha256:0123abc")},
	} {
		var again []any
		for _, p := range place {
			again = append(again, reflect.New(reflect.TypeOf(p).Elem()).Interface())
		}
		if got := pageToken(values(place)...); got != token {
			t.Errorf("the token of %v is %q, want %q", values(place), got, token)
		}
		if err := readPageToken(token, again...); err != nil || pageToken(values(again)...) != token {
			t.Errorf("%q is read as %v, %v", token, values(again), err)
		}
	}
}

// values are what the pointers of a place point to.
func values(place []any) []any {
	var out []any
	for _, p := range place {
		out = append(out, reflect.ValueOf(p).Elem().Interface())
	}
	return out
}

func TestWhatIsNoPageTokenIsRefused(t *testing.T) {
	var (
		tenant id.Tenant
		n      int64
		text   string
		at     time.Time
	)
	for what, c := range map[string]struct {
		token string
		place []any
	}{
		"words":                        {"nonsense", []any{&tenant}},
		"an id of another kind":        {id.NewOperation().String(), []any{&tenant}},
		"an id and more":               {id.NewTenant().String() + ".1", []any{&tenant}},
		"a number and a letter":        {"12x", []any{&n}},
		"a number that is too great":   {"9223372036854775808", []any{&n}},
		"half a place":                 {"1790000000123456", []any{&at, &n}},
		"a place without its end":      {"1790000000123456.", []any{&at, &n}},
		"a place without its text":     {"1790000000123456.", []any{&at, &text}},
		"a text that no column holds":  {"1790000000123456.a\x00", []any{&at, &text}},
		"a place without its id":       {".1", []any{&tenant, &n}},
		"a place and more":             {"1790000000123456.1.1", []any{&at, &n}},
		"a time that no column holds":  {"-9223372036854775808.1", []any{&at, &n}},
		"a time after the end of them": {"9223372036854775807.1", []any{&at, &n}},
		"a place of unknown kind":      {"1", []any{new(float64)}},
	} {
		if err := readPageToken(c.token, c.place...); !errors.Is(err, page.ErrToken) {
			t.Errorf("%s, %q, is read: %v", what, c.token, err)
		}
	}
	n = 7
	if err := readPageToken("", &n); err != nil || n != 7 {
		t.Errorf("no token is the first page: %v, the place is %d", err, n)
	}
}
