package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"a3os.app/libs/blob"
)

// ErrReplaced says that an object isn't the one that was to be replaced.
var ErrReplaced = errors.New("the object was replaced meanwhile")

// Object is one object of the plane's, which has no tenant and so no mark: its role may read and replace that one. Whoever reads it has to
// know by what it holds whether it is any good. Its bucket says which key it is written under.
type Object struct {
	client      *s3.Client
	bucket, key string
}

// OpenObject makes the client of the object at a place, as `s3://bucket/key`. It asks for nothing.
func OpenObject(cfg aws.Config, where string) (*Object, error) {
	u, err := url.Parse(where)
	if err != nil || u.Scheme != "s3" || u.Host == "" || u.RawQuery != "" || blob.CheckKey(strings.TrimPrefix(u.Path, "/")) != nil {
		return nil, fmt.Errorf("%q is not the place of an object: it is s3://bucket/key", where)
	}
	return &Object{client: clientOf(cfg), bucket: u.Host, key: strings.TrimPrefix(u.Path, "/")}, nil
}

// Get reads it, at most so many bytes, and the tag by which this content of it is replaced. Errors: [blob.ErrNotFound], [blob.ErrTooLarge]. S3
// says of what isn't there that it is forbidden, to a role that may not list.
func (o *Object) Get(ctx context.Context, most int64) (content []byte, tag string, err error) {
	out, err := o.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &o.bucket, Key: &o.key})
	if err != nil {
		if status(err) == http.StatusForbidden {
			return nil, "", fmt.Errorf("read the object %s: %w (or there is none yet)", o.key, err)
		}
		return nil, "", failed("read", o.key, err)
	}
	defer out.Body.Close()
	content, err = io.ReadAll(io.LimitReader(out.Body, most+1))
	if err != nil {
		return nil, "", fmt.Errorf("read the object %s: %w", o.key, err)
	}
	if int64(len(content)) > most {
		return nil, "", blob.ErrTooLarge
	}
	return content, aws.ToString(out.ETag), nil
}

// Replace writes it in the place of the content that tag names, or of none where tag is empty, and answers the tag of what it wrote. Errors:
// [ErrReplaced], when something else is there: of two who write, none takes away what it has not seen.
func (o *Object) Replace(ctx context.Context, content []byte, tag string) (string, error) {
	in := &s3.PutObjectInput{Bucket: &o.bucket, Key: &o.key, Body: bytes.NewReader(content)}
	if tag == "" {
		in.IfNoneMatch = aws.String("*")
	} else {
		in.IfMatch = &tag
	}
	out, err := o.client.PutObject(ctx, in)
	if err == nil {
		return aws.ToString(out.ETag), nil
	}
	// 409 is of another write at the same moment, 404 of an object that was deleted.
	switch status(err) {
	case http.StatusPreconditionFailed, http.StatusConflict, http.StatusNotFound:
		return "", fmt.Errorf("%w: %w", ErrReplaced, err)
	}
	return "", failed("store", o.key, err)
}

// status is that of S3's answer; 0 where there was none.
func status(err error) int {
	if answer, is := errors.AsType[*awshttp.ResponseError](err); is {
		return answer.HTTPStatusCode()
	}
	return 0
}
