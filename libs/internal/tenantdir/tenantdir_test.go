package tenantdir_test

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"a3os.app/libs/binding"
	"a3os.app/libs/binding/bindingtest"
	"a3os.app/libs/id"
	"a3os.app/libs/internal/tenantdir"
)

func create(t *testing.T) (string, id.Tenant, *tenantdir.Dir) {
	t.Helper()
	name, tenant := filepath.Join(t.TempDir(), "store"), id.NewTenant()
	if changed, err := make(t, name, tenant); err != nil || !changed {
		t.Fatal(changed, err)
	}
	d, err := open(t, name, tenant)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return name, tenant, d
}

// kind of the directories of these tests.
const kind = binding.Objects

func make(t *testing.T, name string, tenant id.Tenant) (bool, error) {
	t.Helper()
	return tenantdir.Create(name, bindingtest.Signer(t), binding.Mark{Tenant: tenant, Kind: kind})
}

func open(t *testing.T, name string, tenant id.Tenant) (*tenantdir.Dir, error) {
	t.Helper()
	return tenantdir.Open(name, bindingtest.Owner(t, tenant), binding.Mark{Kind: kind}, "A3_X_DIR")
}

func TestDirectoryWithoutThisTenantsMarkIsRefused(t *testing.T) {
	name, tenant, _ := create(t)
	if changed, err := make(t, name, tenant); err != nil || changed {
		t.Errorf("creating again is not the same as once: %t, %v", changed, err)
	}
	other := id.NewTenant()
	_, createErr := make(t, name, other)
	for what, err := range map[string]error{"create": createErr, "open": openErr(t, name, other)} {
		if !errors.Is(err, binding.ErrForeign) || !strings.Contains(err.Error(), tenant.String()) || !strings.Contains(err.Error(), other.String()) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s as another tenant: %v", what, err)
		}
	}
	mark := filepath.Join(name, tenantdir.MarkName)
	good, err := os.ReadFile(mark)
	if err != nil {
		t.Fatal(err)
	}
	for content, want := range map[string]error{"": binding.ErrUnmarked, "tnt_": binding.ErrForged, tenant.String() + "\n": binding.ErrForged,
		strings.Replace(string(good), "objects", "secrets", 1): binding.ErrForged, strings.Repeat("x", 1<<20): binding.ErrForged} {
		if err := os.WriteFile(mark, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := openErr(t, name, tenant); !errors.Is(err, want) || !strings.Contains(err.Error(), "A3_X_DIR") {
			t.Errorf("mark of %d bytes: %v", len(content), err)
		}
	}
	if err := os.Remove(mark); err != nil {
		t.Fatal(err)
	}
	if err := openErr(t, name, tenant); !errors.Is(err, binding.ErrUnmarked) {
		t.Errorf("no mark: %v", err)
	}
	if err := os.WriteFile(filepath.Join(name, "somebodys"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := make(t, name, tenant); !errors.Is(err, binding.ErrUnmarked) {
		t.Errorf("marking a directory that holds something: %v", err)
	}
	// Marks of the first form were the tenant's id: the tenant's own gives way to a signed one, and no other's.
	for whose, want := range map[id.Tenant]error{tenant: nil, other: binding.ErrForeign} {
		if err := os.WriteFile(mark, []byte(whose.String()+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := make(t, name, tenant); !errors.Is(err, want) {
			t.Errorf("over the first form of a mark of %s: %v", whose, err)
		}
	}
	if err := openErr(t, name, id.Tenant{}); err == nil {
		t.Error("opened without a tenant")
	}
}

func openErr(t *testing.T, name string, tenant id.Tenant) error {
	t.Helper()
	d, err := open(t, name, tenant)
	if err == nil {
		_ = d.Close()
	}
	return err
}

// What a mark can't know: the directory carries the right one, and holds what is another's.
func TestDirectoryThatHoldsAnotherTenantsThingsIsRefused(t *testing.T) {
	name, tenant, d := create(t)
	if err := d.Write("objects/"+tenant.String()+"/a", strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	if err := openErr(t, name, tenant); err != nil {
		t.Fatal(err)
	}
	other := id.NewTenant().String()
	if err := d.Write("objects/"+other+"/a", strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{"opened anew": openErr(t, name, tenant), "proven": d.Prove(t.Context())} {
		if !errors.Is(err, binding.ErrReach) || !strings.Contains(err.Error(), other) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestDirectoryThatOthersCanEnterIsRefused(t *testing.T) {
	name, tenant, _ := create(t)
	for _, mode := range []fs.FileMode{0o701, 0o750, 0o755, 0o777, fs.ModeSetgid | 0o770, fs.ModeSetgid | 0o755} {
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
		if err := openErr(t, name, tenant); !errors.Is(err, binding.ErrReach) {
			t.Errorf("mode %v: %v", mode, err)
		}
	}
}

func TestModesFollowTheDirectory(t *testing.T) {
	for root, want := range map[fs.FileMode][2]fs.FileMode{
		0o700:                 {0o600, 0o700},
		fs.ModeSetgid | 0o750: {0o640, fs.ModeSetgid | 0o750},
	} {
		name, tenant, _ := create(t)
		if err := os.Chmod(name, root); err != nil {
			t.Fatal(err)
		}
		d, err := open(t, name, tenant)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Write("a/b/c", strings.NewReader("x")); err != nil {
			t.Fatal(err)
		}
		for i, n := range []string{"a/b/c", "a/b"} {
			info, err := os.Stat(filepath.Join(name, n))
			if err != nil {
				t.Fatal(err)
			}
			if got := info.Mode() &^ fs.ModeDir; got != want[i] {
				t.Errorf("root %v: %s has mode %v, want %v", root, n, got, want[i])
			}
		}
		_ = d.Close()
	}
}

type failing struct{ n int }

func (f *failing) Read(p []byte) (int, error) {
	if f.n--; f.n < 0 {
		return 0, io.ErrUnexpectedEOF
	}
	return len(p), nil
}

func TestFileIsReplacedWholeOrNotAtAll(t *testing.T) {
	name, _, d := create(t)
	if err := d.Write("f", strings.NewReader("old")); err != nil {
		t.Fatal(err)
	}
	if err := d.Write("f", &failing{n: 3}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("err is %v", err)
	}
	if b, err := os.ReadFile(filepath.Join(name, "f")); err != nil || string(b) != "old" {
		t.Errorf("after a failed write: %q, %v", b, err)
	}
	if left, err := os.ReadDir(filepath.Join(name, "tmp")); err != nil || len(left) != 0 {
		t.Errorf("a failed write left %v, %v", left, err)
	}
	if err := d.Write("f", strings.NewReader("new")); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(name, "f")); err != nil || string(b) != "new" {
		t.Errorf("after a write: %q, %v", b, err)
	}
}

func TestNoNameLeadsOut(t *testing.T) {
	name, _, d := create(t)
	outside := filepath.Join(filepath.Dir(name), "outside")
	if err := os.Mkdir(outside, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(name, "link")); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"../outside/f", "/etc/f", "link/f", "a/../../outside/f"} {
		if err := d.Write(n, strings.NewReader("x")); err == nil {
			t.Errorf("wrote %s", n)
		}
		if f, err := d.Open(n); err == nil {
			_ = f.Close()
			t.Errorf("opened %s", n)
		}
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) != 0 {
		t.Errorf("outside holds %v, %v", left, err)
	}
}

func TestSweepTakesOnlyWhatIsStale(t *testing.T) {
	name, _, d := create(t)
	if err := d.Write("f", strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	stale, fresh := filepath.Join(name, "tmp", "stale"), filepath.Join(name, "tmp", "fresh")
	for _, n := range []string{stale, fresh} {
		if err := os.WriteFile(n, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	long := time.Now().Add(-2 * time.Hour)
	if err := os.Chtimes(stale, long, long); err != nil {
		t.Fatal(err)
	}
	if err := d.Sweep(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(stale); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("stale file: %v", err)
	}
	if _, err := os.Stat(fresh); err != nil {
		t.Errorf("fresh file: %v", err)
	}
}

// Root marks a directory anew that is a service's: the mark is that one's as well, as everything in it.
func TestMarkIsTheDirectorysOwners(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("whose the mark of a directory is that root marks anew is not tested: only root can give a directory away, and this is not root")
	}
	dir, tenant := filepath.Join(t.TempDir(), "store"), id.NewTenant()
	mark := binding.Mark{Tenant: tenant, Kind: binding.Objects}
	if _, err := tenantdir.Create(dir, bindingtest.Signer(t), mark); err != nil {
		t.Fatal(err)
	}
	const owner = 4711
	if err := errors.Join(os.Chown(dir, owner, owner), os.WriteFile(filepath.Join(dir, tenantdir.MarkName), []byte(tenant.String()+"\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if changed, err := tenantdir.Create(dir, bindingtest.Signer(t), mark); err != nil || !changed {
		t.Fatalf("it was marked anew: %t (%v)", changed, err)
	}
	info, err := os.Stat(filepath.Join(dir, tenantdir.MarkName))
	if err != nil {
		t.Fatal(err)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || st.Uid != owner {
		t.Errorf("the mark is %v's, and the directory %d's", info.Sys(), owner)
	}
}
