package rpc

import (
	"net/http"
	"regexp"
	"testing"

	"a3os.app/libs/authz"
	"a3os.app/libs/fault"
	"a3os.app/libs/internal/idemctx"
	authzv1 "a3os.app/proto/gen/go/a3os/authz/v1"
)

// FuzzIdempotencyKey holds the key to its form, which a regular expression says again, and to being taken as it is or not at all.
func FuzzIdempotencyKey(f *testing.F) {
	for _, s := range []string{"", "k", "a b", " a", "\x7f", "\x00", "é", "a\r\nb", string(make([]byte, maxKey)), string(make([]byte, maxKey+1))} {
		f.Add(s, true)
	}
	f.Add("k", false)
	form := regexp.MustCompile(`^[\x21-\x7e]{1,128}$`)
	f.Fuzz(func(t *testing.T, key string, creates bool) {
		c := &call{rule: authz.Rule{Rule: &authzv1.Rule{Creates: creates}, Procedure: "/x/Y"}, header: http.Header{"Idempotency-Key": {key}}}
		ctx, err := takeKey(t.Context(), c)
		got, taken := idemctx.From(ctx)
		switch {
		case !creates || key == "":
			if err != nil || taken {
				t.Fatalf("%q is taken as %v, %v", key, got, err)
			}
		case form.MatchString(key):
			if err != nil || got != (idemctx.Key{Method: "/x/Y", Value: key}) {
				t.Fatalf("%q is taken as %v, %v", key, got, err)
			}
		default:
			if fault.KindOf(err) != fault.InvalidArgument || taken {
				t.Fatalf("%q is taken as %v, %v", key, got, err)
			}
		}
	})
}
