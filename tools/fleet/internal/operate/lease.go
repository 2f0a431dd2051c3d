package operate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/renameio/v2"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
	"a3os.app/tools/fleet/internal/process"
)

const (
	// renewEvery is a third of how long a lease lasts.
	renewEvery = 10 * time.Second
	// askEvery is how often somebody else's lease is asked for by who waits.
	askEvery = time.Second
)

// lease is the right to work on an operation.
type lease struct {
	*Engine
	operation, token string
}

// holder is what this machine remembers of a lease: whose process took it. One that took it and is gone is replaced at once.
type holder struct {
	Fence   int64      `json:"fence"`
	Process process.ID `json:"process"`
}

func (e *Engine) memory(operation string) string { return filepath.Join(e.Memory, operation+".json") }

// place is where the work is done, for people.
func place() (string, error) {
	host, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("ask for the host's name: %w", err)
	}
	return fmt.Sprintf("%s, process %d", host, os.Getpid()), nil
}

// take takes the lease.
func (e *Engine) take(ctx context.Context, operation string) (*lease, *registryv1.Operation, error) {
	at, err := place()
	if err != nil {
		return nil, nil, err
	}
	req := &registryv1.TakeLeaseRequest{OperationId: operation, Place: at, InsteadOf: e.ended(operation)}
	client := registryv1.NewOperationWriteServiceClient(e.Conn)
	told := false
	for {
		var res *registryv1.TakeLeaseResponse
		err := heardOut(ctx, func(ctx context.Context) (err error) {
			res, err = client.TakeLease(ctx, req)
			return err
		})
		if err == nil {
			l, err := e.taken(res.GetOperation(), res.GetLeaseToken())
			return l, res.GetOperation(), err
		}
		err = fault.FromRPC(err)
		f, ok := errors.AsType[*fault.Error](err)
		if !e.Wait || !ok || f.Reason != "LEASE_HELD" {
			return nil, nil, err
		}
		if !told {
			e.Report.Note(f.Message)
			told = true
		}
		select {
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		case <-time.After(askEvery):
		}
	}
}

// heardOut asks for a lease. Who gives up meanwhile hears the answer out all the same, for a moment: a lease that nobody knows of would keep
// others waiting until it ends.
func heardOut(ctx context.Context, ask func(ctx context.Context) error) error {
	const moment = 2 * time.Second
	asking, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(moment, cancel) })()
	return ask(asking)
}

// taken is a lease that this process has, which this machine remembers from now on.
func (e *Engine) taken(op *registryv1.Operation, token string) (*lease, error) {
	self, err := process.Self()
	if err != nil {
		return nil, err
	}
	return &lease{e, op.GetId(), token}, e.remember(op.GetId(), holder{op.GetLease().GetFence(), self})
}

// ended is the fence of a lease that a process of this machine took which is gone; 0 for none.
func (e *Engine) ended(operation string) int64 {
	var t holder
	text, err := os.ReadFile(e.memory(operation))
	if err != nil || json.Unmarshal(text, &t) != nil || t.Process.Alive() {
		return 0
	}
	return t.Fence
}

func (e *Engine) remember(operation string, t holder) error {
	text, err := json.Marshal(t)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(e.Memory, 0o700); err != nil {
		return fmt.Errorf("make the directory of operations: %w", err)
	}
	return renameio.WriteFile(e.memory(operation), text, 0o600, renameio.WithTempDir(e.Memory))
}

func (l *lease) forget() error {
	if err := os.Remove(l.memory(l.operation)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// keep renews the lease until stop; the context ends when somebody else has it. A registry that is away takes no lease from anybody,
// and gives it to nobody else.
func (l *lease) keep(ctx context.Context) (context.Context, func()) {
	ctx, lost := context.WithCancelCause(ctx)
	client := registryv1.NewOperationWriteServiceClient(l.Conn)
	go func() {
		tick := time.NewTicker(renewEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			_, err := client.RenewLease(ctx, &registryv1.RenewLeaseRequest{OperationId: l.operation, LeaseToken: l.token})
			err = fault.FromRPC(err)
			// A registry that is away is waited for: the lease may last until it is back.
			if slices.Contains([]fault.Kind{fault.Aborted, fault.FailedPrecondition, fault.PermissionDenied}, fault.KindOf(err)) {
				lost(fmt.Errorf("stopped: %w", err))
				return
			}
		}
	}()
	return ctx, func() { lost(nil) }
}

// giveBack gives the lease back, so that whoever takes the operation up need not wait. Where that fails it ends by itself.
func (l *lease) giveBack(ctx context.Context) error {
	const most = 5 * time.Second
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), most)
	defer cancel()
	_, err := registryv1.NewOperationWriteServiceClient(l.Conn).ReleaseLease(ctx,
		&registryv1.ReleaseLeaseRequest{OperationId: l.operation, LeaseToken: l.token})
	if err != nil {
		l.Report.Note("the lease could not be given back and ends by itself: " + fault.FromRPC(err).Error())
		return nil
	}
	return l.forget()
}
