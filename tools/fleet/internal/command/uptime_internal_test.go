package command

import (
	"testing"
	"time"

	"a3os.app/tools/fleet/internal/supervise"
)

func TestUptimeSaysWhenAProcessStartsWhereThatIsKnown(t *testing.T) {
	for want, s := range map[string]supervise.Status{
		"starts in 59s": {State: supervise.BackingOff, NextStart: time.Now().Add(time.Minute)},
		"-":             {State: supervise.BackingOff},
		"1m0s":          {State: supervise.Serving, PID: 1, Since: time.Now().Add(-time.Minute)},
	} {
		if got := uptime(s); got != want {
			t.Errorf("%+v is shown as %q, want %q", s, got, want)
		}
	}
}
