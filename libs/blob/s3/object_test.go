package s3_test

import (
	"errors"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"a3os.app/libs/blob"
	"a3os.app/libs/blob/s3"
	"a3os.app/libs/ministacktest"
)

// Of two who keep one object, as an old and a new task do for a while, none takes away what the other wrote and it has not seen; and the role
// that may read and replace that one object reaches no other.
func TestObjectIsReplacedByWhoSawIt(t *testing.T) {
	server := ministacktest.Start(t)
	root := sdk.NewFromConfig(server.Root(), func(o *sdk.Options) { o.UsePathStyle = true })
	in := &sdk.CreateBucketInput{Bucket: aws.String("kept"), CreateBucketConfiguration: &types.CreateBucketConfiguration{LocationConstraint: ministacktest.Region}}
	if _, err := root.CreateBucket(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	role := server.Role(t, "keeper", ministacktest.Statement{Effect: "Allow", Action: []string{"s3:GetObject", "s3:PutObject"}, Resource: []string{"arn:aws:s3:::kept/gateway/snapshot"}})
	object := func(where string) *s3.Object {
		o, err := s3.OpenObject(role, where)
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	one, two := object("s3://kept/gateway/snapshot"), object("s3://kept/gateway/snapshot")
	const most = 4
	if _, _, err := one.Get(t.Context(), most); err == nil {
		t.Error("what isn't there was read")
	}
	first, err := one.Replace(t.Context(), []byte("1"), "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := two.Replace(t.Context(), []byte("2"), ""); !errors.Is(err, s3.ErrReplaced) {
		t.Errorf("who saw none wrote over one: %v", err)
	}
	content, tag, err := two.Get(t.Context(), most)
	if err != nil || string(content) != "1" || tag != first {
		t.Errorf("read %q, %s, %v", content, tag, err)
	}
	if _, err = two.Replace(t.Context(), []byte("22"), tag); err != nil {
		t.Fatal(err)
	}
	if _, err := one.Replace(t.Context(), []byte("3"), first); !errors.Is(err, s3.ErrReplaced) {
		t.Errorf("who saw the one before wrote over the next: %v", err)
	}
	if content, _, err := one.Get(t.Context(), most); err != nil || string(content) != "22" {
		t.Errorf("read %q, %v", content, err)
	}
	if _, _, err := one.Get(t.Context(), 1); !errors.Is(err, blob.ErrTooLarge) {
		t.Errorf("more than was asked for was read: %v", err)
	}
	other := object("s3://kept/gateway/snapshot-of-another")
	if _, err := other.Replace(t.Context(), []byte("x"), ""); err == nil {
		t.Error("the role writes another object")
	}
	for _, where := range []string{"", "kept/x", "s3:///x", "s3://kept", "s3://kept/../x", "s3://kept/x?key=y", "file://kept/x"} {
		if _, err := s3.OpenObject(role, where); err == nil {
			t.Errorf("%q is taken for the place of an object", where)
		}
	}
}
