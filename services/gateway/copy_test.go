package gateway_test

import (
	"bytes"
	"io"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"a3os.app/libs/ministacktest"
)

// kept is the object that a gateway keeps its copy in, at an emulator of S3.
type kept struct {
	t      *testing.T
	client *s3.Client
	bucket string
}

func newKept(t *testing.T) *kept {
	t.Helper()
	server := ministacktest.Start(t)
	k := &kept{t: t, bucket: "a3-dev-plane-kept", client: s3.NewFromConfig(server.Root(), func(o *s3.Options) { o.UsePathStyle = true })}
	in := &s3.CreateBucketInput{Bucket: &k.bucket, CreateBucketConfiguration: &types.CreateBucketConfiguration{LocationConstraint: ministacktest.Region}}
	if _, err := k.client.CreateBucket(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	role := server.Role(t, "gateway-task", ministacktest.Statement{Effect: "Allow", Action: []string{"s3:GetObject", "s3:PutObject"}, Resource: []string{"arn:aws:s3:::" + k.bucket + "/gateway"}})
	keys, err := role.Credentials.Retrieve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{"AWS_ENDPOINT_URL": server.URL, "AWS_REGION": ministacktest.Region, "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/nonexistent",
		"AWS_ACCESS_KEY_ID": keys.AccessKeyID, "AWS_SECRET_ACCESS_KEY": keys.SecretAccessKey, "AWS_SESSION_TOKEN": keys.SessionToken} {
		t.Setenv(name, value)
	}
	return k
}

func (k *kept) setting() string { return "A3_SNAPSHOT_COPY=s3://" + k.bucket + "/gateway" }

func (k *kept) content() []byte {
	out, err := k.client.GetObject(k.t.Context(), &s3.GetObjectInput{Bucket: &k.bucket, Key: aws.String("gateway")})
	if err != nil {
		return nil // there is none yet
	}
	defer out.Body.Close()
	content, err := io.ReadAll(out.Body)
	if err != nil {
		k.t.Error(err)
	}
	return content
}

func (k *kept) put(content []byte) {
	k.t.Helper()
	if _, err := k.client.PutObject(k.t.Context(), &s3.PutObjectInput{Bucket: &k.bucket, Key: aws.String("gateway"), Body: bytes.NewReader(content)}); err != nil {
		k.t.Fatal(err)
	}
}

// names waits until the copy names a tenant, and answers it.
func (k *kept) names(x *tenant) []byte {
	k.t.Helper()
	within := time.After(20 * time.Second)
	for {
		if content := k.content(); bytes.Contains(content, []byte(x.id.String())) {
			return content
		}
		select {
		case <-within:
			k.t.Fatalf("the copy never named %s", x.slug)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Fault row F17, where the disk ends with the gateway: what it held, and what changed of it, serves from the copy. What isn't good of a copy is not
// served, an older one takes the place of nothing, and a registry that is back has the copy be good again.
func TestGatewayThatStartsWithoutItsDiskGoesOnFromTheCopy(t *testing.T) {
	k, h := newKept(t), newHarness(t)
	acme, globex, initech := h.tenant("acme"), h.tenant("globex"), h.tenant("initech")
	for _, x := range []*tenant{acme, globex, initech} {
		x.serve("iam", echo(x.slug), "/")
	}
	h.publish(acme, initech)
	p := h.start(k.setting())
	p.until("acme", "/", http.StatusOK, "acme")
	older := k.names(acme)
	h.send(h.change([]*tenant{acme}, globex))
	p.until("globex", "/", http.StatusOK, "globex")
	good := k.names(globex)
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	h.registry.stop()

	// Its task ends, and its disk with it.
	elsewhere := func() { h.snapshotFile = filepath.Join(t.TempDir(), "snapshot") }
	for name, c := range map[string]struct {
		copy          []byte
		acme, initech int
		slug          string
	}{
		"whole":         {good, http.StatusNotFound, http.StatusOK, "globex"},
		"cut off":       {good[:len(good)-1], http.StatusOK, http.StatusOK, "acme"},
		"older":         {older, http.StatusOK, http.StatusOK, "acme"},
		"nothing":       {nil, http.StatusServiceUnavailable, http.StatusServiceUnavailable, ""},
		"somebody's":    {flipped(good, acme.id.String()), http.StatusServiceUnavailable, http.StatusServiceUnavailable, ""},
		"other changes": {flipped(good, globex.id.String()), http.StatusOK, http.StatusOK, "acme"},
	} {
		elsewhere()
		k.put(c.copy)
		q := h.start(k.setting())
		if c.slug != "" {
			q.until(c.slug, "/", http.StatusOK, c.slug)
		}
		q.until("acme", "/", c.acme, "")
		q.until("initech", "/", c.initech, "")
		if err := q.stop(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}

	// On disk is the newer one: it serves, and the copy becomes as it is.
	elsewhere()
	k.put(good)
	q := h.start(k.setting())
	q.until("globex", "/", http.StatusOK, "globex")
	if err := q.stop(); err != nil {
		t.Error(err)
	}
	k.put(older)
	q = h.start(k.setting())
	q.until("globex", "/", http.StatusOK, "globex")
	q.until("acme", "/", http.StatusNotFound, "")
	k.names(globex)
	if err := q.stop(); err != nil {
		t.Error(err)
	}

	// The copy is nobody's, and the registry is back.
	elsewhere()
	k.put([]byte("x"))
	h.registry = h.startRegistry(h.registry.addr)
	h.publish(acme, globex, initech)
	q = h.start(k.setting())
	q.until("acme", "/", http.StatusOK, "acme")
	k.names(acme)
	t.Attr("row", "F17 8")
}

// flipped is a copy in which one octet of a word is another.
func flipped(content []byte, word string) []byte {
	out := bytes.Clone(content)
	out[bytes.Index(out, []byte(word))+len(word)-1] ^= 1
	return out
}
