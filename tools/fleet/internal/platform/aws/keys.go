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

	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/aws/stack"
)

// ownersTag says of a thing which tenant's it is, planesTag which plane's.
const (
	ownersTag = "tenant"
	planesTag = "plane"
)

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

// owns says whether a key has the set's tag.
func (t *tenant) owns(ctx context.Context, client *kms.Client, key string) (bool, error) {
	tags, err := tagsOf(ctx, client, key)
	return tags[ownersTag] == t.id, err
}

// tagsOf are a key's tags. One whose tags this session may not see has another's, or none.
func tagsOf(ctx context.Context, client *kms.Client, key string) (map[string]string, error) {
	out := map[string]string{}
	pages := kms.NewListResourceTagsPaginator(client, &kms.ListResourceTagsInput{KeyId: &key})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if denied(err) || gone(err) {
			return nil, nil //nolint:nilnil // it is nobody's whom this session is for
		}
		if err != nil {
			return nil, fmt.Errorf("look whose key %s is: %w", key, err)
		}
		for _, tag := range page.Tags {
			out[sdk.ToString(tag.TagKey)] = sdk.ToString(tag.TagValue)
		}
	}
	return out, nil
}

// denied says of an error that whoever asked may not.
func denied(err error) bool {
	var api smithy.APIError
	return errors.As(err, &api) && strings.HasPrefix(api.ErrorCode(), "AccessDenied")
}

// waits says of a key that it is about to be deleted, or was.
func (t *tenant) waits(ctx context.Context, key string) (bool, kmstypes.KeyState, error) {
	waits, is, err := waits(ctx, kms.NewFromConfig(t.cfg), key)
	if err != nil {
		err = fmt.Errorf("look at the key of %s: %w", t.id, err)
	}
	return waits, is, err
}

func waits(ctx context.Context, client *kms.Client, key string) (bool, kmstypes.KeyState, error) {
	is, err := client.DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: &key})
	if gone(err) {
		return true, "", nil
	}
	if err != nil {
		return false, "", err
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

// orphanKeys are keys of the plane's and its tenants' in the plane's account that nobody has deleted and no stack names any more: of tenants that the registry says left, or
// that it doesn't know, as of stacks that were deleted by hand, and of a plane's stack before this one. Each costs as long as it is there, and what it encrypts can be
// read for as long.
func (p *Platform) orphanKeys(ctx context.Context, cfg sdk.Config, place stack.Place, sets []platform.Set) (out []platform.Difference, err error) {
	known := map[string]bool{}
	for _, s := range sets {
		known[s.Tenant.String()] = true
	}
	planes, err := p.outputsOf(ctx, cfg, place.PlaneStack())
	if err != nil {
		return nil, err
	}
	client := kms.NewFromConfig(cfg)
	pages := kms.NewListKeysPaginator(client, &kms.ListKeysInput{})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, fmt.Errorf("look for keys that nobody deleted: %w", err)
		}
		for _, k := range page.Keys {
			key := sdk.ToString(k.KeyArn)
			tags, err := tagsOf(ctx, client, key)
			if err != nil {
				return nil, err
			}
			owner := tags[ownersTag]
			if tags[planesTag] != place.Plane || known[owner] || owner == "" && key == planes[stack.KeyOutput] {
				continue
			}
			waits, is, err := waits(ctx, client, key)
			if err != nil {
				return nil, fmt.Errorf("look at key %s: %w", key, err)
			}
			if waits {
				continue
			}
			d := platform.Difference{Resource: key, Reason: fmt.Sprintf("key %s, which is %s, is of tenant %s, whom the registry doesn't have: its stack was deleted and nobody had KMS delete the key, so that what it encrypted can be read", key, is, owner),
				Next: fmt.Sprintf("as the provisioner, aws kms schedule-key-deletion --key-id %s --pending-window-in-days %d", key, stack.ShredAfter)}
			if owner == "" {
				d.Reason = fmt.Sprintf("key %s, which is %s, is of plane %s, and not the one that stack %s has: it is of a stack that was deleted", key, is, place.Plane, place.PlaneStack())
				d.Next = fmt.Sprintf("once nothing is left that it encrypts (the snapshot of the shared server, buckets), as break-glass, aws kms schedule-key-deletion --key-id %s --pending-window-in-days %d", key, stack.ShredAfter)
			}
			out = append(out, d)
		}
	}
	return out, nil
}
