// Package acceptance proves in an account of AWS what no emulator shows, for the account's owner: it says what it will make and what that costs at
// most, asks before it makes anything, makes it under names of its own (plane `accept`), proves each point, and removes it, also where a
// point failed or somebody stopped it. What a run left that couldn't do so is found by these names, and removed by Remove. It touches nothing else.
package acceptance

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	data "a3os.app/deploy/aws"
	"a3os.app/deploy/blueprint"
	"a3os.app/libs/id"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/aws/changeset"
	"a3os.app/tools/fleet/internal/platform/aws/stack"
	"a3os.app/tools/fleet/internal/quota"
)

// Plane is what it calls the plane that it tries things on: names of it are no plane's of dev or prod. It is as
// short as policies of sessions and names of buckets, which have it in them, want it.
const Plane = "accept"

// hours is how long it all stands at most.
const hours = 3

// Options are what it is run with.
type Options struct {
	// Config has the credentials of an administrator's role; Administrator is the ARN of the role.
	Config        aws.Config
	Administrator string
	// PrefixList is S3's in the Region.
	PrefixList string
	// Yes is the account that was consented to beforehand; else it is asked for at In, where that is a terminal's.
	Yes      string
	In       io.Reader
	Terminal bool
	Out      io.Writer
	Prices   map[string]data.Price
	// Patience is how long what was just made may be denied to whom it is for; zero is as long as AWS says that it takes.
	Patience time.Duration
	// Emulated changes templates for an emulator, in tests of this package.
	Emulated func(template []byte) ([]byte, error)
}

// run is one run of it.
type run struct {
	Options
	where     platform.Where
	place     stack.Place
	tenants   []id.Tenant
	templates map[string][]byte
	// first is of the plane's stack what comes before the bucket that the whole is read from.
	first []byte
	// control is the blueprint of the plane's own set.
	control *blueprint.Blueprint
	failed  int
	// provisioner's credentials, once its role is there.
	provisioner aws.Config
	// begun are the stacks that it began to make.
	begun []string
	// stop has it go no further, and remove what it made.
	stop context.CancelCauseFunc
}

// Run makes everything, proves each point and removes what was made, also where ctx ends in the midst of it. It fails where a point isn't proven, where it was
// stopped, where an earlier run left something, and where it leaves something itself, which the error names, with the command that removes it.
func Run(ctx context.Context, o Options) error {
	r, err := open(ctx, o)
	if err != nil {
		return err
	}
	ctx, r.stop = context.WithCancelCause(ctx)
	defer r.stop(nil)
	r.tenants = []id.Tenant{id.NewTenant(), id.NewTenant()}
	if err := r.render(); err != nil {
		return err
	}
	if err := r.tell(); err != nil {
		return err
	}
	err = r.unused(ctx)
	if ctx.Err() != nil {
		err = fmt.Errorf("it was stopped, and nothing was made: %w", context.Cause(ctx))
	}
	if err != nil {
		return err
	}
	if err := r.consent(ctx, "made"); err != nil {
		return err
	}
	proveErr := r.prove(ctx)
	if ctx.Err() != nil {
		proveErr = errors.Join(proveErr, fmt.Errorf("it was stopped before its end: %w", context.Cause(ctx)))
	}
	if len(r.begun) == 0 {
		return errors.Join(proveErr, errors.New("nothing was made"))
	}
	r.say("\nRemoving what was made, which takes some minutes, and longer where a change is under way: who ends this now leaves what costs.")
	// What was made goes, also where somebody typed ctrl-C.
	removeErr := r.remove(context.WithoutCancel(ctx))
	if r.failed > 0 {
		proveErr = errors.Join(proveErr, fmt.Errorf("%d points are not proven: see above", r.failed))
	}
	return errors.Join(proveErr, removeErr)
}

// open sees whose account it is.
func open(ctx context.Context, o Options) (*run, error) {
	r := &run{Options: o}
	var err error
	r.where, err = changeset.Where(ctx, o.Config)
	r.place = stack.Place{Account: r.where.Account, Region: r.where.Region, Plane: Plane, Domain: "acceptance.example"}
	return r, err
}

