package standing_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"
	setv1 "a3os.app/proto/gen/go/a3os/set/v1"

	"a3os.app/deploy/observability"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/standing"
)

var (
	now   = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	wants = "1.4.0@sha256:" + strings.Repeat("a", 64)
	other = "1.4.0@sha256:" + strings.Repeat("b", 64)
)

// well is a tenant of whom there is nothing to tell; change makes it another.
func well(change func(*standing.Seen)) standing.Seen {
	s := standing.Seen{
		Now: now, PlatformKnown: true,
		Status: &registryv1.TenantStatus{
			Tenant:     &registryv1.Tenant{Id: "tnt_x", Slug: "acme", State: registryv1.TenantState_TENANT_STATE_ACTIVE},
			ReportedAt: timestamppb.New(now.Add(-5 * time.Second)), ServiceSet: &registryv1.ServiceSet{Release: wants},
		},
		Figures: &registryv1.TenantFigures{Reports: 6, From: timestamppb.New(now.Add(-5 * time.Minute)), Until: timestamppb.New(now), Requests: 1000, Errors: 2,
			Components: []*registryv1.ComponentFigures{{Name: "iam"}, {Name: "audit"}}},
	}
	for _, name := range []string{"iam", "audit"} {
		s.Status.ServiceSet.Components = append(s.Status.GetServiceSet().GetComponents(), &registryv1.Component{Name: name})
		s.Status.Reports = append(s.Status.GetReports(), &registryv1.ComponentReport{Name: name, Health: registryv1.Health_HEALTH_SERVING, Release: wants})
		s.Platform = append(s.Platform, platform.ComponentStatus{Name: name, State: platform.Serving, Release: wants})
	}
	if change != nil {
		change(&s)
	}
	return s
}

func state(to registryv1.TenantState) func(*standing.Seen) {
	return func(s *standing.Seen) { s.Status.Tenant.State = to }
}

func licensed(is registryv1.LicenceState, left time.Duration) func(*standing.Seen) {
	return func(s *standing.Seen) {
		s.Status.Licence = &registryv1.LicenceReport{Serial: 1, State: is, ValidUntil: timestamppb.New(now.Add(left))}
	}
}

// saved is a tenant of a year ago, whose backups are made every day.
func saved(b standing.Backups) func(*standing.Seen) {
	return func(s *standing.Seen) {
		s.Status.Tenant.CreatedAt = timestamppb.New(now.AddDate(-1, 0, 0))
		s.Backups, s.BackupsKnown, s.BackupEvery = b, true, 24*time.Hour
	}
}

// ends has iam's certificate end in some time, and the authority that it issues by.
func ends(certificate, authority time.Duration) func(*standing.Seen) {
	return func(s *standing.Seen) {
		s.Status.Reports[0].Figures = &setv1.Figures{CertificateExpiresAt: timestamppb.New(now.Add(certificate)), AuthorityExpiresAt: timestamppb.New(now.Add(authority))}
	}
}

