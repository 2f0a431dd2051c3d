package intake

import (
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
)

// errDeferred tells a set to come back later. What it would have said, it says then.
var errDeferred = fault.Declare(fault.ResourceExhausted, "REPORTS_DEFERRED", "more sets report than the registry takes at once: report again later")

const (
	// longest is the furthest that a set is given an appointment for. Beyond it the queue is too long to be worth standing in.
	longest = time.Minute
	// keptFor is how long an appointment is good for after its time.
	keptFor = time.Minute
	// slack is added to what a set is told, so that it isn't too early by its own clock.
	slack = 100 * time.Millisecond
)

// door admits so many reports a second. Who comes in excess is given an appointment, one after the other, and is let in then without
// standing in the queue again: after a restart of the registry all sets are through after their number divided by the rate.
type door struct {
	limit *rate.Limiter

	mu           sync.Mutex
	appointments map[id.Tenant]time.Time
	swept        time.Time
}

func newDoor(perSecond float64) *door {
	return &door{limit: rate.NewLimiter(rate.Limit(perSecond), max(1, int(perSecond))), appointments: map[id.Tenant]time.Time{}}
}

// admit lets a tenant's report in, or says when to come back.
func (d *door) admit(tenant id.Tenant, now time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sweep(now)
	if at, ok := d.appointments[tenant]; ok {
		if early := at.Sub(now); early > 0 {
			return errDeferred.Later(early + slack)
		}
		delete(d.appointments, tenant)
		return nil
	}
	r := d.limit.ReserveN(now, 1)
	after := r.DelayFrom(now)
	switch {
	case after == 0:
		return nil
	case after > longest:
		r.CancelAt(now)
		return errDeferred.Later(longest + rand.N(longest)) //nolint:gosec // G404: spreads load, guards nothing
	}
	d.appointments[tenant] = now.Add(after)
	return errDeferred.Later(after + slack)
}

// sweep forgets appointments that nobody kept: there are never more of them than the rate allows in the time that they are good for.
func (d *door) sweep(now time.Time) {
	if now.Sub(d.swept) < keptFor {
		return
	}
	d.swept = now
	for tenant, at := range d.appointments {
		if now.Sub(at) > keptFor {
			delete(d.appointments, tenant)
		}
	}
}
