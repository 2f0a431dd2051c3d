package systemtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/tools/internal/proctest"
)

// each has a process of the plane killed in each step, before its deed and after it, and before the operation ends.
func each(victim string) func(passage) string {
	return func(at passage) string {
		switch at.point {
		case "fleet.own.before-step", "fleet.carry.step-begun", "fleet.own.before-done", "fleet.carry.before-done", "fleet.own.before-finish":
			return victim
		}
		return ""
	}
}

// some has both killed where much stands on them.
func some(at passage) string {
	switch at {
	case passage{"publish", "fleet.carry.step-begun"}, passage{"unpublish", "fleet.carry.before-done"}:
		return "plane/registry"
	case passage{"migrate", "fleet.carry.before-done"}:
		return tenantsServer()
	case passage{"delete", "fleet.own.before-power"}:
		return "plane/postgres"
	}
	return ""
}

// tenantsServer has the databases of tenants that have no server of their own. In containers it isn't the registry's as well.
func tenantsServer() string {
	if onDocker() {
		return "plane/databases"
	}
	return "plane/postgres"
}

// struck applies a plan, stops it at each point that it passes, kills what strike names there, once, and has it go on at once, so that it
// finds that gone. Where it ends with an error it is applied again. Points that were to be struck and never came fail the test.
func (p *plane) struck(t *testing.T, kind registryv1.OperationKind, hash string, strike func(passage) string) (kills int) {
	t.Helper()
	var left []passage
	for _, at := range passages(kind, 0) {
		if strike(at) != "" {
			left = append(left, at)
		}
	}
	if len(left) == 0 {
		p.apply(t, hash)
		return 0
	}
	const more = 5
	for range len(left) + more {
		run := p.stopping(t, hash)
		for _, at := range passages(kind, p.stepsDone(t, hash)) {
			pid, ended := run.stopped(t)
			if ended {
				break
			}
			if i := slices.Index(left, at); i >= 0 {
				left = slices.Delete(left, i, i+1)
				p.strike(t, strike(at))
				kills++
			}
			if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
		}
		err := run.wait(t)
		for _, victim := range []string{"plane/postgres", tenantsServer(), "plane/registry"} {
			p.serves(t, victim, 0)
		}
		if err == nil {
			if len(left) > 0 {
				t.Fatalf("%s ended and did not pass %v", kind, left)
			}
			return kills
		}
		said := strings.Split(strings.TrimSpace(err.Error()), "\n")
		t.Logf("%s is applied again: %s", kind, said[len(said)-1])
	}
	t.Fatalf("%s does not end, however often it is taken up", kind)
	return kills
}

// strike kills a process of the plane, once it serves, and sees it end. The supervisor makes who ends again and again wait longer
// and longer before it is started: that is not what is looked at here, so that each runs for a while between two ends.
func (p *plane) strike(t *testing.T, victim string) {
	t.Helper()
	const calm, most = 10 * time.Second, 6
	within(t, time.Minute, func() error {
		now, err := p.process(t.Context(), victim)
		if err != nil {
			return err
		}
		if now.State != "serving" || now.Failures >= most && time.Since(now.Since) < calm {
			return fmt.Errorf("%s is %s since %s, %s", victim, now.State, now.Since, now.LastExit)
		}
		return syscall.Kill(now.PID, syscall.SIGKILL)
	})
}

// stepsDone is how many steps of a plan's operation are on record as done.
func (p *plane) stepsDone(t *testing.T, hash string) (done int) {
	t.Helper()
	within(t, backWithin, func() error {
		res, err := registryv1.NewOperationServiceClient(p.operator(t)).ListOperations(t.Context(), &registryv1.ListOperationsRequest{PlanHash: hash})
		if err != nil {
			return err
		}
		done = 0
		for _, op := range res.GetOperations() {
			for _, s := range op.GetSteps() {
				if s.GetState() == registryv1.StepState_STEP_STATE_DONE {
					done++
				}
			}
		}
		return nil
	})
	return done
}

// stopping is a `fleet apply` that stops at each point.
type stopping struct {
	cmd   *exec.Cmd
	said  *bytes.Buffer
	ended chan error
	// over says that it ended, and err how.
	over bool
	err  error
}

func (p *plane) stopping(t *testing.T, hash string) *stopping {
	t.Helper()
	const most = 5 * time.Minute
	ctx, cancel := context.WithTimeout(t.Context(), most)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, filepath.Join(p.programs, "fleet"), "apply", hash)
	cmd.Env, cmd.Dir = append(slices.Clone(p.environ), "A3_FAILPOINT=fleet.* stop each"), filepath.Dir(p.programs)
	said := &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &stopping{cmd: cmd, said: said, ended: make(chan error, 1)}
	go func() { s.ended <- cmd.Wait() }()
	return s
}

// stopped waits until fleet stops, or the process that it started, and answers which.
func (s *stopping) stopped(t *testing.T) (pid int, ended bool) {
	t.Helper()
	const most = 3 * time.Minute
	within(t, most, func() error {
		select {
		case s.err = <-s.ended:
			s.over = true
		default:
		}
		if s.over {
			return nil
		}
		if pid = proctest.Stopped(s.cmd.Process.Pid); pid == 0 {
			return errors.New("fleet neither stops nor ends")
		}
		return nil
	})
	return pid, s.over
}

// wait waits for its end, and says why it failed.
func (s *stopping) wait(t *testing.T) error {
	t.Helper()
	for {
		// What an earlier process of it left behind stops at no point that is known.
		pid, ended := s.stopped(t)
		if ended {
			break
		}
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
	}
	if s.err != nil {
		return fmt.Errorf("%w: %s", s.err, s.said)
	}
	return nil
}
