package rollout_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/rollout"
)

var now = time.Date(2026, time.November, 30, 12, 0, 0, 0, time.UTC) // a Monday

// states are the tenants' states in short: one letter a tenant, waves divided by blanks. One that is f failed before anything was begun.
var states = map[rune]registryv1.RolloutTenantState{
	'p': registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_PENDING, 'c': registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_CHANGING,
	'b': registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_BAKING, 'P': registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_PASSED,
	'f': registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_FAILED, 'F': registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_FAILED, 'r': registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_ROLLING_BACK,
	'R': registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_ROLLED_BACK, 's': registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_SKIPPED,
}

// made is a rollout whose tenants stand as the text says; their ids are wave and place, as `0.1`.
func made(state registryv1.RolloutState, parallel int32, back registryv1.RollbackScope, text string) *registryv1.Rollout {
	r := &registryv1.Rollout{State: state, Policy: &registryv1.RolloutPolicy{MaxParallel: parallel, Rollback: back}}
	for i, wave := range strings.Fields(text) {
		w := &registryv1.Wave{Name: "wave-" + string(rune('0'+i))}
		for j, s := range wave {
			t := string(rune('0'+i)) + "." + string(rune('0'+j))
			w.TenantIds = append(w.TenantIds, t)
			x := &registryv1.RolloutTenant{TenantId: t, Wave: int32(i), State: states[s]}
			if !strings.ContainsRune("pfs", s) {
				x.OperationId = "opr_" + t
			}
			r.Tenants = append(r.Tenants, x)
		}
		r.Policy.Waves = append(r.Policy.Waves, w)
	}
	return r
}

func ids(tenants []*registryv1.RolloutTenant) string {
	var out []string
	for _, t := range tenants {
		out = append(out, t.GetTenantId())
	}
	return strings.Join(out, " ")
}

const (
	running = registryv1.RolloutState_ROLLOUT_STATE_RUNNING
	paused  = registryv1.RolloutState_ROLLOUT_STATE_PAUSED
	halted  = registryv1.RolloutState_ROLLOUT_STATE_HALTED
	aborted = registryv1.RolloutState_ROLLOUT_STATE_ABORTED

	backNone   = registryv1.RollbackScope_ROLLBACK_SCOPE_NONE
	backTenant = registryv1.RollbackScope_ROLLBACK_SCOPE_TENANT
	backWave   = registryv1.RollbackScope_ROLLBACK_SCOPE_WAVE
	backAll    = registryv1.RollbackScope_ROLLBACK_SCOPE_ALL
)

func TestAWaveBeginsWhenTheOneBeforeIsDone(t *testing.T) {
	for name, c := range map[string]struct {
		r    *registryv1.Rollout
		want string
	}{
		"first wave":                     {made(running, 10, backWave, "pp pp"), "0.0 0.1"},
		"as many as may be at once":      {made(running, 1, backWave, "pp pp"), "0.0"},
		"one is under way already":       {made(running, 2, backWave, "cpp pp"), "0.1"},
		"as many as may be are":          {made(running, 1, backWave, "cp pp"), ""},
		"one of the wave is watched":     {made(running, 10, backWave, "Pb pp"), ""},
		"one of the wave has failed":     {made(running, 10, backWave, "PF pp"), ""},
		"those watched don't count":      {made(running, 2, backWave, "bbp pp"), "0.2"},
		"those that go back do":          {made(running, 1, backWave, "rp pp"), ""},
		"the wave before is done":        {made(running, 10, backWave, "Ps pp"), "1.0 1.1"},
		"all skipped":                    {made(running, 10, backWave, "ss pp"), "1.0 1.1"},
		"paused":                         {made(paused, 10, backWave, "pp pp"), ""},
		"halted":                         {made(halted, 10, backWave, "Fp pp"), ""},
		"aborted":                        {made(aborted, 10, backWave, "pp pp"), ""},
		"nothing is left":                {made(running, 10, backWave, "PP Ps"), ""},
		"state that nobody ever stored":  {made(0, 10, backWave, "pp pp"), ""},
		"a policy that allows none ever": {made(running, 0, backWave, "pp pp"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, why := rollout.Startable(c.r, now)
			if ids(got) != c.want {
				t.Errorf("may be begun: %q, want %q", ids(got), c.want)
			}
			if len(got) == 0 && why == "" && !rollout.Complete(c.r) {
				t.Error("nothing may be begun, and nothing says why")
			}
		})
	}
}

