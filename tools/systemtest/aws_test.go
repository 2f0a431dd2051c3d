package systemtest

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	"a3os.app/proto/gen/go/a3os/discovery/v1/discoveryv1connect"

	"a3os.app/libs/blob/s3"
	"a3os.app/libs/id"
	"a3os.app/libs/ministacktest"
	store "a3os.app/libs/secret/secretsmanager"
)

const awsBucket = "a3-dev-systemtest-objects"

// cloud is an emulator of AWS, and what hands each component of a tenant the credentials of a role of its own, as ECS does a task.
type cloud struct {
	t      *testing.T
	server *ministacktest.Server
	plane  *plane
	key    string
	// code is what the first admin gets in with.
	code  string
	tasks *httptest.Server
	// slow is how many calls the emulator still refuses with 503, throttled how many it did.
	slow, throttled atomic.Int64
	// faults are what befalls single calls.
	faults   awsFaults
	endpoint string

	mu    sync.Mutex
	roles map[string]aws.Config
}

func newCloud(t *testing.T) *cloud {
	t.Helper()
	c := &cloud{t: t, server: ministacktest.Start(t), roles: map[string]aws.Config{}, code: rand.Text()}
	c.faults.whole.Store(-1)
	c.endpoint = c.server.Behind(t, func(w http.ResponseWriter, r *http.Request) bool {
		if c.slow.Add(-1) < 0 {
			return c.faults.befall(w, r, c.server.URL)
		}
		c.throttled.Add(1)
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	}).URL
	made, err := kms.NewFromConfig(c.server.Root()).CreateKey(t.Context(), &kms.CreateKeyInput{})
	if err != nil {
		t.Fatal(err)
	}
	c.key = *made.KeyMetadata.Arn
	in := &sdk.CreateBucketInput{Bucket: aws.String(awsBucket), CreateBucketConfiguration: &types.CreateBucketConfiguration{LocationConstraint: ministacktest.Region}}
	if _, err := c.objects().CreateBucket(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	c.tasks = httptest.NewServer(http.HandlerFunc(c.credentials))
	t.Cleanup(c.tasks.Close)
	return c
}

func (c *cloud) objects() *sdk.Client {
	return sdk.NewFromConfig(c.server.Root(), func(o *sdk.Options) { o.UsePathStyle = true })
}

// blueprint is AccessOS's own, with places at AWS where it has directories.
func (c *cloud) blueprint(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "deploy", "blueprint", "accessos.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	s, hash := string(text), sha256.Sum256([]byte(c.code))
	for _, r := range [][2]string{
		{"'{{.Store \"secrets\"}}'", "'secretsmanager://tenant/{{.Tenant}}/store/secrets'"}, {"'{{.Store \"objects\"}}'", "'s3://" + awsBucket + "/{{.Tenant}}'"},
		// Of a blueprint that isn't its own fleet doesn't know how its people get in.
		{"'{{.FirstAdminEmail}}'", "ada@acme.example"}, {"'{{.FirstAdminCodeHash}}'", "'" + hex.EncodeToString(hash[:]) + "'"},
		{"'{{.KeyService}}'", "'awskms://" + c.key + "'"}, {"'{{.AllowedAddresses}}'", "'" + shared.sampleAddress(t) + "'"},
		{"  A3_LOG_LEVEL: '{{.LogLevel}}'", "  A3_LOG_LEVEL: '{{.LogLevel}}'\n  AWS_REGION: " + ministacktest.Region + "\n  AWS_ENDPOINT_URL: " + c.endpoint + "\n  AWS_EC2_METADATA_DISABLED: 'true'"},
	} {
		if !strings.Contains(s, r[0]) {
			t.Fatalf("the blueprint has no %s: teach this test", r[0])
		}
		s = strings.ReplaceAll(s, r[0], r[1])
	}
	for component, variable := range map[string]string{"iam": "A3_TENANT_SLUG", "integrations": "A3_SECRET_PUBLIC_KEY", "discovery-worker": "A3_SECRET_PRIVATE_KEY_FILE"} {
		at := "      " + variable + ":"
		s = strings.Replace(s, at, "      AWS_CONTAINER_CREDENTIALS_FULL_URI: '"+c.tasks.URL+"/{{.Tenant}}/"+component+"'\n"+at, 1)
	}
	dir := filepath.Join(walkable(t), "product")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(filepath.Join(programs, "accessos"))
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"accessos": program, "accessos.yaml": []byte(s)} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o755); err != nil { //nolint:gosec // it is a program, and no secret
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "accessos.yaml")
}

