package operate

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/failpoint"
	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/workload"
	"a3os.app/tools/fleet/internal/platform"
)

// Opener opens a platform with what was delegated, and with the door to what only who delegated it reaches.
type Opener func(platform string, config json.RawMessage, door platform.Door) (platform.Platform, error)

// child is the process that carries out the steps of one operation on one tenant. What it was not given it can't reach: the kernel
// keeps it to the tenant's files, the supervisor to the tenant's units, the registry and the database to the tenant's own.
type child struct {
	job
	set      platform.Set
	platform platform.Platform
	conn     *grpc.ClientConn

	// doing is the step in hand, next the one after it, begun one that is on record as begun already, and moved one that is on record as done
	// with what it did at the registry.
	doing, next, begun, moved string

	asking  sync.Mutex
	talking sync.Mutex
	out     io.Writer
	in      *bufio.Scanner
	replies chan []byte
}

// mostReply bounds a line from who started the process.
const mostReply = 1 << 20

// RunChild is that process's life. It ends when who started it has: standard input is closed then.
func RunChild(ctx context.Context, in io.Reader, out io.Writer, open Opener) error {
	c := &child{out: out, in: bufio.NewScanner(in), replies: make(chan []byte)}
	c.in.Buffer(nil, mostReply)
	if !c.in.Scan() {
		return errors.New("this command is started by fleet apply, which tells it what to do")
	}
	if err := json.Unmarshal(c.in.Bytes(), &c.job); err != nil {
		return fmt.Errorf("read what is to be done: %w", err)
	}
	failpoint.Give(c.Failpoint)
	tenant, err := id.ParseTenant(c.Tenant)
	if err != nil {
		return err
	}
	c.set = platform.Set{Blueprint: c.Blueprint, Tenant: tenant, Slug: c.Slug, Tier: c.Tier, Account: c.Account, Planned: c.Planned}
	if err := confine(c.Delegation); err != nil {
		return fmt.Errorf("keep this process to what is %s's: %w", tenant, err)
	}
	if len(c.Delegation.Steps) > 0 {
		if c.platform, err = open(c.Platform, c.Delegation.Config, c.door); err != nil {
			return err
		}
	}
	if c.Keypair != "" {
		if err := c.dial(tenant); err != nil {
			return err
		}
		defer c.conn.Close()
	}
	go func() {
		for c.in.Scan() {
			c.replies <- slices.Clone(c.in.Bytes())
		}
		// Who started this process is gone, and somebody else may do its work by now: nothing more is begun, and nothing ended in good order.
		os.Exit(exitOrphan)
	}()
	return c.carryOut(ctx)
}

// exitOrphan is how a process ends whose parent is gone.
const exitOrphan = 9

func (c *child) dial(tenant id.Tenant) error {
	pair, err := workload.ParseKeypair([]byte(c.Keypair))
	if err != nil {
		return err
	}
	if want := (workload.Identity{Plane: c.Registry.Plane, Tenant: tenant, Service: workload.Provisioner}); pair.Identity() != want {
		return fmt.Errorf("the keypair is %s's and the operation is on %s", pair.Identity(), tenant)
	}
	source, err := workload.NewSource(pair)
	if err != nil {
		return err
	}
	c.conn, err = c.Registry.Dial(source)
	return err
}

func (c *child) carryOut(ctx context.Context) error {
	c.begun = c.Begun
	for i, step := range c.Steps {
		err := c.step(ctx, step, after(c.Steps, i))
		if errors.Is(err, ErrAway) {
			err = errors.Join(err, c.say(word{Away: true}))
		}
		if err != nil {
			return fmt.Errorf("%s: %w", step, err)
		}
	}
	return nil
}

// step does one step, and has it on record before and after, with that the next one begins then.
func (c *child) step(ctx context.Context, step, next string) error {
	began := time.Now()
	c.doing, c.next = step, next
	if err := failpoint.Here("fleet.carry.before-step"); err != nil {
		return err
	}
	if c.begun != step {
		if err := c.record(ctx, recording{step: step, state: registryv1.StepState_STEP_STATE_BEGUN}); err != nil {
			return err
		}
	}
	if err := failpoint.Here("fleet.carry.step-begun"); err != nil {
		return err
	}
	changed, detail, err := c.do(ctx, step)
	if err != nil {
		if ctx.Err() != nil {
			// It was told to stop: the step is no failure, whoever takes the operation up does it again.
			return ctx.Err()
		}
		return errors.Join(err, c.record(context.WithoutCancel(ctx), recording{step: step, state: registryv1.StepState_STEP_STATE_FAILED, detail: err.Error()}))
	}
	if err := failpoint.Here("fleet.carry.before-done"); err != nil {
		return err
	}
	if step != c.moved && step != c.Last {
		if err := c.record(ctx, recording{step: step, state: registryv1.StepState_STEP_STATE_DONE, detail: detail, next: next}); err != nil {
			return err
		}
	}
	if err := failpoint.Here("fleet.carry.after-step"); err != nil {
		return err
	}
	return c.say(word{Step: step, State: registryv1.StepState_STEP_STATE_DONE, Changed: changed, Detail: detail, Took: time.Since(began)})
}

