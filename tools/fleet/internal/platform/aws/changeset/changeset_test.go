package changeset_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"strings"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"a3os.app/libs/id"
	"a3os.app/libs/ministacktest"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/aws/awstest"
	"a3os.app/tools/fleet/internal/platform/aws/changeset"
)

// Two tenants' stacks are deployed on an emulator, and each component's own role reaches what is its set's and nothing of the other's.
func TestTwoTenantsReachTheirOwnAndNothingOfEachOther(t *testing.T) {
	server, d := awstest.Account(t)
	tenants := []id.Tenant{id.NewTenant(), id.NewTenant()}
	for _, tenant := range tenants {
		p := awstest.Change(t, d, awstest.Place.StackOf(tenant.String()), awstest.Tenant(t, tenant, false), awstest.Parameters)
		if len(p.Changes) < 40 || !strings.HasPrefix(p.Changes[0].String(), "add ") {
			t.Errorf("its plan is %v", p.Changes)
		}
	}
	for i, own := range tenants {
		other := tenants[1-i]
		for component, attempts := range map[string]func(cfg sdk.Config, of id.Tenant) map[string]error{
			"integrations": func(cfg sdk.Config, of id.Tenant) map[string]error { return objects(t, cfg, of) },
			"discovery":    func(cfg sdk.Config, of id.Tenant) map[string]error { return send(t, cfg, of) },
		} {
			cfg := awstest.As(t, server, own.String()+"-"+component+"-task")
			for what, err := range attempts(cfg, own) {
				if err != nil {
					t.Errorf("%s can't %s of its own set: %v", component, what, err)
				}
			}
			for what, err := range attempts(cfg, other) {
				if err == nil || !strings.Contains(err.Error(), "AccessDenied") {
					t.Errorf("%s can %s of another: %v", component, what, err)
				}
			}
		}
		// A role that may nothing, though the bucket's policy were to let it in.
		for what, err := range objects(t, awstest.As(t, server, own.String()+"-audit-task"), own) {
			if err == nil {
				t.Errorf("audit can %s of its set, which it doesn't need", what)
			}
		}
	}
}

// The emulator is called without TLS, and the policies of a stack as it is rendered deny just that, to the set's own roles too.
func TestNothingIsReachedWithoutTLS(t *testing.T) {
	server, d := awstest.Account(t)
	tenant := id.NewTenant()
	awstest.Change(t, d, awstest.Place.StackOf(tenant.String()), awstest.Tenant(t, tenant, true), awstest.Parameters)
	for what, err := range objects(t, awstest.As(t, server, tenant.String()+"-integrations-task"), tenant) {
		if err == nil || !strings.Contains(err.Error(), "explicit deny in a resource-based policy") {
			t.Errorf("%s without TLS: %v", what, err)
		}
	}
}

func objects(t *testing.T, cfg sdk.Config, of id.Tenant) map[string]error {
	t.Helper()
	client := s3.NewFromConfig(cfg, func(o *s3.Options) { o.UsePathStyle = true })
	bucket := "a3-dev-" + strings.ReplaceAll(of.String(), "_", "-") + "-objects-" + ministacktest.Account
	key := of.String() + "/objects/x"
	_, putErr := client.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: strings.NewReader("x")})
	_, getErr := client.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &bucket, Key: &key})
	_, listErr := client.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: &bucket, Prefix: sdk.String(of.String() + "/objects/")})
	return map[string]error{"write an object": putErr, "read an object": getErr, "list objects": listErr}
}

func send(t *testing.T, cfg sdk.Config, of id.Tenant) map[string]error {
	t.Helper()
	url := *cfg.BaseEndpoint + "/" + ministacktest.Account + "/" + of.String() + "-queue"
	_, err := sqs.NewFromConfig(cfg).SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &url, MessageBody: sdk.String("x")})
	return map[string]error{"send a message": err}
}

// The provisioner keeps templates in the plane's bucket, and CloudFormation makes stacks of them; nobody else of the account reads or writes
// one, whatever else allows it, and one that is too large goes nowhere but there.
func TestTemplatesAreTheProvisionersAlone(t *testing.T) {
	server, _ := awstest.Account(t)
	tenant := id.NewTenant()
	name, template := awstest.Place.StackOf(tenant.String()), awstest.Tenant(t, tenant, false)
	if len(template) < 51200 {
		t.Fatalf("the template has %d bytes, so it needs no bucket: this test shows nothing", len(template))
	}
	provisioner := awstest.As(t, server, "a3-dev-provisioner")
	d, err := changeset.Open(t.Context(), provisioner, awstest.Where, awstest.Place.Templates())
	if err != nil {
		t.Fatal(err)
	}
	p, err := d.Make(t.Context(), name, template, awstest.Parameters)
	if err != nil || len(p.Changes) < 40 {
		t.Fatalf("the provisioner plans %+v: %v", p, err)
	}
	sum := sha256.Sum256(template)
	key := name + "/" + hex.EncodeToString(sum[:]) + ".json"
	everything := ministacktest.Statement{Effect: "Allow", Action: []string{"*"}, Resource: []string{"*"}}
	for who, c := range map[string]struct {
		cfg  sdk.Config
		want string
	}{"the provisioner": {provisioner, ""}, "a stranger who may everything": {server.Role(t, "stranger", everything), "explicit deny in a resource-based policy"}} {
		client := s3.NewFromConfig(c.cfg, func(o *s3.Options) { o.UsePathStyle = true })
		_, readErr := client.GetObject(t.Context(), &s3.GetObjectInput{Bucket: sdk.String(awstest.Place.Templates()), Key: &key})
		_, writeErr := client.PutObject(t.Context(), &s3.PutObjectInput{Bucket: sdk.String(awstest.Place.Templates()), Key: &key, Body: bytes.NewReader(template)})
		for what, err := range map[string]error{"reads": readErr, "writes": writeErr} {
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s %s a template: %v", who, what, err)
			}
		}
	}
	client := s3.NewFromConfig(provisioner, func(o *s3.Options) { o.UsePathStyle = true })
	for _, elsewhere := range []string{awstest.Place.PlaneStack() + "/x.json", "x.json"} {
		if _, err := client.PutObject(t.Context(), &s3.PutObjectInput{Bucket: sdk.String(awstest.Place.Templates()), Key: &elsewhere, Body: strings.NewReader("{}")}); err == nil {
			t.Errorf("the provisioner writes %s, which is no tenant's", elsewhere)
		}
	}
	versions, err := s3.NewFromConfig(server.Root(), func(o *s3.Options) { o.UsePathStyle = true }).GetBucketVersioning(t.Context(), &s3.GetBucketVersioningInput{Bucket: sdk.String(awstest.Place.Templates())})
	if err != nil || versions.Status != "Enabled" {
		t.Errorf("the bucket keeps no versions: %+v, %v", versions, err)
	}
	if d, err = changeset.Open(t.Context(), provisioner, awstest.Where, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Make(t.Context(), name, template, awstest.Parameters); err == nil || !strings.Contains(err.Error(), "name the plane's bucket") {
		t.Errorf("without a bucket: %v", err)
	}
}

