package discoveryworker

import (
	"context"
	"errors"
	"testing"
	"time"

	setv1 "a3os.app/proto/gen/go/a3os/set/v1"

	"a3os.app/libs/queue"
)

// asked stands for a consumer whose database answers or doesn't: a real one that fails for one question can't be had.
type asked struct {
	consumer
	load queue.Load
	err  error
}

func (a asked) Load(context.Context) (queue.Load, error) { return a.load, a.err }

func TestQueueThatCanNotBeAskedIsNotSaidToBeEmpty(t *testing.T) {
	var known, unknown setv1.Figures
	figures(asked{load: queue.Load{Failed: 2, Oldest: 400 * time.Second, Waiting: 3}})(t.Context(), &known)
	if known.QueueDepth == nil || known.GetQueueDepth() != 3 || known.GetQueueAgeSeconds() != 400 || known.GetFailedJobs() != 2 {
		t.Errorf("a queue is told as %v", &known)
	}
	figures(asked{load: queue.Load{Failed: 2}, err: errors.New("the database is away")})(t.Context(), &unknown)
	if unknown.QueueDepth != nil || unknown.QueueAgeSeconds != nil || unknown.GetFailedJobs() != 2 {
		t.Errorf("a queue that could not be asked is told as %v", &unknown)
	}
}
