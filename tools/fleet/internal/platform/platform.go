// Package platform is what carries sets out: what each platform (this machine, containers, a cloud) has to be able to do, and nothing
// of how. Whoever drives one names no service and knows no process; what a set consists of, a platform reads in its blueprint.
//
// Every step can be repeated, and is taken up where a killed one was: it looks, changes what is not as it should be, and says whether
// that was anything. A platform touches what is the named set's alone.
package platform

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/id"
	"a3os.app/libs/release"
)

// Platform carries sets out. The order of its methods is that of a set's life.
type Platform interface {
	// Name is how plans and settings call it: `local`, `docker`, `aws`.
	Name() string
	// Where says where it works, as it finds out itself: a plan that was made elsewhere is not carried out here.
	Where(ctx context.Context) (Where, error)

	// Fetch has a release's artefacts where sets run them from, and sees that each has the digest that the release says.
	Fetch(ctx context.Context, r Release) (changed bool, err error)
	// Identity makes what is missing of a set's authorities, certificates, keys and stores, and renews what ends soon.
	Identity(ctx context.Context, s Set) (changed bool, err error)
	// Database makes what is missing of a set's database and its roles, and closes it to everybody else.
	Database(ctx context.Context, s Set) (changed bool, err error)
	// Migrate brings a set's database up to a release, with the owner's credentials.
	Migrate(ctx context.Context, s Set, r Release) (changed bool, err error)
	// Mark puts the set's signed mark on its database and its queue.
	Mark(ctx context.Context, s Set) (changed bool, err error)
	// Start has the set's components run a release, wave by wave, and returns when all serve. One that runs it already stays untouched.
	Start(ctx context.Context, s Set, r Release) (changed bool, err error)
	// Stop has the set's components stopped in good order, and kept no longer. Nothing is lost.
	Stop(ctx context.Context, s Set) (changed bool, err error)

	// Export writes all that is the tenant's into a directory, for the tenant to take along. The set need not run.
	Export(ctx context.Context, s Set, dir string) (changed bool, err error)
	// Shred destroys the set's keys, so that what was sealed with them can't be read wherever a copy of it is.
	Shred(ctx context.Context, s Set) (changed bool, err error)
	// Delete removes everything of a set that is stopped.
	Delete(ctx context.Context, s Set) (changed bool, err error)
	// Remains looks for what is left of a set, everywhere that it could be, and names each thing; none where it is gone.
	Remains(ctx context.Context, s Set) ([]string, error)
	// Shared are the places that hold something of a set among what is others', which can't be destroyed alone: what each holds, and
	// until when.
	Shared(s Set) []string

	// Placed is where a set that runs a release is, for the registry.
	Placed(ctx context.Context, s Set, r Release) (*registryv1.ServiceSet, error)
	// Components is how the set's components are, as the platform sees them; none where the set doesn't run.
	Components(ctx context.Context, s Set) ([]ComponentStatus, error)

	// Delegate is what a process gets to work on one set, until a time: that tenant's credentials, and nothing else.
	Delegate(ctx context.Context, s Set, r Release, until time.Time) (Delegation, error)
	// Delegated keeps what such a process found out that the platform remembers: a step of the set is done.
	Delegated(s Set, r Release, step string) error
}

// Waker is a platform that keeps database servers which who works on one set can't start.
type Waker interface {
	// Wake has the set's own server run, if it has one: whoever backed a suspended set up may have stopped it since it was last seen.
	Wake(ctx context.Context, s Set) error
}

// Keeper is a platform that keeps other things beside a tenant's components. A component that has the name of one is given that one's address, user or
// container; new blueprints have none (blueprint.Taken), and those that releases were made by before may.
type Keeper interface {
	// KeptBeside are the names of those things.
	KeptBeside() []string
}

// Templates is a platform that can make a new set's database as the release leaves one that it migrated, without migrating it.
type Templates interface {
	// MigratedDatabase is Database for a set that is to run a release; where it made the database, nothing may be left for Migrate to do.
	MigratedDatabase(ctx context.Context, s Set, r Release) (changed bool, err error)
}