// credentials answers as the address does that ECS names to a task. Who asks first has the tenant's places be marked.
func (c *cloud) credentials(w http.ResponseWriter, r *http.Request) {
	tenant, component, _ := strings.Cut(strings.Trim(r.URL.Path, "/"), "/")
	c.mu.Lock()
	defer c.mu.Unlock()
	who, err := id.ParseTenant(tenant)
	if err == nil {
		err = c.mark(who)
	}
	if err != nil {
		c.t.Error(err)
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	got, err := c.role(tenant, component).Credentials.Retrieve(r.Context())
	if err != nil {
		c.t.Error(err)
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"AccessKeyId": got.AccessKeyID, "SecretAccessKey": got.SecretAccessKey, "Token": got.SessionToken, "Expiration": time.Now().Add(time.Hour).Format(time.RFC3339)})
}

func (c *cloud) mark(who id.Tenant) error {
	public, err := os.ReadFile(filepath.Join(c.plane.home, "tenants", who.String(), "keys", "secrets.public"))
	if err != nil {
		return err
	}
	signer := c.plane.signer(c.t)
	if _, err := s3.Create(c.t.Context(), c.server.Root(), "s3://"+awsBucket+"/"+who.String(), signer, who); err != nil {
		return err
	}
	_, err = store.Create(c.t.Context(), c.server.Root(), "secretsmanager://tenant/"+who.String()+"/store/secrets", signer, who, strings.TrimSpace(string(public)))
	return err
}

// role is a component's, which may what deploy/aws/privileges.yaml says, on what is the tenant's.
func (c *cloud) role(tenant, component string) aws.Config {
	name := tenant + "-" + component
	if cfg, is := c.roles[name]; is {
		return cfg
	}
	allow := func(resource string, actions ...string) ministacktest.Statement {
		return ministacktest.Statement{Effect: "Allow", Action: actions, Resource: []string{resource}}
	}
	objects, secrets := "arn:aws:s3:::"+awsBucket+"/"+tenant+"/*", "arn:aws:secretsmanager:"+ministacktest.Region+":"+ministacktest.Account+":secret:tenant/"+tenant+"/store/secrets/"
	c.roles[name] = c.server.Role(c.t, name, map[string][]ministacktest.Statement{
		"iam": {allow(c.key, "kms:Encrypt", "kms:Decrypt")},
		"integrations": {allow(objects, "s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"), allow(secrets+"MARK-??????", "secretsmanager:GetSecretValue"),
			allow(secrets+"*", "secretsmanager:CreateSecret", "secretsmanager:PutSecretValue", "secretsmanager:DeleteSecret", "secretsmanager:TagResource")},
		"discovery-worker": {allow(objects, "s3:GetObject"), allow(secrets+"*", "secretsmanager:GetSecretValue")},
	}[component]...)
	return c.roles[name]
}

