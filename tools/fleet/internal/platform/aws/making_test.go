package aws_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/aws"
	"a3os.app/tools/fleet/internal/platform/aws/awstest"
	"a3os.app/tools/fleet/internal/platform/aws/changeset"
)

// A set whose stack lacks a service of its blueprint is stopped, as it would be started, by fleet itself, in a session that may make services: the process that
// works on it asks for the step, and is given it at that step alone and where a service is lacking.
func TestServicesThatAStackLacksAreMadeByFleetItself(t *testing.T) {
	server, p, s := ofPlane(t, registryv1.IsolationTier_ISOLATION_TIER_DEDICATED)
	ctx, tenant, r := t.Context(), s.Tenant.String(), awstest.Release(t)
	if err := p.State.SetRuns(s.Name(), r.String(), s.Blueprint.Digest); err != nil {
		t.Fatal(err)
	}
	var begun []string
	described := &awstest.Planned{Stack: awstest.Place.StackOf(tenant), Changes: awstest.KeyAndServer(true)}
	watched := server.Behind(t, func(w http.ResponseWriter, q *http.Request) bool {
		body, err := io.ReadAll(q.Body)
		q.Body = io.NopCloser(bytes.NewReader(body))
		if form, formErr := url.ParseQuery(string(body)); err == nil && formErr == nil && form.Get("Action") == "AssumeRole" {
			begun = append(begun, form.Get("PolicyArns.member.1.arn"))
		}
		return described.Answers(w, q)
	})
	t.Setenv("AWS_ENDPOINT_URL", watched.URL)
	p.Settings.Home = t.TempDir()
	p = anew(p)
	for _, of := range []platform.Set{p.Own, s} {
		if _, err := p.Machine.Identity(ctx, of); err != nil {
			t.Fatal(err)
		}
	}
	lent, err := p.Delegate(ctx, s, r, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(begun, awstest.Place.SessionPolicy()) || slices.Contains(begun, awstest.Place.MakingPolicy()) {
		t.Errorf("what is lent is of sessions with %q", begun)
	}
	if _, err := p.Answer(ctx, s, r, platform.StepStop, json.RawMessage(`"services"`)); err == nil || !strings.Contains(err.Error(), "no services to make") {
		t.Errorf("of a stack that lacks none some are made: %v", err)
	}
	services := ecs.NewFromConfig(server.Root())
	if _, err := services.DeleteService(ctx, &ecs.DeleteServiceInput{Cluster: sdk.String(awstest.Place.Cluster()), Service: sdk.String(awstest.Place.Service(tenant, "discovery")), Force: sdk.Bool(true)}); err != nil {
		t.Fatal(err)
	}
	for _, step := range []string{platform.StepMigrate, platform.StepShred, ""} {
		if _, err := p.Answer(ctx, s, r, step, json.RawMessage(`"services"`)); err == nil || !strings.Contains(err.Error(), "no services to make") {
			t.Errorf("at step %q some are made: %v", step, err)
		}
	}

	var asked []string
	child, err := aws.OpenDelegated(lent.Config, func(_ context.Context, call json.RawMessage) (platform.Answer, error) {
		asked = append(asked, string(call))
		return platform.Answer{Changed: true}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for what, do := range map[string]func() (bool, error){"started": func() (bool, error) { return child.Start(ctx, s, r) }, "stopped": func() (bool, error) { return child.Stop(ctx, s) }} {
		asked = nil
		if changed, err := do(); !changed || err != nil || !slices.Equal(asked, []string{`"services"`}) {
			t.Errorf("%s by the process that works on it: %t, %v; it asked %q", what, changed, err, asked)
		}
	}
	if len(running(t, server, tenant)) == 0 {
		t.Fatal("nothing runs: this shows nothing")
	}
	begun = nil
	// What is rendered by fleet would lose data here, so that it stops all without the stack: it is fleet that has done the step.
	if _, err := p.Answer(ctx, s, r, platform.StepStop, json.RawMessage(`"services"`)); !errors.Is(err, changeset.ErrLoses) || len(running(t, server, tenant)) > 0 {
		t.Errorf("done by fleet: %v", err)
	}
	if !slices.Contains(begun, awstest.Place.MakingPolicy()) {
		t.Errorf("it is done in sessions with %q", begun)
	}
}
