package naming

import (
	"slices"
	"strings"
	"testing"

	"a3os.app/libs/fault"
)

func TestReservedWordsAreSortedSoThatEachIsFound(t *testing.T) {
	if !slices.IsSorted(reserved) {
		t.Fatal("reserved is not sorted")
	}
	for _, w := range reserved {
		if err := Check(w); fault.KindOf(err) != fault.InvalidArgument {
			t.Errorf("%q was accepted: %v", w, err)
		}
	}
}

func TestSlugThatNoTenantMayHaveIsRefused(t *testing.T) {
	for _, s := range []string{
		"", "-", "a-", "-a", "1acme", "Acme", "acme.evil", "acme_co", "acme ", "ac me", "äcme", "acme\x00", "acme\n", "xn--80ak6aa92e",
		"a--b", "adm1n", "r00t", "www", "localhost", "1ocalhost", "loca1host", "tnt", strings.Repeat("a", 41),
		"log-in", "ad-min", "adrnin", "rnail", "web-mail", "reglstry", "dlscovery", "cliscovery", "vvww", "a-3-o-s", "5upport", "adrn1n", "d1scovery", "c1iscovery",
	} {
		if err := Check(s); fault.KindOf(err) != fault.InvalidArgument || err == nil {
			t.Errorf("%q was accepted", s)
		}
	}
}

func TestOrdinarySlugsAreAccepted(t *testing.T) {
	for _, s := range []string{"acme", "globex", "a", "a1", "north-west-3", "pope", "storee", "mailer", "clock", "login-works", strings.Repeat("a", 40)} {
		if err := Check(s); err != nil {
			t.Errorf("%q was refused: %v", s, err)
		}
	}
}
