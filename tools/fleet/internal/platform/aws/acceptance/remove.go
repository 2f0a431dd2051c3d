package acceptance

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"a3os.app/tools/fleet/internal/platform/aws/changeset"
	"a3os.app/tools/fleet/internal/platform/aws/session"
	"a3os.app/tools/fleet/internal/platform/aws/stack"
)

const (
	// removeWithin is how long a stack may take to be deleted, once no change of it is under way, settleWithin until that is so.
	removeWithin = 30 * time.Minute
	settleWithin = 90 * time.Minute
	// looks is how often it is looked for what is there: what a call that was cut off began, or an answer of AWS's that was behind, shows later.
	looks = 4
)

// Remove removes what a run left that was killed, or whose session ended, once it was consented to as to a run. It takes the credentials of the
// administrator's role that the run had. It fails where something is left, which the error names.
func Remove(ctx context.Context, o Options) error {
	r, err := open(ctx, o)
	if err != nil {
		return err
	}
	found, err := r.find(ctx)
	if err != nil {
		return fmt.Errorf("look for what a run left: %w", err)
	}
	r.say("Account %s, Region %s.\n", r.where.Account, r.where.Region)
	if len(found) == 0 {
		r.say("Nothing of a run is there.")
		return nil
	}
	r.say("It removes what a run left, which must not be under way any more:")
	for _, t := range found {
		r.say("  %s", t)
	}
	if err := r.consent(ctx, "removed"); err != nil {
		return err
	}
	return r.remove(context.WithoutCancel(ctx))
}

// removal is what was done so far to remove what a run made.
type removal struct {
	*run
	tried []thing
	// faults say of what is left why.
	faults map[thing]error
	// notProvisioner says why nobody is the provisioner, who alone removes what tenants have.
	notProvisioner error
}

// remove takes away what has a run's names, tenants' before what it stands on, and looks again until nothing is there. It tries everything, and its error names
// what is left, and the command that removes it.
func (r *run) remove(ctx context.Context) error {
	m := &removal{run: r, faults: map[thing]error{}, notProvisioner: r.isProvisioner(ctx)}
	for range looks {
		found, err := r.find(ctx)
		if err != nil {
			return m.left(err, m.unseen())
		}
		found = slices.DeleteFunc(found, func(t thing) bool { return slices.Contains(m.tried, t) })
		if len(found) == 0 {
			break
		}
		for _, t := range found {
			m.take(ctx, t)
		}
	}
	if len(m.faults) > 0 {
		return m.left()
	}
	r.say("removed: nothing is left but keys that wait for their deletion")
	return nil
}

// take removes one thing, and tells so.
func (m *removal) take(ctx context.Context, t thing) {
	delete(m.faults, t) // a key that its stack's end couldn't give up is tried by itself
	if t.kind == planesStack && len(m.faults) > 0 {
		m.faults[t] = errors.New("it stays until what stands on it is gone, and each key is given up that its provisioner alone gives up")
		return // until the next look
	}
	m.tried = append(m.tried, t)
	cfg, began := m.Config, time.Now()
	if t.kind == tenantsStack || t.kind == tenantsKey {
		if cfg = m.provisioner; m.notProvisioner != nil {
			m.faults[t] = m.notProvisioner
			return
		}
	}
	var err error
	switch t.kind {
	case tenantsKey, planesKey:
		err = m.shred(ctx, cfg, t.name)
	case bucket:
		err = m.removeBucket(ctx, cfg, t.name)
	case tenantsStack, controlStack, planesStack:
		err = m.removeStack(ctx, cfg, t)
	}
	if err != nil {
		m.faults[t] = err
		m.say("FAILED  to remove %s: %v", t, err)
		return
	}
	m.say("removed %s (%s)", t, time.Since(began).Round(time.Second))
}

// left is the error of what couldn't be removed.
func (m *removal) left(besides ...error) error {
	faults := besides
	for _, t := range slices.SortedFunc(maps.Keys(m.faults), inOrder) {
		faults = append(faults, fmt.Errorf("%s is left: %w", t, m.faults[t]))
	}
	return errors.Join(errors.Join(faults...), fmt.Errorf("what is left in account %s costs: see to what is said of it, log in again where the session ended, and remove it with %s", m.where.Account, m.command()))
}

