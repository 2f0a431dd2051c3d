package pgserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// guard runs a throwaway server and ends it when its parent does: the parent holds the other end of descriptor 3 and the
// kernel closes it, whatever happens to the parent. Arguments: the cluster's directory, then the server's command.
const guard = `dir=$1; shift
"$@" 3<&- & server=$!
{ read -r _ <&3; : >"$dir/abandoned"; kill -QUIT $server; } 2>/dev/null & watch=$!
exec 3<&-
wait $server; code=$?
if [ -e "$dir/abandoned" ]; then rm -rf "$dir"; fi
kill $watch 2>/dev/null
exit $code`

var errStillInUse = errors.New("the killed server's backends are still there")

// Start starts the server in the background and returns when it accepts connections; if it runs already, that is fine.
// The server outlives this process unless it is a throwaway. Errors: ErrNotMade, ErrPortTaken, ErrDiskFull, or what the
// server said last.
func (s *Server) Start(ctx context.Context) error {
	if s.Running() {
		return s.Ready(ctx)
	}
	for attempt := 1; ; attempt++ {
		err := s.startOnce(ctx)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, errStillInUse) && ctx.Err() == nil && attempt < 100:
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		case errors.Is(err, ErrPortTaken) && s.freePort && attempt < 10:
			port, portErr := freePort()
			if portErr != nil {
				return portErr
			}
			s.mu.Lock()
			s.port = port
			s.mu.Unlock()
		default:
			return err
		}
	}
}

func (s *Server) startOnce(ctx context.Context) error {
	cmd, err := s.Command(context.WithoutCancel(ctx))
	if err != nil {
		return err
	}
	log, err := os.OpenFile(s.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open the server's log: %w", err)
	}
	defer log.Close()
	logStart, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("find the end of the server's log: %w", err)
	}
	cmd.SysProcAttr.Setsid = true // an interrupt typed at the terminal is not meant for the server
	var parentEnd *os.File
	if s.cfg.Throwaway {
		guardEnd, end, err := os.Pipe()
		if err != nil {
			return fmt.Errorf("make the pipe that ties the server to this process: %w", err)
		}
		defer guardEnd.Close()
		parentEnd = end
		cmd.ExtraFiles = []*os.File{guardEnd}
		cmd.Path, cmd.Args = "/bin/sh", append([]string{"sh", "-c", guard, "a3-postgres-guard", s.cfg.Dir}, cmd.Args...)
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return errors.Join(fmt.Errorf("start PostgreSQL: %w", err), closeIfOpen(parentEnd))
	}
	ended := make(chan error, 1)
	go func() {
		ended <- cmd.Wait()
		_ = closeIfOpen(parentEnd) // the guard has ended; nobody reads it any more
	}()
	ready := make(chan error, 1)
	readyCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { ready <- s.Ready(readyCtx) }()
	select {
	case err := <-ready:
		return err
	case err := <-ended:
		return s.explain(logStart, err)
	}
}

// explain turns what a server that ended while starting wrote into a sentence with the next step.
func (s *Server) explain(logStart int64, cause error) error {
	said, err := readFrom(s.logFile(), logStart)
	if err != nil {
		return errors.Join(fmt.Errorf("PostgreSQL ended while starting: %w", cause), err)
	}
	switch {
	case strings.Contains(said, "Address already in use"):
		return fmt.Errorf("%w: something else listens on 127.0.0.1:%d: stop it, or choose another port", ErrPortTaken, s.Port())
	case strings.Contains(said, "No space left on device"):
		return fmt.Errorf("%w: PostgreSQL could not write to %s: free some space there and start again", ErrDiskFull, s.cfg.Dir)
	case strings.Contains(said, "pre-existing shared memory block"), strings.Contains(said, "is another postmaster"):
		return fmt.Errorf("%w: wait for them to notice, then start again", errStillInUse)
	}
	return fmt.Errorf("PostgreSQL ended while starting (%w); its log %s ends with: %s", cause, s.logFile(), lastLines(said, 4))
}

// Ready returns when the server accepts connections, or with ctx's error and what was the matter last.
func (s *Server) Ready(ctx context.Context) error {
	url, err := s.URL("postgres")
	if err != nil {
		return err
	}
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for {
		if pid, _ := s.lock(); pid.ready {
			var conn *pgx.Conn
			conn, err = pgx.Connect(ctx, url)
			if err == nil {
				return conn.Close(ctx)
			}
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("wait for PostgreSQL in %s to accept connections: %w", s.cfg.Dir, context.Cause(ctx)), err)
		case <-tick.C:
		}
	}
}

