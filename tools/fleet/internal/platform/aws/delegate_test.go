package aws_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/id"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/aws"
	"a3os.app/tools/fleet/internal/platform/aws/awstest"
	"a3os.app/tools/fleet/internal/platform/aws/changeset"
	"a3os.app/tools/fleet/internal/platform/aws/session"
	"a3os.app/tools/fleet/internal/platform/local"
)

// The process that works on one tenant is that tenant's session at AWS and nobody else: it is told nothing of who the operator is, and what it
// takes another tenant's set for is refused by AWS. Its own it sees: the control.
func TestProcessOfOneTenantIsItsSessionAlone(t *testing.T) {
	server, p, mine := ofPlane(t, registryv1.IsolationTier_ISOLATION_TIER_DATABASE)
	d, err := changeset.Open(t.Context(), server.Root(), awstest.Where, awstest.Place.Templates())
	if err != nil {
		t.Fatal(err)
	}
	theirs := mine
	theirs.Tenant, theirs.Slug = id.NewTenant(), "globex"
	deployed(t, server, d, p, theirs)
	p.Machine = &local.Platform{Settings: p.Settings, State: p.State, Own: p.Own, Places: p, Now: time.Now}
	operator := []string{os.Getenv("AWS_ACCESS_KEY_ID"), os.Getenv("AWS_SECRET_ACCESS_KEY"), os.Getenv("AWS_SESSION_TOKEN")}

	t.Setenv("HTTPS_PROXY", "http://proxy.example:3128")
	t.Setenv("NO_PROXY", "127.0.0.1")
	lent, err := p.Delegate(t.Context(), mine, awstest.Release(t), time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Delegate(t.Context(), theirs, awstest.Release(t), time.Time{}); err != nil {
		t.Fatal(err)
	}
	for _, secret := range operator {
		if secret == "" || strings.Contains(string(lent.Config), secret) {
			t.Error("it is told the operator's own credentials")
		}
	}
	if lent.Sockets || !slices.Contains(lent.Ports, 3128) || slices.ContainsFunc(lent.Writes, func(dir string) bool { return dir != p.Machine.Files(mine).Dir() }) {
		t.Errorf("it reaches sockets (%v), ports %v, and changes %v", lent.Sockets, lent.Ports, lent.Writes)
	}

	// As that process begins: without an environment. What the opened platform sets is put back at the test's end.
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "AWS_") {
			t.Setenv(name, "")
		}
	}
	t.Setenv("AWS_REGION", "")
	asked := 0
	door := func(ctx context.Context, call json.RawMessage) (platform.Answer, error) {
		asked++
		return p.Answer(ctx, mine, awstest.Release(t), platform.StepStart, call)
	}
	child, err := aws.OpenDelegated(lent.Config, door)
	if err != nil {
		t.Fatal(err)
	}
	if where, err := child.Where(t.Context()); err != nil || where != awstest.Where {
		t.Fatalf("it is at %v, %v", where, err)
	}
	if got, err := child.Components(t.Context(), mine); err != nil || len(got) != len(mine.Blueprint.Components) {
		t.Errorf("of its own it sees %v, %v", got, err)
	}
	for what, do := range map[string]func(platform.Set) error{
		"look":  func(s platform.Set) error { _, err := child.Components(t.Context(), s); return err },
		"stop":  func(s platform.Set) error { _, err := child.Stop(t.Context(), s); return err },
		"shred": func(s platform.Set) error { _, err := child.Shred(t.Context(), s); return err },
	} {
		if err := do(theirs); err == nil || !strings.Contains(err.Error(), "AccessDenied") {
			t.Errorf("%s at another tenant's: %v", what, err)
		}
	}
	if got, err := p.Components(t.Context(), theirs); err != nil || len(got) != len(theirs.Blueprint.Components) {
		t.Errorf("the other one's are now %v, %v", got, err)
	}
	// What the environment says may not make it somebody else.
	if os.Getenv("AWS_SESSION_TOKEN") == "" || slices.Contains(operator, os.Getenv("AWS_SESSION_TOKEN")) {
		t.Error("it is not its session")
	}
	if asked > 0 {
		t.Errorf("with a session of an hour it asked for %d others", asked)
	}
	another(t, lent.Config, -time.Second, door, func(child *aws.Platform) {
		if got, err := child.Components(t.Context(), mine); err != nil || len(got) != len(mine.Blueprint.Components) {
			t.Errorf("in another session it sees %v, %v", got, err)
		}
		if _, err := child.Components(t.Context(), theirs); err == nil || !strings.Contains(err.Error(), "AccessDenied") {
			t.Errorf("in another session it looks at another tenant's: %v", err)
		}
	})
	if asked != 1 {
		t.Errorf("it asked %d times for another session", asked)
	}
	// CloudFormation can't renew the session that a change of its stack is asked for in.
	another(t, lent.Config, 6*time.Minute, door, func(child *aws.Platform) {
		if got, err := child.Components(t.Context(), mine); err != nil || len(got) != len(mine.Blueprint.Components) || asked != 1 {
			t.Errorf("with six minutes left it sees %v, and asked %d times: %v", got, asked, err)
		}
		if err := session.Fresh(t.Context(), child.Lent()); err != nil || asked != 2 {
			t.Errorf("for a stack's change it asked %d times: %v", asked, err)
		}
	})
	another(t, lent.Config, -time.Second, func(context.Context, json.RawMessage) (platform.Answer, error) {
		return platform.Answer{}, errors.New("log in again")
	}, func(child *aws.Platform) {
		if _, err := child.Components(t.Context(), mine); err == nil || !strings.Contains(err.Error(), "the session at AWS in which this tenant is worked on ends, and there is no other: log in again") {
			t.Errorf("with no other session: %v", err)
		}
	})
	for call, s := range map[string]platform.Set{`"the plane's"`: mine, `{"do":"session"}`: mine, `"session"`: p.Own} {
		if answer, err := p.Answer(t.Context(), s, awstest.Release(t), platform.StepStart, json.RawMessage(call)); err == nil || answer.Given != nil {
			t.Errorf("asked for %s of %s it hands something over: %v", call, s.Name(), err)
		}
	}
}

// another opens the platform with a session that is about to end.
func another(t *testing.T, config json.RawMessage, left time.Duration, door platform.Door, then func(*aws.Platform)) {
	t.Helper()
	var told map[string]any
	if err := json.Unmarshal(config, &told); err != nil {
		t.Fatal(err)
	}
	ends, err := time.Parse(time.RFC3339, told["Ends"].(string))
	if left := time.Until(ends); err != nil || left < 50*time.Minute || left > time.Hour {
		t.Errorf("its first session ends in %s: %v", left, err)
	}
	told["Ends"] = time.Now().Add(left)
	if config, err = json.Marshal(told); err != nil {
		t.Fatal(err)
	}
	child, err := aws.OpenDelegated(config, door)
	if err != nil {
		t.Fatal(err)
	}
	then(child)
}
