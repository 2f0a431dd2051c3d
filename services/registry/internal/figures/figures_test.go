package figures_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"
	setv1 "a3os.app/proto/gen/go/a3os/set/v1"

	"a3os.app/services/registry/internal/figures"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// at is a time so many minutes after noon.
func at(minutes int) time.Time { return noon.Add(time.Duration(minutes) * time.Minute) }

// said is what one component said: when it started, how often it was seen to, and how many calls it answered, failed and took long.
func said(minute, started int, restarts int32, requests, errors, long int64) figures.Point {
	return figures.Point{At: at(minute), Report: &registryv1.ReportRequest{Components: []*registryv1.ComponentReport{{
		Name: "iam", Health: registryv1.Health_HEALTH_SERVING, StartedAt: timestamppb.New(at(started)), Restarts: restarts,
		Figures: &setv1.Figures{Requests: requests, Errors: errors, LatencyCounts: []int64{requests - long, 0, 0, 0, 0, long}},
	}}}}
}

// silent is a report in which the component could not be asked.
func silent(minute int) figures.Point {
	return figures.Point{At: at(minute), Report: &registryv1.ReportRequest{Components: []*registryv1.ComponentReport{{
		Name: "iam", Health: registryv1.Health_HEALTH_UNREACHABLE, StartedAt: timestamppb.New(at(-60)),
	}}}}
}

func TestWindowCountsWhatGrewInItAndNothingElse(t *testing.T) {
	for _, c := range []struct {
		name              string
		points            []figures.Point
		requests, errors  int64
		restarts, unwell  int32
		p99AtLeast, below float64
	}{
		{"no reports", nil, 0, 0, 0, 0, 0, 0.001},
		{"one report of an old process, whose counts are of any time", []figures.Point{said(1, -60, 0, 1000, 9, 0)}, 0, 0, 0, 0, 0, 0.001},
		{"one report of a process that started in the window", []figures.Point{said(2, 1, 0, 10, 1, 0)}, 10, 1, 0, 0, 0, 0.0011},
		{"a process that goes on", []figures.Point{said(-1, -60, 0, 1000, 9, 0), said(1, -60, 0, 1100, 10, 0), said(2, -60, 0, 1300, 12, 0)}, 300, 3, 0, 0, 0, 0.0011},
		{"one that started anew and counts from zero", []figures.Point{said(-1, -60, 0, 1000, 9, 0), said(1, -60, 0, 1100, 9, 0), said(3, 2, 1, 40, 2, 0)}, 140, 2, 1, 0, 0, 0.0011},
		{"one that started anew and counts further than before", []figures.Point{said(-1, -60, 0, 10, 0, 0), said(3, 2, 3, 40, 2, 0)}, 40, 2, 3, 0, 0, 0.0011},
		{"one that was silent between", []figures.Point{said(-1, -60, 0, 1000, 9, 0), silent(1), said(2, -60, 0, 1200, 9, 0)}, 200, 0, 0, 1, 0, 0.0011},
		{"one that became slow", []figures.Point{said(-1, -60, 0, 1000, 0, 0), said(1, -60, 0, 1100, 0, 10)}, 100, 0, 0, 0, 0.025, 0.051},
		{"one that was slow before the window alone", []figures.Point{said(-1, -60, 0, 1000, 0, 900), said(1, -60, 0, 1100, 0, 900)}, 100, 0, 0, 0, 0, 0.0011},
		{"the same report twice", []figures.Point{said(-1, -60, 0, 1000, 9, 0), said(1, -60, 0, 1100, 10, 0), said(1, -60, 0, 1100, 10, 0)}, 100, 1, 0, 0, 0, 0.0011},
	} {
		f := figures.Of(noon, c.points)
		if f.GetRequests() != c.requests || f.GetErrors() != c.errors || f.GetRestarts() != c.restarts || int(f.GetReports()) != len(c.points) {
			t.Errorf("%s: %v, want %d requests, %d errors, %d restarts", c.name, f, c.requests, c.errors, c.restarts)
		}
		if f.GetP99Seconds() < c.p99AtLeast || f.GetP99Seconds() > c.below {
			t.Errorf("%s: p99 is %v, want %v to %v", c.name, f.GetP99Seconds(), c.p99AtLeast, c.below)
		}
		var unwell int32
		for _, part := range f.GetComponents() {
			unwell += part.GetUnhealthyReports()
		}
		if unwell != c.unwell {
			t.Errorf("%s: %d reports of a component that could not serve, want %d", c.name, unwell, c.unwell)
		}
	}
}

func TestLevelsAreTheHighestWithinTheWindow(t *testing.T) {
	level := func(minute int, backlog int64) figures.Point {
		p := said(minute, -60, 0, 0, 0, 0)
		p.Report.AuditBacklog, p.Report.AuditBacklogAgeSeconds, p.Report.DatabaseBytes = backlog, backlog, backlog
		p.Report.Components[0].Figures.QueueDepth = &backlog
		return p
	}
	// At the end its database could not be asked.
	f := figures.Of(noon, []figures.Point{level(-1, 900), level(1, 5), level(2, 70), level(3, 6), said(4, -60, 0, 0, 0, 0)})
	if f.GetMostAuditBacklog() != 70 || f.GetMostAuditBacklogAgeSeconds() != 70 || f.GetMostQueueDepth() != 70 || f.GetAuditBacklog() != 6 || f.GetDatabaseBytes() != 6 {
		t.Errorf("%v", f)
	}
	if !f.GetFrom().AsTime().Equal(at(-1)) || !f.GetUntil().AsTime().Equal(at(4)) {
		t.Errorf("made of reports from %v until %v", f.GetFrom().AsTime(), f.GetUntil().AsTime())
	}
}
