// Package blueprint is what a set of services needs, as data: its components, their databases, keys, stores, ports, routes and
// configuration. Whoever carries sets out (fleet and its platforms) reads a blueprint and knows no service by name. It promises that
// a blueprint which loads is whole: everything that a component's configuration mentions is among its needs, and every need is there.
package blueprint

import (
	"embed"
	"fmt"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

//go:embed accessos.yaml plane.yaml
var files embed.FS

// Schema is the JSON Schema (draft 2020-12) of a blueprint's form, for editors and other programs. Parse checks all that it says, and
// what a schema can't: that what is mentioned is there.
//
//go:embed blueprint.schema.json
var Schema []byte

// AccessOS is the service set of a tenant.
func AccessOS() (*Blueprint, error) { return embedded("accessos.yaml") }

// Plane is the control plane.
func Plane() (*Blueprint, error) { return embedded("plane.yaml") }

func embedded(name string) (*Blueprint, error) {
	text, err := files.ReadFile(name)
	if err != nil {
		return nil, err
	}
	return Parse(name, text)
}

// Scope is whose a set is.
type Scope string

// The scopes.
const (
	// ScopeTenant is a set of each tenant.
	ScopeTenant Scope = "tenant"
	// ScopePlane is the one set of a plane.
	ScopePlane Scope = "plane"
)

// Blueprint is a set of services.
type Blueprint struct {
	// Digest of its text, `sha256:…`: what plans and releases know it by.
	Digest string `yaml:"-"`
	// Text that it was read from.
	Text []byte `yaml:"-" json:"-"`
	// Name of the blueprint.
	Name string `yaml:"name,omitempty"`
	// Artefact that its components and its migration are run from.
	Artefact string `yaml:"artefact,omitempty"`
	// Scope is whose the set is.
	Scope Scope `yaml:"scope,omitempty"`
	// Keys that are made once for a set, by name.
	Keys map[string]Key `yaml:"keys,omitempty"`
	// Stores of a set, by name.
	Stores map[string]Store `yaml:"stores,omitempty"`
	// Database of a set; nil where it has none.
	Database *Database `yaml:"database,omitempty"`
	// RecoverAdmin is run by hand, by an operator, to let a tenant's admin in again.
	RecoverAdmin OneOff `yaml:"recover_admin,omitempty"`
	// Together says that the components of a set of which none runs start all at once, and wait for one another themselves; otherwise each starts
	// when those serve that it comes after.
	Together bool `yaml:"together,omitempty"`
	// Answers is a path at the tenant's host that answers 200 to anybody once the set serves; empty where there is none, and for the plane.
	Answers string `yaml:"answers,omitempty"`
	// MachineReader is kept beside a set whose tenant may read the machine that the platform runs on; nil where there is none.
	MachineReader *MachineReader `yaml:"machine_reader,omitempty"`
	// Backup is how a set is backed up and restored; nil where it isn't.
	Backup *Backup `yaml:"backup,omitempty"`
	// Env is what every component is told besides its own.
	Env map[string]string `yaml:"env,omitempty"`
	// Components of a set.
	Components []Component `yaml:"components,omitempty"`
}

// KeyKind says what a key is for.
type KeyKind string

// The kinds of keys.
const (
	// KeyRandom is 32 random bytes, base64.
	KeyRandom KeyKind = "random"
	// KeyEnvelope signs messages of a queue (libs/queue).
	KeyEnvelope KeyKind = "envelope"
	// KeySealing seals secrets with one half and opens them with the other (libs/secret).
	KeySealing KeyKind = "sealing"
	// KeyNote signs checkpoints (golang.org/x/mod/sumdb/note), under a name.
	KeyNote KeyKind = "note"
	// KeySnapshot signs a registry's snapshots (libs/snapshot).
	KeySnapshot KeyKind = "snapshot"
	// KeyMark signs the marks of a plane's databases, queues and stores (libs/binding). Its secret half is the provisioner's alone.
	KeyMark KeyKind = "mark"
	// KeyProof signs proofs of isolation (fleet isolation verify). Its secret half is the provisioner's alone.
	KeyProof KeyKind = "proof"
	// KeyRelease signs releases that are built where the plane is (libs/release). Its secret half is the provisioner's alone.
	KeyRelease KeyKind = "release"
	// KeyManifest signs manifests of backups (fleet backup). Its secret half is the provisioner's alone.
	KeyManifest KeyKind = "manifest"
	// KeyLicence signs licences that are issued where the plane is (libs/licence). Its secret half is the provisioner's alone.
	KeyLicence KeyKind = "licence"
	// KeyBackup is what a set's backups are encrypted under, 32 random bytes, base64. No component holds it: destroyed, it takes every
	// backup of the set with it.
	KeyBackup KeyKind = "backup"
)

// halves says which kinds have a public half.
var halves = map[KeyKind]bool{KeyRandom: false, KeyEnvelope: true, KeySealing: true, KeyNote: true, KeySnapshot: true, KeyMark: true, KeyProof: true, KeyRelease: true,
	KeyManifest: true, KeyLicence: true, KeyBackup: false}

// HasPublicHalf says whether a key of the kind has a public half, which is told to those who need it.
func (k KeyKind) HasPublicHalf() bool { return halves[k] }

// provisioners are the kinds of keys that no component holds: who held one could vouch for what is another's.
var provisioners = map[KeyKind]bool{KeyMark: true, KeyProof: true, KeyRelease: true, KeyManifest: true, KeyLicence: true}

// Key is a key of a set.
type Key struct {
	// Kind says what it is for.
	Kind KeyKind `yaml:"kind,omitempty"`
	// Name that a note key signs under, a template.
	Name string `yaml:"name,omitempty"`
}

// StoreKind says what a store keeps.
type StoreKind string

// The kinds of stores.
const (
	// StoreSecret keeps sealed secrets (libs/secret).
	StoreSecret StoreKind = "secret"
	// StoreBlob keeps objects (libs/blob).
	StoreBlob StoreKind = "blob"
)

// Store is a store of a set.
type Store struct {
	// Kind says what it keeps.
	Kind StoreKind `yaml:"kind,omitempty"`
	// Key that a secret store is sealed to.
	Key string `yaml:"key,omitempty"`
	// Named is a query that answers what rows name of the store, one text each: an object's key, or of a credential `workspace/integration`, as
	// UUIDs. A backup that lacks one of them is none. Empty where no row does.
	Named string `yaml:"named,omitempty"`
	// Emptied is a statement after which no row names anything of a secret store: what was sealed can't be opened any more, for the key is gone for good. It
	// is run as the owner, who sees every row. Empty where rows don't say.
	Emptied string `yaml:"emptied,omitempty"`
}

// Database is the one database of a set.
type Database struct {
	// Roles that log in, by name; an owner, who runs migrations and nothing else, is always there besides.
	Roles map[string]Role `yaml:"roles,omitempty"`
	// Queue is the schema of the set's queue, which carries a mark of its own; empty where the set has none.
	Queue string `yaml:"queue,omitempty"`
	// Migrate is run with the owner's credentials before components start.
	Migrate Migrate `yaml:"migrate,omitempty"`
}

// Role is a login role.
type Role struct {
	// Connections it may have at most.
	Connections int `yaml:"connections,omitempty"`
	// StatementTimeout is how long one statement may take, as PostgreSQL writes it; empty leaves it to the platform.
	StatementTimeout string `yaml:"statement_timeout,omitempty"`
	// IdleSessionTimeout is how long a session of it may do nothing; empty leaves it to the platform, `0` is for one that listens.
	IdleSessionTimeout string `yaml:"idle_session_timeout,omitempty"`
	// Schemas that it may look into; every other one of the set's database is a sibling's, which fleet isolation verify tries to read.
	Schemas []string `yaml:"schemas,omitempty"`
}

// Migrate is a program that brings the database up to date and ends. Without a command there is nothing to migrate.
type Migrate struct {
	// Command is the artefact's arguments.
	Command []string `yaml:"command,omitempty"`
	// List is the artefact's arguments with which it says, as JSON and without a database, what it would run: name, digest, sql.
	List []string `yaml:"list,omitempty"`
	// Env is its configuration, templates.
	Env map[string]string `yaml:"env,omitempty"`
}

// OneOff is a program that does one thing with some of the set's credentials, and ends.
type OneOff struct {
	// Command is the artefact's arguments; none where there is no such program.
	Command []string `yaml:"command,omitempty"`
	// Database roles that it logs in as.
	Database []string `yaml:"database,omitempty"`
	// PublicKeys whose public half it is told.
	PublicKeys []string `yaml:"public_keys,omitempty"`
	// Env is its configuration, templates.
	Env map[string]string `yaml:"env,omitempty"`
}

// MachineReader is a program that may read every file of the platform's machine and do nothing else, for one component of a set. It
// is no component: it holds nothing of the tenant's, and most platforms have no machine that a tenant may read.
type MachineReader struct {
	// Command is the artefact's arguments.
	Command []string `yaml:"command,omitempty"`
	// Client is the component that it answers, and nobody else.
	Client string `yaml:"client,omitempty"`
	// Resources bound what it may take of its machine.
	Resources Resources `yaml:"resources,omitempty"`
	// Env is all its configuration, templates.
	Env map[string]string `yaml:"env,omitempty"`
}

// Backup is how a set is backed up and restored.
type Backup struct {
	// Key that backups are encrypted under, of kind backup.
	Key string `yaml:"key,omitempty"`
	// Checkpoint is a query that answers the newest checkpoint of the set's log, one text; empty where it has no log.
	Checkpoint string `yaml:"checkpoint,omitempty"`
	// Verify is run on a restored database. It ends well where the record in it is whole.
	Verify OneOff `yaml:"verify,omitempty"`
	// PutBack is a statement that is run on a database that takes the place of the set's own, as its owner, who sees what policies show it, and before Restored is: what the database takes
	// for now is the moment of the backup. Sets of releases of before whose blueprint has none are put back by it too. Empty where there is nothing to say.
	PutBack string `yaml:"put_back,omitempty"`
	// Restored is run on a database that takes the place of the set's own, before anything else uses it: what must not outlive a
	// restore it ends, and it puts the restore on the record.
	Restored OneOff `yaml:"restored,omitempty"`
	// Copied is what becomes of a backup that another tenant's set is restored from; nil where none may be.
	Copied *Copied `yaml:"copied,omitempty"`
}

// Copied is what is done to a database, in a throwaway server and as its owner, who sees every row there, before it becomes another tenant's: whatever is sealed to the
// tenant that it was of, or signed by it, stays behind, and so do the secret stores.
type Copied struct {
	// Empty are tables whose rows stay behind, `schema.table`.
	Empty []string `yaml:"empty,omitempty"`
	// Statements are run next, in order.
	Statements []string `yaml:"statements,omitempty"`
	// LogKey is the key of kind note that the set's log is signed with. Empty where it has no log.
	LogKey string `yaml:"log_key,omitempty"`
	// Checkpoint is a statement that takes the checkpoint that the log goes on from: $1 its size, $2 its root, $3 the note, signed with LogKey of the
	// tenant that the copy is for.
	Checkpoint string `yaml:"checkpoint,omitempty"`
}

// Component is one process of a set.
type Component struct {
	// Name, a DNS label, and none that is Taken; also the service in its certificate.
	Name string `yaml:"name,omitempty"`
	// Command is the artefact's arguments.
	Command []string `yaml:"command,omitempty"`
	// Needs is what it gets, and nothing else.
	Needs Needs `yaml:"needs,omitempty"`
	// Ports by name. `api` is where its set and the gateway reach it.
	Ports []string `yaml:"ports,omitempty"`
	// KeepSocket is the artefact's arguments with which it keeps the front door's socket open beside the component and hands it over, so
	// that clients wait while that restarts; an address, a path and the id of the component's user are added. It is for a platform that
	// can't keep a socket itself; none where the artefact can't, and then clients are turned away meanwhile.
	KeepSocket []string `yaml:"keep_socket,omitempty"`
	// Health says where it tells that it can serve.
	Health Health `yaml:"health,omitempty"`
	// Resources bound what it may take of its machine.
	Resources Resources `yaml:"resources,omitempty"`
	// Routes are the path prefixes that the gateway sends to it; none where it isn't reachable from outside.
	Routes []string `yaml:"routes,omitempty"`
	// After names the components that serve before it starts.
	After []string `yaml:"after,omitempty"`
	// Env is its configuration, templates. It stands beside the blueprint's.
	Env map[string]string `yaml:"env,omitempty"`
}

// Needs is what a component gets.
type Needs struct {
	// Database roles that it logs in as.
	Database []string `yaml:"database,omitempty"`
	// Keys whose secret half it holds.
	Keys []string `yaml:"keys,omitempty"`
	// PublicKeys whose public half it is told.
	PublicKeys []string `yaml:"public_keys,omitempty"`
	// Stores that it writes and reads: of each store that is one component.
	Stores []string `yaml:"stores,omitempty"`
	// ReadsStores are stores of another component that it reads.
	ReadsStores []string `yaml:"reads_stores,omitempty"`
	// Plane names services of the control plane that it calls.
	Plane []string `yaml:"plane,omitempty"`
	// IssuingAuthority is for the component that issues its siblings' certificates.
	IssuingAuthority bool `yaml:"issuing_authority,omitempty"`
	// KeyService is for a component whose own keys rest under a key of a key service, where the platform has one.
	KeyService bool `yaml:"key_service,omitempty"`
	// FirstAdmin is for the component that lets the tenant's first admin in.
	FirstAdmin bool `yaml:"first_admin,omitempty"`
	// Licence is for the component that is handed the tenant's first licence as a file; later ones come from the registry.
	Licence bool `yaml:"licence,omitempty"`
	// FrontDoor is for the component that listens on the plane's public address, with the certificate that clients see.
	FrontDoor bool `yaml:"front_door,omitempty"`
	// Copied is the name of what a component keeps in its state directory and has to have after that ended: where a platform's do, it is told
	// where a copy of it is kept, which it keeps itself.
	Copied string `yaml:"copied,omitempty"`
	// Outside is for a component that calls systems which are nobody's of the plane; a platform that closes networks opens a way out for
	// it, and for no other.
	Outside bool `yaml:"outside,omitempty"`
}

// Health says where a component tells that it can serve: an HTTP path that answers 200.
type Health struct {
	// Port by name.
	Port string `yaml:"port,omitempty"`
	// Path on it.
	Path string `yaml:"path,omitempty"`
	// Check is the artefact's arguments with which it asks a URL, which is added, itself, and ends with 0 where that answers 200: for a
	// platform that asks from within. None where the artefact can't.
	Check []string `yaml:"check,omitempty"`
}

// Resources bound one process, where the platform can. What is left out is DefaultResources'.
type Resources struct {
	// Memory it may hold; more ends the process, which is started again.
	Memory Bytes `yaml:"memory,omitempty"`
	// CPU is how many processors' time it may take: 0.5 is half of one.
	CPU float64 `yaml:"cpu,omitempty"`
	// PIDs is how many processes and threads it may be.
	PIDs int `yaml:"pids,omitempty"`
}

// DefaultResources are those of a component that names none.
var DefaultResources = Resources{Memory: 256 << 20, CPU: 1, PIDs: 256}

// Bytes is a size, written as `64MiB` or `2GiB`.
type Bytes int64

// MarshalYAML writes a size as UnmarshalYAML reads it.
func (b Bytes) MarshalYAML() (any, error) { return fmt.Sprintf("%dMiB", b>>20), nil }

// UnmarshalYAML reads a size.
func (b *Bytes) UnmarshalYAML(node *yaml.Node) error {
	for _, unit := range []struct {
		name string
		size int64
	}{{"MiB", 1 << 20}, {"GiB", 1 << 30}} {
		if text, ok := strings.CutSuffix(node.Value, unit.name); ok {
			// No sign, and no leading zero, which elsewhere would make it octal.
			if n, err := strconv.ParseInt(text, 10, 32); err == nil && n > 0 && strconv.FormatInt(n, 10) == text {
				*b = Bytes(n * unit.size)
				return nil
			}
		}
	}
	return &yaml.TypeError{Errors: []string{fmt.Sprintf("line %d: %q is not a size: write it as 64MiB or 2GiB", node.Line, node.Value)}}
}

// Registry is the service of the plane that knows all sets. The component of a tenant's set that needs it reports for the set.
const Registry = "registry"

// Component finds a component by name.
func (b *Blueprint) Component(name string) (Component, bool) {
	for _, c := range b.Components {
		if c.Name == name {
			return c, true
		}
	}
	return Component{}, false
}

// Waves are the components in the order in which they start: those of one wave start together, when those of the waves before serve.
func (b *Blueprint) Waves() [][]Component {
	var waves [][]Component
	started := map[string]bool{}
	for len(started) < len(b.Components) {
		var wave []Component
		for _, c := range b.Components {
			if !started[c.Name] && all(c.After, started) {
				wave = append(wave, c)
			}
		}
		if len(wave) == 0 {
			return waves // a cycle, which Parse refuses
		}
		for _, c := range wave {
			started[c.Name] = true
		}
		waves = append(waves, wave)
	}
	return waves
}

func all(names []string, in map[string]bool) bool {
	for _, n := range names {
		if !in[n] {
			return false
		}
	}
	return true
}
