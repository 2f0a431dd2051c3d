// Package operate carries operations out: changes of one tenant each, made of steps that the registry keeps, done under a lease by one
// process at a time. It promises that an operation which was cut off anywhere, by a signal, a crash or a loss of the registry, is taken
// up where it was and ends as if it had not been; that the steps of a tenant are done by a process that holds that tenant's credentials
// and no other's, but for the few that take the plane's own power, which are done for that tenant by name; and that whoever comes
// second is told who works and until when. It knows platforms by their interface, and no service by name.
package operate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/failpoint"
	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/release"
	"a3os.app/tools/fleet/internal/holder"
	"a3os.app/tools/fleet/internal/plan"
	"a3os.app/tools/fleet/internal/platform"
)

// Reporter is told what happens, as it does.
type Reporter interface {
	// Done is a step that changed something.
	Done(step string, took time.Duration)
	// Note is something worth knowing.
	Note(text string)
}

// Engine carries operations out on one platform. It is safe for concurrent use.
type Engine struct {
	// Platform, fleet's own blueprint, and the connection to the registry as an operator.
	Platform  platform.Platform
	Blueprint *blueprint.Blueprint
	Conn      *grpc.ClientConn
	// MadeBy is the blueprint that sets of a release are made and started by; m is nil where nobody registered the release.
	MadeBy func(release string, m *registryv1.ReleaseManifest) (*blueprint.Blueprint, error)
	// Releases answers what is known of a release, and none whose signature does not hold.
	Releases registryv1.ReleaseServiceClient
	// Registry is how the process that carries out a tenant's steps reaches it, and Provisioner makes that process's keypair, PEM: empty
	// where the tenant has no authority any more.
	Registry    Registry
	Provisioner func(s platform.Set) (string, error)
	// Front is where a set's people reach it.
	Front func(s platform.Set) Front
	// Identified is done once a set has its keys: what the plane adds to them. Answered is done once people reach it, Stopped once it was
	// stopped, Gone once nothing of it is left.
	Identified              func(ctx context.Context, s platform.Set) error
	Answered, Stopped, Gone func(s platform.Set) error
	// Recheck refuses a plan that isn't what the same words would make now.
	Recheck func(ctx context.Context, plan *registryv1.StoredPlan) error
	// Agrees refuses to bring a tenant to a release where more was done with it here than the registry knows.
	Agrees func(ctx context.Context, status *registryv1.TenantStatus, to string) error
	// Lock keeps other commands of this machine from changing what the platform remembers.
	Lock func(ctx context.Context) (unlock func(), err error)
	// Command starts the process that carries out a tenant's steps.
	Command []string
	// Memory knows the processes of this machine that took leases.
	Memory holder.Memory
	// Exports is the directory that what leaving tenants take along lies in.
	Exports string
	// Wait has somebody else's lease waited for.
	Wait   bool
	Report Reporter
}

// work is one operation in hand.
type work struct {
	*Engine
	op *registryv1.Operation
	// tenant as it stood when the operation was begun or taken up; nil until it was read.
	tenant *registryv1.TenantStatus
	set    platform.Set
	// release is what the set runs afterwards, or has run.
	release platform.Release
	lease   *lease
	// begun is a step that is on record as begun, by what was said of the one before it.
	begun string
	// looked says that the release was looked for already, and unbelieved why it isn't believed.
	looked     bool
	unbelieved error
	// made is the blueprint of the release, nil with unmade, which is why it isn't known. remade says that the release before had another, or
	// one that isn't known.
	made   *blueprint.Blueprint
	unmade error
	remade bool
	// waits says until when the operation waits, once it turned out that it does.
	waits string
	// away says that the process that carries the steps out fails because the registry did not answer.
	away bool
	// last is what is said of the last step, on record with the operation's end; nil where it is on record already.
	last *recording
}

// Carry takes an operation's lease and carries out what is left of it.
func (e *Engine) Carry(ctx context.Context, operation string) (*registryv1.Operation, error) {
	l, op, err := e.take(ctx, operation)
	if err != nil {
		return nil, err
	}
	return (&work{Engine: e, op: op, lease: l}).carry(ctx)
}

// carry carries out what is left of an operation under its lease.
func (w *work) carry(ctx context.Context) (*registryv1.Operation, error) {
	ctx, stop := w.lease.keep(ctx)
	defer stop()
	err := w.locked(ctx)
	if err == nil {
		return w.op, nil
	}
	if w.waits != "" {
		w.lease.giveBack(ctx)
		return w.waiting(ctx)
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
		err = cause
	}
	if f, ok := errors.AsType[*fault.Error](err); ok && f.Reason == "OPERATION_ENDED" && w.succeeded(ctx) {
		return w.op, nil
	}
	w.lease.giveBack(ctx)
	return w.op, w.cutOff(err)
}