// unseen are the stacks that were begun, where nobody can look any more what is there of them.
func (m *removal) unseen() error {
	var names []string
	for _, name := range m.begun {
		if !slices.ContainsFunc(m.tried, func(t thing) bool { return t.name == name }) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	return fmt.Errorf("what may be left are the stacks %s, a key of each but of %s, and buckets whose names begin with %s", strings.Join(names, ", "), m.place.ControlStack(), m.names())
}

// isProvisioner becomes the provisioner where it is there and nobody has yet: what tenants have it alone removes.
func (r *run) isProvisioner(ctx context.Context) error {
	if r.provisioner.Credentials != nil {
		return nil
	}
	there, err := r.standsIn(ctx)
	if err == nil && !there {
		err = fmt.Errorf("the role %s isn't there, which alone may remove what tenants have", r.place.Provisioner())
	}
	if err == nil {
		err = r.become(ctx)
	}
	return err
}

// keyOf is the key of a stack, with an empty name where there is none.
func (r *run) keyOf(ctx context.Context, of thing) (thing, error) {
	key := thing{kind: planesKey}
	if of.kind == tenantsStack {
		key.kind = tenantsKey
	}
	about, err := cloudformation.NewFromConfig(r.Config).DescribeStackResource(ctx, &cloudformation.DescribeStackResourceInput{StackName: &of.name, LogicalResourceId: aws.String("Key")})
	if err != nil && strings.Contains(err.Error(), "does not exist") {
		return key, nil
	}
	if err != nil {
		return key, fmt.Errorf("look for its key: %w", err)
	}
	key.name = aws.ToString(about.StackResourceDetail.PhysicalResourceId)
	return key, nil
}

// shred has a key wait for its deletion, unless it does: CloudFormation deletes that of a stack which it took back.
func (r *run) shred(ctx context.Context, cfg aws.Config, key string) error {
	client := kms.NewFromConfig(cfg)
	return r.patiently(ctx, tagsWithin, func() error {
		does, err := waits(ctx, client, key)
		if does || err != nil {
			return err
		}
		_, err = client.ScheduleKeyDeletion(ctx, &kms.ScheduleKeyDeletionInput{KeyId: &key, PendingWindowInDays: aws.Int32(stack.ShredAfter)})
		return err
	})
}

// removeStack deletes a stack, once no change of it is under way, for CloudFormation deletes none beside a change; and has its key, which outlives it, be deleted as
// well, before the roles go that may say so.
func (m *removal) removeStack(ctx context.Context, cfg aws.Config, t thing) error {
	ctx, cancel := context.WithTimeout(ctx, settleWithin+removeWithin)
	defer cancel()
	client := cloudformation.NewFromConfig(cfg)
	for tick := time.Tick(5 * time.Second); ; <-tick {
		if _, err := changeset.Settled(ctx, client, t.name); err != nil {
			return err
		}
		if _, err := client.UpdateTerminationProtection(ctx, &cloudformation.UpdateTerminationProtectionInput{StackName: &t.name, EnableTerminationProtection: aws.Bool(false)}); err != nil {
			if strings.Contains(err.Error(), "does not exist") {
				return nil
			}
			return fmt.Errorf("have it deletable: %w", err)
		}
		// Not before: one that is being made may have no key yet.
		key, err := m.keyOf(ctx, t)
		if err != nil {
			return err
		}
		if key.name != "" {
			delete(m.faults, key)
			if err := m.shred(ctx, cfg, key.name); err != nil {
				m.faults[key] = err
			}
		}
		// CloudFormation deletes it in the session that asked for it, and can't renew that.
		if err := session.Fresh(ctx, cfg.Credentials); err != nil {
			return err
		}
		_, err = client.DeleteStack(ctx, &cloudformation.DeleteStackInput{StackName: &t.name})
		if err == nil {
			break
		}
		// What a call that was cut off asked for may have begun since.
		if !strings.Contains(err.Error(), "cannot be deleted while in status") {
			return err
		}
	}
	in := &cloudformation.DescribeStacksInput{StackName: &t.name}
	if err := cloudformation.NewStackDeleteCompleteWaiter(client).Wait(ctx, in, removeWithin); err != nil {
		return errors.Join(err, m.why(ctx, in))
	}
	return nil
}

// why is what CloudFormation says of a stack that it didn't delete.
func (r *run) why(ctx context.Context, in *cloudformation.DescribeStacksInput) error {
	out, err := cloudformation.NewFromConfig(r.Config).DescribeStacks(ctx, in)
	if err != nil || len(out.Stacks) == 0 {
		return err
	}
	return fmt.Errorf("it is %s: %s", out.Stacks[0].StackStatus, aws.ToString(out.Stacks[0].StackStatusReason))
}

// removeBucket deletes a bucket that outlived its stack, after every version of what is in it where it is the plane's; a tenant's has nothing in it.
func (r *run) removeBucket(ctx context.Context, cfg aws.Config, name string) error {
	client := r.buckets(cfg)
	gone := func(err error) bool { return code(err, "NoSuchBucket") }
	pages := s3.NewListObjectVersionsPaginator(client, &s3.ListObjectVersionsInput{Bucket: &name})
	for pages.HasMorePages() && !strings.HasPrefix(name, r.names()+"tnt-") {
		page, err := pages.NextPage(ctx)
		if gone(err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("list what is in it: %w", err)
		}
		for _, v := range page.DeleteMarkers {
			page.Versions = append(page.Versions, types.ObjectVersion{Key: v.Key, VersionId: v.VersionId})
		}
		for _, v := range page.Versions {
			if _, err := client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &name, Key: v.Key, VersionId: v.VersionId}); err != nil {
				return fmt.Errorf("delete %s of it: %w", aws.ToString(v.Key), err)
			}
		}
	}
	if _, err := client.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: &name}); err != nil && !gone(err) {
		return err
	}
	return nil
}
