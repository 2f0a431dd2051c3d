package registry_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/licence"
	"a3os.app/libs/usage"
	"a3os.app/libs/workload"
)

// licenceOf is a whole licence of a tenant.
func (h *harness) licenceOf(x id.Tenant, serial int64) *registryv1.Licence {
	now := time.Now()
	return &registryv1.Licence{Id: id.NewLicence().String(), Plane: h.plane, TenantId: x.String(), Serial: serial, Plan: "team", Features: licence.Features(),
		Connectors: []string{"*"}, Seats: 5, ValidFrom: timestamppb.New(now), ValidUntil: timestamppb.New(now.AddDate(1, 0, 0)), IssuedAt: timestamppb.New(now),
		UsageReports: registryv1.UsageReports_USAGE_REPORTS_OFF}
}

// signed is a licence's file, signed with a key of a plane.
func signed(t *testing.T, plane, key string, l *registryv1.Licence) []byte {
	t.Helper()
	s, err := licence.NewSigner(plane, key)
	if err != nil {
		t.Fatal(err)
	}
	file, err := s.Sign(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func putLicence(t *testing.T, conn *grpc.ClientConn, file []byte) (*registryv1.IssuedLicence, error) {
	t.Helper()
	res, err := registryv1.NewLicenceWriteServiceClient(conn).PutLicence(t.Context(), &registryv1.PutLicenceRequest{File: file, Reason: "Order 4711 of the customer"})
	return res.GetLicence(), err
}

// Rows C46, C47 and C49 at the registry: what isn't a later licence, signed by this plane's key, of a tenant of this plane, is refused, and
// the set is handed the last good one.
func TestRegistryKeepsLaterGoodLicencesAlone(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	operator := h.as(addr, "operator")
	acme := h.create(operator, "acme")
	h.create(operator, "globex")
	forger, _, err := licence.NewKey(h.plane)
	if err != nil {
		t.Fatal(err)
	}
	prod, _, err := licence.NewKey("prod")
	if err != nil {
		t.Fatal(err)
	}
	good := signed(t, h.plane, h.licenceKey, h.licenceOf(acme.id, 5))
	flipped := slices.Clone(good)
	flipped[bytes.IndexByte(flipped, ':')+20] ^= 1
	inProd := h.licenceOf(acme.id, 9)
	inProd.Plane = "prod"
	nobody := signed(t, h.plane, h.licenceKey, h.licenceOf(id.NewTenant(), 9))
	if l, err := putLicence(t, operator, good); err != nil || l.GetLicence().GetSerial() != 5 || !strings.HasSuffix(l.GetActor(), "/operator") || l.GetReason() == "" {
		t.Fatalf("a good one: %v, %v", l, err)
	}
	// The same once more changes nothing.
	if _, err := putLicence(t, operator, good); err != nil {
		t.Errorf("the same again: %v", err)
	}
	cases := map[string]struct {
		file []byte
		kind fault.Kind
	}{
		"signed by another key": {signed(t, h.plane, forger, h.licenceOf(acme.id, 9)), fault.PermissionDenied},
		"of another plane":      {signed(t, "prod", prod, inProd), fault.PermissionDenied},
		"a flipped bit":         {flipped, fault.PermissionDenied},
		"cut short":             {good[:len(good)/2], fault.PermissionDenied},
		"no licence":            {[]byte("{}"), fault.PermissionDenied},
		"of nobody":             {nobody, fault.NotFound},
		"an older one":          {signed(t, h.plane, h.licenceKey, h.licenceOf(acme.id, 4)), fault.FailedPrecondition},
		"another of its serial": {signed(t, h.plane, h.licenceKey, h.licenceOf(acme.id, 5)), fault.FailedPrecondition},
	}
	for what, c := range cases {
		_, err := putLicence(t, operator, c.file)
		wantKind(t, err, c.kind, what)
	}
	s, _ := source(t, acme.issuer, workload.Identity{Plane: h.plane, Tenant: acme.id, Service: "audit"})
	set := h.dial(addr, s)
	for who, conn := range map[string]*grpc.ClientConn{"a gateway": h.as(addr, "gateway"), "a set": set} {
		_, err := putLicence(t, conn, signed(t, h.plane, h.licenceKey, h.licenceOf(acme.id, 6)))
		wantKind(t, err, fault.PermissionDenied, who+" that puts a licence")
		_, err = registryv1.NewLicenceServiceClient(conn).ListLicences(t.Context(), &registryv1.ListLicencesRequest{Tenant: "acme"})
		wantKind(t, err, fault.PermissionDenied, who+" that lists licences")
	}
	reports := registryv1.NewReportServiceClient(set)
	have := &registryv1.LicenceReport{State: registryv1.LicenceState_LICENCE_STATE_NONE}
	res, err := reports.Report(t.Context(), &registryv1.ReportRequest{Licence: have})
	if err != nil || !bytes.Equal(res.GetLicence(), good) {
		t.Errorf("a set without a licence is handed %d octets, %v", len(res.GetLicence()), err)
	}
	have = &registryv1.LicenceReport{Serial: 5, State: registryv1.LicenceState_LICENCE_STATE_VALID, ClockBehind: true, Refused: "it was older"}
	if res, err = reports.Report(t.Context(), &registryv1.ReportRequest{Licence: have}); err != nil || len(res.GetLicence()) != 0 {
		t.Errorf("a set that holds the newest is handed %d octets, %v", len(res.GetLicence()), err)
	}
	// A later one reaches it with its next report, though it just said the same.
	later := signed(t, h.plane, h.licenceKey, h.licenceOf(acme.id, 6))
	if _, err := putLicence(t, operator, later); err != nil {
		t.Fatal(err)
	}
	if res, err = reports.Report(t.Context(), &registryv1.ReportRequest{Licence: have}); err != nil || !bytes.Equal(res.GetLicence(), later) {
		t.Errorf("the later one: the set is handed %d octets, %v", len(res.GetLicence()), err)
	}
	list := func(tenant string) *registryv1.ListLicencesResponse {
		t.Helper()
		l, err := registryv1.NewLicenceServiceClient(operator).ListLicences(t.Context(), &registryv1.ListLicencesRequest{Tenant: tenant})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	got := list("acme")
	if n := len(got.GetLicences()); n != 2 || got.GetLicences()[0].GetLicence().GetSerial() != 6 || got.GetLicences()[0].GetRefused() != "" {
		t.Errorf("acme's licences are %v", got.GetLicences())
	}
	if r := got.GetReport(); !r.GetReportedAt().IsValid() || !r.GetClockBehind() || r.GetRefused() != "it was older" || r.GetSerial() != 5 {
		t.Errorf("of what the set said the registry knows %v", r)
	}
	if l := list("globex"); len(l.GetLicences()) != 0 || l.GetReport() != nil {
		t.Errorf("globex has %v", l)
	}

	t.Attr("row", "C46 2")
	t.Attr("row", "C47 3")
	t.Attr("row", "C49 1")
}

// Licences are paged, the newest first. One that was written past the registry is shown for what it is, and hinders nothing.
func TestLicencesAreListedWithThoseThatAreNotBelieved(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	operator := h.as(addr, "operator")
	acme := h.create(operator, "acme")
	const all = 5
	for serial := range int64(all) {
		if _, err := putLicence(t, operator, signed(t, h.plane, h.licenceKey, h.licenceOf(acme.id, serial+1))); err != nil {
			t.Fatal(err)
		}
	}
	forger, _, err := licence.NewKey(h.plane)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.db.Pool(t).Exec(t.Context(), "INSERT INTO registry.licences (tenant_id, serial, file, actor, reason) SELECT id, 9, $1, 'operator', 'nobody asked for this one' FROM registry.tenants",
		signed(t, h.plane, forger, h.licenceOf(acme.id, 9))); err != nil {
		t.Fatal(err)
	}
	lists, req := registryv1.NewLicenceServiceClient(operator), &registryv1.ListLicencesRequest{Tenant: acme.id.String(), PageSize: 2}
	var serials []int64
	for {
		res, err := lists.ListLicences(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range res.GetLicences() {
			serials = append(serials, l.GetLicence().GetSerial())
			forged := l.GetLicence().GetSerial() == 9
			if forged != strings.Contains(l.GetRefused(), licence.ErrSignature.Error()) || forged && !proto.Equal(l.GetLicence(), &registryv1.Licence{TenantId: acme.id.String(), Serial: 9}) {
				t.Errorf("licence %d is shown as %v", l.GetLicence().GetSerial(), l)
			}
		}
		if req.PageToken = res.GetNextPageToken(); req.GetPageToken() == "" {
			break
		}
	}
	if want := []int64{9, 5, 4, 3, 2, 1}; !slices.Equal(serials, want) {
		t.Errorf("listed are %v, want %v", serials, want)
	}
	if _, err := putLicence(t, operator, signed(t, h.plane, h.licenceKey, h.licenceOf(acme.id, 10))); err != nil {
		t.Errorf("a good one beyond the forged one: %v", err)
	}
	for what, req := range map[string]*registryv1.ListLicencesRequest{
		"a token of no page": {Tenant: "acme", PageToken: "x"}, "too many at once": {Tenant: "acme", PageSize: 501}, "no tenant": {},
	} {
		_, err := lists.ListLicences(t.Context(), req)
		wantKind(t, err, fault.InvalidArgument, what)
	}
	_, err = lists.ListLicences(t.Context(), &registryv1.ListLicencesRequest{Tenant: "nobody"})
	wantKind(t, err, fault.NotFound, "a tenant that isn't there")
}

// A set that was started anew may hand over a report of use that the registry has already: it is kept once, and said to be kept each time.
func TestReportOfUseIsTakenTwiceWithoutHarm(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	acme := h.create(h.as(addr, "operator"), "acme")
	s, _ := source(t, acme.issuer, workload.Identity{Plane: h.plane, Tenant: acme.id, Service: "audit"})
	set, log := registryv1.NewReportServiceClient(h.dial(addr, s)), newPairLog(t, acme)
	until := time.Now().Truncate(time.Second)
	note, err := usage.Sign(usage.Report{Plane: h.plane, Tenant: acme.id, Serial: 1, Since: until.Add(-time.Hour), Until: until, Counts: map[string]int64{"seats": 3}}, log.signer)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		res, err := set.Report(t.Context(), &registryv1.ReportRequest{Licence: &registryv1.LicenceReport{State: registryv1.LicenceState_LICENCE_STATE_NONE},
			Usage: &registryv1.UsageReport{Note: note, VerifierKey: log.signer.Verifier().String()}})
		if err != nil || !res.GetUsageKept() {
			t.Errorf("it is not said to be kept: %v %v", res, err)
		}
	}
	var kept string
	if err := h.db.Pool(t).QueryRow(t.Context(), "SELECT string_agg(note, '|') FROM registry.usage_reports").Scan(&kept); err != nil || kept != note {
		t.Errorf("the registry keeps %q: %v", kept, err)
	}
}

// Who holds a set's reporter and the key of its log can sign as many reports of use as they like: one is kept in a while, and the others wait.
func TestReportsOfUseThatComeWithoutEndFillNoDisk(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	operator := h.as(addr, "operator")
	acme, globex := h.create(operator, "acme"), h.create(operator, "globex")
	use := func(to tenant, log pairLog, until time.Time) (*registryv1.ReportResponse, error) {
		s, _ := source(t, to.issuer, workload.Identity{Plane: h.plane, Tenant: to.id, Service: "audit"})
		note, err := usage.Sign(usage.Report{Plane: h.plane, Tenant: to.id, Serial: 1, Since: until.Add(-time.Hour), Until: until, Counts: map[string]int64{"seats": 3}}, log.signer)
		if err != nil {
			t.Fatal(err)
		}
		return registryv1.NewReportServiceClient(h.dial(addr, s)).Report(t.Context(), &registryv1.ReportRequest{Licence: &registryv1.LicenceReport{State: registryv1.LicenceState_LICENCE_STATE_NONE},
			Usage: &registryv1.UsageReport{Note: note, VerifierKey: log.signer.Verifier().String()}})
	}
	log, now := newPairLog(t, acme), time.Now().Truncate(time.Second)
	for i := range 50 {
		res, err := use(acme, log, now.Add(time.Duration(i)*time.Second))
		if err != nil {
			wantKind(t, err, fault.ResourceExhausted, "a report too many")
		} else if res.GetUsageKept() != (i == 0) {
			t.Errorf("report %d: kept is %t", i, res.GetUsageKept())
		}
	}
	if res, err := use(globex, newPairLog(t, globex), now); err != nil || !res.GetUsageKept() {
		t.Errorf("another tenant's: %v, %v", res, err)
	}
	db := h.db.Pool(t)
	kept := func() (n int) {
		if err := db.QueryRow(t.Context(), "SELECT count(*) FROM registry.usage_reports WHERE tenant_id = $1", acme.id).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := kept(); n != 1 {
		t.Errorf("%d are kept", n)
	}
	if _, err := db.Exec(t.Context(), "UPDATE registry.usage_reports SET heard_at = heard_at - interval '1 hour'"); err != nil {
		t.Fatal(err)
	}
	within := time.Now().Add(10 * time.Second)
	for kept() != 2 && time.Now().Before(within) {
		_, _ = use(acme, log, now.Add(time.Hour))
	}
	if n := kept(); n != 2 {
		t.Errorf("an hour later %d are kept", n)
	}
}

// The newest report of use is the one that came last: a set whose clock ran ahead once said so of a time that is still to come.
func TestNewestReportOfUseIsTheOneThatCameLast(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	operator := h.as(addr, "operator")
	acme := h.create(operator, "acme")
	s, _ := source(t, acme.issuer, workload.Identity{Plane: h.plane, Tenant: acme.id, Service: "audit"})
	set, log := registryv1.NewReportServiceClient(h.dial(addr, s)), newPairLog(t, acme)
	now := time.Now().Truncate(time.Second)
	var last string
	for _, until := range []time.Time{now.AddDate(1, 0, 0), now} {
		if _, err := h.db.Pool(t).Exec(t.Context(), "UPDATE registry.usage_reports SET heard_at = heard_at - interval '1 hour'"); err != nil {
			t.Fatal(err)
		}
		var err error
		last, err = usage.Sign(usage.Report{Plane: h.plane, Tenant: acme.id, Serial: 1, Since: until.Add(-time.Hour), Until: until, Counts: map[string]int64{"seats": 3}}, log.signer)
		if err != nil {
			t.Fatal(err)
		}
		res, err := set.Report(t.Context(), &registryv1.ReportRequest{Licence: &registryv1.LicenceReport{State: registryv1.LicenceState_LICENCE_STATE_NONE},
			Usage: &registryv1.UsageReport{Note: last, VerifierKey: log.signer.Verifier().String()}})
		if err != nil || !res.GetUsageKept() {
			t.Fatalf("it is not kept: %v %v", res, err)
		}
	}
	res, err := registryv1.NewLicenceServiceClient(operator).ListLicences(t.Context(), &registryv1.ListLicencesRequest{Tenant: "acme"})
	if err != nil || res.GetUsage() != last {
		t.Errorf("the newest is said to be\n%s\nand the last was\n%s\n%v", res.GetUsage(), last, err)
	}
}

// What a set has for later is known where the next licence is issued, also to a registry that was restored to before it issued that.
func TestLicenceThatASetHasForLaterIsKnown(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	operator := h.as(addr, "operator")
	acme := h.create(operator, "acme")
	if _, err := putLicence(t, operator, signed(t, h.plane, h.licenceKey, h.licenceOf(acme.id, 2))); err != nil {
		t.Fatal(err)
	}
	s, _ := source(t, acme.issuer, workload.Identity{Plane: h.plane, Tenant: acme.id, Service: "audit"})
	set, list := registryv1.NewReportServiceClient(h.dial(addr, s)), registryv1.NewLicenceServiceClient(operator)
	for _, next := range []int64{3, 0} {
		says := &registryv1.LicenceReport{Serial: 2, State: registryv1.LicenceState_LICENCE_STATE_VALID, NextSerial: next}
		if _, err := set.Report(t.Context(), &registryv1.ReportRequest{Licence: says}); err != nil {
			t.Fatal(err)
		}
		res, err := list.ListLicences(t.Context(), &registryv1.ListLicencesRequest{Tenant: "acme"})
		if err != nil || res.GetReport().GetSerial() != 2 || res.GetReport().GetNextSerial() != next {
			t.Errorf("of a set that has %d for later it is known %v: %v", next, res.GetReport(), err)
		}
	}
}
