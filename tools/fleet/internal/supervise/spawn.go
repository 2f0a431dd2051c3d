package supervise

import (
	"context"
	"os/exec"
	"runtime"
)

// spawner starts processes on one thread that lives as long as the supervisor does: the kernel ties a child that is to die with its
// parent to the very thread that made it (prctl(2), PR_SET_PDEATHSIG). What that thread has given up, no child of it has: see confine.
type spawner struct {
	requests chan spawnRequest
	// confined is why the thread could not give up what no child is to have.
	confined error
}

type spawnRequest struct {
	cmd *exec.Cmd
	// in bounds the process; nil for nothing.
	in   cgroup
	done chan error
}

func newSpawner(ctx context.Context) *spawner {
	s := &spawner{requests: make(chan spawnRequest)}
	ready := make(chan struct{})
	go func() {
		// Never unlocked: a thread whose goroutine ends while locked ends too, and takes the children along, which is right at the end.
		runtime.LockOSThread()
		s.confined = confineThread()
		close(ready)
		for {
			select {
			case <-ctx.Done():
				return
			case r := <-s.requests:
				if r.in != nil {
					r.done <- r.in.start(r.cmd)
				} else {
					r.done <- r.cmd.Start()
				}
			}
		}
	}()
	<-ready
	return s
}

func (s *spawner) start(cmd *exec.Cmd, in cgroup) error {
	if s.confined != nil {
		return s.confined
	}
	r := spawnRequest{cmd: cmd, in: in, done: make(chan error, 1)}
	s.requests <- r
	return <-r.done
}

// Output runs a program to its end, confined as a unit's process is, and answers what it wrote.
func Output(cmd *exec.Cmd) ([]byte, error) {
	if err := confineProcess(); err != nil {
		return nil, err
	}
	type result struct {
		out []byte
		err error
	}
	done := make(chan result, 1)
	go func() {
		// Never unlocked: what the thread gave up it can't get back, so that it ends with its goroutine.
		runtime.LockOSThread()
		if err := confineThread(); err != nil {
			done <- result{err: err}
			return
		}
		out, err := cmd.CombinedOutput()
		done <- result{out, err}
	}()
	r := <-done
	return r.out, r.err
}
