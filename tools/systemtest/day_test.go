package systemtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"
	"a3os.app/proto/gen/go/a3os/integrations/v1/integrationsv1connect"
	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"
)

// day is a plane whose clock is moved, and who works there.
type day struct {
	*plane
	t     *testing.T
	clock *clock
	// people work in one workspace each, each of a tenant.
	people map[*person]string

	asked  atomic.Int64
	mu     sync.Mutex
	failed map[string]int
}

// Row F16: the control plane is away for a day. The registry is stopped as it is, and the clock of every service, the gateway and the
// database server goes on by an hour, 24 times; in each hour, people of two tenants work at all services, with tokens of that hour.
// Gateway and services are told to end and start again meanwhile, one in each hour, and systems are discovered. No request fails. At
// last the registry, back on the next day, hears of every set.
func TestStoryOfADayWithoutTheControlPlane(t *testing.T) {
	long(t)
	t.Parallel()
	dir := walkable(t)
	clock := newClock(t, dir)
	p := planeIn(t, dir, "A3_TENANTS=acme,globex", "A3_UNIX_TENANTS=none", "A3_PG_BIN="+clock.postgres())
	p.programs = clock.programs()
	if err := p.up(t.Context()); err != nil {
		t.Fatal(err)
	}
	d := &day{plane: p, t: t, clock: clock, people: map[*person]string{}, failed: map[string]int{}}
	for _, x := range p.tenants {
		admin := x.admin(t)
		d.people[admin] = x.workspace(t, admin).GetId()
		user := x.invite(t)
		d.people[user] = x.workspace(t, user).GetId()
	}
	system := d.system("acme")

	back := p.pause(t, "plane/registry")
	targets := d.services()
	const hours = 24
	for hour := 1; hour <= hours; hour++ {
		d.settled()
		token := p.tenants["acme"].admin(t).token(t, "")
		clock.set(time.Duration(hour) * time.Hour)
		d.tellTheTime(hour)
		if got := p.selfAnswers(t, "acme", token); got != http.StatusUnauthorized {
			t.Errorf("in hour %d a token of the hour before is answered %d: the clock does not count", hour, got)
		}
		d.work(targets[hour%len(targets)])
		if hour%12 == 0 {
			system()
		}
	}
	for what, n := range d.failed {
		t.Errorf("without the control plane failed, of %d requests, %d: %s", d.asked.Load(), n, what)
	}
	back()
	tenants := registryv1.NewTenantServiceClient(p.operator(t))
	for slug, x := range p.tenants {
		within(t, 2*time.Minute, func() error {
			res, err := tenants.GetTenant(t.Context(), &registryv1.GetTenantRequest{Tenant: x.id})
			if err != nil {
				return err
			}
			if heard := res.GetStatus().GetReportedAt().AsTime(); heard.Before(time.Now().Add((hours - 1) * time.Hour)) {
				return fmt.Errorf("the registry heard of %s last at %s", slug, heard)
			}
			return nil
		})
	}
	t.Attr("row", fmt.Sprintf("F16 %d", d.asked.Load()))
}

// services are the gateway and all of the tenants' services, in an order.
func (d *day) services() []string {
	out := []string{"plane/gateway"}
	for _, x := range d.tenants {
		for component := range x.addresses {
			out = append(out, x.id+"/"+component)
		}
	}
	slices.Sort(out)
	return out
}

// system is a system of the sample company's that a tenant discovers, each time it is called.
func (d *day) system(slug string) func() {
	d.t.Helper()
	x := d.tenants[slug]
	admin := x.admin(d.t)
	w := d.people[admin]
	i := x.northwind(d.t, admin, w, name("northwind"), x.reader(d.t))
	return func() {
		d.t.Helper()
		admin.discover(d.t, w, i.GetId())
	}
}

// settled returns when nothing is under way that a clock which is moved would make late: no event waits to be sealed.
func (d *day) settled() {
	d.t.Helper()
	for _, x := range d.tenants {
		conn := d.superuser(d.t, "postgres", x.id)
		within(d.t, backWithin, func() error {
			var n int
			if err := conn.QueryRow(d.t.Context(), "SELECT count(*) FROM audit.inbox").Scan(&n); err != nil || n > 0 {
				return errors.Join(err, fmt.Errorf("%d events of %s wait to be sealed", n, x.slug))
			}
			return nil
		})
	}
}

// tellTheTime returns when every process tells the time of an hour of the day, and the database server does.
func (d *day) tellTheTime(hour int) {
	d.t.Helper()
	ahead := time.Duration(hour) * time.Hour
	right := func(who string, told time.Time) error {
		const slack = time.Minute
		if off := told.Sub(time.Now().Add(ahead)).Abs(); off > slack {
			return fmt.Errorf("%s tells %s in hour %d, which is off by %s", who, told, hour, off)
		}
		return nil
	}
	for _, process := range d.services() {
		within(d.t, backWithin, func() error {
			told, err := d.told(d.t, process)
			if err == nil {
				err = right(process, told)
			}
			return err
		})
	}
	var told time.Time
	if err := d.superuser(d.t, "postgres", "postgres").QueryRow(d.t.Context(), "SELECT now()").Scan(&told); err != nil {
		d.t.Fatal(err)
	}
	if err := right("the database server", told); err != nil {
		d.t.Error(err)
	}
}

// work has everybody work while a process is restarted, and a little longer.
func (d *day) work(target string) {
	d.t.Helper()
	ctx, cancel := context.WithCancel(d.t.Context())
	defer cancel()
	var all sync.WaitGroup
	var rounds atomic.Int64
	for w, workspace := range d.people {
		// Tokens of the hour before have ended; whoever's clock goes on as the services' does knows it, and takes another.
		if _, err := w.anew(d.t, workspace); err != nil {
			d.note("a token", err)
		}
		all.Go(func() {
			tick := time.NewTicker(pace)
			defer tick.Stop()
			for ctx.Err() == nil {
				d.round(w, workspace)
				rounds.Add(1)
				<-tick.C
			}
		})
	}
	before := d.pids(d.t)[target]
	if err := syscall.Kill(before, syscall.SIGTERM); err != nil {
		d.t.Fatal(err)
	}
	d.serves(d.t, target, before)
	some := rounds.Load() + int64(3*len(d.people))
	within(d.t, backWithin, func() error {
		if n := rounds.Load(); n < some {
			return fmt.Errorf("%d rounds of %d", n, some)
		}
		return nil
	})
	cancel()
	all.Wait()
}

// round is a call of each service, and a write. Nothing is tried again but, as every client does, a call whose token had ended.
func (d *day) round(w *person, workspace string) {
	calls := w.reads(workspace)
	calls["write"] = func(ctx context.Context) error {
		req := connect.NewRequest(&integrationsv1.CreateIntegrationRequest{Name: name("daily"), Settings: csvSettings()})
		req.Header().Set("Idempotency-Key", name("key"))
		_, err := client(w, workspace, integrationsv1connect.NewIntegrationWriteServiceClient).CreateIntegration(ctx, req)
		return err
	}
	for _, what := range slices.Sorted(maps.Keys(calls)) {
		if what == "audit" && !strings.HasSuffix(w.profile, "-admin") {
			continue // the log is its tenant's admins' alone
		}
		ctx, cancel := context.WithTimeout(d.t.Context(), time.Minute)
		err := calls[what](ctx)
		cancel()
		d.asked.Add(1)
		if err != nil {
			d.note(what, err)
		}
	}
}

func (d *day) note(what string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failed[what+": "+err.Error()]++
}
