package aws

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	kmstypes "github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/smithy-go"

	"a3os.app/tools/fleet/internal/platform/aws/stack"
)

// ownersTag says of a thing which tenant's it is.
const ownersTag = "tenant"

// keys are the ARNs of the set's keys, which outlive their stack: that of one which somebody deleted by hand no stack names any more, and where the stack was
// made again there are two. Each carries the tenant's tag, and says so to nobody but this tenant's session.
func (t *tenant) keys(ctx context.Context) (arns []string, err error) {
	told, err := t.outputs(ctx, t.stackName())
	if err != nil {
		return nil, err
	}
	client := kms.NewFromConfig(t.cfg)
	pages := kms.NewListKeysPaginator(client, &kms.ListKeysInput{})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, fmt.Errorf("look for keys of %s (where fleet may not, the plane's stack is of an earlier release: have administrators deploy this one's first): %w", t.id, err)
		}
		for _, k := range page.Keys {
			own, err := t.owns(ctx, client, sdk.ToString(k.KeyArn))
			if err != nil {
				return nil, err
			}
			if own {
				arns = append(arns, sdk.ToString(k.KeyArn))
			}
		}
	}
	if key := told[stack.KeyOutput]; key != "" && !slices.Contains(arns, key) {
		arns = append(arns, key) // a list of KMS's may be behind
	}
	return arns, nil
}

// owns says whether a key has the set's tag. One whose tags this session may not see has another, or none.
func (t *tenant) owns(ctx context.Context, client *kms.Client, key string) (bool, error) {
	pages := kms.NewListResourceTagsPaginator(client, &kms.ListResourceTagsInput{KeyId: &key})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if denied(err) || gone(err) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("look whose key %s is: %w", key, err)
		}
		for _, tag := range page.Tags {
			if sdk.ToString(tag.TagKey) == ownersTag && sdk.ToString(tag.TagValue) == t.id {
				return true, nil
			}
		}
	}
	return false, nil
}

// denied says of an error that whoever asked may not.
func denied(err error) bool {
	var api smithy.APIError
	return errors.As(err, &api) && strings.HasPrefix(api.ErrorCode(), "AccessDenied")
}

// waits says of a key that it is about to be deleted, or was.
func (t *tenant) waits(ctx context.Context, key string) (bool, kmstypes.KeyState, error) {
	is, err := kms.NewFromConfig(t.cfg).DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: &key})
	if gone(err) {
		return true, "", nil
	}
	if err != nil {
		return false, "", fmt.Errorf("look at the key of %s: %w", t.id, err)
	}
	return is.KeyMetadata.KeyState == kmstypes.KeyStatePendingDeletion, is.KeyMetadata.KeyState, nil
}

func (t *tenant) shred(ctx context.Context, key string) (changed bool, err error) {
	if waits, _, err := t.waits(ctx, key); waits || err != nil {
		return false, err
	}
	if _, err := kms.NewFromConfig(t.cfg).ScheduleKeyDeletion(ctx, &kms.ScheduleKeyDeletionInput{KeyId: &key, PendingWindowInDays: sdk.Int32(stack.ShredAfter)}); err != nil {
		return false, fmt.Errorf("have key %s of %s deleted: %w", key, t.id, err)
	}
	return true, nil
}

// leftKeys are those that nobody has deleted, as of a stack that was deleted by hand before a fleet which knew no other keys than a stack names.
func (t *tenant) leftKeys(ctx context.Context) (out []string, err error) {
	keys, err := t.keys(ctx)
	if err != nil {
		return nil, err
	}
	for _, key := range keys {
		waits, is, err := t.waits(ctx, key)
		if err != nil {
			return nil, err
		}
		if !waits {
			out = append(out, fmt.Sprintf("key %s, which is %s (aws kms schedule-key-deletion --key-id %s --pending-window-in-days %d)", key, is, key, stack.ShredAfter))
		}
	}
	return out, nil
}
