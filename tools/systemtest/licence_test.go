package systemtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"

	auditv1 "a3os.app/proto/gen/go/a3os/audit/v1"
	"a3os.app/proto/gen/go/a3os/audit/v1/auditv1connect"
	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	"a3os.app/proto/gen/go/a3os/discovery/v1/discoveryv1connect"
	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"
	"a3os.app/proto/gen/go/a3os/iam/v1/iamv1connect"
	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"
	"a3os.app/proto/gen/go/a3os/integrations/v1/integrationsv1connect"
	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/licence"
)

// licensee is a tenant whose licence a test changes, with somebody who owns a workspace.
type licensee struct {
	*tenant
	t         *testing.T
	owner     *person
	workspace string
	upload    *integrationsv1.Integration
	// guests are people who may be sent away.
	guests []string
	// serial of the licence that was issued last.
	serial int64
}

// held is what the set itself says of the licence that it holds; to ask is to have it look.
func (l *licensee) held() *auditv1.GetLicenceResponse {
	l.t.Helper()
	return ask(l.t, client(l.admin(l.t), "", auditv1connect.NewLicenceServiceClient).GetLicence, &auditv1.GetLicenceRequest{})
}

// known are the tenant's licences at the registry, and what it was told of the one that is held.
func (l *licensee) known() *registryv1.ListLicencesResponse {
	l.t.Helper()
	s, err := l.plane.command(l.t.Context(), "fleet", "-o", "json", "licence", "show", l.slug)
	res := &registryv1.ListLicencesResponse{}
	if err != nil || s.code != 0 || protojson.Unmarshal([]byte(s.out), res) != nil {
		l.t.Fatalf("licence show: %v %s", err, s)
	}
	return res
}

// issued has fleet issue a licence.
func (l *licensee) issued(terms ...string) {
	l.t.Helper()
	args := append([]string{"licence", "issue", l.slug, "--plan", "trial", "--reason", "Order 4711, tried in a test"}, terms...)
	if s, err := l.plane.command(l.t.Context(), "fleet", args...); err != nil || s.code != 0 {
		l.t.Fatalf("%v: %v %s", args, err, s)
	}
	l.serial++
}

// awaitHeld waits until the set holds the licence that was issued last.
func (l *licensee) awaitHeld() {
	l.t.Helper()
	within(l.t, time.Minute, func() error {
		if got := l.held().GetLicence().GetSerial(); got != l.serial {
			return fmt.Errorf("the set holds licence %d, want %d", got, l.serial)
		}
		return nil
	})
}

// begin tries what a licence is about, each feature once, and answers why it was refused; empty where it was done.
func (l *licensee) begin() map[string]string {
	l.t.Helper()
	admin, out := l.admin(l.t), map[string]string{}
	note := func(feature string, err error) {
		out[feature] = ""
		if err == nil {
			return
		}
		f, ok := errors.AsType[*fault.Error](fault.FromRPC(err))
		if !ok || f.Reason == "" {
			l.t.Fatalf("%s: %v", feature, err)
		}
		out[feature] = f.Reason
	}
	_, err := try(l.t, client(admin, "", iamv1connect.NewUserWriteServiceClient).InviteUser, &iamv1.InviteUserRequest{Email: name("guest") + "@example.com", DisplayName: "Guest"})
	note("people", err)
	_, err = try(l.t, client(admin, "", iamv1connect.NewWorkspaceWriteServiceClient).CreateWorkspace, &iamv1.CreateWorkspaceRequest{Name: name("more"), OwnerUserId: l.owner.id})
	note("workspaces", err)
	_, err = try(l.t, client(l.owner, l.workspace, integrationsv1connect.NewIntegrationWriteServiceClient).CreateIntegration,
		&integrationsv1.CreateIntegrationRequest{Name: name("upload"), Settings: csvSettings()})
	note("integrations", err)
	_, err = try(l.t, client(l.owner, l.workspace, discoveryv1connect.NewRunWriteServiceClient).StartRun, &discoveryv1.StartRunRequest{IntegrationId: l.upload.GetId()})
	note("discovery", err)
	return out
}

