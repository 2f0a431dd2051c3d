package routes

import (
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"a3os.app/libs/id"
)

// classes of status codes that are counted apart: 1xx to 5xx.
const classes = 5

// Load is a tenant's share of the gateway.
type Load struct {
	inFlight atomic.Int64
	// counted are the options of the tenant's counters, made once, for they would cost more than the rest of the counting.
	counted [classes][]metric.AddOption
}

func newLoad(tenant id.Tenant) *Load {
	l := &Load{}
	for i, class := range [classes]string{"1xx", "2xx", "3xx", "4xx", "5xx"} {
		set := attribute.NewSet(attribute.String("tenant", tenant.String()), attribute.String("status", class))
		l.counted[i] = []metric.AddOption{metric.WithAttributeSet(set)}
	}
	return l
}

// Enter takes one of most places; Leave gives it back. Where all are taken it answers false, and there is nothing to give back.
func (l *Load) Enter(most int64) bool {
	if l.inFlight.Add(1) > most {
		l.inFlight.Add(-1)
		return false
	}
	return true
}

// Leave gives back what Enter took.
func (l *Load) Leave() { l.inFlight.Add(-1) }

// Counted are the attributes that an answer with a status code is counted with.
func (l *Load) Counted(status int) []metric.AddOption {
	class := status / 100
	if class < 1 || class > classes {
		class = classes
	}
	return l.counted[class-1]
}