// A whole set runs with its objects, credentials and keys at AWS, each component as a role of its own: what is uploaded is discovered, a credential is kept, who may not read a credential can't, and a restart keeps all.
// Rows F28 and F29, at AWS: it throttles whoever writes and reads there, which is waited for, and breaks off in what a run reads, which takes nothing for gone.
func TestSetRunsWithItsPlacesAtAWS(t *testing.T) {
	full(t)
	t.Parallel()
	c := newCloud(t)
	c.plane = planeIn(t, walkable(t), "A3_TENANTS=acme", "A3_UNIX_TENANTS=none", "A3_BACKUP_EVERY=none", "A3_BLUEPRINT="+c.blueprint(t))
	if err := c.plane.up(t.Context()); err != nil {
		t.Fatal(err)
	}
	x := c.plane.tenants["acme"]
	c.plane.a3(t, "acme-admin", "login", "--url", x.url, "--ca-cert", filepath.Join(c.plane.home, "web", "ca.pem"), "--dial", c.plane.address(), "--setup-code", c.code)
	owner := x.invite(t)
	w := x.workspace(t, owner).GetId()
	const content = "account,email,app,right\nann,ann@example.com,payroll,admin\n"
	grants := func(workspace string) int {
		return len(ask(t, client(owner, workspace, discoveryv1connect.NewAccessServiceClient).ListGrants, &discoveryv1.ListGrantsRequest{}).GetGrants())
	}
	const slow = 3
	c.slow.Store(slow)
	integration := owner.upload(t, w, content)
	c.slow.Store(slow)
	owner.discover(t, w, integration.GetId())
	if n := grants(w); n != 1 {
		t.Errorf("of an upload %d grants were discovered", n)
	}
	other := x.workspace(t, owner).GetId()
	c.slow.Store(slow)
	sample := acme().northwind(t, owner, other, name("northwind"), acme().reader(t))
	if n := c.throttled.Load(); n < 3*slow {
		t.Errorf("AWS refused %d calls meanwhile", n)
	}

	// Nothing lies on this machine, and a credential is sealed where it lies: its writer can't read it, its reader can't write it.
	c.mu.Lock()
	writer, reader := c.role(x.id, "integrations"), c.role(x.id, "discovery-worker")
	c.mu.Unlock()
	credential := "tenant/" + x.id + "/store/secrets/" + other + "/" + sample.GetId()
	out, err := secretsmanager.NewFromConfig(reader).GetSecretValue(t.Context(), &secretsmanager.GetSecretValueInput{SecretId: &credential})
	if err != nil || len(out.SecretBinary) == 0 || strings.Contains(string(out.SecretBinary), readerPassword) {
		t.Errorf("the credential is not sealed in Secrets Manager: %v", err)
	}
	_, readErr := secretsmanager.NewFromConfig(writer).GetSecretValue(t.Context(), &secretsmanager.GetSecretValueInput{SecretId: &credential})
	_, writeErr := secretsmanager.NewFromConfig(reader).PutSecretValue(t.Context(), &secretsmanager.PutSecretValueInput{SecretId: &credential, SecretBinary: []byte("x")})
	for what, err := range map[string]error{"its writer reads": readErr, "its reader writes": writeErr} {
		if err == nil || !strings.Contains(err.Error(), "AccessDenied") {
			t.Errorf("%s a credential: %v", what, err)
		}
	}
	for _, dir := range []string{x.file("stores", "secrets", "secrets"), x.file("stores", "objects", "objects")} {
		if found, err := os.ReadDir(dir); err == nil && len(found) > 0 {
			t.Errorf("%s holds %d entries", dir, len(found))
		}
	}

	units := c.plane.pids(t)
	for _, component := range []string{"iam", "integrations", "discovery-worker"} {
		kill(t, units[x.id+"/"+component])
	}
	for _, component := range []string{"iam", "integrations", "discovery-worker"} {
		c.plane.serves(t, x.id+"/"+component, units[x.id+"/"+component])
	}
	owner.discover(t, w, integration.GetId())
	if n := grants(w); n != 1 {
		t.Errorf("after a restart there are %d grants", n)
	}
	throttled := 1 + c.credentialThrottled(x, owner, other, sample.GetId())
	t.Attr("row", fmt.Sprint("F28 ", throttled))
	t.Attr("row", fmt.Sprint("F29 ", c.readingBroken(x, owner, w)))
}
