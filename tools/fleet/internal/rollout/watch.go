package rollout

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/rollout"
)

const (
	// away is how long between two looks says that not the set was silent, but the registry away, or whoever looks here: nobody was heard then.
	away = 30 * time.Second
	// compared is at least how long before its change a tenant's figures are taken from.
	compared = 10 * time.Minute
	// oldest is how long before now the registry still knows what a set did.
	oldest = 24*time.Hour - time.Minute
	// The registry keeps a report of each minute, and of some hours ago one of ten.
	pointEvery, thinnedAfter, thinnedTo = time.Minute, 100 * time.Minute, 10 * time.Minute
	// probesATime bounds how many probes one look makes, so that a quiet tenant is asked steadily and not flooded.
	probesATime = 5
	// amissMost reports in a row of a component that does not serve, or a row that is amissFor old, are no moment's any more. Sets report every five
	// seconds: one report alone is of a database that was started anew, or of a machine on which nobody answered within the two seconds of a probe.
	amissMost, amissFor = 3, 15 * time.Second
)

// watched is what was seen of a tenant while it is watched. Probes are counted here: who takes the rollout up counts anew.
type watched struct {
	since          time.Time
	probes, misses int64
	// before are the tenant's figures before the rollout changed it, and earlier how often its components started anew since it is watched and before
	// anybody here looked.
	before  *registryv1.TenantFigures
	earlier map[string]int32
	// started is by component how often it had started anew when it was first looked at.
	started map[string]int32
	// anew are the components that started anew since the change.
	anew map[string]bool
	// counted is by component what of its counters is not of this attempt: a set that ran the release already goes on counting.
	counted map[string]countedBefore
	// looked is when it was looked at last, and hearing since when without a pause.
	looked, hearing time.Time
	// amiss is by component what it reported in a row without serving; whoever serves has none.
	amiss    map[string]amiss
	lastMiss error
	// differs is what was said of somebody else's change to it.
	differs string
}

// amiss is a row of reports of a component that does not serve: when the first and the newest were made, and how many they are.
type amiss struct {
	first, newest time.Time
	reports       int
}

// counted is what a set's components have counted since the change. The figures of a window also hold what the processes before it counted
// last.
type counted struct {
	requests, errors, failedJobs int64
	restarts                     int32
}

// countedBefore is what a process had counted when it was first looked at, where it started before the change. A process is told from the one after
// it by when it says that it started, which is by its own clock and is held against no other.
type countedBefore struct {
	started time.Time
	counted
}

func (w *watched) count(status *registryv1.TenantStatus) (c counted) {
	for _, r := range status.GetReports() {
		if f := r.GetFigures(); f != nil {
			b, known := w.counted[r.GetName()]
			if started := r.GetStartedAt().AsTime(); !known || !started.Equal(b.started) || f.GetRequests() < b.requests {
				b = countedBefore{started: started}
				if !known && !w.anew[r.GetName()] {
					b.requests, b.errors, b.failedJobs = f.GetRequests(), f.GetErrors(), f.GetFailedJobs()
				}
				w.counted[r.GetName()] = b
			}
			c.requests += f.GetRequests() - b.requests
			c.errors += f.GetErrors() - b.errors
			c.failedJobs += f.GetFailedJobs() - b.failedJobs
		}
		if _, known := w.started[r.GetName()]; !known {
			w.started[r.GetName()] = r.GetRestarts()
		}
		c.restarts += w.earlier[r.GetName()] + r.GetRestarts() - w.started[r.GetName()]
	}
	return c
}

// unknown says that a component counts of which nothing was counted here yet.
func (w *watched) unknown(status *registryv1.TenantStatus) bool {
	return slices.ContainsFunc(status.GetReports(), func(r *registryv1.ComponentReport) bool {
		_, known := w.counted[r.GetName()]
		return r.GetFigures() != nil && !known
	})
}

