package standing

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/licence"
	"a3os.app/tools/fleet/internal/platform"
)

// Backups is what is known of a set's backups.
type Backups struct {
	// Good is as of when the newest one is that could be restored, and Name what it is called; zero for none.
	Good time.Time
	Name string
	// Gone says why that one can't be read where backups are kept; empty where it is there, or nobody looked.
	Gone string
	// Tried is when the newest attempt was made, and Failure what kept it from coming to anything; empty where it came out well.
	Tried   time.Time
	Failure string
}

// overdueAfter is how old the newest good backup may be: half a pace more than one that is made at its time.
func overdueAfter(every time.Duration) time.Duration { return every + every/2 }

// backups is about a set whose data are safe only where they are. since is when the set was made; every is the pace, zero where fleet makes none
// by itself.
func backups(b Backups, since, now time.Time, every time.Duration, slug string) []Finding {
	const runbook = "docs/operations.md#backups-fail-or-are-overdue"
	var out []Finding
	if b.Failure != "" {
		out = append(out, Finding{Kind: "backup_failed", Severity: Warning, Next: runbook,
			Reason: fmt.Sprintf("its newest backup, %s ago, came to nothing: %s", age(now.Sub(b.Tried).Seconds()), firstLine(b.Failure))})
	}
	if b.Gone != "" {
		out = append(out, Finding{Kind: "backup_gone", Severity: Warning, Next: runbook,
			Reason: fmt.Sprintf("its newest backup that could be restored, %s, is not where backups are kept: %s", b.Name, firstLine(b.Gone))})
	}
	if every == 0 {
		return out
	}
	next := "fleet backup --tenant " + slug
	switch {
	case b.Good.IsZero() && now.Sub(since) > overdueAfter(every):
		out = append(out, Finding{Kind: "backup_overdue", Severity: Critical, Next: next, Reason: "it has no backup that could be restored"})
	case !b.Good.IsZero() && now.Sub(b.Good) > overdueAfter(every):
		out = append(out, Finding{Kind: "backup_overdue", Severity: Critical, Next: next,
			Reason: fmt.Sprintf("its newest backup that could be restored is %s old, and one is made every %s", age(now.Sub(b.Good).Seconds()), age(every.Seconds()))})
	}
	return out
}

// disks is about those that are almost full: what can't be written is refused, for every tenant whose data lie there.
func disks(all []platform.Disk) []Finding {
	const runbook = "docs/operations.md#a-disk-fills"
	var out []Finding
	for _, d := range all {
		if d.Free >= diskSome || float64(d.Free) >= diskShare*float64(d.Total) {
			continue
		}
		severity := Warning
		if d.Free < diskLittle {
			severity = Critical
		}
		out = append(out, Finding{Kind: "disk_fills", Severity: severity, Next: runbook,
			Reason: fmt.Sprintf("the disk of %s has %d MiB free of %d: once there are none, %s", d.Path, d.Free>>20, d.Total>>20,
				cmp.Or(d.Full, "changes are refused and reads go on"))})
	}
	return out
}

// clocksApart is by how much this machine's clock may differ from the registry's: windows, leases and plans are a matter of minutes.
const clocksApart = time.Minute

// clocks is about this machine's clock where it isn't the registry's: what fleet signs and stamps here is told by it.
func clocks(here, registry time.Time) []Finding {
	apart, how := here.Sub(registry), "ahead of"
	if apart < 0 {
		apart, how = -apart, "behind"
	}
	if apart < clocksApart {
		return nil
	}
	return []Finding{{Kind: "clocks_apart", Severity: Warning, Next: "docs/operations.md#clocks",
		Reason: fmt.Sprintf("this machine's clock is %s %s the registry's: ages here are by the registry's", apart.Round(time.Second), how)}}
}

// openingTold is for how long walls that stand again are told of: somebody has to look what passed meanwhile, and who did it.
const openingTold = 24 * time.Hour

