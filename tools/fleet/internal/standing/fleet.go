package standing

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/fault"
	"a3os.app/tools/fleet/internal/asked"
	"a3os.app/tools/fleet/internal/pages"
	"a3os.app/tools/fleet/internal/platform"
)

// Where it is said what to do about what all tenants need.
const (
	RegistryAway = asked.Runbook
	GatewayAway  = "docs/operations.md#the-gateway-is-away"
)

// Window is what the page looks back on.
const Window = 5 * time.Minute

// Fleet is the page that an operator keeps open.
type Fleet struct {
	// Plane, platform, and where it works.
	Plane    string `json:"plane"`
	Platform string `json:"platform"`
	Account  string `json:"account"`
	Region   string `json:"region"`
	// At is when it was made, by the registry's clock, as all ages are.
	At time.Time `json:"at"`
	// Blind says what could not be asked, a sentence each: what it would have told is unknown.
	Blind []string `json:"blind"`
	// Beyond says what this platform has no way to tell, however often it is asked, a sentence each.
	Beyond []string `json:"beyond"`
	// LastBackup is when the newest good one of the plane's own registry was made; zero where none is known.
	LastBackup time.Time `json:"last_backup,omitzero"`
	// Findings are about the plane itself, the worst first.
	Findings []Finding `json:"findings"`
	// Strays are findings about what is no tenant's.
	Strays []Finding `json:"strays"`
	// Tenants, those in trouble first.
	Tenants []Tenant `json:"tenants"`
}

// Platform is what is asked of one; platform.Census besides, where it can.
type Platform interface {
	Name() string
	Where(ctx context.Context) (platform.Where, error)
}

// Away is a registry that could not be asked: the page has what can be seen without it.
type Away struct{ error }

// Unwrap is what became of the question.
func (a Away) Unwrap() error { return a.error }

// Unknown is the state of a tenant on a page that the registry had no part in.
const Unknown = "unknown"

// answerWithin is how long a call of the registry may take: whoever looks at the page because it hangs doesn't wait for it.
const answerWithin = 10 * time.Second

// bounded has each call of a connection end in time.
type bounded struct{ grpc.ClientConnInterface }

func (b bounded) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	return b.ClientConnInterface.Invoke(ctx, method, args, reply, opts...)
}

// Known is a tenant that the plane's own machine remembers.
type Known struct{ ID, Slug string }

// Source is who is asked.
type Source struct {
	// Plane is its name.
	Plane string
	// Registry, connected as an operator.
	Registry grpc.ClientConnInterface
	// Platform keeps the sets.
	Platform Platform
	// Own is the name of the plane's own set.
	Own string
	// Known are the tenants to tell of where the registry can't be asked.
	Known []Known
	// BackupEvery is how often each set is backed up by itself; zero for never.
	BackupEvery time.Duration
	// Kept looks whether a backup of a set, `plane` or a tenant's id, is there to be restored; nil where that can't be seen from here.
	Kept func(set, name string) error
	// Here is what the platform's machine knows of a set, `plane` or a tenant's id.
	Here func(set string) Here
	// Door asks whether anybody answers where people reach the plane; nil where that can't be seen from here.
	Door func(ctx context.Context) error
	// Machinery looks at the plane's own processes, and says what is wrong with them; nil where that can't be seen from here.
	Machinery func(ctx context.Context) ([]Finding, error)
	// MadeBy is the blueprint that sets of a release are made by. Inspect has a platform that can look for what was changed by hand do so.
	MadeBy  func(ctx context.Context, release string) (*blueprint.Blueprint, error)
	Inspect bool
}

