package command

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/tools/fleet/internal/operate"
	"a3os.app/tools/fleet/internal/plane"
)

func (a *app) applyCommand() *cobra.Command {
	var o plane.ApplyOptions
	var recoveryKey string
	c := &cobra.Command{Use: "apply HASH", Short: "Carry a plan out, as it stands", Args: exactly("HASH"),
		Long: `apply carries out what was printed by fleet plan: an operation for each tenant of the plan, each under a lease, step by step. It looks at the world
again and refuses where that is another than the plan says. It can be interrupted at any point: apply the same hash again, or take one
operation up with fleet operation resume; what is done is not done again. A restore is carried out as a whole, once: its backup is tried out first, and
--recovery-key is the file of the recovery key, where the backup key of the set is gone.`,
		Example: "  fleet apply sha256:9f2c41d07ab3\n  fleet apply sha256:9f2c41d07ab3 --recovery-key /media/usb/recovery.json",
		RunE: func(c *cobra.Command, args []string) error {
			if err := atLeastOne("--max-parallel", o.MaxParallel, "how many tenants are changed at once"); err != nil {
				return err
			}
			p, err := a.plane()
			if err != nil {
				return err
			}
			if is, err := a.applyRestore(c, p, args[0], recoveryKey); is || err != nil {
				return err
			}
			if is, err := a.applyRollout(c, p, args[0]); is || err != nil {
				return err
			}
			ops, err := p.Apply(c.Context(), args[0], o)
			return a.carried(ops, err)
		}}
	applyFlags(c, &o)
	c.Flags().IntVar(&o.MaxParallel, "max-parallel", 1, "how many tenants are changed at once")
	c.Flags().StringVar(&recoveryKey, "recovery-key", "", "file of the recovery key, where the plan is a restore and the set's backup key is lost")
	return c
}

// applyRestore carries a plan out that is a restore; it says whether it was one. No other plan takes a recovery key.
func (a *app) applyRestore(c *cobra.Command, p *plane.Plane, hash, recoveryKey string) (is bool, err error) {
	stored, read, err := p.StoredPlan(c.Context(), hash)
	switch is = read.GetKind() == registryv1.OperationKind_OPERATION_KIND_RESTORE; {
	case err != nil:
		return false, err
	case !is && recoveryKey != "":
		return false, usageError{fmt.Errorf("--recovery-key opens backups, and the plan is to %s", operate.Kind(read.GetKind()))}
	case !is:
		return false, nil
	}
	done, err := p.ApplyRestore(c.Context(), stored.GetHash(), recoveryKey)
	if err != nil {
		return true, err
	}
	return true, a.restored(done)
}

func applyFlags(c *cobra.Command, o *plane.ApplyOptions) {
	c.Flags().BoolVar(&o.Wait, "wait", false, "wait where another operator works on the tenant, instead of saying who")
}

// carried tells how operations ended.
func (a *app) carried(ops []*registryv1.Operation, err error) error {
	if a.format == "json" {
		if jsonErr := a.json(&registryv1.ListOperationsResponse{Operations: ops}); err == nil {
			err = jsonErr
		}
		return err
	}
	if err != nil {
		return err
	}
	return a.operations(ops)
}

