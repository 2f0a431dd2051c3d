package answer_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"

	. "a3os.app/libs/access/accesstest"
	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/services/discovery/internal/discoverytest"
)

// pages asks for every page of a list and answers its items as text, page by page.
func pages(t *testing.T, size int32, ask func(size int32, token string) (items []string, next string, err error)) [][]string {
	t.Helper()
	var out [][]string
	for token := ""; ; {
		items, next, err := ask(size, token)
		check(t, err)
		out = append(out, items)
		if next == "" {
			return out
		}
		if token = next; len(items) == 0 {
			t.Fatal("an empty page that is not the last")
		}
	}
}

// lists are the lists of a company, each as a function that asks for one page.
func (c *company) lists(ctx context.Context) map[string]func(size int32, token string) ([]string, string, error) {
	return map[string]func(size int32, token string) ([]string, string, error){
		"resources": func(size int32, token string) (out []string, _ string, _ error) {
			res, err := c.answers.Resources(ctx, &discoveryv1.ListResourcesRequest{PageSize: size, PageToken: token})
			for _, r := range res.GetResources() {
				out = append(out, r.GetId())
			}
			return out, res.GetNextPageToken(), err
		},
		"holders": func(size int32, token string) (out []string, _ string, _ error) {
			res, err := c.answers.Holders(ctx, &discoveryv1.ListHoldersRequest{Resource: "payments", PageSize: size, PageToken: token})
			for _, h := range res.GetHolders() {
				out = append(out, h.GetAccount().GetId())
			}
			return out, res.GetNextPageToken(), err
		},
		"access": func(size int32, token string) (out []string, _ string, _ error) {
			res, err := c.answers.Reaches(ctx, &discoveryv1.ListAccessRequest{Principal: "ann@acme.test", PageSize: size, PageToken: token})
			for _, r := range res.GetReaches() {
				out = append(out, r.GetResource().GetId())
			}
			return out, res.GetNextPageToken(), err
		},
		"grants": func(size int32, token string) (out []string, _ string, _ error) {
			res, err := c.answers.Grants(ctx, &discoveryv1.ListGrantsRequest{PageSize: size, PageToken: token})
			for _, g := range res.GetGrants() {
				out = append(out, g.GetId())
			}
			return out, res.GetNextPageToken(), err
		},
		"grants of an integration": func(size int32, token string) (out []string, _ string, _ error) {
			res, err := c.answers.Grants(ctx, &discoveryv1.ListGrantsRequest{IntegrationId: c.box.String(), PageSize: size, PageToken: token})
			for _, g := range res.GetGrants() {
				out = append(out, g.GetId())
			}
			return out, res.GetNextPageToken(), err
		},
		"changes": func(size int32, token string) (out []string, _ string, _ error) {
			res, err := c.answers.Changes(ctx, &discoveryv1.ListChangesRequest{ToRunId: c.run.GetId(), PageSize: size, PageToken: token})
			for _, g := range res.GetChanges() {
				out = append(out, g.GetGrant().GetId())
			}
			return out, res.GetNextPageToken(), err
		},
	}
}

func TestPagesTogetherAreTheWholeList(t *testing.T) {
	t.Parallel()
	c := newCompany(t)
	want := map[string]int{"resources": 14, "holders": 3, "access": 5, "grants": 9, "grants of an integration": 2, "changes": 7}
	for name, ask := range c.lists(c.In(t.Context(), c.workspace)) {
		whole := pages(t, 500, ask)
		if len(whole) != 1 || len(whole[0]) != want[name] {
			t.Errorf("%s: %d pages, the first of %d, want one of %d", name, len(whole), len(whole[0]), want[name])
		}
		for _, size := range []int32{1, 2, int32(want[name])} {
			if d := cmp.Diff(whole[0], slices.Concat(pages(t, size, ask)...)); d != "" {
				t.Errorf("%s in pages of %d (-whole +pages):\n%s", name, size, d)
			}
		}
		_, token, err := ask(1, "")
		check(t, err)
		stranger := c.lists(c.In(t.Context(), c.workspace))[name]
		if _, _, err := stranger(1, token); fault.KindOf(err) != fault.InvalidArgument {
			t.Errorf("%s: another caller with the token: %v, want invalid argument", name, err)
		}
	}
}