// Ask makes the page. Where the registry can't be asked it fails with Away, and the page has what can be seen without it; a platform that can't be is
// told on the page.
func Ask(ctx context.Context, s Source) (Fleet, error) {
	f := Fleet{Plane: s.Plane, Platform: s.Platform.Name(), At: time.Now().UTC(), Blind: []string{}, Beyond: []string{}, Findings: []Finding{}, Strays: []Finding{}, Tenants: []Tenant{}}
	if where, err := s.Platform.Where(ctx); err == nil {
		f.Account, f.Region = where.Account, where.Region
	}
	s.Registry = bounded{s.Registry}
	statuses, err := tenants(ctx, s.Registry)
	var away error
	switch kind := fault.KindOf(fault.FromRPC(err)); {
	case err == nil:
	case ctx.Err() == nil && (kind == fault.Unavailable || kind == fault.DeadlineExceeded):
		away = Away{fault.FromRPC(err)}
		f.Blind = append(f.Blind, "the registry could not be asked: of tenants there is only what this machine knows")
		f.Findings = append(f.Findings, Finding{Kind: "registry_away", Severity: Critical, Reason: sentence(away), Next: RegistryAway})
	default:
		return f, err
	}
	if len(statuses) > 0 && statuses[0].GetAsOf().IsValid() {
		here := f.At
		f.At = statuses[0].GetAsOf().AsTime()
		f.Findings = append(f.Findings, clocks(here, f.At)...)
	}
	var figures map[string]*registryv1.TenantFigures
	var operations map[string]*registryv1.Operation
	var saved map[string]Backups
	var census map[string][]platform.ComponentStatus
	blind := func(what string, err error) {
		if err != nil {
			f.Blind = append(f.Blind, what+": "+fault.FromRPC(err).Error())
		}
	}
	saves := false
	if away == nil {
		figures, err = figuresOf(ctx, s.Registry, statuses, f.At)
		blind("the figures could not be read", err)
		operations, err = unfinished(ctx, s.Registry)
		blind("the operations could not be read", err)
		saved, err = newestBackups(ctx, s.Registry)
		blind("the backups could not be read", err)
		saves = err == nil
	}
	if saves {
		gone(saved, s)
		f.LastBackup = saved[""].Good
		f.Findings = append(f.Findings, backups(saved[""], firstMade(statuses, f.At), f.At, s.BackupEvery, s.Own)...)
	}
	f.Findings = append(f.Findings, keys(s.Here, s.Own)...)
	if s.Door != nil {
		if err := s.Door(ctx); err != nil {
			f.Findings = append(f.Findings, Finding{Kind: "door_shut", Severity: Critical, Reason: "nobody reaches any tenant: " + err.Error(), Next: GatewayAway})
		}
	}
	if s.Machinery != nil {
		found, err := s.Machinery(ctx)
		blind("the plane's processes could not be asked", err)
		f.Findings = append(f.Findings, found...)
	}
	known := false
	if c, ok := s.Platform.(platform.Census); ok {
		census, err = c.Census(ctx)
		known = err == nil
		blind("the platform could not be asked what runs", err)
	} else {
		f.Beyond = append(f.Beyond, fmt.Sprintf("platform %s can't be asked what runs: it can't count what it has", s.Platform.Name()))
	}
	if d, ok := s.Platform.(platform.Disks); ok {
		all, err := d.Disks()
		blind("the disks could not be asked", err)
		f.Findings = append(f.Findings, disks(all)...)
	}
	if g, ok := s.Platform.(platform.Guarded); ok {
		opened, err := g.Opened()
		blind("it could not be read whether walls were open", err)
		f.Findings = append(f.Findings, walls(opened, f.At)...)
	}
	if inspector, is := s.Platform.(platform.PlaneInspector); s.Inspect && is && away == nil {
		const what = "it could not be looked at what stands beside the plane's sets"
		sets, err := s.sets(ctx, statuses, operations)
		blind(what, err)
		found, err := inspector.InspectPlane(ctx, sets)
		blind(what, err)
		for _, d := range found {
			f.Findings = append(f.Findings, Finding{Kind: "changed_by_hand", Severity: Critical, Reason: d.Reason, Next: d.Next})
		}
	}
	var changed map[string][]platform.Difference
	if inspector, is := s.Platform.(platform.Inspector); s.Inspect && is {
		var failed []string
		changed, failed = inspect(ctx, s, inspector, statuses)
		f.Blind = append(f.Blind, failed...)
	} else if s.Inspect {
		f.Beyond = append(f.Beyond, fmt.Sprintf("platform %s was not looked at for what was changed by hand: it has nothing but what runs", s.Platform.Name()))
	}
	for _, status := range statuses {
		id := status.GetTenant().GetId()
		seen := Seen{Status: status, Figures: figures[id], Platform: census[id], PlatformKnown: known, Changed: changed[id], Operation: operations[id],
			Backups: saved[id], BackupsKnown: saves, BackupEvery: s.BackupEvery, Now: f.At}
		if s.Here != nil {
			seen.Here = s.Here(id)
		}
		delete(census, id)
		if status.GetTenant().GetState() == registryv1.TenantState_TENANT_STATE_OFFBOARDED && len(seen.Platform) == 0 && seen.Operation == nil {
			continue // it is gone, as it should be
		}
		f.Tenants = append(f.Tenants, Of(seen))
	}
	if away != nil {
		for _, t := range s.Known {
			f.Tenants = append(f.Tenants, without(t, census[t.ID], keys(s.Here, t.ID), f.At))
			delete(census, t.ID)
		}
		census = nil // what is a stray only the registry knows
	}
	delete(census, s.Own)
	for _, name := range sorted(census) {
		f.Strays = append(f.Strays, Finding{Kind: "stray_set", Severity: Critical, Drift: true,
			Reason: fmt.Sprintf("the platform runs %d components of %s, which the registry doesn't know", len(census[name]), name), Next: "docs/operations.md#a-set-that-nobody-knows"})
	}
	Sort(f.Tenants)
	slices.SortStableFunc(f.Findings, func(a, b Finding) int { return cmp.Compare(b.Severity, a.Severity) })
	return f, away
}

