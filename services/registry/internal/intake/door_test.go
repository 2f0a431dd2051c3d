package intake

import (
	"container/heap"
	"errors"
	"testing"
	"time"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
)

// visits is a queue of when tenants come, in order of time.
type visits []visit

type visit struct {
	at     time.Time
	tenant id.Tenant
}

func (v visits) Len() int           { return len(v) }
func (v visits) Less(i, j int) bool { return v[i].at.Before(v[j].at) }
func (v visits) Swap(i, j int)      { v[i], v[j] = v[j], v[i] }
func (v *visits) Push(x any)        { *v = append(*v, x.(visit)) }
func (v *visits) Pop() any {
	old := *v
	last := old[len(old)-1]
	*v = old[:len(old)-1]
	return last
}

// After a restart all sets come at once. Each is let in, none is sent away more than a few times, and never more than the rate in a second.
func TestAllAreLetInInTurnWhenTheyComeAtOnce(t *testing.T) {
	const sets, perSecond = 10_000, 500
	begin := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	d, q := newDoor(perSecond), &visits{}
	for range sets {
		heap.Push(q, visit{at: begin, tenant: id.NewTenant()})
	}
	inSecond, tries, most, deferred, last := map[int]int{}, map[id.Tenant]int{}, 0, 0, begin
	for q.Len() > 0 {
		v := heap.Pop(q).(visit)
		tries[v.tenant]++
		most = max(most, tries[v.tenant])
		err := d.admit(v.tenant, v.at)
		if err == nil {
			inSecond[int(v.at.Sub(begin)/time.Second)]++
			last = v.at
			continue
		}
		f, ok := errors.AsType[*fault.Error](err)
		if !ok || f.Kind != fault.ResourceExhausted || f.RetryAfter <= 0 || f.RetryAfter > 2*longest {
			t.Fatalf("sent away with %v, after %v", err, f.RetryAfter)
		}
		deferred++
		heap.Push(q, visit{at: v.at.Add(f.RetryAfter), tenant: v.tenant})
	}
	if took := last.Sub(begin); took > sets/perSecond*time.Second+time.Second {
		t.Errorf("all were through after %s", took)
	}
	// The first second has the burst besides.
	for second, n := range inSecond {
		if n > 2*perSecond+1 || second > 0 && n > perSecond+1 {
			t.Errorf("%d were let in in second %d", n, second)
		}
	}
	if most > 2 || deferred < sets/2 {
		t.Errorf("somebody came %d times; %d were sent away", most, deferred)
	}
	if d.sweep(last.Add(2 * keptFor)); len(d.appointments) > 0 {
		t.Errorf("%d appointments are left", len(d.appointments))
	}
}

func TestWhoComesTooEarlyIsToldHowLongIsLeft(t *testing.T) {
	now := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	d := newDoor(1)
	a, b := id.NewTenant(), id.NewTenant()
	if err := d.admit(a, now); err != nil {
		t.Fatal(err)
	}
	first, _ := errors.AsType[*fault.Error](d.admit(b, now))
	again, _ := errors.AsType[*fault.Error](d.admit(b, now.Add(400*time.Millisecond)))
	if first == nil || again == nil || first.RetryAfter-again.RetryAfter != 400*time.Millisecond {
		t.Errorf("told %v, then %v", first, again)
	}
	if err := d.admit(b, now.Add(first.RetryAfter)); err != nil {
		t.Errorf("at its time it is told %v", err)
	}
}

func TestQueueThatIsTooLongIsNotStoodIn(t *testing.T) {
	now := time.Now()
	d := newDoor(1)
	for range 1000 {
		_ = d.admit(id.NewTenant(), now)
	}
	if n := len(d.appointments); n != int(longest/time.Second) {
		t.Errorf("%d appointments were given, want one a second for %s", n, longest)
	}
}

// One tenant's flood is that tenant's: beyond its few it is sent away, and another one is let in at once.
func TestWhoReportsWithoutEndTakesNobodysPlace(t *testing.T) {
	now := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	d, flood := newDoor(1000), id.NewTenant()
	let := 0
	for i := range 10_000 {
		at := now.Add(time.Duration(i) * time.Millisecond)
		err := d.admit(flood, at)
		if err == nil {
			let++
			continue
		}
		if f, ok := errors.AsType[*fault.Error](err); !ok || f.Kind != fault.ResourceExhausted || f.RetryAfter <= 0 || f.RetryAfter > 2*time.Second {
			t.Fatalf("sent away with %v", err)
		}
		if i%100 == 0 {
			if err := d.admit(id.NewTenant(), at); err != nil {
				t.Fatalf("another one is told %v", err)
			}
		}
	}
	if want := 30 + 10; let > want {
		t.Errorf("%d were let in within ten seconds, want %d at most", let, want)
	}
	if d.sweep(now.Add(time.Hour)); len(d.own) > 0 {
		t.Errorf("%d are remembered an hour later", len(d.own))
	}
}
