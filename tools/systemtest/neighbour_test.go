package systemtest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"a3os.app/proto/gen/go/a3os/iam/v1/iamv1connect"
)

// Row F25, but for how often: four hundred callers of one tenant ask at once, and again as soon as they may, which is more than may wait. What
// comes beyond the share waits for its turn, or is refused, and the neighbour, who asks without a pause, is not refused once. That a tenant sends
// a hundred times its share, and how much later the neighbour is answered then, is the benchmark's, on a machine that does nothing else: here
// it is shown how often the two of them asked, and nothing of it asserted.
func TestStoryOfAFloodThatFailsNoRequestOfItsNeighbour(t *testing.T) {
	long(t)
	const slug = "torrent"
	// What tenants of the tests may take is more than one has by itself. An operator changes it as this does.
	share := func(ctx context.Context, rate string) {
		changed := *shared
		changed.environ = append(slices.Clone(shared.environ), "A3_TENANT_RATE="+rate)
		if s, err := changed.command(ctx, "fleet", "plane", "up"); err != nil || s.code != 0 {
			t.Fatalf("bring the plane up with A3_TENANT_RATE=%s: %v %s", rate, err, s)
		}
	}
	share(t.Context(), "0")
	t.Cleanup(func() { share(context.WithoutCancel(t.Context()), testsRate) })
	if s := shared.fleet(t, "tenant", "create", slug, "--tier", "dedicated"); s.code != 0 {
		t.Fatalf("create: %s", s)
	}
	admin := acme().admin(t)
	read := admin.reads(acme().workspace(t, admin).GetId())["integrations"]
	floods := 0
	for _, f := range []struct{ tier, slug, profile string }{
		{"dedicated", slug, shared.admitAdmin(t, slug)}, {"database", "globex", "globex-admin"},
	} {
		token := strings.TrimSpace(shared.a3(t, f.profile, "token"))
		if got := shared.selfAnswers(t, f.slug, token); got != http.StatusOK {
			t.Fatalf("%s is answered %d", f.slug, got)
		}
		const rounds = 3
		var quiet, loud []time.Duration
		served, refused := 0, 0
		var took time.Duration
		for range rounds {
			quiet = append(quiet, ninetyNinth(t, read))
			began := time.Now()
			stop := flood(t, f.slug, token)
			loud = append(loud, ninetyNinth(t, read))
			s, r := stop()
			served, refused, took = served+s, refused+r, took+time.Since(began)
		}
		if refused == 0 || served == 0 {
			t.Errorf("tier %s: of the flood %d requests were served and %d refused, want some of both", f.tier, served, refused)
		}
		floods += refused
		slices.Sort(quiet)
		slices.Sort(loud)
		t.Logf("tier %s: %d served, %d refused, %.0f a second beside its neighbour's %.0f; the neighbour's p99 is %s with and %s without, ratio %.1f", f.tier, served, refused,
			float64(served+refused)/took.Seconds(), rounds*neighboursCalls/took.Seconds(),
			loud[rounds/2].Round(time.Millisecond), quiet[rounds/2].Round(time.Millisecond), float64(loud[rounds/2])/float64(quiet[rounds/2]))
	}
	shared.apply(t, shared.plan(t, offboard, slug, ""))
	t.Attr("row", fmt.Sprint("F25 ", floods))
}

// neighboursCalls are how many of the neighbour's a 99th percentile is of.
const neighboursCalls = 100

// ninetyNinth is the neighbour's: of so few calls the second slowest. None of them may fail.
func ninetyNinth(t *testing.T, read func(context.Context) error) time.Duration {
	t.Helper()
	var took []time.Duration
	for range neighboursCalls {
		began := time.Now()
		if err := read(t.Context()); err != nil {
			t.Errorf("the neighbour of a flood learnt %v", err)
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return took[neighboursCalls-2]
}

// flood has a tenant's user send from so many callers at once that more would wait than may, each again a second after it was refused,
// until stop is called, which says how many were served and refused. Anything but that is a failure.
func flood(t *testing.T, slug, token string) (stop func() (served, refused int)) {
	t.Helper()
	const callers = 400
	client := acme().client(t)
	ctx, cancel := context.WithCancel(t.Context())
	var served, refused atomic.Int64
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for ctx.Err() == nil {
				req, err := http.NewRequestWithContext(ctx, http.MethodPost, shared.urlOf(slug)+iamv1connect.IdentityServiceGetSelfProcedure, strings.NewReader("{}"))
				if err != nil {
					t.Error(err)
					return
				}
				req.Header.Set("Content-Type", "application/json")
				req.Header.Set("Authorization", "Bearer "+token)
				res, err := client.Do(req)
				if errors.Is(err, context.Canceled) {
					return
				}
				if err != nil {
					t.Errorf("the flood learnt %v", err)
					return
				}
				_ = res.Body.Close()
				switch res.StatusCode {
				case http.StatusOK:
					served.Add(1)
				case http.StatusTooManyRequests:
					refused.Add(1)
					select {
					case <-time.After(time.Second): // as it was told
					case <-ctx.Done():
					}
				default:
					t.Errorf("the flood is answered %s", res.Status)
				}
			}
		})
	}
	return func() (int, int) {
		cancel()
		wg.Wait()
		return int(served.Load()), int(refused.Load())
	}
}
