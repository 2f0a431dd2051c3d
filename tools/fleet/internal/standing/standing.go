// Package standing says how tenants stand: what is wrong with each, why in words, and what to type next. It compares what the registry
// says, what sets report and what the platform has, asks nobody itself and changes nothing. It relies on its caller for all three, each of
// which may be missing: then what would have been told by it is said to be unknown, and not well.
package standing

import (
	"cmp"
	"slices"
	"time"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/licence"
	"a3os.app/tools/fleet/internal/platform"
)

// Severity orders what is found.
type Severity int

// The severities, from well to worst.
const (
	// Well is nothing to be told.
	Well Severity = iota
	// Notice is worth knowing: nobody has to do anything now.
	Notice
	// Warning will be trouble if nobody does anything.
	Warning
	// Critical is trouble for the tenant now.
	Critical
)

// String is the word for it.
func (s Severity) String() string { return [...]string{"well", "notice", "warning", "critical"}[s] }

// MarshalText writes the word.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Finding is one thing that isn't as it should be.
type Finding struct {
	// Kind is one word, for programs: `unreachable`, `wrong_release`.
	Kind string `json:"kind"`
	// Severity of it.
	Severity Severity `json:"severity"`
	// Component it is about; empty for the set.
	Component string `json:"component,omitempty"`
	// Drift says that the set isn't what the registry says it is, which `fleet repair` puts right.
	Drift bool `json:"drift,omitempty"`
	// Reason is a sentence.
	Reason string `json:"reason"`
	// Next is what to type or where to look.
	Next string `json:"next,omitempty"`
}

// Tenant is how one tenant stands.
type Tenant struct {
	ID    string `json:"id"`
	Slug  string `json:"slug"`
	State string `json:"state"`
	Tier  string `json:"tier"`
	// Release that the registry says the set runs.
	Release string `json:"release"`
	// Running are the releases that its components say they are, each once.
	Running []string `json:"running"`
	// Serving of Components say that they serve.
	Serving    int `json:"serving"`
	Components int `json:"components"`
	// ReportedAt is when the set reported last; zero when it never did.
	ReportedAt time.Time `json:"reported_at,omitzero"`
	// ReportAge is how long ago that was, in seconds; -1 when it never did.
	ReportAge float64 `json:"report_age_seconds"`
	// Figures of the last minutes; nil where there are none.
	Figures *Figures `json:"figures,omitempty"`
	// AuditBacklog waits to be sealed, the oldest for so many seconds.
	AuditBacklog    int64 `json:"audit_backlog"`
	AuditBacklogAge int64 `json:"audit_backlog_age_seconds"`
	// DatabaseBytes is the size of its database.
	DatabaseBytes int64 `json:"database_bytes"`
	// Operation is the unfinished one, in words; empty for none.
	Operation string `json:"operation,omitempty"`
	// LastBackup is when the newest good one was made; zero where none is known.
	LastBackup time.Time `json:"last_backup,omitzero"`
	// Licence is where its licence stands, in a word; empty where none is known.
	Licence string `json:"licence,omitempty"`
	// Severity of the worst finding.
	Severity Severity `json:"severity"`
	// Findings, the worst first.
	Findings []Finding `json:"findings"`
}

// Figures are those of the window that the page looks at.
type Figures struct {
	Seconds    float64 `json:"seconds"`
	Requests   int64   `json:"requests"`
	Errors     int64   `json:"errors"`
	P99Seconds float64 `json:"p99_seconds"`
	Restarts   int32   `json:"restarts"`
	FailedJobs int64   `json:"failed_jobs"`
	QueueDepth int64   `json:"most_queue_depth"`
}

// ErrorRatio is the share of requests that failed.
func (f *Figures) ErrorRatio() float64 {
	if f == nil || f.Requests == 0 {
		return 0
	}
	return float64(f.Errors) / float64(f.Requests)
}

