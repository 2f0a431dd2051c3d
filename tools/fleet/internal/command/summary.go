package command

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"

	"a3os.app/tools/fleet/internal/plane"
	"a3os.app/tools/fleet/internal/welcome"
)

// summary is what `plane up` ends with.
func (a *app) summary(ctx context.Context, p *plane.Plane, results []welcome.Result) error {
	var b strings.Builder
	w := &lines{&b}
	w.line("")
	for _, r := range results {
		w.line("%-10s %s", r.Slug, r.URL)
	}
	w.line("")
	if _, err := fmt.Fprint(a.out, b.String()); err != nil {
		return err
	}
	var rows [][]string
	for _, r := range results {
		for _, s := range r.Systems {
			c := s.Counts
			state := s.State
			if s.Gaps > 0 {
				state = fmt.Sprintf("%s, %d gaps named", s.State, s.Gaps)
			}
			rows = append(rows, []string{r.Slug, s.Name, s.Connector, count(c.GetAccounts()), count(c.GetGroups()), count(c.GetEntitlements()), count(c.GetGrants()), state})
		}
	}
	if err := a.table([]string{"TENANT", "SYSTEM", "CONNECTOR", "ACCOUNTS", "GROUPS", "ENTITLEMENTS", "GRANTS", "DISCOVERED"}, rows); err != nil {
		return err
	}
	b.Reset()
	for _, r := range results {
		if r.Answer != nil {
			w.answer(r.Answer)
		}
	}
	w.line("")
	for _, sentence := range p.Walls(ctx) {
		w.line("%s", sentence)
	}
	w.next(p, results)
	_, err := fmt.Fprint(a.out, b.String())
	return err
}

// addresses is what `plane up` ends with when there was nothing to do, or nothing is known of what the tenants' people do with theirs. It
// asks the tenants nothing: reads go on their record.
func (a *app) addresses(p *plane.Plane, how string) error {
	var b strings.Builder
	w := &lines{&b}
	w.line("%s", how)
	w.line("")
	if slugs := p.Serving(); len(slugs) > 0 {
		for _, slug := range slugs {
			w.line("%-10s %s", slug, p.Settings.URL(slug))
		}
		w.line("")
	}
	w.line("Stop with make down, which keeps the data; make clean removes it.")
	_, err := fmt.Fprint(a.out, b.String())
	return err
}

func count(n int64) string { return strconv.FormatInt(n, 10) }

type lines struct{ *strings.Builder }

func (l *lines) line(format string, args ...any) { _, _ = fmt.Fprintf(l, format+"\n", args...) }

func (l *lines) answer(a *welcome.Answer) {
	l.line("")
	l.line("%s", a.Question.Text)
	if a.Path == "" {
		l.line("  It does not: no path was found.")
		return
	}
	l.line("  %s", a.Path)
	for _, step := range a.Steps {
		l.line("    %s", step)
	}
	completeness := "everything that it rests on was read"
	if !a.Complete {
		completeness = "not everything that it rests on could be read"
	}
	many := "1 path"
	if a.Paths > 1 {
		many = fmt.Sprintf("%d paths, this one the shortest", a.Paths)
	}
	l.line("  %s; %s", many, completeness)
}

// next says what to try, how to reach the API by hand, and how to stop.
func (l *lines) next(p *plane.Plane, results []welcome.Result) {
	if len(results) == 0 {
		return
	}
	first := results[0]
	admin := welcome.AdminProfile(first.Slug)
	l.line("")
	l.line("Try next:")
	if first.Answer != nil {
		q := first.Answer.Question
		l.line("  bin/a3 --profile %s access who %s --entitlement %s", admin, q.Resource, q.Entitlement)
		l.line("  bin/a3 --profile %s access why %s %s", admin, q.Principal, q.Resource)
	} else {
		l.line("  bin/a3 --profile %s integration list", admin)
		l.line("  bin/a3 --profile %s discovery list", admin)
	}
	l.line("  bin/a3 --profile %s audit verify", admin)
	l.line("")
	l.line("By hand:")
	l.line("  %s", curl(p, first, admin))
	l.line("")
	l.line("Stop with make down, which keeps the data; make clean removes it.")
}

func curl(p *plane.Plane, r welcome.Result, profile string) string {
	host, port := p.Settings.Domain, strconv.Itoa(p.Settings.Port)
	if u, err := url.Parse(r.URL); err == nil {
		host = u.Hostname()
	}
	dial, _, err := net.SplitHostPort(p.Settings.Dial())
	if err != nil {
		dial = p.Settings.Listen
	}
	return fmt.Sprintf(`curl --resolve %s:%s:%s%s -H "Authorization: Bearer $(bin/a3 --profile %s token)" -H 'Content-Type: application/json' -d '{}' %s/a3os.iam.v1.IdentityService/GetSelf`,
		host, port, dial, trust(p, "--cacert"), profile, r.URL)
}

// trust is an option, and a space before it, that names whom to believe; nothing where the machine does anyway.
func trust(p *plane.Plane, option string) string {
	ca := p.WebCA()
	if ca == "" {
		return ""
	}
	if rel, err := filepath.Rel(root(), ca); err == nil && !strings.HasPrefix(rel, "..") {
		ca = rel
	}
	return " " + option + " " + ca
}
