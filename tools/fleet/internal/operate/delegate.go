package operate

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/failpoint"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/process"
)

// delegationLasts is more than any operation takes: a token of it that leaked is worth nothing the day after.
const delegationLasts = 12 * time.Hour

// carrying is a process that carries out the steps of one tenant, once it is told which.
type carrying struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  io.Reader
	said heard
}

// startCarrying starts the process. It has nothing of a tenant's, and does nothing, until it is told what is to be done.
func (w *work) startCarrying(ctx context.Context) (*carrying, error) {
	c := &carrying{cmd: exec.CommandContext(ctx, w.Command[0], w.Command[1:]...), said: heard{note: w.Report.Note}} //nolint:gosec // it is this program
	c.cmd.Env, c.cmd.Dir = []string{}, "/"
	// A group of its own: an interrupt that is typed at a terminal is for this process, which asks it to stop.
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.cmd.Cancel = func() error { return c.cmd.Process.Signal(syscall.SIGTERM) }
	c.cmd.WaitDelay = 20 * time.Second
	c.cmd.Stderr = &c.said
	var err error
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if c.out, err = c.cmd.StdoutPipe(); err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the process that carries the steps out: %w", err)
	}
	return c, nil
}

// dismiss ends a process that was told nothing.
func (c *carrying) dismiss() {
	_ = c.in.Close()
	_ = c.cmd.Wait()
}

// delegate has steps carried out by a process that holds the tenant's credentials alone, and does for it what takes the plane's power.
func (w *work) delegate(ctx context.Context, c *carrying, steps []string) error {
	text, err := w.told(ctx, steps)
	if err != nil {
		c.dismiss()
		return err
	}
	talked := make(chan error, 1)
	go func() {
		_, err := c.in.Write(text)
		talked <- errors.Join(err, w.attend(ctx, c.in, c.out))
	}()
	err = <-talked
	_ = c.in.Close()
	ended := c.cmd.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if ended != nil && w.waits == "" {
		err = fmt.Errorf("%s", lastWord(c.said.String(), ended))
		if w.away {
			err = fmt.Errorf("%w: %w", ErrAway, err)
		}
	}
	return err
}

// heard keeps what the process says on its standard error, and passes its warnings on as they come.
type heard struct {
	strings.Builder
	note func(text string)
	line []byte
}

// Write implements io.Writer.
func (h *heard) Write(text []byte) (int, error) {
	h.line = append(h.line, text...)
	for {
		line, rest, whole := bytes.Cut(h.line, []byte("\n"))
		if !whole {
			return h.Builder.Write(text)
		}
		if bytes.Contains(line, []byte("WARN")) {
			h.note(string(bytes.TrimSpace(line)))
		}
		h.line = rest
	}
}

// lastWord is what the process said last, which is why it failed, or how it ended.
func lastWord(said string, ended error) string {
	last := process.LastWords(said)
	if own, ok := strings.CutPrefix(last, "fleet: "); ok {
		return own
	}
	return fmt.Sprintf("the process that carries the steps out: %v: %s", ended, last)
}

// told is what the process is told, as it reads it.
func (w *work) told(ctx context.Context, steps []string) ([]byte, error) {
	j, err := w.job(ctx, steps)
	if err != nil {
		return nil, err
	}
	return encode(j)
}

// job is what the process is told.
func (w *work) job(ctx context.Context, steps []string) (*job, error) {
	j := &job{
		Operation: w.op.GetId(), LeaseToken: w.lease.token, Steps: steps, Begun: w.begun, Last: steps[len(steps)-1],
		Blueprint: w.set.Blueprint, Tenant: w.set.Tenant.String(), Slug: w.set.Slug, Tier: w.set.Tier, Account: w.set.Account,
		StateFrom: w.tenant.GetTenant().GetState(), Release: w.release, Planned: w.set.Planned,
		Registry: w.Registry, Platform: w.Platform.Name(), Front: w.Front(w.set), Failpoint: failpoint.Given(),
	}
	var err error
	if j.Keypair, err = w.Provisioner(w.set); err != nil {
		return nil, err
	}
	if waker, is := w.Platform.(platform.Waker); is && slices.Contains(steps, platform.StepStart) {
		if err := waker.Wake(ctx, w.set); err != nil {
			return nil, err
		}
	}
	if j.Delegation, err = w.Platform.Delegate(ctx, w.set, w.release, time.Now().Add(delegationLasts)); err != nil {
		return nil, err
	}
	// Whatever is delegated, it speaks to the registry and asks the gateway.
	for _, addr := range []string{j.Registry.Address, j.Front.Dial} {
		_, text, err := net.SplitHostPort(addr)
		if err != nil {
			continue // there is none
		}
		port, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			return nil, fmt.Errorf("%s is no address: %w", addr, err)
		}
		if !slices.Contains(j.Delegation.Ports, uint16(port)) {
			j.Delegation.Ports = append(j.Delegation.Ports, uint16(port))
		}
	}
	return j, nil
}

