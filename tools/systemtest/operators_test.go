package systemtest

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"
)

// Two operators at one tenant: who comes second is told who works on it, or waits, as asked. Who types ctrl-C leaves an operation that
// says how it is taken up, and that nobody has to wait for.
func TestTwoOperatorsAtOneTenant(t *testing.T) {
	full(t)
	const slug = "contested"
	if s := shared.fleet(t, "operator", "add", "ben", "--reason", "the second of two at one tenant"); s.code != 0 {
		t.Fatal(s)
	}
	ben := *shared
	ben.environ = append(slices.Clone(shared.environ), "A3_OPERATOR=ben")

	hash := shared.plan(t, provision, slug, "")
	first := shared.working(t, hash)
	first.signal(t, syscall.SIGSTOP)
	if s := ben.fleet(t, "apply", hash); s.code == 0 || !strings.Contains(s.err, "operator works on operation") {
		t.Errorf("who comes second is told: %s", s)
	}
	waiting := ben.applying(t, hash, "--wait")
	within(t, backWithin, func() error {
		if !strings.Contains(waiting.text(), "works on operation") {
			return errors.New("who waits is not told for whom")
		}
		return nil
	})
	first.signal(t, syscall.SIGCONT)
	if err := first.wait(); err != nil {
		t.Errorf("who came first: %v", err)
	}
	if err := waiting.wait(); err != nil {
		t.Errorf("who waited: %v", err)
	}
	shared.answersAfter(t, provision, slug)

	hash = shared.plan(t, offboard, slug, "")
	interrupted := shared.working(t, hash)
	interrupted.signal(t, syscall.SIGSTOP)
	interrupted.signal(t, syscall.SIGINT)
	interrupted.signal(t, syscall.SIGCONT)
	if err := interrupted.wait(); err == nil || !strings.Contains(err.Error(), "interrupted: what is done stays done; take it up with fleet operation resume opr_") {
		t.Errorf("who typed ctrl-C is told: %v", err)
	}
	if s := ben.fleet(t, "apply", hash); s.code != 0 {
		t.Errorf("taken up by another, at once: %s", s)
	}
	shared.answersAfter(t, offboard, slug)
	ops, err := registryv1.NewOperationServiceClient(shared.operator(t)).ListOperations(t.Context(), &registryv1.ListOperationsRequest{PlanHash: hash})
	if err != nil || len(ops.GetOperations()) != 1 || ops.GetOperations()[0].GetState() != registryv1.OperationState_OPERATION_STATE_SUCCEEDED {
		t.Errorf("the registry says of it: %v %v", ops, err)
	}
}

// applying is a `fleet apply` that runs.
type applying struct {
	cmd *exec.Cmd
	out *lockedBuffer
}

func (p *plane) applying(t *testing.T, hash string, more ...string) *applying {
	t.Helper()
	a := &applying{exec.CommandContext(t.Context(), filepath.Join(programs, "fleet"), append([]string{"apply", hash}, more...)...), &lockedBuffer{}}
	a.cmd.Env, a.cmd.Dir, a.cmd.Stdout, a.cmd.Stderr = p.environ, filepath.Dir(programs), a.out, a.out
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return a
}

// working is one that has the lease of its operation.
func (p *plane) working(t *testing.T, hash string) *applying {
	t.Helper()
	a := p.applying(t, hash)
	ops := registryv1.NewOperationServiceClient(p.operator(t))
	within(t, backWithin, func() error {
		res, err := ops.ListOperations(t.Context(), &registryv1.ListOperationsRequest{PlanHash: hash})
		if err != nil {
			return err
		}
		if len(res.GetOperations()) == 0 || res.GetOperations()[0].GetLease().GetFence() == 0 {
			return fmt.Errorf("fleet has not taken the lease: %s", a.text())
		}
		return nil
	})
	return a
}

func (a *applying) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := a.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

func (a *applying) text() string { return a.out.String() }

func (a *applying) wait() error {
	if err := a.cmd.Wait(); err != nil {
		return fmt.Errorf("%w: %s", err, a.text())
	}
	return nil
}

// lockedBuffer is what a process says, read while it says more.
type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer.
func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