// without is how a tenant stands by what its platform and this machine alone say.
func without(t Known, census []platform.ComponentStatus, here []Finding, now time.Time) Tenant {
	out := Tenant{ID: t.ID, Slug: t.Slug, State: Unknown, Components: len(census), ReportAge: -1, Findings: []Finding{}}
	for _, c := range census {
		if c.State == platform.Serving {
			out.Serving++
		}
		if c.Release != "" && !slices.Contains(out.Running, c.Release) {
			out.Running = append(out.Running, c.Release)
		}
		if c.State == platform.Failing {
			out.Findings = append(out.Findings, Finding{Kind: "failing", Severity: Critical, Component: c.Name, Reason: fmt.Sprintf("%s keeps ending: %s", c.Name, c.Detail),
				Next: "docs/operations.md#a-component-keeps-restarting"})
		}
	}
	out.Findings = append(out.Findings, slices.Concat(hung(Seen{Platform: census, Now: now}, "fleet plane status"), here)...)
	if len(out.Findings) > 0 {
		out.Severity = Critical
	}
	return out
}

// sentence is what people read of an error, without what is for logs.
func sentence(err error) string {
	if e, ok := errors.AsType[*fault.Error](err); ok && e.Message != "" {
		return e.Message
	}
	return err.Error()
}

// firstMade is when the first tenant was made: the registry has something to lose since then.
func firstMade(all []*registryv1.TenantStatus, now time.Time) time.Time {
	first := now
	for _, t := range all {
		if at := t.GetTenant().GetCreatedAt(); at.IsValid() && at.AsTime().Before(first) {
			first = at.AsTime()
		}
	}
	return first
}

// newestBackups are, of each tenant and, without a name, of the plane's own registry, the newest backup that could be restored and the newest
// attempt.
func newestBackups(ctx context.Context, conn grpc.ClientConnInterface) (map[string]Backups, error) {
	client, out := registryv1.NewBackupServiceClient(conn), map[string]Backups{}
	for b, err := range pages.Each(ctx, client.ListBackups, &registryv1.ListBackupsRequest{}, (*registryv1.ListBackupsResponse).GetBackups) {
		if err != nil {
			return nil, err
		}
		known, at := out[b.GetTenantId()], b.GetTakenAt().AsTime()
		if b.GetVerifiedAt().IsValid() && at.After(known.Good) {
			known.Good, known.Name = at, b.GetName()
		}
		if at.After(known.Tried) {
			known.Tried, known.Failure = at, b.GetFailure()
		}
		out[b.GetTenantId()] = known
	}
	return out, nil
}

// gone looks for the newest good backup of each set where backups are kept: what the registry was told once says nothing of a disk since.
func gone(all map[string]Backups, s Source) {
	if s.Kept == nil {
		return
	}
	for tenant, b := range all {
		if b.Good.IsZero() {
			continue
		}
		if err := s.Kept(cmp.Or(tenant, s.Own), b.Name); err != nil {
			b.Gone = err.Error()
			all[tenant] = b
		}
	}
}

func tenants(ctx context.Context, conn grpc.ClientConnInterface) ([]*registryv1.TenantStatus, error) {
	const most = 500
	return pages.All(ctx, registryv1.NewTenantServiceClient(conn).ListTenants, &registryv1.ListTenantsRequest{PageSize: most}, (*registryv1.ListTenantsResponse).GetTenants)
}

func figuresOf(ctx context.Context, conn grpc.ClientConnInterface, all []*registryv1.TenantStatus, now time.Time) (map[string]*registryv1.TenantFigures, error) {
	const most = 500
	client, out := registryv1.NewFigureServiceClient(conn), map[string]*registryv1.TenantFigures{}
	var ids []string
	for _, s := range all {
		if s.GetTenant().GetState() == registryv1.TenantState_TENANT_STATE_ACTIVE {
			ids = append(ids, s.GetTenant().GetId())
		}
	}
	for some := range slices.Chunk(ids, most) {
		res, err := client.BatchGetFigures(ctx, &registryv1.BatchGetFiguresRequest{TenantIds: some, From: timestamppb.New(now.Add(-Window))})
		if err != nil {
			return nil, err
		}
		for _, f := range res.GetFigures() {
			out[f.GetTenantId()] = f
		}
	}
	return out, nil
}

// unfinished are the operations that are not finished, by tenant: there is one at most of each.
func unfinished(ctx context.Context, conn grpc.ClientConnInterface) (map[string]*registryv1.Operation, error) {
	const most = 500
	client, out := registryv1.NewOperationServiceClient(conn), map[string]*registryv1.Operation{}
	req := &registryv1.ListOperationsRequest{PageSize: most, Unfinished: true}
	for o, err := range pages.Each(ctx, client.ListOperations, req, (*registryv1.ListOperationsResponse).GetOperations) {
		if err != nil {
			return nil, err
		}
		out[o.GetTenantId()] = o
	}
	return out, nil
}
