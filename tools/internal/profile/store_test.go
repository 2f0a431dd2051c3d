package profile_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"a3os.app/tools/internal/profile"
)

func TestProfileIsReadableByItsOwnerAlone(t *testing.T) {
	s := profile.In(filepath.Join(t.TempDir(), "home"))
	if err := s.Save(&profile.Profile{Name: "alice", URL: "https://acme.example.com", RefreshToken: "secret"}); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]fs.FileMode{s.Dir: 0o700, filepath.Join(s.Dir, "alice.json"): 0o600} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %o, want %o", filepath.Base(path), got, want)
		}
	}
	p, err := s.Load("alice")
	if err != nil || p.Name != "alice" || p.RefreshToken != "secret" {
		t.Errorf("loaded %+v, %v", p, err)
	}
	if names, err := s.List(); err != nil || len(names) != 1 || names[0] != "alice" {
		t.Errorf("the list is %q, %v", names, err)
	}
}

func TestNameThatLeavesTheDirectoryIsRefused(t *testing.T) {
	s := profile.In(t.TempDir())
	for _, name := range []string{"", ".", "..", "../x", "a/b", "A", "-x", strings.Repeat("a", 64), "x\x00", "ä"} {
		if err := s.Save(&profile.Profile{Name: name}); err == nil {
			t.Errorf("%q was saved", name)
		}
		if _, err := s.Load(name); !errors.Is(err, profile.ErrNone) {
			t.Errorf("%q was loaded: %v", name, err)
		}
		if _, err := s.Lock(t.Context(), name); err == nil {
			t.Errorf("%q was locked", name)
		}
	}
}

func TestMissingProfileNamesThoseThereAre(t *testing.T) {
	s := profile.In(t.TempDir())
	if _, err := s.Load("alice"); !errors.Is(err, profile.ErrNone) || !strings.Contains(err.Error(), "a3 --profile alice login") {
		t.Errorf("in an empty store: %v", err)
	}
	if err := s.Save(&profile.Profile{Name: "bob"}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Load("alice"); !errors.Is(err, profile.ErrNone) || !strings.Contains(err.Error(), "bob") {
		t.Errorf("beside another: %v", err)
	}
}

func TestReaderSeesAWholeProfileWhileItIsReplaced(t *testing.T) {
	s := profile.In(t.TempDir())
	save := func(i int) error {
		return s.Save(&profile.Profile{Name: "alice", Slug: fmt.Sprint(i), RefreshToken: strings.Repeat(fmt.Sprint(i%10), 64<<10)})
	}
	if err := save(0); err != nil {
		t.Fatal(err)
	}
	var writers, readers sync.WaitGroup
	stop := make(chan struct{})
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				p, err := s.Load("alice")
				if err != nil || len(p.RefreshToken) != 64<<10 || !strings.HasSuffix(p.Slug, p.RefreshToken[:1]) {
					t.Errorf("read half a profile: %v", err)
					return
				}
			}
		})
	}
	for w := range 2 {
		writers.Go(func() {
			for i := range 50 {
				if err := save(w*50 + i); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	close(stop)
	readers.Wait()
	left, err := filepath.Glob(filepath.Join(s.Dir, ".*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
}

func TestUpdatesAtOnceAllTakeEffect(t *testing.T) {
	s := profile.In(t.TempDir())
	if err := s.Save(&profile.Profile{Name: "alice"}); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			err := s.Update(t.Context(), "alice", func(p *profile.Profile) error {
				if p.Access == nil {
					p.Access = map[string]profile.Access{}
				}
				p.Access[fmt.Sprint(i)] = profile.Access{}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if p, err := s.Load("alice"); err != nil || len(p.Access) != 20 {
		t.Errorf("%d of 20 updates are there, %v", len(p.Access), err)
	}
}

func TestHomeIsWhereItIsSaidToBe(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("A3_HOME", dir)
	if got, err := profile.Home(); err != nil || got != dir {
		t.Errorf("home is %q, %v", got, err)
	}
	t.Setenv("A3_HOME", "")
	t.Chdir(dir)
	if got, err := profile.Home(); err != nil || got != filepath.Join(dir, ".a3") {
		t.Errorf("without A3_HOME it is %q, %v", got, err)
	}
}

func TestURLThatWouldCarryTokensInTheClearIsRefused(t *testing.T) {
	for _, bad := range []string{"", "acme.example.com", "http://acme.example.com", "https://", "https://acme.example.com/x", "https://u:p@acme.example.com", "https://acme.example.com?x"} {
		if got, err := profile.CleanURL(bad); err == nil {
			t.Errorf("%q was taken as %q", bad, got)
		}
	}
	if got, err := profile.CleanURL("https://acme.localhost:7443/"); err != nil || got != "https://acme.localhost:7443" {
		t.Errorf("got %q, %v", got, err)
	}
}
