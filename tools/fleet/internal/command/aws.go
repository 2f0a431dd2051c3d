package command

import (
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/id"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/aws/changeset"
	"a3os.app/tools/fleet/internal/platform/aws/stack"
)

const renderHelp = `Print the CloudFormation template of a tenant's stack, or of the plane's where no tenant is named, made from its blueprint.
The same set has the same template, byte for byte. Nothing is called and nothing is made.

  fleet aws render --account 123456789012 --region eu-central-1 --domain a3os.example > plane.json
  fleet aws render … --first > first.json        what is deployed first, with a bucket for the rest
  fleet aws render … --release 1.2.3@sha256:… --image sha256:… --control > control.json        the plane's own set at a release
  fleet aws render … --release … --image … --tenant tnt_… --slug acme --tier dedicated > tenant.json
  fleet aws render --account 210987654321 --account-per-tenant 123456789012 --first … > account.json
  fleet aws render --account 210987654321 --account-per-tenant 123456789012 … > tenant.json
  fleet aws render … --account-per-tenant 123456789012 --link … > link.json        of the plane's account: the way to that tenant's set
  fleet aws render --account … --region … --guard --administrator arn:aws:iam::…:role/administrator > guard.json        a policy of the organization's for the account
  fleet aws render --stack-policy > keep.json        the policy of a stack by which no change replaces or deletes its key, buckets or database
  fleet aws render … --accounts 210987654321 > plane.json        a plane whose registry these accounts of tenants may reach`

// renderFlags are what a template is rendered from, as it is typed.
type renderFlags struct {
	place                               stack.Place
	tenant, slug, tier, release, digest string
	stopped, first, control, link       bool
	guard, stackPolicy                  bool
	accounts, administrators            []string
}

func (a *app) awsCommand() *cobra.Command {
	var f renderFlags
	c := &cobra.Command{Use: "render", Short: "Print the template of a stack", Long: renderHelp, Args: exactly(), RunE: func(*cobra.Command, []string) error { return a.awsRender(f) }}
	c.Flags().StringVar(&f.place.Account, "account", "", "account, twelve digits")
	c.Flags().StringVar(&f.place.Region, "region", "", "Region")
	c.Flags().StringVar(&f.place.Plane, "plane", "dev", "plane: dev or prod")
	c.Flags().StringVar(&f.place.Domain, "domain", "", "name below which tenants have their hosts")
	c.Flags().StringVar(&f.tenant, "tenant", "", "tenant whose stack it is; without one it is the plane's")
	c.Flags().StringVar(&f.slug, "slug", "", "slug of the tenant")
	c.Flags().StringVar(&f.tier, "tier", "dedicated", "tier of the tenant: database or dedicated")
	c.Flags().StringVar(&f.release, "release", "", "release that it runs, version@sha256:…")
	c.Flags().StringVar(&f.digest, "image", "", "digest of the release's image in the plane's repository, sha256:…")
	c.Flags().BoolVar(&f.stopped, "stopped", false, "render services that run no tasks")
	c.Flags().StringVar(&f.place.Hub, "account-per-tenant", "", "the plane's account, where --account is the tenant's own; with --first what that needs before the tenant's stack")
	c.Flags().BoolVar(&f.control, "control", false, "of the plane's, its own set at a release: registry and gateway, which fleet plane up deploys")
	c.Flags().BoolVar(&f.link, "link", false, "with --account-per-tenant, what leads to the tenant's set from the plane's account, where it is deployed")
	c.Flags().StringSliceVar(&f.accounts, "accounts", nil, "of the plane's, the accounts that tenants have to themselves: they may reach the registry; none keeps the way to it, offered to nobody, until fleet plane up took the registry's tasks from it")
	c.Flags().BoolVar(&f.first, "first", false, "of the plane's, only what is deployed first in an account, with the bucket that the rest is read from")
	c.Flags().BoolVar(&f.guard, "guard", false, "instead of a template the policy (SCP) that keeps whoever else is in --account from roles, servers, tasks and stacks of the plane's and its tenants'")
	c.Flags().BoolVar(&f.stackPolicy, "stack-policy", false, "instead of a template the policy, the same for each stack, by which no change replaces or deletes a stack's key, buckets or database: administrators put it on those that they deploy")
	c.Flags().StringSliceVar(&f.administrators, "administrator", nil, "with --guard, ARN of the role that deploys the plane's stack, whom it leaves out")
	return group("aws", "The platform aws", c, a.acceptanceCommand())
}

