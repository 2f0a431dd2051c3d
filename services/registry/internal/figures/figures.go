// Package figures works out what a set did within a window, from reports that each carry counts since a process started. It promises
// that a process which started anew is not taken for one that went back, and that nothing is counted twice. It relies on reports that
// come in order.
package figures

import (
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"
	setv1 "a3os.app/proto/gen/go/a3os/set/v1"

	"a3os.app/libs/latency"
)

// p99 is the quantile that is told.
const p99 = 0.99

// Point is a report and when it was heard.
type Point struct {
	At     time.Time
	Report *registryv1.ReportRequest
}

// component is what was seen of one component so far.
type component struct {
	out     *registryv1.ComponentFigures
	last    *registryv1.ComponentReport // the last one with figures
	latency []int64
}

// Of are the figures of a window that begins at since. The first point tells what had been counted when the window began; it may be from
// before. Points are in order of time.
func Of(since time.Time, points []Point) *registryv1.TenantFigures {
	out := &registryv1.TenantFigures{Reports: int32(len(points))} //nolint:gosec // G115: a few hundred
	if len(points) == 0 {
		return out
	}
	out.From, out.Until = timestamppb.New(points[0].At), timestamppb.New(points[len(points)-1].At)
	known := map[string]*component{}
	var order []*component
	for i, p := range points {
		within := i > 0 || !p.At.Before(since)
		if within {
			levels(out, p.Report)
		}
		for _, r := range p.Report.GetComponents() {
			c := known[r.GetName()]
			if c == nil {
				c = &component{out: &registryv1.ComponentFigures{Name: r.GetName()}}
				known[r.GetName()], order = c, append(order, c)
			}
			c.see(r, within, since)
		}
	}
	var all []int64
	for _, c := range order {
		c.out.P99Seconds = latency.Quantile(c.latency, p99)
		all = add(all, c.latency)
		out.Components = append(out.Components, c.out)
		out.Requests += c.out.GetRequests()
		out.Errors += c.out.GetErrors()
		out.Restarts += c.out.GetRestarts()
		out.FailedJobs += c.out.GetFailedJobs()
		out.RetriedJobs += c.out.GetRetriedJobs()
		out.MostQueueDepth = max(out.GetMostQueueDepth(), c.out.GetMostQueueDepth())
	}
	out.P99Seconds = latency.Quantile(all, p99)
	return out
}

// Measured says whether a report knows what waits in the set's database and how large that is: a database is never without a size, and what
// waits in one is known with it.
func Measured(r *registryv1.ReportRequest) bool {
	return r.GetDatabaseBytes() > 0 || r.GetAuditBacklog() > 0
}

// levels takes what a set as a whole said at one time. Where it could not tell, what it said before stands.
func levels(out *registryv1.TenantFigures, r *registryv1.ReportRequest) {
	if !Measured(r) {
		return
	}
	out.MostAuditBacklog = max(out.GetMostAuditBacklog(), r.GetAuditBacklog())
	out.MostAuditBacklogAgeSeconds = max(out.GetMostAuditBacklogAgeSeconds(), r.GetAuditBacklogAgeSeconds())
	out.MostDatabaseConnections = max(out.GetMostDatabaseConnections(), r.GetDatabaseConnections())
	out.AuditBacklog, out.DatabaseBytes = r.GetAuditBacklog(), r.GetDatabaseBytes()
}

// see takes a component's report. Of the one before the window only its counts matter.
func (c *component) see(r *registryv1.ComponentReport, within bool, since time.Time) {
	if within && r.GetHealth() != registryv1.Health_HEALTH_SERVING {
		c.out.UnhealthyReports++
	}
	f := r.GetFigures()
	if f == nil {
		return // it could not be asked
	}
	if within {
		c.out.MostQueueDepth = max(c.out.GetMostQueueDepth(), f.GetQueueDepth())
		c.out.MostQueueAgeSeconds = max(c.out.GetMostQueueAgeSeconds(), f.GetQueueAgeSeconds())
		c.out.MostResidentBytes = max(c.out.GetMostResidentBytes(), f.GetResidentBytes())
		switch {
		case c.last == nil && r.GetStartedAt().AsTime().Before(since):
			// What it counted before it was first heard of is not this window's.
		case c.last == nil || !proto.Equal(c.last.GetStartedAt(), r.GetStartedAt()):
			c.count(&setv1.Figures{}, f)
		default:
			c.count(c.last.GetFigures(), f)
		}
		if c.last != nil {
			c.out.Restarts += max(r.GetRestarts()-c.last.GetRestarts(), 0)
			c.out.UnmeantRestarts += max(r.GetUnmeantRestarts()-c.last.GetUnmeantRestarts(), 0)
		}
	}
	c.last = r
}

// count adds what grew between two reports of one process. Counts never shrink there; should they, nothing is added.
func (c *component) count(before, now *setv1.Figures) {
	c.out.Requests += max(now.GetRequests()-before.GetRequests(), 0)
	c.out.Errors += max(now.GetErrors()-before.GetErrors(), 0)
	c.out.FailedJobs += max(now.GetFailedJobs()-before.GetFailedJobs(), 0)
	c.out.RetriedJobs += max(now.GetRetriedJobs()-before.GetRetriedJobs(), 0)
	grown := make([]int64, len(now.GetLatencyCounts()))
	for i, n := range now.GetLatencyCounts() {
		if i < len(before.GetLatencyCounts()) {
			n -= before.GetLatencyCounts()[i]
		}
		grown[i] = max(n, 0)
	}
	c.latency = add(c.latency, grown)
}

func add(to, counts []int64) []int64 {
	for i, n := range counts {
		if i == len(to) {
			to = append(to, 0)
		}
		to[i] += n
	}
	return to
}
