package stack

import (
	"maps"
	"path"
	"slices"
	"strings"

	"a3os.app/deploy/blueprint"
)

// Names of what a set has, for who works on it beside CloudFormation.

// of is a set by the names that it has alone: a tenant's, by its id, or the plane's own, by the name of that scope.
func (p Place) of(name string) *set {
	if name == string(blueprint.ScopePlane) {
		name = ""
	}
	return &set{place: p, tenant: name}
}

// Cluster is the plane's, and how all begins that is the plane's.
func (p Place) Cluster() string { return p.cluster() }

// Zone is the zone of names below which each set has its own.
func (p Place) Zone() string { return p.cluster() + ".internal" }

// Namespace is the zone of a tenant's own names.
func (p Place) Namespace(tenant string) string { return p.of(tenant).namespace() }

// Repository has the images of an artefact.
func (p Place) Repository(artefact string) string { return p.cluster() + "/" + artefact }

// Service is what ECS keeps a component by, and the family of its task's definitions.
func (p Place) Service(tenant, component string) string { return p.of(tenant).called(component) }

// NameExport is what the plane's stack exports the ARN of the name as that a component of its own set is found by.
func (p Place) NameExport(component string) string { return p.export(nameID(component)) }

// TargetExports are the components of the plane's own set, by what its stack exports the ARNs of the target groups as that they stand behind.
func (p Place) TargetExports(b *blueprint.Blueprint) map[string]string {
	out := map[string]string{p.export(registryTargetsID): blueprint.Registry}
	for _, c := range b.Components {
		if c.Needs.FrontDoor {
			out[p.export(targetsID)] = c.Name
		}
	}
	return out
}

// Balancers are the names of the plane's load balancers: before the gateway, and before the registry where it is offered to accounts of tenants.
func (p Place) Balancers() []string { return []string{p.cluster(), p.registryBalancer()} }

func (p Place) registryBalancer() string { return p.cluster() + "-registry" }

// Alarm is one of a tenant's; without a name it is what those of a tenant begin with.
func (p Place) Alarm(tenant, name string) string { return p.of(tenant).called(name) }

// TaskRole is the name of the role that a component calls AWS as.
func (p Place) TaskRole(tenant, component string) string {
	return roleName(p.of(tenant).taskRole(component))
}

// Keeper is a role that fleet becomes for what lies in a tenant's stores, KeeperName its name.
func (p Place) Keeper(k Keeper, tenant string) string { return p.of(tenant).keeperARN(k) }

// KeeperName is the last part of its ARN.
func (p Place) KeeperName(k Keeper, tenant string) string { return roleName(p.Keeper(k, tenant)) }

// ComponentSecret is the secret with what a component is given.
func (p Place) ComponentSecret(tenant, component string) string {
	return p.of(tenant).secretName(component)
}

// SecretPath is what the names of all of a tenant's secrets begin with.
func (p Place) SecretPath(tenant string) string { return p.of(tenant).path() }

// LogGroup is that of a component; of no component it is what those of a tenant begin with.
func (p Place) LogGroup(tenant, component string) string { return p.of(tenant).logGroup(component) }

// Bucket is that of a store.
func (p Place) Bucket(tenant, store string) string { return p.of(tenant).bucket(store) }

// Buckets is how the names of all buckets of a tenant begin and end, and of nobody else's.
func (p Place) Buckets(tenant string) (begins, ends string) {
	begins, ends, _ = strings.Cut(p.Bucket(tenant, "/"), "/")
	return begins, ends
}

// Store is where a store of a tenant is, as services are told, and the key that is written under there.
func (p Place) Store(b *blueprint.Blueprint, tenant, store, key string) string {
	return (&set{place: p, tenant: tenant, blueprint: b}).storeAt(store, key)
}

// StorePath is what the names of the secrets of a tenant's stores begin with.
func (p Place) StorePath(tenant string) string { return p.of(tenant).path() + "store/" }

// Queues are the tenant's queue and its dead letters.
func (p Place) Queues(tenant string) []string {
	s := p.of(tenant)
	return []string{s.queue(), s.deadLetters()}
}

// Address is where a component of a set listens.
func (p Place) Address(b *blueprint.Blueprint, name string, c blueprint.Component, port string) string {
	s := p.of(name)
	s.blueprint = b
	return s.address(c, port)
}

// KeyOutput is the output of a set's stack that says which key it has.
const KeyOutput = keyID

// QueueOutput is the output of a set's stack that says where its queue is.
const QueueOutput = "Queue"

// DatabaseRootsFile is where a task finds the authorities of its database server's certificate, and DatabaseRootsKey what its secret has them by.
const (
	DatabaseRootsFile = secretsDir + "/database/roots.pem"
	DatabaseRootsKey  = "roots-of-database"
)

// Migration is what of a set migrates its database, beside its components.
const Migration = migration

// OneOff is the family of tasks that are run to their end beside a set's components.
const OneOff = "one-off"

// DatabaseFile is where a task that is given the login of a role finds it.
func DatabaseFile(role string) string { return path.Join(secretsDir, databaseFile(role)) }

func databaseFile(role string) string { return "database/" + role + ".url" }

// Given are the keys of the secret of each component, and of what migrates the database: what has to be in it for a task to start.
func Given(in Input) map[string][]string {
	out := map[string][]string{}
	s := newSet(in)
	if !in.Set.Tenant.IsZero() {
		s.tenant, s.slug = in.Set.Tenant.String(), in.Set.Slug
	}
	for _, c := range s.blueprint.Components {
		_, given := s.facts(c)
		out[c.Name] = slices.Sorted(maps.Values(given))
	}
	if s.migrates() {
		_, given := s.migrationFacts()
		out[migration] = slices.Sorted(maps.Values(given))
	}
	return out
}

// Migrating is the program that migrates a set's database, and what it is told; no command where none does.
func Migrating(in Input) (command, environ []string, err error) {
	s := newSet(in)
	if !in.Set.Tenant.IsZero() {
		s.tenant, s.slug = in.Set.Tenant.String(), in.Set.Slug
	}
	if !s.migrates() {
		return nil, nil, nil
	}
	facts, _ := s.migrationFacts()
	environ, err = facts.Environ(s.blueprint.Database.Migrate.Env)
	return s.blueprint.Database.Migrate.Command, environ, err
}

// PublicKey is the name of a key whose public half a parameter says; false for other parameters.
func PublicKey(b *blueprint.Blueprint, parameter string) (string, bool) {
	for name := range b.Keys {
		if parameter == logical("public-key", name) {
			return name, true
		}
	}
	return "", false
}
