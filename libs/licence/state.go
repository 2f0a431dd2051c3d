package licence

import (
	"cmp"
	"fmt"
	"iter"
	"slices"
	"time"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
)

// warning is how long before its end a licence is said to expire.
const warning = 30 * 24 * time.Hour

// Why a licensed method is refused. Each carries `feature`, `state` and, where there is a time, `since` as details that programs read.
var (
	ErrNone      = fault.Declare(fault.FailedPrecondition, "LICENCE_MISSING", "this tenant has no licence")
	ErrNotYet    = fault.Declare(fault.FailedPrecondition, "LICENCE_NOT_YET_VALID", "this tenant's licence does not hold yet")
	ErrExpired   = fault.Declare(fault.FailedPrecondition, "LICENCE_EXPIRED", "this tenant's licence has expired")
	ErrFeature   = fault.Declare(fault.FailedPrecondition, "LICENCE_FEATURE", "this tenant's licence has not this feature")
	ErrConnector = fault.Declare(fault.FailedPrecondition, "LICENCE_CONNECTOR", "this tenant's licence has not this kind of system")
	ErrSeats     = fault.Declare(fault.FailedPrecondition, "LICENCE_SEATS", "every seat of this tenant's licence is taken")
)

// Worth is what a licence is worth at a moment.
type Worth struct {
	// Licence that is held; nil for none.
	Licence *registryv1.Licence
	// State it is in.
	State registryv1.LicenceState
	// Since when; zero where there is no licence.
	Since time.Time
}

// Newest is the first of a set's licences, the newest first; nil for none.
func Newest(held iter.Seq[*registryv1.Licence]) *registryv1.Licence {
	for l := range held {
		return l
	}
	return nil
}

// Among is what a set's licences, the newest first, are worth at a moment. It is judged by the newest that has begun to hold, for the next one may
// be installed early; where none has begun, by the newest. Where the next one is there and leaves no gap, nothing expires.
func Among(held iter.Seq[*registryv1.Licence], now time.Time) Worth {
	var newest, holds *registryv1.Licence
	for l := range held {
		if newest == nil {
			newest = l
		}
		if !now.Before(l.GetValidFrom().AsTime()) {
			holds = l
			break
		}
	}
	w := At(cmp.Or(holds, newest), now)
	if w.State == registryv1.LicenceState_LICENCE_STATE_EXPIRING && newest != holds && !newest.GetValidFrom().AsTime().After(holds.GetValidUntil().AsTime()) {
		w.State, w.Since = registryv1.LicenceState_LICENCE_STATE_VALID, holds.GetValidFrom().AsTime()
	}
	return w
}

// At is what a licence, nil for none, is worth at a moment.
func At(l *registryv1.Licence, now time.Time) Worth {
	if l == nil {
		return Worth{State: registryv1.LicenceState_LICENCE_STATE_NONE}
	}
	from, until := l.GetValidFrom().AsTime(), l.GetValidUntil().AsTime()
	ended := GraceEnds(l)
	w := Worth{Licence: l}
	switch {
	case now.Before(from):
		// Refused since it was issued: nothing that came before is known of.
		w.State, w.Since = registryv1.LicenceState_LICENCE_STATE_NOT_YET, l.GetIssuedAt().AsTime()
	case !now.Before(ended):
		w.State, w.Since = registryv1.LicenceState_LICENCE_STATE_EXPIRED, ended
	case !now.Before(until):
		w.State, w.Since = registryv1.LicenceState_LICENCE_STATE_GRACE, until
	case !now.Before(until.Add(-warning)):
		w.State, w.Since = registryv1.LicenceState_LICENCE_STATE_EXPIRING, later(from, until.Add(-warning))
	default:
		w.State, w.Since = registryv1.LicenceState_LICENCE_STATE_VALID, from
	}
	return w
}

