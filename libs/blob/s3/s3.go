// Package s3 keeps a tenant's objects in a bucket of S3, under the tenant's id and encrypted with the tenant's key; it is a driver of package
// blob. A place is `s3://bucket/tnt_…`, and with `?key=arn:…` the key of KMS that objects are written under; without one it is the bucket's own.
// It promises what the role that it is given lets it do, and that a place without the tenant's signed mark is not opened; walls between tenants
// are the roles' and the bucket's policies.
package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/feature/s3/manager"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"a3os.app/libs/binding"
	"a3os.app/libs/blob"
	"a3os.app/libs/fault"
	"a3os.app/libs/id"
)

const (
	// space is where objects are, below the tenant's id; markName is beside it.
	space    = "objects/"
	markName = "MARK"
	// setting is the variable by which every role is told of the store.
	setting = "A3_BLOB_DIR"
	// Scheme begins a place.
	Scheme = "s3://"
)

// How often S3 is asked that says to slow down (503), or that fails, and how long is waited in between.
const (
	tries       = 5
	mostBackoff = 2 * time.Second
)

// place is a store.
type place struct {
	client *s3.Client
	bucket string
	tenant id.Tenant
	// key of KMS; empty for the bucket's own.
	key string
}

func at(cfg aws.Config, where string, tenant id.Tenant) (*place, error) {
	u, err := url.Parse(where)
	if err != nil || u.Scheme != "s3" || u.Host == "" || strings.Trim(u.Path, "/") != tenant.String() || tenant.IsZero() {
		return nil, fmt.Errorf("%q is not the place of the objects of %s: it is s3://bucket/%s: check %s", where, tenant, tenant, setting)
	}
	return &place{client: clientOf(cfg), bucket: u.Host, tenant: tenant, key: u.Query().Get("key")}, nil
}

func clientOf(cfg aws.Config) *s3.Client {
	return s3.NewFromConfig(cfg, func(o *s3.Options) {
		o.UsePathStyle = cfg.BaseEndpoint != nil // a custom endpoint has no names of buckets
		o.Retryer = retry.NewStandard(func(o *retry.StandardOptions) { o.MaxAttempts, o.MaxBackoff = tries, mostBackoff })
	})
}

func (p *place) name(key string) *string { return aws.String(p.tenant.String() + "/" + space + key) }

func (p *place) mark() *string { return aws.String(p.tenant.String() + "/" + markName) }

// said is the place as errors call it.
func (p *place) said() string { return "bucket " + p.bucket + " at " + p.tenant.String() }

// Create puts the tenant's mark on a place; where it is already it changes nothing, and another's is refused with [binding.ErrForeign].
func Create(ctx context.Context, cfg aws.Config, where string, signer *binding.Signer, tenant id.Tenant) (changed bool, err error) {
	p, err := at(cfg, where, tenant)
	if err != nil {
		return false, err
	}
	mark, err := signer.Sign(binding.Mark{Tenant: tenant, Kind: binding.Objects})
	if err != nil {
		return false, err
	}
	found, err := p.readMark(ctx)
	switch {
	case err == nil && found == mark:
		return false, nil
	case err == nil:
		if m, bad := binding.Claimed(found); bad != nil || m.Tenant != tenant {
			return false, binding.Refuse(binding.ErrForeign, "%s carries the mark of %s, and not of %s: name another bucket", p.said(), m.Tenant, tenant)
		}
	case !errors.Is(err, binding.ErrUnmarked):
		return false, err
	}
	if _, err := p.client.PutObject(ctx, p.sealed(&s3.PutObjectInput{Bucket: &p.bucket, Key: p.mark(), Body: strings.NewReader(mark)})); err != nil {
		return false, fmt.Errorf("mark %s: %w", p.said(), err)
	}
	return true, nil
}

// sealed has an object be written under the tenant's key.
func (p *place) sealed(in *s3.PutObjectInput) *s3.PutObjectInput {
	if p.key != "" {
		in.ServerSideEncryption, in.SSEKMSKeyId, in.BucketKeyEnabled = types.ServerSideEncryptionAwsKms, &p.key, aws.Bool(true)
	}
	return in
}

func (p *place) readMark(ctx context.Context) (string, error) {
	out, err := p.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &p.bucket, Key: p.mark()})
	if absent(err) {
		return "", binding.Refuse(binding.ErrUnmarked, "%s carries no mark, so nobody knows whose it is: check %s", p.said(), setting)
	}
	if err != nil {
		return "", fmt.Errorf("read the mark of %s: %w", p.said(), err)
	}
	defer out.Body.Close()
	text, err := io.ReadAll(io.LimitReader(out.Body, binding.MostBytes+1))
	if err != nil {
		return "", fmt.Errorf("read the mark of %s: %w", p.said(), err)
	}
	return string(text), nil
}

// held is a place that is its owner's.
type held struct {
	*place
	owner *binding.Owner
}

// Prove implements binding.Resource.
func (h *held) Prove(ctx context.Context) error {
	mark, err := h.readMark(ctx)
	if err != nil {
		return err
	}
	return h.owner.Check(binding.Mark{Kind: binding.Objects}, mark, binding.Place{What: h.said(), Setting: setting})
}

func open(ctx context.Context, cfg aws.Config, where string, owner *binding.Owner) (*place, error) {
	if owner == nil {
		return nil, errors.New("open the object store: it can't be opened without an owner")
	}
	p, err := at(cfg, where, owner.Tenant())
	if err != nil {
		return nil, fmt.Errorf("open the object store: %w", err)
	}
	h := &held{place: p, owner: owner}
	if err := h.Prove(ctx); err != nil {
		return nil, fmt.Errorf("open the object store: %w", err)
	}
	owner.Hold(h)
	return p, nil
}