func TestResourcesAreFoundByTypeAndWords(t *testing.T) {
	t.Parallel()
	c := newCompany(t)
	for _, tt := range []struct {
		req  *discoveryv1.ListResourcesRequest
		want []string
	}{
		{&discoveryv1.ListResourcesRequest{Type: "table"}, []string{"acme.public.cards", "acme.public.payments"}},
		{&discoveryv1.ListResourcesRequest{Search: "PUBLIC.pay"}, []string{"acme.public.payments"}},
		{&discoveryv1.ListResourcesRequest{Search: "archer"}, []string{"ann", "ann.admin"}},
		{&discoveryv1.ListResourcesRequest{Search: "root", AccountsOnly: true}, []string{"Root", "root"}},
		{&discoveryv1.ListResourcesRequest{Search: "%"}, nil},
	} {
		res, err := c.answers.Resources(c.In(t.Context(), c.workspace), tt.req)
		check(t, err)
		var got []string
		for _, r := range res.GetResources() {
			got = append(got, r.GetExternalId())
		}
		slices.Sort(got)
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%v (-want +got):\n%s", tt.req, d)
		}
	}
	if _, err := c.answers.Resources(c.In(t.Context(), c.workspace), &discoveryv1.ListResourcesRequest{Search: "a\x00"}); fault.KindOf(err) != fault.InvalidArgument {
		t.Errorf("a zero byte: %v, want invalid argument", err)
	}
}

// changes are what changed between two runs, as text.
func (c *company) changes(t *testing.T, from, to string) []string {
	t.Helper()
	res, err := c.answers.Changes(c.In(t.Context(), c.workspace), &discoveryv1.ListChangesRequest{FromRunId: from, ToRunId: to})
	check(t, err)
	var out []string
	for _, x := range res.GetChanges() {
		g := x.GetGrant()
		sign := "-"
		if x.GetAdded() {
			sign = "+"
		}
		out = append(out, fmt.Sprintf("%s %s %s on %s grantable=%t", sign, g.GetPrincipal().GetExternalId(), g.GetEntitlement(), g.GetResource().GetExternalId(), g.GetGrantable()))
	}
	slices.Sort(out)
	return out
}

func TestChangesAreTheDifferenceOfTwoRuns(t *testing.T) {
	t.Parallel()
	c := newCompany(t)
	run := func(records []*discoveryv1.Record) string {
		return c.Run(t, c.workspace, c.database, discoverytest.Slice{Records: records, Completed: []string{"test"}}).GetId()
	}
	noDan := slices.DeleteFunc(databaseRecords(), func(r *discoveryv1.Record) bool { return r.GetGrant().GetPrincipal().GetExternalId() == "dan" })
	mayPassOn := databaseRecords()
	for i, r := range mayPassOn {
		if r.GetGrant().GetReason() != "" {
			g := proto.CloneOf(r)
			g.GetGrant().Grantable = true
			mayPassOn[i] = g
		}
	}
	second := run(append(noDan, Grant(bob, read, false)))
	third := run(mayPassOn)
	first := c.run.GetId()
	dan, bob := " dan SELECT on acme.public.cards grantable=false", " bob SELECT on acme.public.payments grantable=false"
	kept, passed := " ann SELECT on acme.public.payments grantable=false", " ann SELECT on acme.public.payments grantable=true"
	for _, tt := range []struct {
		from, to string
		want     []string
	}{
		{first, second, []string{"+" + bob, "-" + dan}},
		{second, third, []string{"+" + passed, "+" + dan, "-" + kept, "-" + bob}},
		{first, third, []string{"+" + passed, "-" + kept}},
	} {
		if d := cmp.Diff(tt.want, c.changes(t, tt.from, tt.to)); d != "" {
			t.Errorf("changes (-want +got):\n%s", d)
		}
	}
	if got := c.changes(t, "", third); len(got) != 7 || slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, "-") }) {
		t.Errorf("from before the first: %q, want the third run's 7 grants, all added", got)
	}
	ctx := c.In(t.Context(), c.workspace)
	other := c.Run(t, c.workspace, c.box, discoverytest.Slice{Records: boxRecords(), Completed: []string{"test"}}).GetId()
	under := c.Start(t, c.workspace, c.box).GetId()
	for name, tt := range map[string]struct {
		from, to string
		want     fault.Kind
	}{
		"of two integrations": {first, other, fault.InvalidArgument},
		"the wrong way round": {third, first, fault.InvalidArgument},
		"not published":       {first, under, fault.FailedPrecondition},
		"unknown":             {first, id.NewRun().String(), fault.NotFound},
	} {
		if _, err := c.answers.Changes(ctx, &discoveryv1.ListChangesRequest{FromRunId: tt.from, ToRunId: tt.to}); fault.KindOf(err) != tt.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}
