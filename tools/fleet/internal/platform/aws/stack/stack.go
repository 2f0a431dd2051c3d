// Package stack renders what a set of services is on AWS: a CloudFormation template, made from its blueprint, that holds everything of the
// set and nothing of another's. The same set has the same template, byte for byte, and what it may do is in the template: each component has
// two roles of its own, which reach what the component needs and no more (deploy/aws/privileges.yaml says it beside), and what is the set's
// denies everybody else. It relies on CloudFormation to carry templates out, and on package aws to have them carried out at the right place.
package stack

import (
	"errors"
	"fmt"
	"regexp"
	"slices"

	"a3os.app/deploy/blueprint"
	"a3os.app/tools/fleet/internal/platform"
)

// Input is what a template is rendered from.
type Input struct {
	Place   Place
	Set     platform.Set
	Release platform.Release
	// Image is the digest of the release's image in the plane's repository, `sha256:…`.
	Image string
	// Running has the set's services run; else they are there and run nothing, as before their database is, and while a tenant is suspended.
	Running bool
	// Idle are components that run nothing though the set runs, as while what they use is put back.
	Idle []string
	// URL is where the tenant's people reach it; empty for https and the slug below the place's domain.
	URL string
	// Origins are the browser origins other than that which the tenant's people may call from.
	Origins []string
	// LogLevel of every process, empty for info; TenantRate is the gateway's (blueprint.Facts), empty for what that holds for right.
	LogLevel, TenantRate string
	// Given says of components of the plane which version of what they are given their tasks start with, by name: another has them started anew.
	Given map[string]string
	// Apex is the slug of the tenant whom the bare domain leads to; empty for none.
	Apex string
	// DatabaseRoots has components be given the authorities of the database server's certificate.
	DatabaseRoots bool
	// Accounts are those that tenants have to themselves, by number, of the plane's template: they may reach the registry. Joined says of the plane's
	// own set that the plane's stack offers the registry to some.
	Accounts []string
	Joined   bool
	// Unoffered keeps the load balancer before the registry, offered to nobody, until the plane's own set is behind it no more.
	Unoffered bool
	// Unfronted says of the plane's own set that no load balancer is before it, as on what Ground renders.
	Unfronted bool
	// First has the template of Plane or Ground hold only what comes first in an account: operators, key, and the bucket for templates.
	First bool
}

var (
	account = regexp.MustCompile(`^[0-9]{12}$`)
	region  = regexp.MustCompile(`^[a-z]{2}(-[a-z]+)+-[0-9]$`)
	plane   = regexp.MustCompile(`^[a-z][a-z0-9]{0,15}$`)
	domain  = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,}$`)
	digest  = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
)

func (in Input) check() error {
	faults := []error{in.checkPlace()}
	if !digest.MatchString(in.Image) {
		faults = append(faults, fmt.Errorf("image is %q: it is a digest as sha256:<64 hexadecimal digits>", in.Image))
	}
	return errors.Join(faults...)
}

func (in Input) checkPlace() error {
	var faults []error
	for _, c := range []struct {
		what, value, form string
		want              *regexp.Regexp
	}{
		{"account", in.Place.Account, "twelve digits", account}, {"region", in.Place.Region, "a Region as eu-central-1", region},
		{"plane", in.Place.Plane, "dev or prod", plane}, {"domain", in.Place.Domain, "a name as a3os.app", domain},
	} {
		if !c.want.MatchString(c.value) {
			faults = append(faults, fmt.Errorf("%s is %q: it is %s", c.what, c.value, c.form))
		}
	}
	faults = append(faults, in.checkBuckets())
	for i, of := range in.Accounts {
		if !account.MatchString(of) || of == in.Place.Account || slices.Contains(in.Accounts[:i], of) {
			faults = append(faults, fmt.Errorf("an account of a tenant's own is %q: it is twelve digits, another than the plane's, and named once", of))
		}
	}
	if hub := in.Place.Hub; hub != "" {
		if !account.MatchString(hub) || hub == in.Place.Account {
			faults = append(faults, fmt.Errorf("the plane's account is %q: it is twelve digits, and another than the tenant's own, %s", hub, in.Place.Account))
		}
		if in.Set.Tenant.IsZero() || !in.Set.Dedicated() {
			faults = append(faults, errors.New("an account of its own is a tenant's of tier dedicated: name the tenant, and that tier"))
		}
	}
	return errors.Join(faults...)
}

// mostBucket is how long the name of a bucket may be, in characters.
// https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
const mostBucket = 63

func (in Input) checkBuckets() error {
	s := &set{place: in.Place, tenant: in.Set.Tenant.String()}
	names := []string{in.Place.Templates()}
	if in.Set.Tenant.IsZero() {
		s.tenant = ""
		names = append(names, s.bucket(copies))
	}
	for store, of := range in.Set.Blueprint.Stores {
		if of.Kind == blueprint.StoreBlob {
			names = append(names, s.bucket(store))
		}
	}
	for _, name := range names {
		if len(name) > mostBucket {
			return fmt.Errorf("bucket %s has %d characters, and S3 takes %d: give the plane or the store a shorter name", name, len(name), mostBucket)
		}
	}
	return nil
}

// Tenant renders the stack of a tenant's set.
func Tenant(in Input) (*Template, error) {
	if in.Set.Tenant.IsZero() || in.Set.Blueprint.Scope != blueprint.ScopeTenant {
		return nil, fmt.Errorf("blueprint %s with tenant %q is no tenant's set: name both", in.Set.Blueprint.Name, in.Set.Tenant)
	}
	return tenant(in, in.Set.Tenant.String())
}

func tenant(in Input, name string) (*Template, error) {
	if err := in.check(); err != nil {
		return nil, err
	}
	s := newSet(in)
	s.tenant, s.slug = name, in.Set.Slug
	s.Description = fmt.Sprintf("Set %s of tenant %s on plane %s", s.blueprint.Name, s.tenant, s.place.Plane)
	s.key()
	s.keepers()
	s.stores()
	s.messages()
	s.network()
	s.database()
	if err := s.components(); err != nil {
		return nil, err
	}
	return s.Template, s.finally(databaseID)
}

func newSet(in Input) *set {
	return &set{place: in.Place, blueprint: in.Set.Blueprint, dedicated: in.Set.Dedicated(), release: in.Release.String(), image: in.Image, running: in.Running, idle: in.Idle,
		url: in.URL, origins: in.Origins, logLevel: in.LogLevel, tenantRate: in.TenantRate, apex: in.Apex, given: in.Given, databaseRoots: in.DatabaseRoots, joined: in.Joined, unfronted: in.Unfronted, accounts: in.Accounts,
		Template: &Template{Version: "2010-09-09", Parameters: map[string]Parameter{}, Resources: map[string]Resource{}, Outputs: map[string]Output{}}}
}