func TestWhatGoesBackIsWhatThePolicySays(t *testing.T) {
	for name, c := range map[string]struct {
		r    *registryv1.Rollout
		want string
	}{
		"nothing":                           {made(halted, 1, backNone, "PP PFb pp"), ""},
		"the tenant":                        {made(halted, 1, backTenant, "PP PFb pp"), "1.1"},
		"its wave":                          {made(halted, 1, backWave, "PP PFb pp"), "1.0 1.1 1.2"},
		"all":                               {made(halted, 1, backAll, "PP PFb pp"), "0.0 0.1 1.0 1.1 1.2"},
		"the untouched never":               {made(halted, 1, backAll, "Fps pp"), "0.0"},
		"one that was never begun":          {made(halted, 1, backTenant, "Pf pp"), ""},
		"nor its wave":                      {made(halted, 1, backWave, "PfPb pp"), ""},
		"nor all":                           {made(halted, 1, backAll, "PP PfP"), ""},
		"but with one that was":             {made(halted, 1, backWave, "PfF pp"), "0.0 0.2"},
		"one under way is finished first":   {made(halted, 1, backWave, "Fc pp"), "0.0"},
		"one that is back is back":          {made(halted, 1, backWave, "RP pp"), "0.1"},
		"one on its way goes on":            {made(halted, 1, backNone, "rP pp"), "0.0"},
		"not while it runs":                 {made(running, 1, backAll, "PF pp"), ""},
		"not after it was aborted":          {made(aborted, 1, backAll, "PF pp"), ""},
		"a scope that nobody stored: first": {made(halted, 1, 0, "PFb pp"), "0.1"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := ids(rollout.Back(c.r)); got != c.want {
				t.Errorf("goes back: %q, want %q", got, c.want)
			}
		})
	}
}

func TestWhomSomebodyElseChangedIsNotAsTheRolloutKnows(t *testing.T) {
	const active, suspended = registryv1.TenantState_TENANT_STATE_ACTIVE, registryv1.TenantState_TENANT_STATE_SUSPENDED
	r := &registryv1.Rollout{Id: "rol_1", Release: "1.4.0@sha256:aa"}
	const from, to, other = "1.3.0@sha256:bb", "1.4.0@sha256:aa", "1.5.0@sha256:cc"
	fresh := &registryv1.RolloutTenant{Slug: "acme", ReleaseFrom: from, Attempts: 1}
	begun := &registryv1.RolloutTenant{Slug: "acme", ReleaseFrom: from, Attempts: 1, OperationId: "opr_1"}
	again := &registryv1.RolloutTenant{Slug: "acme", ReleaseFrom: from, Attempts: 2}
	for name, c := range map[string]struct {
		t       *registryv1.RolloutTenant
		state   registryv1.TenantState
		release string
		says    string
	}{
		"as planned":                          {fresh, active, from, ""},
		"brought by somebody else":            {fresh, active, to, "tenant acme runs " + to},
		"brought to another":                  {fresh, active, other, "tenant acme runs " + other},
		"suspended":                           {fresh, suspended, from, "tenant acme is suspended"},
		"gone":                                {fresh, registryv1.TenantState_TENANT_STATE_OFFBOARDED, "", "tenant acme is offboarded"},
		"being brought":                       {begun, active, from, ""},
		"brought":                             {begun, active, to, ""},
		"brought, and then to another":        {begun, active, other, "tenant acme runs " + other},
		"brought, and then suspended":         {begun, suspended, to, "tenant acme is suspended"},
		"brought by the attempt before":       {again, active, to, ""},
		"another than of the attempt before":  {again, active, other, "tenant acme runs " + other},
		"at another digest of the same words": {fresh, active, "1.3.0@sha256:dd", "tenant acme runs 1.3.0@sha256:dd"},
	} {
		t.Run(name, func(t *testing.T) {
			got := rollout.Differs(r, c.t, c.state, c.release)
			if (got == "") != (c.says == "") || !strings.HasPrefix(got, c.says) {
				t.Errorf("it says %q, want %q", got, c.says)
			}
			if got != "" && (!strings.Contains(got, from+" to "+to) || !strings.Contains(got, "fleet rollout skip rol_1 acme --reason '…'")) {
				t.Errorf("%q says neither what was to be nor what to do", got)
			}
		})
	}
}

