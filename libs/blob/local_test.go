package blob_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"a3os.app/libs/binding"
	"a3os.app/libs/binding/bindingtest"
	"a3os.app/libs/blob"
	"a3os.app/libs/blob/blobtest"
	"a3os.app/libs/id"
)

func newLocal(t *testing.T) (string, id.Tenant, *blob.LocalWriter, *blob.LocalReader) {
	t.Helper()
	dir, tenant := filepath.Join(t.TempDir(), "objects"), id.NewTenant()
	if _, err := blob.CreateLocal(dir, bindingtest.Signer(t), tenant); err != nil {
		t.Fatal(err)
	}
	w, err := blob.OpenLocalWriter(dir, bindingtest.Owner(t, tenant), blobtest.MostBytes)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	r, err := blob.OpenLocalReader(dir, bindingtest.Owner(t, tenant))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return dir, tenant, w, r
}

// Attack O39, in what every driver must refuse.
func TestLocal(t *testing.T) {
	blobtest.Run(t, func(t *testing.T) blobtest.Store {
		_, _, w, r := newLocal(t)
		return blobtest.Store{Writer: w, Reader: r}
	})
}

// Attack O40.
func TestStoreOfAnotherTenantIsNotOpened(t *testing.T) {
	dir, tenant, _, _ := newLocal(t)
	other := id.NewTenant()
	_, createErr := blob.CreateLocal(dir, bindingtest.Signer(t), other)
	_, writeErr := blob.OpenLocalWriter(dir, bindingtest.Owner(t, other), 1)
	_, readErr := blob.OpenLocalReader(dir, bindingtest.Owner(t, other))
	for what, err := range map[string]error{"create": createErr, "writer": writeErr, "reader": readErr} {
		if !errors.Is(err, binding.ErrForeign) || !strings.Contains(err.Error(), "object store") || !strings.Contains(err.Error(), dir) ||
			!strings.Contains(err.Error(), tenant.String()) || !strings.Contains(err.Error(), other.String()) {
			t.Errorf("%s: %v", what, err)
		}
	}
	t.Attr("row", "O40 3")
}

// Attack O39, by a link instead of a key.
func TestLinkDoesNotLeadOut(t *testing.T) {
	dir, tenant, w, r := newLocal(t)
	if _, err := w.Put(t.Context(), "d/a", strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	outside := filepath.Join(t.TempDir(), "secret@")
	if err := os.WriteFile(outside, []byte("outside"), 0o600); err != nil {
		t.Fatal(err)
	}
	space := filepath.Join(dir, "objects", tenant.String())
	for link, to := range map[string]string{"file@": outside, "dir": filepath.Dir(outside)} {
		if err := os.Symlink(to, filepath.Join(space, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range []string{"file", "dir/secret"} {
		if _, _, err := r.Get(t.Context(), key); err == nil {
			t.Errorf("read %s, which lies outside", key)
		}
	}
	if _, err := w.Put(t.Context(), "dir/new", strings.NewReader("x")); err == nil {
		t.Error("wrote through a link that leads out")
	}
	if err := w.Delete(t.Context(), "dir/secret"); err == nil {
		t.Error("deleted through a link that leads out")
	}
	if b, err := os.ReadFile(outside); err != nil || string(b) != "outside" {
		t.Errorf("the file outside is %q, %v", b, err)
	}
}

func FuzzKeyStaysInside(f *testing.F) {
	for _, key := range append(blobtest.InvalidKeys(), "a", "a/b", "...", "a/..b/c") {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key string) {
		if blob.CheckKey(key) != nil {
			return
		}
		if !filepath.IsLocal(key) || filepath.Clean(key) != key || strings.ContainsAny(key, "\\%@\x00") || len(key) > blob.MostKey {
			t.Errorf("%q is taken for a key", key)
		}
	})
}