// wantBegin says what of it has to be refused, and why: `all` for everything.
func (l *licensee) wantBegin(when string, refused map[string]string) {
	l.t.Helper()
	for feature, got := range l.begin() {
		if want := cmp.Or(refused["all"], refused[feature]); got != want {
			l.t.Errorf("%s: %s is refused with %q, want %q", when, feature, got, want)
		}
	}
}

// goesOn does what no licence stops: reading, the log and its export, signing in, taking access away.
func (l *licensee) goesOn(when string) (cases int) {
	l.t.Helper()
	admin := l.slug + "-admin"
	guest := l.guests[0]
	l.guests = l.guests[1:]
	dir := filepath.Join(l.t.TempDir(), "log")
	for _, args := range [][]string{{"user", "list"}, {"workspace", "list"}, {"audit", "list"}, {"audit", "verify"}, {"audit", "export", "--to", dir}, {"licence", "show"},
		{"usage", "show"}, {"user", "reinvite", guest, "--reason", "they lost their session"}, {"user", "deactivate", guest}} {
		if s := l.plane.tryA3(l.t, admin, args...); s.code != 0 {
			l.t.Errorf("%s: a3 %s: %s", when, strings.Join(args, " "), s)
		}
		cases++
	}
	for _, workspace := range []string{"", l.workspace} {
		if _, err := l.owner.anew(l.t, workspace); err != nil {
			l.t.Errorf("%s: signing in to %q: %v", when, workspace, err)
		}
		cases++
	}
	ask(l.t, client(l.owner, l.workspace, discoveryv1connect.NewRunServiceClient).ListRuns, &discoveryv1.ListRunsRequest{})
	ask(l.t, client(l.owner, l.workspace, integrationsv1connect.NewIntegrationServiceClient).ListIntegrations, &integrationsv1.ListIntegrationsRequest{})
	return cases + 2
}

// seen has the set have seen a time, as one does whose clock was there and was turned back since.
func (l *licensee) seen(at time.Time) {
	l.t.Helper()
	if _, err := l.plane.superuser(l.t, "postgres", l.id).Exec(l.t.Context(), "UPDATE audit.licence_watch SET seen_at = $1", at); err != nil {
		l.t.Fatal(err)
	}
}

// signed is a licence of the tenant's, changed as change says, by a key: the plane's own where it is empty.
func (l *licensee) signed(plane, key string, change func(*registryv1.Licence)) []byte {
	l.t.Helper()
	if key == "" {
		key = read(l.t, filepath.Join(l.plane.home, "plane", "keys", "licences.secret"))
	}
	now := time.Now()
	made := &registryv1.Licence{Id: id.NewLicence().String(), Plane: plane, TenantId: l.id, Serial: l.serial + 1, Plan: "year", Features: licence.Features(),
		Connectors: []string{"*"}, Seats: 10_000, ValidFrom: timestamppb.New(now.Add(-time.Minute)), ValidUntil: timestamppb.New(now.AddDate(1, 0, 0)), GraceDays: 30,
		IssuedAt: timestamppb.New(now), UsageReports: registryv1.UsageReports_USAGE_REPORTS_ON}
	if change != nil {
		change(made)
	}
	s, err := licence.NewSigner(plane, key)
	if err != nil {
		l.t.Fatal(err)
	}
	file, err := s.Sign(l.t.Context(), made)
	if err != nil {
		l.t.Fatal(err)
	}
	return file
}

// install hands a licence file to fleet.
func (l *licensee) install(file []byte) said {
	l.t.Helper()
	path := filepath.Join(l.t.TempDir(), "licence")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		l.t.Fatal(err)
	}
	s, err := l.plane.command(l.t.Context(), "fleet", "licence", "install", path, "--reason", "signed elsewhere, tried in a test")
	if err != nil {
		l.t.Fatal(err)
	}
	return s
}

// lay lays a file where the set looks for a licence without asking any registry, and starts the one anew that looks.
func (l *licensee) lay(file []byte) {
	l.t.Helper()
	path := l.given(l.t, "audit", "licence")
	info, err := os.Stat(path)
	if err != nil {
		l.t.Fatal(err)
	}
	if err := os.WriteFile(path, file, info.Mode()); err != nil {
		l.t.Fatal(err)
	}
	l.plane.restarted(l.t, l.id+"/audit")
}

