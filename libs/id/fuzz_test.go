package id_test

import (
	"math/big"
	"strings"
	"testing"

	"a3os.app/libs/id"
)

// FuzzParse holds that an id has one form, and that its 128 bits are those that Crockford's base 32 says, reckoned here as a number
// (TypeID specification v0.3, "UUID Encoding").
func FuzzParse(f *testing.F) {
	good := id.NewTenant().String()
	for _, s := range []string{
		good, "", "tnt_", "_", strings.ToUpper(good), good + "0", good[:len(good)-1], "tnt_8zzzzzzzzzzzzzzzzzzzzzzzzz", "tnt_7zzzzzzzzzzzzzzzzzzzzzzzzz",
		"tnt_00000000000000000000000000", "tnt_0000000000000000000000000l", "wsp" + good[3:], "tnt__" + good[4:], " " + good, good + "\n", "tnt_\x00", "é" + good,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := id.ParseTenant(s)
		var text id.Tenant
		if terr := text.UnmarshalText([]byte(s)); s != "" && (terr == nil) != (err == nil) || text != got {
			t.Fatalf("%q is read as %v, %v and as text as %v, %v", s, got, err, text, terr)
		}
		if err != nil {
			if !got.IsZero() || len(err.Error()) > 500 {
				t.Fatalf("%q is refused with %d bytes, as %v", s, len(err.Error()), got)
			}
			return
		}
		if got.String() != s {
			t.Fatalf("%q is written as %q: two forms of one id", s, got)
		}
		n := new(big.Int)
		for _, c := range strings.TrimPrefix(s, "tnt_") {
			n.Add(n.Lsh(n, 5), big.NewInt(int64(strings.IndexRune("0123456789abcdefghjkmnpqrstvwxyz", c))))
		}
		var want [16]byte
		if n.BitLen() > 128 || n.Sign() == 0 {
			t.Fatalf("%q is believed and is no number of 128 bits", s)
		}
		if n.FillBytes(want[:]); got.Bytes() != want {
			t.Fatalf("%q has the bytes %x, want %x", s, got.Bytes(), want)
		}
		if _, err := id.ParseWorkspace(s); err == nil {
			t.Fatalf("%q is an id of two kinds", s)
		}
	})
}
