package set

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// What ends by itself takes the process along. Nobody is to be started anew for that garbage is collected as always from now on.
func TestProcessOutlivesTheMomentFromWhichGarbageIsCollectedAsAlways(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- collectAsAlways(ctx) }()
		<-time.After(time.Hour)
		select {
		case err := <-ended:
			t.Fatalf("it ended by itself (%v)", err)
		default:
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