func newLicensee(t *testing.T) *licensee {
	t.Helper()
	l := &licensee{tenant: borrow(t), t: t}
	l.owner = l.invite(t)
	l.workspace = l.tenant.workspace(t, l.owner).GetId()
	l.upload = l.owner.upload(t, l.workspace, people(3))
	const guests = 2
	for range guests {
		l.guests = append(l.guests, l.invite(t).id)
	}
	l.serial = l.held().GetLicence().GetSerial()
	return l
}

// A licence that ends stops what it is about and nothing else; seats are counted; days of grace are; what is no later licence of this
// tenant's, signed by this plane, changes nothing and is on the tenant's record; a clock that was turned back is noticed and gains nothing.
// Rows C46, C47 and C49.
func TestLicenceEndsAndWhatIsNotLicensedGoesOn(t *testing.T) {
	full(t)
	t.Parallel()
	l := newLicensee(t)
	admin := l.slug + "-admin"
	t.Cleanup(func() {
		// Whoever borrows the tenant next has all of it.
		if s, err := l.plane.command(context.WithoutCancel(t.Context()), "fleet", "licence", "issue", l.slug, "--plan", "development", "--seats", "10000",
			"--reason", "a test of licences is over"); err != nil || s.code != 0 {
			t.Errorf("issue: %v %s", err, s)
		}
	})

	if s := l.plane.fleet(t, "licence", "issue", l.slug, "--plan", "trial", "--reason", "Order 4711, mistyped", "--feature", "discovry"); s.code != 2 || !strings.Contains(s.err, "discovery") {
		t.Errorf("a licence for what there is not: %s", s)
	}

	// It holds, for ten days, and has one seat.
	const days, day = 10, 24 * time.Hour
	l.issued("--seats", "1", "--days", "10", "--grace-days", "1")
	l.awaitHeld()
	until := l.held().GetLicence().GetValidUntil().AsTime()
	if left := time.Until(until); left < (days-1)*day || left > (days+1)*day {
		t.Errorf("it holds until %s", until)
	}
	l.wantBegin("every seat is taken", map[string]string{"people": licence.ErrSeats.Reason})
	if s := l.plane.a3(t, admin, "licence", "show"); !strings.Contains(s, "expiring") || !strings.Contains(s, "ask for the next one now") {
		t.Errorf("a tenant whose licence ends in ten days is told %s", s)
	}
	bad := l.refusesForgeries()

	// Its days of grace begin, and end. The set has seen that time; its clock says that it isn't so late.
	l.seen(until.Add(time.Hour))
	if h := l.held(); h.GetState() != registryv1.LicenceState_LICENCE_STATE_GRACE || h.GetClockBehind() == nil || !strings.Contains(h.GetMessage(), "Everything goes on until") {
		t.Errorf("in its days of grace it is %s, clock behind %s: %s", h.GetState(), h.GetClockBehind(), h.GetMessage())
	}
	l.wantBegin("in the days of grace", map[string]string{"people": licence.ErrSeats.Reason})
	l.seen(until.Add(3 * day))
	l.wantBegin("seen to be over, by a clock that is behind", map[string]string{"all": licence.ErrExpired.Reason})
	clock := l.goesOn("seen to be over")
	l.plane.recorded(t, admin, "licence.clock_turned_back")
	if s := l.plane.a3(t, admin, "licence", "show"); !strings.Contains(s, "the clock is behind") {
		t.Errorf("of its clock the tenant is told %s", s)
	}
	within(t, time.Minute, func() error {
		found, err := l.found(t)
		for _, want := range []string{"licence_ended", "clock_behind"} {
			if !slices.Contains(found, want) {
				return fmt.Errorf("fleet status says %v and not %s: %w", found, want, err)
			}
		}
		return nil
	})

	// The next licence puts the clock in order, and ends in a few seconds, by the clock.
	const soon = 3 * time.Second
	// It began an hour ago, for by the time that fleet looks at it it may have ended.
	now := time.Now().UTC()
	l.issued("--from", now.Add(-time.Hour).Format(time.RFC3339), "--until", now.Add(soon).Format(time.RFC3339), "--grace-days", "0")
	// It lies where the set looks first of all when it starts: no need to wait for a report.
	l.plane.restarted(t, l.id+"/audit")
	l.awaitHeld()
	within(t, time.Minute, func() error {
		if h := l.held(); h.GetState() != registryv1.LicenceState_LICENCE_STATE_EXPIRED || h.GetClockBehind() != nil {
			return fmt.Errorf("it is %s, clock behind %s", h.GetState(), h.GetClockBehind())
		}
		return nil
	})
	l.wantBegin("expired", map[string]string{"all": licence.ErrExpired.Reason})
	l.goesOn("expired")
	l.plane.recorded(t, admin, "licence.clock_in_order")
	l.plane.recorded(t, admin, "licence.state_changed", "EXPIRED")

	// One that was signed elsewhere is installed, and everything goes on.
	if s := l.install(l.signed("dev", "", nil)); s.code != 0 {
		t.Fatalf("install: %s", s)
	}
	l.serial++
	l.plane.restarted(t, l.id+"/audit")
	l.awaitHeld()
	l.wantBegin("licensed again", nil)
	t.Attr("row", "C46 1")
	t.Attr("row", fmt.Sprintf("C47 %d", bad))
	t.Attr("row", fmt.Sprintf("C49 %d", clock))
}

