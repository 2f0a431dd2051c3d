package systemtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	"a3os.app/libs/fault"
	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"
	"a3os.app/proto/gen/go/a3os/integrations/v1/integrationsv1connect"
)

// backWithin is how soon a killed process serves again. It has room for a slow machine; what the supervisor promises is startedWithin.
const backWithin = 20 * time.Second

// startedWithin is how soon the supervisor starts what was killed, by its own clock: how long the process then takes until it serves
// is the machine's business.
const startedWithin = 2 * time.Second

func TestKilledProcessIsBackAndNothingIsLost(t *testing.T) {
	full(t)
	targets := []string{"plane/registry", "plane/gateway", "plane/postgres"}
	for component := range acme().addresses {
		targets = append(targets, acme().id+"/"+component)
	}
	slices.Sort(targets)
	owner := acme().invite(t)
	l := newLoad(t, owner, acme().workspace(t, owner).GetId())
	for _, target := range targets {
		before := shared.pids(t)
		was, err := shared.process(t.Context(), target)
		if err != nil {
			t.Fatal(err)
		}
		killed := time.Now()
		kill(t, before[target])
		now := shared.serves(t, target, before[target])
		took := time.Since(killed)
		l.healed(t, target)
		t.Logf("%s: started again %s after SIGKILL, and served after %s", target, now.Since.Sub(killed).Round(time.Millisecond), took.Round(time.Millisecond))
		// What had ended shortly before is given a pause, which is another promise.
		if settled := killed.Sub(was.Since) > 10*time.Second; settled && now.Since.Sub(killed) > startedWithin {
			t.Errorf("%s was started again %s after it was killed", target, now.Since.Sub(killed))
		}
		if now.Restarts != was.Restarts+1 {
			t.Errorf("%s was killed once and started %d times", target, now.Restarts-was.Restarts)
		}
		for name, pid := range shared.pids(t) {
			if name != target && pid != before[name] {
				t.Errorf("when %s was killed, %s ended as well", target, name)
			}
		}
	}
	l.stop(t)
	if s := shared.tryA3(t, "acme-admin", "audit", "verify"); s.code != 0 {
		t.Errorf("audit verify: %s", s)
	}
}

// load is four people at work: two read, two write, all of the time. Each write is tried with its own key until it is acknowledged.
type load struct {
	owner     *person
	workspace string
	cancel    context.CancelFunc
	done      sync.WaitGroup

	mu     sync.Mutex
	acked  map[string]string
	reads  int
	errors map[string]int
	bad    []error
}

func newLoad(t *testing.T, owner *person, workspace string) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{owner: owner, workspace: workspace, cancel: cancel, acked: map[string]string{}, errors: map[string]int{}}
	const readers, writers = 2, 2
	for range readers {
		l.done.Go(func() { l.read(ctx) })
	}
	for range writers {
		l.done.Go(func() { l.write(ctx) })
	}
	t.Cleanup(func() { cancel(); l.done.Wait() })
	return l
}

// pace keeps the load light.
const pace = 20 * time.Millisecond

func (l *load) read(ctx context.Context) {
	c := client(l.owner, l.workspace, integrationsv1connect.NewIntegrationServiceClient)
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for ctx.Err() == nil {
		_, err := c.ListIntegrations(ctx, connect.NewRequest(&integrationsv1.ListIntegrationsRequest{PageSize: 10}))
		l.mu.Lock()
		if err == nil {
			l.reads++
		}
		l.mu.Unlock()
		l.note(ctx, "read", err)
		<-tick.C
	}
}

func (l *load) write(ctx context.Context) {
	c := client(l.owner, l.workspace, integrationsv1connect.NewIntegrationWriteServiceClient)
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for ctx.Err() == nil {
		key, what := name("key"), name("loaded")
		for ctx.Err() == nil {
			req := connect.NewRequest(&integrationsv1.CreateIntegrationRequest{Name: what, Settings: csvSettings()})
			req.Header().Set("Idempotency-Key", key)
			res, err := c.CreateIntegration(ctx, req)
			l.note(ctx, "write", err)
			<-tick.C
			if err == nil {
				l.mu.Lock()
				l.acked[what] = res.Msg.GetId()
				l.mu.Unlock()
				break
			}
		}
	}
}

// note counts an error. Clean is one that says: try again.
func (l *load) note(ctx context.Context, what string, err error) {
	if err == nil || ctx.Err() != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	kind := fault.KindOf(err)
	l.errors[what+" "+kind.String()]++
	clean := []fault.Kind{fault.Unavailable, fault.DeadlineExceeded, fault.Aborted, fault.ResourceExhausted}
	if !slices.Contains(clean, kind) {
		l.bad = append(l.bad, fmt.Errorf("%s: %w", what, err))
	}
}

func (l *load) progress() (reads, writes int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reads, len(l.acked)
}

// healed returns when reads and writes are answered again, and reports what the gap looked like from outside.
func (l *load) healed(t *testing.T, after string) {
	t.Helper()
	reads, writes := l.progress()
	const some = 5
	within(t, backWithin, func() error {
		r, w := l.progress()
		if r < reads+some || w < writes+some {
			return errors.New("reads and writes are not answered again")
		}
		return nil
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.errors) > 0 {
		t.Logf("%s: callers saw %v", after, l.errors)
	}
	if len(l.bad) > 0 {
		t.Errorf("%s: %d errors were no clean ones, as: %v", after, len(l.bad), l.bad[0])
	}
	clear(l.errors)
	l.bad = nil
}

// stop ends the load and looks that everything acknowledged is there, once, under the id it was acknowledged with.
func (l *load) stop(t *testing.T) {
	t.Helper()
	l.cancel()
	l.done.Wait()
	there := map[string][]string{}
	c := client(l.owner, l.workspace, integrationsv1connect.NewIntegrationServiceClient)
	for token := ""; ; {
		page := ask(t, c.ListIntegrations, &integrationsv1.ListIntegrationsRequest{PageSize: 500, PageToken: token})
		for _, i := range page.GetIntegrations() {
			there[i.GetName()] = append(there[i.GetName()], i.GetId())
		}
		if token = page.GetNextPageToken(); token == "" {
			break
		}
	}
	t.Logf("%d reads and %d writes were answered, %d integrations are there", l.reads, len(l.acked), len(there))
	for what, id := range l.acked {
		if len(there[what]) != 1 || there[what][0] != id {
			t.Errorf("%s was acknowledged as %s, and there is %v", what, id, there[what])
		}
	}
	// Of what nobody acknowledged, at most the last write of each writer may have been made.
	if extra := len(there) - len(l.acked); extra > 2 {
		t.Errorf("%d writes were made that nobody was told of", extra)
	}
}
