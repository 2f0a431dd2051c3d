package command

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
	"a3os.app/tools/fleet/internal/plan"
	"a3os.app/tools/fleet/internal/plane"
	"a3os.app/tools/fleet/internal/rollout"
	"a3os.app/tools/internal/show"
)

const rolloutHelp = `A rollout brings many tenants to a release, in waves: the rings canary, early and general (label ring), each one wave or several. A wave is
done when every set in it says itself that it runs the release, healthy, and was watched for a time and a number of requests. The first
tenant that fails halts everything; what the policy says goes back, and nobody else is touched.

A plan of one is begun as it stands or not at all: fleet apply HASH looks at the world again, and names what is no longer as the plan says.
Whoever steers needs no lease, and says why. fleet rollout carry takes up what was interrupted.`

func (a *app) rolloutCommand() *cobra.Command {
	list := &cobra.Command{Use: "list", Short: "List rollouts, the newest first", Args: exactly(), RunE: func(c *cobra.Command, _ []string) error {
		return a.onRollouts(c, func(ctx context.Context, r registryv1.RolloutServiceClient, _ registryv1.RolloutWriteServiceClient) error {
			res, err := r.ListRollouts(ctx, &registryv1.ListRolloutsRequest{})
			if err != nil {
				return fault.FromRPC(err)
			}
			return a.rollouts(res)
		})
	}}
	var watch bool
	status := &cobra.Command{Use: "status ID", Short: "Show a rollout: waves, tenants, where each stands, and what is waited for", Args: exactly("ID"), RunE: func(c *cobra.Command, args []string) error {
		return a.rolloutStatus(c, args[0], watch)
	}}
	status.Flags().BoolVar(&watch, "watch", false, "show it again at each change, until it ends")
	carry := &cobra.Command{Use: "carry ID", Short: "Take up a rollout that was interrupted", Args: exactly("ID"), RunE: func(c *cobra.Command, args []string) error {
		p, err := a.plane()
		if err != nil {
			return err
		}
		r, err := p.CarryRollout(c.Context(), args[0])
		return a.rolledOut(r, err)
	}}
	c := group("rollout", "A release on its way to many tenants, in waves", a.rolloutPlan(), list, status, carry,
		a.steer("pause ID", "Begin nothing new; what is under way is finished", func(ctx context.Context, w registryv1.RolloutWriteServiceClient, args []string, reason string) (*registryv1.Rollout, error) {
			res, err := w.PauseRollout(ctx, &registryv1.PauseRolloutRequest{RolloutId: args[0], Reason: reason})
			return res.GetRollout(), err
		}),
		a.steer("resume ID", "Go on with one that was paused, or halted and gone back", func(ctx context.Context, w registryv1.RolloutWriteServiceClient, args []string, reason string) (*registryv1.Rollout, error) {
			res, err := w.ResumeRollout(ctx, &registryv1.ResumeRolloutRequest{RolloutId: args[0], Reason: reason})
			return res.GetRollout(), err
		}),
		a.steer("skip ID TENANT", "Leave a tenant out", func(ctx context.Context, w registryv1.RolloutWriteServiceClient, args []string, reason string) (*registryv1.Rollout, error) {
			res, err := w.SkipRolloutTenant(ctx, &registryv1.SkipRolloutTenantRequest{RolloutId: args[0], TenantId: args[1], Reason: reason})
			return res.GetRollout(), err
		}),
		a.steer("retarget ID HASH", "Give one that is paused or halted another plan, of another release", func(ctx context.Context, _ registryv1.RolloutWriteServiceClient, args []string, reason string) (*registryv1.Rollout, error) {
			p, err := a.plane()
			if err != nil {
				return nil, err
			}
			return p.RetargetRollout(ctx, args[0], args[1], reason)
		}),
		a.steer("abort ID", "Give it up; what was changed stays changed", func(ctx context.Context, w registryv1.RolloutWriteServiceClient, args []string, reason string) (*registryv1.Rollout, error) {
			res, err := w.AbortRollout(ctx, &registryv1.AbortRolloutRequest{RolloutId: args[0], Reason: reason})
			return res.GetRollout(), err
		}))
	c.Long = rolloutHelp
	return c
}

// steer is a command of an operator who needs no lease.
func (a *app) steer(use, short string, do func(ctx context.Context, w registryv1.RolloutWriteServiceClient, args []string, reason string) (*registryv1.Rollout, error)) *cobra.Command {
	var reason string
	c := &cobra.Command{Use: use + " --reason TEXT", Short: short, Args: exactly(strings.Fields(use)[1:]...), RunE: func(c *cobra.Command, args []string) error {
		if strings.HasSuffix(use, " TENANT") { // by slug or id
			p, err := a.plane()
			if err != nil {
				return err
			}
			t, err := p.ShowTenant(c.Context(), args[1])
			if err != nil {
				return err
			}
			args[1] = t.GetTenant().GetId()
		}
		return a.onRollouts(c, func(ctx context.Context, _ registryv1.RolloutServiceClient, w registryv1.RolloutWriteServiceClient) error {
			r, err := do(ctx, w, args, reason)
			if err != nil {
				return fault.FromRPC(err)
			}
			return a.rollout(r)
		})
	}}
	c.Flags().StringVar(&reason, "reason", "", "why, 10 to 500 characters, on the record")
	_ = c.MarkFlagRequired("reason")
	return c
}