// walls is about those between tenants that somebody else than the plane took down.
func walls(o platform.Opening, now time.Time) []Finding {
	const runbook = "docs/operations.md#walls-were-opened"
	switch {
	case o.Failure != "":
		return []Finding{{Kind: "walls_opened", Severity: Critical, Next: runbook, Reason: "the packet filter that keeps tenants' networks apart is not in force, and can't be put back: " + firstLine(o.Failure)}}
	case !o.At.IsZero() && now.Sub(o.At) < openingTold:
		return []Finding{{Kind: "walls_opened", Severity: Critical, Next: runbook,
			Reason: fmt.Sprintf("the packet filter that keeps tenants' networks apart was changed by somebody else than the plane; it was put back %s ago", age(now.Sub(o.At).Seconds()))}}
	}
	return nil
}

func firstLine(text string) string {
	const most = 200
	for i, r := range text {
		if r == '\n' || i >= most {
			return text[:i] + "…"
		}
	}
	return text
}

// licensed is about what a set says of its licence. A set that says nothing of one is of a product, or a release, that knows none.
func licensed(s Seen, t Tenant) []Finding {
	l := s.Status.GetLicence()
	if l == nil || !runs(s) {
		return nil
	}
	const runbook = "docs/operations.md#licences"
	var out []Finding
	found := func(kind string, severity Severity, next, format string, args ...any) {
		out = append(out, Finding{Kind: kind, Severity: severity, Reason: fmt.Sprintf(format, args...), Next: next})
	}
	issue := "fleet licence issue " + t.Slug + " --plan NAME --reason '…'"
	switch l.GetState() {
	case registryv1.LicenceState_LICENCE_STATE_VALID, registryv1.LicenceState_LICENCE_STATE_UNSPECIFIED:
	case registryv1.LicenceState_LICENCE_STATE_EXPIRING:
		found("licence_expiring", Notice, issue, "its licence holds for %s more", age(l.GetValidUntil().AsTime().Sub(s.Now).Seconds()))
	case registryv1.LicenceState_LICENCE_STATE_GRACE:
		found("licence_grace", Warning, issue, "its licence ended %s ago and it lives on the days of grace", age(s.Now.Sub(l.GetValidUntil().AsTime()).Seconds()))
	case registryv1.LicenceState_LICENCE_STATE_NONE, registryv1.LicenceState_LICENCE_STATE_NOT_YET, registryv1.LicenceState_LICENCE_STATE_EXPIRED:
		found("licence_ended", Critical, issue, "its licence is %s: what is licensed can't be changed, all else goes on", licence.StateWord(l.GetState()))
	}
	if l.GetRefused() != "" {
		found("licence_refused", Warning, "fleet licence show "+t.Slug, "it refused the last licence that it was handed: %s", firstLine(l.GetRefused()))
	}
	if l.GetClockBehind() {
		found("clock_behind", Warning, runbook, "its clock is behind a time that it has seen")
	}
	return out
}

// Here is what the machine that the platform works from knows of a set.
type Here struct {
	// KeysGone are files of keys that were made once.
	KeysGone []string
	// Restoring says that a restore of it is unfinished, and what to do; empty where none is.
	Restoring string
	// NamesTaken are components that have the name of something which the platform keeps beside them, with what that is.
	NamesTaken map[string]string
}

// findings of a set, of which an operation may be unfinished: one that leaves has its keys destroyed on purpose.
func (h Here) findings(o *registryv1.Operation) []Finding {
	var out []Finding
	if len(h.KeysGone) > 0 && o.GetKind() != registryv1.OperationKind_OPERATION_KIND_OFFBOARD {
		out = append(out, Finding{Kind: "key_gone", Severity: Critical, Next: "docs/operations.md#a-key-is-gone",
			Reason: "files of keys are gone, and what they sealed can't be read without: " + strings.Join(h.KeysGone, ", ")})
	}
	if h.Restoring != "" {
		out = append(out, Finding{Kind: "restore_unfinished", Severity: Critical, Next: "docs/operations.md#a-tenant-is-restored", Reason: h.Restoring})
	}
	for _, name := range sorted(h.NamesTaken) {
		out = append(out, Finding{Kind: "name_taken", Severity: Warning, Component: name, Next: "docs/operations.md#a-component-has-a-name-of-the-platforms",
			Reason: fmt.Sprintf("its component %s is called as %s, and may be given that one's address, user or container", name, h.NamesTaken[name])})
	}
	return out
}

// keys are the findings of the plane's own set.
func keys(here func(set string) Here, own string) []Finding {
	if here == nil {
		return nil
	}
	return here(own).findings(nil)
}
