package aws

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/failpoint"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/aws/changeset"
	"a3os.app/tools/fleet/internal/platform/aws/session"
	"a3os.app/tools/fleet/internal/platform/aws/stack"
)

// revoked is the inline policy by which what a role was handed before works no more.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_use_revoke-sessions.html
const revoked = "AWSRevokeOlderSessions"

// revoke denies every session of a tenant's task roles that began before now. ECS hands a task that starts later a new one. The roles of the plane's own
// set are another stack's.
func (t *tenant) revoke(ctx context.Context) error {
	if t.set.Tenant.IsZero() {
		return nil
	}
	text, err := json.Marshal(map[string]any{"Version": "2012-10-17", "Statement": []any{map[string]any{"Effect": "Deny", "Action": []string{"*"}, "Resource": []string{"*"},
		"Condition": map[string]any{"DateLessThan": map[string]string{"aws:TokenIssueTime": time.Now().UTC().Format(time.RFC3339)}}}}})
	if err != nil {
		return err
	}
	client := iam.NewFromConfig(t.cfg)
	for _, c := range t.set.Blueprint.Components {
		if _, err := client.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: sdk.String(t.place.TaskRole(t.id, c.Name)), PolicyName: sdk.String(revoked), PolicyDocument: sdk.String(string(text))}); err != nil && !gone(err) {
			return fmt.Errorf("deny the sessions of %s that there are: %w", c.Name, err)
		}
	}
	return nil
}

// Shred implements platform.Platform: the set's key is disabled at once and deleted after as long as KMS has one wait at most; with it goes what
// was encrypted under it, wherever a copy is.
func (p *Platform) Shred(ctx context.Context, s platform.Set) (changed bool, err error) {
	t, err := p.of(ctx, s)
	if err != nil {
		return false, err
	}
	keys, err := t.keys(ctx)
	if err != nil {
		return false, err
	}
	if s.Dedicated() {
		// RDS changes a server only for as long as that has its key.
		if changed, err = t.unprotectServer(ctx); err != nil {
			return changed, err
		}
	}
	for _, key := range keys {
		did, err := t.shred(ctx, key)
		if changed = changed || did; err != nil {
			return changed, err
		}
	}
	did, err := p.Machine.Shred(ctx, s)
	return changed || did, err
}

// Delete implements platform.Platform: the database, the stack, and what outlives it.
func (p *Platform) Delete(ctx context.Context, s platform.Set) (changed bool, err error) {
	t, err := p.of(ctx, s)
	if err != nil {
		return false, err
	}
	for _, step := range []func() (bool, error){
		func() (bool, error) { return t.dropDatabase(ctx) },
		func() (bool, error) { return t.deleteStack(ctx) },
		func() (bool, error) { return t.deleteTemplates(ctx) },
		func() (bool, error) { return t.deleteDefinitions(ctx) },
		func() (bool, error) { return t.deleteBuckets(ctx) },
		func() (bool, error) { return t.deleteStoreSecrets(ctx) },
		func() (bool, error) { return p.Machine.Clear(s) },
	} {
		did, err := step()
		if changed = changed || did; err != nil {
			return changed, err
		}
	}
	return changed, nil
}

// dropDatabase drops what a set has in the shared server, or a server of its own, whose first user nobody needs for that, and knows no more.
func (t *tenant) dropDatabase(ctx context.Context) (bool, error) {
	if t.set.Dedicated() {
		return t.deleteServer(ctx)
	}
	if err := t.useServer(ctx, t.set); err != nil {
		return false, err
	}
	return t.Machine.DropDatabase(ctx, t.set)
}

func (t *tenant) deleteStack(ctx context.Context) (changed bool, err error) {
	name := t.stackName()
	client := cloudformation.NewFromConfig(t.cfg)
	there, err := changeset.Settled(ctx, client, name)
	if err != nil || there == nil {
		return false, err
	}
	roles := iam.NewFromConfig(t.cfg)
	for _, c := range t.set.Blueprint.Components {
		if t.set.Tenant.IsZero() {
			break // its roles are another stack's
		}
		// A role with a policy that the stack doesn't know stays.
		if _, err := roles.DeleteRolePolicy(ctx, &iam.DeleteRolePolicyInput{RoleName: sdk.String(t.place.TaskRole(t.id, c.Name)), PolicyName: sdk.String(revoked)}); err != nil && !gone(err) {
			return false, fmt.Errorf("take away what denied the sessions of %s: %w", c.Name, err)
		}
	}
	if _, err := client.UpdateTerminationProtection(ctx, &cloudformation.UpdateTerminationProtectionInput{StackName: &name, EnableTerminationProtection: sdk.Bool(false)}); err != nil {
		return false, fmt.Errorf("have stack %s deletable: %w", name, err)
	}
	if err := failpoint.Here("fleet.stack.deletable"); err != nil {
		return true, err
	}
	if err := session.Fresh(ctx, t.cfg.Credentials); err != nil {
		return true, err
	}
	if _, err := client.DeleteStack(ctx, &cloudformation.DeleteStackInput{StackName: &name}); err != nil {
		return false, fmt.Errorf("delete stack %s: %w", name, err)
	}
	if err := failpoint.Here("fleet.stack.deleting"); err != nil {
		return true, err
	}
	wait := cloudformation.NewStackDeleteCompleteWaiter(client, func(o *cloudformation.StackDeleteCompleteWaiterOptions) {
		o.MinDelay, o.MaxDelay = looksEvery, 15*looksEvery
	})
	if err := wait.Wait(ctx, &cloudformation.DescribeStacksInput{StackName: &name}, time.Hour); err != nil {
		return true, fmt.Errorf("delete stack %s: %w", name, err)
	}
	return true, nil
}

