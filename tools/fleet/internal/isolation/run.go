package isolation

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// verdict is what an attempt came to.
type verdict int

const (
	// unclear is neither: nobody answered, or something else went wrong.
	unclear verdict = iota
	refused
	opened
	// absent is a door that isn't there at all.
	absent
)

// answer is what a door said.
type answer struct {
	verdict verdict
	text    string
}

func refusedWith(format string, args ...any) answer {
	return answer{refused, fmt.Sprintf(format, args...)}
}
func openedWith(format string, args ...any) answer {
	return answer{opened, fmt.Sprintf(format, args...)}
}
func unclearWith(format string, args ...any) answer {
	return answer{unclear, fmt.Sprintf(format, args...)}
}

// ask tries one door once.
type ask func(ctx context.Context) answer

// control is the same door with the right credential. It is tried once, however many attempts stand beside it.
type control struct {
	what string
	ask  ask

	once   sync.Once
	answer answer
}

func (c *control) try(ctx context.Context) answer {
	c.once.Do(func() { c.answer = patiently(ctx, c.ask) })
	return c.answer
}

// attempt is one thing that must not work.
type attempt struct {
	wall, from, at, what string
	ask                  ask
	control              *control
	// lane serialises attempts that share something bounded, as a role's connections.
	lane string
	// optional says that there is no attempt where the control finds no door.
	optional bool
}

// timeout bounds one door; a machine that is busy is waited for.
const timeout = 20 * time.Second

// patiently tries again what was unclear, for a process that restarts is no proof of anything.
func patiently(ctx context.Context, a ask) answer {
	const tries = 3
	var got answer
	for try := range tries {
		actx, cancel := context.WithTimeout(ctx, timeout)
		got = a(actx)
		cancel()
		if got.verdict != unclear || ctx.Err() != nil {
			return got
		}
		select {
		case <-ctx.Done():
			return got
		case <-time.After(time.Duration(try+1) * 300 * time.Millisecond):
		}
	}
	return got
}

// Progress is told how far the attempts are.
type Progress func(done, all int)

// Verify makes every attempt, and answers what came of them. It ends early, with an error and no report, only when ctx does.
func Verify(ctx context.Context, w *World, progress Progress) (*Report, error) {
	if len(w.Sets) == 0 {
		return nil, errors.New("there is no set to try: make a tenant first")
	}
	r := newReport(w, time.Now())
	all := w.attempts()
	results := make([]*Result, len(all))
	var done int
	var mu sync.Mutex
	lanes := map[string][]int{}
	var order []string
	for i, a := range all {
		lane := a.lane
		if lane == "" {
			lane = fmt.Sprintf("%d", i)
		}
		if lanes[lane] == nil {
			order = append(order, lane)
		}
		lanes[lane] = append(lanes[lane], i)
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(4 * runtime.GOMAXPROCS(0))
	for _, lane := range order {
		g.Go(func() error {
			for _, i := range lanes[lane] {
				if err := gctx.Err(); err != nil {
					return err
				}
				results[i] = all[i].run(gctx)
				mu.Lock()
				done++
				progress(done, len(all))
				mu.Unlock()
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, fmt.Errorf("the attempts were not brought to an end: %w", context.Cause(ctx))
	}
	r.finish(results, time.Now())
	return r, nil
}

// run makes the attempt and its control.
func (a attempt) run(ctx context.Context) *Result {
	c := a.control.try(ctx)
	if a.optional && c.verdict == absent {
		return nil
	}
	got := patiently(ctx, a.ask)
	res := &Result{Wall: a.wall, From: a.from, At: a.at, Attempt: a.what, Answer: got.text, Control: a.control.what, ControlAnswer: c.text}
	switch {
	case got.verdict == opened:
		res.Outcome = Hole
	case got.verdict == refused && c.verdict == opened:
		res.Outcome = Refused
	default:
		res.Outcome = Unproven
	}
	return res
}

// unreachable says that nobody listened, which refuses nothing.
func unreachable(err error) bool {
	var op *net.OpError
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) ||
		errors.As(err, &op) && op.Op == "dial"
}
