package systemtest

import (
	"maps"
	"testing"
	"time"
)

// A supervisor brings back what ends, so that a service which ended by itself every few seconds was hardly missed by any other test.
func TestProcessesOfAPlaneStandAsTheyWereStarted(t *testing.T) {
	full(t)
	t.Parallel()
	r := newRolling(t, "acme")
	before := r.pids(t)
	const upkeepBegins = 15 * time.Second // what a service puts off until its set has started begins within ten seconds
	<-time.After(upkeepBegins)
	if now := r.pids(t); !maps.Equal(now, before) {
		t.Errorf("the processes were %v and are %v, and nobody touched them", before, now)
	}
}