// buckets are those of the set's stores, and all others by the names that a stack of it gives them: a release before may have had other stores.
func (t *tenant) buckets(ctx context.Context) (out []string, err error) {
	for name, store := range t.set.Blueprint.Stores {
		if store.Kind == blueprint.StoreBlob {
			out = append(out, t.place.Bucket(t.id, name)) // which a list may be behind of
		}
	}
	begins, ends := t.place.Buckets(t.id)
	const most = 1000 // that are listed at once
	pages := s3.NewListBucketsPaginator(t.s3(), &s3.ListBucketsInput{Prefix: &begins, MaxBuckets: sdk.Int32(most)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, fmt.Errorf("look for buckets of %s (where fleet may not, the plane's stack is of an earlier release: have administrators deploy this one's first): %w", t.id, err)
		}
		for _, b := range page.Buckets {
			if name := sdk.ToString(b.Name); strings.HasPrefix(name, begins) && strings.HasSuffix(name, ends) && !slices.Contains(out, name) {
				out = append(out, name)
			}
		}
	}
	return out, nil
}

func (t *tenant) s3() *s3.Client {
	return s3.NewFromConfig(t.cfg, func(o *s3.Options) { o.UsePathStyle = t.cfg.BaseEndpoint != nil })
}

// deleteBuckets empties and deletes the set's buckets. What is in them can't be read any more: their key is gone.
func (t *tenant) deleteBuckets(ctx context.Context) (changed bool, err error) {
	client := t.s3()
	buckets, err := t.buckets(ctx)
	if err != nil {
		return false, err
	}
	for _, bucket := range buckets {
		pages := s3.NewListObjectsV2Paginator(client, &s3.ListObjectsV2Input{Bucket: &bucket})
		for pages.HasMorePages() {
			page, err := pages.NextPage(ctx)
			if gone(err) {
				break
			}
			if err != nil {
				return changed, fmt.Errorf("empty bucket %s: %w", bucket, err)
			}
			var ids []s3types.ObjectIdentifier
			for _, o := range page.Contents {
				ids = append(ids, s3types.ObjectIdentifier{Key: o.Key})
			}
			if len(ids) == 0 {
				continue
			}
			if _, err := client.DeleteObjects(ctx, &s3.DeleteObjectsInput{Bucket: &bucket, Delete: &s3types.Delete{Objects: ids, Quiet: sdk.Bool(true)}}); err != nil {
				return changed, fmt.Errorf("empty bucket %s: %w", bucket, err)
			}
		}
		if _, err := client.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: &bucket}); err != nil {
			if gone(err) {
				continue
			}
			return changed, fmt.Errorf("delete bucket %s: %w", bucket, err)
		}
		changed = true
	}
	return changed, nil
}

// inShared is a set whose database is looked for in the server that tenants share, where one of its own is gone.
func (p *Platform) inShared(s platform.Set) platform.Set {
	if s.Dedicated() {
		b := *s.Blueprint
		b.Database = nil
		s.Blueprint, s.Tier = &b, 0
	}
	return s
}

// Shared implements platform.Platform.
func (p *Platform) Shared(s platform.Set) []string {
	out := p.Machine.Shared(p.inShared(s))
	if s.Account != "" {
		place := stack.Place{Plane: p.State.Plane}
		out = append(out, fmt.Sprintf("what led to account %s, which administrators alone take away: stack %s in the plane's account, and the account's number in --accounts of the plane's stack", s.Account, place.LinkStack(s.Name())))
	}
	return append(out,
		fmt.Sprintf("its key waits %d days for its deletion, disabled, and with it what is left of backups, logs and secrets that AWS keeps for a time", stack.ShredAfter),
		"CloudTrail and CloudFormation's list of deleted stacks keep its id for as long as the account has them do")
}
