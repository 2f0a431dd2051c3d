// Package binding is the proof of whose resources a service works with. The database, the queue, the object store and the secret
// store of a set each carry a mark: which plane and tenant they belong to and what they are, signed by the plane's provisioner with
// a key that no service holds. It promises that a resource with another's mark, with none, with one that the plane did not sign, or
// with access to more than its own, is named and refused: a resource is opened with an [Owner], and a service serves only after its
// Owner proved all that was opened with it. It relies on the drivers to read the mark from where the resource keeps it.
package binding

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"golang.org/x/mod/sumdb/note"

	"a3os.app/libs/id"
)

// Kind is what a mark stands on.
type Kind string

// The kinds of resources.
const (
	Database Kind = "database"
	Queue    Kind = "queue"
	Objects  Kind = "objects"
	Secrets  Kind = "secrets"
)

// Why a resource is refused; find them with errors.Is. All of them are [ErrRefused].
var (
	// ErrRefused is every refusal: trying again mends none.
	ErrRefused = errors.New("the resource is not this set's")
	// ErrForeign says that a resource carries a mark of the plane that is another's.
	ErrForeign = fmt.Errorf("%w: it carries another's mark", ErrRefused)
	// ErrUnmarked says that nothing tells whose a resource is.
	ErrUnmarked = fmt.Errorf("%w: it carries no mark", ErrRefused)
	// ErrForged says that a resource carries a mark that this plane did not sign, or that was changed since.
	ErrForged = fmt.Errorf("%w: the plane did not sign its mark", ErrRefused)
	// ErrReach says that more can be opened than is the set's own.
	ErrReach = fmt.Errorf("%w: it opens more than its own", ErrRefused)
)

// Refusal is why a resource is not used. Its text is the whole sentence: what, where, and the next step.
type Refusal struct {
	// Text is the sentence.
	Text string
	// Kind is one of the errors of this package.
	Kind error
}

// Error implements error.
func (r *Refusal) Error() string { return r.Text }

// Unwrap makes errors.Is find the kind.
func (r *Refusal) Unwrap() error { return r.Kind }

// Refuse makes a Refusal.
func Refuse(kind error, format string, args ...any) error {
	return &Refusal{Text: fmt.Sprintf(format, args...), Kind: kind}
}

// Place is a resource as it is named to whoever configures a service.
type Place struct {
	// What it is, as `database "tnt_b"` or `directory /x`.
	What string
	// Setting is the variable that led there.
	Setting string
}

// check is the next step of a refusal.
func (p Place) check() string {
	if p.Setting == "" {
		return "check where this role was led"
	}
	return "check " + p.Setting
}

// Resource is what was opened with an Owner.
type Resource interface {
	// Prove fails where the resource carries not the owner's mark, or opens more than the owner's own.
	Prove(ctx context.Context) error
}

// Owner is who a service works for, and what its resources are held to. It is safe for use by many goroutines.
type Owner struct {
	plane  string
	tenant id.Tenant
	keys   note.Verifiers
	named  string

	mu     sync.Mutex
	opened []Resource
}

// NewOwner makes the owner of a tenant's resources, or of the plane's own where tenant is zero. keys are the public halves of the keys
// that the plane's provisioner signs marks with, joined by commas: while one is exchanged there are two.
func NewOwner(keys, plane string, tenant id.Tenant) (*Owner, error) {
	if plane == "" {
		return nil, errors.New("marks can't be verified without a plane")
	}
	o := &Owner{plane: plane, tenant: tenant}
	var verifiers []note.Verifier
	var names []string
	for text := range strings.SplitSeq(keys, ",") {
		v, err := note.NewVerifier(strings.TrimSpace(text))
		if err != nil {
			return nil, errors.New("the keys that verify marks are not signed-note verifier keys, joined by commas")
		}
		if v.Name() != keyName(plane) {
			return nil, fmt.Errorf("the key %s does not sign marks of plane %s: that is %s", v.Name(), plane, keyName(plane))
		}
		verifiers, names = append(verifiers, v), append(names, keyID(v))
	}
	o.keys, o.named = note.VerifierList(verifiers...), strings.Join(names, ", ")
	return o, nil
}

// keyName is what the key of a plane's marks signs under.
func keyName(plane string) string { return "a3os.app/" + plane + "/marks" }

func keyID(v note.Verifier) string { return fmt.Sprintf("%s+%08x", v.Name(), v.KeyHash()) }

// Tenant is whose resources they are; zero for the plane's own.
func (o *Owner) Tenant() id.Tenant { return o.tenant }

// Plane is the plane that the resources are in.
func (o *Owner) Plane() string { return o.plane }

// Hold remembers a resource that was opened, for Prove.
func (o *Owner) Hold(r Resource) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.opened = append(o.opened, r)
}

// Prove fails where anything that was opened with this owner is not its own. Where nothing was, nothing is proven, and it fails too.
func (o *Owner) Prove(ctx context.Context) error {
	o.mu.Lock()
	opened := o.opened
	o.mu.Unlock()
	if len(opened) == 0 {
		return Refuse(ErrUnmarked, "nothing that this service works with was opened as its set's own, so nothing proves whose it is")
	}
	// At once, for to connect to a database is mostly to wait.
	errs := make([]error, len(opened))
	var all sync.WaitGroup
	for i, r := range opened {
		all.Go(func() { errs[i] = r.Prove(ctx) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// String is `tenant tnt_…`, or `plane dev`.
func (o *Owner) String() string {
	if o == nil {
		return "nobody"
	}
	return whose(o.plane, o.tenant)
}

func whose(plane string, tenant id.Tenant) string {
	if tenant.IsZero() {
		return "plane " + plane
	}
	return "tenant " + tenant.String()
}

// self is this process's set in a sentence.
func (o *Owner) self() string {
	if o.tenant.IsZero() {
		return "this is plane " + o.plane
	}
	return "this set is " + o.tenant.String()
}