// GraceEnds is when a licence, with its days of grace, has ended.
func GraceEnds(l *registryv1.Licence) time.Time {
	return l.GetValidUntil().AsTime().AddDate(0, 0, int(l.GetGraceDays()))
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// Message says what the state means, and what to do.
func (w Worth) Message() string {
	until := Day(w.Licence.GetValidUntil().AsTime())
	switch w.State {
	case registryv1.LicenceState_LICENCE_STATE_NONE:
		return "This tenant has no licence: what is licensed can't be changed. Reading, export, the audit log, signing in and taking access away go on. Ask whoever runs AccessOS for you to issue one."
	case registryv1.LicenceState_LICENCE_STATE_NOT_YET:
		return fmt.Sprintf("The licence holds from %s.", Day(w.Licence.GetValidFrom().AsTime()))
	case registryv1.LicenceState_LICENCE_STATE_VALID:
		return fmt.Sprintf("The licence holds until %s.", until)
	case registryv1.LicenceState_LICENCE_STATE_EXPIRING:
		return fmt.Sprintf("The licence holds until %s: ask for the next one now.", until)
	case registryv1.LicenceState_LICENCE_STATE_GRACE:
		return fmt.Sprintf("The licence ended on %s. Everything goes on until %s; from then on what is licensed can't be changed. Ask for the next one now.", until, Day(GraceEnds(w.Licence)))
	case registryv1.LicenceState_LICENCE_STATE_EXPIRED:
		return fmt.Sprintf("The licence ended on %s: what is licensed can't be changed. Reading, export, the audit log, signing in and taking access away go on. Ask for the next one.", until)
	case registryv1.LicenceState_LICENCE_STATE_UNSPECIFIED:
	}
	return ""
}

// Day is how a moment is told to people: `2026-03-01 00:00 UTC`.
func Day(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }

// Allows is nil where a feature may be used for writing, and otherwise says since when not and what to do.
func (w Worth) Allows(feature string) error {
	const next = "ask a tenant admin to get the next licence; reading, export and the audit log go on"
	switch w.State {
	case registryv1.LicenceState_LICENCE_STATE_VALID, registryv1.LicenceState_LICENCE_STATE_EXPIRING, registryv1.LicenceState_LICENCE_STATE_GRACE:
	case registryv1.LicenceState_LICENCE_STATE_NOT_YET:
		return w.refuse(ErrNotYet, feature, "%s can't be changed before %s, when this tenant's licence begins to hold; reading, export and the audit log go on", feature, Day(w.Licence.GetValidFrom().AsTime()))
	case registryv1.LicenceState_LICENCE_STATE_EXPIRED:
		return w.refuse(ErrExpired, feature, "%s can't be changed since %s, when this tenant's licence expired: %s", feature, Day(w.Since), next)
	case registryv1.LicenceState_LICENCE_STATE_NONE, registryv1.LicenceState_LICENCE_STATE_UNSPECIFIED:
		return w.refuse(ErrNone, feature, "%s can't be changed, for this tenant has no licence: ask a tenant admin to get one; reading, export and the audit log go on", feature)
	}
	if !slices.Contains(w.Licence.GetFeatures(), feature) {
		return w.refuse(ErrFeature, feature, "%s is not in this tenant's plan %s: ask a tenant admin for a licence that has it", feature, w.Licence.GetPlan())
	}
	return nil
}

// AllowsConnector is nil where a kind of system may be connected.
func (w Worth) AllowsConnector(kind string) error {
	if c := w.Licence.GetConnectors(); slices.Contains(c, "*") || slices.Contains(c, kind) {
		return nil
	}
	return w.refuse(ErrConnector, kind, "systems of kind %s are not in this tenant's plan %s: ask a tenant admin for a licence that has them", kind, w.Licence.GetPlan())
}

// AllowsSeats is nil where so many people fit in.
func (w Worth) AllowsSeats(taken int64) error {
	if taken <= w.Licence.GetSeats() {
		return nil
	}
	return w.refuse(ErrSeats, "seats", "all %d seats of this tenant's licence are taken: deactivate somebody who left, or ask a tenant admin for a licence with more", w.Licence.GetSeats())
}

func (w Worth) refuse(kind *fault.Error, feature, format string, args ...any) error {
	e := kind.With(format, args...)
	e.Details = map[string]string{"feature": feature, "state": StateWord(w.State)}
	if !w.Since.IsZero() {
		e.Details["since"] = w.Since.UTC().Format(time.RFC3339)
	}
	return e
}
