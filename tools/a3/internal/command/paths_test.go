package command_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"
)

func thing(kind, key, name string) *discoveryv1.ResourceView {
	return &discoveryv1.ResourceView{Type: kind, ExternalId: key, DisplayName: name, IntegrationName: "shop"}
}

// trust is completeness with data of a known age.
func trust(complete bool, sources ...*discoveryv1.Freshness) *discoveryv1.Completeness {
	return &discoveryv1.Completeness{Complete: complete, OldestPublishedAt: timestamppb.New(time.Now().Add(-190 * time.Second)), Sources: sources}
}

var march = timestamppb.New(time.Date(2026, 3, 1, 9, 30, 0, 0, time.Local))

var fresh = &discoveryv1.Freshness{IntegrationName: "shop", RunId: "run_1", State: integrationsv1.RunState_RUN_STATE_COMPLETE}

func same(t *testing.T, got, want string) {
	t.Helper()
	if got = strings.TrimSpace(got); got != strings.TrimSpace(want) {
		t.Errorf("shown:\n%s\nwant:\n%s", got, strings.TrimSpace(want))
	}
}

func TestWhyReadsAsChainsWithReasons(t *testing.T) {
	f := newFake(t)
	alice, staff, orders := thing("role", "alice", "alice"), thing("role", "staff", "staff"), thing("table", "app.public.orders", "public.orders")
	server := thing("server", "shop", "")
	f.answers["ExplainAccess"] = &discoveryv1.ExplainAccessResponse{
		Principals: []*discoveryv1.ResourceView{alice}, Resource: orders, Completeness: trust(true, fresh, fresh),
		Paths: []*discoveryv1.Path{
			{Since: march, Steps: []*discoveryv1.Step{
				{Principal: alice, Entitlement: "member", Resource: staff, Reason: "GRANT by postgres"},
				{Principal: staff, Entitlement: "SELECT", Resource: orders, Reason: "GRANT by app"},
			}},
			{Assumption: true, Steps: []*discoveryv1.Step{
				{Principal: alice, Entitlement: "set", Resource: staff, Assumption: true, Reason: "GRANT by postgres"},
				{Principal: staff, Entitlement: "superuser", Resource: server, Reason: "SUPERUSER"},
				{Entitlement: "SELECT", Resource: orders, Implied: true, Reason: "a superuser passes every check"},
			}},
		},
	}
	same(t, a3(t, "access", "why", "alice", "orders").out, `
alice → table app.public.orders: 2 paths

1  alice → SELECT on app.public.orders (2 steps, since 2026-03-01 09:30:00)
   alice is a member of role staff              GRANT by postgres
   staff has SELECT on table app.public.orders  GRANT by app

2  alice → SELECT on app.public.orders (3 steps, by acting)
   alice can act as role staff (set)                  GRANT by postgres
   staff has superuser on server shop                 SUPERUSER
   superuser gives SELECT on table app.public.orders  a superuser passes every check

complete · 2 systems · oldest data 3 min old`)
}

func TestNoPathIsAnAnswer(t *testing.T) {
	f := newFake(t)
	f.answers["ExplainAccess"] = &discoveryv1.ExplainAccessResponse{Resource: thing("app", "Payroll", "Payroll"), Completeness: trust(true, fresh)}
	r := a3(t, "access", "why", "alice", "Payroll", "-e", "admin")
	if r.code != 0 {
		t.Errorf("got %+v", r)
	}
	same(t, r.out, "alice has no access to admin on app Payroll\ncomplete · 1 system · oldest data 3 min old")
}

func TestWhoSaysHowEachHasAccess(t *testing.T) {
	f := newFake(t)
	bob := thing("user", "b.b", "Bob B")
	bob.Person = &discoveryv1.Person{DisplayName: "Bob B"}
	locked := thing("role", "carol", "carol")
	locked.Attributes = map[string]string{"status": "locked"}
	f.answers["ListHolders"] = &discoveryv1.ListHoldersResponse{
		Resource: thing("table", "app.public.orders", "public.orders"), Persons: 1, Accounts: 2, Completeness: trust(true, fresh),
		Holders: []*discoveryv1.Holder{
			{Account: bob, Entitlements: []*discoveryv1.HeldEntitlement{
				{Entitlement: "INSERT", Direct: true, Distance: 1, Since: march}, {Entitlement: "SELECT", Direct: true, Distance: 1, Since: march}, {Entitlement: "DELETE", Assumption: true, Distance: 3},
			}},
			{Account: locked, Entitlements: []*discoveryv1.HeldEntitlement{{Entitlement: "SELECT", Distance: 2}}},
		},
	}
	same(t, a3(t, "access", "who", "orders").out, `
table app.public.orders in shop: 1 person, 2 accounts
PERSON  ACCOUNT         SYSTEM  ENTITLEMENT     HOW                 SINCE
-       carol (locked)  shop    SELECT          via 2 steps         -
Bob B   b.b             shop    DELETE          by acting, 3 steps  -
Bob B   b.b             shop    INSERT, SELECT  direct              2026-03-01 09:30:00
complete · 1 system · oldest data 3 min old`)
}

func TestFooterSaysWhatIsMissingAndWhy(t *testing.T) {
	f := newFake(t)
	f.resources = []*discoveryv1.ResourceView{thing("app", "Payroll", "Payroll")}
	c := trust(false, fresh, &discoveryv1.Freshness{IntegrationName: "hr", Problem: "it was never discovered"},
		&discoveryv1.Freshness{IntegrationName: "crm", Problem: "it was never discovered: its newest run failed, the server is away", NewestRunId: "run_3"}, &discoveryv1.Freshness{
			IntegrationName: "box", RunId: "run_2", State: integrationsv1.RunState_RUN_STATE_PARTIAL, Problem: "its newest run could not read everything",
			PublishedAt: timestamppb.New(time.Now().Add(-190 * time.Second)),
			Gaps:        []*discoveryv1.Gap{{Scope: "sudoers", Reason: "/etc/sudoers: permission denied"}},
		})
	c.Problem = "it could not be asked which integrations there are"
	f.answers["completeness"] = c
	_, got, _ := strings.Cut(a3(t, "access", "list").out, "incomplete")
	same(t, "incomplete"+got, `
incomplete · 4 systems · oldest data 3 min old
  hr: it was never discovered: run `+"`a3 discovery run hr`"+`
  crm: it was never discovered: its newest run failed, the server is away (see `+"`a3 discovery status crm`"+`)
  box: its newest run could not read everything (what is known is 3 min old)
    not read: /etc/sudoers: permission denied (sudoers)
  it could not be asked which integrations there are`)
}

func TestAsOfIsReadInEveryForm(t *testing.T) {
	f := newFake(t)
	for s, want := range map[string]time.Time{
		"2026-10-01":           time.Date(2026, 10, 1, 0, 0, 0, 0, time.Local),
		"2026-10-01T09:30:00Z": time.Date(2026, 10, 1, 9, 30, 0, 0, time.UTC),
		"36h":                  time.Now().Add(-36 * time.Hour),
	} {
		if r := a3(t, "access", "list", "--as-of", s); r.code != 0 {
			t.Fatalf("%s: %+v", s, r)
		}
		if got := last[discoveryv1.ListResourcesRequest](t, f, "ListResources").GetAsOf().AsTime(); got.Sub(want).Abs() > time.Minute {
			t.Errorf("%s was asked as %s", s, got)
		}
	}
}
