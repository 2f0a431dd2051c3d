package aws

import (
	"testing"
	"testing/synctest"
	"time"
)

// Who waits is told within a sixteenth of what it waited, and asks no more than that takes: a start of ten seconds is looked at each second, and
// a hundred that take two minutes share the rate of ECS's calls.
func TestLooksGrowRarerTheLongerItIsWaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		again := looks{time.Now()}
		asked := map[time.Duration]int{}
		for time.Since(again.began) < 2*time.Minute {
			before := time.Now()
			<-again.next()
			if late := time.Since(before); late > max(looksEvery, time.Since(again.began)/looksAfter) {
				t.Errorf("after %s it looks after %s more", before.Sub(again.began), late)
			}
			for _, within := range []time.Duration{10 * time.Second, 2 * time.Minute} {
				if time.Since(again.began) <= within {
					asked[within]++
				}
			}
		}
		if asked[10*time.Second] != 10 || asked[2*time.Minute] > 50 {
			t.Errorf("it asked so often within: %v", asked)
		}
	})
}
