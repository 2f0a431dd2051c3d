package s3_test

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"a3os.app/libs/binding"
	"a3os.app/libs/binding/bindingtest"
	"a3os.app/libs/blob"
	"a3os.app/libs/blob/blobtest"
	"a3os.app/libs/blob/s3"
	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/ministacktest"
)

// tenant is a tenant with a bucket, and a role that may what its components' roles may.
type tenant struct {
	id    id.Tenant
	where string
	role  aws.Config
}

func newTenant(t *testing.T, server *ministacktest.Server) tenant {
	t.Helper()
	who := id.NewTenant()
	bucket := "a3-dev-" + strings.ReplaceAll(who.String(), "_", "-") + "-objects"
	root := sdk.NewFromConfig(server.Root(), func(o *sdk.Options) { o.UsePathStyle = true })
	in := &sdk.CreateBucketInput{Bucket: &bucket, CreateBucketConfiguration: &types.CreateBucketConfiguration{LocationConstraint: ministacktest.Region}}
	if _, err := root.CreateBucket(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	where := "s3://" + bucket + "/" + who.String()
	if changed, err := s3.Create(t.Context(), server.Root(), where, bindingtest.Signer(t), who); err != nil || !changed {
		t.Fatal(changed, err)
	}
	arn := "arn:aws:s3:::" + bucket
	role := server.Role(t, who.String()+"-task",
		ministacktest.Statement{Effect: "Allow", Action: []string{"s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"}, Resource: []string{arn + "/" + who.String() + "/*"}},
		ministacktest.Statement{Effect: "Allow", Action: []string{"s3:ListBucket"}, Resource: []string{arn}, Condition: map[string]any{"StringLike": map[string]string{"s3:prefix": who.String() + "/*"}}})
	return tenant{id: who, where: where, role: role}
}

func (o tenant) open(t *testing.T) blobtest.Store {
	t.Helper()
	w, err := s3.OpenWriter(t.Context(), o.role, o.where, bindingtest.Owner(t, o.id), blobtest.MostBytes)
	if err != nil {
		t.Fatal(err)
	}
	r, err := s3.OpenReader(t.Context(), o.role, o.where, bindingtest.Owner(t, o.id))
	if err != nil {
		t.Fatal(err)
	}
	return blobtest.Store{Writer: w, Reader: r}
}

func TestS3(t *testing.T) {
	server := ministacktest.Start(t)
	blobtest.Run(t, func(t *testing.T) blobtest.Store { return newTenant(t, server).open(t) })
}

// With the role of one tenant nothing of another is reached, and with its own it is: the store refuses by its mark, and the role by S3.
func TestStoreOfAnotherTenantIsNotOpened(t *testing.T) {
	server := ministacktest.Start(t)
	a, b := newTenant(t, server), newTenant(t, server)
	if _, err := a.open(t).Writer.Put(t.Context(), "x", strings.NewReader("a's")); err != nil {
		t.Fatal(err)
	}
	// a's place with b's id in its name is no place of b's.
	if _, err := s3.OpenReader(t.Context(), a.role, a.where, bindingtest.Owner(t, b.id)); err == nil {
		t.Error("the place of another was opened by name")
	}
	if _, err := s3.OpenReader(t.Context(), b.role, a.where, bindingtest.Owner(t, a.id)); err == nil || !strings.Contains(err.Error(), "AccessDenied") {
		t.Errorf("the role of another opens a place: %v", err)
	}
	client := sdk.NewFromConfig(b.role, func(o *sdk.Options) { o.UsePathStyle = true })
	bucket, _, _ := strings.Cut(strings.TrimPrefix(a.where, "s3://"), "/")
	key := a.id.String() + "/objects/x"
	_, getErr := client.GetObject(t.Context(), &sdk.GetObjectInput{Bucket: &bucket, Key: &key})
	_, putErr := client.PutObject(t.Context(), &sdk.PutObjectInput{Bucket: &bucket, Key: &key, Body: strings.NewReader("b's")})
	_, listErr := client.ListObjectsV2(t.Context(), &sdk.ListObjectsV2Input{Bucket: &bucket, Prefix: aws.String(a.id.String() + "/")})
	for what, err := range map[string]error{"get": getErr, "put": putErr, "list": listErr} {
		if err == nil || !strings.Contains(err.Error(), "AccessDenied") {
			t.Errorf("%s by the role of another: %v", what, err)
		}
	}
	// A bucket that carries another's mark, and one that carries none.
	root := sdk.NewFromConfig(server.Root(), func(o *sdk.Options) { o.UsePathStyle = true })
	mark, err := bindingtest.Signer(t).Sign(binding.Mark{Tenant: b.id, Kind: binding.Objects})
	if err != nil {
		t.Fatal(err)
	}
	at := a.id.String() + "/MARK"
	if _, err := root.PutObject(t.Context(), &sdk.PutObjectInput{Bucket: &bucket, Key: &at, Body: strings.NewReader(mark)}); err != nil {
		t.Fatal(err)
	}
	if _, err := s3.OpenReader(t.Context(), a.role, a.where, bindingtest.Owner(t, a.id)); !errors.Is(err, binding.ErrForeign) {
		t.Errorf("a place with another's mark: %v", err)
	}
	if _, err := s3.Create(t.Context(), server.Root(), a.where, bindingtest.Signer(t), a.id); !errors.Is(err, binding.ErrForeign) {
		t.Errorf("a place with another's mark is marked: %v", err)
	}
	if _, err := root.DeleteObject(t.Context(), &sdk.DeleteObjectInput{Bucket: &bucket, Key: &at}); err != nil {
		t.Fatal(err)
	}
	if _, err := s3.OpenReader(t.Context(), a.role, a.where, bindingtest.Owner(t, a.id)); !errors.Is(err, binding.ErrUnmarked) {
		t.Errorf("a place without a mark: %v", err)
	}
}

// An object larger than one part is whole, or not there.
func TestLargeObjectIsWhole(t *testing.T) {
	server := ministacktest.Start(t)
	o := newTenant(t, server)
	const size = 12 << 20
	w, err := s3.OpenWriter(t.Context(), o.role, o.where, bindingtest.Owner(t, o.id), size)
	if err != nil {
		t.Fatal(err)
	}
	info, err := w.Put(t.Context(), "large", strings.NewReader(strings.Repeat("l", size)))
	if err != nil || info.Size != size {
		t.Fatalf("%+v, %v", info, err)
	}
	if _, err := w.Put(t.Context(), "large", strings.NewReader(strings.Repeat("m", size+1))); !errors.Is(err, blob.ErrTooLarge) {
		t.Errorf("one byte more: %v", err)
	}
	r, err := s3.OpenReader(t.Context(), o.role, o.where, bindingtest.Owner(t, o.id))
	if err != nil {
		t.Fatal(err)
	}
	object, info, err := r.Get(t.Context(), "large")
	if err != nil || info.Size != size {
		t.Fatalf("after what was refused it is %+v, %v", info, err)
	}
	_ = object.Close()
}

// Objects and the mark are written under the tenant's key. Whether its policy lets the role use it, the emulator doesn't ask.
func TestObjectsAreWrittenUnderTheTenantsKey(t *testing.T) {
	server := ministacktest.Start(t)
	o := newTenant(t, server)
	key := "arn:aws:kms:" + ministacktest.Region + ":" + ministacktest.Account + ":key/0b3f2a4e-0000-4000-8000-000000000000"
	o.where += "?key=" + key
	if _, err := o.open(t).Writer.Put(t.Context(), "x", strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	root := sdk.NewFromConfig(server.Root(), func(o *sdk.Options) { o.UsePathStyle = true })
	bucket, _, _ := strings.Cut(strings.TrimPrefix(o.where, "s3://"), "/")
	head, err := root.HeadObject(t.Context(), &sdk.HeadObjectInput{Bucket: &bucket, Key: aws.String(o.id.String() + "/objects/x")})
	if err != nil || head.ServerSideEncryption != types.ServerSideEncryptionAwsKms || aws.ToString(head.SSEKMSKeyId) != key {
		t.Errorf("it is encrypted with %q under %q, %v", head.ServerSideEncryption, aws.ToString(head.SSEKMSKeyId), err)
	}
}

// Fault F29 at S3: it says to slow down (503). An upload and a reading are asked for again, whole; where it goes on, that is said in words, and
// what was there is as it was.
func TestS3ThatSlowsDownIsAskedAgainAndLosesNothing(t *testing.T) {
	server := ministacktest.Start(t)
	o := newTenant(t, server)
	var slow, refused atomic.Int64
	behind := server.Behind(t, func(w http.ResponseWriter, _ *http.Request) bool {
		if slow.Add(-1) < 0 {
			return false
		}
		refused.Add(1)
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = w.Write([]byte(`<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>`))
		return true
	})
	o.role = behind.As(o.role)
	o.role.RetryMaxAttempts = 0 // as a session of a task has it
	const large = 6 << 20
	w, err := s3.OpenWriter(t.Context(), o.role, o.where, bindingtest.Owner(t, o.id), large)
	if err != nil {
		t.Fatal(err)
	}
	r, err := s3.OpenReader(t.Context(), o.role, o.where, bindingtest.Owner(t, o.id))
	if err != nil {
		t.Fatal(err)
	}
	read := func(key string) string {
		t.Helper()
		body, _, err := r.Get(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		defer body.Close()
		text, err := io.ReadAll(body)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	cases := 0
	for key, content := range map[string]string{"small": "s", "large": strings.Repeat("l", large)} {
		slow.Store(1)
		if _, err := w.Put(t.Context(), key, strings.NewReader(content)); err != nil {
			t.Errorf("%s is not stored: %v", key, err)
		}
		slow.Store(1)
		if got := read(key); got != content {
			t.Errorf("%s came back with %d bytes", key, len(got))
		}
		cases += 2
	}
	const always = 1 << 20
	slow.Store(always)
	before := refused.Load()
	_, err = w.Put(t.Context(), "small", strings.NewReader("another"))
	if fault.KindOf(err) != fault.Unavailable || !strings.Contains(err.Error(), "try again shortly") {
		t.Errorf("an upload that S3 does not take: %v", err)
	}
	if n := refused.Load() - before; n != 5 {
		t.Errorf("S3 was asked %d times, want 5", n)
	}
	slow.Store(0)
	if got := read("small"); got != "s" {
		t.Errorf("afterwards it is %q", got)
	}
	t.Attr("row", "F29 "+strconv.Itoa(cases+1))
}
