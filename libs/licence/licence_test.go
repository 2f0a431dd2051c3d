package licence_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/licence"
	"a3os.app/libs/licence/licencetest"
)

func TestLicenceOpensForItsTenantAlone(t *testing.T) {
	tenant := id.NewTenant()
	want := licencetest.Whole(tenant, 7)
	file := licencetest.Sign(t, want)
	got, err := licencetest.Verifier(t).OpenFor(t.Context(), tenant, 7, file)
	if err != nil || !proto.Equal(got, want) {
		t.Fatalf("opened %v: %v", got, err)
	}
}

// Rows C46, C47 and C49 of licences: what is older, forged, cut short, of another plane or of another tenant is refused, each with its
// own reason, before anything in it is used.
func TestLicenceThatIsNotGoodIsRefused(t *testing.T) {
	tenant := id.NewTenant()
	good := licencetest.Sign(t, licencetest.Whole(tenant, 7))
	v := licencetest.Verifier(t)
	forger, _, err := licence.NewKey("dev")
	if err != nil {
		t.Fatal(err)
	}
	prod, _, err := licence.NewKey("prod")
	if err != nil {
		t.Fatal(err)
	}
	signed := func(plane, key string, change func(*registryv1.Licence)) []byte {
		s, err := licence.NewSigner(plane, key)
		if err != nil {
			t.Fatal(err)
		}
		l := licencetest.Whole(tenant, 8)
		l.Plane = plane
		change(l)
		file, err := s.Sign(t.Context(), l)
		if err != nil {
			t.Fatal(err)
		}
		return file
	}
	envelope := func(change func(e map[string]any)) []byte {
		var e map[string]any
		if err := json.Unmarshal(good, &e); err != nil {
			t.Fatal(err)
		}
		change(e)
		out, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	raw := func(l *registryv1.Licence) string {
		payload, err := proto.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		return base64.StdEncoding.EncodeToString(payload)
	}
	richer := licencetest.Whole(tenant, 9)
	richer.Seats = 1_000_000
	bad := map[string]struct {
		file []byte
		want error
	}{
		"nothing":                      {nil, licence.ErrMalformed},
		"no envelope":                  {[]byte("licence"), licence.ErrMalformed},
		"too large":                    {bytes.Repeat([]byte(" "), licence.MaxBytes+1), licence.ErrMalformed},
		"a forger's key":               {signed("dev", forger, func(*registryv1.Licence) {}), licence.ErrSignature},
		"another plane's":              {signed("prod", prod, func(*registryv1.Licence) {}), licence.ErrSignature},
		"another tenant's":             {licencetest.Sign(t, licencetest.Whole(id.NewTenant(), 8)), licence.ErrTenant},
		"an older one":                 {licencetest.Sign(t, licencetest.Whole(tenant, 6)), licence.ErrOlder},
		"more seats, same signature":   {envelope(func(e map[string]any) { e["payload"] = raw(richer) }), licence.ErrSignature},
		"no signature":                 {envelope(func(e map[string]any) { e["signatures"] = []any{} }), licence.ErrSignature},
		"another type":                 {envelope(func(e map[string]any) { e["payloadType"] = "application/vnd.a3os.release.v1" }), licence.ErrMalformed},
		"payload that is no base64":    {envelope(func(e map[string]any) { e["payload"] = "%%%" }), licence.ErrSignature},
		"signature over nothing known": {envelope(func(e map[string]any) { e["signatures"].([]any)[0].(map[string]any)["sig"] = "AAAA" }), licence.ErrSignature},
	}
	for what, c := range bad {
		if l, err := v.OpenFor(t.Context(), tenant, 7, c.file); !errors.Is(err, c.want) || l != nil {
			t.Errorf("%s: %v, %v, want %v", what, l, err, c.want)
		}
	}
	for n := range good {
		if _, err := v.OpenFor(t.Context(), tenant, 7, good[:n]); err == nil {
			t.Errorf("cut after %d of %d bytes it opens", n, len(good))
		}
	}
	if _, err := v.OpenFor(t.Context(), id.Tenant{}, 0, good); !errors.Is(err, licence.ErrTenant) {
		t.Errorf("it opens for no tenant: %v", err)
	}
	t.Attr("row", "C46 1")
	t.Attr("row", fmt.Sprintf("C47 %d", len(good)+3))
	t.Attr("row", "C49 6")
}

func TestConnectorsAreTheKindsOfIntegrations(t *testing.T) {
	if got, want := licence.Connectors(), []string{"csv", "postgres", "unix"}; !slices.Equal(got, want) {
		t.Errorf("they are %v, want %v", got, want)
	}
}

func TestSignerSignsWhatIsWholeAndOfItsPlane(t *testing.T) {
	private, public, err := licence.NewKey("dev")
	if err != nil {
		t.Fatal(err)
	}
	s, err := licence.NewSigner("dev", private)
	if err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]func(*registryv1.Licence){
		"of another plane":    func(l *registryv1.Licence) { l.Plane = "prod" },
		"of no tenant":        func(l *registryv1.Licence) { l.TenantId = "" },
		"without a serial":    func(l *registryv1.Licence) { l.Serial = 0 },
		"without seats":       func(l *registryv1.Licence) { l.Seats = 0 },
		"without an end":      func(l *registryv1.Licence) { l.ValidUntil = nil },
		"that ends first":     func(l *registryv1.Licence) { l.ValidUntil = l.GetValidFrom() },
		"that says no usage":  func(l *registryv1.Licence) { l.UsageReports = 0 },
		"with eternal grace":  func(l *registryv1.Licence) { l.GraceDays = 10_000 },
		"with a strange plan": func(l *registryv1.Licence) { l.Plan = "\x1b[2J" },
	} {
		l := licencetest.Whole(id.NewTenant(), 1)
		change(l)
		if _, err := s.Sign(t.Context(), l); err == nil || errors.Is(err, licence.ErrMalformed) {
			t.Errorf("asked to sign one %s, it says %v", what, err)
		}
	}
	if _, err := licence.NewSigner("prod", private); err == nil {
		t.Error("a key of dev signs for prod")
	}
	if _, err := licence.NewVerifier("prod", public); err == nil {
		t.Error("a key of dev is trusted in prod")
	}
	for _, keys := range []string{"", ",", "key", public + ",x"} {
		if _, err := licence.NewVerifier("dev", keys); err == nil {
			t.Errorf("%q are keys", keys)
		}
	}
	if _, err := licence.NewSigner("dev", "PRIVATE+KEY+c4nary"); err == nil || strings.Contains(err.Error(), "c4nary") {
		t.Errorf("the error is %v", err)
	}
}

