package stack

import (
	"cmp"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"a3os.app/deploy/blueprint"
)

// facts are what a component is told, and the files that it is given: where each is, and its key in the component's secret. Public halves of
// keys and the first admin are parameters of the template.
func (s *set) facts(c blueprint.Component) (blueprint.Facts, map[string]string) {
	given := map[string]string{}
	file := func(key, name string) string {
		at := path.Join(secretsDir, name)
		given[at] = key
		return at
	}
	file("keypair", "certificate/workload.pem")
	f := blueprint.Facts{
		Plane: s.place.Plane, Release: s.release, LogLevel: cmp.Or(s.logLevel, "info"), Certificates: certificateDir, StateDir: stateDir, PlaneRoots: file("plane-roots", "plane-roots.pem"),
		TenantRate: cmp.Or(s.tenantRate, "0"), CORSOrigins: strings.Join(s.origins, ","), Domain: s.place.Domain, ApexSlug: s.apex, SetNetworks: network, SetZone: s.place.Zone(), MarkKeys: s.said("MarkKeys", "Public keys of the plane's marks"),
		LicenceKeys: s.said("LicenceKeys", "Public keys of licences"),
		Addresses:   map[string]string{}, PeerAddresses: map[string]map[string]string{}, PlaneAddresses: map[string]string{},
		DatabaseURLs: map[string]string{}, KeyFiles: map[string]string{}, PublicKeys: map[string]string{}, StoreDirs: map[string]string{},
	}
	if s.tenant == "" {
		f.ReleaseKeys = s.said("ReleaseKeys", "Public keys of releases")
	}
	if s.tenant != "" {
		f.Tenant, f.Slug, f.URL = s.tenant, s.slug, cmp.Or(s.url, "https://"+s.slug+"."+s.place.Domain)
		f.TenantRoots = file("tenant-roots", "tenant-roots.pem")
		if r := s.blueprint.MachineReader; r != nil && r.Client == c.Name {
			// A task sees nothing of the machine that there would be to discover.
			f.Machine = &blueprint.Machine{}
		}
	}
	s.addresses(&f, c)
	for _, role := range c.Needs.Database {
		f.DatabaseURLs[role] = file("database-"+role, databaseFile(role))
	}
	if s.databaseRoots && len(c.Needs.Database) > 0 {
		given[DatabaseRootsFile] = DatabaseRootsKey
	}
	if c.Needs.Copied != "" {
		f.Copy = "s3://" + s.bucket(copies) + "/" + s.copied(c)
	}
	for _, key := range c.Needs.Keys {
		f.KeyFiles[key] = file("key-"+key, "keys/"+key)
	}
	for _, key := range c.Needs.PublicKeys {
		f.PublicKeys[key] = s.said(logical("public-key", key), "Public half of key "+key)
	}
	for _, store := range slices.Concat(c.Needs.Stores, c.Needs.ReadsStores) {
		f.StoreDirs[store] = s.storeURL(store)
	}
	if c.Needs.KeyService {
		f.KeyService = "awskms://${" + keyID + ".Arn}"
	}
	if s.sends(c) || s.receives(c) {
		f.Queue = "${Queue}"
	}
	if c.Needs.IssuingAuthority {
		f.Authority = file("authority", "authority.pem")
	}
	if c.Needs.FirstAdmin {
		f.FirstAdmin = &blueprint.FirstAdmin{Email: s.optional("FirstAdminEmail", "Address of the tenant's first admin; empty once somebody is in"),
			CodeHash: s.optional("FirstAdminCodeHash", "SHA-256 of the first admin's code; empty once somebody is in")}
	}
	if c.Needs.Licence {
		// The registry hands it out; the first one too.
		f.LicencePath = path.Join(stateDir, "licence")
	}
	if c.Needs.FrontDoor {
		f.Front = &blueprint.Front{Certificate: file("front-certificate", "front/certificate.pem"), Key: file("front-key", "front/key.pem")}
	}
	return f, given
}

// addresses are where it listens, and where its peers and the plane's services are.
func (s *set) addresses(f *blueprint.Facts, c blueprint.Component) {
	for _, peer := range s.blueprint.Components {
		f.PeerAddresses[peer.Name] = map[string]string{}
		for _, port := range peer.Ports {
			f.PeerAddresses[peer.Name][port] = s.address(peer, port)
		}
	}
	for _, port := range c.Ports {
		// Only api is for others; what is told of a component's health stays within its task.
		host := "127.0.0.1:"
		if port == apiPort {
			host = "0.0.0.0:"
		}
		f.Addresses[port] = host + strconv.Itoa(s.portOf(c, port))
	}
	control := set{place: s.place.home()}
	for _, name := range c.Needs.Plane {
		f.PlaneAddresses[name] = control.address(blueprint.Component{Name: name, Ports: []string{apiPort}}, apiPort)
	}
}

// migrationFacts are what the migration is told and given.
func (s *set) migrationFacts() (blueprint.Facts, map[string]string) {
	owner := path.Join(secretsDir, "database/owner.url")
	f := blueprint.Facts{Plane: s.place.Plane, Tenant: s.tenant, Release: s.release, OwnerURL: owner, RoleNames: map[string]string{}}
	for role := range maps.Keys(s.blueprint.Database.Roles) {
		f.RoleNames[role] = s.databaseRole(role)
	}
	given := map[string]string{owner: "database-owner"}
	if s.databaseRoots {
		given[DatabaseRootsFile] = DatabaseRootsKey
	}
	return f, given
}

// databaseRole is the name of one of the set's roles in the database server. Of the plane's own there is one set in a server.
func (s *set) databaseRole(role string) string {
	if s.tenant == "" {
		return role
	}
	return s.tenant + "_" + role
}

// storeURL is where a driver finds a store, and the key that it writes under.
func (s *set) storeURL(store string) string {
	return s.storeAt(store, "${"+keyID+".Arn}")
}

func (s *set) storeAt(store, key string) string {
	if s.blueprint.Stores[store].Kind == blueprint.StoreBlob {
		return "s3://" + s.bucket(store) + "/" + s.name() + "?key=" + key
	}
	return "secretsmanager://" + s.path() + "store/" + store + "?key=" + key
}

// said is a parameter that a change set has to say, optional one that it may leave empty.
func (s *set) said(id, description string) string { return s.parameter(id, description, nil) }

func (s *set) optional(id, description string) string { return s.parameter(id, description, new("")) }
