package registry_test

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"
	setv1 "a3os.app/proto/gen/go/a3os/set/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/workload"
)

// counted is a report of one component that started at a time and counted since.
func counted(started time.Time, requests, errors int64) *registryv1.ReportRequest {
	return &registryv1.ReportRequest{AuditBacklog: requests, Components: []*registryv1.ComponentReport{{
		Name: "iam", Health: registryv1.Health_HEALTH_SERVING, Release: "1.0.0", StartedAt: timestamppb.New(started),
		Figures: &setv1.Figures{Requests: requests, Errors: errors, LatencyCounts: []int64{requests}},
	}}}
}

func TestFiguresAreOfTheWindowAndTheTenantAskedFor(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	operator := h.as(addr, "operator")
	acme, globex := h.create(operator, "acme"), h.create(operator, "globex")
	s, _ := source(t, acme.issuer, workload.Identity{Plane: "dev", Tenant: acme.id, Service: "audit"})
	set, r := registryv1.NewReportServiceClient(h.dial(addr, s)), registryv1.NewFigureServiceClient(operator)
	began := time.Now()
	long := began.Add(-time.Hour)
	report := func(req *registryv1.ReportRequest) {
		t.Helper()
		if _, err := set.Report(t.Context(), req); err != nil {
			t.Fatal(err)
		}
	}
	report(counted(long, 1000, 10))
	// What was said a while ago, and too long ago: the first of a minute stays, so these stand for minutes that have passed.
	h.age(acme, began.Add(-10*time.Minute))
	report(counted(long, 1500, 10))
	h.age(acme, began.Add(-5*time.Minute))
	report(counted(began, 40, 4)) // started anew
	report(counted(began, 60, 4))

	get := func(from, until time.Time) []*registryv1.TenantFigures {
		t.Helper()
		req := &registryv1.BatchGetFiguresRequest{TenantIds: []string{globex.id.String(), acme.id.String()}, From: timestamppb.New(from)}
		if !until.IsZero() {
			req.Until = timestamppb.New(until)
		}
		res, err := r.BatchGetFigures(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		return res.GetFigures()
	}
	all := get(began.Add(-30*time.Minute), time.Time{})
	if len(all) != 2 || all[0].GetTenantId() != globex.id.String() || all[0].GetReports() != 0 || all[0].GetUntil() != nil {
		t.Errorf("of a tenant that never reported: %v", all)
	}
	if f := all[1]; f.GetRequests() != 560 || f.GetErrors() != 4 || f.GetRestarts() != 1 || f.GetMostAuditBacklog() != 1500 || f.GetAuditBacklog() != 60 {
		t.Errorf("from the first report on: %v", f)
	}
	// The report before the window is where its counts begin.
	if f := get(began.Add(-7*time.Minute), time.Time{})[1]; f.GetRequests() != 560 || f.GetMostAuditBacklog() != 1500 {
		t.Errorf("from between the first and the second: %v", f)
	}
	if f := get(began.Add(-4*time.Minute), time.Time{})[1]; f.GetRequests() != 60 || f.GetRestarts() != 1 || f.GetMostAuditBacklog() != 60 {
		t.Errorf("from after the second: %v", f)
	}
	if f := get(began.Add(-30*time.Minute), began.Add(-time.Minute))[1]; f.GetRequests() != 500 || f.GetErrors() != 0 || f.GetRestarts() != 0 {
		t.Errorf("until before the third: %v", f)
	}
	got, err := registryv1.NewTenantServiceClient(operator).GetTenant(t.Context(), &registryv1.GetTenantRequest{Tenant: "acme"})
	if err != nil || got.GetStatus().GetReports()[0].GetRestarts() != 1 || got.GetStatus().GetReports()[0].GetRelease() != "1.0.0" || got.GetStatus().GetAuditBacklog() != 60 {
		t.Errorf("%v, %v", got, err)
	}
	_, err = r.BatchGetFigures(t.Context(), &registryv1.BatchGetFiguresRequest{TenantIds: []string{acme.id.String()}, From: timestamppb.New(began), Until: timestamppb.New(began)})
	wantKind(t, err, fault.InvalidArgument, "an empty window")
	_, err = registryv1.NewFigureServiceClient(h.dial(addr, s)).BatchGetFigures(t.Context(), &registryv1.BatchGetFiguresRequest{TenantIds: []string{acme.id.String()}, From: timestamppb.New(began)})
	wantKind(t, err, fault.PermissionDenied, "figures asked for by a set")
}

// A figure that nobody could ask for is not told: as 0 it would end an alarm at the moment when the worker dies that should do the jobs.
func TestFiguresThatNobodyKnowsAreNotTold(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	acme := h.create(h.as(addr, "operator"), "acme")
	s, _ := source(t, acme.issuer, workload.Identity{Plane: "dev", Tenant: acme.id, Service: "audit"})
	set := registryv1.NewReportServiceClient(h.dial(addr, s))
	queue, log := []string{"a3_tenant_queue_depth", "a3_tenant_queue_age_seconds"}, []string{"a3_tenant_audit_backlog", "a3_tenant_audit_backlog_age_seconds", "a3_tenant_database_bytes", "a3_tenant_database_connections"}
	says := func(when string, req *registryv1.ReportRequest, want map[string]float64) {
		t.Helper()
		if _, err := set.Report(t.Context(), req); err != nil {
			t.Fatal(err)
		}
		for _, name := range slices.Concat(queue, log) {
			got, told := h.told(name)[acme.id.String()]
			if is, known := want[name]; told != known || got != is {
				t.Errorf("%s %s is %v (told: %v), want %v (known: %v)", when, name, got, told, is, known)
			}
		}
	}
	// Which component has the queue is nothing that the registry knows.
	worker := func(f *setv1.Figures) []*registryv1.ComponentReport {
		return []*registryv1.ComponentReport{{Name: "iam", Figures: &setv1.Figures{Requests: 5}}, {Name: "audit", Figures: f}}
	}
	says("where all is known", &registryv1.ReportRequest{DatabaseBytes: 9, DatabaseConnections: 2, AuditBacklog: 3, AuditBacklogAgeSeconds: 30,
		Components: worker(&setv1.Figures{QueueDepth: new(int64(4)), QueueAgeSeconds: new(int64(400))})}, map[string]float64{queue[0]: 4, queue[1]: 400, log[0]: 3, log[1]: 30, log[2]: 9, log[3]: 2})
	says("of an empty queue and log", &registryv1.ReportRequest{DatabaseBytes: 9, Components: worker(&setv1.Figures{QueueDepth: new(int64), QueueAgeSeconds: new(int64)})},
		map[string]float64{queue[0]: 0, queue[1]: 0, log[0]: 0, log[1]: 0, log[2]: 9, log[3]: 0})
	says("of a worker that can't be reached", &registryv1.ReportRequest{DatabaseBytes: 9, Components: worker(nil)}, map[string]float64{log[0]: 0, log[1]: 0, log[2]: 9, log[3]: 0})
	says("of a database that can't be asked", &registryv1.ReportRequest{Components: worker(&setv1.Figures{})}, nil)
}

// What the registry tells at /metrics it tells an operator too, whole, however much it is.
func TestOperatorIsToldTheFigures(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	operator := h.as(addr, "operator")
	acme := h.create(operator, "acme")
	const many = 300
	pool := h.db.Pool(t)
	for i := range many {
		if _, err := pool.Exec(t.Context(), `insert into registry.tenants select (jsonb_populate_record(t, jsonb_build_object('id', $2::text, 'slug', $3::text))).* from registry.tenants t where id = $1`,
			acme.id, id.NewTenant(), fmt.Sprint("many", i)); err != nil {
			t.Fatal(err)
		}
	}
	text, parts, err := metrics(t, operator)
	if err != nil || !strings.Contains(text, "a3_fleet_up 1\n") || !strings.HasSuffix(text, "\n") {
		t.Fatalf("an operator is told %d octets, %v", len(text), err)
	}
	if tenants := strings.Count(text, "\na3_tenant_info{"); tenants != many+1 || parts < 2 {
		t.Errorf("it tells of %d tenants in %d parts, want %d in several", tenants, parts, many+1)
	}
	s, _ := source(t, acme.issuer, workload.Identity{Plane: "dev", Tenant: acme.id, Service: "audit"})
	_, _, err = metrics(t, h.dial(addr, s))
	wantKind(t, err, fault.PermissionDenied, "figures asked for by a set")
}

// metrics are what the registry tells an operator of all that it tells.
func metrics(t *testing.T, conn grpc.ClientConnInterface) (text string, parts int, err error) {
	t.Helper()
	stream, err := registryv1.NewFigureServiceClient(conn).GetMetrics(t.Context(), &registryv1.GetMetricsRequest{})
	for err == nil {
		var part *registryv1.GetMetricsResponse
		if part, err = stream.Recv(); err == nil {
			text, parts = text+string(part.GetText()), parts+1
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return text, parts, err
}

// counter is what the registry tells of itself by a name without a tenant; -1 where it tells nothing.
func counter(t *testing.T, conn grpc.ClientConnInterface, name string) float64 {
	t.Helper()
	text, _, err := metrics(t, conn)
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^` + name + `(?:\{[^}]*\})? ([0-9.e+]+)$`).FindStringSubmatch(text)
	if found == nil {
		return -1
	}
	n, err := strconv.ParseFloat(found[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// What alarms are made of that rest on what sets say: each is seen to rise, where it should, of whom it should.
func TestFiguresOfAlarmsRiseWithWhatSetsSay(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	operator := h.as(addr, "operator")
	acme, globex := h.create(operator, "acme"), h.create(operator, "globex")
	name := acme.set.GetComponents()[0].GetName()
	of := func(x tenant) string { return x.id.String() }
	component := func(x tenant) string { return name + " " + x.id.String() }
	now := time.Now()
	ends, authority := now.Add(time.Hour), now.Add(48*time.Hour)
	say := func(x tenant, req *registryv1.ReportRequest) {
		t.Helper()
		s, _ := source(t, x.issuer, workload.Identity{Plane: "dev", Tenant: x.id, Service: "audit"})
		if _, err := registryv1.NewReportServiceClient(h.dial(addr, s)).Report(t.Context(), req); err != nil {
			t.Fatal(err)
		}
	}
	report := func(started time.Time, release string, failed int64) *registryv1.ReportRequest {
		req := counted(started, 100, failed)
		c := req.GetComponents()[0]
		c.Name, c.Release, c.Figures.FailedJobs = name, release, 3*failed
		c.Figures.CertificateExpiresAt, c.Figures.AuthorityExpiresAt = timestamppb.New(ends), timestamppb.New(authority)
		return req
	}
	want := func(when string, figures map[string]map[string]float64) {
		t.Helper()
		for figure, by := range figures {
			told := h.told(figure)
			for key, is := range by {
				if got, there := told[key]; !there || got != is {
					t.Errorf("%s %s of %s is %v (told: %t), want %v", when, figure, key, got, there, is)
				}
			}
		}
	}
	right := acme.set.GetRelease()
	say(acme, report(now.Add(-time.Hour), right, 0))
	say(globex, report(now.Add(-time.Hour), right, 0))
	want("at first", map[string]map[string]float64{
		"a3_tenant_errors_total": {component(acme): 0}, "a3_tenant_failed_jobs_total": {component(acme): 0}, "a3_tenant_restarts_total": {component(acme): 0},
		"a3_tenant_components_wrong_release": {of(acme): 0}, "a3_tenant_components_serving": {of(acme): 1}, "a3_tenant_active": {of(acme): 1},
		"a3_tenant_certificate_expires_timestamp_seconds": {component(acme): float64(ends.Unix())}, "a3_tenant_authority_expires_timestamp_seconds": {component(acme): float64(authority.Unix())},
	})
	bad := report(now, right, 7)
	bad.Components[0].Health = registryv1.Health_HEALTH_UNREACHABLE
	say(acme, bad)
	want("then", map[string]map[string]float64{
		"a3_tenant_requests_total": {component(acme): 100}, "a3_tenant_errors_total": {component(acme): 7, component(globex): 0}, "a3_tenant_failed_jobs_total": {component(acme): 21, component(globex): 0},
		"a3_tenant_restarts_total": {component(acme): 1, component(globex): 0}, "a3_tenant_components_serving": {of(acme): 0, of(globex): 1},
	})
	say(acme, report(now, "9.9.9", 7))
	want("with another program", map[string]map[string]float64{"a3_tenant_components_wrong_release": {of(acme): 1, of(globex): 0}})
	if n := h.told("a3_tenant_components")[of(acme)]; n != float64(len(acme.set.GetComponents())) {
		t.Errorf("%v components of acme are told, there are %d", n, len(acme.set.GetComponents()))
	}
	if _, err := h.db.Pool(t).Exec(t.Context(), "update registry.set_reports set reported_at = reported_at - interval '10 minutes' where tenant_id = $1", acme.id); err != nil {
		t.Fatal(err)
	}
	if ages := h.told("a3_tenant_report_age_seconds"); ages[of(acme)] < 600 || ages[of(globex)] > 300 {
		t.Errorf("the reports are told to be as old as %v, acme's is ten minutes and globex' none", ages)
	}
	if _, err := registryv1.NewTenantWriteServiceClient(operator).SetTenantState(t.Context(), &registryv1.SetTenantStateRequest{TenantId: of(acme), State: registryv1.TenantState_TENANT_STATE_SUSPENDED}); err != nil {
		t.Fatal(err)
	}
	want("suspended", map[string]map[string]float64{"a3_tenant_active": {of(acme): 0, of(globex): 1}})
}

// Whoever can't read the database says so, and nothing else: what it read before would look like what is.
func TestFiguresSayThatTheyCouldNotBeRead(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	acme := h.create(h.as(addr, "operator"), "acme")
	if up := h.told("a3_fleet_up")[""]; up != 1 {
		t.Errorf("that the figures could be read is told as %v", up)
	}
	db := h.reader()
	db.Close()
	if up := h.toldOf(db, "a3_fleet_up"); len(up) != 1 || up[""] != 0 {
		t.Errorf("that they could not is told as %v", up)
	}
	if active := h.toldOf(db, "a3_tenant_active"); len(active) != 0 {
		t.Errorf("of %s is told %v", acme.id, active)
	}
}

// What of an alarm rests on what operators do.
func TestFiguresOfAlarmsFollowWhatOperatorsDo(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	ann := h.person(addr, "operator-ann")
	acme := h.create(ann.conn, "acme")
	version := h.told("a3_routes_version")[""]
	h.create(ann.conn, "globex")
	if now := h.told("a3_routes_version")[""]; now <= version {
		t.Errorf("with a new tenant the version of the routes is %v, it was %v", now, version)
	}
	plan := ann.put(h.planned(registryv1.OperationKind_OPERATION_KIND_SUSPEND, ann.change("acme", registryv1.TenantState_TENANT_STATE_SUSPENDED, older, "stop")))
	of := func() (worked, left float64) {
		told := h.told("a3_operations_unfinished")
		return told["false suspend"], told["true suspend"]
	}
	operation := ann.begin(plan.GetHash(), acme.id.String())
	if worked, left := of(); worked != 0 || left != 1 {
		t.Errorf("of an operation that nobody took: %v are worked on, %v are left", worked, left)
	}
	lease := ann.take(operation.GetId())
	if worked, left := of(); worked != 1 || left != 0 {
		t.Errorf("of an operation that somebody works on: %v are worked on, %v are left", worked, left)
	}
	ann.step(lease, "stop")
	if _, err := ann.finish(lease); err != nil {
		t.Fatal(err)
	}
	if worked, left := of(); worked != 0 || left != 0 {
		t.Errorf("of one that is finished: %v are worked on, %v are left", worked, left)
	}
}

// A set says itself what its components are called: those that the registry doesn't know are no series. Of its licence and its clock is told what it
// said, and of the routes which version there is.
func TestSetAddsNoSeriesByNamesOfItsOwn(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	operator := h.as(addr, "operator")
	acme := h.create(operator, "acme")
	known := acme.set.GetComponents()[0].GetName()
	req := counted(time.Now().Add(-time.Hour), 7, 0)
	req.Components[0].Name = known
	for i := range 9 {
		more := proto.CloneOf(req.GetComponents()[0])
		more.Name = fmt.Sprint("mine", i)
		req.Components = append(req.Components, more)
	}
	req.Licence = &registryv1.LicenceReport{Serial: 1, State: registryv1.LicenceState_LICENCE_STATE_GRACE, ClockBehind: true, Refused: "it was older"}
	by, _ := source(t, acme.issuer, workload.Identity{Plane: "dev", Tenant: acme.id, Service: "audit"})
	if _, err := registryv1.NewReportServiceClient(h.dial(addr, by)).Report(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	text, _, err := metrics(t, operator)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		fmt.Sprintf("a3_tenant_requests_total{component=%q,tenant=%q} 7", known, acme.id), fmt.Sprintf("a3_tenant_components_serving{tenant=%q} 1", acme.id),
		fmt.Sprintf("a3_tenant_licence{state=\"grace\",tenant=%q} 1", acme.id), fmt.Sprintf("a3_tenant_licence_refused{tenant=%q} 1", acme.id),
		fmt.Sprintf("a3_tenant_clock_behind{tenant=%q} 1", acme.id),
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("it isn't told that %s", line)
		}
	}
	if strings.Contains(text, "mine") || !regexp.MustCompile(`(?m)^a3_routes_version 1\.[0-9e+]+$`).MatchString(text) {
		t.Errorf("what is told of a set that names components itself: %s", text)
	}
}

// age makes the newest point of a tenant one of another time.
func (h *harness) age(x tenant, to time.Time) {
	h.t.Helper()
	tag, err := h.db.Pool(h.t).Exec(h.t.Context(), `update registry.report_points set minute = date_trunc('minute', $2::timestamptz), reported_at = $2
		where tenant_id = $1 and minute = (select max(minute) from registry.report_points where tenant_id = $1)`, x.id, to)
	if err != nil || tag.RowsAffected() != 1 {
		h.t.Fatalf("%v: %v", tag, err)
	}
}

func TestPointsOfADayStayAndNoMore(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	acme := h.create(h.as(addr, "operator"), "acme")
	s, _ := source(t, acme.issuer, workload.Identity{Plane: "dev", Tenant: acme.id, Service: "audit"})
	set := registryv1.NewReportServiceClient(h.dial(addr, s))
	// Two days, a report a minute, as they would be if nothing had made room.
	if _, err := h.db.Pool(t).Exec(t.Context(), `insert into registry.report_points (tenant_id, minute, reported_at, body)
		select $1, m, m, '' from generate_series(date_trunc('minute', now()) - interval '48 hours', date_trunc('minute', now()) - interval '1 minute', interval '1 minute') m`, acme.id); err != nil {
		t.Fatal(err)
	}
	if _, err := set.Report(t.Context(), counted(time.Now(), 1, 0)); err != nil {
		t.Fatal(err)
	}
	var all, old, recent, thinned int
	if err := h.db.Pool(t).QueryRow(t.Context(), `select count(*), count(*) filter (where minute < now() - interval '24 hours 11 minutes'),
		count(*) filter (where minute >= now() - interval '2 hours'),
		count(*) filter (where minute < now() - interval '2 hours 1 minute' and minute >= now() - interval '2 hours 14 minutes') from registry.report_points`).
		Scan(&all, &old, &recent, &thinned); err != nil {
		t.Fatal(err)
	}
	if old != 0 || recent < 119 || thinned > 2 {
		t.Errorf("of %d points %d are older than a day, %d of the last two hours are left, and %d of the quarter of an hour before", all, old, recent, thinned)
	}
}
