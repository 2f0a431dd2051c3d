package supervise_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"a3os.app/tools/fleet/internal/process"
	"a3os.app/tools/fleet/internal/supervise"
)

// The test program is also the supervisor, its watcher, and what they keep.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 {
		ctx := context.Background()
		dir := supervise.Dir(os.Args[2])
		switch os.Args[1] {
		case "be-supervisor":
			exitWith(supervise.Run(ctx, dir, programs(dir)))
		case "be-watcher":
			exitWith(supervise.Watch(ctx, dir, programs(dir)))
		case "be-server":
			exitWith(serve(os.Args[2]))
		}
	}
	os.Exit(m.Run())
}

func exitWith(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// waits has what is asked for readiness wait for as long as who asks does.
var waits atomic.Bool

// held is what a server was asked to hold.
var held []byte

// serve answers what environment it was given. Whoever posts has it hold 128 MiB.
func serve(addr string) error {
	wd, err := os.Getwd()
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintln(os.Stdout, "serving in", wd)
	if addr == inherited {
		l, err := net.FileListener(os.NewFile(supervise.ListensFD, addr))
		if err != nil {
			return err
		}
		return (&http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_ = json.NewEncoder(w).Encode(os.Getpid())
		})}).Serve(l)
	}
	srv := &http.Server{Addr: addr, ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/hang":
			waits.Store(true)
		case r.URL.Path == "/readyz" && waits.Load():
			<-r.Context().Done()
		}
		if r.Method == http.MethodPost {
			held = bytes.Repeat([]byte("x"), 128<<20)
		}
		_ = json.NewEncoder(w).Encode(os.Environ())
	})}
	return srv.ListenAndServe()
}

// inherited is the address of a server that finds its socket open.
const inherited = "inherited"

func programs(dir supervise.Dir) supervise.Programs {
	return supervise.Programs{Supervisor: []string{os.Args[0], "be-supervisor", string(dir)}, Watcher: []string{os.Args[0], "be-watcher", string(dir)},
		Log: filepath.Join(string(dir), "supervisor.log")}
}

// until waits for a condition.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	const most = 30 * time.Second
	end := time.NewTimer(most)
	defer end.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-end.C:
			t.Fatalf("after %s still not: %s", most, what)
		case <-tick.C:
		}
	}
}

// started is a supervisor in a process of its own.
func started(t *testing.T) (supervise.Dir, *supervise.Client) {
	t.Helper()
	dir := supervise.Dir(t.TempDir())
	c := supervise.NewClient(dir)
	if did, err := c.Ensure(t.Context(), programs(dir)); err != nil || !did {
		t.Fatal(did, err)
	}
	t.Cleanup(func() {
		if err := c.Stop(context.WithoutCancel(t.Context())); err != nil && !errors.Is(err, supervise.ErrNotRunning) {
			t.Error(err)
		}
	})
	return dir, c
}