// Reader implements blob.Reader.
type Reader struct{ *place }

// OpenReader opens the object store of owner for reading. A place without the owner's mark is refused.
func OpenReader(ctx context.Context, cfg aws.Config, where string, owner *binding.Owner) (*Reader, error) {
	p, err := open(ctx, cfg, where, owner)
	if err != nil {
		return nil, err
	}
	return &Reader{p}, nil
}

// Get implements blob.Reader.
func (r *Reader) Get(ctx context.Context, key string) (io.ReadCloser, blob.Info, error) {
	if err := errors.Join(ctx.Err(), blob.CheckKey(key)); err != nil {
		return nil, blob.Info{}, err
	}
	out, err := r.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &r.bucket, Key: r.name(key)})
	if err != nil {
		return nil, blob.Info{}, failed("read", key, err)
	}
	return out.Body, blob.Info{Key: key, Size: aws.ToInt64(out.ContentLength), Modified: aws.ToTime(out.LastModified)}, nil
}

func (p *place) stat(ctx context.Context, key string) (blob.Info, error) {
	out, err := p.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &p.bucket, Key: p.name(key)})
	if err != nil {
		return blob.Info{}, failed("look at", key, err)
	}
	return blob.Info{Key: key, Size: aws.ToInt64(out.ContentLength), Modified: aws.ToTime(out.LastModified)}, nil
}

// List implements blob.Reader. A page that can't be had ends the sequence with its error: what was not listed is not taken for absent.
func (r *Reader) List(ctx context.Context) iter.Seq2[blob.Info, error] {
	return func(yield func(blob.Info, error) bool) {
		root := *r.name("")
		pages := s3.NewListObjectsV2Paginator(r.client, &s3.ListObjectsV2Input{Bucket: &r.bucket, Prefix: &root})
		for pages.HasMorePages() {
			page, err := pages.NextPage(ctx)
			if err != nil {
				yield(blob.Info{}, fmt.Errorf("list the objects: %w", err))
				return
			}
			for _, o := range page.Contents {
				info := blob.Info{Key: strings.TrimPrefix(aws.ToString(o.Key), root), Size: aws.ToInt64(o.Size), Modified: aws.ToTime(o.LastModified)}
				if !yield(info, nil) {
					return
				}
			}
		}
	}
}

// Writer implements blob.Writer.
type Writer struct {
	*place
	most int64
}

// OpenWriter opens the object store of owner for writing objects of at most mostBytes. A place without the owner's mark is refused.
func OpenWriter(ctx context.Context, cfg aws.Config, where string, owner *binding.Owner, mostBytes int64) (*Writer, error) {
	if mostBytes <= 0 {
		return nil, fmt.Errorf("open the object store: a bound of %d bytes lets nothing in", mostBytes)
	}
	p, err := open(ctx, cfg, where, owner)
	if err != nil {
		return nil, err
	}
	return &Writer{place: p, most: mostBytes}, nil
}

// Put implements blob.Writer.
func (w *Writer) Put(ctx context.Context, key string, content io.Reader) (blob.Info, error) {
	if err := w.Store(ctx, key, content); err != nil {
		return blob.Info{}, err
	}
	return w.stat(ctx, key)
}

// Store is Put of a role that may not look at what it wrote. What is small goes in one call, what is large in parts that become an object
// together, or not at all.
func (w *Writer) Store(ctx context.Context, key string, content io.Reader) error {
	if err := errors.Join(ctx.Err(), blob.CheckKey(key)); err != nil {
		return err
	}
	bounded := blob.Bounded(ctx, content, w.most)
	var first bytes.Buffer
	_, err := io.CopyN(&first, bounded, manager.MinUploadPartSize)
	in := w.sealed(&s3.PutObjectInput{Bucket: &w.bucket, Key: w.name(key)})
	switch {
	case errors.Is(err, io.EOF):
		in.Body = bytes.NewReader(first.Bytes())
		_, err = w.client.PutObject(ctx, in)
	case err == nil:
		in.Body = io.MultiReader(&first, bounded)
		_, err = manager.NewUploader(w.client).Upload(ctx, in)
	}
	if why := bounded.Err(); why != nil {
		return why
	}
	if err != nil {
		return failed("store", key, err)
	}
	return nil
}

// Delete implements blob.Writer.
func (w *Writer) Delete(ctx context.Context, key string) error {
	if err := errors.Join(ctx.Err(), blob.CheckKey(key)); err != nil {
		return err
	}
	if _, err := w.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &w.bucket, Key: w.name(key)}); err != nil {
		return failed("delete", key, err)
	}
	return nil
}

// absent says that S3 knows no such object. A HEAD has no body that could say more than that.
func absent(err error) bool {
	var noKey *types.NoSuchKey
	var notFound *types.NotFound
	return errors.As(err, &noKey) || errors.As(err, &notFound)
}

func failed(what, key string, err error) error {
	if absent(err) {
		return blob.ErrNotFound
	}
	err = fmt.Errorf("%s the object %s: %w", what, key, err)
	if _, gaveUp := errors.AsType[*retry.MaxAttemptsError](err); gaveUp {
		return fault.Wrap(fault.Unavailable, err, "the object store is busy; nothing was changed; try again shortly")
	}
	return err
}