func TestStaleReportCountsForNothing(t *testing.T) {
	const release = "1.1.0@sha256:aa"
	report := func(change ...func(*registryv1.ComponentReport)) *registryv1.ComponentReport {
		r := &registryv1.ComponentReport{Name: "iam", Health: registryv1.Health_HEALTH_SERVING, Release: release, ReportedAt: timestamppb.New(now.Add(time.Second))}
		for _, c := range change {
			c(r)
		}
		return r
	}
	audit := report(func(r *registryv1.ComponentReport) { r.Name = "audit" })
	for name, c := range map[string]struct {
		reports []*registryv1.ComponentReport
		want    bool
	}{
		"all say so":            {[]*registryv1.ComponentReport{report(), audit}, true},
		"one says nothing":      {[]*registryv1.ComponentReport{audit}, false},
		"none says anything":    {nil, false},
		"one from before":       {[]*registryv1.ComponentReport{report(func(r *registryv1.ComponentReport) { r.ReportedAt = timestamppb.New(now) }), audit}, false},
		"without a time":        {[]*registryv1.ComponentReport{report(func(r *registryv1.ComponentReport) { r.ReportedAt = nil }), audit}, false},
		"one is the old one":    {[]*registryv1.ComponentReport{report(func(r *registryv1.ComponentReport) { r.Release = "1.0.0@sha256:bb" }), audit}, false},
		"the version is no say": {[]*registryv1.ComponentReport{report(func(r *registryv1.ComponentReport) { r.Release = "1.1.0@sha256:bb" }), audit}, false},
		"one does not serve":    {[]*registryv1.ComponentReport{report(func(r *registryv1.ComponentReport) { r.Health = registryv1.Health_HEALTH_NOT_SERVING }), audit}, false},
		"one says no health":    {[]*registryv1.ComponentReport{report(func(r *registryv1.ComponentReport) { r.Health = 0 }), audit}, false},
		"one more is an old one": {[]*registryv1.ComponentReport{report(), audit, report(func(r *registryv1.ComponentReport) {
			r.Name, r.Release = "extra", "1.0.0@sha256:bb"
		})}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if ok, why := rollout.Runs(release, now, []string{"iam", "audit"}, c.reports); ok != c.want {
				t.Errorf("got %v (%s), want %v", ok, why, c.want)
			}
		})
	}
}

func TestATenantIsWatchedForATimeAndANumberOfRequests(t *testing.T) {
	p := &registryv1.RolloutPolicy{Bake: durationpb.New(10 * time.Minute), Samples: 100}
	since := &registryv1.RolloutTenant{Since: timestamppb.New(now)}
	for _, c := range []struct {
		after   time.Duration
		samples int64
		want    bool
	}{{0, 1000, false}, {10*time.Minute - 1, 1000, false}, {10 * time.Minute, 99, false}, {10 * time.Minute, 100, true}, {time.Hour, 0, false}} {
		if ok, why := rollout.Passes(p, since, c.samples, now.Add(c.after)); ok != c.want || !ok && why == "" {
			t.Errorf("after %s and %d requests: %v (%s), want %v", c.after, c.samples, ok, why, c.want)
		}
	}
}

func TestPolicyHasEachTenantInOneWave(t *testing.T) {
	good := made(running, 1, backWave, "pp p").GetPolicy()
	if err := rollout.Check(good, []string{"0.0", "0.1", "1.0"}); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(p *registryv1.RolloutPolicy){
		"in two waves":       func(p *registryv1.RolloutPolicy) { p.Waves[1].TenantIds = []string{"0.0", "1.0"} },
		"in none":            func(p *registryv1.RolloutPolicy) { p.Waves[0].TenantIds = p.Waves[0].TenantIds[:1] },
		"one too many":       func(p *registryv1.RolloutPolicy) { p.Waves[1].TenantIds = append(p.Waves[1].TenantIds, "9.9") },
		"one name twice":     func(p *registryv1.RolloutPolicy) { p.Waves[1].Name = p.Waves[0].Name },
		"none at once":       func(p *registryv1.RolloutPolicy) { p.MaxParallel = 0 },
		"a window of no day": func(p *registryv1.RolloutPolicy) { p.Windows = []*registryv1.Window{{StartMinute: 1, EndMinute: 2}} },
	} {
		t.Run(name, func(t *testing.T) {
			p := proto.CloneOf(good)
			change(p)
			if err := rollout.Check(p, []string{"0.0", "0.1", "1.0"}); err == nil {
				t.Error("it is taken")
			}
		})
	}
}

