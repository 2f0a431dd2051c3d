package secret_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"a3os.app/libs/binding"
	"a3os.app/libs/binding/bindingtest"
	"a3os.app/libs/config"
	"a3os.app/libs/id"
	"a3os.app/libs/secret"
	"a3os.app/libs/secret/secrettest"
)

const canary = "c4nary-77ab"

type local struct {
	dir    string
	tenant id.Tenant
	owner  *binding.Owner
	keys   secret.Keys
	writer *secret.LocalWriter
	reader *secret.LocalReader
}

func newLocal(t *testing.T) local {
	t.Helper()
	keys, err := secret.NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	return newLocalOf(t, keys)
}

func newLocalOf(t *testing.T, keys secret.Keys) local {
	t.Helper()
	l := local{dir: filepath.Join(t.TempDir(), "secrets"), tenant: id.NewTenant(), keys: keys}
	l.owner = bindingtest.Owner(t, l.tenant)
	_, err := secret.CreateLocal(l.dir, bindingtest.Signer(t), l.tenant, keys.Public)
	if err != nil {
		t.Fatal(err)
	}
	if l.writer, err = secret.OpenLocalWriter(l.dir, l.owner, keys.Public); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.writer.Close() })
	if l.reader, err = secret.OpenLocalReader(l.dir, l.owner, keys.Private); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.reader.Close() })
	return l
}

func (l local) put(t *testing.T, value string) secret.Path {
	t.Helper()
	p := secrettest.PathOf(l.tenant)
	if err := l.writer.Put(t.Context(), p, config.NewSecret(value)); err != nil {
		t.Fatal(err)
	}
	return p
}

func (l local) file(p secret.Path) string {
	return filepath.Join(l.dir, "secrets", filepath.FromSlash(p.String())+".sealed")
}

func TestLocal(t *testing.T) {
	secrettest.Run(t, func(t *testing.T) secrettest.Store {
		l := newLocal(t)
		return secrettest.Store{Tenant: l.tenant, Writer: l.writer, Reader: l.reader}
	})
}

func TestWriterCantRead(t *testing.T) {
	l := newLocal(t)
	if _, ok := any(l.writer).(secret.Reader); ok {
		t.Error("a writer has the method to read")
	}
	if _, ok := any(l.reader).(secret.Writer); ok {
		t.Error("a reader has the methods to write")
	}
	if _, err := secret.OpenLocalReader(l.dir, l.owner, config.NewSecret(l.keys.Public)); err == nil || !strings.Contains(err.Error(), "public half") {
		t.Errorf("opened for reading with the public key: %v", err)
	}
	if _, err := secret.OpenLocalWriter(l.dir, l.owner, l.keys.Private.Reveal()); err == nil || !strings.Contains(err.Error(), "must not have") {
		t.Errorf("a writer accepted the private key: %v", err)
	}
	for _, key := range []string{"", "!", "AAAA"} {
		if _, err := secret.OpenLocalWriter(l.dir, l.owner, key); err == nil {
			t.Errorf("opened for writing with key %q", key)
		}
		if _, err := secret.OpenLocalReader(l.dir, l.owner, config.NewSecret(key)); err == nil {
			t.Errorf("opened for reading with key %q", key)
		}
	}
	other, err := secret.NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := secret.OpenLocalReader(l.dir, l.owner, other.Private); !errors.Is(err, binding.ErrReach) || !strings.Contains(err.Error(), "A3_SECRET_DIR") {
		t.Errorf("opened for reading with another private key: %v", err)
	}
	if _, err := secret.OpenLocalWriter(l.dir, l.owner, other.Public); !errors.Is(err, binding.ErrReach) {
		t.Errorf("opened for writing with another public key: %v", err)
	}
}