func TestEachThingThatIsWrongIsFoundAndNothingElse(t *testing.T) {
	lease := func(until time.Duration) *registryv1.Operation {
		return &registryv1.Operation{Id: "opr_1", Kind: registryv1.OperationKind_OPERATION_KIND_UPGRADE,
			Steps: []*registryv1.Step{{Name: "fetch", State: registryv1.StepState_STEP_STATE_DONE}, {Name: "start"}},
			Lease: &registryv1.Lease{Holder: "ada on vm", ExpiresAt: timestamppb.New(now.Add(until))}}
	}
	leaving := func(stop registryv1.StepState) *registryv1.Operation {
		o := lease(-time.Minute)
		o.Kind, o.WaitsUntil = registryv1.OperationKind_OPERATION_KIND_OFFBOARD, timestamppb.New(now.Add(time.Hour))
		o.Steps = []*registryv1.Step{{Name: "stop", State: stop}, {Name: "wait"}}
		return o
	}
	for _, c := range []struct {
		name     string
		change   func(*standing.Seen)
		kinds    []string // in the order told
		severity standing.Severity
		said     string // in the first reason
	}{
		{"all is well", nil, nil, standing.Well, ""},
		{"another version of the same program", func(s *standing.Seen) { s.Status.Reports[0].Release = strings.Replace(wants, "1.4.0", "1.4.1", 1) }, nil, standing.Well, ""},
		{"never reported", func(s *standing.Seen) { s.Status.ReportedAt, s.Status.Reports = nil, nil }, []string{"never_reported"}, standing.Critical, "never reported"},
		{"late", func(s *standing.Seen) { s.Status.ReportedAt = timestamppb.New(now.Add(-time.Minute)) }, []string{"report_late"}, standing.Warning, "60 s"},
		{"lost, which is why nothing it said counts", func(s *standing.Seen) {
			s.Status.ReportedAt = timestamppb.New(now.Add(-time.Hour))
			s.Status.Reports[0].Health, s.Status.Reports[1].Release = registryv1.Health_HEALTH_UNREACHABLE, other
		}, []string{"report_lost"}, standing.Critical, "60 min"},
		{"unreachable", func(s *standing.Seen) { s.Status.Reports[0].Health = registryv1.Health_HEALTH_UNREACHABLE }, []string{"unreachable"}, standing.Critical, "iam"},
		{"unreachable as it was being started", func(s *standing.Seen) {
			s.Status.Reports[0].Health, s.Platform[0].Since = registryv1.Health_HEALTH_UNREACHABLE, now.Add(-10*time.Second)
		}, []string{"started"}, standing.Notice, "iam was being started when its set reported last"},
		{"unreachable a while after it was started", func(s *standing.Seen) {
			s.Status.Reports[0].Health, s.Platform[0].Since = registryv1.Health_HEALTH_UNREACHABLE, now.Add(-20*time.Second)
		}, []string{"unreachable"}, standing.Critical, "iam"},
		{"one that hangs, as the platform finds", func(s *standing.Seen) {
			s.Platform[0].State, s.Platform[0].Well, s.Platform[0].Anew = platform.NotAnswering, now.Add(-40*time.Second), "kill -9 7"
		}, []string{"unreachable"}, standing.Critical, "iam can't be reached by its set: it runs, and has not answered for 40 s"},
		{"one that hangs, as its set says too", func(s *standing.Seen) {
			s.Status.Reports[0].Health = registryv1.Health_HEALTH_UNREACHABLE
			s.Platform[0].State = platform.NotAnswering
		}, []string{"unreachable"}, standing.Critical, "it runs, and has not answered"},
		{"lost, since what reports hangs", func(s *standing.Seen) {
			s.Status.ReportedAt = timestamppb.New(now.Add(-time.Hour))
			s.Platform[1].State, s.Platform[1].Anew = platform.NotAnswering, "kill -9 7"
		}, []string{"unreachable", "report_lost"}, standing.Critical, "audit"},
		{"can't serve", func(s *standing.Seen) { s.Status.Reports[0].Health = registryv1.Health_HEALTH_NOT_SERVING }, []string{"not_serving"}, standing.Critical, "iam"},
		{"a health nobody knows", func(s *standing.Seen) { s.Status.Reports[0].Health = 99 }, []string{"unreachable"}, standing.Critical, "iam"},
		{"some requests fail", func(s *standing.Seen) { s.Figures.Errors = 20 }, []string{"errors"}, standing.Warning, "2.0 %"},
		{"many requests fail", func(s *standing.Seen) { s.Figures.Errors = 200 }, []string{"errors"}, standing.Critical, "20.0 %"},
		{"one of few requests fails", func(s *standing.Seen) { s.Figures.Requests, s.Figures.Errors = 10, 5 }, nil, standing.Well, ""},
		{"a restart or two", func(s *standing.Seen) {
			s.Figures.Components[0].Restarts, s.Figures.Components[0].UnmeantRestarts = 2, 2
		}, nil, standing.Well, ""},
		{"restarts that were meant", func(s *standing.Seen) { s.Figures.Components[0].Restarts = 8 }, nil, standing.Well, ""},
		{"restarts without end", func(s *standing.Seen) { s.Figures.Components[0].UnmeantRestarts = 4 }, []string{"restarts"}, standing.Critical, "4 times"},
		{"a certificate that nobody renewed", ends(23*time.Hour, 300*24*time.Hour), []string{"certificate_ends"}, standing.Critical, "the certificate of iam ends in 23 h"},
		{"a certificate that ended", ends(-30*time.Minute, 0), []string{"certificate_ends", "authority_ends"}, standing.Critical, "the certificate of iam ended 30 min ago"},
		{"an authority that nobody renewed", ends(7*24*time.Hour, 59*24*time.Hour), []string{"authority_ends"}, standing.Warning, "the authority that iam issues by ends in 59 days"},
		{"certificates that last, and an authority", ends(25*time.Hour, 61*24*time.Hour), nil, standing.Well, ""},
		{"dead letters", func(s *standing.Seen) { s.Figures.Components[0].FailedJobs = 2 }, []string{"failed_jobs"}, standing.Warning, "2 jobs"},
		{"a job that waits", func(s *standing.Seen) { s.Figures.Components[0].MostQueueAgeSeconds = 600 }, []string{"queue_late"}, standing.Warning, "10 min"},
		{"sealing is late", func(s *standing.Seen) { s.Status.AuditBacklogAgeSeconds = 30 }, []string{"audit_backlog"}, standing.Warning, "30 s"},
		{"sealing has stopped", func(s *standing.Seen) { s.Status.AuditBacklogAgeSeconds = 70 }, []string{"audit_backlog"}, standing.Critical, "refused"},
		{"drift: a component of another program", func(s *standing.Seen) { s.Status.Reports[1].Release = other }, []string{"wrong_release"}, standing.Critical, "audit says it is 1.4.0@bbbbbbbb"},
		{"drift: a component that isn't there", func(s *standing.Seen) { s.Status.Reports, s.Platform = s.Status.Reports[:1], s.Platform[:1] }, []string{"missing", "not_kept"}, standing.Critical, "audit"},
		{"drift: one that nobody ordered", func(s *standing.Seen) {
			s.Status.Reports = append(s.Status.Reports, &registryv1.ComponentReport{Name: "miner", Health: registryv1.Health_HEALTH_SERVING, Release: wants})
			s.Platform = append(s.Platform, platform.ComponentStatus{Name: "miner", Release: wants})
		}, []string{"unexpected", "extra"}, standing.Warning, "miner"},
		{"drift: the platform keeps another program", func(s *standing.Seen) { s.Platform[0].Release = other }, []string{"wrong_release_kept"}, standing.Critical, "iam"},
		{"drift: one that keeps ending", func(s *standing.Seen) { s.Platform[0].State, s.Platform[0].Detail = platform.Failing, "exit code 3" }, []string{"failing"}, standing.Critical, "exit code 3"},
		{"drift: suspended and running", state(registryv1.TenantState_TENANT_STATE_SUSPENDED), []string{"should_not_run", "should_not_run"}, standing.Critical, "suspended"},
		{"drift: gone and running", state(registryv1.TenantState_TENANT_STATE_OFFBOARDED), []string{"should_not_run", "should_not_run"}, standing.Critical, "offboarded"},
		{"drift: suspended and reporting, where the platform can't be asked", func(s *standing.Seen) {
			state(registryv1.TenantState_TENANT_STATE_SUSPENDED)(s)
			s.Platform, s.PlatformKnown = nil, false
		}, []string{"should_not_run"}, standing.Critical, "reported 5 s ago"},
		{"suspended, as it should be", func(s *standing.Seen) {
			state(registryv1.TenantState_TENANT_STATE_SUSPENDED)(s)
			s.Platform = nil
		}, nil, standing.Well, ""},
		{"drift: changed by hand", func(s *standing.Seen) {
			s.Changed = []platform.Difference{{Resource: "AuditTaskRole", Reason: "the boundary of role audit is none", Next: "as an administrator"}, {Resource: "Key", Reason: "its policy was changed"}}
		}, []string{"changed_by_hand", "changed_by_hand"}, standing.Critical, "the boundary of role audit is none"},
		{"drift: active without a set", func(s *standing.Seen) { s.Status.ServiceSet = nil }, []string{"no_set"}, standing.Critical, "no set"},
		{"the platform can't be asked", func(s *standing.Seen) { s.Platform, s.PlatformKnown = nil, false }, nil, standing.Well, ""},
		{"on its way, when nothing is drift", func(s *standing.Seen) {
			s.Operation, s.Platform[0].Release, s.Status.Reports[1].Release = lease(time.Minute), other, other
		}, []string{"operation"}, standing.Notice, "ada on vm works on its upgrade, at start"},
		{"a licence that holds", licensed(registryv1.LicenceState_LICENCE_STATE_VALID, 90*24*time.Hour), nil, standing.Well, ""},
		{"a licence near its end", licensed(registryv1.LicenceState_LICENCE_STATE_EXPIRING, 5*24*time.Hour), []string{"licence_expiring"}, standing.Notice, "5 days more"},
		{"a licence in its days of grace", licensed(registryv1.LicenceState_LICENCE_STATE_GRACE, -3*24*time.Hour), []string{"licence_grace"}, standing.Warning, "3 days ago"},
		{"a licence that ended", licensed(registryv1.LicenceState_LICENCE_STATE_EXPIRED, -90*24*time.Hour), []string{"licence_ended"}, standing.Critical, "expired"},
		{"no licence", licensed(registryv1.LicenceState_LICENCE_STATE_NONE, 0), []string{"licence_ended"}, standing.Critical, "none"},
		{"a licence that was refused, and a clock", func(s *standing.Seen) {
			licensed(registryv1.LicenceState_LICENCE_STATE_VALID, time.Hour)(s)
			s.Status.Licence.Refused, s.Status.Licence.ClockBehind = "no key that is trusted\nsigned it", true
		}, []string{"licence_refused", "clock_behind"}, standing.Warning, "no key that is trusted…"},
		{"a suspended tenant's licence", func(s *standing.Seen) {
			licensed(registryv1.LicenceState_LICENCE_STATE_EXPIRED, -time.Hour)(s)
			state(registryv1.TenantState_TENANT_STATE_SUSPENDED)(s)
			s.Platform = nil
		}, nil, standing.Well, ""},
		{"backed up a day ago", saved(standing.Backups{Good: now.Add(-25 * time.Hour), Tried: now.Add(-25 * time.Hour)}), nil, standing.Well, ""},
		{"backed up long ago", saved(standing.Backups{Good: now.Add(-40 * time.Hour), Tried: now.Add(-40 * time.Hour)}), []string{"backup_overdue"}, standing.Critical, "40 h old"},
		{"backed up to a disk that is gone", saved(standing.Backups{Good: now.Add(-4 * time.Hour), Tried: now.Add(-4 * time.Hour), Name: "b", Gone: "no such directory"}), []string{"backup_gone"}, standing.Warning, "no such directory"},
		{"never backed up", saved(standing.Backups{}), []string{"backup_overdue"}, standing.Critical, "no backup that could be restored"},
		{"never backed up, and new", func(s *standing.Seen) {
			saved(standing.Backups{})(s)
			s.Status.Tenant.CreatedAt = timestamppb.New(now.Add(-time.Hour))
		}, nil, standing.Well, ""},
		{"a backup that failed after a good one", saved(standing.Backups{Good: now.Add(-20 * time.Hour), Tried: now.Add(-time.Minute), Failure: "the disk is full"}), []string{"backup_failed"}, standing.Warning, "60 s ago, came to nothing: the disk is full"},
		{"one that fails for days", saved(standing.Backups{Good: now.Add(-80 * time.Hour), Tried: now.Add(-time.Minute), Failure: "the disk is full"}), []string{"backup_overdue", "backup_failed"}, standing.Critical, "3 days old"},
		{"backups that nobody asked for", func(s *standing.Seen) {
			saved(standing.Backups{})(s)
			s.BackupEvery = 0
		}, nil, standing.Well, ""},
		{"backups that can't be read", func(s *standing.Seen) {
			saved(standing.Backups{})(s)
			s.BackupsKnown = false
		}, nil, standing.Well, ""},
		{"left on its way", func(s *standing.Seen) { s.Operation = lease(-time.Minute) }, []string{"operation_left"}, standing.Warning, "was left at start"},
		{"waiting until its keys are destroyed", func(s *standing.Seen) {
			s.Operation = lease(-time.Minute)
			s.Operation.WaitsUntil = timestamppb.New(now.Add(time.Hour))
		}, []string{"operation_waits"}, standing.Notice, "waits until " + now.Add(time.Hour).UTC().Format(time.RFC3339)},
		{"drift: stopped until its keys are destroyed, and running", func(s *standing.Seen) {
			state(registryv1.TenantState_TENANT_STATE_SUSPENDED)(s)
			s.Operation = leaving(registryv1.StepState_STEP_STATE_DONE)
		}, []string{"should_not_run", "should_not_run", "operation_waits"}, standing.Critical, "its iam runs"},
		{"stopped until its keys are destroyed", func(s *standing.Seen) {
			state(registryv1.TenantState_TENANT_STATE_SUSPENDED)(s)
			s.Operation, s.Platform = leaving(registryv1.StepState_STEP_STATE_DONE), nil
		}, []string{"operation_waits"}, standing.Notice, "waits until"},
		{"being stopped", func(s *standing.Seen) {
			state(registryv1.TenantState_TENANT_STATE_SUSPENDED)(s)
			s.Operation = leaving(registryv1.StepState_STEP_STATE_BEGUN)
		}, []string{"operation_waits"}, standing.Notice, "waits until"},
		{"left after its wait", func(s *standing.Seen) {
			s.Operation = lease(-time.Minute)
			s.Operation.WaitsUntil = timestamppb.New(now.Add(-time.Second))
		}, []string{"operation_left"}, standing.Warning, "was left at start"},
	} {
		got := standing.Of(well(c.change))
		var kinds []string
		for _, f := range got.Findings {
			kinds = append(kinds, f.Kind)
			if f.Reason == "" || f.Next == "" {
				t.Errorf("%s: %s has no reason or no next step: %+v", c.name, f.Kind, f)
			}
			if drift := strings.HasPrefix(c.name, "drift") && !strings.HasPrefix(f.Kind, "operation"); f.Drift != drift {
				t.Errorf("%s: %s is drift: %v", c.name, f.Kind, f.Drift)
			}
		}
		if !slices.Equal(kinds, c.kinds) || got.Severity != c.severity {
			t.Errorf("%s: found %v, %s; want %v, %s", c.name, kinds, got.Severity, c.kinds, c.severity)
		}
		if len(got.Findings) > 0 && !strings.Contains(got.Findings[0].Reason, c.said) {
			t.Errorf("%s: it says %q, want %q in it", c.name, got.Findings[0].Reason, c.said)
		}
	}
}

