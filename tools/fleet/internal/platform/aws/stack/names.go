package stack

import (
	"strings"

	"a3os.app/deploy/blueprint"
)

// Place is where stacks are deployed.
type Place struct {
	// Account is twelve digits, Region as `eu-central-1`.
	Account, Region string
	// Plane is `dev` or `prod`.
	Plane string
	// Domain is the name below which tenants have their hosts.
	Domain string
	// Hub is the plane's account where a tenant has the account to itself; empty where tenants share the plane's.
	Hub string
}

// home is the account that the plane is in: where images are, and who provisions.
func (p Place) home() Place {
	if p.Hub != "" {
		p.Account, p.Hub = p.Hub, ""
	}
	return p
}

// ExternalID is what the plane's provisioner says when it takes the provisioner's role of a tenant's own account, so that it takes no other's by
// mistake.
func (p Place) ExternalID(tenant string) string { return p.Plane + "/" + tenant }

// arn names a resource of the account in the Region.
func (p Place) arn(service, resource string) string {
	return "arn:aws:" + service + ":" + p.Region + ":" + p.Account + ":" + resource
}

// iam names what is the account's in all Regions.
func (p Place) iam(resource string) string { return "arn:aws:iam::" + p.Account + ":" + resource }

// cluster is also how all begins that is the plane's.
func (p Place) cluster() string { return "a3-" + p.Plane }

// Server is what a tenant's own database server is called.
func (p Place) Server(tenant string) string { return p.StackOf(tenant) }

// Provisioner is the role that fleet carries changes out with; BreakGlass is for people, where nothing else helps.
func (p Place) Provisioner() string { return p.iam("role/a3/" + p.cluster() + "-provisioner") }

// BreakGlass is the role of people for where nothing else helps.
func (p Place) BreakGlass() string { return p.iam("role/a3/" + p.cluster() + "-break-glass") }

// Boundary bounds the roles of all tenants.
func (p Place) Boundary() string { return p.iam("policy/a3/" + p.cluster() + "-tenant-boundary") }

// SessionPolicy is what every session of the provisioner's for one tenant is given besides its own policy.
func (p Place) SessionPolicy() string { return p.iam("policy/a3/" + p.cluster() + "-session") }

// MakingPolicy is what a session of the provisioner's has in the place of SessionPolicy that makes a tenant's stack, or a service of it.
func (p Place) MakingPolicy() string { return p.iam("policy/a3/" + p.cluster() + "-making") }

// service is the name under which a service of AWS's is asked in the Region, in conditions.
func (p Place) service(name string) string { return name + "." + p.Region + ".amazonaws.com" }

// set is what is rendered: names of it end where the tenant's id does (a slash or a hyphen, which no id has), so that none begins another's.
type set struct {
	place     Place
	blueprint *blueprint.Blueprint
	// tenant is the tenant's id; empty for the plane's own set.
	tenant, slug string
	// guest is the id of the tenant whose account it is, where the account is one's alone.
	guest string
	// standing says that what lasts of the set is another stack's, which exports it.
	standing  bool
	dedicated bool
	release   string
	image     string
	running   bool
	idle      []string
	// url, origins, logLevel, tenantRate, apex, accounts, databaseRoots, joined, unfronted and given are Input's.
	url, apex     string
	origins       []string
	logLevel      string
	tenantRate    string
	databaseRoots bool
	joined        bool
	unfronted     bool
	given         map[string]string
	accounts      []string
	*Template
}

// name is the tenant's id, or `plane-` and which: roles and secrets are the account's, where another plane may have its own.
func (s *set) name() string {
	if s.tenant == "" {
		return s.label() + "-" + s.place.Plane
	}
	return s.tenant
}

// path is where its roles and secrets are: `tenant/tnt_…/`, `plane/dev/`.
func (s *set) path() string {
	if s.tenant == "" {
		return s.label() + "/" + s.place.Plane + "/"
	}
	return "tenant/" + s.tenant + "/"
}

// label is its name below what says which plane it is, and where an underscore can't be: in DNS, in a bucket's name.
func (s *set) label() string {
	if s.tenant == "" {
		return string(blueprint.ScopePlane)
	}
	return dashed(s.tenant)
}

func dashed(name string) string { return strings.ReplaceAll(name, "_", "-") }

// called is the name of something of a component.
func (s *set) called(parts ...string) string {
	return strings.Join(append([]string{s.name()}, parts...), "-")
}

// taskRole is whom a component calls AWS as; startRole is whom ECS starts it as.
func (s *set) taskRole(component string) string {
	return s.place.iam("role/" + s.path() + s.called(component, "task"))
}

func (s *set) startRole(component string) string {
	return s.place.iam("role/" + s.path() + s.called(component, "start"))
}

// secretName is where what a component is given lies; secretARN matches that secret and no other, for Secrets Manager puts six characters
// after a name.
func (s *set) secretName(component string) string { return s.path() + "component/" + component }

func (s *set) secretARN(name string) string {
	return s.place.arn("secretsmanager", "secret:"+name+"-??????")
}

// storeSecrets are all secrets of a store.
func (s *set) storeSecrets(store string) string {
	return s.place.arn("secretsmanager", "secret:"+s.path()+"store/"+store+"/*")
}

func (s *set) logGroup(component string) string { return "/a3/" + s.path() + component }

// bucket is its name in all of AWS; the account's number makes it so.
func (s *set) bucket(store string) string {
	return strings.Join([]string{s.place.cluster(), s.label(), store, s.place.Account}, "-")
}

func (s *set) queue() string { return s.called("queue") }

func (s *set) deadLetters() string { return s.called("queue-dead") }

func (s *set) queueARN(name string) string { return s.place.arn("sqs", name) }

// namespace is the zone of the set's own names.
func (s *set) namespace() string { return s.label() + "." + s.place.Zone() }

// portOf is where a component listens on a port.
func portOf(c blueprint.Component, name string) int {
	const first = 7443
	for i, p := range c.Ports {
		if p == name {
			return first + i
		}
	}
	return first
}
