package command

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	"a3os.app/tools/internal/show"
)

// label is what a resource is called, so that it can be told from others and asked about: its id in the system, behind its name where
// the id doesn't have that in it.
func label(r *discoveryv1.ResourceView) string {
	name, key := r.GetDisplayName(), r.GetExternalId()
	if strings.Contains(key, name) {
		return key
	}
	return fmt.Sprintf("%s (%s)", name, key)
}

// account is what an account is called beside its person, whose name needs no repeating.
func account(r *discoveryv1.ResourceView) string {
	if r.GetDisplayName() == r.GetPerson().GetDisplayName() {
		return r.GetExternalId() + standing(r)
	}
	return label(r) + standing(r)
}

// standing is a remark on an account that can't be used.
func standing(r *discoveryv1.ResourceView) string {
	if s := r.GetAttributes()["status"]; s != "" && s != "active" {
		return " (" + s + ")"
	}
	return ""
}

func (a *app) showHolders(all *discoveryv1.ListHoldersResponse, entitlement string) error {
	r := all.GetResource()
	what := fmt.Sprintf("%s %s in %s", r.GetType(), label(r), r.GetIntegrationName())
	if entitlement != "" {
		what = entitlement + " on " + what
	}
	many := show.Count(int64(all.GetAccounts()), "account")
	if n := int64(all.GetPersons()); n > 0 {
		many = show.Count(n, "person", "people") + ", " + many
	}
	a.print("%s: %s", show.Text(what), many)
	table := show.NewTable("person", "account", "system", "entitlement", "how", "since")
	for _, h := range all.GetHolders() {
		acc := h.GetAccount()
		for _, g := range together(h.GetEntitlements()) {
			table.Row(acc.GetPerson().GetDisplayName(), account(acc), acc.GetIntegrationName(), g.names, g.how, g.since)
		}
	}
	table.Sort()
	a.more(all.GetNextPageToken())
	if err := a.list(table, "nobody has access, as far as is known"); err != nil {
		return err
	}
	a.footer(all.GetCompleteness())
	return nil
}

func (a *app) showReaches(all *discoveryv1.ListAccessResponse, asked string) error {
	var accounts []string
	for _, p := range all.GetPrincipals() {
		accounts = append(accounts, fmt.Sprintf("%s in %s%s", label(p), p.GetIntegrationName(), standing(p)))
	}
	a.print("%s: %s", show.Text(asked), show.Text(strings.Join(accounts, ", ")))
	table := show.NewTable("system", "type", "resource", "entitlement", "how", "since")
	for _, reach := range all.GetReaches() {
		r := reach.GetResource()
		for _, g := range together(reach.GetEntitlements()) {
			table.Row(r.GetIntegrationName(), r.GetType(), label(r), g.names, g.how, g.since)
		}
	}
	a.more(all.GetNextPageToken())
	if err := a.list(table, "nothing is reached, as far as is known"); err != nil {
		return err
	}
	a.footer(all.GetCompleteness())
	return nil
}

// alike are entitlements that are held in one way, since one time.
type alike struct{ names, how, since string }

// together joins the entitlements that are held in the same way since the same time, in the order they came.
func together(held []*discoveryv1.HeldEntitlement) []alike {
	var out []alike
	for _, h := range held {
		how, since := way(h), show.Time(h.GetSince())
		at := slices.IndexFunc(out, func(s alike) bool { return s.how == how && s.since == since })
		if at < 0 {
			out = append(out, alike{names: h.GetEntitlement(), how: how, since: since})
			continue
		}
		out[at].names += ", " + h.GetEntitlement()
	}
	return out
}

// way is how an entitlement is held.
func way(h *discoveryv1.HeldEntitlement) string {
	switch n := int64(h.GetDistance()); {
	case h.GetDirect():
		return "direct"
	case h.GetAssumption():
		return "by acting, " + show.Count(n, "step")
	default:
		return "via " + show.Count(n, "step")
	}
}