func TestWorthOfALicenceByTime(t *testing.T) {
	from := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	until := from.AddDate(1, 0, 0)
	l := licencetest.Whole(id.NewTenant(), 1)
	l.ValidFrom, l.ValidUntil, l.GraceDays, l.Features, l.Plan = timestamppb.New(from), timestamppb.New(until), 14, []string{"discovery"}, "team"
	const day = 24 * time.Hour
	for _, c := range []struct {
		at     time.Time
		state  string
		writes bool
		since  time.Time
	}{
		{from.Add(-time.Second), "not_yet", false, l.GetIssuedAt().AsTime()},
		{from, "valid", true, from},
		{until.Add(-30*day - time.Second), "valid", true, from},
		{until.Add(-30 * day), "expiring", true, until.Add(-30 * day)},
		{until.Add(-time.Second), "expiring", true, until.Add(-30 * day)},
		{until, "grace", true, until},
		{until.Add(14*day - time.Second), "grace", true, until},
		{until.Add(14 * day), "expired", false, until.Add(14 * day)},
		{until.AddDate(50, 0, 0), "expired", false, until.Add(14 * day)},
	} {
		w := licence.At(l, c.at)
		if got := licence.StateWord(w.State); got != c.state || !w.Since.Equal(c.since) {
			t.Errorf("at %s it is %s since %s, want %s since %s", c.at, got, w.Since, c.state, c.since)
		}
		err := w.Allows("discovery")
		if (err == nil) != c.writes {
			t.Errorf("at %s: %v", c.at, err)
		}
		if err != nil {
			refused(t, err, "discovery", c.state)
		}
		if w.Message() == "" {
			t.Errorf("nothing is said at %s", c.at)
		}
		if licence.ParseState(licence.StateWord(w.State)) != w.State {
			t.Errorf("%v is not read again", w.State)
		}
	}
	none := licence.At(nil, from)
	refused(t, none.Allows("discovery"), "discovery", "none")
	refused(t, none.AllowsSeats(1), "seats", "none")
	refused(t, none.AllowsConnector("csv"), "csv", "none")
	if none.Message() == "" {
		t.Error("nothing is said of no licence")
	}
	now := licence.At(l, from)
	if err := now.Allows("people"); !errors.Is(err, licence.ErrFeature) || !strings.Contains(err.Error(), "team") {
		t.Errorf("a feature that isn't in the plan: %v", err)
	}
	l.Connectors, l.Seats = []string{"csv"}, 3
	if err := errors.Join(now.AllowsConnector("csv"), now.AllowsSeats(3)); err != nil {
		t.Error(err)
	}
	if err := now.AllowsConnector("postgres"); !errors.Is(err, licence.ErrConnector) {
		t.Errorf("another kind of system: %v", err)
	}
	if err := now.AllowsSeats(4); !errors.Is(err, licence.ErrSeats) {
		t.Errorf("a seat too many: %v", err)
	}
}

// refused sees that a refusal says what, how it stands, and what goes on, to people and to programs; and that both get across RPC.
func refused(t *testing.T, err error, feature, state string) {
	t.Helper()
	f, ok := errors.AsType[*fault.Error](fault.FromRPC(fault.Connect(err)))
	if !ok || f.Kind != fault.FailedPrecondition || f.Reason == "" || f.Details["feature"] != feature || f.Details["state"] != state {
		t.Errorf("refused with %+v, want feature %s and state %s", f, feature, state)
	}
	if viaGRPC, _ := errors.AsType[*fault.Error](fault.FromRPC(fault.Status(err))); viaGRPC == nil || viaGRPC.Details["feature"] != feature {
		t.Errorf("over gRPC: %+v", viaGRPC)
	}
}

func TestFeaturesAreThoseOfTheMethods(t *testing.T) {
	if got, want := licence.Features(), []string{"discovery", "integrations", "people", "workspaces"}; !slices.Equal(got, want) {
		t.Errorf("features are %v, want %v", got, want)
	}
}
