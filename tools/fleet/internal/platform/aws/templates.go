package aws

import (
	"context"
	"fmt"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// templates goes through all versions of what the set's stack was made by, some at a time.
func (t *tenant) templates(ctx context.Context, some func(bucket string, versions []s3types.ObjectIdentifier) error) error {
	bucket := t.place.Templates()
	pages := s3.NewListObjectVersionsPaginator(t.s3(), &s3.ListObjectVersionsInput{Bucket: &bucket, Prefix: sdk.String(t.stackName() + "/")})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if gone(err) {
			return nil // as in an account of its own whose ground was taken away
		}
		if err != nil {
			return fmt.Errorf("look for templates of stack %s in bucket %s: %w", t.stackName(), bucket, err)
		}
		var ids []s3types.ObjectIdentifier
		for _, v := range page.Versions {
			ids = append(ids, s3types.ObjectIdentifier{Key: v.Key, VersionId: v.VersionId})
		}
		for _, m := range page.DeleteMarkers {
			ids = append(ids, s3types.ObjectIdentifier{Key: m.Key, VersionId: m.VersionId})
		}
		if len(ids) == 0 {
			continue
		}
		if err := some(bucket, ids); err != nil {
			return err
		}
	}
	return nil
}

// deleteTemplates deletes what the set's stack was made by, which has the tenant's host and origins in it.
func (t *tenant) deleteTemplates(ctx context.Context) (changed bool, err error) {
	err = t.templates(ctx, func(bucket string, versions []s3types.ObjectIdentifier) error {
		changed = true
		out, err := t.s3().DeleteObjects(ctx, &s3.DeleteObjectsInput{Bucket: &bucket, Delete: &s3types.Delete{Objects: versions, Quiet: sdk.Bool(true)}})
		if err == nil && len(out.Errors) > 0 {
			err = fmt.Errorf("%s: %s", sdk.ToString(out.Errors[0].Key), sdk.ToString(out.Errors[0].Message))
		}
		if err != nil {
			return fmt.Errorf("delete the templates of stack %s: %w", t.stackName(), err)
		}
		return nil
	})
	return changed, err
}

func (t *tenant) leftTemplates(ctx context.Context) (out []string, err error) {
	err = t.templates(ctx, func(bucket string, versions []s3types.ObjectIdentifier) error {
		for _, v := range versions {
			out = append(out, "template "+bucket+"/"+sdk.ToString(v.Key))
		}
		return nil
	})
	return out, err
}