// watch looks at a tenant that was changed, and says whether it moved on.
func (c *carrying) watch(ctx context.Context, r *registryv1.Rollout, t *registryv1.RolloutTenant) (moved bool, err error) {
	status, err := c.tenant(ctx, t)
	if err != nil {
		return false, err
	}
	// What the set said, and when it was changed, is by the registry's clock.
	now := time.Now()
	if at := status.GetAsOf(); at.IsValid() { // one of an earlier release doesn't say
		now = at.AsTime()
	}
	w := c.watched[t.GetTenantId()]
	if w == nil || !w.since.Equal(t.GetSince().AsTime()) {
		w = &watched{since: t.GetSince().AsTime(), counted: map[string]countedBefore{}, started: map[string]int32{}, amiss: map[string]amiss{}}
		if w.before, err = c.before(ctx, r, t, now); err != nil {
			return false, err
		}
		if w.earlier, err = c.earlier(ctx, t, now); err != nil {
			return false, err
		}
		if r.GetPolicy().GetGates().GetP99Factor() > 0 && w.before.GetP99Seconds() == 0 {
			c.Report.Note(t.GetSlug() + " was asked nothing that is known of before the change: its p99 is held against nothing")
		}
		c.watched[t.GetTenantId()] = w
	}
	after, err := c.figures(ctx, t, now, w.since, time.Time{})
	if err != nil {
		return false, err
	}
	why := rollout.Differs(r, t, status.GetTenant().GetState(), status.GetServiceSet().GetRelease())
	if why != w.differs {
		c.Report.Note(cmp.Or(why, t.GetSlug()+" is as the rollout made it again"))
		w.differs = why
		return true, c.record(ctx, t, baking, what{samples: t.GetSamples(), probes: w.probes, detail: why})
	}
	if why != "" {
		// Its set says what somebody else had it do, which neither passes the release nor breaks it.
		return false, nil
	}
	if w.unknown(status) {
		if w.anew, err = c.anew(ctx, t, now); err != nil {
			return false, err
		}
	}
	w.look(now)
	w.hear(status)
	own := w.count(status)
	c.probe(ctx, r, t, w, own.requests)
	said := what{samples: max(own.requests, w.probes), probes: w.probes}
	if said.detail = breach(r, t, w, own, after, status); said.detail != "" {
		c.Report.Note(fmt.Sprintf("%s left its gates: %s", t.GetSlug(), said.detail))
		return true, c.record(ctx, t, failed, said)
	}
	ok, why := rollout.Passes(r.GetPolicy(), t, said.samples, now)
	for name := range w.amiss {
		ok, why = false, name+" does not serve by its newest report"
	}
	if ok {
		if err = c.record(ctx, t, passed, said); !isNotNow(err) {
			if gated, tells := p99(r, w.before, after); err == nil && gated && !tells {
				c.Report.Note(fmt.Sprintf("%s answered %d requests while it was watched, of which a p99 says nothing: it was held against nothing", t.GetSlug(), after.GetRequests()))
			}
			return err == nil, err
		}
		why = err.Error()
	}
	c.wait(fmt.Sprintf("%s: %s", t.GetSlug(), why))
	return false, nil
}

// look notes that the set is looked at. After a pause nobody is silent before it had time to be heard again.
func (w *watched) look(now time.Time) {
	if now.Sub(w.looked) > away {
		w.hearing = now
		clear(w.amiss)
	}
	w.looked = now
}

// hear takes down who does not serve by its newest report since the change.
func (w *watched) hear(status *registryv1.TenantStatus) {
	for _, c := range status.GetReports() {
		at := c.GetReportedAt().AsTime()
		if at.Before(w.since) || c.GetHealth() == registryv1.Health_HEALTH_SERVING {
			delete(w.amiss, c.GetName())
			continue
		}
		row := w.amiss[c.GetName()]
		if row.reports == 0 {
			row.first = at
		}
		if row.reports == 0 || !at.Equal(row.newest) {
			row.newest = at
			row.reports++
		}
		w.amiss[c.GetName()] = row
	}
}

