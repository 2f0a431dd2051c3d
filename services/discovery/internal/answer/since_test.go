package answer_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"

	. "a3os.app/libs/access/accesstest"
	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/services/discovery/internal/answer"
	"a3os.app/services/discovery/internal/discoverytest"
)

// TestEveryAnswerSaysSinceWhen gives bob, who has read by a group since the first run, a grant of his own in the second, and takes the
// group's away in the third.
func TestEveryAnswerSaysSinceWhen(t *testing.T) {
	t.Parallel()
	c := newCompany(t)
	own := Grant(bob, read, false)
	more := append(databaseRecords(), own)
	second := c.Run(t, c.workspace, c.database, discoverytest.Slice{Records: more, Completed: []string{"test"}})
	less := slices.DeleteFunc(slices.Clone(more), func(r *discoveryv1.Record) bool {
		return r.GetGrant().GetPrincipal().GetExternalId() == "staff"
	})
	since := func(asOf *timestamppb.Timestamp) *timestamppb.Timestamp {
		for _, h := range c.holders(t, &discoveryv1.ListHoldersRequest{Resource: "payments", Entitlement: "SELECT", AsOf: asOf}).GetHolders() {
			if h.GetAccount().GetExternalId() == "bob" {
				return h.GetEntitlements()[0].GetSince()
			}
		}
		t.Fatalf("as of %v bob holds nothing", asOf)
		return nil
	}
	if got := since(nil); !got.AsTime().Equal(c.run.GetFinishedAt().AsTime()) {
		t.Errorf("bob has access since %v, want it since the first run, by the group: %v", got, c.run.GetFinishedAt())
	}
	ctx := c.In(t.Context(), c.workspace)
	why, err := c.answers.Explain(ctx, &discoveryv1.ExplainAccessRequest{Principal: "bob", Resource: "payments", Entitlement: "SELECT"})
	check(t, err)
	var ways []string
	for _, p := range why.GetPaths() {
		ways = append(ways, fmt.Sprintf("%d steps since run %d", len(p.GetSteps()), 1+map[bool]int{true: 1}[p.GetSince().AsTime().Equal(second.GetFinishedAt().AsTime())]))
	}
	if fmt.Sprint(ways) != "[1 steps since run 2 2 steps since run 1]" {
		t.Errorf("bob's ways are %q", ways)
	}
	c.Run(t, c.workspace, c.database, discoverytest.Slice{Records: less, Completed: []string{"test"}})
	if got := since(nil); !got.AsTime().Equal(second.GetFinishedAt().AsTime()) {
		t.Errorf("without the group bob has access since %v, want the second run, when his own grant was found: %v", got, second.GetFinishedAt())
	}
	if got := since(c.run.GetFinishedAt()); !got.AsTime().Equal(c.run.GetFinishedAt().AsTime()) {
		t.Errorf("as of the first run bob has access since %v", got)
	}
	reach, err := c.answers.Reaches(ctx, &discoveryv1.ListAccessRequest{Principal: "bob"})
	check(t, err)
	at := slices.IndexFunc(reach.GetReaches(), func(r *discoveryv1.Reach) bool { return r.GetResource().GetExternalId() == "acme.public.payments" })
	if at < 0 || !reach.GetReaches()[at].GetEntitlements()[0].GetSince().AsTime().Equal(second.GetFinishedAt().AsTime()) {
		t.Errorf("what bob reaches: %v", reach.GetReaches())
	}
}

