package accesstest

import (
	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
)

// Purposes of entitlements, short.
const (
	Permission = discoveryv1.EntitlementPurpose_ENTITLEMENT_PURPOSE_PERMISSION
	Membership = discoveryv1.EntitlementPurpose_ENTITLEMENT_PURPOSE_MEMBERSHIP
	Assumption = discoveryv1.EntitlementPurpose_ENTITLEMENT_PURPOSE_ASSUMPTION
)

// scope of every record made here.
const scope = "test"

// Ref names a resource.
func Ref(resourceType, externalID string) *discoveryv1.ResourceRef {
	return &discoveryv1.ResourceRef{Type: resourceType, ExternalId: externalID}
}

// On names an entitlement on a resource.
func On(resource *discoveryv1.ResourceRef, name string) *discoveryv1.EntitlementRef {
	return &discoveryv1.EntitlementRef{Resource: resource, Name: name}
}

// Resource is a record of a resource.
func Resource(r *discoveryv1.ResourceRef, account bool) *discoveryv1.Record {
	return &discoveryv1.Record{Scope: scope, Kind: &discoveryv1.Record_Resource{Resource: &discoveryv1.Resource{
		Type: r.GetType(), ExternalId: r.GetExternalId(), DisplayName: r.GetExternalId(), Account: account,
	}}}
}

// Entitlement is a record of an entitlement.
func Entitlement(e *discoveryv1.EntitlementRef, purpose discoveryv1.EntitlementPurpose) *discoveryv1.Record {
	return &discoveryv1.Record{Scope: scope, Kind: &discoveryv1.Record_Entitlement{Entitlement: &discoveryv1.Entitlement{
		Resource: e.GetResource(), Name: e.GetName(), Purpose: purpose,
	}}}
}

// Grant is a record of a grant.
func Grant(principal *discoveryv1.ResourceRef, e *discoveryv1.EntitlementRef, notInherited bool) *discoveryv1.Record {
	return &discoveryv1.Record{Scope: scope, Kind: &discoveryv1.Record_Grant{Grant: &discoveryv1.Grant{
		Principal: principal, Entitlement: e, NotInherited: notInherited,
	}}}
}

// Expansion is a record of an expansion.
func Expansion(from, to *discoveryv1.EntitlementRef, act bool, reason string) *discoveryv1.Record {
	return &discoveryv1.Record{Scope: scope, Kind: &discoveryv1.Record_Expansion{Expansion: &discoveryv1.Expansion{
		From: from, To: to, Assumption: act, Reason: reason,
	}}}
}

// company is a graph with every kind of edge: nested groups in a cycle, a role that is inherited and one that must be taken, an
// attribute that members do not have, expansions at once and by an act, and an entitlement that leads nowhere.
func company() []*discoveryv1.Record {
	ann, bob, cy := Ref("user", "ann"), Ref("user", "bob"), Ref("user", "cy")
	staff, ops, root := Ref("group", "staff"), Ref("group", "ops"), Ref("role", "root")
	payments, cards := Ref("table", "payments"), Ref("table", "cards")
	read, write, number := On(payments, "SELECT"), On(payments, "UPDATE"), On(cards, "SELECT")
	superuser := On(Ref("server", "main"), "superuser")
	return []*discoveryv1.Record{
		Resource(ann, true), Resource(bob, true), Resource(cy, true), Resource(staff, false), Resource(ops, false), Resource(root, false),
		Resource(payments, false), Resource(cards, false), Resource(Ref("server", "main"), false),
		Entitlement(On(staff, "member"), Membership), Entitlement(On(ops, "member"), Membership), Entitlement(On(root, "member"), Membership),
		Entitlement(On(ops, "set"), Assumption), Entitlement(On(root, "set"), Assumption),
		Entitlement(read, Permission), Entitlement(write, Permission), Entitlement(number, Permission), Entitlement(superuser, Permission),
		Grant(ann, On(staff, "member"), false), Grant(staff, On(ops, "member"), false), Grant(ops, On(staff, "member"), false),
		Grant(bob, On(ops, "set"), true), Grant(ops, On(root, "set"), true), Grant(cy, On(root, "member"), false),
		Grant(staff, read, false), Grant(ops, write, false), Grant(root, superuser, true), Grant(ann, read, false),
		Expansion(superuser, read, false, "superuser"), Expansion(superuser, number, false, "superuser"),
		Expansion(write, read, true, "can read what it writes"), Expansion(superuser, On(root, "set"), false, "superuser"),
	}
}