// succeeded says whether the operation came to its end all the same: its lease is renewed beside the word that ends it, and may be told of
// the end before that word is answered.
func (w *work) succeeded(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callWithin)
	defer cancel()
	res, err := registryv1.NewOperationServiceClient(w.Conn).GetOperation(ctx, &registryv1.GetOperationRequest{OperationId: w.op.GetId()})
	if err != nil || res.GetOperation().GetState() != registryv1.OperationState_OPERATION_STATE_SUCCEEDED {
		return false
	}
	w.op = res.GetOperation()
	return true
}

// locked does what is left, while no other command of this machine changes what the platform remembers.
func (w *work) locked(ctx context.Context) error {
	unlock, err := w.Lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := w.look(ctx); err != nil {
		return err
	}
	if err := w.carryOut(ctx); err != nil {
		return err
	}
	return w.finish(ctx)
}

// cutOff says how an operation that did not end is taken up.
func (w *work) cutOff(err error) error {
	again := fmt.Sprintf("take it up with fleet operation resume %s", w.op.GetId())
	if rollout := w.op.GetRolloutId(); rollout != "" {
		again = "fleet rollout status " + rollout + " says what becomes of it" // which may give it up, and go back
	}
	whose := cmp.Or(w.set.Slug, w.op.GetTenantId())
	if errors.Is(err, context.Canceled) {
		return fmt.Errorf("%s of %s was interrupted: what is done stays done; %s", Kind(w.op.GetKind()), whose, again)
	}
	return fmt.Errorf("%s of %s: %w; %s", Kind(w.op.GetKind()), whose, err, again)
}

// look reads what the operation is about.
func (w *work) look(ctx context.Context) error {
	// The release is read, and held against its signature, while the registry looks for the tenant.
	looking, lctx := errgroup.WithContext(ctx)
	looking.Go(func() error {
		if w.tenant != nil {
			return nil
		}
		res, err := registryv1.NewTenantServiceClient(w.Conn).GetTenant(lctx, &registryv1.GetTenantRequest{Tenant: w.op.GetTenantId()})
		w.tenant = res.GetStatus()
		return fault.FromRPC(err)
	})
	looking.Go(func() error {
		if !w.looked {
			w.lookForRelease(lctx, w.op.GetReleaseFrom(), w.op.GetReleaseTo())
		}
		return nil
	})
	if err := looking.Wait(); err != nil {
		return err
	}
	if kind := w.op.GetKind(); kind == upgrade || kind == downgrade {
		if err := w.Agrees(ctx, w.tenant, w.op.GetReleaseTo()); err != nil {
			return err
		}
	}
	t := w.tenant.GetTenant()
	tenant, err := id.ParseTenant(t.GetId())
	if err != nil {
		return fmt.Errorf("the registry answered a tenant without an id: %w", err)
	}
	w.set = platform.Set{Blueprint: cmp.Or(w.made, w.Blueprint), Tenant: tenant, Slug: t.GetSlug(), Tier: t.GetIsolationTier(), Account: t.GetAccount()}
	if w.set.Planned, err = w.planned(ctx); err != nil {
		return err
	}
	if err := w.stoppedStill(ctx); err != nil {
		return err
	}
	if Ends(w.op.GetKind()) && (errors.Is(w.unbelieved, release.ErrUnsigned) || errors.Is(w.unbelieved, release.ErrChanged)) {
		// Nothing of the release is started: whoever doesn't believe it must be able to stop it.
		w.Report.Note(w.unbelieved.Error())
		return nil
	}
	if Ends(w.op.GetKind()) && w.unbelieved == nil && w.unmade != nil {
		w.Report.Note(fmt.Sprintf("%v; nothing of it is started: it goes on by the blueprint that there is here", w.unmade))
		return nil //nolint:nilerr // it is told, and who is to be stopped must be
	}
	return cmp.Or(w.unbelieved, w.unmade)
}

// lookForRelease reads the release that the set runs afterwards, or has run; of a set that never ran any there is none. Where it ran another
// one, that is looked at as well: what the set consists of may have changed.
func (w *work) lookForRelease(ctx context.Context, from, to string) {
	w.looked = true
	name := cmp.Or(to, from)
	if name == "" {
		return
	}
	var before *blueprint.Blueprint
	var unknown error
	var looking errgroup.Group
	if from != "" && from != name {
		looking.Go(func() error {
			var m *registryv1.ReleaseManifest
			if _, m, unknown = Release(ctx, w.Releases, from); unknown == nil {
				before, unknown = w.MadeBy(from, m)
			}
			return nil
		})
	}
	var m *registryv1.ReleaseManifest
	if w.release, m, w.unbelieved = Release(ctx, w.Releases, name); w.unbelieved == nil {
		w.made, w.unmade = w.MadeBy(name, m)
	}
	_ = looking.Wait()
	w.remade = unknown != nil || before != nil && w.made != nil && before.Digest != w.made.Digest
}