// Running says whether a server runs on this cluster, whoever started it.
func (s *Server) Running() bool {
	_, running := s.lock()
	return running
}

// Stop ends the server in good order (a fast shutdown: sessions are closed, everything acknowledged is on disk) and
// returns when it is gone. A server that doesn't run is fine.
func (s *Server) Stop(ctx context.Context) error {
	if err := s.signalAndWait(ctx, syscall.SIGINT); err != nil && !errors.Is(err, ErrNotRunning) {
		return err
	}
	return nil
}

// Kill ends the server with SIGKILL, as a crash would, and returns when it is gone. Errors: ErrNotRunning.
func (s *Server) Kill(ctx context.Context) error { return s.signalAndWait(ctx, syscall.SIGKILL) }

// Remove stops the server and removes the cluster with everything in it.
func (s *Server) Remove(ctx context.Context) error {
	if err := s.Stop(ctx); err != nil {
		return err
	}
	if err := os.RemoveAll(s.cfg.Dir); err != nil {
		return fmt.Errorf("remove the cluster: %w", err)
	}
	return nil
}

func (s *Server) signalAndWait(ctx context.Context, signal syscall.Signal) error {
	lock, running := s.lock()
	if !running {
		return fmt.Errorf("%w: nothing to signal in %s", ErrNotRunning, s.cfg.Dir)
	}
	if err := syscall.Kill(lock.pid, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("signal the server, process %d: %w", lock.pid, err)
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if now, running := s.lock(); !running || now.pid != lock.pid {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("PostgreSQL, process %d, did not end yet (%w): see %s for what it waits for", lock.pid, context.Cause(ctx), s.logFile())
		case <-tick.C:
		}
	}
}

// lockFile is what postmaster.pid says.
type lockFile struct {
	pid   int
	ready bool
}

// lock reads postmaster.pid and says whether the process it names really is a server of this cluster: a stale file may
// carry a number that some other process has by now.
func (s *Server) lock() (lockFile, bool) {
	text, err := os.ReadFile(filepath.Join(s.dataDir(), "postmaster.pid"))
	if err != nil {
		return lockFile{}, false
	}
	lines := strings.Split(string(text), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(lines[0]))
	if err != nil || pid <= 1 {
		return lockFile{}, false
	}
	lock := lockFile{pid: pid}
	if !s.runsHere(pid) {
		return lock, false
	}
	// Line 8 is the state (storage/pidfile.h).
	lock.ready = len(lines) > 7 && strings.TrimSpace(lines[7]) == "ready"
	return lock, true
}

// runsHere says whether process pid is a PostgreSQL server of this cluster. A server's working directory is its data.
func (s *Server) runsHere(pid int) bool {
	data, err := filepath.EvalSymlinks(s.dataDir())
	if err != nil {
		return false
	}
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	if _, err := os.Stat("/proc/self/cwd"); err == nil {
		cwd, err := os.Readlink(filepath.Join(proc, "cwd"))
		return err == nil && cwd == data
	}
	args, err := exec.Command("ps", "-p", strconv.Itoa(pid), "-o", "args=").Output() //nolint:noctx // it answers at once
	return err == nil && strings.Contains(string(args), "postgres") && strings.Contains(string(args), s.dataDir())
}

// removeForeignLock removes a postmaster.pid whose number belongs to a process that is no server of this cluster, as after
// a reboot: PostgreSQL would take it for its own and refuse to start. Where the number belongs to nobody, PostgreSQL
// itself checks more than we could (whether backends are still there) and the file is left to it.
func (s *Server) removeForeignLock() error {
	lock, running := s.lock()
	if running || lock.pid == 0 || syscall.Kill(lock.pid, 0) != nil {
		return nil //nolint:nilerr // a signal that reaches nobody says that the number is nobody's
	}
	if err := os.Remove(filepath.Join(s.dataDir(), "postmaster.pid")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the stale lock of the cluster: %w", err)
	}
	return nil
}

func readFrom(path string, offset int64) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.NewSectionReader(f, offset, 1<<20))
	return string(text), err
}

func closeIfOpen(f *os.File) error {
	if f == nil {
		return nil
	}
	return f.Close()
}
