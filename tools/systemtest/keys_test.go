package systemtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	"a3os.app/proto/gen/go/a3os/discovery/v1/discoveryv1connect"
	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"
	"a3os.app/proto/gen/go/a3os/iam/v1/iamv1connect"
)

// signsWith is the id of the key that a token was signed with.
func signsWith(t *testing.T, token string) string {
	t.Helper()
	header, _ := decoded(t, token)
	kid, _ := header["kid"].(string)
	return kid
}

// Tokens are got and presented at every service of the set, new ones and old ones, while the keys rotate; nobody notices.
func TestNoRequestFailsWhileSigningKeysRotate(t *testing.T) {
	full(t)
	t.Parallel()
	x := borrow(t)
	person := x.person(t, iamv1.TenantRole_TENANT_ROLE_UNSPECIFIED)
	held := person.token(t, "")
	all := probes(t)
	var calls, refused atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	load := func(token func() (string, error), every time.Duration) {
		wg.Go(func() {
			tick := time.NewTicker(every)
			defer tick.Stop()
			for {
				select {
				case <-stop:
					return
				case <-tick.C:
				}
				bearer, err := token()
				if err != nil {
					refused.Add(1)
					t.Errorf("no token: %v", err)
					continue
				}
				for component, m := range all {
					a, err := past(t, x, component).bearer(bearer).try(t, m.path(), contentType(m, "json"), frame(m, []byte("{}")))
					if calls.Add(1); err != nil || a.code == "unauthenticated" || a.code == "unavailable" {
						refused.Add(1)
						t.Errorf("%s: %v %s", component, err, a)
					}
				}
			}
		})
	}
	load(func() (string, error) { return held, nil }, 50*time.Millisecond)
	load(func() (string, error) { return person.anew(t, "") }, 100*time.Millisecond)
	wait := func(more int64) {
		seen := calls.Load()
		within(t, backWithin, func() error {
			if calls.Load() < seen+more {
				return errors.New("the load stopped")
			}
			return nil
		})
	}
	wait(20)
	before := signsWith(t, held)
	for range 3 {
		// A key that was just made is not let sign, and nobody waits a minute here: every service has heard of it long before.
		if _, err := x.database(t, "owner").Exec(t.Context(), "UPDATE iam.signing_keys SET created_at = created_at - interval '2 minutes'"); err != nil {
			t.Fatal(err)
		}
		shared.a3(t, "spare-admin", "key", "rotate", "--reason", "the quarterly rotation")
		wait(50)
	}
	close(stop)
	wg.Wait()
	fresh, err := person.anew(t, "")
	if err != nil || signsWith(t, fresh) == before {
		t.Errorf("the issuer signs with the key of before (%v)", err)
	}
	x.accepts(t, held)
	t.Logf("%d calls, %d failed", calls.Load(), refused.Load())
}

// After an emergency rotation nothing that was signed before is accepted anywhere, no open stream of such a token goes on, and everybody
// has a good token again without signing in.
func TestEmergencyRotationEndsEveryTokenWithinFiveSeconds(t *testing.T) {
	full(t)
	t.Parallel()
	x := borrow(t)
	owner := x.person(t, iamv1.TenantRole_TENANT_ROLE_UNSPECIFIED)
	w := ask(t, client(x.plane.as(t, x, "spare-admin"), "", iamv1connect.NewWorkspaceWriteServiceClient).CreateWorkspace,
		&iamv1.CreateWorkspaceRequest{Name: name("workspace"), OwnerUserId: owner.id}).GetId()
	token := owner.token(t, w)
	x.accepts(t, token)
	integration := owner.upload(t, w, "account,email,app,right\nann,,payroll,admin\n")
	resume := x.pause(t, "discovery-worker")
	run := ask(t, client(owner, w, discoveryv1connect.NewRunWriteServiceClient).StartRun, &discoveryv1.StartRunRequest{IntegrationId: integration.GetId()})
	stream := open(t, past(t, x, "discovery").bearer(token), methodNamed(t, "/a3os.discovery.v1.RunService/WatchRun"), `{"runId":"`+run.GetId()+`"}`)
	if first := stream.next(t, 10*time.Second); !strings.Contains(first, run.GetId()) {
		t.Fatalf("the stream begins with %s", first)
	}
	reason := "a backup of the key store was found outside, " + name("case")
	out := shared.a3(t, "spare-admin", "-o", "json", "key", "rotate", "--emergency", "--reason", reason)
	rotated := time.Now()
	if last := stream.end(t, endsWithin); !strings.Contains(last, "unauthenticated") {
		t.Errorf("the stream ended with %s", last)
	}
	resume()
	x.refusesWithin(t, token, endsWithin-time.Since(rotated))
	var set struct{ SigningKeys []struct{ KeyID string } }
	if err := json.Unmarshal([]byte(out), &set); err != nil || len(set.SigningKeys) != 2 {
		t.Errorf("the key set after it is %s", out)
	}
	if strings.Contains(out, signsWith(t, token)) {
		t.Error("the key of before is still published")
	}
	fresh, err := owner.anew(t, w)
	if err != nil {
		t.Fatalf("nobody signed out, and there is no new token: %v", err)
	}
	within(t, endsWithin, func() error {
		for component, m := range probes(t) {
			if a := past(t, x, component).bearer(fresh).call(t, m, nil); a.code == "unauthenticated" {
				return fmt.Errorf("%s doesn't believe a new token: %s", component, a)
			}
		}
		return nil
	})
	shared.recorded(t, "spare-admin", "iam.signing_keys.rotated_in_emergency", reason)
}
