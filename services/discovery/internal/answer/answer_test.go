package answer_test

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"

	"a3os.app/libs/access"
	. "a3os.app/libs/access/accesstest"
	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/services/discovery/internal/answer"
	"a3os.app/services/discovery/internal/discoverytest"
)

// company is a workspace with two integrations: a database and a machine. Ann has an account in both, and one more in the database.
type company struct {
	*discoverytest.Env
	answers       *answer.Answers
	workspace     id.Workspace
	database, box id.Integration
	run           *discoveryv1.Run
}

var (
	ann, annAdmin, bob, dan = Ref("user", "ann"), Ref("user", "ann.admin"), Ref("user", "bob"), Ref("user", "dan")
	staff, ops              = Ref("group", "staff"), Ref("role", "ops")
	payments, cards         = Ref("table", "acme.public.payments"), Ref("table", "acme.public.cards")
	read, write             = On(payments, "SELECT"), On(payments, "UPDATE")
)

func newCompany(t *testing.T) *company {
	t.Helper()
	c := &company{Env: discoverytest.New(t), workspace: id.NewWorkspace(), database: id.NewIntegration(), box: id.NewIntegration()}
	c.Sources.Names = map[id.Integration]string{c.database: "payroll db", c.box: "box"}
	c.answers = answer.New(c.DB, c.Pages, c.Sources)
	c.run = c.Run(t, c.workspace, c.database, discoverytest.Slice{Records: databaseRecords(), Completed: []string{"test"}})
	c.Run(t, c.workspace, c.box, discoverytest.Slice{Records: boxRecords(), Completed: []string{"test"}})
	return c
}

func named(r *discoveryv1.Record, display string, attributes ...string) *discoveryv1.Record {
	r.GetResource().DisplayName = display
	for i := 0; i < len(attributes); i += 2 {
		if r.GetResource().Attributes == nil {
			r.GetResource().Attributes = map[string]string{}
		}
		r.GetResource().Attributes[attributes[i]] = attributes[i+1]
	}
	return r
}

func because(r *discoveryv1.Record, reason string) *discoveryv1.Record {
	r.GetGrant().Reason = reason
	return r
}

func databaseRecords() []*discoveryv1.Record {
	return []*discoveryv1.Record{
		named(Resource(ann, true), "Ann Archer", "email", "Ann@Acme.test"), named(Resource(annAdmin, true), "Ann Archer", "email", "ann@acme.test"),
		named(Resource(bob, true), "Bob", "email", "bob@acme.test", "login", "robert"), named(Resource(dan, true), "", "status", "locked"),
		Resource(staff, false), Resource(ops, false), named(Resource(payments, false), "payments"), named(Resource(cards, false), "cards"),
		Entitlement(On(staff, "member"), Membership), Entitlement(On(ops, "set"), Assumption),
		Entitlement(read, Permission), Entitlement(write, Permission), Entitlement(On(cards, "SELECT"), Permission),
		Grant(ann, On(staff, "member"), false), Grant(bob, On(staff, "member"), false), because(Grant(ann, read, false), "GRANT by dba"),
		Grant(staff, read, false), Grant(annAdmin, On(ops, "set"), true), Grant(ops, write, false), Grant(dan, On(cards, "SELECT"), false),
		Expansion(write, read, false, "who updates reads"),
	}
}

func boxRecords() []*discoveryv1.Record {
	root, unixAnn := Ref("user", "root"), Ref("user", "ann")
	sudo := On(root, "sudo")
	return []*discoveryv1.Record{
		Resource(root, true), named(Resource(unixAnn, true), "ann"), named(Resource(Ref("group", "root"), false), "root"),
		named(Resource(Ref("user", "Root"), true), "someone else"), named(Resource(Ref("user", "eve"), true), "Eve", "email", "eve@acme.test"),
		Resource(Ref("host", "box"), false),
		Entitlement(sudo, Assumption), Entitlement(On(Ref("host", "box"), "all"), Permission),
		Grant(unixAnn, sudo, false), Grant(root, On(Ref("host", "box"), "all"), false),
	}
}

func (c *company) id(i id.Integration, r *discoveryv1.ResourceRef) string {
	return access.ResourceID(i, r.GetType(), r.GetExternalId()).String()
}