func address(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func server(t *testing.T, dir supervise.Dir, name string) supervise.Unit {
	t.Helper()
	addr := address(t)
	return supervise.Unit{Name: name, Group: "test", Path: os.Args[0], Args: []string{"be-server", addr}, Env: []string{"A3_ONLY=this"},
		Dir: string(dir), Log: filepath.Join(string(dir), "log", name+".log"), Ready: "http://" + addr + "/", StopWithin: 5 * time.Second}
}

// shell is a unit that runs a script and serves at once.
func shell(t *testing.T, dir supervise.Dir, name, script string) supervise.Unit {
	t.Helper()
	u := server(t, dir, name)
	u.Path, u.Args, u.Ready = "/bin/sh", []string{"-c", script}, ""
	return u
}

func kept(t *testing.T, c *supervise.Client, u supervise.Unit) supervise.Status {
	t.Helper()
	if _, err := c.Apply(t.Context(), u); err != nil {
		t.Fatal(err)
	}
	if err := c.Await(t.Context(), u.Name); err != nil {
		t.Fatal(err)
	}
	return status(t, c, u.Name)
}

func status(t *testing.T, c *supervise.Client, name string) supervise.Status {
	t.Helper()
	all, err := c.Status(t.Context())
	if err != nil {
		return supervise.Status{}
	}
	for _, s := range all {
		if s.Name == name {
			return s
		}
	}
	return supervise.Status{}
}

func identity(t *testing.T, s supervise.Status) process.ID {
	t.Helper()
	id, err := process.Of(s.PID)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestKilledProcessIsBackWithinTwoSeconds(t *testing.T) {
	dir, c := started(t)
	before := kept(t, c, server(t, dir, "web"))
	began := time.Now()
	if err := syscall.Kill(before.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	until(t, "the process is back", func() bool {
		s := status(t, c, "web")
		return s.State == supervise.Serving && s.PID != before.PID
	})
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("it took %s", took)
	}
	if s := status(t, c, "web"); s.Restarts != 1 || !strings.Contains(s.LastExit, "signal 9") {
		t.Errorf("it is told as %+v", s)
	}
}

// A process that served and hangs is told so within half a minute, and not ended for it; whoever waits for it is told how it is started anew.
// One that answers, but that it can't serve, is told as that: to start it anew is no use.
func TestHangIsToldAndNotEnded(t *testing.T) {
	t.Parallel()
	dir, c := started(t)
	slow := server(t, dir, "slow")
	slow.Ready += "readyz"
	kept(t, c, slow)
	res, err := http.Get(strings.TrimSuffix(slow.Ready, "readyz") + "hang")
	if err != nil || res.Body.Close() != nil {
		t.Fatal(err)
	}
	hung := kept(t, c, server(t, dir, "hung"))
	began := time.Now()
	if err := syscall.Kill(hung.PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	until(t, "both are told", func() bool {
		return status(t, c, "hung").State == supervise.NotAnswering && status(t, c, "slow").State == supervise.NotReady
	})
	s := status(t, c, "hung")
	if s.PID != hung.PID || s.Restarts != 0 || s.Well.IsZero() || s.Well.After(began.Add(time.Second)) || s.Anew() != fmt.Sprintf("kill -9 %d", hung.PID) {
		t.Errorf("it is told as %+v, %q", s, s.Anew())
	}
	if s := status(t, c, "slow"); s.Well.IsZero() || s.Anew() != "" {
		t.Errorf("what answers is told as %+v, %q", s, s.Anew())
	}
	if err := c.Await(t.Context(), "hung"); err == nil || !strings.Contains(err.Error(), s.Anew()) {
		t.Errorf("the wait ended with %v, want what starts it anew", err)
	}
	if err := syscall.Kill(hung.PID, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	until(t, "it serves again", func() bool {
		s := status(t, c, "hung")
		return s.State == supervise.Serving && s.PID == hung.PID && s.Well.IsZero()
	})
}

func TestCrashLoopBacksOffAndIsTold(t *testing.T) {
	dir, c := started(t)
	u := shell(t, dir, "broken", "echo no configuration >&2; exit 7")
	u.Ready = "http://" + address(t) + "/"
	if _, err := c.Apply(t.Context(), u); err != nil {
		t.Fatal(err)
	}
	err := c.Await(t.Context(), "broken")
	if err == nil || !strings.Contains(err.Error(), "code 7") || !strings.Contains(err.Error(), "no configuration") {
		t.Errorf("the wait ended with %v, want the exit code and the last word", err)
	}
	until(t, "it backs off", func() bool { return status(t, c, "broken").State == supervise.BackingOff })
	s := status(t, c, "broken")
	if s.Restarts < 6 || s.NextStart.IsZero() || s.PID != 0 {
		t.Errorf("it is told as %+v", s)
	}
}

func TestProcessGetsItsOwnEnvironmentDirectoryAndLog(t *testing.T) {
	dir, c := started(t)
	u := server(t, dir, "web")
	kept(t, c, u)
	res, err := http.Get(u.Ready)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var env []string
	if err := json.NewDecoder(res.Body).Decode(&env); err != nil || !slices.Equal(env, []string{"A3_ONLY=this"}) {
		t.Errorf("its environment is %q (%v)", env, err)
	}
	until(t, "its output is in its log", func() bool {
		text, err := os.ReadFile(u.Log)
		return err == nil && strings.Contains(string(text), "serving in "+string(dir))
	})
	if info, err := os.Stat(u.Log); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("its log has mode %v (%v)", info.Mode(), err)
	}
}

func TestSameUnitIsLeftAloneAndAChangedOneReplaced(t *testing.T) {
	dir, c := started(t)
	u := server(t, dir, "web")
	before := kept(t, c, u)
	if changed, err := c.Apply(t.Context(), u); err != nil || changed {
		t.Errorf("the same unit changed something: %v, %v", changed, err)
	}
	if after := status(t, c, "web"); after.PID != before.PID {
		t.Error("the same unit has another process")
	}
	u.Env = []string{"A3_ONLY=that"}
	if changed, err := c.Apply(t.Context(), u); err != nil || !changed {
		t.Errorf("a changed unit changed nothing: %v, %v", changed, err)
	}
	if err := c.Await(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	if after := status(t, c, "web"); after.PID == before.PID || after.Restarts != 0 {
		t.Errorf("after the change it is %+v", after)
	}
	if changed, err := c.Drop(t.Context(), "web"); err != nil || !changed || status(t, c, "web").Name != "" {
		t.Errorf("a dropped unit is still there: %v, %v", changed, err)
	}
}

func TestStopEndsEverythingItStartedInReverseOrderAndNothingElse(t *testing.T) {
	dir, c := started(t)
	bystander, err := os.StartProcess("/bin/sleep", []string{"sleep", "600"}, &os.ProcAttr{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = bystander.Kill(); _, _ = bystander.Wait() }()
	other := identity(t, supervise.Status{PID: bystander.Pid})
	order := filepath.Join(string(dir), "order")
	var mine []process.ID
	for i, name := range []string{"first", "second"} {
		ready := filepath.Join(string(dir), name)
		u := shell(t, dir, name, fmt.Sprintf("trap 'echo %s >> %s; exit 0' TERM; : > %s; while :; do /bin/sleep 0.1; done", name, order, ready))
		u.Order = i
		mine = append(mine, identity(t, kept(t, c, u)))
		until(t, name+" listens for its end", func() bool { _, err := os.Stat(ready); return err == nil })
	}
	stubborn := shell(t, dir, "stubborn", "trap '' TERM; while :; do /bin/sleep 0.1; done")
	stubborn.StopWithin = 300 * time.Millisecond
	mine = append(mine, identity(t, kept(t, c, stubborn)))
	var watcher process.ID
	until(t, "the watcher runs", func() bool { watcher, err = dir.Watcher(); return err == nil && watcher.Alive() })
	if err := c.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, p := range append(mine, watcher) {
		if p.Alive() {
			t.Errorf("process %d is still there", p.PID)
		}
	}
	if !other.Alive() {
		t.Error("a process of somebody else's was ended")
	}
	if text, err := os.ReadFile(order); err != nil || string(text) != "second\nfirst\n" {
		t.Errorf("they ended in the order %q (%v)", text, err)
	}
	if c.Ping(t.Context()) == nil || dir.Wanted() {
		t.Error("the supervisor is still there, or wanted")
	}
}

func TestKilledSupervisorLeavesNoOrphanAndComesBackWithWhatItKept(t *testing.T) {
	dir, c := started(t)
	before := identity(t, kept(t, c, server(t, dir, "web")))
	until(t, "the watcher runs", func() bool { id, err := dir.Watcher(); return err == nil && id.Alive() })
	daemon, err := dir.Daemon()
	if err != nil {
		t.Fatal(err)
	}
	if err := daemon.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	until(t, "the old process is gone", func() bool { return !before.Alive() })
	until(t, "what was kept serves again", func() bool { return status(t, c, "web").State == supervise.Serving })
}

func TestKilledWatcherComesBack(t *testing.T) {
	dir, c := started(t)
	kept(t, c, server(t, dir, "web"))
	var before process.ID
	until(t, "the watcher runs", func() (ok bool) { before, _ = dir.Watcher(); return before.Alive() })
	if err := before.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	until(t, "another watcher runs", func() bool { now, err := dir.Watcher(); return err == nil && now != before && now.Alive() })
}

func TestDirectoryHasOneSupervisor(t *testing.T) {
	dir, _ := started(t)
	if err := supervise.Run(t.Context(), dir, programs(dir)); err == nil || !strings.Contains(err.Error(), "runs already") {
		t.Errorf("a second one ended with %v", err)
	}
}

func TestControlSocketIsItsOwnersAloneAndShortEnough(t *testing.T) {
	dir, _ := started(t)
	info, err := os.Stat(dir.Socket())
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the control socket has mode %v (%v)", info.Mode(), err)
	}
	long := supervise.Dir("/" + strings.Repeat("long/", 40))
	if got := long.Socket(); len(got) > 100 || got == supervise.Dir("/"+strings.Repeat("longer/", 40)).Socket() {
		t.Errorf("the socket of a long path is %q", got)
	}
}

func TestUnitThatCannotBeMeantIsRefused(t *testing.T) {
	dir, c := started(t)
	for what, change := range map[string]func(*supervise.Unit){
		"name": func(u *supervise.Unit) { u.Name = "../x;" }, "program": func(u *supervise.Unit) { u.Path = "sh" },
		"directory": func(u *supervise.Unit) { u.Dir = "" }, "log": func(u *supervise.Unit) { u.Log = "log" },
	} {
		u := server(t, dir, "web")
		change(&u)
		if _, err := c.Apply(t.Context(), u); err == nil {
			t.Errorf("a unit with a bad %s was accepted", what)
		}
	}
}

// What the one who started the supervisor had open is not for what it keeps, and none of that leaves core files or gains privileges.
func TestUnitInheritsNoDescriptorsAndNoPrivileges(t *testing.T) {
	if _, err := os.Stat("/proc/self/fd"); err != nil {
		t.Skip("this system doesn't show what a process has open")
	}
	secret, err := os.CreateTemp(t.TempDir(), "secret")
	if err != nil {
		t.Fatal(err)
	}
	defer secret.Close()
	dir := supervise.Dir(t.TempDir())
	cmd := exec.CommandContext(t.Context(), os.Args[0], "be-supervisor", string(dir))
	cmd.ExtraFiles = []*os.File{secret}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := supervise.NewClient(dir)
	until(t, "the supervisor answers", func() bool { return c.Ping(t.Context()) == nil })
	unit := server(t, dir, "unit")
	if _, err := c.Apply(t.Context(), unit); err != nil {
		t.Fatal(err)
	}
	if err := c.Await(t.Context(), "unit"); err != nil {
		t.Fatal(err)
	}
	all, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	proc := fmt.Sprintf("/proc/%d/", all[0].PID)
	fds, err := os.ReadDir(proc + "fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if to, _ := os.Readlink(proc + "fd/" + fd.Name()); to == secret.Name() {
			t.Errorf("the unit has what the supervisor's parent had open: descriptor %s", fd.Name())
		}
	}
	status, err := os.ReadFile(proc + "status")
	if err != nil || !strings.Contains(string(status), "NoNewPrivs:\t1") {
		t.Errorf("the unit may gain privileges (%v)", err)
	}
	limits, err := os.ReadFile(proc + "limits")
	if err != nil || !regexp.MustCompile(`Max core file size +0 +0 `).Match(limits) {
		t.Errorf("the unit may leave core files (%v)", err)
	}
	if err := c.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
}

// A caller who is killed leaves its change behind, which waits for the old process to end; the next one asks for the same meanwhile. One
// process runs afterwards, and none that nobody keeps.
func TestSameChangeTwiceAtOnceLeavesOneProcess(t *testing.T) {
	dir, c := started(t)
	begun := filepath.Join(t.TempDir(), "begun")
	slow := func(release string) supervise.Unit {
		u := shell(t, dir, "slow", "echo $$ >>"+begun+"; trap 'sleep 0.3; exit 0' TERM; while :; do sleep 0.05; done")
		u.Release = release
		return u
	}
	kept(t, c, slow("r1"))
	until(t, "the first one says that it began", func() bool { text, _ := os.ReadFile(begun); return len(text) > 0 })
	const callers = 4
	done := make(chan error, callers)
	for range callers {
		go func() { _, err := c.Apply(t.Context(), slow("r2")); done <- err }()
	}
	for range callers {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if err := c.Await(t.Context(), "slow"); err != nil {
		t.Fatal(err)
	}
	alive := func() (n int) {
		text, err := os.ReadFile(begun)
		if err != nil {
			t.Fatal(err)
		}
		for pid := range strings.FieldsSeq(string(text)) {
			if p, err := strconv.Atoi(pid); err == nil && syscall.Kill(p, 0) == nil {
				n++
			}
		}
		return n
	}
	until(t, "the second one says that it began", func() bool { return status(t, c, "slow").State == supervise.Serving && alive() > 0 })
	if n := alive(); n != 1 {
		t.Errorf("%d processes run", n)
	}
	if _, err := c.Drop(t.Context(), "slow"); err != nil {
		t.Fatal(err)
	}
	if n := alive(); n != 0 {
		t.Errorf("%d processes are left behind", n)
	}
}

// A drop that ends after the plane was stopped has nothing kept again: whoever found units written down would start all of them.
func TestDropThatOutlastsTheStopBringsNothingBack(t *testing.T) {
	dir, c := started(t)
	ready := filepath.Join(t.TempDir(), "ready")
	stubborn := shell(t, dir, "stubborn", "trap '' TERM; : > "+ready+"; while :; do /bin/sleep 0.1; done")
	stubborn.StopWithin = time.Second
	kept(t, c, shell(t, dir, "other", "exec sleep 600"))
	kept(t, c, stubborn)
	until(t, "it hears no signal", func() bool { _, err := os.Stat(ready); return err == nil })
	dropped := make(chan error, 1)
	go func() { _, err := c.Drop(t.Context(), stubborn.Name); dropped <- err }()
	until(t, "it is being dropped", func() bool { return status(t, c, stubborn.Name).Name == "" })
	if err := c.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-dropped; err != nil {
		t.Errorf("it is not dropped: %v", err)
	}
	if dir.Wanted() {
		t.Error("what was to be kept is written down again")
	}
}

// long is a directory whose path is too long for a socket.
func long(t *testing.T) supervise.Dir {
	t.Helper()
	dir := supervise.Dir(filepath.Join(t.TempDir(), strings.Repeat("long/", 20)))
	if err := os.MkdirAll(string(dir), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(filepath.Dir(dir.Socket())) })
	return dir
}

// Where a control socket lies outside of the supervisor's directory is known to everybody: who was there first hears nothing, and least of all
// the control key.
func TestControlKeyIsSaidToNobodyWhoWasThereFirst(t *testing.T) {
	const nobody = 65534
	for what, make := range map[string]func(place string) error{
		"a directory that is open to all": func(place string) error { return errors.Join(os.Mkdir(place, 0o700), os.Chmod(place, 0o777)) },
		"a link":                          func(place string) error { return os.Symlink(t.TempDir(), place) },
		"another's directory": func(place string) error {
			if os.Geteuid() != 0 {
				return errors.ErrUnsupported // who isn't root gives nothing away
			}
			return errors.Join(os.Mkdir(place, 0o700), os.Chown(place, nobody, nobody))
		},
	} {
		dir := long(t)
		err := make(filepath.Dir(dir.Socket()))
		if errors.Is(err, errors.ErrUnsupported) {
			continue
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(string(dir), "control.key"), []byte("the key\n"), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		var lc net.ListenConfig
		l, err := lc.Listen(t.Context(), "unix", dir.Socket())
		if err != nil {
			t.Fatal(err)
		}
		var heard atomic.Bool
		srv := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			heard.Store(true)
			_, _ = w.Write([]byte("[]"))
		})}
		go func() { _ = srv.Serve(l) }()
		const refused = "is not a directory of this user's alone"
		if err := supervise.NewClient(dir).Ping(t.Context()); err == nil || errors.Is(err, supervise.ErrNotRunning) || !strings.Contains(err.Error(), refused) || heard.Load() {
			t.Errorf("%s: who asks says %v; asked there: %v", what, err, heard.Load())
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		said, err := exec.CommandContext(ctx, os.Args[0], "be-supervisor", string(dir)).CombinedOutput()
		if err == nil || !strings.Contains(string(said), refused) {
			t.Errorf("%s: the supervisor ends with %v: %s", what, err, said)
		}
		cancel()
		if err := srv.Close(); err != nil {
			t.Error(err)
		}
	}
}

// The supervisor and who asks it may be started with other places for temporary files.
func TestSupervisorIsFoundWhateverTheEnvironmentSays(t *testing.T) {
	dir := long(t)
	c := supervise.NewClient(dir)
	if err := c.Ping(t.Context()); !errors.Is(err, supervise.ErrNotRunning) {
		t.Fatalf("before there is one: %v", err)
	}
	if did, err := c.Ensure(t.Context(), programs(dir)); err != nil || !did {
		t.Fatal(did, err)
	}
	t.Setenv("TMPDIR", t.TempDir())
	if err := supervise.NewClient(dir).Ping(t.Context()); err != nil {
		t.Error(err)
	}
	if err := c.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Dir(dir.Socket())); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory of its socket stays: %v", err)
	}
}