// do does a step by itself where it may, and asks for it where not.
func (c *child) do(ctx context.Context, step string) (changed bool, detail string, err error) {
	switch step {
	case StepPublish:
		return true, "", c.setState(ctx, registryv1.TenantState_TENANT_STATE_ACTIVE)
	case StepUnpublish:
		if c.StateFrom == registryv1.TenantState_TENANT_STATE_PROVISIONING {
			return false, "it was never published", nil
		}
		if err := c.setState(ctx, registryv1.TenantState_TENANT_STATE_SUSPENDED); err != nil {
			return true, "", err
		}
		return true, c.Front.Withdrawn(ctx), nil
	case StepAnswer:
		return true, "", c.Front.Await(ctx)
	}
	if slices.Contains(c.Delegation.Steps, step) {
		if changed, err = c.delegated(ctx, step); err != nil || step != StepDelete {
			return changed, "", err
		}
	}
	// The rest of a removal is out of reach of a process that reaches one tenant's own: the roles in the server, the list of tenants.
	r, err := c.ask(ctx, word{Ask: step})
	return r.Changed || changed, r.Detail, err
}

func (c *child) delegated(ctx context.Context, step string) (changed bool, err error) {
	switch step {
	case StepMigrate:
		return c.platform.Migrate(ctx, c.set, c.Release)
	case StepStart:
		return c.platform.Start(ctx, c.set, c.Release)
	case StepStop:
		return c.platform.Stop(ctx, c.set)
	case StepShred:
		return c.platform.Shred(ctx, c.set)
	case StepDelete:
		return c.platform.Delete(ctx, c.set)
	}
	return false, fmt.Errorf("this process can't do it: step %s of platform %s was delegated by mistake", step, c.Platform)
}

// setState moves the tenant on, as its own provisioner, which is all of the step in hand: that is on record as done with it, unless the registry is
// of a release before this one.
func (c *child) setState(ctx context.Context, to registryv1.TenantState) error {
	if c.conn == nil {
		return errors.New("the tenant's authority is gone, and nobody can speak for it")
	}
	ctx, cancel := context.WithTimeout(ctx, callWithin)
	defer cancel()
	req := &registryv1.SetTenantStateRequest{TenantId: c.Tenant, State: to, Lease: &registryv1.LeaseProof{OperationId: c.Operation, LeaseToken: c.LeaseToken}}
	if c.doing != c.Last {
		req.Step, req.ThenBegin = c.doing, c.next
	}
	res, err := registryv1.NewTenantWriteServiceClient(c.conn).SetTenantState(ctx, req)
	if err != nil {
		return fault.FromRPC(err)
	}
	if op := res.GetOperation(); op != nil {
		c.moved, c.begun = c.doing, begunStep(op)
	}
	return nil
}

// callWithin bounds a call at the registry, with the time that it may be away.
const callWithin = 60 * time.Second

// record has a step on record, as the tenant's provisioner: the registry takes no step of another tenant from it.
func (c *child) record(ctx context.Context, r recording) error {
	if c.conn == nil {
		_, err := c.ask(ctx, word{Record: r.step, State: r.state, Detail: r.detail})
		return err
	}
	op, err := r.at(ctx, c.conn, c.Operation, c.LeaseToken)
	c.begun = begunStep(op)
	return err
}

// door asks who started this process for what only they reach, for the step in hand.
func (c *child) door(ctx context.Context, call json.RawMessage) (platform.Answer, error) {
	r, err := c.ask(ctx, word{Call: call, For: c.doing})
	return platform.Answer{Changed: r.Changed, Given: r.Given}, err
}

func (c *child) ask(ctx context.Context, w word) (reply, error) {
	c.asking.Lock()
	defer c.asking.Unlock()
	if err := c.say(w); err != nil {
		return reply{}, err
	}
	select {
	case <-ctx.Done():
		return reply{}, ctx.Err()
	case line := <-c.replies:
		var r reply
		if err := json.Unmarshal(line, &r); err != nil {
			return r, fmt.Errorf("read the answer: %w", err)
		}
		if r.Error != "" {
			return r, errors.New(r.Error)
		}
		return r, nil
	}
}

func (c *child) say(w word) error {
	text, err := encode(w)
	if err != nil {
		return err
	}
	c.talking.Lock()
	defer c.talking.Unlock()
	_, err = c.out.Write(text)
	return err
}
