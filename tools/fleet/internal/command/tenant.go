package command

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"
	"a3os.app/tools/fleet/internal/plane"
	"a3os.app/tools/fleet/internal/platform/local"
	"a3os.app/tools/fleet/internal/welcome"
)

func (a *app) tenantCommand() *cobra.Command {
	var name, admin, tier string
	create := &cobra.Command{Use: "create SLUG", Short: "Make a tenant with a service set of its own", Args: exactly("SLUG"),
		RunE: func(c *cobra.Command, args []string) error { return a.tenantCreate(c, args[0], name, admin, tier) }}
	create.Flags().StringVar(&name, "name", "", "name shown; the slug when empty")
	create.Flags().StringVar(&admin, "admin", "", "address of the tenant's first admin; admin@SLUG.example when empty")
	create.Flags().StringVar(&tier, "tier", "", "dedicated (a database server of its own) or database; the plane's own when empty")
	list := &cobra.Command{Use: "list", Short: "List the tenants", Args: exactly(), RunE: a.tenantList}
	show := &cobra.Command{Use: "show TENANT", Short: "Show a tenant, by id or slug, with its set and what that says of itself", Args: exactly("TENANT"), RunE: a.tenantShow}
	var who, reason string
	recoverAdmin := &cobra.Command{Use: "recover-admin SLUG --reason TEXT", Short: "Let a tenant's admin in again who has no session left, on the tenant's own record", Args: exactly("SLUG"),
		Long: `recover-admin makes a one-time setup code, valid for 15 minutes, for somebody who is a tenant admin already, and ends what they had open.
It is for a tenant whose last admin can't sign in any more. It makes nobody an admin, and is refused while another admin of the tenant was
signed in within the last 24 hours: they can help with "a3 user reinvite". That it was run, by the operator and with the reason, is in the
tenant's audit log, before the code works; so is a refusal. Its admins see it with "a3 audit list --action iam.admin.recovered".`,
		Example: `  fleet tenant recover-admin acme --admin ada@acme.example --reason "Case 4711: her laptop was stolen, identity checked by video"`,
		RunE:    func(c *cobra.Command, args []string) error { return a.tenantRecoverAdmin(c, args[0], who, reason) }}
	recoverAdmin.Flags().StringVar(&who, "admin", "", "address of the tenant admin; the first admin's, when empty")
	recoverAdmin.Flags().StringVar(&reason, "reason", "", "why, 10 to 500 characters, for the tenant's own record")
	_ = recoverAdmin.MarkFlagRequired("reason")
	return group("tenant", "Tenants of the plane", create, list, show, a.labelCommand(), recoverAdmin, a.adoptCommand())
}

func (a *app) adoptCommand() *cobra.Command {
	var reason string
	c := &cobra.Command{Use: "adopt TENANT --reason TEXT", Short: "Register a set that runs here and that the registry no longer knows", Args: exactly("TENANT"),
		Long: `adopt is for a tenant that was made after the backup from which the registry was restored: its set is here, and the registry does not know
it. What is made known is read at the set: each of its services proves with its certificate whose it is, and the mark on its database, which
this plane signed, has to name the tenant. Nothing of the set is touched. The tenant is suspended then, and who it was adopted by, and why, is
on record; it is served again by a plan like any other: "fleet plan resume". Labels and licences that it had are given again. One that had been made to be
another's copy is nobody's copy from then on: backups of that other are not restored to it any more, nor is the one that it was made from.`,
		Example: `  fleet tenant adopt acme --reason "Case 4711: the registry was restored from last night"`,
		RunE: func(c *cobra.Command, args []string) error {
			p, err := a.plane()
			if err != nil {
				return err
			}
			t, err := p.Adopt(c.Context(), args[0], reason)
			if err != nil {
				return err
			}
			if a.format == "json" {
				return a.json(t)
			}
			_, err = fmt.Fprintf(a.out, "%s (%s) is known again, and suspended: it is served again with fleet plan resume --tenant %s --reason '…', and fleet apply\n", t.GetSlug(), t.GetId(), t.GetSlug())
			return err
		}}
	c.Flags().StringVar(&reason, "reason", "", "why, 10 to 500 characters, for the record")
	_ = c.MarkFlagRequired("reason")
	return c
}

func (a *app) tenantCreate(c *cobra.Command, slug, name, admin, tierWord string) error {
	if admin != "" && !strings.Contains(admin, "@") {
		return usageError{fmt.Errorf("--admin is %q: it is an address, as ada@example.com", admin)}
	}
	tier, err := tierOf("--tier", tierWord)
	if err != nil {
		return err
	}
	p, err := a.plane()
	if err != nil {
		return err
	}
	status, changed, err := p.CreateTenant(c.Context(), slug, name, admin, tier)
	if err != nil {
		return err
	}
	if invitation, err := p.Invitation(slug); err != nil {
		return err
	} else if changed && invitation.Code != "" {
		a.handOver("The first admin", slug, p, invitation)
	}
	if a.format == "json" {
		return a.json(status)
	}
	if !changed {
		_, _ = fmt.Fprintf(a.out, "%s is there already: nothing changed\n", slug)
	}
	return a.tenants([]*registryv1.TenantStatus{status}, p.Settings.URL)
}