// tooLong says that a component has not served for longer than a moment. Nobody is held to a time in which nobody could be heard.
func (w *watched) tooLong(row amiss) bool {
	return row.reports >= amissMost || row.reports > 0 && min(w.looked.Sub(row.first), w.looked.Sub(w.hearing)) >= amissFor
}

// before are a tenant's figures of before the rollout changed it for the first time: in a second attempt those of the first would excuse
// whatever is as bad. Of more than a day ago nothing is kept, and it is held against what was right before this attempt.
func (c *carrying) before(ctx context.Context, r *registryv1.Rollout, t *registryv1.RolloutTenant, now time.Time) (*registryv1.TenantFigures, error) {
	until, first := t.GetChangedAt().AsTime(), t.GetFirstChangedAt()
	if first != nil && now.Sub(first.AsTime()) < oldest-compared {
		until = first.AsTime()
	}
	return c.figures(ctx, t, now, until.Add(-max(compared, r.GetPolicy().GetBake().AsDuration())), until)
}

// anew are the components that started anew since the tenant was changed, as the registry saw it.
func (c *carrying) anew(ctx context.Context, t *registryv1.RolloutTenant, now time.Time) (map[string]bool, error) {
	f, err := c.figures(ctx, t, now, t.GetChangedAt().AsTime(), time.Time{})
	if err != nil {
		return nil, err
	}
	out := map[string]bool{}
	for _, x := range f.GetComponents() {
		out[x.GetName()] = x.GetRestarts() > 0
	}
	return out, nil
}

// earlier is how often components started anew while somebody else watched, or nobody, as the registry saw it: from the first report on that it
// keeps of this attempt, for the one before that may be of before the change, which starts them anew itself.
func (c *carrying) earlier(ctx context.Context, t *registryv1.RolloutTenant, now time.Time) (map[string]int32, error) {
	since := t.GetSince().AsTime()
	from := since.Add(pointEvery)
	if now.Sub(since) > thinnedAfter {
		from = since.Add(thinnedTo)
	}
	if !from.Before(now) {
		return nil, nil //nolint:nilnil // nobody can have missed any
	}
	f, err := c.figures(ctx, t, now, from, time.Time{})
	if err != nil || f.GetFrom().AsTime().Before(since) {
		return nil, err
	}
	out := map[string]int32{}
	for _, x := range f.GetComponents() {
		out[x.GetName()] = x.GetRestarts()
	}
	return out, nil
}

// breach says which gate a tenant has left; empty for none. Its own figures before are what it is held against.
func breach(r *registryv1.Rollout, t *registryv1.RolloutTenant, w *watched, own counted, after *registryv1.TenantFigures, status *registryv1.TenantStatus) string {
	g, before := r.GetPolicy().GetGates(), w.before
	for _, c := range status.GetReports() {
		silent := min(w.looked.Sub(c.GetReportedAt().AsTime()), w.looked.Sub(w.hearing))
		switch {
		case silent > rollout.Silent:
			return fmt.Sprintf("%s has said nothing for %s", c.GetName(), silent.Round(time.Second))
		case c.GetReportedAt().AsTime().Before(t.GetSince().AsTime()):
		case w.tooLong(w.amiss[c.GetName()]):
			row := w.amiss[c.GetName()]
			return fmt.Sprintf("%s does not serve: %d reports in a row say so, the first of %s ago", c.GetName(), row.reports, w.looked.Sub(row.first).Round(time.Second))
		case c.GetRelease() == "" && c.GetHealth() != registryv1.Health_HEALTH_SERVING: // who could not be asked says of no release
		case c.GetRelease() != r.GetRelease():
			return fmt.Sprintf("%s says that it runs %s", c.GetName(), c.GetRelease())
		}
	}
	was, is := share(before.GetErrors(), before.GetRequests()), share(own.errors, own.requests)
	// more says that so many failed that the share can't be kept within the samples that it is judged by: of the first five one says nothing yet.
	more := func(failed, of int64, share float64) bool {
		return float64(failed) > share*float64(max(of, r.GetPolicy().GetSamples()))
	}
	gated, tells := p99(r, before, after)
	switch {
	case more(own.errors, max(own.requests, hundred), was+g.GetErrorRatioGrowth()):
		return fmt.Sprintf("%.2f %% of requests fail, %.2f %% did before", percent*is, percent*was)
	case more(w.misses, w.probes, g.GetErrorRatioGrowth()):
		return fmt.Sprintf("%d of %d probes failed: %v", w.misses, w.probes, w.lastMiss)
	case gated && tells && after.GetP99Seconds() > max(quick, g.GetP99Factor()*before.GetP99Seconds()):
		return fmt.Sprintf("p99 is %.0f ms, it was %.0f ms before", millis*after.GetP99Seconds(), millis*before.GetP99Seconds())
	case own.restarts > g.GetRestarts():
		return fmt.Sprintf("%d restarts since the change", own.restarts)
	case own.failedJobs > g.GetFailedJobs():
		return fmt.Sprintf("%d jobs failed for good", own.failedJobs)
	case g.GetAuditBacklog() > 0 && after.GetAuditBacklog() > g.GetAuditBacklog():
		return fmt.Sprintf("%d audit events wait to be sealed", after.GetAuditBacklog())
	}
	return ""
}

