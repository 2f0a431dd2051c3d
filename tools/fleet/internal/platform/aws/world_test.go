package aws_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/id"
	"a3os.app/libs/ministacktest"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/aws"
	"a3os.app/tools/fleet/internal/platform/aws/awstest"
	"a3os.app/tools/fleet/internal/platform/aws/stacktest"
	"a3os.app/tools/fleet/internal/settings"
	"a3os.app/tools/fleet/internal/state"
)

// world is a plane at an emulator that keeps services of which no task runs and calls them started, with one tenant's set.
type world struct {
	t      *testing.T
	server *ministacktest.Server
	*aws.Platform
	set platform.Set
	// at is asked about each call, of an action and with a body, whether it is the last: it comes to nothing, then.
	at func(action, body string) (last bool)
}

func newWorld(t *testing.T) *world {
	t.Helper()
	t.Setenv("DOCKER_HOST", "unix:///nonexistent")
	hosts := filepath.Join(t.TempDir(), "hosts")
	w := &world{t: t, server: ministacktest.StartTasks(t, "127.0.0.1", hosts, func(template []byte) ([]byte, error) { return stacktest.Emulated(template, false) })}
	awstest.On(t, w.server)
	loggedIn(t, w.server)
	t.Setenv("AWS_ENDPOINT_URL", w.server.Behind(t, w.sees).URL)
	st, err := state.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := st.SetImage(aws.Name+"/"+awstest.Digest, awstest.Digest); err != nil {
		t.Fatal(err)
	}
	own, err := blueprint.Plane()
	if err != nil {
		t.Fatal(err)
	}
	w.Platform = anew(&aws.Platform{Settings: settings.Settings{Home: t.TempDir(), Domain: awstest.Place.Domain, Port: 443, AWS: settings.AWS{Region: ministacktest.Region}},
		State: st, Own: platform.Set{Blueprint: own}})
	if w.Tenants, err = blueprint.AccessOS(); err != nil {
		t.Fatal(err)
	}
	w.set = platform.Set{Blueprint: w.Tenants, Tenant: id.NewTenant(), Slug: "acme", Tier: registryv1.IsolationTier_ISOLATION_TIER_DATABASE}
	if _, err := w.Machine.Identity(t.Context(), w.Own); err != nil {
		t.Fatal(err)
	}
	return w
}

// sees is for ministacktest's Behind.
func (w *world) sees(answer http.ResponseWriter, r *http.Request) bool {
	body, err := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	if form, formErr := url.ParseQuery(string(body)); err == nil && formErr == nil && w.at != nil && w.at(form.Get("Action"), string(body)) {
		w.at = nil
		answer.WriteHeader(http.StatusInternalServerError)
		return true
	}
	return false
}

// cutOff does something in a context that ends as an action is called about something, which isn't done any more, and sees that it came to no end.
func (w *world) cutOff(action, about string, do func(ctx context.Context) error) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	defer cancel()
	w.at = func(called, body string) bool {
		if called != action || !strings.Contains(body, about) {
			return false
		}
		cancel()
		return true
	}
	if err := do(ctx); err == nil {
		w.t.Fatalf("it came to its end, and was to be cut off at %s", action)
	}
	w.at = nil
}

// blueprint is that of AccessOS with changes, each a text and what takes its place.
func (w *world) blueprint(changes ...string) *blueprint.Blueprint {
	w.t.Helper()
	text := string(w.Tenants.Text)
	for pair := range slices.Chunk(changes, 2) {
		if strings.Count(text, pair[0]) != 1 {
			w.t.Fatalf("%q stands in the blueprint %d times", pair[0], strings.Count(text, pair[0]))
		}
		text = strings.Replace(text, pair[0], pair[1], 1)
	}
	b, err := blueprint.Parse("accessos.yaml", []byte(text))
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}

// logins has the files of a set's database be here, as Database makes them, which takes a server.
func (w *world) logins(s platform.Set) {
	w.t.Helper()
	for _, role := range append(slices.Collect(maps.Keys(s.Blueprint.Database.Roles)), "owner") {
		file := w.Machine.Files(s).URL(role)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte("postgres://"+role+":x@db.example:5432/x"), 0o600)); err != nil {
			w.t.Fatal(err)
		}
	}
}

// planned is the set by a blueprint, with the change of its stack that a plan names.
func (w *world) planned(b *blueprint.Blueprint) platform.Set {
	w.t.Helper()
	s := w.set
	s.Blueprint = b
	var err error
	if s.Planned, err = w.Foresee(w.t.Context(), s, awstest.Release(w.t), true); err != nil {
		w.t.Fatal(err)
	}
	return s
}

// fetch does what an operation does to a set whose blueprint changes before it is started.
func (w *world) fetch(ctx context.Context, s platform.Set) error {
	w.t.Helper()
	_, err := w.Identity(ctx, s)
	w.logins(s)
	return err
}

// start does what the process does that works on the set, in the tenant's session.
func (w *world) start(ctx context.Context, s platform.Set) error {
	w.t.Helper()
	r := awstest.Release(w.t)
	lent, err := w.Delegate(ctx, s, r, time.Time{})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"} {
		defer w.t.Setenv(name, os.Getenv(name)) // it sets them
	}
	child, err := aws.OpenDelegated(lent.Config, func(_ context.Context, call json.RawMessage) (platform.Answer, error) {
		w.t.Errorf("the process that works on the set asks for %s", call)
		return platform.Answer{}, errors.New("no")
	})
	if err != nil {
		w.t.Fatal(err)
	}
	_, err = child.Start(ctx, s, r)
	return err
}

// services are the set's, by component: what each is to run, and by which definition.
func (w *world) services(components ...string) map[string]string {
	w.t.Helper()
	out := map[string]string{}
	for _, component := range components {
		got, err := ecs.NewFromConfig(w.server.Root()).DescribeServices(w.t.Context(), &ecs.DescribeServicesInput{Cluster: sdk.String(awstest.Place.Cluster()), Services: []string{awstest.Place.Service(w.set.Tenant.String(), component)}})
		if err != nil {
			w.t.Fatal(err)
		}
		for _, s := range got.Services {
			if sdk.ToString(s.Status) == "ACTIVE" {
				out[component] = map[bool]string{true: "runs ", false: "idles "}[s.DesiredCount == 1] + sdk.ToString(s.TaskDefinition)
			}
		}
	}
	return out
}

// keys are those that a component's secret holds; nil where there is none.
func (w *world) keys(component string) []string {
	w.t.Helper()
	got, err := secretsmanager.NewFromConfig(w.server.Root()).GetSecretValue(w.t.Context(), &secretsmanager.GetSecretValueInput{SecretId: sdk.String(awstest.Place.ComponentSecret(w.set.Tenant.String(), component))})
	if err != nil {
		return nil
	}
	var held map[string]string
	if err := json.Unmarshal([]byte(sdk.ToString(got.SecretString)), &held); err != nil {
		w.t.Fatal(err)
	}
	return slices.Sorted(maps.Keys(held))
}

// marked says whether a store has a mark.
func (w *world) marked(store string) bool {
	w.t.Helper()
	tenant := w.set.Tenant.String()
	client := s3.NewFromConfig(w.server.Root(), func(o *s3.Options) { o.UsePathStyle = true })
	_, err := client.HeadObject(w.t.Context(), &s3.HeadObjectInput{Bucket: sdk.String(awstest.Place.Bucket(tenant, store)), Key: sdk.String(tenant + "/MARK")})
	return err == nil
}

// all are AccessOS's components.
var all = []string{"audit", "iam", "integrations", "discovery", "discovery-worker"}
