package systemtest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	"a3os.app/libs/fault"
	auditv1 "a3os.app/proto/gen/go/a3os/audit/v1"
	"a3os.app/proto/gen/go/a3os/audit/v1/auditv1connect"
	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	"a3os.app/proto/gen/go/a3os/discovery/v1/discoveryv1connect"
	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"
	"a3os.app/proto/gen/go/a3os/iam/v1/iamv1connect"
	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"
	"a3os.app/proto/gen/go/a3os/integrations/v1/integrationsv1connect"
)

// reads is a read of each service that callers reach, in a workspace.
func (w *person) reads(workspace string) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"iam": func(ctx context.Context) error {
			_, err := client(w, workspace, iamv1connect.NewIdentityServiceClient).GetSelf(ctx, connect.NewRequest(&iamv1.GetSelfRequest{}))
			return err
		},
		"integrations": func(ctx context.Context) error {
			_, err := client(w, workspace, integrationsv1connect.NewIntegrationServiceClient).
				ListIntegrations(ctx, connect.NewRequest(&integrationsv1.ListIntegrationsRequest{PageSize: 10}))
			return err
		},
		"discovery": func(ctx context.Context) error {
			_, err := client(w, workspace, discoveryv1connect.NewRunServiceClient).ListRuns(ctx, connect.NewRequest(&discoveryv1.ListRunsRequest{PageSize: 10}))
			return err
		},
		"audit": func(ctx context.Context) error {
			_, err := client(w, "", auditv1connect.NewLogServiceClient).GetCheckpoint(ctx, connect.NewRequest(&auditv1.GetCheckpointRequest{}))
			return err
		},
	}
}