// p99 says whether a tenant's p99 is held against the one before, and whether it tells anything yet: of fewer requests than a hundred it is the slowest
// one, which the first after a start is by itself.
func p99(r *registryv1.Rollout, before, after *registryv1.TenantFigures) (gated, tells bool) {
	return r.GetPolicy().GetGates().GetP99Factor() > 0 && before.GetP99Seconds() > 0, after.GetRequests() >= max(r.GetPolicy().GetSamples(), hundred)
}

const (
	// hundred are the requests of which one is a hundredth: what users ask is judged by no fewer, however few samples were asked for.
	hundred = 100
	percent = 100
	millis  = 1000
	// quick is a p99, in seconds, that breaches nothing: of one or two milliseconds a factor says nothing.
	quick = 0.05
)

func share(part, whole int64) float64 {
	if whole == 0 {
		return 0
	}
	return float64(part) / float64(whole)
}

// probe asks a tenant that its users ask too little.
func (c *carrying) probe(ctx context.Context, r *registryv1.Rollout, t *registryv1.RolloutTenant, w *watched, requests int64) {
	if c.Probe == nil {
		return
	}
	for range probesATime {
		if max(requests, w.probes) >= r.GetPolicy().GetSamples() || ctx.Err() != nil {
			return
		}
		w.probes++
		if err := c.Probe(ctx, t.GetSlug()); err != nil && ctx.Err() == nil {
			w.misses++
			w.lastMiss = err
		}
	}
}

func (c *carrying) tenant(ctx context.Context, t *registryv1.RolloutTenant) (*registryv1.TenantStatus, error) {
	res, err := registryv1.NewTenantServiceClient(c.Conn).GetTenant(ctx, &registryv1.GetTenantRequest{Tenant: t.GetTenantId()}, grpc.WaitForReady(true))
	return res.GetStatus(), fault.FromRPC(err)
}

// figures are what a tenant's set did within a window; a zero until means now.
func (c *carrying) figures(ctx context.Context, t *registryv1.RolloutTenant, now, from, until time.Time) (*registryv1.TenantFigures, error) {
	if least := now.Add(-oldest); from.Before(least) {
		from = least
	}
	if !until.IsZero() && !from.Before(until) {
		return &registryv1.TenantFigures{}, nil // nothing is kept of then
	}
	req := &registryv1.BatchGetFiguresRequest{TenantIds: []string{t.GetTenantId()}, From: timestamppb.New(from)}
	if !until.IsZero() {
		req.Until = timestamppb.New(until)
	}
	res, err := registryv1.NewFigureServiceClient(c.Conn).BatchGetFigures(ctx, req, grpc.WaitForReady(true))
	if err != nil {
		return nil, fault.FromRPC(err)
	}
	for _, f := range res.GetFigures() {
		return f, nil
	}
	return &registryv1.TenantFigures{}, nil
}
