package supervise_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"a3os.app/tools/fleet/internal/process"
	"a3os.app/tools/fleet/internal/supervise"
)

// While a killed supervisor brings back what it kept, order by order, units whose turn hasn't come are kept already: they are told, one
// that is dropped stays away, one that is declared anew is started at once and once, and none is forgotten because another was changed.
func TestUnitsThatWaitForTheirTurnAreKept(t *testing.T) {
	dir, c := started(t)
	open := filepath.Join(t.TempDir(), "open")
	let := func() {
		t.Helper()
		if err := os.WriteFile(open, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// It serves once it is let, so that what comes after it waits for as long as the test likes.
	first := server(t, dir, "first")
	first.Path, first.Args = "/bin/sh", []string{"-c", fmt.Sprintf("while [ ! -e %s ]; do /bin/sleep 0.05; done; exec %s be-server %s", open, os.Args[0], first.Args[1])}
	let()
	kept(t, c, first)
	units := map[string]supervise.Unit{}
	for name, order := range map[string]int{"dropped": 1, "changed": 1, "left": 1, "last": 2} {
		u := server(t, dir, name)
		u.Order = order
		units[name] = u
		kept(t, c, u)
	}
	killed := func() {
		t.Helper()
		if err := os.Remove(open); err != nil {
			t.Fatal(err)
		}
		before, daemon := identity(t, status(t, c, "first")), daemonOf(t, dir)
		until(t, "the watcher runs", func() bool { id, err := dir.Watcher(); return err == nil && id.Alive() })
		if err := daemon.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		until(t, "the supervisor is back", func() bool { return !daemon.Alive() && !before.Alive() && c.Ping(t.Context()) == nil })
	}
	names := func() (all []string) {
		t.Helper()
		known, err := c.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range known {
			all = append(all, s.Name)
		}
		return all
	}

	killed()
	if got := names(); !slices.Equal(got, []string{"first", "changed", "dropped", "left", "last"}) {
		t.Errorf("while they wait it tells of %q", got)
	}
	if s := status(t, c, "left"); s.PID != 0 || s.State != supervise.Starting || s.Group != "test" {
		t.Errorf("one that waits is told as %+v", s)
	}
	if changed, err := c.Drop(t.Context(), "dropped"); err != nil || !changed {
		t.Errorf("dropping one that waits changed %v (%v)", changed, err)
	}
	anew := units["changed"]
	anew.Release = "r2"
	changed := kept(t, c, anew)
	if changed.Release != "r2" {
		t.Errorf("one that was declared anew is %+v", changed)
	}
	let()
	if err := c.Await(t.Context(), "first", "left", "last"); err != nil {
		t.Error(err)
	}
	if s := status(t, c, "dropped"); s.Name != "" {
		t.Errorf("what was dropped while it waited is back: %+v", s)
	}
	if s := status(t, c, "changed"); s.PID != changed.PID {
		t.Errorf("what was declared anew was started again: %+v", s)
	}

	killed()
	let()
	want := []string{"first", "changed", "left", "last"}
	if got := names(); !slices.Equal(got, want) {
		t.Fatalf("killed once more it keeps %q, want %q", got, want)
	}
	if err := c.Await(t.Context(), want...); err != nil {
		t.Error(err)
	}
}

func daemonOf(t *testing.T, dir supervise.Dir) process.ID {
	t.Helper()
	id, err := dir.Daemon()
	if err != nil {
		t.Fatal(err)
	}
	return id
}
