package intake

import (
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
)

// errDeferred tells a set to come back later. What it would have said, it says then.
var errDeferred = fault.Declare(fault.ResourceExhausted, "REPORTS_DEFERRED", "more sets report than the registry takes at once: report again later")

// errTooOften tells a set that it reports more often than any is told to.
var errTooOften = fault.Declare(fault.ResourceExhausted, "REPORTS_TOO_OFTEN", "this set reports more often than it was told to: wait for as long as it is told each time")

const (
	// longest is the furthest that a set is given an appointment for. Beyond it the queue is too long to be worth standing in.
	longest = time.Minute
	// keptFor is how long an appointment is good for after its time.
	keptFor = time.Minute
	// ofOne is how many reports a second are taken of one tenant, and burst how many at once: no set is told to report more often, and one that comes up
	// tells several times what changed.
	ofOne, burst = 1, 30
	// slack is added to what a set is told, so that it isn't too early by its own clock.
	slack = 100 * time.Millisecond
)

// door admits so many reports a second. Who comes in excess is given an appointment, one after the other, and is let in then without
// standing in the queue again: after a restart of the registry all sets are through after their number divided by the rate. Of one tenant it
// admits a few, whoever calls for it: what a tenant says beyond that takes no other's place, and none of the registry's disk.
type door struct {
	limit *rate.Limiter

	mu           sync.Mutex
	own          map[id.Tenant]*own
	appointments map[id.Tenant]time.Time
	swept        time.Time
}

// own is one tenant's part, and when it was said last that it wanted more.
type own struct {
	*rate.Limiter
	said time.Time
}

func newDoor(perSecond float64) *door {
	return &door{limit: rate.NewLimiter(rate.Limit(perSecond), max(1, int(perSecond))), own: map[id.Tenant]*own{}, appointments: map[id.Tenant]time.Time{}}
}

// admit lets a tenant's report in, or says when to come back.
func (d *door) admit(tenant id.Tenant, now time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sweep(now)
	if wait := d.overdone(tenant, now); wait > 0 {
		return errTooOften.Later(wait + slack)
	}
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

// overdone says how long a tenant is to wait that has reported too often; 0 for one that hasn't.
func (d *door) overdone(tenant id.Tenant, now time.Time) time.Duration {
	o := d.own[tenant]
	if o == nil {
		o = &own{Limiter: rate.NewLimiter(ofOne, burst)}
		d.own[tenant] = o
	}
	r := o.ReserveN(now, 1)
	wait := r.DelayFrom(now)
	if wait == 0 {
		return 0
	}
	r.CancelAt(now)
	if now.Sub(o.said) > time.Minute {
		slog.Warn("a set reports more often than it is told to, and is sent away", "tenant", tenant.String())
		o.said = now
	}
	return wait
}

// sweep forgets who has not come for a while, and appointments that nobody kept: there are never more of them than the rate allows in the time that
// they are good for.
func (d *door) sweep(now time.Time) {
	if now.Sub(d.swept) < keptFor {
		return
	}
	d.swept = now
	for tenant, o := range d.own {
		if o.TokensAt(now) >= burst {
			delete(d.own, tenant)
		}
	}
	for tenant, at := range d.appointments {
		if now.Sub(at) > keptFor {
			delete(d.appointments, tenant)
		}
	}
}
