package standing

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/release"
	"a3os.app/tools/fleet/internal/platform"
)

// drift is what differs between what the registry says a set is, what the set says it is, and what the platform has of it. While an
// operation is under way a set is on its way, and nothing is said, but of one that was stopped for good.
func drift(s Seen, t Tenant) []Finding {
	if s.Operation != nil && !Rests(s.Status.GetTenant().GetState(), s.Operation) {
		return nil
	}
	repair := "fleet repair --tenant " + t.Slug
	var out []Finding
	found := func(kind string, severity Severity, component, format string, args ...any) {
		out = append(out, Finding{Kind: kind, Severity: severity, Component: component, Drift: true, Reason: fmt.Sprintf(format, args...), Next: repair})
	}
	state := s.Status.GetTenant().GetState()
	switch state {
	case registryv1.TenantState_TENANT_STATE_ACTIVE:
	case registryv1.TenantState_TENANT_STATE_SUSPENDED, registryv1.TenantState_TENANT_STATE_OFFBOARDED:
		for _, c := range s.Platform {
			found("should_not_run", Critical, c.Name, "the tenant is %s, and its %s runs", t.State, c.Name)
		}
		// A report that is newer than the last word of the platform shows a set that nobody has in view.
		if t.ReportAge >= 0 && t.ReportAge < reportLate.Seconds() && !s.PlatformKnown {
			found("should_not_run", Critical, "", "the tenant is %s, and its set reported %s ago", t.State, age(t.ReportAge))
		}
		return out
	default:
		return []Finding{{Kind: "provisioning", Severity: Notice, Reason: "its set is being made, and no operation is under way", Next: "fleet operation list --tenant " + t.Slug}}
	}
	if s.Status.GetServiceSet() == nil {
		found("no_set", Critical, "", "it is active, and the registry knows no set of it")
		return out
	}
	reported(s, t, found)
	if s.PlatformKnown {
		platformHas(s, t, found)
	}
	if s.Here.Restoring != "" {
		return nil // it isn't what the registry says until that has ended
	}
	for _, d := range s.Changed {
		found("changed_by_hand", Critical, "", "%s", d.Reason)
		out[len(out)-1].Next = cmp.Or(d.Next, repair)
	}
	return out
}

// Rests says that an operation that isn't finished has stopped the tenant's set and starts nothing of it any more: it may wait so for a month until
// the tenant's keys are destroyed.
func Rests(state registryv1.TenantState, o *registryv1.Operation) bool {
	return state == registryv1.TenantState_TENANT_STATE_SUSPENDED && o.GetKind() == registryv1.OperationKind_OPERATION_KIND_OFFBOARD &&
		slices.ContainsFunc(o.GetSteps(), func(s *registryv1.Step) bool {
			return s.GetName() == platform.StepStop && s.GetState() == registryv1.StepState_STEP_STATE_DONE
		})
}

type foundFunc = func(kind string, severity Severity, component, format string, args ...any)

// reported compares the registry with what the set says of itself. A set that says nothing any more is told of elsewhere.
func reported(s Seen, t Tenant, found foundFunc) {
	if t.ReportAge < 0 || t.ReportAge > reportLost.Seconds() {
		return
	}
	said := map[string]*registryv1.ComponentReport{}
	for _, r := range s.Status.GetReports() {
		said[r.GetName()] = r
	}
	for _, c := range s.Status.GetServiceSet().GetComponents() {
		r := said[c.GetName()]
		delete(said, c.GetName())
		switch {
		case r == nil:
			found("missing", Critical, c.GetName(), "the registry says that it has a %s, and the set says nothing of one", c.GetName())
		case r.GetRelease() != "" && !release.Same(r.GetRelease(), t.Release):
			found("wrong_release", Critical, c.GetName(), "%s says it is %s, and the registry says %s", c.GetName(), Short(r.GetRelease()), Short(t.Release))
		}
	}
	for _, name := range sorted(said) {
		found("unexpected", Warning, name, "the set says that it has a %s, and the registry knows none", name)
	}
}

// platformHas compares the registry with what the platform keeps.
func platformHas(s Seen, t Tenant, found foundFunc) {
	kept := map[string]platform.ComponentStatus{}
	for _, c := range s.Platform {
		kept[c.Name] = c
	}
	for _, c := range s.Status.GetServiceSet().GetComponents() {
		k, ok := kept[c.GetName()]
		delete(kept, c.GetName())
		switch {
		case !ok:
			found("not_kept", Critical, c.GetName(), "the platform keeps no %s", c.GetName())
		case k.Release != "" && !release.Same(k.Release, t.Release):
			found("wrong_release_kept", Critical, c.GetName(), "the platform keeps %s at %s, and the registry says %s", c.GetName(), Short(k.Release), Short(t.Release))
		case k.State == platform.Failing:
			found("failing", Critical, c.GetName(), "%s keeps ending: %s", c.GetName(), k.Detail)
		}
	}
	for _, name := range sorted(kept) {
		found("extra", Warning, name, "the platform runs %s for it, which the registry knows nothing of", name)
	}
}

// Short is a release as a table has room for.
func Short(name string) string {
	version, digest, ok := strings.Cut(name, "@sha256:")
	const digits = 8
	if !ok || len(digest) < digits {
		return name
	}
	return version + "@" + digest[:digits]
}

func sorted[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