func TestNothingOnDiskShowsTheValue(t *testing.T) {
	l := newLocal(t)
	l.put(t, canary)
	err := filepath.WalkDir(l.dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", name, info.Mode())
		}
		if d.IsDir() {
			return nil
		}
		b, err := os.ReadFile(name)
		if bytes.Contains(b, []byte(canary)) {
			t.Errorf("%s holds the value", name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestFileOpensOnlyWhereItWasWritten(t *testing.T) {
	l, other := newLocal(t), newLocal(t)
	p := l.put(t, canary)
	file, err := os.ReadFile(l.file(p))
	if err != nil {
		t.Fatal(err)
	}

	t.Run("another path", func(t *testing.T) {
		q := l.put(t, "x")
		if err := os.WriteFile(l.file(q), file, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := l.reader.Get(t.Context(), q); !errors.Is(err, secret.ErrUnreadable) {
			t.Errorf("err is %v", err)
		}
	})
	t.Run("another tenant with the same keys", func(t *testing.T) {
		if _, err := secret.OpenLocalReader(other.dir, other.owner, l.keys.Private); !errors.Is(err, binding.ErrReach) {
			t.Errorf("a key that is not the store's opens it: %v", err)
		}
		other := newLocalOf(t, l.keys)
		q := secret.Path{Tenant: other.tenant, Workspace: p.Workspace, Integration: p.Integration}
		if err := other.writer.Put(t.Context(), q, config.NewSecret("x")); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(other.file(q), file, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := other.reader.Get(t.Context(), q); !errors.Is(err, secret.ErrUnreadable) {
			t.Errorf("err is %v", err)
		}
	})
	t.Run("any bit flipped", func(t *testing.T) {
		for i := range len(file) * 8 {
			changed := bytes.Clone(file)
			changed[i/8] ^= 1 << (i % 8)
			if err := os.WriteFile(l.file(p), changed, 0o600); err != nil {
				t.Fatal(err)
			}
			if got, _, err := l.reader.Get(t.Context(), p); !errors.Is(err, secret.ErrUnreadable) {
				t.Fatalf("bit %d: read %d bytes, %v", i, len(got.Reveal()), err)
			}
		}
	})
	t.Run("cut", func(t *testing.T) {
		for n := range file {
			if err := os.WriteFile(l.file(p), file[:n], 0o600); err != nil {
				t.Fatal(err)
			}
			if _, _, err := l.reader.Get(t.Context(), p); !errors.Is(err, secret.ErrUnreadable) {
				t.Fatalf("%d bytes: %v", n, err)
			}
		}
	})
	t.Run("a broken file can be written again", func(t *testing.T) {
		for _, broken := range []string{"", "a3s1", "a3s1\x7f\xff\xff\xff\xff\xff\xff\xff", strings.Repeat("x", 1<<20)} {
			if err := os.WriteFile(l.file(p), []byte(broken), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := l.writer.Put(t.Context(), p, config.NewSecret("again")); err != nil {
				t.Fatal(err)
			}
			if got, _, err := l.reader.Get(t.Context(), p); err != nil || got.Reveal() != "again" {
				t.Errorf("read %q, %v", got.Reveal(), err)
			}
		}
	})
}

// Attack O40.
func TestStoreOfAnotherTenantIsNotOpened(t *testing.T) {
	l := newLocal(t)
	other := id.NewTenant()
	_, createErr := secret.CreateLocal(l.dir, bindingtest.Signer(t), other, l.keys.Public)
	_, writeErr := secret.OpenLocalWriter(l.dir, bindingtest.Owner(t, other), l.keys.Public)
	_, readErr := secret.OpenLocalReader(l.dir, bindingtest.Owner(t, other), l.keys.Private)
	for what, err := range map[string]error{"create": createErr, "writer": writeErr, "reader": readErr} {
		if !errors.Is(err, binding.ErrForeign) || !strings.Contains(err.Error(), "secret store") || !strings.Contains(err.Error(), l.dir) ||
			!strings.Contains(err.Error(), l.tenant.String()) || !strings.Contains(err.Error(), other.String()) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := os.Remove(filepath.Join(l.dir, "MARK")); err != nil {
		t.Fatal(err)
	}
	if _, err := secret.OpenLocalReader(l.dir, l.owner, l.keys.Private); !errors.Is(err, binding.ErrUnmarked) {
		t.Errorf("without a mark: %v", err)
	}
	t.Attr("row", "O40 4")
}

// Attack O39.
func TestPathIsReadFromItsTextAlone(t *testing.T) {
	p := secrettest.PathOf(id.NewTenant())
	if got, err := secret.ParsePath(p.String()); err != nil || got != p {
		t.Errorf("read %v, %v", got, err)
	}
	tnt, wsp, integ := p.Tenant.String(), p.Workspace.String(), p.Integration.String()
	bad := []string{
		"", "/", "//", tnt, tnt + "/" + wsp, "/" + p.String(), p.String() + "/", p.String() + "/x", wsp + "/" + tnt + "/" + integ,
		tnt + "/" + wsp + "/..", "../" + wsp + "/" + integ, tnt + "/../" + integ, tnt + "\\" + wsp + "\\" + integ,
		tnt + "//" + integ, p.String() + "\x00", strings.ToUpper(p.String()), tnt + "/" + wsp + "/%2e%2e", tnt + "/" + wsp + "/" + integ + "\n",
		tnt + "/" + wsp + "/int_00000000000000000000000000",
	}
	for _, s := range bad {
		if got, err := secret.ParsePath(s); !errors.Is(err, secret.ErrInvalid) {
			t.Errorf("%q is read as %v, %v", s, got, err)
		}
	}
	t.Attr("row", fmt.Sprintf("O39 %d", len(bad)))
}