const (
	upgrade   = registryv1.OperationKind_OPERATION_KIND_UPGRADE
	downgrade = registryv1.OperationKind_OPERATION_KIND_DOWNGRADE
	suspend   = registryv1.OperationKind_OPERATION_KIND_SUSPEND
	offboard  = registryv1.OperationKind_OPERATION_KIND_OFFBOARD
)

// Release is a release by its name, with the digests that it says where it is registered, and its manifest; none for what was built here and
// never released. Where it isn't believed, it is answered without them, with the error.
func Release(ctx context.Context, releases registryv1.ReleaseServiceClient, name string) (platform.Release, *registryv1.ReleaseManifest, error) {
	r, err := platform.ParseRelease(name)
	if err != nil {
		return r, nil, err
	}
	res, err := releases.GetRelease(ctx, &registryv1.GetReleaseRequest{Name: name})
	if fault.KindOf(fault.FromRPC(err)) == fault.NotFound {
		return r, nil, nil
	}
	if err != nil {
		return r, nil, fault.FromRPC(err)
	}
	m := res.GetRelease().GetManifest()
	r.Artefacts = map[string]string{}
	for _, a := range m.GetArtefacts() {
		r.Artefacts[a.GetName()] = a.GetDigest()
	}
	return r, m, nil
}

// plan is the one that the operation carries out.
func (w *work) plan(ctx context.Context) (*registryv1.Plan, error) {
	_, read, err := plan.Read(ctx, registryv1.NewPlanServiceClient(w.Conn), w.op.GetPlanHash())
	return read, err
}

// planned is the change of the tenant's stack that the operation's plan names; nil where it names none.
func (w *work) planned(ctx context.Context) (*registryv1.StackChange, error) {
	if _, is := w.Platform.(platform.Foreseer); !is || w.op.GetPlanHash() == "" {
		return nil, nil //nolint:nilnil // none is an answer
	}
	read, err := w.plan(ctx)
	if err != nil {
		return nil, err
	}
	for _, t := range read.GetTenants() {
		if plan.Target(t) == w.op.GetPlanTarget() {
			return t.GetStackChange(), nil
		}
	}
	return nil, fmt.Errorf("plan %s does not include tenant %s, though the operation names this plan", w.op.GetPlanHash(), w.op.GetPlanTarget())
}

// power does what takes the plane's own power: to make roles and databases, to sign marks, to see what another's process may not. It does so
// for the operation's tenant and for no other, when the process that carries out the steps asks for it: which tenant, nobody who asks can say.
func (w *work) power(ctx context.Context, step string) (changed bool, detail string, err error) {
	switch step {
	case StepFetch:
		changed, err = w.fetch(ctx)
	case StepIdentity:
		return w.identity(ctx)
	case StepDatabase:
		changed, err = w.database(ctx)
	case StepMark:
		changed, err = w.Platform.Mark(ctx, w.set)
	case StepConfirm:
		if err := w.placeRemade(ctx); err != nil {
			return false, "", err
		}
		return true, "", w.confirm(ctx)
	case StepExport:
		dir := w.exportDir()
		changed, err = w.Platform.Export(ctx, w.set, dir)
		detail = "what is theirs is in " + dir
	case StepWait:
		return false, "", w.waited(ctx)
	case StepDelete:
		changed, err = w.Platform.Delete(ctx, w.set)
	case StepRemains:
		detail = "nothing of it is left but what can't be destroyed alone: " + strings.Join(w.Platform.Shared(w.set), "; ")
		return true, detail, w.remains(ctx)
	default:
		return false, "", fmt.Errorf("step %s takes no more than the tenant's own credentials: it is not done with the plane's power", step)
	}
	return changed, detail, err
}

// fetch has the release's artefacts be here, and what its blueprint has that the one before hadn't: a component's certificate, a key, a role.
// Nothing of the set that runs is taken away or told of it.
func (w *work) fetch(ctx context.Context) (changed bool, err error) {
	if changed, err = w.Platform.Fetch(ctx, w.release); err != nil || !w.changes() {
		return changed, err
	}
	did, err := w.Platform.Identity(ctx, w.set)
	if changed = changed || did; err != nil {
		return changed, err
	}
	did, err = w.Platform.Database(ctx, w.set)
	return changed || did, err
}

