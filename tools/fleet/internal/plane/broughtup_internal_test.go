package plane

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"a3os.app/libs/fault"
	"a3os.app/tools/fleet/internal/backup"
	"a3os.app/tools/fleet/internal/settings"
	"a3os.app/tools/fleet/internal/state"
)

// noted keeps what it is told.
type noted struct {
	quiet
	text string
}

func (n *noted) Note(text string) { n.text += text + "\n" }

// In a shell that names no directory of backups they are found where the plane keeps them, and made there; in one that names another, in both, with a
// word on it. To bring the plane up moves the directory, and says so.
func TestBackupsAreFoundWhereThePlaneWasToldToKeepThem(t *testing.T) {
	home, kept, other := t.TempDir(), filepath.Join(t.TempDir(), "kept"), filepath.Join(t.TempDir(), "other")
	in := func(environ ...string) (*Plane, *noted) {
		t.Helper()
		s, err := settings.Load(append(environ, "A3_HOME="+home), home)
		if err != nil {
			t.Fatal(err)
		}
		told := &noted{}
		p, err := New(s, told)
		if err != nil {
			t.Fatal(err)
		}
		return p, told
	}
	up := func(environ ...string) string {
		t.Helper()
		p, told := in(environ...)
		if err := p.keepSettings(); err != nil {
			t.Fatal(err)
		}
		return told.text
	}
	if said := up("A3_BACKUP_DIR="+kept) + up("A3_BACKUP_DIR="+kept); said != "" {
		t.Errorf("a plane that keeps its backups where it did is brought up with: %s", said)
	}
	one, two := backups(t, backup.Store{Dir: kept})("plane", time.Now()), backups(t, backup.Store{Dir: other})("plane", time.Now())
	for _, c := range []struct {
		environ []string
		dirs    map[string]string
		goes    string
		notes   bool
	}{
		{nil, map[string]string{one: kept}, kept, false},
		{[]string{"A3_BACKUP_DIR=" + kept}, map[string]string{one: kept}, kept, false},
		{[]string{"A3_BACKUP_DIR=" + other}, map[string]string{one: kept, two: other}, other, true},
	} {
		p, told := in(c.environ...)
		listed, err := p.Backups(nil)
		if err != nil || len(listed) != len(c.dirs) {
			t.Errorf("%v: listed are %+v (%v), want those of %v", c.environ, listed, err, c.dirs)
		}
		for name, dir := range c.dirs {
			if found, err := p.findBackup(name); err != nil || found != (backup.Store{Dir: dir}).Path("plane", name) {
				t.Errorf("%v: %s is found in %q (%v), want it in %s", c.environ, name, found, err, dir)
			}
		}
		if goes := p.platform.Backups().Dir; goes != c.goes || strings.Contains(told.text, kept) != c.notes {
			t.Errorf("%v: a new one goes to %s, and the notes are %q", c.environ, goes, told.text)
		}
	}
	if said := up(); !strings.Contains(said, filepath.Join(home, "backups")+" from now on") || !strings.Contains(said, "no longer in "+kept) {
		t.Errorf("a plane whose backups go elsewhere from now on is brought up with: %s", said)
	}
}

// A code for the admin of a tenant that nobody reaches is made, for it may be resumed within its minutes, and said to be of no use until then. What is
// refused to a session of before is one word for each tenant.
func TestWhatLeadsNowhereYetIsSaid(t *testing.T) {
	told := &noted{}
	p := &Plane{report: told}
	p.noteSuspended(state.Tenant{Slug: "globex"})
	if p.noteSuspended(state.Tenant{Slug: "acme", Suspended: true}); !strings.Contains(told.text, "fleet plan resume --tenant acme") || strings.Contains(told.text, "globex") {
		t.Errorf("it is told %q", told.text)
	}
	told.text = ""
	ended, acme := fault.New(fault.Unauthenticated, "the access token is not valid here"), state.Tenant{Slug: "acme", Welcomed: true}
	if p.signedOut(state.Tenant{Slug: "new"}, ended) || p.signedOut(acme, errors.New("nobody answers")) || !p.signedOut(acme, fmt.Errorf("workspaces: %w", ended)) || !p.signedOut(acme, ended) {
		t.Error("who is signed out is not whoever's session ended in a tenant that is in use")
	}
	if n := strings.Count(told.text, "fleet tenant recover-admin acme"); n != 1 {
		t.Errorf("it is told %d times: %s", n, told.text)
	}
}