// Row F20, for each service of a set: told to end while it is asked by many, it lets everyone finish, and who comes meanwhile is
// served by the next.
func TestServiceToldToEndDropsNoRequest(t *testing.T) {
	full(t)
	admin := acme().admin(t)
	w := acme().workspace(t, admin).GetId()
	var asked atomic.Int64
	for component, read := range admin.reads(w) {
		ctx, stop := context.WithCancel(t.Context())
		var callers sync.WaitGroup
		var mu sync.Mutex
		var failed []error
		const many = 4
		for range many {
			callers.Go(func() {
				for ctx.Err() == nil {
					err := read(t.Context())
					asked.Add(1)
					if err != nil {
						mu.Lock()
						failed = append(failed, err)
						mu.Unlock()
					}
				}
			})
		}
		target := acme().id + "/" + component
		before := shared.pids(t)[target]
		if err := syscall.Kill(before, syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		shared.serves(t, target, before)
		from := asked.Load()
		within(t, backWithin, func() error {
			if asked.Load() < from+10*many {
				return errors.New("callers are not answered any more")
			}
			return nil
		})
		stop()
		callers.Wait()
		if len(failed) > 0 {
			t.Errorf("%s was told to end, and %d calls failed, as: %v", component, len(failed), failed[0])
		}
	}
	t.Attr("row", fmt.Sprint("F20 ", asked.Load()))
}

// serves waits until another process than before serves.
func (p *plane) serves(t *testing.T, target string, before int) process {
	t.Helper()
	var now process
	within(t, backWithin, func() error {
		var err error
		if now, err = p.process(t.Context(), target); err != nil {
			return err
		}
		if now.PID == 0 || now.PID == before || now.State != "serving" {
			return fmt.Errorf("%s is %s, %s", target, now.State, now.LastExit)
		}
		return nil
	})
	return now
}

// held keeps a table from everybody until release.
func (x *tenant) held(t *testing.T, table string) (release func()) {
	t.Helper()
	conn := x.plane.superuser(t, "postgres", x.id)
	for _, sql := range []string{"BEGIN", "LOCK TABLE " + table + " IN ACCESS EXCLUSIVE MODE"} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	release = sync.OnceFunc(func() {
		if _, err := conn.Exec(background(t), "ROLLBACK"); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(release)
	return release
}

// waiting is how many of a tenant's statements of that name wait for a table. Others wait for it too: a service looks by itself what is due.
func (x *tenant) waiting(t *testing.T, table, statement string) int {
	t.Helper()
	conn := x.plane.superuser(t, "postgres", x.id)
	var n int
	err := conn.QueryRow(t.Context(), `SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)
		WHERE NOT granted AND relation = $1::text::regclass AND query LIKE '-- name: ' || $2::text || ' %'`, table, statement).Scan(&n)
	if err = errors.Join(err, conn.Close(t.Context())); err != nil {
		t.Fatal(err)
	}
	return n
}

// tables is one that the read of each service needs.
var tables = map[string]string{"integrations": "integrations.integrations", "discovery": "discovery.runs", "iam": "iam.users"}

// asks is the statement of each of these reads that needs the table.
var asks = map[string]string{"integrations": "ListIntegrations", "discovery": "ListRuns", "iam": "GetUser"}

// Row F22, through the gateway: the statement of a caller who gave up is not running any more. The role's own limits, of 10 s and
// more, are not what ended it.
func TestDatabaseStopsWhenTheCallerGivesUp(t *testing.T) {
	full(t)
	admin := acme().admin(t)
	w := acme().workspace(t, admin).GetId()
	reads := admin.reads(w)
	n := 0
	for component, table := range tables {
		t.Run(component, func(t *testing.T) {
			if err := reads[component](t.Context()); err != nil {
				t.Fatal(err)
			}
			release := acme().held(t, table)
			ctx, giveUp := context.WithCancel(t.Context())
			defer giveUp()
			gone := make(chan error, 1)
			go func() { gone <- reads[component](ctx) }()
			within(t, 5*time.Second, func() error {
				if acme().waiting(t, table, asks[component]) == 0 {
					return fmt.Errorf("no %s waits for the table", asks[component])
				}
				return nil
			})
			giveUp()
			took := within(t, 5*time.Second, func() error {
				if k := acme().waiting(t, table, asks[component]); k > 0 {
					return fmt.Errorf("%d of %s still wait for the table", k, asks[component])
				}
				return nil
			})
			if err := <-gone; fault.KindOf(err) != fault.Canceled {
				t.Errorf("the caller who gave up learnt %v", err)
			}
			t.Logf("it had stopped after %s", took.Round(time.Millisecond))
			release()
			n++
		})
	}
	t.Attr("row", fmt.Sprint("F22 ", n))
}

// Row F15, through the gateway: where all connections to the database are taken, callers are told so soon and don't pile up, and once
// there are connections again everybody is served.
func TestExhaustedServiceShedsLoad(t *testing.T) {
	full(t)
	admin := acme().admin(t)
	w := acme().workspace(t, admin).GetId()
	read := admin.reads(w)["integrations"]
	if err := read(t.Context()); err != nil {
		t.Fatal(err)
	}
	release := acme().held(t, tables["integrations"])
	const callers, shedWithin = 40, 8 * time.Second
	answers := make(chan error, callers)
	for range callers {
		go func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			answers <- read(ctx)
		}()
	}
	// All but the few that hold a connection.
	const holders = 8
	begun, shed := time.Now(), 0
	for range callers - holders {
		select {
		case err := <-answers:
			if fault.KindOf(err) != fault.ResourceExhausted {
				t.Errorf("a caller learnt %v", err)
			}
			shed++
		case <-time.After(time.Until(begun.Add(shedWithin))):
			t.Fatalf("%s after %d calls came, %d of them were shed", shedWithin, callers, shed)
		}
	}
	release()
	for range holders {
		if err := <-answers; err != nil && fault.KindOf(err) != fault.ResourceExhausted {
			t.Errorf("once there were connections a caller learnt %v", err)
		}
	}
	for range callers {
		if err := read(t.Context()); err != nil {
			t.Fatalf("afterwards: %v", err)
		}
	}
	t.Attr("row", fmt.Sprint("F15 ", shed))
}

// Row F9: PostgreSQL is shut down at once, killed, and told to end, while people write. Each time it is back by itself, and what is
// connected to it heals in place.
func TestDatabaseRestartsUnderLoad(t *testing.T) {
	full(t)
	owner := acme().invite(t)
	l := newLoad(t, owner, acme().workspace(t, owner).GetId())
	l.healed(t, "the load began")
	const target = "plane/postgres"
	signals := []syscall.Signal{syscall.SIGQUIT, syscall.SIGKILL, syscall.SIGINT}
	for _, signal := range signals {
		before := shared.pids(t)
		if err := syscall.Kill(before[target], signal); err != nil {
			t.Fatal(err)
		}
		shared.serves(t, target, before[target])
		l.healed(t, fmt.Sprintf("PostgreSQL was sent %s", signal))
		for name, pid := range shared.pids(t) {
			if name != target && pid != before[name] {
				t.Errorf("when PostgreSQL was sent %s, %s ended as well", signal, name)
			}
		}
	}
	l.stop(t)
	if s := shared.tryA3(t, "acme-admin", "audit", "verify"); s.code != 0 {
		t.Errorf("audit verify: %s", s)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	t.Attr("row", fmt.Sprint("F9 ", len(l.acked)))
}
