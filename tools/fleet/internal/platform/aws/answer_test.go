package aws_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/jackc/pgx/v5"

	"a3os.app/libs/ministacktest"
	"a3os.app/tools/fleet/internal/platform/aws/awstest"
)

// explains has a tenant's first admin sign in by what fleet said, connect an upload and a database server, have both discovered, ask why
// somebody has access, and verify the log. Nothing of it lies on this machine: the upload is an object of the tenant's bucket, the server's
// password a secret of Secrets Manager, the work goes over the tenant's queue of SQS; each component reaches that as a role of its own.
func (p *plane) explains(server *ministacktest.Server, slug, said string) {
	p.t.Helper()
	tenant := p.tenant(slug).GetTenant().GetId()
	p.signsIn(slug, said)
	p.licensed(slug)
	p.a3(slug, "workspace", "create", "people")

	const password = "a-reader-of-the-ledger"
	admin, at := p.administers(server)
	// A database that everybody reached would be one that tenants' roles reach, and no component starts that does.
	for _, sql := range []string{"CREATE DATABASE ledger_" + slug, "REVOKE ALL ON DATABASE ledger_" + slug + " FROM PUBLIC", "CREATE ROLE clerk_" + slug,
		"CREATE ROLE a3_reader_" + slug + " LOGIN PASSWORD '" + password + "'", "GRANT CONNECT ON DATABASE ledger_" + slug + " TO a3_reader_" + slug} {
		p.sql(admin, "postgres", sql)
	}
	p.sql(admin, "ledger_"+slug, "CREATE TABLE entries (id int); GRANT SELECT ON entries TO clerk_"+slug)
	host, port, err := net.SplitHostPort(at)
	if err != nil {
		p.t.Fatal(err)
	}
	dir := p.t.TempDir()
	upload, secret := filepath.Join(dir, "people.csv"), filepath.Join(dir, "password")
	for file, content := range map[string]string{upload: "Id,Mail,App,Role\nann,ann@" + slug + ".example,payroll,admin\n", secret: password} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			p.t.Fatal(err)
		}
	}
	in := []string{"--workspace", "people"}
	p.a3(slug, append(in, "integration", "add", "hr", "csv", "--system", "HR suite", "--file", upload,
		"--column", "Id=account_id", "--column", "Mail=email", "--column", "App=resource", "--column", "Role=entitlement")...)
	p.a3(slug, append(in, "integration", "add", "ledger", "postgres", "--host", host, "--port", port, "--user", "a3_reader_"+slug, "--database", "ledger_"+slug,
		"--ssl-mode", "disable", "--secret-file", secret)...)
	for _, name := range []string{"hr", "ledger"} {
		p.a3(slug, append(in, "discovery", "run", name, "--watch")...)
	}
	for _, q := range []struct{ who, what, how string }{{"ann", "payroll", "admin"}, {"clerk_" + slug, "ledger_" + slug + ".public.entries", "SELECT"}} {
		if why := p.a3(slug, append(in, "access", "why", q.who, q.what)...); !strings.Contains(why, q.how) {
			p.t.Errorf("why %s has access to %s: %s", q.who, q.what, why)
		}
	}
	p.a3(slug, "audit", "verify")
	p.keepsAtAWS(server, tenant)
	if done := p.sql(admin, tenant, "SELECT count(*) FROM queue.sqs_jobs"); done < 2 {
		p.t.Errorf("over SQS %s did %d jobs", slug, done)
	}
}

// licensed returns when the set took its licence, which the registry hands over when the set reports first.
func (p *plane) licensed(slug string) {
	p.t.Helper()
	within, cancel := context.WithTimeout(p.t.Context(), 2*time.Minute)
	defer cancel()
	for tick := time.Tick(time.Second); ; {
		said := p.a3(slug, "licence", "show")
		if strings.Contains(said, "plan") && strings.Contains(said, "valid") {
			return
		}
		select {
		case <-within.Done():
			p.t.Fatalf("%s took no licence: %s", slug, said)
		case <-tick:
		}
	}
}

// keepsAtAWS looks as the account's root for what a tenant keeps: its marks, an object and a credential.
func (p *plane) keepsAtAWS(server *ministacktest.Server, tenant string) {
	p.t.Helper()
	bucket := awstest.Place.Bucket(tenant, "objects")
	objects, err := s3.NewFromConfig(server.Root(), func(o *s3.Options) { o.UsePathStyle = true }).ListObjectsV2(p.t.Context(), &s3.ListObjectsV2Input{Bucket: &bucket})
	if err != nil {
		p.t.Fatal(err)
	}
	var names []string
	for _, o := range objects.Contents {
		names = append(names, sdk.ToString(o.Key))
	}
	secrets, err := secretsmanager.NewFromConfig(server.Root()).ListSecrets(p.t.Context(), &secretsmanager.ListSecretsInput{})
	if err != nil {
		p.t.Fatal(err)
	}
	for _, s := range secrets.SecretList {
		if strings.Contains(sdk.ToString(s.Name), tenant+"/store/") {
			names = append(names, sdk.ToString(s.Name))
		}
	}
	found := strings.Join(names, " ")
	for _, want := range []string{tenant + "/MARK", tenant + "/objects/wsp_", "tenant/" + tenant + "/store/secrets/MARK", "tenant/" + tenant + "/store/secrets/wsp_"} {
		if !strings.Contains(found, want) {
			p.t.Errorf("there is no %s… at AWS: %s", want, found)
		}
	}
}

// administers is how the database server's first user reaches it, as fleet finds out.
func (p *plane) administers(server *ministacktest.Server) (url.URL, string) {
	p.t.Helper()
	got, err := secretsmanager.NewFromConfig(server.Root()).GetSecretValue(p.t.Context(), &secretsmanager.GetSecretValueInput{SecretId: sdk.String("rds!db-shared")})
	var user struct{ Username, Password string }
	if err == nil {
		err = json.Unmarshal([]byte(sdk.ToString(got.SecretString)), &user)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	at := hubAddress + ":15432"
	return url.URL{Scheme: "postgres", User: url.UserPassword(user.Username, user.Password), Host: at}, at
}

// sql runs a statement, and answers the number that it answers, where it does.
func (p *plane) sql(as url.URL, database, text string) (number int) {
	p.t.Helper()
	as.Path = database
	conn, err := pgx.Connect(p.t.Context(), as.String())
	if err != nil {
		p.t.Fatal(err)
	}
	defer conn.Close(p.t.Context())
	if strings.HasPrefix(text, "SELECT") {
		err = conn.QueryRow(p.t.Context(), text).Scan(&number)
	} else {
		_, err = conn.Exec(p.t.Context(), text)
	}
	if err != nil {
		p.t.Fatal(fmt.Errorf("%s: %w", text, err))
	}
	return number
}

// a3 is the program of a tenant's people, as the tenant's admin.
func (p *plane) a3(slug string, args ...string) string {
	p.t.Helper()
	cmd := exec.CommandContext(p.t.Context(), filepath.Join(p.bin, "a3"), append([]string{"--profile", slug + "-admin"}, args...)...) //nolint:gosec // it is the program that was built
	cmd.Env = p.environ
	out, err := cmd.CombinedOutput()
	if err != nil {
		p.t.Fatalf("a3 %v: %v: %s", args, err, out)
	}
	return string(out)
}