// changes says that a set that there is gets another blueprint, or what its blueprint has and it hasn't.
func (w *work) changes() bool {
	kind := w.op.GetKind()
	return (w.remade || w.set.Planned.GetThenTemplate() != "") && (kind == upgrade || kind == downgrade)
}

// placeRemade tells the registry where the components are that the set has by another blueprint. They run by then, and are asked for nothing
// before.
func (w *work) placeRemade(ctx context.Context) error {
	if !w.changes() {
		return nil
	}
	placed, err := w.Platform.Placed(ctx, w.set, w.release)
	if err != nil {
		return err
	}
	return w.put(ctx, placed)
}

// put tells the registry where the set is.
func (w *work) put(ctx context.Context, placed *registryv1.ServiceSet) error {
	_, err := registryv1.NewTenantWriteServiceClient(w.Conn).PutServiceSet(ctx, &registryv1.PutServiceSetRequest{
		TenantId: w.set.Tenant.String(), ServiceSet: placed, Lease: &registryv1.LeaseProof{OperationId: w.op.GetId(), LeaseToken: w.lease.token},
	})
	return fault.FromRPC(err)
}

// database makes the set's database; that of a new one, where the platform can, with what the release's migrations make.
func (w *work) database(ctx context.Context) (changed bool, err error) {
	if p, ok := w.Platform.(platform.Templates); ok && w.op.GetKind() == registryv1.OperationKind_OPERATION_KIND_PROVISION {
		return p.MigratedDatabase(ctx, w.set, w.release)
	}
	return w.Platform.Database(ctx, w.set)
}

// identity makes the set's identity and makes it known, so that what its provisioner says is believed.
func (w *work) identity(ctx context.Context) (changed bool, detail string, err error) {
	if changed, err = w.Platform.Identity(ctx, w.set); err != nil {
		return changed, "", err
	}
	placed, err := w.Platform.Placed(ctx, w.set, w.release)
	if err != nil {
		return changed, "", err
	}
	// At once, for what the plane adds is none of what the registry is told here.
	known, ctx := errgroup.WithContext(ctx)
	known.Go(func() error { return w.Identified(ctx, w.set) })
	known.Go(func() error { return w.put(ctx, placed) })
	return changed, "", known.Wait()
}

// remains fails when something is left.
func (w *work) remains(ctx context.Context) error {
	left, err := w.Platform.Remains(ctx, w.set)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		return fmt.Errorf("of tenant %s is left: %s; take it away and resume the operation", w.set.Tenant, strings.Join(left, "; "))
	}
	return w.Gone(w.set)
}

// remember has what is remembered of a set here say what the operation did, also where whoever did it was cut off before it said so.
func (w *work) remember() error {
	for _, s := range w.op.GetSteps() {
		if err := w.Platform.Delegated(w.set, w.release, s.GetName()); err != nil {
			return err
		}
		for step, remembers := range map[string]func(platform.Set) error{StepAnswer: w.Answered, StepStop: w.Stopped} {
			if s.GetName() != step {
				continue
			}
			if err := remembers(w.set); err != nil {
				return err
			}
		}
	}
	return nil
}

// finish ends the operation, which moves the tenant on.
func (w *work) finish(ctx context.Context) error {
	if err := w.remember(); err != nil {
		return err
	}
	if err := failpoint.Here("fleet.own.before-finish"); err != nil {
		return err
	}
	if w.last != nil {
		if err := w.finishWith(ctx, *w.last); err != nil {
			return err
		}
	}
	if w.op.GetState() == registryv1.OperationState_OPERATION_STATE_UNFINISHED {
		ctx, cancel := context.WithTimeout(ctx, callWithin)
		defer cancel()
		res, err := registryv1.NewOperationWriteServiceClient(w.Conn).FinishOperation(ctx,
			&registryv1.FinishOperationRequest{OperationId: w.op.GetId(), LeaseToken: w.lease.token})
		if err != nil {
			return fault.FromRPC(err)
		}
		w.op = res.GetOperation()
	}
	return failpoint.Here("fleet.own.finished")
}

// finishWith has the last step on record with the operation's end. A registry of a release before this one records the step alone.
func (w *work) finishWith(ctx context.Context, last recording) error {
	last.finishes = true
	op, err := last.at(ctx, w.Conn, w.op.GetId(), w.lease.token)
	if err != nil {
		return err
	}
	w.op = op
	return nil
}

// exportDir is where what a leaving tenant takes along lies.
func (w *work) exportDir() string {
	return filepath.Join(w.Exports, "export-"+w.set.Slug+"-"+w.op.GetId())
}
