package aws

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	smtypes "github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/binding"
	"a3os.app/libs/blob/s3"
	"a3os.app/libs/queue/sqs"
	store "a3os.app/libs/secret/secretsmanager"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/aws/session"
	"a3os.app/tools/fleet/internal/platform/aws/stack"
)

// Mark implements platform.Platform: on the database as local puts it, on the set's queue, and on its stores as their custodian.
func (p *Platform) Mark(ctx context.Context, s platform.Set) (changed bool, err error) {
	if err := p.useServer(ctx, s); err != nil {
		return false, err
	}
	if changed, err = p.Machine.Mark(ctx, s); err != nil || s.Tenant.IsZero() {
		return changed, err
	}
	t, err := p.of(ctx, s)
	if err != nil {
		return changed, err
	}
	did, err := t.markHeld(ctx)
	return changed || did, err
}

// markHeld puts the set's mark on what its stack holds for it: its queue, and its stores.
func (t *tenant) markHeld(ctx context.Context) (changed bool, err error) {
	told, err := t.outputs(ctx, t.stackName())
	if err != nil {
		return false, err
	}
	signer, err := t.Machine.Signer()
	if err != nil {
		return false, err
	}
	if changed, err = sqs.Mark(ctx, t.cfg, told[stack.QueueOutput], signer, t.set.Tenant); err != nil {
		return changed, err
	}
	did, err := t.markStores(ctx, signer, told[stack.KeyOutput])
	return changed || did, err
}

// markStores puts the set's mark on each of its stores, under the set's key.
func (t *tenant) markStores(ctx context.Context, signer *binding.Signer, key string) (changed bool, err error) {
	if len(t.set.Blueprint.Stores) == 0 {
		return false, nil
	}
	custodian, err := session.AsKeeper(ctx, t.cfg, t.place, stack.Custodian, t.id)
	if err != nil {
		return false, err
	}
	for name, kept := range t.set.Blueprint.Stores {
		did, where := false, t.place.Store(t.set.Blueprint, t.id, name, key)
		if kept.Kind == blueprint.StoreBlob {
			did, err = s3.Create(ctx, custodian, where, signer, t.set.Tenant)
		} else {
			var public string
			if public, err = t.Machine.StoreKey(t.set, kept); err == nil {
				did, err = store.Create(ctx, custodian, where, signer, t.set.Tenant, public)
			}
		}
		if changed = changed || did; err != nil {
			return changed, fmt.Errorf("mark store %s of %s: %w", name, t.id, err)
		}
	}
	return changed, nil
}

// Export implements platform.Platform: the objects of the set's stores, and what local exports.
func (p *Platform) Export(ctx context.Context, s platform.Set, dir string) (changed bool, err error) {
	if err := p.useServer(ctx, s); err != nil {
		return false, err
	}
	return p.Machine.ExportWith(ctx, s, dir, func(name, to string) error {
		t, err := p.of(ctx, s)
		if err != nil {
			return err
		}
		return t.exportObjects(ctx, name, to)
	})
}

// exportObjects copies the objects of a store into a directory that is not there.
func (t *tenant) exportObjects(ctx context.Context, name, to string) error {
	keeper, owner, err := t.keeper(ctx, stack.Backup)
	if err != nil {
		return err
	}
	reader, err := s3.OpenReader(ctx, keeper, t.place.Store(t.set.Blueprint, t.id, name, ""), owner)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	root, err := os.OpenRoot(to)
	if err != nil {
		return err
	}
	defer root.Close()
	for object, err := range reader.List(ctx) {
		if err != nil {
			return err
		}
		if err := copyObject(ctx, reader, object.Key, root); err != nil {
			return err
		}
	}
	return nil
}

func copyObject(ctx context.Context, from *s3.Reader, key string, to *os.Root) error {
	content, _, err := from.Get(ctx, key)
	if err != nil {
		return err
	}
	defer content.Close()
	name := filepath.Join("objects", filepath.FromSlash(key))
	if err := to.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	f, err := to.Create(name)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	return errors.Join(err, f.Close())
}

// storeSecrets are the names of what the set's stores keep in Secrets Manager, which no template holds. What waits for its deletion is not there.
func (t *tenant) storeSecrets(ctx context.Context) ([]string, error) {
	return t.secretsBelow(ctx, t.place.StorePath(t.id))
}

// secretsBelow are the names of secrets that begin so.
func (t *tenant) secretsBelow(ctx context.Context, prefix string) (names []string, err error) {
	pages := secretsmanager.NewListSecretsPaginator(secretsmanager.NewFromConfig(t.cfg), &secretsmanager.ListSecretsInput{
		Filters: []smtypes.Filter{{Key: smtypes.FilterNameStringTypeName, Values: []string{prefix}}}})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, fmt.Errorf("look for secrets of %s: %w", t.id, err)
		}
		for _, s := range page.SecretList {
			// The filter knows no upper and lower case.
			if name := sdk.ToString(s.Name); strings.HasPrefix(name, prefix) {
				names = append(names, name)
			}
		}
	}
	return names, nil
}

// deleteStoreSecrets deletes them at once: they could be read by nobody any more, for their key is gone.
func (t *tenant) deleteStoreSecrets(ctx context.Context) (changed bool, err error) {
	names, err := t.storeSecrets(ctx)
	if err != nil {
		return false, err
	}
	client := secretsmanager.NewFromConfig(t.cfg)
	for _, name := range names {
		if _, err := client.DeleteSecret(ctx, &secretsmanager.DeleteSecretInput{SecretId: &name, ForceDeleteWithoutRecovery: sdk.Bool(true)}); err != nil && !gone(err) {
			return changed, fmt.Errorf("delete secret %s: %w", name, err)
		}
		changed = true
	}
	return changed, nil
}