func (a *app) onRollouts(c *cobra.Command, do func(ctx context.Context, r registryv1.RolloutServiceClient, w registryv1.RolloutWriteServiceClient) error) error {
	p, err := a.plane()
	if err != nil {
		return err
	}
	r, w, done, err := p.Rollouts(c.Context())
	if err != nil {
		return err
	}
	defer done()
	return do(c.Context(), r, w)
}

func (a *app) rolloutPlan() *cobra.Command {
	q := rollout.Request{Gates: &registryv1.Gates{}}
	c := &cobra.Command{Use: "plan --release VERSION (--tenant TENANT | --label NAME=VALUE | --wave RING)… --reason TEXT", Short: "Plan a rollout; fleet apply carries it out", Args: exactly(),
		Example: "  fleet rollout plan --release 1.4.0 --wave canary --wave early --bake 10m --samples 100 --reason 'security update'",
		RunE: func(c *cobra.Command, _ []string) error {
			if err := atLeastOne("--max-parallel", int(q.MaxParallel), "how many tenants are changed at once"); err != nil {
				return err
			}
			p, err := a.plane()
			if err != nil {
				return err
			}
			stored, made, err := p.PlanRollout(c.Context(), q)
			if err != nil {
				return err
			}
			a.leftOut(made)
			return a.plannedRollout(stored, made.Plan)
		}}
	f := c.Flags()
	f.StringVar(&q.Release, "release", "", "release to lead to: a version, or its whole name")
	f.StringArrayVar(&q.Selection.Tenants, "tenant", nil, "a tenant, by slug or id")
	f.StringArrayVar(&q.Selection.Labels, "label", nil, "tenants with a label, as ring=canary")
	f.StringArrayVar(&q.Selection.Waves, "wave", nil, "tenants of a ring: canary, early or general")
	f.StringVar(&q.Size, "wave-size", "", "most tenants of a wave: a number, or a share of the ring as 25%; each ring is one wave when empty")
	f.Int32Var(&q.MaxParallel, "max-parallel", 1, "how many tenants are changed at once")
	f.DurationVar(&q.Bake, "bake", 10*time.Minute, "how long each tenant is watched")
	f.Int64Var(&q.Samples, "samples", 100, "how many requests each must have answered meanwhile; probes ask what users don't")
	f.Float64Var(&q.Gates.ErrorRatioGrowth, "error-growth", 0.01, "gate: how much the share of failed requests may grow, of --samples and of 100 at least")
	f.Float64Var(&q.Gates.P99Factor, "p99-factor", 3, "gate: how many times its own p99 before a tenant's p99 may be, where it is above 50 ms and of --samples and of 100 requests at least; 0 leaves it out")
	f.Int32Var(&q.Gates.Restarts, "restarts", 0, "gate: how many restarts")
	f.Int64Var(&q.Gates.FailedJobs, "failed-jobs", 0, "gate: how many jobs may fail for good")
	f.Int64Var(&q.Gates.AuditBacklog, "audit-backlog", 10_000, "gate: how many audit events may wait; 0 leaves it out")
	f.StringVar(&q.Rollback, "rollback", "wave", "what goes back when a tenant fails: none, tenant, wave, all")
	f.StringArrayVar(&q.Allow, "allow", nil, "a window in which tenants may be begun, as 'mon-fri 09:00-17:00 Europe/Vienna'")
	f.StringArrayVar(&q.Deny, "deny", nil, "a window in which none may, which beats every --allow")
	f.StringVar(&q.Reason, "reason", "", "why, 10 to 500 characters, on the record")
	_ = errors.Join(c.MarkFlagRequired("release"), c.MarkFlagRequired("reason"))
	return c
}

func (a *app) plannedRollout(stored *registryv1.StoredPlan, made *registryv1.Plan) error {
	if a.format == "json" {
		return a.json(stored)
	}
	return plan.Page(a.out, stored, made)
}

// rolledOut tells how a rollout stands when nobody works on it any more. One that halted is a failure.
func (a *app) rolledOut(r *registryv1.Rollout, err error) error {
	if r != nil {
		if shown := a.rollout(r); err == nil {
			err = shown
		}
	}
	if err == nil && r.GetState() != registryv1.RolloutState_ROLLOUT_STATE_SUCCEEDED {
		return fmt.Errorf("rollout %s is %s: %s", r.GetId(), lower(r.GetState().String(), "ROLLOUT_STATE_"), r.GetDetail())
	}
	return err
}

