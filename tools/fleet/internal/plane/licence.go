package plane

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/licence"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/supervise"
)

// LicenceTerms are what a licence is issued for.
type LicenceTerms struct {
	// Plan is its name, for people.
	Plan string
	// Features that may be used, all there are when empty; Connectors are kinds of systems, `*` for every one.
	Features, Connectors []string
	// Seats are the people who may be in.
	Seats int64
	// From and Until bound it; GraceDays follow.
	From, Until time.Time
	GraceDays   int32
	// ReportsUsage has the set report how much it uses.
	ReportsUsage bool
}

const (
	// developmentPlan is what a plane `dev` gives each of its tenants by itself.
	developmentPlan = "development"
	// developmentYears is how long that holds, and renewBefore when `up` issues the next one.
	developmentYears = 1
	renewBefore      = 60 * 24 * time.Hour
)

// Bounds of what a licence says, as the registry's Licence has them, and LongestYears how many it may hold for: who means longer issues another one.
const (
	LongestYears = 10
	mostSeats    = 1_000_000
	mostGrace    = 365
)

var planForm = regexp.MustCompile(`^[a-z][a-z0-9-]{0,38}$`)

// check refuses what can't be meant, with what there is, by the names of the flags: a licence takes the place of the one before whatever it says, and
// what a name that is no feature's leaves out can't be used from then on. What features another product has is not known here.
func (t LicenceTerms) check(another bool) error {
	if !planForm.MatchString(t.Plan) {
		return fault.New(fault.InvalidArgument, "--plan is %q: it is a name of lower-case letters, digits and hyphens, a letter first, at most 39 characters", t.Plan)
	}
	for _, f := range t.Features {
		if all := licence.Features(); !another && !slices.Contains(all, f) {
			return fault.New(fault.InvalidArgument, "--feature %q is none of this product, which has %s", f, strings.Join(all, ", "))
		}
	}
	for _, c := range t.Connectors {
		if all := licence.Connectors(); !another && c != "*" && !slices.Contains(all, c) {
			return fault.New(fault.InvalidArgument, "--connector %q is no kind of system that can be connected: these are %s, or * for every one", c, strings.Join(all, ", "))
		}
	}
	switch {
	case t.Seats < 1 || t.Seats > mostSeats:
		return fault.New(fault.InvalidArgument, "--seats is %d: it is from 1 to %d", t.Seats, mostSeats)
	case t.GraceDays < 0 || t.GraceDays > mostGrace:
		return fault.New(fault.InvalidArgument, "--grace-days is %d: it is from 0 to %d", t.GraceDays, mostGrace)
	case !t.Until.After(t.From):
		return fault.New(fault.InvalidArgument, "a licence from %s until %s ends before it begins: see --from, --until and --days", t.From.Format(time.RFC3339), t.Until.Format(time.RFC3339))
	case t.Until.After(t.From.AddDate(LongestYears, 0, 0)):
		return fault.New(fault.InvalidArgument, "a licence from %s until %s holds for more than %d years: issue it for fewer, and another one before it ends", t.From.Format(time.DateOnly), t.Until.Format(time.DateOnly), LongestYears)
	}
	return nil
}

func development(now time.Time) LicenceTerms {
	const seats, grace = 10_000, 30
	return LicenceTerms{Plan: developmentPlan, Connectors: []string{"*"}, Seats: seats, From: now.Add(-time.Hour), Until: now.AddDate(developmentYears, 0, 0), GraceDays: grace, ReportsUsage: true}
}

// LicenceKeys are the public keys that licences of this plane are verified with, joined by commas.
func (p *Plane) LicenceKeys() (string, error) {
	if err := p.openExisting(); err != nil {
		return "", err
	}
	return p.platform.LicenceKeys()
}

// IssueLicence signs a licence with the plane's own key and hands it to the tenant's set.
func (p *Plane) IssueLicence(ctx context.Context, tenant string, terms LicenceTerms, reason string) (*registryv1.IssuedLicence, error) {
	if p.away() {
		return nil, p.whyNot(supervise.ErrNotRunning) // the key is there
	}
	return p.withRegistry(ctx, func(conn *grpc.ClientConn) (*registryv1.IssuedLicence, error) {
		if err := terms.check(p.another()); err != nil {
			return nil, err
		}
		res, err := registryv1.NewTenantServiceClient(conn).GetTenant(ctx, &registryv1.GetTenantRequest{Tenant: tenant})
		if err != nil {
			return nil, fault.FromRPC(err)
		}
		who, err := id.ParseTenant(res.GetStatus().GetTenant().GetId())
		if err != nil {
			return nil, err
		}
		known, err := licencesOf(ctx, conn, who)
		if err != nil {
			return nil, err
		}
		return p.issue(ctx, conn, who, known, terms, reason)
	})
}

// InstallLicence hands a licence that was signed elsewhere to its tenant's set.
func (p *Plane) InstallLicence(ctx context.Context, file []byte, reason string) (*registryv1.IssuedLicence, error) {
	return p.withRegistry(ctx, func(conn *grpc.ClientConn) (*registryv1.IssuedLicence, error) {
		return p.putLicence(ctx, conn, file, reason)
	})
}

