package acceptance

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	cfntypes "github.com/aws/aws-sdk-go-v2/service/cloudformation/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	kmstypes "github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
)

// kind is what a thing is, by when it is removed: what tenants have before what they stand on, and what outlives a stack after it. The role that alone may give a
// tenant's key up is the plane's stack's.
type kind int

const (
	tenantsStack kind = iota
	tenantsKey
	controlStack
	planesStack
	planesKey
	bucket
)

func (k kind) String() string {
	return [...]string{"stack", "key", "stack", "stack", "key", "bucket"}[k]
}

// thing is one of those that a run makes and that cost as long as they stand.
type thing struct {
	kind
	name string
}

func (t thing) String() string { return t.kind.String() + " " + t.name }

// inOrder is the order in which things are removed.
func inOrder(a, b thing) int { return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.name, b.name)) }

// find is what is there of a run's, in the order in which it is removed: stacks and buckets by their names, and keys of which the stack is gone by their tags, those of
// tenants for as long as the provisioner is there, who alone sees them.
func (r *run) find(ctx context.Context) ([]thing, error) {
	found, err := r.stacks(ctx)
	if err != nil {
		return nil, err
	}
	keys, err := r.keys(ctx, r.Config, found)
	// Its role goes with the plane's stack, where nobody stands on it any more.
	if err == nil && r.provisioner.Credentials != nil && slices.Contains(found, thing{planesStack, r.place.PlaneStack()}) {
		var theirs []thing
		if theirs, err = r.keys(ctx, r.provisioner, found); code(err, "AccessDenied") {
			err = nil // what a half deleted stack left of its role sees none
		}
		keys = append(keys, theirs...)
	}
	if err != nil {
		return nil, err
	}
	pages := s3.NewListBucketsPaginator(r.buckets(r.Config), &s3.ListBucketsInput{Prefix: aws.String(r.names())})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, fmt.Errorf("list buckets: %w", err)
		}
		for _, b := range page.Buckets {
			// Names are of all Regions, and of all accounts: an account's own says whose it is.
			name, region := aws.ToString(b.Name), cmp.Or(aws.ToString(b.BucketRegion), r.where.Region)
			if strings.HasPrefix(name, r.names()) && strings.HasSuffix(name, "-"+r.where.Account) && region == r.where.Region {
				found = append(found, thing{bucket, name})
			}
		}
	}
	found = append(found, keys...)
	slices.SortFunc(found, inOrder)
	return slices.Compact(found), nil
}

// names is how the names of all begin that a run makes.
func (r *run) names() string { return "a3-" + Plane + "-" }

// stacks are those of a run's that are there, in whatever state.
func (r *run) stacks(ctx context.Context) (found []thing, err error) {
	pages := cloudformation.NewListStacksPaginator(cloudformation.NewFromConfig(r.Config), &cloudformation.ListStacksInput{})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, fmt.Errorf("list stacks: %w", err)
		}
		for _, s := range page.StackSummaries {
			name := aws.ToString(s.StackName)
			if s.StackStatus == cfntypes.StackStatusDeleteComplete || !strings.HasPrefix(name, r.names()) {
				continue // those that were deleted are listed for ninety days
			}
			k := tenantsStack
			switch name {
			case r.place.ControlStack():
				k = controlStack
			case r.place.PlaneStack():
				k = planesStack
			}
			found = append(found, thing{k, name})
		}
	}
	return found, nil
}

// keys are those with a run's tags that nobody gave up and whose stack isn't among those that are there, with which they would go.
func (r *run) keys(ctx context.Context, cfg aws.Config, stacks []thing) (found []thing, err error) {
	client := kms.NewFromConfig(cfg)
	pages := kms.NewListKeysPaginator(client, &kms.ListKeysInput{})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, fmt.Errorf("list keys: %w", err)
		}
		for _, k := range page.Keys {
			tags, err := client.ListResourceTags(ctx, &kms.ListResourceTagsInput{KeyId: k.KeyId})
			if code(err, "AccessDenied") || code(err, "NotFound") {
				continue // it is somebody else's, whose policy says so
			}
			if err != nil {
				return nil, fmt.Errorf("look whose key %s is: %w", aws.ToString(k.KeyArn), err)
			}
			of := map[string]string{}
			for _, t := range tags.Tags {
				of[aws.ToString(t.TagKey)] = aws.ToString(t.TagValue)
			}
			its, is := thing{planesStack, r.place.PlaneStack()}, planesKey
			if tenant := of["tenant"]; tenant != "" {
				its, is = thing{tenantsStack, r.place.StackOf(tenant)}, tenantsKey
			}
			if of["plane"] != Plane || slices.Contains(stacks, its) {
				continue
			}
			waits, err := waits(ctx, client, aws.ToString(k.KeyId))
			if err != nil {
				return nil, err
			}
			if !waits {
				found = append(found, thing{is, aws.ToString(k.KeyId)})
			}
		}
	}
	return found, nil
}

// waits says of a key that it waits for its deletion, or is gone.
func waits(ctx context.Context, client *kms.Client, key string) (bool, error) {
	is, err := client.DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: &key})
	if code(err, "NotFound") {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at key %s: %w", key, err)
	}
	return is.KeyMetadata.KeyState == kmstypes.KeyStatePendingDeletion, nil
}

// code says of an error that it is AWS's answer with a code that begins so.
func code(err error, begins string) bool {
	api, is := errors.AsType[smithy.APIError](err)
	return is && strings.HasPrefix(api.ErrorCode(), begins)
}

// unused sees that nothing of an earlier run is left.
func (r *run) unused(ctx context.Context) error {
	found, err := r.find(ctx)
	if err != nil {
		return fmt.Errorf("look for what an earlier run left: %w", err)
	}
	if len(found) > 0 {
		return fmt.Errorf("an earlier run left %s in account %s, or one is under way there: remove it with %s, and run this again; nothing was made", listed(found), r.where.Account, r.command())
	}
	there, err := r.standsIn(ctx)
	if err != nil {
		return fmt.Errorf("look for what an earlier run left: %w", err)
	}
	if there {
		return fmt.Errorf("the role %s is there, and no stack of Region %s has it: a run made it in another Region of account %s; remove what is there with %s, naming that one, and run this again; nothing was made", r.place.Provisioner(), r.where.Region, r.where.Account, r.command())
	}
	return nil
}

func listed(things []thing) string {
	var out []string
	for _, t := range things {
		out = append(out, t.String())
	}
	return strings.Join(out, ", ")
}

// standsIn says whether there is the provisioner's role, which is the account's, whatever the Region of its stack.
func (r *run) standsIn(ctx context.Context) (bool, error) {
	_, err := iam.NewFromConfig(r.Config).GetRole(ctx, &iam.GetRoleInput{RoleName: aws.String(path.Base(r.place.Provisioner()))})
	if code(err, "NoSuchEntity") {
		return false, nil
	}
	return err == nil, err
}

// command is what removes what a run left.
func (r *run) command() string { return "fleet aws acceptance --remove --region " + r.where.Region }