// What is said about a component that hangs is what starts it anew: whoever is told to look somewhere else comes back with nothing.
func TestHangLeadsToWhatStartsItAnew(t *testing.T) {
	got := standing.Of(well(func(s *standing.Seen) { s.Platform[0].State, s.Platform[0].Anew = platform.NotAnswering, "kill -9 7" }))
	if len(got.Findings) != 1 || got.Findings[0].Component != "iam" || !strings.HasPrefix(got.Findings[0].Next, "kill -9 7") {
		t.Errorf("%+v", got.Findings)
	}
}

// A backup that is overdue is as bad on the page, by whose exit a script pages somebody, as it is for the alarm.
func TestOverdueBackupIsAsBadAsItsAlarm(t *testing.T) {
	alarm := regexp.MustCompile(`alert: BackupOverdue\n(?: {8}.*\n)*? {8}labels: \{severity: (\w+)\}`).FindSubmatch(observability.Rules)
	got := standing.Of(well(func(s *standing.Seen) { s.BackupsKnown, s.BackupEvery = true, 24*time.Hour }))
	if alarm == nil || string(alarm[1]) != got.Severity.String() || len(got.Findings) != 1 {
		t.Errorf("the alarm says %q, the page %s of %v", alarm, got.Severity, got.Findings)
	}
}

