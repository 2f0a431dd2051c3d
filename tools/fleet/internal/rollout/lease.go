package rollout

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"
	"google.golang.org/grpc"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
	"a3os.app/tools/fleet/internal/process"
)

// renewEvery is a third of how long a lease lasts, and how old what is said to be waited for may be.
const renewEvery = 5 * time.Second

// taken is what this machine remembers of a lease: whose process took it. One that took it and is gone is replaced at once.
type taken struct {
	Fence   int64      `json:"fence"`
	Process process.ID `json:"process"`
}

func (e *Engine) memory(id string) string { return filepath.Join(e.Memory, id+".json") }

func (e *Engine) take(ctx context.Context, id string) (token string, err error) {
	self, err := process.Self()
	if err != nil {
		return "", err
	}
	host, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("ask for the host's name: %w", err)
	}
	req := &registryv1.TakeRolloutLeaseRequest{RolloutId: id, Place: fmt.Sprintf("%s, process %d", host, os.Getpid())}
	var before taken
	if text, err := os.ReadFile(e.memory(id)); err == nil && json.Unmarshal(text, &before) == nil && !before.Process.Alive() {
		req.InsteadOf = before.Fence
	}
	res, err := registryv1.NewRolloutWriteServiceClient(e.Conn).TakeRolloutLease(ctx, req, grpc.WaitForReady(true))
	if err != nil {
		return "", fault.FromRPC(err)
	}
	text, err := json.Marshal(taken{res.GetRollout().GetLease().GetFence(), self})
	if err == nil {
		err = os.MkdirAll(e.Memory, 0o700)
	}
	if err == nil {
		err = renameio.WriteFile(e.memory(id), text, 0o600, renameio.WithTempDir(e.Memory))
	}
	return res.GetLeaseToken(), err
}

// keep renews the lease until stop, and says what is waited for; the context ends when somebody else has it.
func (c *carrying) keep(ctx context.Context) (context.Context, func()) {
	ctx, lost := context.WithCancelCause(ctx)
	client := registryv1.NewRolloutWriteServiceClient(c.Conn)
	go func() {
		tick := time.NewTicker(renewEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			_, err := client.RenewRolloutLease(ctx, &registryv1.RenewRolloutLeaseRequest{RolloutId: c.id, LeaseToken: c.token, WaitsFor: c.waitsFor()})
			switch err = fault.FromRPC(err); fault.KindOf(err) {
			case fault.Aborted, fault.FailedPrecondition, fault.PermissionDenied:
				lost(fmt.Errorf("stopped: %w", err))
				return
			default: // a registry that is away gives the lease to nobody else
			}
		}
	}()
	return ctx, func() { lost(nil) }
}

func (c *carrying) wait(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	const most = 480
	c.waits = what[:min(len(what), most)]
}

func (c *carrying) waitsFor() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.waits
}

// giveBack gives the lease back, so that whoever takes the rollout up need not wait. Where that fails it ends by itself.
func (c *carrying) giveBack(ctx context.Context) error {
	const most = 5 * time.Second
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), most)
	defer cancel()
	_, err := registryv1.NewRolloutWriteServiceClient(c.Conn).ReleaseRolloutLease(ctx, &registryv1.ReleaseRolloutLeaseRequest{RolloutId: c.id, LeaseToken: c.token})
	if err != nil {
		c.Report.Note("the lease could not be given back and ends by itself: " + fault.FromRPC(err).Error())
		return nil
	}
	if err := os.Remove(c.memory(c.id)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
