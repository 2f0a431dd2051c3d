//go:build linux

package supervise_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"a3os.app/tools/fleet/internal/supervise"
)

// bounded is a supervisor that can bound what it keeps, where this machine has one.
func bounded(t *testing.T) (supervise.Dir, *supervise.Client) {
	t.Helper()
	dir, c := started(t)
	about, err := c.About(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if about.Unbounded != "" {
		t.Skipf("nothing can be bounded here: %s", about.Unbounded)
	}
	return dir, c
}

func small(u supervise.Unit) supervise.Unit {
	u.Resources = supervise.Resources{Memory: 64 << 20, CPU: 1, PIDs: 64}
	return u
}

func TestProcessOverItsMemoryIsEndedAloneAndComesBack(t *testing.T) {
	dir, c := bounded(t)
	greedy, neighbour := small(server(t, dir, "set/greedy")), small(server(t, dir, "set/neighbour"))
	greedy.Expendable = 500
	kept(t, c, greedy)
	before := kept(t, c, neighbour)
	where := cgroups(t, status(t, c, greedy.Name).PID)
	if score, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", status(t, c, greedy.Name).PID)); err != nil || strings.TrimSpace(string(score)) != "500" {
		t.Errorf("the kernel spares it by %q and not by 500: %v", score, err)
	}
	eat(t, greedy.Ready)
	until(t, "back after it took too much", func() bool {
		s := status(t, c, greedy.Name)
		return s.Restarts > 0 && s.State == supervise.Serving
	})
	if s := status(t, c, greedy.Name); !strings.Contains(s.LastExit, "more memory than its bound of 64 MiB") {
		t.Errorf("it is not told why it ended: %s", s.LastExit)
	}
	if s := status(t, c, neighbour.Name); s.PID != before.PID || s.Restarts != 0 || s.State != supervise.Serving {
		t.Errorf("its neighbour was not left alone: %+v", s)
	}
	if err := c.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, path := range where {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s stays after everything was stopped: %v", path, err)
		}
	}
}

// Of a server that lives on after the kernel ended one process of it, as PostgreSQL after a session, a later end is another thing.
func TestEndAfterAChildTookTooMuchMemoryIsToldAsItWas(t *testing.T) {
	dir, c := bounded(t)
	u := small(shell(t, dir, "set/parent", "tail /dev/zero; echo child: $?; exit 3"))
	if _, err := c.Apply(t.Context(), u); err != nil {
		t.Fatal(err)
	}
	until(t, "ended", func() bool { return status(t, c, u.Name).LastExit != "" })
	if s := status(t, c, u.Name); s.LastExit != "it ended with code 3" {
		t.Errorf("it ended with code 3 and is said to have otherwise: %s", s.LastExit)
	}
	if log, err := os.ReadFile(u.Log); err != nil || !strings.Contains(string(log), "child: 137") {
		t.Errorf("its child was not ended for its memory: %v: %s", err, log)
	}
}

// The kernel ends a unit's own process with its supervisor, and not what that one started.
func TestWhatProcessesOfAKilledSupervisorLeftBehindIsEnded(t *testing.T) {
	dir, c := bounded(t)
	u := small(shell(t, dir, "set/forks", "sleep 300 & wait"))
	if _, err := c.Apply(t.Context(), u); err != nil {
		t.Fatal(err)
	}
	until(t, "a process that it started", func() bool { return len(sleeping(t, dir)) == 1 })
	left := sleeping(t, dir)[0]
	where := cgroups(t, status(t, c, u.Name).PID)
	until(t, "the watcher runs", func() bool { id, err := dir.Watcher(); return err == nil && id.Alive() })
	if err := daemonOf(t, dir).Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	until(t, "gone with the supervisor after it", func() bool { return !slices.Contains(sleeping(t, dir), left) })
	until(t, "kept again", func() bool {
		all, err := c.Status(t.Context())
		return err == nil && len(all) == 1 && all[0].PID != 0 && len(sleeping(t, dir)) == 1
	})
	if err := c.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, path := range where {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s stays after everything was stopped: %v", path, err)
		}
	}
}

func TestBoundedProcessCollectsBeforeItsBound(t *testing.T) {
	dir, c := bounded(t)
	chosen := small(server(t, dir, "set/chosen"))
	chosen.Env = append(chosen.Env, "GOMEMLIMIT=1GiB")
	for _, tc := range []struct {
		unit supervise.Unit
		want []string
	}{
		{small(server(t, dir, "set/bounded")), []string{fmt.Sprintf("GOMEMLIMIT=%d", (64<<20)/10*9)}},
		{chosen, []string{"GOMEMLIMIT=1GiB"}},
		{server(t, dir, "set/unbounded"), nil},
	} {
		kept(t, c, tc.unit)
		environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", status(t, c, tc.unit.Name).PID))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for kv := range strings.SplitSeq(string(environ), "\x00") {
			if strings.HasPrefix(kv, "GOMEMLIMIT=") {
				got = append(got, kv)
			}
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s is told %q and not %q", tc.unit.Name, got, tc.want)
		}
	}
}

// eat has a server hold more memory than it may; it does not live to answer.
func eat(t *testing.T, url string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if res, err := http.DefaultClient.Do(req); err == nil {
		_ = res.Body.Close()
		t.Error("it held twice what it may and lives")
	}
}