func (a *app) rolloutStatus(c *cobra.Command, id string, watch bool) error {
	return a.onRollouts(c, func(ctx context.Context, r registryv1.RolloutServiceClient, _ registryv1.RolloutWriteServiceClient) error {
		if !watch {
			res, err := r.GetRollout(ctx, &registryv1.GetRolloutRequest{RolloutId: id})
			if err != nil {
				return fault.FromRPC(err)
			}
			if a.format == "json" {
				return a.json(res)
			}
			if err := a.rollout(res.GetRollout()); err != nil {
				return err
			}
			return a.history(res.GetEvents())
		}
		return a.watchRollout(ctx, r, id)
	})
}

// watchRollout shows a rollout at each change until it ends.
func (a *app) watchRollout(ctx context.Context, r registryv1.RolloutServiceClient, id string) error {
	return watch(ctx, a, func(o ...grpc.CallOption) (grpc.ServerStreamingClient[registryv1.WatchRolloutResponse], error) {
		return r.WatchRollout(ctx, &registryv1.WatchRolloutRequest{RolloutId: id}, o...)
	}, func(res *registryv1.WatchRolloutResponse) (ended bool, err error) {
		return res.GetRollout().GetEndedAt() != nil, a.rollout(res.GetRollout())
	})
}

func (a *app) history(events []*registryv1.RolloutEvent) error {
	var rows [][]string
	for _, e := range events {
		rows = append(rows, []string{e.GetAt().AsTime().Format(time.RFC3339), e.GetAction(), e.GetTenantId(), e.GetActor(), e.GetReason()})
	}
	_, _ = fmt.Fprintln(a.out)
	return a.table([]string{"AT", "WHAT", "TENANT", "BY", "REASON"}, rows)
}

func (a *app) rollouts(res *registryv1.ListRolloutsResponse) error {
	if a.format == "json" {
		return a.json(res)
	}
	var rows [][]string
	for _, r := range res.GetRollouts() {
		rows = append(rows, []string{r.GetId(), r.GetRelease(), lower(r.GetState().String(), "ROLLOUT_STATE_"), r.GetActor(), r.GetCreatedAt().AsTime().Format(time.RFC3339), r.GetReason()})
	}
	return a.table([]string{"ID", "RELEASE", "STATE", "BY", "BEGUN", "REASON"}, rows)
}

func (a *app) rollout(r *registryv1.Rollout) error {
	if a.format == "json" {
		return a.json(r)
	}
	_, _ = fmt.Fprintf(a.out, "%s to %s: %s", r.GetId(), r.GetRelease(), lower(r.GetState().String(), "ROLLOUT_STATE_"))
	if r.GetDetail() != "" {
		_, _ = fmt.Fprintf(a.out, ", %s", show.Text(r.GetDetail()))
	}
	_, _ = fmt.Fprintln(a.out)
	switch l := r.GetLease(); {
	case r.GetEndedAt() != nil:
	case l == nil || l.GetExpiresAt().AsTime().Before(time.Now()):
		_, _ = fmt.Fprintf(a.out, "nobody works on it: fleet rollout carry %s\n", r.GetId())
	default:
		_, _ = fmt.Fprintf(a.out, "%s works on it at %s\n", l.GetHolder(), l.GetPlace())
	}
	if r.GetWaitsFor() != "" {
		_, _ = fmt.Fprintf(a.out, "waits for %s\n", show.Text(r.GetWaitsFor()))
	}
	_, _ = fmt.Fprintln(a.out)
	var rows [][]string
	for _, t := range r.GetTenants() {
		wave := ""
		if w := r.GetPolicy().GetWaves(); int(t.GetWave()) < len(w) {
			wave = w[t.GetWave()].GetName()
		}
		rows = append(rows, []string{wave, t.GetSlug(), lower(t.GetState().String(), "ROLLOUT_TENANT_STATE_"), time.Since(t.GetSince().AsTime()).Round(time.Second).String(),
			fmt.Sprintf("%d (%d probes)", t.GetSamples(), t.GetProbes()), t.GetDetail()})
	}
	return a.table([]string{"WAVE", "TENANT", "STATE", "FOR", "REQUESTS", "DETAIL"}, rows)
}

// lower is an enum's word as people read it.
func lower(name, prefix string) string {
	return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(name, prefix)), "_", " ")
}

// applyRollout carries a plan out that is a rollout; it says whether it was one.
func (a *app) applyRollout(c *cobra.Command, p *plane.Plane, hash string) (is bool, err error) {
	if is, err = p.IsRollout(c.Context(), hash); err != nil || !is {
		return is, err
	}
	r, err := p.Rollout(c.Context(), hash)
	return true, a.rolledOut(r, err)
}