// Seen is all that is known of one tenant.
type Seen struct {
	// Status is what the registry holds.
	Status *registryv1.TenantStatus
	// Figures of the last minutes; nil where they were not asked for.
	Figures *registryv1.TenantFigures
	// Platform is what runs of the set; meaningless where PlatformKnown is false.
	Platform []platform.ComponentStatus
	// PlatformKnown says that the platform was asked.
	PlatformKnown bool
	// Changed is what of the set isn't as its release has it, where the platform looks at more than at what runs.
	Changed []platform.Difference
	// Operation is the unfinished one; nil for none.
	Operation *registryv1.Operation
	// Backups of the set, meaningless where BackupsKnown is false; one is made every BackupEvery, zero for never.
	Backups      Backups
	BackupsKnown bool
	BackupEvery  time.Duration
	// Here is what the machine that the platform works from knows of it.
	Here Here
	// Now is the registry's clock as near as it is known.
	Now time.Time
}

// Of says how a tenant stands.
func Of(s Seen) Tenant {
	t := s.Status.GetTenant()
	out := Tenant{
		ID: t.GetId(), Slug: t.GetSlug(), State: word(t.GetState().String(), "TENANT_STATE_"), Tier: word(t.GetIsolationTier().String(), "ISOLATION_TIER_"),
		Release: s.Status.GetServiceSet().GetRelease(), Components: len(s.Status.GetServiceSet().GetComponents()), ReportAge: -1,
		AuditBacklog: s.Status.GetAuditBacklog(), AuditBacklogAge: s.Status.GetAuditBacklogAgeSeconds(), DatabaseBytes: s.Status.GetDatabaseBytes(),
		Operation: operationWord(s.Operation),
	}
	if at := s.Status.GetReportedAt(); at != nil {
		out.ReportedAt = at.AsTime()
		out.ReportAge = max(s.Now.Sub(out.ReportedAt).Seconds(), 0)
	}
	if f := s.Figures; f.GetReports() > 1 {
		out.Figures = &Figures{Seconds: f.GetUntil().AsTime().Sub(f.GetFrom().AsTime()).Seconds(), Requests: f.GetRequests(), Errors: f.GetErrors(),
			P99Seconds: f.GetP99Seconds(), Restarts: f.GetRestarts(), FailedJobs: f.GetFailedJobs(), QueueDepth: f.GetMostQueueDepth()}
	}
	for _, r := range s.Status.GetReports() {
		if r.GetHealth() == registryv1.Health_HEALTH_SERVING {
			out.Serving++
		}
		if v := r.GetRelease(); v != "" && !slices.Contains(out.Running, v) {
			out.Running = append(out.Running, v)
		}
	}
	if l := s.Status.GetLicence(); l != nil {
		out.Licence = licence.StateWord(l.GetState())
	}
	out.LastBackup = s.Backups.Good
	out.Findings = slices.Concat(operation(s), health(s, out), certificates(s), load(s, out), drift(s, out), licensed(s, out), s.Here.findings(s.Operation))
	if s.BackupsKnown && t.GetState() != registryv1.TenantState_TENANT_STATE_OFFBOARDED {
		out.Findings = append(out.Findings, backups(s.Backups, t.GetCreatedAt().AsTime(), s.Now, s.BackupEvery, out.Slug)...)
	}
	slices.SortStableFunc(out.Findings, func(a, b Finding) int { return cmp.Compare(b.Severity, a.Severity) })
	if out.Findings == nil {
		out.Findings = []Finding{}
	}
	if len(out.Findings) > 0 {
		out.Severity = out.Findings[0].Severity
	}
	return out
}

// Sort puts the worst first; of the same severity, those with more findings, then by slug.
func Sort(all []Tenant) {
	slices.SortStableFunc(all, func(a, b Tenant) int {
		return cmp.Or(cmp.Compare(b.Severity, a.Severity), cmp.Compare(len(b.Findings), len(a.Findings)), cmp.Compare(a.Slug, b.Slug))
	})
}
