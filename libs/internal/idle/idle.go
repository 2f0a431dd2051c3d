// Package idle gives memory back to the system while a process has nothing to do. Go's collector keeps as much again as is in use,
// and what starting took, for the next burst; a host of many sets has other uses for it. It promises to collect only after a quiet
// while in which nearly nothing was allocated, and only when enough was allocated before it to be worth the collection.
package idle

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// look is how often it is looked, and how long quiet lasts before it counts.
	look = 10 * time.Second
	// quiet is less than any call of a client allocates in the while, and more than heartbeats do.
	quiet = 1 << 20
	// worth is how much must have been allocated since memory was given back last.
	worth = 4 << 20
)

// GiveBack gives memory back in quiet times until ctx ends.
func GiveBack(ctx context.Context) {
	tick := time.NewTicker(look)
	defer tick.Stop()
	var w watch
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if w.due(allocated()) {
			debug.FreeOSMemory()
			w.given = allocated()
		}
	}
}

// watch compares what was allocated, in bytes since the process began.
type watch struct{ seen, given uint64 }

// due says whether memory should be given back now.
func (w *watch) due(total uint64) bool {
	since := total - w.seen
	w.seen = total
	return since < quiet && total-w.given > worth
}

func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}
