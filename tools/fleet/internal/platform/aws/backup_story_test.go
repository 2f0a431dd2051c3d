package aws_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"a3os.app/libs/ministacktest"
	"a3os.app/tools/fleet/internal/platform/aws/awstest"
)

// restored backs a tenant up whose objects are in S3 and whose credentials are in Secrets Manager, which a real restore into a throwaway server
// proves; has what lies there be lost, changed, and joined by more; and restores it: all is as it was, nothing besides, and its admin, let in again,
// has the systems discovered anew by the credential and the upload that came back.
func (p *plane) restored(server *ministacktest.Server, slug string) {
	p.t.Helper()
	tenant := p.tenant(slug).GetTenant().GetId()
	before := p.keeps(server, tenant)
	var made []struct {
		Name               string
		Files, Credentials int
		Verified           time.Time
		Elsewhere          []string
	}
	p.json(&made, "backup", "--tenant", slug)
	if len(made) != 1 || made[0].Verified.IsZero() || made[0].Files < 2 || made[0].Credentials != 1 || len(made[0].Elsewhere) > 0 {
		p.t.Fatalf("the backup is %+v", made)
	}
	p.ruined(server, tenant, before)
	began := time.Now()
	var done struct {
		Serves      bool
		LostNs      time.Duration `json:"lost_ns"`
		TotalNs     time.Duration `json:"total_ns"`
		Credentials int
	}
	p.json(&done, "restore", "--from", made[0].Name, "--to", slug, "--replace", "--reason", "its bucket and its secrets were lost")
	p.t.Logf("%s serves again after %s, as of %s before", slug, time.Since(began).Round(time.Second), done.LostNs.Round(time.Second))
	if !done.Serves || done.LostNs <= 0 || done.TotalNs <= 0 {
		p.t.Errorf("the restore says %+v", done)
	}
	after := p.keeps(server, tenant)
	for name, content := range before {
		if !bytes.Equal(after[name], content) {
			p.t.Errorf("%s did not come back as it was: %d bytes, was %d", name, len(after[name]), len(content))
		}
		delete(after, name)
	}
	for name := range after {
		p.t.Errorf("%s came after the backup, and is there", name)
	}
	if got := p.answers(slug); got != http.StatusOK {
		p.t.Errorf("restored it answers %d", got)
	}
	p.signsIn(slug, p.fleet("tenant", "recover-admin", slug, "--reason", "a restore ended every session"))
	for _, name := range []string{"hr", "ledger"} {
		p.a3(slug, "--workspace", "people", "discovery", "run", name, "--watch")
	}
	p.a3(slug, "audit", "verify")
}

// signsIn has a tenant's admin sign in by what fleet said.
func (p *plane) signsIn(slug, said string) {
	p.t.Helper()
	_, login, _ := strings.Cut(said, "a3 --profile "+slug+"-admin login ")
	login, _, is := strings.Cut(login, "\n")
	if !is {
		p.t.Fatalf("fleet does not say how the admin of %s gets in: %s", slug, said)
	}
	if strings.Contains(login, "--dial") || strings.Contains(login, "--ca-cert") {
		p.t.Errorf("the admin of %s is told a way to this machine, where at AWS nobody is served: %s", slug, login)
	}
	// Here no name leads to the load balancer, nor vouches the world for its certificate.
	here := []string{"--ca-cert", filepath.Join(p.home, "web", "ca.pem"), "--dial", "127.0.0.1:443"}
	p.a3(slug, slices.Concat([]string{"login"}, strings.Fields(login), here)...)
}

// json is what a command answers with -o json.
func (p *plane) json(into any, args ...string) {
	p.t.Helper()
	cmd := p.command(append([]string{"-o", "json"}, args...)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(out, into)
	}
	if err != nil {
		p.t.Fatalf("fleet %v: %v: %s%s", args, err, out, stderr.String())
	}
}

func buckets(server *ministacktest.Server) *s3.Client {
	return s3.NewFromConfig(server.Root(), func(o *s3.Options) { o.UsePathStyle = true })
}

// keeps is all that a tenant's stores have at AWS, seen as the account's root.
func (p *plane) keeps(server *ministacktest.Server, tenant string) map[string][]byte {
	p.t.Helper()
	out, ctx := map[string][]byte{}, p.t.Context()
	bucket := sdk.String(awstest.Place.Bucket(tenant, "objects"))
	objects, err := buckets(server).ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: bucket})
	if err != nil {
		p.t.Fatal(err)
	}
	for _, o := range objects.Contents {
		got, err := buckets(server).GetObject(ctx, &s3.GetObjectInput{Bucket: bucket, Key: o.Key})
		if err != nil {
			p.t.Fatal(err)
		}
		if out[*o.Key], err = io.ReadAll(got.Body); err != nil {
			p.t.Fatal(err)
		}
	}
	client := secretsmanager.NewFromConfig(server.Root())
	secrets, err := client.ListSecrets(ctx, &secretsmanager.ListSecretsInput{})
	if err != nil {
		p.t.Fatal(err)
	}
	for _, s := range secrets.SecretList {
		if strings.Contains(sdk.ToString(s.Name), tenant+"/store/") {
			got, err := client.GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: s.Name})
			if err != nil {
				p.t.Fatal(err)
			}
			out[*s.Name] = got.SecretBinary
		}
	}
	return out
}

// ruined loses the objects that there are, changes the credentials, and puts something besides into either store.
func (p *plane) ruined(server *ministacktest.Server, tenant string, had map[string][]byte) {
	p.t.Helper()
	ctx, bucket := p.t.Context(), sdk.String(awstest.Place.Bucket(tenant, "objects"))
	client := secretsmanager.NewFromConfig(server.Root())
	lost, changed := 0, 0
	for name := range had {
		var err error
		switch {
		case strings.HasSuffix(name, "/MARK"):
		case strings.HasPrefix(name, tenant+"/objects/"):
			_, err = buckets(server).DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: bucket, Key: &name})
			lost++
		default:
			_, err = client.PutSecretValue(ctx, &secretsmanager.PutSecretValueInput{SecretId: &name, SecretBinary: []byte("spoiled")})
			changed++
			if err == nil {
				last := "0"
				if strings.HasSuffix(name, last) {
					last = "1"
				}
				other := name[:len(name)-1] + last
				_, err = client.CreateSecret(ctx, &secretsmanager.CreateSecretInput{Name: &other, SecretBinary: []byte("of later")})
			}
		}
		if err != nil {
			p.t.Fatal(err)
		}
	}
	if _, err := buckets(server).PutObject(ctx, &s3.PutObjectInput{Bucket: bucket, Key: sdk.String(tenant + "/objects/of-later"), Body: strings.NewReader("x")}); err != nil {
		p.t.Fatal(err)
	}
	if lost == 0 || changed == 0 {
		p.t.Fatalf("there was nothing to lose: %d objects, %d credentials", lost, changed)
	}
}