func TestDenyWindowBeatsAllowWindow(t *testing.T) {
	window := func(text string, deny bool) *registryv1.Window {
		w, err := rollout.ParseWindow(text, deny)
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	allow := func(text string) *registryv1.Window { return window(text, false) }
	deny := func(text string) *registryv1.Window { return window(text, true) }
	for name, c := range map[string]struct {
		windows []*registryv1.Window
		want    bool
	}{
		"none":                     {nil, true},
		"allowed":                  {[]*registryv1.Window{allow("mon-fri 09:00-17:00")}, true},
		"not allowed":              {[]*registryv1.Window{allow("tue-fri 09:00-17:00")}, false},
		"one of two allows":        {[]*registryv1.Window{allow("tue 09:00-17:00"), allow("mon 11:00-13:00")}, true},
		"denied":                   {[]*registryv1.Window{deny("mon 11:59-12:01")}, false},
		"not denied":               {[]*registryv1.Window{deny("mon 12:01-13:00")}, true},
		"both":                     {[]*registryv1.Window{allow("mon 00:00-24:00"), deny("mon 12:00-13:00")}, false},
		"both, the other order":    {[]*registryv1.Window{deny("mon 12:00-13:00"), allow("mon 00:00-24:00")}, false},
		"its end is out of it":     {[]*registryv1.Window{deny("mon 11:00-12:00")}, true},
		"over midnight, begun":     {[]*registryv1.Window{allow("mon 11:00-02:00")}, true},
		"over midnight, yesterday": {[]*registryv1.Window{allow("sun 22:00-12:01")}, true},
		"yesterday's has ended":    {[]*registryv1.Window{allow("sun 22:00-12:00")}, false},
		"elsewhere it is night":    {[]*registryv1.Window{allow("mon 20:00-22:00 Asia/Tokyo")}, true},
		"absolute":                 {[]*registryv1.Window{deny("2026-11-30T00:00:00Z/2026-12-01T00:00:00Z")}, false},
		"absolute and over":        {[]*registryv1.Window{deny("2026-11-29T00:00:00Z/2026-11-30T12:00:00Z")}, true},
		"one that can't be read":   {[]*registryv1.Window{{Days: []string{"mon"}, EndMinute: 1440, Zone: "Nowhere/At-all"}}, false},
		"one of whoever reads it":  {[]*registryv1.Window{{Days: []string{"mon"}, EndMinute: 1440, Zone: "Local"}}, false},
		"days that wrap":           {[]*registryv1.Window{allow("fri-mon 00:00-24:00")}, true},
	} {
		t.Run(name, func(t *testing.T) {
			if open, why := rollout.Open(c.windows, now); open != c.want || !open && why == "" {
				t.Errorf("open: %v (%s), want %v", open, why, c.want)
			}
		})
	}
	for _, text := range []string{"", "mon", "mon 09:00", "mon 9-17", "day 09:00-17:00", "mon 09:00-25:00", "mon 24:00-10:00", "mon 09:00-17:00 Nowhere", "mon 09:00-17:00 Local", "mon 09:00-17:00 localtime",
		"2026-12-24/2027-01-02", "2027-01-02T00:00:00Z/2026-12-24T00:00:00Z", "mon 09:60-17:00", "mon 09:00-17:00 UTC x"} {
		if w, err := rollout.ParseWindow(text, false); err == nil {
			t.Errorf("%q is read as %v", text, w)
		}
	}
	for _, text := range []string{"mon,tue 09:00-17:00 Europe/Vienna", "2026-12-24T00:00:00Z/2027-01-02T00:00:00Z"} {
		if got := rollout.WindowText(allow(text)); got != text {
			t.Errorf("%q is written as %q", text, got)
		}
	}
}