// Foreseer is a platform that has the change of a set planned where it will be made, before anything is changed, and that then makes the
// change which a plan names (Set.Planned) and no other.
type Foreseer interface {
	// Foresee has planned what of a set would change so that it runs a release, or doesn't run; nil where there is nothing of the set yet.
	Foresee(ctx context.Context, s Set, r Release, running bool) (*registryv1.StackChange, error)
	// Stands refuses a planned change that can't be made any more, and says why.
	Stands(ctx context.Context, s Set, c *registryv1.StackChange) error
}

// Steps that a platform may leave to the process that works on one set (Delegation), named as plans name them.
const (
	StepMigrate = "migrate"
	StepStart   = "start"
	StepStop    = "stop"
	StepShred   = "shred"
	StepDelete  = "delete"
)

// Doorkeeper is a platform some of whose things can't be opened to one set alone, as a Docker engine: whoever speaks to it is root; or for as long
// as steps may take, as a session at AWS. The process that works on a set asks for what it wants of them, and who has them does it for that set.
type Doorkeeper interface {
	// Answer does what the process asks for while it is at a step: which set, and which release, it has no word for.
	Answer(ctx context.Context, s Set, r Release, step string, call json.RawMessage) (Answer, error)
}

// Answer is what the process is answered: whether that changed anything, and what it is handed over, which may be a secret.
type Answer struct {
	Changed bool
	Given   json.RawMessage
}

// Door is how that process asks.
type Door func(ctx context.Context, call json.RawMessage) (Answer, error)

// Delegation is what a process may that works on one set.
type Delegation struct {
	// Steps that it does by itself.
	Steps []string
	// Config is what it opens the platform with. It holds secrets.
	Config json.RawMessage
	// Reads, Runs and Writes are the paths that it may read, run programs from, and change; the kernel keeps it from all others.
	Reads, Runs, Writes []string
	// Ports of TCP's, of this machine and of all others, that it may connect to. With 53 among them it may send by UDP as well, wherever to.
	Ports []uint16
	// Sockets says that it may connect to sockets of this machine's files, as the supervisor's. Landlock says nothing of who connects to one
	// (up to its ABI 7): who needs none gets none, and a socket that lets in whoever is root, as a Docker engine's, stays shut.
	Sockets bool
}

// Where is where a platform works.
type Where struct {
	// Account, or host and the id of the plane on it, `host/id`.
	Account string
	// Region; `local` on one machine.
	Region string
}

// Moved says that an account is this very plane's on the host that it was on before.
func (w Where) Moved(account string) bool {
	_, was, onHost := strings.Cut(account, "/")
	_, is, _ := strings.Cut(w.Account, "/")
	return onHost && was != "" && was == is && account != w.Account
}

// Set is one set of services.
type Set struct {
	// Blueprint of it.
	Blueprint *blueprint.Blueprint
	// Tenant whose set it is; zero for the plane's own.
	Tenant id.Tenant
	// Slug of the tenant.
	Slug string
	// Tier says what its database shares; unspecified is that of a plane's own set, and of what was made before there were tiers: a
	// database in the shared server.
	Tier registryv1.IsolationTier
	// Account of the cloud that the tenant has to itself; empty where it is in the plane's.
	Account string
	// Planned is the change that the operation in hand may make of the set's stack, as its plan names it; nil where no plan does.
	Planned *registryv1.StackChange
}

// Name is the tenant's id, or `plane`.
func (s Set) Name() string {
	if s.Tenant.IsZero() {
		return string(blueprint.ScopePlane)
	}
	return s.Tenant.String()
}

// Dedicated says whether the set has a database server of its own.
func (s Set) Dedicated() bool { return s.Tier == registryv1.IsolationTier_ISOLATION_TIER_DEDICATED }

// Release is what a set runs.
type Release struct {
	// Name is version and digest.
	release.Name
	// Artefacts are the digests of what it is made of, by the names that blueprints know them by; where there is only one it may be
	// left out, for the name has its digest.
	Artefacts map[string]string
}

