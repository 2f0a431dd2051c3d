package operate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/failpoint"
)

// left are the steps that are not done, in order.
func (w *work) left() []string {
	var out []string
	for _, s := range w.op.GetSteps() {
		if s.GetState() != registryv1.StepState_STEP_STATE_DONE {
			out = append(out, s.GetName())
		}
	}
	return out
}

// carryOut does the steps that are left. Those before there is an identity are done here, for without one nobody can speak for the
// tenant, and so is the database right after it, which takes the plane's power; the others are done by the process that speaks for the
// tenant, which is told what came of these.
func (w *work) carryOut(ctx context.Context) error {
	own, steps := w.split(w.left())
	if len(steps) == 0 {
		return w.allOwn(ctx, own, "")
	}
	// It is there by the time that there is something to tell it.
	c, err := w.startCarrying(ctx)
	if err != nil {
		return err
	}
	if err := w.allOwn(ctx, own, steps[0]); err != nil {
		c.dismiss()
		return err
	}
	return w.delegate(ctx, c, steps)
}

// split tells the steps that are done here from those that follow.
func (w *work) split(steps []string) (own, rest []string) {
	for len(steps) > 0 && (slices.Contains(steps, StepIdentity) || w.atDatabase(steps[0])) {
		own, steps = append(own, steps[0]), steps[1:]
	}
	return own, steps
}

// allOwn does steps here, after which another one begins.
func (w *work) allOwn(ctx context.Context, steps []string, then string) error {
	for i, step := range steps {
		if err := w.own(ctx, step, cmp.Or(after(steps, i), then)); err != nil {
			return fmt.Errorf("%s: %w", step, err)
		}
	}
	return nil
}

// atDatabase says that a step is the database of a set that is to get its identity first.
func (w *work) atDatabase(step string) bool {
	return step == StepDatabase && slices.ContainsFunc(w.op.GetSteps(), func(s *registryv1.Step) bool { return s.GetName() == StepIdentity })
}

// own does a step here, on record, with that the next one begins then. The last one is on record with the operation's end.
func (w *work) own(ctx context.Context, step, next string) error {
	began := time.Now()
	if err := failpoint.Here("fleet.own.before-step"); err != nil {
		return err
	}
	if w.begun != step {
		if err := w.record(ctx, recording{step: step, state: registryv1.StepState_STEP_STATE_BEGUN}); err != nil {
			return err
		}
	}
	changed, detail, err := w.power(ctx, step)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return errors.Join(err, w.record(context.WithoutCancel(ctx), recording{step: step, state: registryv1.StepState_STEP_STATE_FAILED, detail: err.Error()}))
	}
	if err := failpoint.Here("fleet.own.before-done"); err != nil {
		return err
	}
	done := recording{step: step, state: registryv1.StepState_STEP_STATE_DONE, detail: detail, next: next}
	if next == "" {
		w.last = &done
	} else if err := w.record(ctx, done); err != nil {
		return err
	}
	if err := failpoint.Here("fleet.own.after-step"); err != nil {
		return err
	}
	w.tell(step, changed, detail, time.Since(began))
	return nil
}

func (w *work) tell(step string, changed bool, detail string, took time.Duration) {
	what := w.set.Slug + ": " + step
	if detail != "" {
		what += ": " + detail
	}
	if changed {
		w.Report.Done(what, took)
	}
}

func (w *work) record(ctx context.Context, r recording) error {
	op, err := r.at(ctx, w.Conn, w.op.GetId(), w.lease.token)
	w.begun = begunStep(op)
	return err
}
