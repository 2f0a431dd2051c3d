// Package isolation proves that the sets of a plane can't reach each other, nor their own services more than they need: it tries, with
// each set's own credentials, every door of every other one, and expects each to stay shut. Beside every attempt stands a control, the
// same door with the credential that is right for it, for a refusal proves nothing where the door opens for nobody. It promises to
// change nothing in what it tries, and to tell what could not be tried. It relies on a platform to say what each set holds (World).
package isolation

import (
	"context"
	"crypto/x509"
	"net"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/config"
	"a3os.app/libs/id"
	"a3os.app/libs/workload"
)

// World is everything that is tried, with the credentials of everybody: only a platform's own operator has it.
type World struct {
	// Plane is `dev` or `prod`; Release is what sets run; where that is more than one, each with the slugs of those that run it.
	Plane, Release string
	// Sets to try each other.
	Sets []*Set
	// Front reaches the gateway, whatever name is asked for; WebRoots vouch for it.
	Front    func(ctx context.Context) (net.Conn, error)
	WebRoots *x509.CertPool
	// Registry is where sets report, PlaneRoots vouch for it, and Operator is the plane's own identity there.
	Registry   string
	RegistryID workload.Identity
	PlaneRoots *x509.CertPool
	Operator   *workload.Source
	// Databases are those of the servers that no set may enter, and AdminURL is the provisioner's connection string to one.
	Databases []string
	AdminURL  func(database string) (config.Secret, error)
	// Files are the plane's own, which no component of a set may open.
	Files []File
	// MarkKeys verify the marks of resources.
	MarkKeys string
	// Closed are addresses of the platform's own that no set reaches, and Machine the machine's own, where sets have networks of their own.
	Closed  []Closed
	Machine []string
	// Gaps are what the platform knows that it can't separate, as sentences.
	Gaps []string
}

// Set is what one tenant's set holds.
type Set struct {
	// Tenant and slug of it, and where its people reach it.
	Tenant    id.Tenant
	Slug, URL string
	// Roots vouch for its services.
	Roots *x509.CertPool
	// Components of it.
	Components []*Component
	// Database is its name, empty where it has none; OwnerURL is for controls.
	Database string
	OwnerURL config.Secret
	// OwnServer says that it has a database server to itself; AdminURL is then the provisioner's connection string to a database of that.
	OwnServer bool
	AdminURL  func(database string) (config.Secret, error)
	// Queue is the schema of its queue.
	Queue string
	// Roles that log in.
	Roles []*Role
	// Stores of it.
	Stores []Store
	// Files with its secrets and data.
	Files []File
	// Addresses that its network has, where it has one of its own.
	Addresses []string
	// Cloud is what it has at a provider of a cloud; nil where it has nothing there.
	Cloud *Cloud
	// Token is a user's access token; nil where nobody is signed in from here.
	Token func(ctx context.Context) (string, error)
}

// Name is how a report calls it.
func (s *Set) Name() string { return s.Slug }

// Component is one process of a set.
type Component struct {
	// Name, and address of its API.
	Name, Address string
	// Routes that lead to it from outside.
	Routes []string
	// Source is its certificate.
	Source *workload.Source
	// Reports says that it calls the control plane.
	Reports bool
	// Authority is the file with the authority that it issues certificates with; empty where it has none.
	Authority string
	// Dial connects from its network; nil where that is the machine's own.
	Dial Dial
	// User it runs as; nil where that is not known.
	User *User
}

// User is a user of the machine.
type User struct {
	UID, GID int
	Groups   []int
}

// Role is a login role of a database.
type Role struct {
	// Name in the blueprint.
	Name string
	// URL is its connection string.
	URL config.Secret
	// Schemas that it may look into.
	Schemas []string
}

// Store is a store of a set.
type Store struct {
	Name string
	Kind blueprint.StoreKind
	// Dir is empty where it lies elsewhere than on this machine.
	Dir string
	// Public and Private are the halves of the key that a secret store is sealed to.
	Public  string
	Private config.Secret
}

// File is a file or directory, and who may open it.
type File struct {
	// Path of it, and What is how a report calls it.
	Path, What string
	// Holders are the components of its own set that may.
	Holders []string
}

// Walls that attempts are made at.
const (
	wallKeys     = "keys: certificates and tokens"
	wallGateway  = "gateway"
	wallDatabase = "database"
	wallQueue    = "queue"
	wallStores   = "objects and secrets"
	wallMarks    = "marks: whose a resource says it is"
	wallFiles    = "files"
	wallNetwork  = "network"
	wallRegistry = "control plane"
)

// attempts are all that is tried.
func (w *World) attempts() []attempt {
	var out []attempt
	for _, from := range w.Sets {
		for _, at := range w.Sets {
			if from == at {
				continue
			}
			out = append(out, w.certificates(from, at)...)
			out = append(out, w.tokens(from, at)...)
			out = append(out, w.logins(from, at)...)
			out = append(out, w.marks(from, at)...)
			out = append(out, w.seals(from, at)...)
			out = append(out, w.filesOfOther(from, at)...)
			out = append(out, w.reports(from, at)...)
			out = append(out, w.networks(from, at)...)
			out = append(out, clouds(from, at)...)
		}
		out = append(out, w.planeDatabases(from)...)
		out = append(out, w.planeFiles(from)...)
		out = append(out, w.operatorCalls(from)...)
		out = append(out, w.platformNetwork(from)...)
		out = append(out, w.schemas(from)...)
		out = append(out, w.siblingCalls(from)...)
		out = append(out, w.siblingFiles(from)...)
		out = append(out, clouds(from, from)...)
	}
	return out
}