func (a *app) showPaths(res *discoveryv1.ExplainAccessResponse, asked, entitlement string) error {
	target := res.GetResource()
	what := target.GetType() + " " + label(target)
	if entitlement != "" {
		what = entitlement + " on " + what
	}
	n := len(res.GetPaths())
	if n == 0 {
		a.print("%s has no access to %s", show.Text(asked), show.Text(what))
		a.footer(res.GetCompleteness())
		return nil
	}
	many := show.Count(int64(n), "path")
	if res.GetTruncated() {
		many = fmt.Sprintf("the shortest %d of more paths", n)
	}
	a.print("%s → %s: %s", show.Text(asked), show.Text(what), many)
	several := len(res.GetPrincipals()) > 1
	for i, p := range res.GetPaths() {
		if err := a.showPath(i+1, p, several); err != nil {
			return err
		}
	}
	if res.GetTruncated() {
		a.say("there are more paths: raise --limit, to 1000 at most")
	}
	a.print("")
	a.footer(res.GetCompleteness())
	return nil
}

// showPath prints one path: a line a step, each beginning where the one before ended.
func (a *app) showPath(n int, p *discoveryv1.Path, several bool) error {
	steps := p.GetSteps()
	if len(steps) == 0 {
		return nil
	}
	start, last := steps[0].GetPrincipal(), steps[len(steps)-1]
	from := label(start)
	if several {
		from += " in " + start.GetIntegrationName()
	}
	how := show.Count(int64(len(steps)), "step")
	if p.GetAssumption() {
		how += ", by acting"
	}
	if p.GetSince() != nil {
		how += ", since " + show.Time(p.GetSince())
	}
	a.print("\n%d  %s → %s on %s (%s)", n, show.Text(from+standing(start)), show.Text(last.GetEntitlement()), show.Text(label(last.GetResource())), how)
	w := tabwriter.NewWriter(a.Out, 0, 0, 2, ' ', 0)
	for i, s := range steps {
		var before *discoveryv1.Step
		if i > 0 {
			before = steps[i-1]
		}
		fmt.Fprintf(w, "   %s\t%s\n", show.Text(clause(before, s)), show.Text(s.GetReason()))
	}
	return w.Flush()
}

// clause is a step in words.
func clause(before, s *discoveryv1.Step) string {
	ent, res := s.GetEntitlement(), s.GetResource()
	on := fmt.Sprintf("%s on %s %s", ent, res.GetType(), label(res))
	who := label(s.GetPrincipal())
	switch {
	case s.GetImplied() && s.GetAssumption() && before != nil:
		return fmt.Sprintf("by acting, %s gives %s", before.GetEntitlement(), on)
	case s.GetImplied() && before != nil:
		return fmt.Sprintf("%s gives %s", before.GetEntitlement(), on)
	case s.GetAssumption():
		return fmt.Sprintf("%s can act as %s %s (%s)", who, res.GetType(), label(res), ent)
	case ent == "member":
		return fmt.Sprintf("%s is a member of %s %s", who, res.GetType(), label(res))
	}
	return fmt.Sprintf("%s has %s", who, on)
}

// footer says how far an answer can be trusted: whether anything is missing, and how old it is.
func (a *app) footer(c *discoveryv1.Completeness) {
	if len(c.GetSources()) == 0 {
		a.print("no system is connected, so nothing is known: connect one with `a3 integration add`")
		a.unknown(c)
		return
	}
	state := "complete"
	if !c.GetComplete() {
		state = "incomplete"
	}
	line := fmt.Sprintf("%s · %s", state, show.Count(int64(len(c.GetSources())), "system"))
	if t := c.GetOldestPublishedAt(); t != nil {
		line += fmt.Sprintf(" · oldest data %s old", show.Span(a.now().Sub(t.AsTime())))
	}
	a.print("%s", line)
	for _, f := range c.GetSources() {
		if p := f.GetProblem(); p != "" {
			a.print("  %s: %s", show.Text(f.GetIntegrationName()), show.Text(p+a.age(f)))
			a.gaps("    ", f.GetGaps())
		}
	}
	a.unknown(c)
}

// unknown says what is not known beyond the systems.
func (a *app) unknown(c *discoveryv1.Completeness) {
	if p := c.GetProblem(); p != "" {
		a.print("  %s", show.Text(p))
	}
}

// age is how old what is known of a system is, or what to do where nothing is.
func (a *app) age(f *discoveryv1.Freshness) string {
	if t := f.GetPublishedAt(); t != nil {
		return fmt.Sprintf(" (what is known is %s old)", show.Span(a.now().Sub(t.AsTime())))
	}
	if f.GetNewestRunId() == "" {
		return fmt.Sprintf(": run `a3 discovery run %s`", f.GetIntegrationName())
	}
	return fmt.Sprintf(" (see `a3 discovery status %s`)", f.GetIntegrationName())
}
