package aws

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/binding"
	"a3os.app/libs/blob"
	"a3os.app/libs/blob/s3"
	"a3os.app/libs/secret"
	store "a3os.app/libs/secret/secretsmanager"
	"a3os.app/tools/fleet/internal/backup"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/aws/session"
	"a3os.app/tools/fleet/internal/platform/aws/stack"
)

// keptStores are a tenant's, as a backup has them: read as one role of its stack, and written as another.
type keptStores struct {
	p   *Platform
	set platform.Set
}

// objectsDir is where a store on a machine has its objects.
const objectsDir = "objects"

// largest is an object's size that S3 takes at most.
const largest = 5 << 40

// keeper is a keeper of the tenant's stores, and whom a store has to belong to.
func (t *tenant) keeper(ctx context.Context, k stack.Keeper) (sdk.Config, *binding.Owner, error) {
	keys, err := t.Machine.MarkKeys()
	if err != nil {
		return sdk.Config{}, nil, err
	}
	owner, err := binding.NewOwner(keys, t.place.Plane, t.set.Tenant)
	if err != nil {
		return sdk.Config{}, nil, err
	}
	cfg, err := session.AsKeeper(ctx, t.cfg, t.place, k, t.id)
	return cfg, owner, err
}

// sealed opens a store of credentials, as they are sealed there.
func (t *tenant) sealed(ctx context.Context, cfg sdk.Config, owner *binding.Owner, name, key string) (*store.Sealed, error) {
	public, err := t.Machine.StoreKey(t.set, t.set.Blueprint.Stores[name])
	if err != nil {
		return nil, err
	}
	return store.OpenSealed(ctx, cfg, t.place.Store(t.set.Blueprint, t.id, name, key), owner, public)
}

// Pack implements local.Stores.
func (k *keptStores) Pack(ctx context.Context, tree *backup.Tree) error {
	t, err := k.p.of(ctx, k.set)
	if err != nil {
		return err
	}
	cfg, owner, err := t.keeper(ctx, stack.Backup)
	if err != nil {
		return err
	}
	for name, kept := range k.set.Blueprint.Stores {
		pack := t.packCredentials
		if kept.Kind == blueprint.StoreBlob {
			pack = t.packObjects
		}
		if err := pack(ctx, cfg, owner, name, tree); err != nil {
			return fmt.Errorf("back up store %s: %w", name, err)
		}
	}
	return nil
}