func (a *app) awsRender(f renderFlags) error {
	if f.stackPolicy {
		return a.awsStackPolicy(f)
	}
	if f.guard {
		return a.awsGuard(f)
	}
	var r platform.Release
	var err error
	// Of the plane, the part that lasts knows no release.
	if f.tenant != "" || f.control {
		if r, err = platform.ParseRelease(f.release); err != nil {
			return usageError{fmt.Errorf("--release: %w", err)}
		}
	}
	if f.control && (f.first || f.tenant != "") {
		return usageError{errors.New("--control is the plane's own set: name neither --tenant nor --first with it")}
	}
	if f.first && f.tenant != "" && f.place.Hub == "" {
		return usageError{errors.New("--first is of the plane's stack, or of an account of a tenant's own: name no --tenant, or --account-per-tenant")}
	}
	if f.link && (f.first || f.place.Hub == "" || f.tenant == "") {
		return usageError{errors.New("--link leads to the set of a tenant with an account to itself: name --tenant and --account-per-tenant, and no --first")}
	}
	if len(f.accounts) > 0 && (f.tenant != "" || f.control || f.first) {
		return usageError{errors.New("--accounts is of the plane's whole stack: name neither --tenant, --control nor --first with it")}
	}
	if err := f.missing(); err != nil {
		return err
	}
	in := stack.Input{Place: f.place, Release: r, Image: f.digest, Running: !f.stopped, First: f.first, Accounts: f.accounts}
	if slices.Equal(f.accounts, []string{"none"}) {
		in.Accounts, in.Unoffered = nil, true
	}
	render := stack.Plane
	if f.control {
		render = stack.Control
	}
	if f.tenant == "" {
		in.Set.Blueprint, err = blueprint.Plane()
	} else {
		switch {
		case f.first:
			render = stack.Account
		case f.link:
			render = stack.Link
		default:
			render = stack.Tenant
		}
		in.Set, err = f.set()
	}
	if err != nil {
		return err
	}
	template, err := render(in)
	if err != nil {
		return usageError{err}
	}
	text, err := template.JSON()
	if err != nil {
		return err
	}
	// As it is deployed: spaces would make what comes first larger than what goes in a call.
	_, err = fmt.Fprintln(a.out, string(text))
	return err
}

// awsGuard prints what an organization keeps others of the account by.
func (a *app) awsGuard(f renderFlags) error {
	if f.tenant != "" || f.control || f.first || f.link || len(f.accounts) > 0 {
		return usageError{errors.New("--guard is of an account, whatever stacks are in it: name --account, --region, --plane and --administrator alone with it")}
	}
	text, err := stack.Guard(f.place, f.administrators)
	if err != nil {
		return usageError{err}
	}
	_, err = fmt.Fprintln(a.out, string(text))
	return err
}

// awsStackPolicy prints what keeps a stack's data from a change of the stack.
func (a *app) awsStackPolicy(f renderFlags) error {
	if f.guard || f.tenant != "" || f.control || f.first || f.link || len(f.accounts) > 0 {
		return usageError{errors.New("--stack-policy is the same for each stack: name nothing with it")}
	}
	text, err := changeset.Policy()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(a.out, string(text))
	return err
}

// missing names the first flag that isn't there and without which no template is rendered.
func (f renderFlags) missing() error {
	image := f.digest
	if f.tenant == "" && !f.control {
		image = "what lasts of the plane knows none"
	}
	for _, flag := range []struct{ name, value, form string }{
		{"account", f.place.Account, "the account where the stack is to be, twelve digits"}, {"region", f.place.Region, "the Region, as eu-central-1"},
		{"domain", f.place.Domain, "the name below which tenants have their hosts, as a3os.app"}, {"image", image, "the digest of the release's image, sha256:…"},
	} {
		if flag.value == "" {
			return usageError{fmt.Errorf("--%s is missing: name %s", flag.name, flag.form)}
		}
	}
	return nil
}

// set is the tenant's that the flags name.
func (f renderFlags) set() (platform.Set, error) {
	b, err := blueprint.AccessOS()
	if err != nil {
		return platform.Set{}, err
	}
	tiers := map[string]registryv1.IsolationTier{"database": registryv1.IsolationTier_ISOLATION_TIER_DATABASE, "dedicated": registryv1.IsolationTier_ISOLATION_TIER_DEDICATED}
	tier, ok := tiers[f.tier]
	if !ok {
		return platform.Set{}, usageError{fmt.Errorf("--tier is %q: it is database or dedicated", f.tier)}
	}
	tenant, err := id.ParseTenant(f.tenant)
	if err != nil {
		return platform.Set{}, usageError{fmt.Errorf("--tenant: %w", err)}
	}
	if f.slug == "" {
		return platform.Set{}, usageError{fmt.Errorf("--slug is empty: name the tenant's slug, its people's host begins with it")}
	}
	return platform.Set{Blueprint: b, Tenant: tenant, Slug: f.slug, Tier: tier}, nil
}
