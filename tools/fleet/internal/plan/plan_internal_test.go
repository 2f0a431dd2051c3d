package plan

import (
	"testing"
	"time"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"
)

// Keys of tenants that leave are kept for as long as is asked for, and where nobody asks for as long as the plane is for.
func TestKeysAreKeptAfterTheExportAsLongAsThePlaneIsFor(t *testing.T) {
	asked := func(d time.Duration) *time.Duration { return &d }
	for _, c := range []struct {
		plane string
		kind  registryv1.OperationKind
		asked *time.Duration
		want  time.Duration
	}{
		{"prod", offboard, nil, 720 * time.Hour},
		{"prod", offboard, asked(0), 0},
		{"prod", offboard, asked(time.Hour), time.Hour},
		{"prod", upgrade, nil, 0},
		{"dev", offboard, nil, 0},
		{"dev", offboard, asked(time.Hour), time.Hour},
	} {
		got := (&Planner{Plane: c.plane}).wait(Request{Kind: c.kind, Wait: c.asked})
		if got.AsDuration() != c.want || (got == nil) != (c.want == 0) {
			t.Errorf("%s of plane %s, asked for %v: waits %v, want %s", c.kind, c.plane, c.asked, got, c.want)
		}
	}
}