// TestPersonsAreThoseOfTheTime has an address change hands: who was asked as of before is answered with the accounts of before.
func TestPersonsAreThoseOfTheTime(t *testing.T) {
	t.Parallel()
	c := newCompany(t)
	moved := databaseRecords()
	for _, r := range moved {
		if r.GetResource().GetExternalId() == "ann.admin" {
			r.GetResource().Attributes["email"] = "bob@acme.test"
		}
	}
	before := c.run.GetFinishedAt()
	then := func(principal string, asOf *timestamppb.Timestamp) string {
		res, err := c.answers.Reaches(c.In(t.Context(), c.workspace), &discoveryv1.ListAccessRequest{Principal: principal, AsOf: asOf})
		if fault.KindOf(err) == fault.NotFound {
			return "nobody"
		}
		check(t, err)
		var accounts []string
		for _, p := range res.GetPrincipals() {
			accounts = append(accounts, p.GetExternalId()+" of "+p.GetPerson().GetDisplayName())
		}
		slices.Sort(accounts)
		return strings.Join(accounts, ", ")
	}
	was := then("ann@acme.test", before)
	if !strings.Contains(was, "ann.admin") {
		t.Fatalf("ann's accounts are %s", was)
	}
	c.Run(t, c.workspace, c.database, discoverytest.Slice{Records: moved, Completed: []string{"test"}})
	if got := then("ann@acme.test", before); got != was {
		t.Errorf("ann as of the first run: %s, it was %s", got, was)
	}
	if got := then("ann@acme.test", nil); strings.Contains(got, "ann.admin") {
		t.Errorf("ann now: %s", got)
	}
	if got := then("bob@acme.test", nil); !strings.Contains(got, "ann.admin of Bob") && !strings.Contains(got, "ann.admin of Ann") {
		t.Errorf("bob now: %s", got)
	}
	// Everybody leaves the database: who they were is still known as of before.
	c.Run(t, c.workspace, c.database, discoverytest.Slice{Completed: []string{"test"}})
	c.Run(t, c.workspace, c.box, discoverytest.Slice{Completed: []string{"test"}})
	if got := then("bob@acme.test", nil); got != "nobody" {
		t.Errorf("bob, who left: %s", got)
	}
	if got := then("ann@acme.test", before); got != was {
		t.Errorf("ann as of the first run, after all left: %s, it was %s", got, was)
	}
}

// TestPagesAreOfOneAnswer publishes between the pages, and takes integrations away.
func TestPagesAreOfOneAnswer(t *testing.T) {
	t.Parallel()
	c := newCompany(t)
	w, i := id.NewWorkspace(), id.NewIntegration()
	c.Sources.Names[i] = "crowd"
	crowd := func(prefix string) []*discoveryv1.Record {
		records := []*discoveryv1.Record{Resource(payments, false), Entitlement(read, Permission)}
		for n := range 40 {
			u := Ref("user", fmt.Sprintf("%s%02d", prefix, n))
			records = append(records, Resource(u, true), Grant(u, read, false))
		}
		return records
	}
	c.Run(t, w, i, discoverytest.Slice{Records: crowd("a"), Completed: []string{"test"}})
	ctx := c.In(t.Context(), w)
	for name, ask := range map[string]func(token string) (names []string, next string, asOf *timestamppb.Timestamp, err error){
		"ListHolders": func(token string) (names []string, next string, asOf *timestamppb.Timestamp, err error) {
			// Each page is answered by a process of its own, which kept nothing.
			res, err := answer.New(c.DB, c.Pages, c.Sources).Holders(ctx, &discoveryv1.ListHoldersRequest{Resource: "acme.public.payments", PageSize: 7, PageToken: token})
			for _, h := range res.GetHolders() {
				names = append(names, h.GetAccount().GetExternalId())
			}
			return names, res.GetNextPageToken(), res.GetCompleteness().GetAsOf(), err
		},
		"ListResources": func(token string) (names []string, next string, asOf *timestamppb.Timestamp, err error) {
			res, err := c.answers.Resources(ctx, &discoveryv1.ListResourcesRequest{Type: "user", PageSize: 7, PageToken: token})
			for _, r := range res.GetResources() {
				names = append(names, r.GetExternalId())
			}
			return names, res.GetNextPageToken(), res.GetCompleteness().GetAsOf(), err
		},
		"ListGrants": func(token string) (names []string, next string, asOf *timestamppb.Timestamp, err error) {
			res, err := c.answers.Grants(ctx, &discoveryv1.ListGrantsRequest{PageSize: 7, PageToken: token})
			for _, g := range res.GetGrants() {
				names = append(names, g.GetPrincipal().GetExternalId())
			}
			return names, res.GetNextPageToken(), res.GetCompleteness().GetAsOf(), err
		},
	} {
		c.Run(t, w, i, discoverytest.Slice{Records: crowd("a"), Completed: []string{"test"}})
		var all []string
		var first *timestamppb.Timestamp
		for token, page := "", 0; page == 0 || token != ""; page++ {
			names, next, asOf, err := ask(token)
			check(t, err)
			if page == 0 {
				first = asOf
				c.Run(t, w, i, discoverytest.Slice{Records: crowd("b"), Completed: []string{"test"}})
			}
			if !asOf.AsTime().Equal(first.AsTime()) {
				t.Fatalf("%s: page %d stands on %v, the first stood on %v", name, page, asOf, first)
			}
			all, token = append(all, names...), next
		}
		slices.Sort(all)
		if len(all) != 40 || slices.ContainsFunc(all, func(n string) bool { return n[0] != 'a' }) || len(slices.Compact(all)) != 40 {
			t.Errorf("%s: the pages have %v, want the 40 accounts that the first page's answer had", name, all)
		}
	}
}

