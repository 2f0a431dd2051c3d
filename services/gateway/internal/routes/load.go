package routes

import (
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"a3os.app/libs/id"
	"a3os.app/libs/upstream"
	"a3os.app/services/gateway/internal/turns"
)

// classes of status codes that are counted apart: 1xx to 5xx.
const classes = 5

// Load is a tenant's share of the gateway.
type Load struct {
	Places
	// Comes is whether it does, Lane where its calls wait for each other, Door where handshakes do that name it.
	Comes      turns.Neighbour
	Lane, Door turns.Lane
	// Once is when the tenant is first called.
	Once sync.Once

	tenant id.Tenant
	// services are those of the set, *Service by name; they outlive changes of the route too.
	services sync.Map
	// counted are the options of the tenant's counters, made once, for they would cost more than the rest of the counting.
	counted [classes][]metric.AddOption
	whose   metric.MeasurementOption
}

func newLoad(tenant id.Tenant) *Load {
	l := &Load{tenant: tenant, whose: metric.WithAttributeSet(attribute.NewSet(attribute.String("tenant", tenant.String())))}
	for i, class := range [classes]string{"1xx", "2xx", "3xx", "4xx", "5xx"} {
		set := attribute.NewSet(attribute.String("tenant", tenant.String()), attribute.String("status", class))
		l.counted[i] = []metric.AddOption{metric.WithAttributeSet(set)}
	}
	return l
}

// Tenant is the attribute of what is counted by tenant alone.
func (l *Load) Tenant() metric.MeasurementOption { return l.whose }

// of is a service of the tenant's set.
func (l *Load) of(service string) *Service {
	s, _ := l.services.LoadOrStore(service, &Service{name: l.tenant.String() + "/" + service})
	return s.(*Service) //nolint:forcetypeassert // nothing else is stored
}

// Service is what is in flight to a service of a set, and whether it answers in time.
type Service struct {
	Places
	name    string
	once    sync.Once
	breaker *upstream.Breaker
}

// Breaker is the service's, made when it is first asked for; slow is the time that an answer may take to begin.
func (s *Service) Breaker(slow time.Duration) *upstream.Breaker {
	s.once.Do(func() { s.breaker = upstream.NewBreaker(s.name, slow) })
	return s.breaker
}

// Places bound what is in flight.
type Places struct {
	inFlight atomic.Int64
	// fruitless is when nobody could be found last to give a place up, in nanoseconds of the clock.
	fruitless atomic.Int64
}

// InFlight is how many places are taken.
func (p *Places) InFlight() int64 { return p.inFlight.Load() }

// Enter takes one of most places; Leave gives it back. Where all are taken it answers false, and there is nothing to give back.
func (p *Places) Enter(most int64) bool {
	if p.inFlight.Add(1) > most {
		p.inFlight.Add(-1)
		return false
	}
	return true
}

// Full says whether all of most places are taken.
func (p *Places) Full(most int64) bool { return p.inFlight.Load() >= most }

// Squeeze takes a place beyond those that there are: somebody is about to leave.
func (p *Places) Squeeze() { p.inFlight.Add(1) }

// Search looks by find for somebody who gives a place up, and says whether there is one. Where there was none a moment ago it doesn't look: whoever
// refuses most of what comes must be quick at it.
func (p *Places) Search(find func() bool) bool {
	const moment = 20 * time.Millisecond
	now := time.Now().UnixNano()
	if now-p.fruitless.Load() < int64(moment) {
		return false
	}
	found := find()
	if !found {
		p.fruitless.Store(now)
	}
	return found
}

// Leave gives back what Enter or Squeeze took.
func (p *Places) Leave() { p.inFlight.Add(-1) }

// Counted are the attributes that an answer with a status code is counted with.
func (l *Load) Counted(status int) []metric.AddOption {
	class := status / 100
	if class < 1 || class > classes {
		class = classes
	}
	return l.counted[class-1]
}
