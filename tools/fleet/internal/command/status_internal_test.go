package command

import (
	"testing"

	"a3os.app/tools/fleet/internal/standing"
)

// A rate is told of a window that has one: two reports of a new set lie milliseconds apart.
func TestRateOfAMomentIsNotTold(t *testing.T) {
	const column = 6
	for seconds, want := range map[float64]string{0.02: "-", rateFrom - 0.1: "-", 30: "40.0"} {
		if got := row(standing.Tenant{Figures: &standing.Figures{Seconds: seconds, Requests: 20}})[column]; got != want {
			t.Errorf("20 requests in %g s are shown as %s a minute, want %s", seconds, got, want)
		}
	}
}