func TestCredentialsOfAnotherAccountOrRegionAreRefused(t *testing.T) {
	server := ministacktest.Start(t)
	for _, want := range []platform.Where{{Account: "210987654321", Region: awstest.Where.Region}, {Account: awstest.Where.Account, Region: "us-east-1"}} {
		if _, err := changeset.Open(t.Context(), server.Root(), want, ""); err == nil || !strings.Contains(err.Error(), want.Account+" in "+want.Region) {
			t.Errorf("%v: %v", want, err)
		}
	}
}

// What a plan says is what is carried out: a second change set of the same template has nothing to do, and what goes is shouted.
func TestPlanSaysWhatChanges(t *testing.T) {
	_, d := awstest.Account(t)
	queue := func(name, also string) []byte {
		return []byte(`{"Resources":{"Queue":{"Type":"AWS::SQS::Queue","Properties":{"QueueName":"` + name + `"}}` + also + `}}`)
	}
	const topic = `,"Topic":{"Type":"AWS::SNS::Topic"}`
	if p := awstest.Change(t, d, "small", queue("a", topic), nil); len(p.Changes) != 2 {
		t.Fatalf("it makes %v", p.Changes)
	}
	if p, err := d.Make(t.Context(), "small", queue("a", topic), nil); err != nil || p.ID != "" || len(p.Changes) != 0 {
		t.Errorf("the same once more is %+v, %v", p, err)
	}
	p, err := d.Make(t.Context(), "small", queue("a", ""), nil)
	if err != nil || len(p.Changes) != 1 || p.Changes[0].String() != "REMOVES remove Topic (AWS::SNS::Topic)" {
		t.Errorf("a topic less is %+v, %v", p, err)
	}
	if got := (changeset.Change{Action: "Modify", ID: "Database", Type: "AWS::RDS::DBInstance", Replaces: true}).String(); got != "REPLACES modify Database (AWS::RDS::DBInstance)" {
		t.Error(got)
	}
	if err := d.Execute(t.Context(), &changeset.Plan{}); err != nil {
		t.Error(err)
	}
}

// A change set is carried out once where the answer to the call is lost, and the call is made again.
func TestLostAnswerIsNoFailure(t *testing.T) {
	server := ministacktest.Start(t)
	lost := 0
	behind := server.Behind(t, func(_ http.ResponseWriter, r *http.Request) bool {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		if lost > 0 || !strings.Contains(string(body), "Action=ExecuteChangeSet") {
			return false
		}
		lost++
		on, err := http.NewRequestWithContext(r.Context(), r.Method, server.URL+r.URL.RequestURI(), bytes.NewReader(body))
		if err != nil {
			t.Error(err)
		}
		on.Header = r.Header.Clone()
		if res, err := http.DefaultClient.Do(on); err != nil {
			t.Error(err)
		} else {
			_ = res.Body.Close()
		}
		panic(http.ErrAbortHandler) // the connection ends without an answer
	})
	d, err := changeset.Open(t.Context(), behind.As(server.Root()), awstest.Where, "")
	if err != nil {
		t.Fatal(err)
	}
	awstest.Change(t, d, "small", []byte(`{"Resources":{"Topic":{"Type":"AWS::SNS::Topic"}}}`), nil)
	if lost != 1 {
		t.Errorf("%d answers were lost", lost)
	}
}

// A tenant's stack of a release that names more of the plane's than that has is refused with what to do.
func TestStackThatNamesWhatThePlanesDoesNotHaveSaysWhatToDeployFirst(t *testing.T) {
	_, d := awstest.Account(t)
	tenant := id.NewTenant()
	template := bytes.ReplaceAll(awstest.Tenant(t, tenant, false), []byte("a3-dev-Alarms"), []byte("a3-dev-OfLater"))
	p, err := d.Make(t.Context(), awstest.Place.StackOf(tenant.String()), template, awstest.Parameters)
	if err == nil {
		err = d.Execute(t.Context(), p)
	}
	if err == nil || !strings.Contains(err.Error(), "a3-dev-OfLater") || !strings.Contains(err.Error(), "fleet aws render") {
		t.Errorf("it is told %v", err)
	}
}
