package acceptance

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"a3os.app/tools/fleet/internal/platform/aws/stack"
)

const (
	removeWithin = 30 * time.Minute
	// shredDays is what the keys' policies ask for.
	shredDays = 30
)

// remove takes away what was made: tenants before what they stand on. It tries everything, and names what is left.
func (r *run) remove(ctx context.Context) error {
	var faults []error
	for _, t := range r.tenants {
		if r.provisioner.Credentials == nil {
			break // nobody could make them
		}
		faults = append(faults, shred(ctx, r.provisioner, r.keyOf(ctx, r.stackOf(t))), r.removeStack(ctx, r.provisioner, r.stackOf(t)),
			r.removeBucket(ctx, r.provisioner, stack.BucketOf(r.place, t.String(), "objects"), false))
	}
	faults = append(faults, r.removeStack(ctx, r.Config, r.place.ControlStack()))
	// Its roles go with the plane's stack, so its key is given up before.
	if key := r.keyOf(ctx, r.place.PlaneStack()); key != "" {
		cfg, err := r.as(ctx, r.place.BreakGlass())
		if err == nil {
			err = shred(ctx, cfg, key)
		}
		faults = append(faults, err)
	}
	faults = append(faults, r.removeStack(ctx, r.Config, r.place.PlaneStack()), r.removeBucket(ctx, r.Config, r.place.Templates(), true), r.removeBucket(ctx, r.Config, r.place.Bucket("plane", "copies"), true))
	if err := errors.Join(faults...); err != nil {
		return fmt.Errorf("something is left, which costs: %w", err)
	}
	r.say("removed: nothing is left but keys that wait for their deletion")
	return nil
}

// keyOf is the key of a stack, empty where there is none.
func (r *run) keyOf(ctx context.Context, name string) string {
	about, err := cloudformation.NewFromConfig(r.Config).DescribeStackResource(ctx, &cloudformation.DescribeStackResourceInput{StackName: &name, LogicalResourceId: aws.String("Key")})
	if err != nil {
		return ""
	}
	return aws.ToString(about.StackResourceDetail.PhysicalResourceId)
}

func shred(ctx context.Context, cfg aws.Config, key string) error {
	if key == "" {
		return nil
	}
	if _, err := kms.NewFromConfig(cfg).ScheduleKeyDeletion(ctx, &kms.ScheduleKeyDeletionInput{KeyId: &key, PendingWindowInDays: aws.Int32(shredDays)}); err != nil {
		return fmt.Errorf("schedule the deletion of key %s: %w", key, err)
	}
	return nil
}

func (r *run) removeStack(ctx context.Context, cfg aws.Config, name string) error {
	client := cloudformation.NewFromConfig(cfg)
	_, err := client.UpdateTerminationProtection(ctx, &cloudformation.UpdateTerminationProtectionInput{StackName: &name, EnableTerminationProtection: aws.Bool(false)})
	if err != nil && strings.Contains(err.Error(), "does not exist") {
		return nil
	}
	if err == nil {
		_, err = client.DeleteStack(ctx, &cloudformation.DeleteStackInput{StackName: &name})
	}
	if err == nil {
		err = cloudformation.NewStackDeleteCompleteWaiter(client).Wait(ctx, &cloudformation.DescribeStacksInput{StackName: &name}, removeWithin)
	}
	if err != nil {
		return fmt.Errorf("delete stack %s: %w", name, err)
	}
	return nil
}

// removeBucket deletes a bucket, after every version of what is in it where it keeps versions; a tenant's has nothing in it.
func (r *run) removeBucket(ctx context.Context, cfg aws.Config, bucket string, versions bool) error {
	client := r.buckets(cfg)
	pages := s3.NewListObjectVersionsPaginator(client, &s3.ListObjectVersionsInput{Bucket: &bucket})
	for versions && pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil && strings.Contains(err.Error(), "NoSuchBucket") {
			return nil
		}
		if err != nil {
			return fmt.Errorf("list what is in bucket %s: %w", bucket, err)
		}
		for _, v := range page.Versions {
			if _, err := client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &bucket, Key: v.Key, VersionId: v.VersionId}); err != nil {
				return fmt.Errorf("delete %s of bucket %s: %w", aws.ToString(v.Key), bucket, err)
			}
		}
	}
	if _, err := client.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: &bucket}); err != nil && !strings.Contains(err.Error(), "NoSuchBucket") {
		return fmt.Errorf("delete bucket %s: %w", bucket, err)
	}
	return nil
}