// Licences are a tenant's, the newest first, and what its set says of the one it holds.
func (p *Plane) Licences(ctx context.Context, tenant string) (*registryv1.ListLicencesResponse, error) {
	var out *registryv1.ListLicencesResponse
	_, err := p.withRegistry(ctx, func(conn *grpc.ClientConn) (*registryv1.IssuedLicence, error) {
		var err error
		out, err = registryv1.NewLicenceServiceClient(conn).ListLicences(ctx, &registryv1.ListLicencesRequest{Tenant: tenant})
		return nil, err
	})
	return out, err
}

func (p *Plane) withRegistry(ctx context.Context, do func(*grpc.ClientConn) (*registryv1.IssuedLicence, error)) (*registryv1.IssuedLicence, error) {
	conn, done, err := p.connected(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	out, err := do(conn)
	if err != nil {
		return nil, fault.FromRPC(err)
	}
	return out, nil
}

func licencesOf(ctx context.Context, conn *grpc.ClientConn, tenant id.Tenant) (*registryv1.ListLicencesResponse, error) {
	res, err := registryv1.NewLicenceServiceClient(conn).ListLicences(ctx, &registryv1.ListLicencesRequest{Tenant: tenant.String(), PageSize: 1})
	if err != nil {
		return nil, fault.FromRPC(err)
	}
	return res, nil
}

// serialBeyond is one greater than that of every licence that the registry knows, or the set: also of one that it has for later. A registry that was
// restored from a backup may know less than the set, which takes no other licence of a serial that it has.
func serialBeyond(known *registryv1.ListLicencesResponse) int64 {
	serial := max(known.GetReport().GetSerial(), known.GetReport().GetNextSerial())
	for _, l := range known.GetLicences() {
		serial = max(serial, l.GetLicence().GetSerial())
	}
	return serial + 1
}

// issue signs and puts.
func (p *Plane) issue(ctx context.Context, conn *grpc.ClientConn, tenant id.Tenant, known *registryv1.ListLicencesResponse, terms LicenceTerms, reason string) (*registryv1.IssuedLicence, error) {
	if len(terms.Features) == 0 {
		terms.Features = licence.Features()
	}
	reports := registryv1.UsageReports_USAGE_REPORTS_OFF
	if terms.ReportsUsage {
		reports = registryv1.UsageReports_USAGE_REPORTS_ON
	}
	signer, err := p.platform.LicenceSigner()
	if err != nil {
		return nil, err
	}
	file, err := signer.Sign(ctx, &registryv1.Licence{
		Id: id.NewLicence().String(), Plane: p.state.Plane, TenantId: tenant.String(), Serial: serialBeyond(known), Plan: terms.Plan,
		Features: terms.Features, Connectors: terms.Connectors, Seats: terms.Seats,
		ValidFrom: timestamppb.New(terms.From), ValidUntil: timestamppb.New(terms.Until), GraceDays: terms.GraceDays,
		IssuedAt: timestamppb.Now(), UsageReports: reports,
	})
	if errors.Is(err, licence.ErrTerms) {
		return nil, fault.New(fault.InvalidArgument, "%v", err)
	}
	if err != nil {
		return nil, err
	}
	return p.putLicence(ctx, conn, file, reason)
}

func (p *Plane) putLicence(ctx context.Context, conn *grpc.ClientConn, file []byte, reason string) (*registryv1.IssuedLicence, error) {
	res, err := registryv1.NewLicenceWriteServiceClient(conn).PutLicence(ctx, &registryv1.PutLicenceRequest{File: file, Reason: reason})
	if err != nil {
		return nil, fault.FromRPC(err)
	}
	// Where the set is this machine's, it finds the licence without the registry as well.
	for _, t := range p.state.Tenants() {
		if t.ID.String() != res.GetLicence().GetLicence().GetTenantId() {
			continue
		}
		if _, err := p.platform.PutLicence(ctx, p.setOf(t), file); err != nil {
			return nil, fmt.Errorf("licence %d of %s is issued, and its set takes it with its next report; do not issue it again. That it also finds it without the registry did not come out: %w: fleet plane up makes up for it",
				res.GetLicence().GetLicence().GetSerial(), t.Slug, err)
		}
	}
	return res.GetLicence(), nil
}

// licensed sees that a tenant of a plane `dev` has a licence, and that its set finds the newest one there is before it knows of any
// registry. A plane `prod` issues none by itself.
func (p *Plane) licensed(ctx context.Context, conn *grpc.ClientConn, set platform.Set) (changed bool, err error) {
	known, err := licencesOf(ctx, conn, set.Tenant)
	if err != nil {
		return false, err
	}
	var newest *registryv1.IssuedLicence
	if l := known.GetLicences(); len(l) > 0 {
		newest = l[0]
	}
	now := time.Now()
	ends := newest.GetLicence().GetValidUntil().AsTime().Add(-renewBefore)
	if p.state.Plane == "dev" && (newest == nil || newest.GetLicence().GetPlan() == developmentPlan && now.After(ends)) {
		if newest, err = p.issue(ctx, conn, set.Tenant, known, development(now), "a development plane licenses its own tenants"); err != nil {
			return false, fmt.Errorf("issue a development licence: %w", err)
		}
		changed = true
	}
	if newest == nil {
		return changed, nil
	}
	did, err := p.platform.PutLicence(ctx, set, newest.GetFile())
	return changed || did, err
}