// cgroups are the directories of those that a process is in, of the supervisor's.
func cgroups(t *testing.T, pid int) (dirs []string) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if strings.Contains(f[2], "/a3-") {
			dirs = append(dirs, filepath.Join("/sys/fs/cgroup", f[1], f[2]))
		}
	}
	for _, dir := range dirs {
		if _, err := os.Stat(dir); err != nil {
			t.Fatal(err)
		}
	}
	if len(dirs) == 0 {
		t.Fatalf("it is in no cgroup of the supervisor's: %s", text)
	}
	return dirs
}

// In version 1 a thread of the supervisor's is inside a unit's cgroups for the moment in which it starts what runs there. Where others were
// made below that one meanwhile, they shared its bounds, and ended with it.
func TestUnitsThatStartTogetherAreEachBoundedOnItsOwn(t *testing.T) {
	dir, c := bounded(t)
	const many, rounds = 24, 4
	units := make([]supervise.Unit, many)
	for i := range units {
		units[i] = small(shell(t, dir, fmt.Sprintf("set%d/sleeps", i), "exec sleep 300"))
	}
	for round := range rounds {
		var all sync.WaitGroup
		for _, u := range units {
			u.Env = []string{fmt.Sprintf("A3_ROUND=%d", round)} // one that changed is started anew
			all.Go(func() {
				if _, err := c.Apply(t.Context(), u); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		for _, u := range units {
			var s supervise.Status
			until(t, "a process", func() bool { s = status(t, c, u.Name); return s.PID != 0 })
			if s.Restarts != 0 {
				t.Errorf("%s was ended: %s", u.Name, s.LastExit)
			}
			for _, path := range cgroups(t, s.PID) {
				if own, below, _ := strings.Cut(path, "/a3-"); strings.Contains(own, "/sleeps") || strings.Count(below, "/sleeps") != 1 || !strings.HasSuffix(below, "/"+u.Name) {
					t.Errorf("%s is bounded by %s", u.Name, path)
				}
			}
		}
	}
}

func TestProcessIsNoMoreProcessesThanItMayBe(t *testing.T) {
	dir, c := bounded(t)
	u := small(shell(t, dir, "set/many", "i=0; while [ $i -lt 40 ]; do sleep 300 & i=$((i+1)); done; echo all are there; sleep 300"))
	u.Resources.PIDs = 16
	if _, err := c.Apply(t.Context(), u); err != nil {
		t.Fatal(err)
	}
	until(t, "ended for want of processes", func() bool { return status(t, c, u.Name).LastExit != "" })
	until(t, "without those that it left behind", func() bool {
		s := status(t, c, u.Name)
		return s.Restarts > 1 && s.State == supervise.BackingOff && len(sleeping(t, dir)) == 0
	})
	log, err := os.ReadFile(u.Log)
	if err != nil || strings.Contains(string(log), "all are there") || !strings.Contains(strings.ToLower(string(log)), "fork") {
		t.Errorf("40 processes of 16: %v: %s", err, log)
	}
}

// sleeping are the processes that a test's shell started and left behind, which run where it ran.
func sleeping(t *testing.T, dir supervise.Dir) (pids []string) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		t.Fatal(err)
	}
	for _, cwd := range all {
		name, err := os.ReadFile(filepath.Join(filepath.Dir(cwd), "comm"))
		at, errCwd := os.Readlink(cwd)
		if err == nil && errCwd == nil && at == string(dir) && strings.TrimSpace(string(name)) == "sleep" {
			pids = append(pids, filepath.Base(filepath.Dir(cwd)))
		}
	}
	return pids
}

// On a machine that others use too, less than the bound proves nothing, and more than it is a failure.
func TestProcessTakesNoMoreProcessorThanItMay(t *testing.T) {
	dir, c := bounded(t)
	u := small(shell(t, dir, "set/busy", "while :; do :; done"))
	u.Resources.CPU = 0.2
	began := time.Now()
	if _, err := c.Apply(t.Context(), u); err != nil {
		t.Fatal(err)
	}
	const window = 2 * time.Second
	until(t, "two seconds old", func() bool { return time.Since(began) > window })
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", status(t, c, u.Name).PID))
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	// proc(5): the 14th field is its time in ticks of 10 ms.
	fields := strings.Fields(string(stat))
	ticks, err := strconv.Atoi(fields[13])
	if err != nil {
		t.Fatal(err)
	}
	if used := time.Duration(ticks) * 10 * time.Millisecond; used > took*4/10 {
		t.Errorf("of %s it took %s, with a fifth of a processor", took, used)
	}
}

// A unit's name is a path among cgroups: one that leads elsewhere would bound, and end, another's processes.
func TestNameThatLeadsElsewhereEndsNoNeighbour(t *testing.T) {
	dir, c := bounded(t)
	before := kept(t, c, small(server(t, dir, "globex/web")))
	for _, name := range []string{"acme/../globex/web", "acme/..", "acme/../..", "acme/./web", "acme//web", "acme/web/"} {
		u := small(shell(t, dir, "acme/web", "exit 1"))
		u.Name = name
		if _, err := c.Apply(t.Context(), u); err == nil {
			t.Errorf("%s is kept", name)
		} else if !strings.Contains(err.Error(), "is not a unit's name") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if s := status(t, c, "globex/web"); s.PID != before.PID || s.Restarts != 0 || s.State != supervise.Serving {
		t.Errorf("another's process was not left alone: %+v", s)
	}
}