// render makes the templates of all that it will make.
func (r *run) render() error {
	const digest = "sha256:0000000000000000000000000000000000000000000000000000000000000001"
	release, err := platform.ParseRelease("0.0.0@" + digest)
	if err != nil {
		return err
	}
	control, err := blueprint.Plane()
	if err != nil {
		return err
	}
	sets, err := blueprint.AccessOS()
	if err != nil {
		return err
	}
	r.control = control
	in := stack.Input{Place: r.place, Release: release, Image: digest, Set: platform.Set{Blueprint: control}, Unfronted: true}
	made := map[string]*stack.Template{}
	if made[r.place.PlaneStack()], err = stack.Ground(in); err != nil {
		return err
	}
	first := in
	first.First = true
	begun, err := stack.Ground(first)
	if err == nil {
		r.first, err = r.text(begun)
	}
	if err != nil {
		return err
	}
	made[r.place.ControlStack()], err = stack.Control(in)
	for i, tenant := range r.tenants {
		if err != nil {
			return err
		}
		in.Set = platform.Set{Blueprint: sets, Tenant: tenant, Slug: fmt.Sprintf("acceptance-%d", i+1), Tier: registryv1.IsolationTier_ISOLATION_TIER_DATABASE}
		made[r.stackOf(tenant)], err = stack.Tenant(in)
	}
	if err != nil {
		return err
	}
	r.templates = map[string][]byte{}
	for name, t := range made {
		if r.templates[name], err = r.text(t); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) text(t *stack.Template) ([]byte, error) {
	text, err := t.JSON()
	if err == nil && r.Emulated != nil {
		text, err = r.Emulated(text)
	}
	return text, err
}

func (r *run) stackOf(tenant id.Tenant) string { return r.place.StackOf(tenant.String()) }

// tell says what will be made where, and what it costs at most.
func (r *run) tell() error {
	cost, err := quota.Templates(r.Prices, slices.Collect(values(r.templates))...)
	if err != nil {
		return err
	}
	const hoursOfMonth = 730
	r.say("Account %s, Region %s.\n", r.where.Account, r.where.Region)
	r.say("It makes, and removes at its end:")
	r.say("  stack %s: a network with two NAT gateways and %d endpoints, a cluster, a key, buckets for templates and for the copy of the gateway's snapshot, roles, secrets, logs", r.place.PlaneStack(), endpoints)
	r.say("  stack %s: registry and gateway, of which no task runs", r.place.ControlStack())
	for _, t := range r.tenants {
		r.say("  stack %s: a tenant's set of which no task runs", r.stackOf(t))
	}
	r.say("It costs at most %.2f USD, at the list prices of deploy/aws/prices.csv, if all of it stands for %d hours; it takes about half an hour.", cost.USD/hoursOfMonth*hours, hours)
	r.say("Left are three keys for 30 days, which wait for their deletion and cost nothing.")
	r.say("Ctrl-C, and closing the terminal, have it removed at once. Where it is killed instead, or its session ends, %s removes what it left.\n", r.command())
	return nil
}

// endpoints are the interfaces of the ground.
const endpoints = 7

// consent is the account's number, typed by somebody or given beforehand: a yes alone would be as good for another account. What is to be done is to be
// made, or removed.
func (r *run) consent(ctx context.Context, done string) error {
	if r.Yes != "" {
		if r.Yes != r.where.Account {
			return fmt.Errorf("--yes is for account %s, and the credentials are of account %s: nothing was %s", r.Yes, r.where.Account, done)
		}
		return nil
	}
	if !r.Terminal {
		return fmt.Errorf("nobody can be asked here, for this is no terminal: consent beforehand with --yes %s; nothing was %s", r.where.Account, done)
	}
	r.say("Type the account's number to have it %s, or anything else to leave it:", done)
	type answer struct {
		line string
		err  error
	}
	typed := make(chan answer, 1)
	go func() { // a read of a terminal ends with a line alone
		line, err := bufio.NewReader(r.In).ReadString('\n')
		typed <- answer{line, err}
	}()
	select {
	case <-ctx.Done():
		return fmt.Errorf("it was stopped, and nothing was %s: %w", done, context.Cause(ctx))
	case a := <-typed:
		if a.err != nil && !errors.Is(a.err, io.EOF) {
			return a.err
		}
		if strings.TrimSpace(a.line) != r.where.Account {
			return fmt.Errorf("that isn't the account's number: nothing was %s", done)
		}
		return nil
	}
}

// point tells one point, and counts what isn't proven. What comes after it goes on, but where somebody stopped it.
func (r *run) point(ctx context.Context, name string, prove func() error) {
	if ctx.Err() != nil {
		return
	}
	began := time.Now()
	switch err := prove(); {
	case err == nil:
		r.say("proven  %s (%s)", name, time.Since(began).Round(time.Second))
	case ctx.Err() != nil:
		r.say("stopped %s", name)
	default:
		r.failed++
		r.say("FAILED  %s: %v", name, err)
	}
}

// say tells something. Where nobody reads it, nobody knows that it goes on.
func (r *run) say(format string, args ...any) {
	if _, err := fmt.Fprintf(r.Out, format+"\n", args...); err != nil && r.stop != nil {
		r.stop(fmt.Errorf("nobody reads what it says: %w", err))
	}
}

func values[K comparable, V any](m map[K]V) func(func(V) bool) {
	return func(yield func(V) bool) {
		for _, v := range m {
			if !yield(v) {
				return
			}
		}
	}
}
