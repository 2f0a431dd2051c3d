package workload_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"a3os.app/libs/id"
	"a3os.app/libs/workload"
)

func TestIssuerTakesANewIntermediateWithoutARestart(t *testing.T) {
	w := newWorld(t)
	domain, now := w.mine.root.TrustDomain(), time.Now()
	file := filepath.Join(t.TempDir(), "authority.pem")
	put := func(a workload.Authority, err error) workload.Authority {
		t.Helper()
		if err == nil {
			err = a.Save(file)
		}
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	// Made so long ago that it ends before a leaf would.
	const left = 3 * 24 * time.Hour
	old := put(w.mine.root.NewIntermediate(now.Add(left - workload.IntermediateLife)))
	f, err := workload.OpenAuthorityFile(file, domain)
	if err != nil {
		t.Fatal(err)
	}
	until := func() time.Time {
		t.Helper()
		csr, key, err := workload.NewRequest()
		if err != nil {
			t.Fatal(err)
		}
		chain, err := f.IssueLeaf(csr, of(w.tenant(), "audit"), now)
		if err != nil {
			t.Fatal(err)
		}
		pair, err := workload.NewKeypair(key, chain)
		if err != nil {
			t.Fatal(err)
		}
		return pair.Leaf().NotAfter
	}
	if got := until(); !got.Equal(old.NotAfter()) {
		t.Errorf("under an intermediate that ends at %s the leaf ends at %s", old.NotAfter(), got)
	}
	fresh := put(w.mine.root.NewIntermediate(now))
	if got := until(); got.Before(now.Add(workload.LeafLife - time.Minute)) {
		t.Errorf("under the new intermediate the leaf ends at %s", got)
	}
	for name, spoil := range map[string]func(){
		"another tenant's": func() { put(w.sibling.root.NewIntermediate(now.Add(time.Hour))) },
		"the root":         func() { put(w.mine.root, nil) },
		"an older one":     func() { put(old, nil) },
		"garbage": func() {
			if err := os.WriteFile(file, []byte("garbage"), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"nothing": func() {
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
		},
	} {
		spoil()
		if !f.NotAfter().Equal(fresh.NotAfter()) {
			t.Errorf("%s: it took it", name)
		}
		put(fresh, nil)
	}
	put(w.mine.root, nil)
	if _, err := workload.OpenAuthorityFile(file, domain); err == nil {
		t.Error("a root was opened as an issuing intermediate")
	}
	put(fresh, nil)
	if _, err := workload.OpenAuthorityFile(file, workload.TrustDomain{Plane: plane, Tenant: id.NewTenant()}); err == nil {
		t.Error("another tenant's intermediate was opened")
	}
}
