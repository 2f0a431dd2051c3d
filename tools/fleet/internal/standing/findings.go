package standing

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/tools/fleet/internal/platform"
)

// What is too much. The alert rules in deploy/observability say the same for who isn't looking at the page.
const (
	// reportLate and reportLost are several reports that did not come.
	reportLate = 45 * time.Second
	reportLost = 3 * time.Minute
	// errorsSome and errorsMany are shares of requests; with fewer than errorsAmong nothing is said of them.
	errorsSome  = 0.01
	errorsMany  = 0.05
	errorsAmong = 50
	// restartsMany is what a process that keeps ending does in a few minutes.
	restartsMany = 3
	// sealingLate warns before deeds are refused, at a minute.
	sealingLate = 20
	sealingLost = 60
	// queueLate is how long a job may wait that could be begun.
	queueLate = 5 * 60
	// certificateLate is far past when a component renews its certificate, and time enough for somebody to.
	certificateLate = 24 * time.Hour
	// authorityLate is far past when fleet makes the next one: with it every certificate ends that it issued.
	authorityLate = 60 * 24 * time.Hour
	// diskSome and diskLittle are bytes that are free; diskShare of a disk is enough, however small it is.
	diskSome   = 8 << 30
	diskLittle = 1 << 30
	diskShare  = 0.1
)

func word(text, prefix string) string { return strings.ToLower(strings.TrimPrefix(text, prefix)) }

// runs says whether the set is meant to run.
func runs(s Seen) bool {
	return s.Status.GetTenant().GetState() == registryv1.TenantState_TENANT_STATE_ACTIVE
}

// kindWord is `upgrade`.
func kindWord(o *registryv1.Operation) string { return word(o.GetKind().String(), "OPERATION_KIND_") }

// step is the first that isn't done.
func step(o *registryv1.Operation) string {
	for _, st := range o.GetSteps() {
		if st.GetState() != registryv1.StepState_STEP_STATE_DONE {
			return st.GetName()
		}
	}
	return "its end"
}

func operationWord(o *registryv1.Operation) string {
	if o == nil {
		return ""
	}
	return kindWord(o) + " at " + step(o)
}

// operation is about an operation that isn't finished: one that somebody works on is worth knowing, one that nobody does is trouble, but
// for one that waits.
func operation(s Seen) []Finding {
	o := s.Operation
	if o == nil {
		return nil
	}
	if l := o.GetLease(); l != nil && l.GetExpiresAt().AsTime().After(s.Now) {
		return []Finding{{Kind: "operation", Severity: Notice, Reason: fmt.Sprintf("%s works on its %s, at %s", l.GetHolder(), kindWord(o), step(o)),
			Next: "fleet operation show " + o.GetId()}}
	}
	if until := o.GetWaitsUntil().AsTime(); until.After(s.Now) {
		return []Finding{{Kind: "operation_waits", Severity: Notice, Next: fmt.Sprintf("fleet operation resume %s after that, or fleet operation abort %s --reason '…' before", o.GetId(), o.GetId()),
			Reason: fmt.Sprintf("its %s waits until %s: its keys are not destroyed before", kindWord(o), until.Format(time.RFC3339))}}
	}
	return []Finding{{Kind: "operation_left", Severity: Warning, Reason: fmt.Sprintf("its %s was left at %s and nobody works on it", kindWord(o), step(o)),
		Next: takeUp(o)}}
}

// takeUp is how an operation goes on that nobody works on. One of a rollout the rollout takes up, unless it has done with the tenant.
func takeUp(o *registryv1.Operation) string {
	resume := "fleet operation resume " + o.GetId()
	if o.GetRolloutId() == "" {
		return resume
	}
	return fmt.Sprintf("fleet rollout carry %s; what that leaves as it is, %s", o.GetRolloutId(), resume)
}

// health is about a set that is meant to run and says that it doesn't, or says nothing.
func health(s Seen, t Tenant) []Finding {
	if !runs(s) {
		return nil
	}
	show := "fleet tenant show " + t.Slug
	switch {
	case t.ReportAge < 0:
		return append(hung(s, show), Finding{Kind: "never_reported", Severity: Critical, Reason: "its set never reported", Next: show})
	case t.ReportAge > reportLost.Seconds():
		// What was said so long ago says nothing about now.
		return append(hung(s, show), Finding{Kind: "report_lost", Severity: Critical, Reason: fmt.Sprintf("its set has not reported for %s; what is told of it is from then", age(t.ReportAge)), Next: show})
	}
	out := hung(s, show)
	if t.ReportAge > reportLate.Seconds() {
		out = append(out, Finding{Kind: "report_late", Severity: Warning, Reason: fmt.Sprintf("its set has not reported for %s", age(t.ReportAge)), Next: show})
	}
	for _, r := range s.Status.GetReports() {
		told := slices.ContainsFunc(out, func(f Finding) bool { return f.Kind == "unreachable" && f.Component == r.GetName() })
		switch {
		case r.GetHealth() == registryv1.Health_HEALTH_SERVING, told:
		case justStarted(s, r.GetName()):
			out = append(out, Finding{Kind: "started", Severity: Notice, Component: r.GetName(), Reason: r.GetName() + " was being started when its set reported last, and serves by now", Next: show})
		case r.GetHealth() == registryv1.Health_HEALTH_NOT_SERVING:
			out = append(out, Finding{Kind: "not_serving", Severity: Critical, Component: r.GetName(), Reason: r.GetName() + " runs and can't serve: its log says why", Next: show})
		default:
			out = append(out, Finding{Kind: "unreachable", Severity: Critical, Component: r.GetName(), Reason: r.GetName() + " can't be reached by its set", Next: show})
		}
	}
	return out
}