// attend hears the process out and answers what it asks for.
func (w *work) attend(ctx context.Context, in io.Writer, out io.Reader) error {
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, mostReply)
	for lines.Scan() {
		var said word
		if err := json.Unmarshal(lines.Bytes(), &said); err != nil {
			return fmt.Errorf("the process that carries the steps out said %q: %w", lines.Text(), err)
		}
		if said.Step != "" {
			if err := w.noted(said); err != nil {
				return err
			}
			continue
		}
		if said.Away {
			w.away = true
			continue
		}
		answer := w.answer(ctx, said)
		if w.waits != "" {
			// The process ends without an answer, and does not take the wait for a failure.
			return errWaits
		}
		text, err := encode(answer)
		if err != nil {
			return err
		}
		if _, err := in.Write(text); err != nil {
			return fmt.Errorf("answer the process that carries the steps out: %w", err)
		}
	}
	return lines.Err()
}

// noted is a step that the process has done.
func (w *work) noted(said word) error {
	if err := w.Platform.Delegated(w.set, w.release, said.Step); err != nil {
		return err
	}
	if said.Step == StepStop {
		// Not only at the end, which one that leaves may wait for for a month: meanwhile nobody starts it because a restored registry has it active.
		if err := w.Stopped(w.set); err != nil {
			return err
		}
	}
	if steps := w.op.GetSteps(); said.Step == steps[len(steps)-1].GetName() {
		w.last = &recording{step: said.Step, state: registryv1.StepState_STEP_STATE_DONE, detail: said.Detail}
	}
	w.tell(said.Step, said.Changed, said.Detail, said.Took)
	return nil
}

// called does what the process asked the platform for.
func (w *work) called(ctx context.Context, said word) reply {
	keeper, ok := w.Platform.(platform.Doorkeeper)
	if !ok {
		return reply{Error: fmt.Sprintf("platform %s has no door for who works on one set", w.Platform.Name())}
	}
	answer, err := keeper.Answer(ctx, w.set, w.release, said.For, said.Call)
	if err != nil {
		return reply{Changed: answer.Changed, Error: err.Error()}
	}
	return reply{Changed: answer.Changed, Given: answer.Given}
}

// answer does what the process asked for: a step of this operation that takes the plane's power, or a line on record.
func (w *work) answer(ctx context.Context, said word) reply {
	if said.Record != "" {
		if err := w.record(ctx, recording{step: said.Record, state: said.State, detail: said.Detail}); err != nil {
			return w.failed(err)
		}
		return reply{}
	}
	step := said.Ask
	if len(said.Call) > 0 {
		step = said.For
	}
	ofOperation := slices.ContainsFunc(w.op.GetSteps(), func(s *registryv1.Step) bool { return s.GetName() == step })
	if !ofOperation {
		return reply{Error: fmt.Sprintf("step %q is none of operation %s", step, w.op.GetId())}
	}
	if len(said.Call) > 0 {
		return w.called(ctx, said)
	}
	if err := failpoint.Here("fleet.own.before-power"); err != nil {
		return reply{Error: err.Error()}
	}
	changed, detail, err := w.power(ctx, said.Ask)
	if err != nil {
		return w.failed(err)
	}
	if err := failpoint.Here("fleet.own.after-power"); err != nil {
		return reply{Error: err.Error()}
	}
	return reply{Changed: changed, Detail: detail}
}

// failed is what the process is told of what could not be done for it, and ends by.
func (w *work) failed(err error) reply {
	w.away = w.away || errors.Is(err, ErrAway)
	return reply{Error: err.Error()}
}