func TestThoseInTroubleComeFirst(t *testing.T) {
	all := []standing.Tenant{{Slug: "b"}, {Slug: "late", Severity: standing.Warning}, {Slug: "a"}, {Slug: "down", Severity: standing.Critical},
		{Slug: "worse", Severity: standing.Critical, Findings: make([]standing.Finding, 2)}, {Slug: "new", Severity: standing.Notice}}
	standing.Sort(all)
	var slugs []string
	for _, x := range all {
		slugs = append(slugs, x.Slug)
	}
	if want := []string{"worse", "down", "late", "new", "a", "b"}; !slices.Equal(slugs, want) {
		t.Errorf("%v, want %v", slugs, want)
	}
}

// An operation that a rollout began is taken up by the rollout: whoever resumes it beside works against whoever carries that out.
func TestOperationOfARolloutIsTakenUpByTheRollout(t *testing.T) {
	for rollout, want := range map[string]string{
		"":      "fleet operation resume opr_1",
		"rol_1": "fleet rollout carry rol_1; what that leaves as it is, fleet operation resume opr_1",
	} {
		got := standing.Of(standing.Seen{Status: &registryv1.TenantStatus{Tenant: &registryv1.Tenant{State: registryv1.TenantState_TENANT_STATE_SUSPENDED}}, Now: now,
			Operation: &registryv1.Operation{Id: "opr_1", RolloutId: rollout, Kind: registryv1.OperationKind_OPERATION_KIND_UPGRADE}})
		if len(got.Findings) != 1 || got.Findings[0].Kind != "operation_left" || got.Findings[0].Next != want {
			t.Errorf("of an operation of rollout %q: %+v, want %q", rollout, got.Findings, want)
		}
	}
}