func (t *tenant) packObjects(ctx context.Context, cfg sdk.Config, owner *binding.Owner, name string, tree *backup.Tree) error {
	reader, err := s3.OpenReader(ctx, cfg, t.place.Store(t.set.Blueprint, t.id, name, ""), owner)
	if err != nil {
		return err
	}
	for object, err := range reader.List(ctx) {
		if err != nil {
			return err
		}
		err := tree.Object(path.Join(name, objectsDir, object.Key), object.Size, object.Modified, func() (io.ReadCloser, error) {
			content, info, err := reader.Get(ctx, object.Key)
			switch {
			case errors.Is(err, blob.ErrNotFound):
				return nil, nil
			case err == nil && info.Size != object.Size:
				return nil, errors.Join(fmt.Errorf("object %s was replaced while it was read: run the backup again", object.Key), content.Close())
			}
			return content, err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *tenant) packCredentials(ctx context.Context, cfg sdk.Config, owner *binding.Owner, name string, tree *backup.Tree) error {
	sealed, err := t.sealed(ctx, cfg, owner, name, "")
	if err != nil {
		return err
	}
	names, err := t.storeSecrets(ctx)
	if err != nil {
		return err
	}
	for _, secretName := range names {
		at, is := sealed.Path(secretName)
		if !is {
			continue
		}
		content, err := sealed.Get(ctx, at)
		if errors.Is(err, secret.ErrNotFound) {
			tree.Gone++
			continue
		}
		if err == nil {
			err = tree.Content(path.Join(name, secret.FileOf(at)), content)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Unpack implements local.Stores. The set doesn't run. What was made since the backup goes last.
func (k *keptStores) Unpack(ctx context.Context, packed io.Reader) error {
	t, err := k.p.of(ctx, k.set)
	if err != nil {
		return err
	}
	told, err := t.outputs(ctx, t.stackName())
	if err != nil {
		return err
	}
	signer, err := k.p.Machine.Signer()
	if err != nil {
		return err
	}
	if _, err := t.markStores(ctx, signer, told[stack.KeyOutput]); err != nil {
		return err
	}
	into := &unpacking{tenant: t, objects: map[string]*objects{}, credentials: map[string]*credentials{}}
	if err := into.open(ctx, told[stack.KeyOutput]); err != nil {
		return err
	}
	if err := backup.Each(packed, func(name string, content io.Reader) error { return into.put(ctx, name, content) }); err != nil {
		return err
	}
	if err := into.deleteOthers(ctx); err != nil {
		return err
	}
	return into.emptyQueue(ctx, told[stack.QueueOutput])
}

// unpacking is a restore of a tenant's stores.
type unpacking struct {
	*tenant
	cfg         sdk.Config
	objects     map[string]*objects
	credentials map[string]*credentials
}

type objects struct {
	*s3.Writer
	list *s3.Reader
	put  map[string]bool
}

type credentials struct {
	*store.Sealed
	put map[secret.Path]bool
}

func (u *unpacking) open(ctx context.Context, key string) (err error) {
	var owner *binding.Owner
	if u.cfg, owner, err = u.keeper(ctx, stack.Restore); err != nil {
		return err
	}
	for name, kept := range u.set.Blueprint.Stores {
		if kept.Kind != blueprint.StoreBlob {
			sealed, err := u.sealed(ctx, u.cfg, owner, name, key)
			if err != nil {
				return err
			}
			u.credentials[name] = &credentials{sealed, map[secret.Path]bool{}}
			continue
		}
		where := u.place.Store(u.set.Blueprint, u.id, name, key)
		writer, err := s3.OpenWriter(ctx, u.cfg, where, owner, largest)
		if err != nil {
			return err
		}
		list, err := s3.OpenReader(ctx, u.cfg, where, owner)
		if err != nil {
			return err
		}
		u.objects[name] = &objects{writer, list, map[string]bool{}}
	}
	return nil
}

// put writes a file of the backup; marks are none, for they are signed anew.
func (u *unpacking) put(ctx context.Context, name string, content io.Reader) error {
	in, file, _ := strings.Cut(name, "/")
	if key, is := strings.CutPrefix(file, objectsDir+"/"); is && u.objects[in] != nil {
		u.objects[in].put[key] = true
		return u.objects[in].Store(ctx, key, content)
	}
	if at, is := secret.PathOf(file); is && u.credentials[in] != nil {
		// What is larger was never sealed.
		sealed, err := io.ReadAll(io.LimitReader(content, 2*secret.MostBytes))
		if err != nil {
			return err
		}
		u.credentials[in].put[at] = true
		return u.credentials[in].Put(ctx, at, sealed)
	}
	return nil
}

// deleteOthers deletes what the backup doesn't have.
func (u *unpacking) deleteOthers(ctx context.Context) error {
	for name, o := range u.objects {
		var others []string
		for object, err := range o.list.List(ctx) {
			if err != nil {
				return fmt.Errorf("restore store %s: %w", name, err)
			}
			if !o.put[object.Key] {
				others = append(others, object.Key)
			}
		}
		for _, key := range others {
			if err := o.Delete(ctx, key); err != nil {
				return fmt.Errorf("restore store %s: %w", name, err)
			}
		}
	}
	names, err := u.storeSecrets(ctx)
	if err != nil {
		return err
	}
	for _, name := range names {
		for _, c := range u.credentials {
			if at, is := c.Path(name); is && !c.put[at] {
				if err := c.Delete(ctx, at); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// emptyQueue takes what is on its way: it was enqueued by what the restore takes back, and would be refused as forged. What the database has to
// do is sent again.
func (u *unpacking) emptyQueue(ctx context.Context, url string) error {
	if url == "" {
		return nil
	}
	_, err := sqs.NewFromConfig(u.cfg).PurgeQueue(ctx, &sqs.PurgeQueueInput{QueueUrl: &url})
	if under := (*sqstypes.PurgeQueueInProgress)(nil); errors.As(err, &under) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("empty the queue of %s: %w", u.id, err)
	}
	return nil
}