func (c *company) holders(t *testing.T, req *discoveryv1.ListHoldersRequest) *discoveryv1.ListHoldersResponse {
	t.Helper()
	res, err := c.answers.Holders(c.In(t.Context(), c.workspace), req)
	check(t, err)
	return res
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// said is an entitlement as a test writes it: `SELECT direct 1`, `UPDATE by acting 2`.
func said(h *discoveryv1.HeldEntitlement) string {
	out := h.GetEntitlement()
	if h.GetDirect() {
		out += " direct"
	}
	if h.GetAssumption() {
		out += " by acting"
	}
	return out + " " + strconv.Itoa(int(h.GetDistance()))
}

func saidAll(held []*discoveryv1.HeldEntitlement) string {
	var out []string
	for _, h := range held {
		out = append(out, said(h))
	}
	return strings.Join(out, ", ")
}

func TestHoldersAreAccountsWithAllTheyHoldAndPersonsCountOnce(t *testing.T) {
	t.Parallel()
	c := newCompany(t)
	res := c.holders(t, &discoveryv1.ListHoldersRequest{Resource: "payments"})
	got := map[string]string{}
	for _, h := range res.GetHolders() {
		got[h.GetAccount().GetExternalId()] = saidAll(h.GetEntitlements())
		if h.GetAccount().GetIntegrationName() != "payroll db" || !h.GetAccount().GetAccount() || h.GetAccount().GetSince() == nil {
			t.Errorf("holder %v: want an account of the database, with the time it was first seen", h.GetAccount())
		}
	}
	want := map[string]string{"ann": "SELECT direct 1", "ann.admin": "SELECT by acting 3, UPDATE by acting 2", "bob": "SELECT 2"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("holders (-want +got):\n%s", d)
	}
	if res.GetAccounts() != 3 || res.GetPersons() != 2 {
		t.Errorf("%d accounts, %d persons; want 3 and 2", res.GetAccounts(), res.GetPersons())
	}
	if res.GetResource().GetExternalId() != "acme.public.payments" || !res.GetCompleteness().GetComplete() {
		t.Errorf("resource %v, completeness %v", res.GetResource(), res.GetCompleteness())
	}
	res = c.holders(t, &discoveryv1.ListHoldersRequest{Resource: "payments", Entitlement: "UPDATE"})
	if len(res.GetHolders()) != 1 || saidAll(res.GetHolders()[0].GetEntitlements()) != "UPDATE by acting 2" {
		t.Errorf("holders of UPDATE: %v", res.GetHolders())
	}
	_, err := c.answers.Holders(c.In(t.Context(), c.workspace), &discoveryv1.ListHoldersRequest{Resource: "payments", Entitlement: "update"})
	if !errors.Is(err, answer.ErrNoEntitlement) || !strings.Contains(err.Error(), "SELECT, UPDATE") {
		t.Errorf("an entitlement that isn't there: %v, want %v with those that are", err, answer.ErrNoEntitlement)
	}
}

func TestExplanationHasEveryPathShortestFirst(t *testing.T) {
	t.Parallel()
	c := newCompany(t)
	ctx := c.In(t.Context(), c.workspace)
	res, err := c.answers.Explain(ctx, &discoveryv1.ExplainAccessRequest{Principal: "ann@acme.test", Resource: "table:payments"})
	check(t, err)
	var got []string
	for _, p := range res.GetPaths() {
		var steps []string
		for _, s := range p.GetSteps() {
			step := s.GetPrincipal().GetExternalId() + " " + s.GetEntitlement() + " on " + s.GetResource().GetExternalId()
			if s.GetAssumption() {
				step += " by acting"
			}
			if s.GetImplied() {
				step += " implied"
			}
			if s.GetReason() != "" {
				step += " (" + s.GetReason() + ")"
			}
			if s.GetSince() == nil {
				t.Errorf("step %q does not say since when", step)
			}
			steps = append(steps, step)
		}
		got = append(got, strings.Join(steps, "; "))
	}
	want := []string{
		"ann SELECT on acme.public.payments (GRANT by dba)",
		"ann member on staff; staff SELECT on acme.public.payments",
		"ann.admin set on ops by acting; ops UPDATE on acme.public.payments",
		"ann.admin set on ops by acting; ops UPDATE on acme.public.payments; ops SELECT on acme.public.payments implied (who updates reads)",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("paths (-want +got):\n%s", d)
	}
	if len(res.GetPrincipals()) != 3 || res.GetTruncated() || res.GetPaths()[0].GetAssumption() || !res.GetPaths()[2].GetAssumption() {
		t.Errorf("%d principals, truncated %t; want Ann's three accounts and all paths", len(res.GetPrincipals()), res.GetTruncated())
	}
	res, err = c.answers.Explain(ctx, &discoveryv1.ExplainAccessRequest{Principal: "ann@acme.test", Resource: "payments", MaxPaths: 3})
	check(t, err)
	if len(res.GetPaths()) != 3 || !res.GetTruncated() {
		t.Errorf("%d paths, truncated %t; want 3 of 4 and a word on it", len(res.GetPaths()), res.GetTruncated())
	}
	res, err = c.answers.Explain(ctx, &discoveryv1.ExplainAccessRequest{Principal: "dan", Resource: "payments"})
	if err != nil || len(res.GetPaths()) != 0 || res.GetCompleteness() == nil {
		t.Errorf("no access: %v, %v; want no path and no error", res, err)
	}
}

func TestAccessOfAPersonIsThatOfAllTheirAccounts(t *testing.T) {
	t.Parallel()
	c := newCompany(t)
	ctx := c.In(t.Context(), c.workspace)
	first, err := c.answers.Reaches(ctx, &discoveryv1.ListAccessRequest{Principal: "ann@acme.test"})
	check(t, err)
	got := map[string]string{}
	for _, r := range first.GetReaches() {
		got[r.GetResource().GetIntegrationName()+"/"+r.GetResource().GetExternalId()] = saidAll(r.GetEntitlements())
	}
	want := map[string]string{
		"payroll db/staff": "member direct 1", "payroll db/ops": "set direct 1",
		"payroll db/acme.public.payments": "SELECT direct 1, UPDATE by acting 2",
		"box/root":                        "sudo direct 1", "box/box": "all by acting 2",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("access (-want +got):\n%s", d)
	}
	person := first.GetPrincipals()[0].GetPerson()
	var joined []string
	for _, p := range first.GetPrincipals() {
		joined = append(joined, p.GetIntegrationName()+"/"+p.GetExternalId()+" by "+p.GetPerson().GetJoinedBy())
	}
	slices.Sort(joined)
	if d := cmp.Diff([]string{"box/ann by login", "payroll db/ann by email", "payroll db/ann.admin by email"}, joined); d != "" {
		t.Errorf("accounts of %v (-want +got):\n%s", person, d)
	}
	byID, err := c.answers.Reaches(ctx, &discoveryv1.ListAccessRequest{Principal: person.GetId()})
	check(t, err)
	if d := cmp.Diff(len(first.GetReaches()), len(byID.GetReaches())); d != "" {
		t.Errorf("by the person's id the answer differs: %s", d)
	}
}

func TestNamesFindOneThingOrSayWhich(t *testing.T) {
	t.Parallel()
	c := newCompany(t)
	ctx := c.In(t.Context(), c.workspace)
	for text, want := range map[string]string{
		c.id(c.database, payments):        "acme.public.payments",
		"acme.public.payments":            "acme.public.payments",
		"ACME.public.payments":            "acme.public.payments",
		"Payments":                        "acme.public.payments",
		"table:payments":                  "acme.public.payments",
		"payroll db/table:payments":       "acme.public.payments",
		c.database.String() + "/role:ops": "ops",
		"group:root":                      "root",
		"box/user:root":                   "root",
		"user:Root":                       "Root",
		"robert":                          "bob",
		"bob@acme.test":                   "bob",
	} {
		res, err := c.answers.Holders(ctx, &discoveryv1.ListHoldersRequest{Resource: text})
		if err != nil || res.GetResource().GetExternalId() != want {
			t.Errorf("%q: %v, %v; want %s", text, res.GetResource(), err, want)
		}
	}
	_, err := c.answers.Holders(ctx, &discoveryv1.ListHoldersRequest{Resource: "root"})
	tells := []string{
		"user root (" + c.id(c.box, Ref("user", "root")) + ") in box", "group root (" + c.id(c.box, Ref("group", "root")) + ") in box",
	}
	if !errors.Is(err, answer.ErrAmbiguous) || fault.KindOf(err) != fault.FailedPrecondition || !strings.Contains(err.Error(), tells[0]) || !strings.Contains(err.Error(), tells[1]) {
		t.Errorf("two things of one name: %v, want %q", err, tells)
	}
	_, err = c.answers.Holders(ctx, &discoveryv1.ListHoldersRequest{Resource: "user:ann"})
	if !errors.Is(err, answer.ErrAmbiguous) {
		t.Errorf("accounts in two systems: %v, want %v", err, answer.ErrAmbiguous)
	}
	for principal, accounts := range map[string]int{
		"root": 1, "user:ann": 3, "Ann Archer": 3, "payroll db/user:ann": 1, "ann.admin": 1, "ops": 1, c.id(c.box, Ref("user", "ann")): 1, "Bob": 1,
		"eve@acme.test": 1,
	} {
		res, err := c.answers.Reaches(ctx, &discoveryv1.ListAccessRequest{Principal: principal})
		if err != nil || len(res.GetPrincipals()) != accounts {
			t.Errorf("principal %q: %d accounts, %v; want %d", principal, len(res.GetPrincipals()), err, accounts)
		}
	}
	for _, text := range []string{"nobody", "table:nothing", "elsewhere/table:payments", "nobody@acme.test", "per_", "res_x", "%", "a\x00b"} {
		_, err := c.answers.Reaches(ctx, &discoveryv1.ListAccessRequest{Principal: text})
		if fault.KindOf(err) != fault.NotFound {
			t.Errorf("%q: %v, want not found", text, err)
		}
	}
}

func TestAmbiguityNamesTenCandidates(t *testing.T) {
	t.Parallel()
	c := newCompany(t)
	w := id.NewWorkspace()
	var records []*discoveryv1.Record
	for i := range 30 {
		records = append(records, named(Resource(Ref("table", string(rune('a'+i))), false), "many"))
	}
	c.Run(t, w, c.database, discoverytest.Slice{Records: records, Completed: []string{"test"}})
	_, err := c.answers.Holders(c.In(t.Context(), w), &discoveryv1.ListHoldersRequest{Resource: "many"})
	if err == nil || strings.Count(err.Error(), "(res_") != 10 || !strings.Contains(err.Error(), "and 20 more") {
		t.Errorf("30 things of one name: %v, want ten of them and how many more", err)
	}
}

func TestAnswerIsAsOfATime(t *testing.T) {
	t.Parallel()
	c := newCompany(t)
	before := c.run.GetFinishedAt()
	without := slices.DeleteFunc(databaseRecords(), func(r *discoveryv1.Record) bool {
		return r.GetGrant().GetPrincipal().GetExternalId() == "bob" || r.GetResource().GetExternalId() == "bob"
	})
	second := c.Run(t, c.workspace, c.database, discoverytest.Slice{Records: without, Completed: []string{"test"}})
	if second.GetGrantsRemoved() != 1 || second.GetGrantsAdded() != 0 {
		t.Errorf("the second run added %d and removed %d, want 0 and 1", second.GetGrantsAdded(), second.GetGrantsRemoved())
	}
	for at, want := range map[*timestamppb.Timestamp]int32{nil: 2, before: 3, second.GetFinishedAt(): 2} {
		res := c.holders(t, &discoveryv1.ListHoldersRequest{Resource: "payments", AsOf: at})
		if res.GetAccounts() != want {
			t.Errorf("as of %v: %d accounts, want %d", at, res.GetAccounts(), want)
		}
		if at == before && res.GetCompleteness().GetSources()[1].GetRunId() != c.run.GetId() {
			t.Errorf("as of the first run, the answer rests on %v", res.GetCompleteness().GetSources())
		}
	}
	ctx := c.In(t.Context(), c.workspace)
	_, err := c.answers.Holders(ctx, &discoveryv1.ListHoldersRequest{Resource: "payments", AsOf: timestamppb.New(before.AsTime().Add(-time.Millisecond))})
	if fault.KindOf(err) != fault.NotFound {
		t.Errorf("as of before everything: %v, want not found", err)
	}
	_, err = c.answers.Holders(ctx, &discoveryv1.ListHoldersRequest{Resource: "payments", AsOf: timestamppb.New(time.Now().Add(time.Hour))})
	if fault.KindOf(err) != fault.InvalidArgument {
		t.Errorf("as of the future: %v, want invalid argument", err)
	}
}

func TestAnswerSaysWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	c := newCompany(t)
	list := func(w id.Workspace) *discoveryv1.Completeness {
		res, err := c.answers.Resources(c.In(t.Context(), w), &discoveryv1.ListResourcesRequest{})
		check(t, err)
		return res.GetCompleteness()
	}
	if got := list(c.workspace); !got.GetComplete() || len(got.GetSources()) != 2 || !got.GetOldestPublishedAt().AsTime().Equal(c.run.GetFinishedAt().AsTime()) {
		t.Errorf("two complete runs: %v", got)
	}
	if got := list(id.NewWorkspace()); got.GetComplete() || len(got.GetSources()) != 0 {
		t.Errorf("a workspace without runs: %v, want it not complete", got)
	}
	gap := &discoveryv1.Gap{Scope: "test", Reason: "permission denied"}
	c.Run(t, c.workspace, c.box, discoverytest.Slice{Records: boxRecords(), Gaps: []*discoveryv1.Gap{gap}})
	got := list(c.workspace)
	if s := got.GetSources()[0]; got.GetComplete() || s.GetState() != integrationsv1.RunState_RUN_STATE_PARTIAL || len(s.GetGaps()) != 1 || s.GetGaps()[0].GetReason() != gap.GetReason() {
		t.Errorf("a partial run: %v, want it not complete and the gap named", got)
	}
	third := id.NewIntegration()
	c.Sources.Names[third] = "a third"
	c.Start(t, c.workspace, third)
	got = list(c.workspace)
	if s := got.GetSources()[0]; len(got.GetSources()) != 3 || s.GetIntegrationName() != "a third" || s.GetRunId() != "" || s.GetPublishedAt() != nil {
		t.Errorf("an integration without a published run: %v, want it listed without a run", got)
	}
}