// justStarted says whether the set's newest report is from when a component was being started that serves by now, as the platform sees it: with the
// next report, seconds later, the set has reached it, or has not.
func justStarted(s Seen, component string) bool {
	const within = 10 * time.Second
	return s.PlatformKnown && slices.ContainsFunc(s.Platform, func(c platform.ComponentStatus) bool {
		return c.Name == component && c.State == platform.Serving && !c.Since.IsZero() && s.Status.GetReportedAt().AsTime().Before(c.Since.Add(within))
	})
}

// hung is about components that run and answer nothing, as the platform finds: what their set says of them, if it can say anything, has no more to it.
func hung(s Seen, show string) []Finding {
	var out []Finding
	for _, c := range s.Platform {
		if c.State != platform.NotAnswering {
			continue
		}
		how := ""
		if !c.Well.IsZero() {
			how = " for " + age(max(s.Now.Sub(c.Well), 0).Seconds())
		}
		out = append(out, Finding{Kind: "unreachable", Severity: Critical, Component: c.Name, Reason: fmt.Sprintf("%s can't be reached by its set: it runs, and has not answered%s", c.Name, how),
			Next: StartAnew(c.Anew, show)})
	}
	return out
}

// StartAnew is what to do about a process that runs and doesn't answer: what to type to have it started anew, or, where that isn't known, other.
func StartAnew(anew, other string) string {
	if anew == "" {
		return other
	}
	return anew + ", which has it started anew: docs/operations.md#a-component-does-not-serve"
}

// certificates is about what a set stops with when nobody renews it.
func certificates(s Seen) []Finding {
	if !runs(s) {
		return nil
	}
	var out []Finding
	for _, r := range s.Status.GetReports() {
		for _, c := range []struct {
			kind, what string
			at         *timestamppb.Timestamp
			late       time.Duration
			severity   Severity
		}{
			{"certificate_ends", "certificate of " + r.GetName(), r.GetFigures().GetCertificateExpiresAt(), certificateLate, Critical},
			{"authority_ends", "authority that " + r.GetName() + " issues by", r.GetFigures().GetAuthorityExpiresAt(), authorityLate, Warning},
		} {
			if left := c.at.AsTime().Sub(s.Now); c.at != nil && left < c.late {
				reason := fmt.Sprintf("the %s ends in %s", c.what, age(left.Seconds()))
				if left < 0 {
					reason = fmt.Sprintf("the %s ended %s ago", c.what, age(-left.Seconds()))
				}
				out = append(out, Finding{Kind: c.kind, Severity: c.severity, Component: r.GetName(), Reason: reason, Next: "docs/operations.md#a-certificate-ends-soon"})
			}
		}
	}
	return out
}

// load is about a set that serves, and how well.
func load(s Seen, t Tenant) []Finding {
	var out []Finding
	if !runs(s) {
		return nil
	}
	found := func(kind string, severity Severity, next, format string, args ...any) {
		out = append(out, Finding{Kind: kind, Severity: severity, Reason: fmt.Sprintf(format, args...), Next: next})
	}
	const metrics = "docs/operations.md"
	switch {
	case t.AuditBacklogAge >= sealingLost:
		found("audit_backlog", Critical, metrics+"#the-audit-log-is-behind", "%d events wait to be sealed, the oldest for %s: changes are refused", t.AuditBacklog, age(float64(t.AuditBacklogAge)))
	case t.AuditBacklogAge >= sealingLate:
		found("audit_backlog", Warning, metrics+"#the-audit-log-is-behind", "%d events wait to be sealed, the oldest for %s: from a minute on changes are refused", t.AuditBacklog, age(float64(t.AuditBacklogAge)))
	}
	f := t.Figures
	if f == nil {
		return out
	}
	if f.Requests >= errorsAmong && f.ErrorRatio() >= errorsSome {
		severity := Warning
		if f.ErrorRatio() >= errorsMany {
			severity = Critical
		}
		found("errors", severity, metrics+"#requests-fail", "%.1f %% of %d requests failed in the last %s", 100*f.ErrorRatio(), f.Requests, age(f.Seconds))
	}
	for _, c := range s.Figures.GetComponents() {
		// One that was killed and is back is how it should be; what an operation or a restore starts anew isn't counted at all.
		if n := c.GetUnmeantRestarts(); n >= restartsMany {
			out = append(out, Finding{Kind: "restarts", Severity: Critical, Component: c.GetName(), Next: metrics + "#a-component-keeps-restarting",
				Reason: fmt.Sprintf("%s started anew by itself %d times in the last %s", c.GetName(), n, age(f.Seconds))})
		}
		if c.GetFailedJobs() > 0 {
			out = append(out, Finding{Kind: "failed_jobs", Severity: Warning, Component: c.GetName(), Next: metrics + "#jobs-fail-or-wait",
				Reason: fmt.Sprintf("%d jobs became dead letters in the last %s", c.GetFailedJobs(), age(f.Seconds))})
		}
		if c.GetMostQueueAgeSeconds() >= queueLate {
			out = append(out, Finding{Kind: "queue_late", Severity: Warning, Component: c.GetName(), Next: metrics + "#jobs-fail-or-wait",
				Reason: fmt.Sprintf("a job waited for %s", age(float64(c.GetMostQueueAgeSeconds())))})
		}
	}
	return out
}

// age is a duration as people say it.
func age(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < 2*time.Hour:
		return fmt.Sprintf("%.0f min", d.Minutes())
	case d < 48*time.Hour:
		return fmt.Sprintf("%.0f h", d.Hours())
	}
	return fmt.Sprintf("%.0f days", d.Hours()/24)
}
