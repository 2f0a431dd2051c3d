package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"strings"
	"unicode/utf8"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	"a3os.app/services/discoveryworker/internal/connector"
)

const (
	permission = discoveryv1.EntitlementPurpose_ENTITLEMENT_PURPOSE_PERMISSION
	membership = discoveryv1.EntitlementPurpose_ENTITLEMENT_PURPOSE_MEMBERSHIP
	assumption = discoveryv1.EntitlementPurpose_ENTITLEMENT_PURPOSE_ASSUMPTION

	rolesScope = "roles"
	// batch is how many records are handed over at once.
	batch = 1000
	// longest external id or display name, and reason, that a record can hold.
	longestName   = 1024
	longestReason = 1000
)

func databaseScope(name string) string { return "database/" + clean(name) }

// emitter collects the records of one scope.
type emitter struct {
	scope   string
	sink    connector.Sink
	records []*discoveryv1.Record
}

// flush hands over what was collected.
func (e *emitter) flush(ctx context.Context) error {
	for len(e.records) > 0 {
		n := min(batch, len(e.records))
		if err := e.sink.Emit(ctx, e.records[:n]...); err != nil {
			return err
		}
		e.records = e.records[n:]
	}
	e.records = nil
	return nil
}

func (e *emitter) add(r *discoveryv1.Record) {
	r.Scope = e.scope
	e.records = append(e.records, r)
}

func (e *emitter) resource(r *discoveryv1.Resource) {
	r.DisplayName = fit(r.GetDisplayName(), longestName)
	e.add(&discoveryv1.Record{Kind: &discoveryv1.Record_Resource{Resource: r}})
}

func (e *emitter) entitlement(on *discoveryv1.ResourceRef, name string, purpose discoveryv1.EntitlementPurpose, description string) *discoveryv1.EntitlementRef {
	e.add(&discoveryv1.Record{Kind: &discoveryv1.Record_Entitlement{Entitlement: &discoveryv1.Entitlement{
		Resource: on, Name: name, Purpose: purpose, Description: description,
	}}})
	return held(on, name)
}

// grant is inherited by the members of the principal.
func (e *emitter) grant(to *discoveryv1.ResourceRef, what *discoveryv1.EntitlementRef, grantable bool, reason string) {
	e.add(&discoveryv1.Record{Kind: &discoveryv1.Record_Grant{Grant: &discoveryv1.Grant{
		Principal: to, Entitlement: what, Grantable: grantable, Reason: fit(reason, longestReason),
	}}})
}

// grantNotInherited is had by the principal alone, and by whoever takes its place.
func (e *emitter) grantNotInherited(to *discoveryv1.ResourceRef, what *discoveryv1.EntitlementRef, reason string) {
	e.add(&discoveryv1.Record{Kind: &discoveryv1.Record_Grant{Grant: &discoveryv1.Grant{
		Principal: to, Entitlement: what, NotInherited: true, Reason: fit(reason, longestReason),
	}}})
}

func (e *emitter) expansion(from, to *discoveryv1.EntitlementRef, reason string) {
	e.add(&discoveryv1.Record{Kind: &discoveryv1.Record_Expansion{Expansion: &discoveryv1.Expansion{From: from, To: to, Reason: fit(reason, longestReason)}}})
}

func (e *emitter) expansionByAct(from, to *discoveryv1.EntitlementRef, reason string) {
	e.add(&discoveryv1.Record{Kind: &discoveryv1.Record_Expansion{Expansion: &discoveryv1.Expansion{
		From: from, To: to, Assumption: true, Reason: fit(reason, longestReason),
	}}})
}

func ref(resourceType, externalID string) *discoveryv1.ResourceRef {
	return &discoveryv1.ResourceRef{Type: resourceType, ExternalId: externalID}
}

func held(on *discoveryv1.ResourceRef, name string) *discoveryv1.EntitlementRef {
	return &discoveryv1.EntitlementRef{Resource: on, Name: name}
}

// plainName needs no quotes for being told from its neighbours.
var plainName = regexp.MustCompile(`^[a-z_][a-z0-9_$]*$`)

// quote writes an identifier as SQL does, so that dots within names and between them differ.
func quote(name string) string {
	if plainName.MatchString(name) {
		return name
	}
	return `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
}

// qualified joins identifiers by dots.
func qualified(names ...string) string {
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = quote(n)
	}
	return strings.Join(quoted, ".")
}

// clean replaces what isn't UTF-8: a server with encoding SQL_ASCII hands out any bytes.
func clean(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// fit shortens what is longer than most characters. What is cut off is told by a digest, so that two that differ still do.
func fit(s string, most int) string {
	s = clean(s)
	if len(s) <= most || utf8.RuneCountInString(s) <= most {
		return s
	}
	sum := sha256.Sum256([]byte(s))
	const digits = 16
	return string([]rune(s)[:most-digits-1]) + "…" + hex.EncodeToString(sum[:digits/2])
}
