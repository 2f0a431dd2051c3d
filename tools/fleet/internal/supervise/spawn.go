package supervise

import (
	"context"
	"os/exec"
	"runtime"
)

// spawner starts processes on one thread that lives as long as the supervisor does: the kernel ties a child that is to die with its
// parent to the very thread that made it (prctl(2), PR_SET_PDEATHSIG).
type spawner struct{ requests chan spawnRequest }

type spawnRequest struct {
	cmd  *exec.Cmd
	done chan error
}

func newSpawner(ctx context.Context) *spawner {
	s := &spawner{requests: make(chan spawnRequest)}
	go func() {
		// Never unlocked: a thread whose goroutine ends while locked ends too, and takes the children along, which is right at the end.
		runtime.LockOSThread()
		for {
			select {
			case <-ctx.Done():
				return
			case r := <-s.requests:
				r.done <- r.cmd.Start()
			}
		}
	}()
	return s
}

func (s *spawner) start(cmd *exec.Cmd) error {
	r := spawnRequest{cmd: cmd, done: make(chan error, 1)}
	s.requests <- r
	return <-r.done
}