// refusesForgeries hands over what is no licence, by fleet and past it, and answers in how many ways.
func (l *licensee) refusesForgeries() (cases int) {
	l.t.Helper()
	forger, _, err := licence.NewKey("dev")
	if err != nil {
		l.t.Fatal(err)
	}
	prod, _, err := licence.NewKey("prod")
	if err != nil {
		l.t.Fatal(err)
	}
	good := l.signed("dev", "", nil)
	flipped := slices.Clone(good)
	flipped[len(flipped)/2] ^= 1
	forged := l.signed("dev", forger, nil)
	const someTenant = "tnt_01h455vb4pex5vsknk084sn02q"
	for what, c := range map[string]struct {
		file []byte
		says string
	}{
		"signed by another key": {forged, "no licence key that is trusted here signed it"},
		"of another plane":      {l.signed("prod", prod, nil), "no licence key that is trusted here signed it"},
		"a flipped bit":         {flipped, "the licence"},
		"cut short":             {good[:len(good)-10], "it is no whole licence file"},
		"an older one":          {l.signed("dev", "", func(x *registryv1.Licence) { x.Serial = l.serial - 1 }), fmt.Sprintf("has a licence with serial %d", l.serial)},
		"of nobody":             {l.signed("dev", "", func(x *registryv1.Licence) { x.TenantId = someTenant }), "tenant"},
	} {
		if s := l.install(c.file); s.code == 0 || !strings.Contains(s.err, c.says) {
			l.t.Errorf("%s: %s", what, s)
		}
		cases++
	}
	for what, file := range map[string][]byte{"forged": forged, "globex's": l.signed("dev", "", func(x *registryv1.Licence) { x.TenantId = globex().id })} {
		l.lay(file)
		within(l.t, time.Minute, func() error {
			if h := l.held(); h.GetLicence().GetSerial() != l.serial {
				return fmt.Errorf("a %s licence was laid down, and the set holds %v", what, h.GetLicence())
			}
			return nil
		})
		l.plane.recorded(l.t, l.slug+"-admin", "licence.refused", map[string]string{"forged": "no licence key", "globex's": "another tenant"}[what])
		cases++
	}
	within(l.t, time.Minute, func() error { // the set's next report says so
		if known := l.known(); known.GetLicences()[0].GetLicence().GetSerial() != l.serial || known.GetReport().GetRefused() == "" && known.GetReport().GetSerial() != l.serial {
			return fmt.Errorf("after what was refused the registry knows %v", known)
		}
		return nil
	})
	l.wantBegin("after what was refused", map[string]string{"people": licence.ErrSeats.Reason})
	return cases
}