// handOver tells a setup code beside the answer: it is a secret, and for a person.
func (a *app) handOver(who, slug string, p *plane.Plane, admin local.FirstAdmin) {
	_, _ = fmt.Fprintf(a.errOut, "%s, %s, signs in once, within 15 minutes, with:\n  bin/a3 --profile %s login --url %s%s --setup-code %s\n",
		who, admin.Email, welcome.AdminProfile(slug), p.Settings.URL(slug), way(p.Published(), trust(p, "--ca-cert"), p.Settings.Dial()), admin.Code)
}

// way is how a client gets to a host of the plane's: as its name leads, where that is everybody's, or by options that say whom to believe and where to dial.
func way(published bool, trust, dial string) string {
	if published {
		return ""
	}
	return trust + " --dial " + dial
}

func (a *app) tenantRecoverAdmin(c *cobra.Command, slug, email, reason string) error {
	p, err := a.plane()
	if err != nil {
		return err
	}
	admin, err := p.RecoverAdmin(c.Context(), slug, email, reason)
	if err != nil {
		return err
	}
	a.handOver("The tenant admin", slug, p, admin)
	return nil
}

func (a *app) tenantList(c *cobra.Command, _ []string) error {
	p, err := a.plane()
	if err != nil {
		return err
	}
	all, err := p.Tenants(c.Context())
	if err != nil {
		return err
	}
	if a.format == "json" {
		return a.json(&registryv1.ListTenantsResponse{Tenants: all})
	}
	return a.tenants(all, p.Settings.URL)
}

func (a *app) tenants(all []*registryv1.TenantStatus, url func(string) string) error {
	var rows [][]string
	for _, s := range all {
		t := s.GetTenant()
		rows = append(rows, []string{t.GetSlug(), t.GetId(), t.GetDisplayName(), word(t.GetState().String()), url(t.GetSlug()), since(t.GetCreatedAt())})
	}
	return a.table([]string{"SLUG", "ID", "NAME", "STATE", "URL", "CREATED"}, rows)
}

func (a *app) tenantShow(c *cobra.Command, args []string) error {
	p, err := a.plane()
	if err != nil {
		return err
	}
	status, err := p.ShowTenant(c.Context(), args[0])
	if err != nil {
		return err
	}
	if a.format == "json" {
		return a.json(status)
	}
	if err := a.tenants([]*registryv1.TenantStatus{status}, p.Settings.URL); err != nil {
		return err
	}
	t := status.GetTenant()
	at := "not known"
	if d := status.GetServiceSet().GetDatabase(); d != nil {
		at = d.GetName() + " on " + d.GetServer()
	}
	tier := strings.ToLower(strings.TrimPrefix(t.GetIsolationTier().String(), "ISOLATION_TIER_"))
	if _, err := fmt.Fprintf(a.out, "\nTier: %s. Database: %s.\n", tier, at); err != nil {
		return err
	}
	copies, err := p.CopiesOf(c.Context(), t.GetId())
	if err != nil {
		return err
	}
	for _, slug := range copies {
		if _, err := fmt.Fprintf(a.out, "%s is a copy of it, and keeps what it was given of it.\n", slug); err != nil {
			return err
		}
	}
	if t.GetCopyOf() != "" {
		if _, err := fmt.Fprintf(a.out, "It was made to be a copy of %s: that one's backups may be restored to it.\n", t.GetCopyOf()); err != nil {
			return err
		}
	}
	reports := map[string]*registryv1.ComponentReport{}
	for _, r := range status.GetReports() {
		reports[r.GetName()] = r
	}
	var rows [][]string
	for _, comp := range status.GetServiceSet().GetComponents() {
		r := reports[comp.GetName()]
		rows = append(rows, []string{comp.GetName(), comp.GetAddress(), word(r.GetHealth().String()), r.GetRelease(), since(r.GetReportedAt())})
	}
	if _, err := fmt.Fprintln(a.out); err != nil {
		return err
	}
	return a.table([]string{"COMPONENT", "ADDRESS", "HEALTH", "RELEASE", "REPORTED"}, rows)
}

// word is the last part of an enum's value in lower case: TENANT_STATE_ACTIVE is active.
func word(enum string) string {
	for _, prefix := range []string{"TENANT_STATE_", "HEALTH_"} {
		enum = strings.TrimPrefix(enum, prefix)
	}
	return strings.ToLower(strings.ReplaceAll(enum, "_", " "))
}

func since(t *timestamppb.Timestamp) string {
	if t == nil {
		return "never"
	}
	return t.AsTime().Format(time.RFC3339)
}
