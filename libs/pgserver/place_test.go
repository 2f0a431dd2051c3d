package pgserver_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"a3os.app/libs/pgserver"
)

func TestRootNeedsAPlaceThatTheServersUserCanReach(t *testing.T) {
	t.Parallel()
	private := filepath.Join(t.TempDir(), "checkout", ".a3") // t.TempDir is 0700
	if err := os.MkdirAll(private, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(filepath.Dir(private)), 0o700); err != nil {
		t.Fatal(err)
	}
	got, err := pgserver.DirFor(private, "")
	if err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		if got != private {
			t.Errorf("an ordinary user's data go to %s, want %s", got, private)
		}
		return
	}
	again, err := pgserver.DirFor(private, "")
	if err != nil || again != got || !strings.HasPrefix(got, "/var/lib/a3/") {
		t.Errorf("root's data go to %s and then to %s (%v), want one place in /var/lib/a3", got, again, err)
	}
	open := reachableDir(t)
	if got, err := pgserver.DirFor(open, ""); err != nil || got != open {
		t.Errorf("root's data in an open directory go to %s (%v), want %s", got, err, open)
	}
	err = newServer(t, pgserver.Config{Dir: filepath.Join(private, "pg")}).Init(t.Context())
	if err == nil || !strings.Contains(err.Error(), "can't reach") {
		t.Errorf("Init where the server's user can't walk returned %v, want a refusal that says so", err)
	}
}

func TestFullDiskIsNamedBeforeAnythingIsMade(t *testing.T) {
	t.Parallel()
	small := smallDisk(t, "32m")
	err := newServer(t, pgserver.Config{Dir: filepath.Join(small, "pg")}).Init(t.Context())
	if !errors.Is(err, pgserver.ErrDiskFull) || !strings.Contains(err.Error(), "free some") {
		t.Errorf("got %v, want ErrDiskFull and what to do", err)
	}
	if left := names(t, small); len(left) != 0 {
		t.Errorf("the refused Init left %v", left)
	}
}

func TestPlaceIsTheSameBeforeAndAfterItIsMade(t *testing.T) {
	t.Parallel()
	base := reachableDir(t)
	if err := errors.Join(os.Mkdir(filepath.Join(base, "real"), 0o700), os.Symlink("real", filepath.Join(base, "link"))); err != nil {
		t.Fatal(err)
	}
	home := filepath.Join(base, "link", "a", "b")
	before, err := pgserver.DirFor(home, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(home, 0o755); err != nil {
		t.Fatal(err)
	}
	if after, err := pgserver.DirFor(home, ""); err != nil || after != before {
		t.Errorf("before it is %s, after it is %s (%v)", before, after, err)
	}
}

func TestRootsDataLieWhereNobodyElseCanExchangeThem(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("that root's data lie where nobody else can exchange them is not tested: only root has something to keep apart, and this is not root")
	}
	const somebody = 4242
	base := reachableDir(t)
	theirs, shared, sticky := filepath.Join(base, "theirs"), filepath.Join(base, "shared"), filepath.Join(base, "sticky")
	for dir, mode := range map[string]os.FileMode{theirs: 0o755, shared: 0o777, sticky: 0o777 | os.ModeSticky} {
		if err := errors.Join(os.Mkdir(dir, 0o755), os.Chmod(dir, mode)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(theirs, somebody, somebody); err != nil {
		t.Fatal(err)
	}
	for dir, there := range map[string]bool{theirs: false, shared: false, sticky: true} {
		wish := filepath.Join(dir, "root", "data")
		if got := pgserver.DirForOthers(wish); (got == wish) != there {
			t.Errorf("below %s data go to %s", filepath.Base(dir), got)
		}
	}
}