// ParseRelease reads `version@sha256:…` of a release with one artefact.
func ParseRelease(name string) (Release, error) {
	n, err := release.ParseName(name)
	return Release{Name: n}, err
}

// DigestOf is that of the artefact with a name, `sha256:…`.
func (r Release) DigestOf(artefact string) (string, error) {
	if len(r.Artefacts) == 0 {
		return r.Digest, nil
	}
	digest, ok := r.Artefacts[artefact]
	if !ok {
		return "", fmt.Errorf("release %s has no artefact %q", r.Name, artefact)
	}
	return digest, nil
}

// ComponentState is how a component is.
type ComponentState string

// The states.
const (
	// Starting runs and doesn't serve yet.
	Starting ComponentState = "starting"
	// Serving says that it serves.
	Serving ComponentState = "serving"
	// NotReady served and runs, and says that it can't serve now.
	NotReady ComponentState = "not ready"
	// NotAnswering served and runs, and answers nothing any more.
	NotAnswering ComponentState = "not answering"
	// Failing does not run, or keeps ending.
	Failing ComponentState = "failing"
	// Stopping was asked to end.
	Stopping ComponentState = "stopping"
)

// ComponentStatus is how a component of a set is, as its platform sees it. What it says of itself, the registry knows.
type ComponentStatus struct {
	// Name in the blueprint.
	Name string
	// State is how it is.
	State ComponentState
	// Release that the platform runs it with, `version@sha256:…`.
	Release string
	// Since is when its process started; zero where none runs.
	Since time.Time
	// Restarts is how often it came back by itself.
	Restarts int
	// Detail is what there is to say of a failing one: how it ended the last time.
	Detail string
	// Well is when one that is NotReady or NotAnswering was last known to serve; zero where that isn't known.
	Well time.Time
	// Anew is what to type to have one that answers nothing started anew; empty where it isn't known.
	Anew string
}

// Census is what a platform can do besides that sees all that runs on it at once: what it keeps, by the names of the sets, also of sets
// that nobody else knows. What a platform runs for a set itself, as a database server, is none of it.
type Census interface {
	Census(ctx context.Context) (map[string][]ComponentStatus, error)
}

// Disks is a platform whose data lie on disks of this machine.
type Disks interface {
	// Disks are those that it writes to, each once.
	Disks() ([]Disk, error)
}

// Disk is where something is written.
type Disk struct {
	// Path is a directory on it.
	Path string
	// Free and Total bytes of it, as an ordinary user may write them.
	Free, Total uint64
	// Full says what comes of it when none are free; empty where changes are refused and reads go on.
	Full string
}

// Guarded is a platform whose walls others of its machine can take down.
type Guarded interface {
	// Opened is when that was seen the last time; the zero value where it never was.
	Opened() (Opening, error)
}

// Opening is walls that were found open.
type Opening struct {
	// At is when that was seen, and they were closed.
	At time.Time `json:"at"`
	// Failure is why they could not be closed; empty where they were.
	Failure string `json:"failure,omitempty"`
}

// Inspector is a platform that can look at more of a set than whether it runs: at whom it lets in, and whether that is as the release has it.
type Inspector interface {
	// Inspect names what of a set was changed by hand. It changes nothing.
	Inspect(ctx context.Context, s Set, r Release) ([]Difference, error)
	// Mend puts right what it may, when it is asked to.
	Mend(ctx context.Context, s Set, r Release) (changed bool, err error)
}

// PlaneInspector is an Inspector whose sets stand among others' things, which somebody may have changed so that what is meant for one reaches another.
type PlaneInspector interface {
	// InspectPlane names what stands where the plane's own set or one of these does and is none of theirs; of one without a blueprint that is what it is called
	// by. It changes nothing.
	InspectPlane(ctx context.Context, sets []Set) ([]Difference, error)
}

// Difference is something of a set that isn't as its release has it.
type Difference struct {
	// Resource is its name in what the set was made from.
	Resource string
	// Reason is a sentence.
	Reason string
	// Next is what to do where Mend may not; empty where it puts it right.
	Next string
}