func (a *app) operationCommand() *cobra.Command {
	var tenant, reason string
	var unfinished bool
	var o plane.ApplyOptions
	list := &cobra.Command{Use: "list", Short: "List operations, the newest first", Args: exactly(), RunE: func(c *cobra.Command, _ []string) error {
		p, err := a.plane()
		if err != nil {
			return err
		}
		ops, err := p.Operations(c.Context(), tenant, unfinished)
		if err != nil {
			return err
		}
		return a.carried(ops, nil)
	}}
	list.Flags().StringVar(&tenant, "tenant", "", "those of one tenant, by id or slug")
	list.Flags().BoolVar(&unfinished, "unfinished", false, "only those that have something left to do")
	var watching bool
	show := &cobra.Command{Use: "show ID", Short: "Show an operation with its steps", Args: exactly("ID"), RunE: func(c *cobra.Command, args []string) error {
		p, err := a.plane()
		if err != nil {
			return err
		}
		if watching {
			ops, done, err := p.OperationReads(c.Context())
			if err != nil {
				return err
			}
			defer done()
			return a.watchOperation(c.Context(), ops, args[0])
		}
		op, err := p.Operation(c.Context(), args[0])
		if err != nil {
			return err
		}
		return a.operation(op)
	}}
	show.Flags().BoolVar(&watching, "watch", false, "show it again at each change, until it ends")
	resume := &cobra.Command{Use: "resume ID", Short: "Take up an operation that was cut off", Args: exactly("ID"), RunE: func(c *cobra.Command, args []string) error {
		p, err := a.plane()
		if err != nil {
			return err
		}
		op, err := p.Resume(c.Context(), args[0], o)
		if err != nil {
			return err
		}
		return a.operation(op)
	}}
	applyFlags(resume, &o)
	abort := &cobra.Command{Use: "abort ID --reason TEXT", Short: "Give an operation up: what was done stays done", Args: exactly("ID"), RunE: func(c *cobra.Command, args []string) error {
		p, err := a.plane()
		if err != nil {
			return err
		}
		op, err := p.Abort(c.Context(), args[0], reason)
		if err != nil {
			return err
		}
		return a.operation(op)
	}}
	abort.Flags().StringVar(&reason, "reason", "", "why, 10 to 500 characters, on the record")
	_ = abort.MarkFlagRequired("reason")
	carry := &cobra.Command{Use: "carry", Short: "Carry out one tenant's steps; fleet apply starts it", Hidden: true, Args: exactly(), RunE: func(c *cobra.Command, _ []string) error {
		return operate.RunChild(c.Context(), os.Stdin, a.raw, plane.OpenDelegated)
	}}
	return group("operation", "What is being done to tenants, and was", list, show, resume, abort, carry)
}

// watchOperation shows an operation at each change until it ends.
func (a *app) watchOperation(ctx context.Context, ops registryv1.OperationServiceClient, id string) error {
	return watch(ctx, a, func(o ...grpc.CallOption) (grpc.ServerStreamingClient[registryv1.WatchOperationResponse], error) {
		return ops.WatchOperation(ctx, &registryv1.WatchOperationRequest{OperationId: id}, o...)
	}, func(res *registryv1.WatchOperationResponse) (ended bool, err error) {
		return res.GetOperation().GetEndedAt() != nil, a.operation(res.GetOperation())
	})
}

func (a *app) operations(ops []*registryv1.Operation) error {
	var rows [][]string
	for _, op := range ops {
		rows = append(rows, []string{op.GetId(), operate.Kind(op.GetKind()), op.GetTenantId(), stateOf(op), op.GetActor(), since(op.GetCreatedAt()), op.GetReason()})
	}
	return a.table([]string{"ID", "KIND", "TENANT", "STATE", "BY", "BEGUN", "REASON"}, rows)
}

// stateOf is where an operation stands, in a few words: an unfinished one, at what step, and whether somebody works on it.
func stateOf(op *registryv1.Operation) string {
	state := strings.ToLower(strings.TrimPrefix(op.GetState().String(), "OPERATION_STATE_"))
	if op.GetState() != registryv1.OperationState_OPERATION_STATE_UNFINISHED {
		return state
	}
	for _, s := range op.GetSteps() {
		if s.GetState() != registryv1.StepState_STEP_STATE_DONE {
			state = "at " + s.GetName()
			break
		}
	}
	if l := op.GetLease(); l != nil && l.GetExpiresAt().AsTime().After(time.Now()) {
		return state + ", " + l.GetHolder() + " works on it"
	}
	if until := op.GetWaitsUntil().AsTime(); until.After(time.Now()) {
		return state + ", until " + until.Format(time.RFC3339)
	}
	return state + ", nobody works on it"
}

func (a *app) operation(op *registryv1.Operation) error {
	if a.format == "json" {
		return a.json(op)
	}
	if err := a.operations([]*registryv1.Operation{op}); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(a.out); err != nil {
		return err
	}
	var rows [][]string
	for _, s := range op.GetSteps() {
		state := strings.ToLower(strings.TrimPrefix(s.GetState().String(), "STEP_STATE_"))
		if s.GetState() == registryv1.StepState_STEP_STATE_UNSPECIFIED {
			state = "-"
		}
		ended := "-"
		if s.GetEndedAt() != nil {
			ended = since(s.GetEndedAt())
		}
		rows = append(rows, []string{s.GetName(), state, fmt.Sprint(s.GetAttempts()), ended, s.GetDetail()})
	}
	return a.table([]string{"STEP", "STATE", "TRIES", "ENDED", "DETAIL"}, rows)
}