func TestAnAnswerNamesWhatWasNeverDiscoveredAndWhatFailed(t *testing.T) {
	t.Parallel()
	c := newCompany(t)
	never := id.NewIntegration()
	later := time.Now()
	c.Sources.Known = []*integrationsv1.KnownSource{
		{IntegrationId: c.database.String(), Name: "payroll db", CreatedAt: timestamppb.New(later.Add(-time.Hour))},
		{IntegrationId: c.box.String(), Name: "the box", CreatedAt: timestamppb.New(later.Add(-time.Hour))},
		{IntegrationId: never.String(), Name: "people", CreatedAt: timestamppb.New(later)},
	}
	problems := func(asOf *timestamppb.Timestamp) (map[string]string, *discoveryv1.Completeness) {
		got := c.holders(t, &discoveryv1.ListHoldersRequest{Resource: "payments", AsOf: asOf}).GetCompleteness()
		out := map[string]string{}
		for _, s := range got.GetSources() {
			out[s.GetIntegrationName()] = s.GetProblem()
		}
		return out, got
	}
	// The box goes by the name that it was given since, and what was not yet connected then is not missed.
	got, all := problems(nil)
	if all.GetComplete() || len(got) != 3 || got["people"] != "it was never discovered" || got["payroll db"] != "" || got["the box"] != "" {
		t.Errorf("with one that never ran: %q, complete: %v", got, all.GetComplete())
	}
	if got, all := problems(c.run.GetFinishedAt()); !all.GetComplete() && len(got) != 2 {
		t.Errorf("as of before it was connected: %q, complete: %v", got, all.GetComplete())
	}
	// A run that failed after a complete one: what is known is older, and the answer says so.
	run := c.Start(t, c.workspace, c.database)
	ctx := c.Job(t, run.GetId())
	_, err := c.Runs.BeginSlice(ctx, 1, 1)
	check(t, err)
	if got, _ := problems(nil); got["payroll db"] != "" {
		t.Errorf("while a run is under way: %q", got)
	}
	check(t, c.Runs.Fail(ctx, 1, "the server is away"))
	got, all = problems(nil)
	if all.GetComplete() || got["payroll db"] != "its newest run failed, what is known of it is of the run before: the server is away" {
		t.Errorf("after a run that failed: %q", got)
	}
	first := c.Start(t, c.workspace, never)
	if got, _ := problems(nil); got["people"] != "it was not discovered yet: its first run is under way" {
		t.Errorf("while its first run is under way: %q", got)
	}
	ctx = c.Job(t, first.GetId())
	_, err = c.Runs.BeginSlice(ctx, 1, 1)
	check(t, err)
	check(t, c.Runs.Fail(ctx, 1, "no upload"))
	if got, _ := problems(nil); got["people"] != "it was never discovered: its newest run failed, no upload" {
		t.Errorf("after its first run failed: %q", got)
	}
	c.Sources.Away = errors.New("integrations is away")
	if got, all := problems(nil); all.GetComplete() || !strings.Contains(all.GetProblem(), "could not be asked which integrations there are") || len(got) != 3 {
		t.Errorf("with integrations away: %q, %v", got, all)
	}
}

// TestAScopeThatWasNotReadToItsEndIsAGap has a connector neither finish a scope nor say why: nothing of it is closed, and answers say so.
func TestAScopeThatWasNotReadToItsEndIsAGap(t *testing.T) {
	t.Parallel()
	c := newCompany(t)
	run := c.Run(t, c.workspace, c.box, discoverytest.Slice{Records: boxRecords()[:1]})
	if run.GetState() != integrationsv1.RunState_RUN_STATE_PARTIAL || run.GetGrantsRemoved() != 0 || len(run.GetGaps()) != 1 || run.GetGaps()[0].GetReason() != "it was not read to its end" {
		t.Errorf("the run is %v", run)
	}
	got := c.holders(t, &discoveryv1.ListHoldersRequest{Resource: "payments"}).GetCompleteness()
	if got.GetComplete() || got.GetSources()[0].GetProblem() != "its newest run could not read everything" {
		t.Errorf("the answer says %v", got)
	}
}
