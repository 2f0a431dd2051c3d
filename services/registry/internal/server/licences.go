package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/licence"
	"a3os.app/libs/page"
	"a3os.app/libs/tlog"
	"a3os.app/libs/usage"
	"a3os.app/libs/workload"
	"a3os.app/services/registry/internal/store"
)

// Why a licence is refused, so that callers can tell.
var (
	errLicence = fault.Declare(fault.PermissionDenied, "LICENCE_REFUSED", "the licence is none of this plane's")
	errSerial  = fault.Declare(fault.FailedPrecondition, "LICENCE_OLDER", "the tenant has a licence with this serial or a later one")
)

type licences struct {
	registryv1.UnimplementedLicenceServiceServer
	registryv1.UnimplementedLicenceWriteServiceServer
	Config
	heard *heardLicences
}

// PutLicence keeps a licence for its tenant's set to fetch.
func (s *licences) PutLicence(ctx context.Context, req *registryv1.PutLicenceRequest) (*registryv1.PutLicenceResponse, error) {
	l, err := s.Licences.Open(ctx, req.GetFile())
	if err != nil {
		return nil, errLicence.With("%v", err)
	}
	tenant, err := id.ParseTenant(l.GetTenantId())
	if err != nil {
		return nil, errLicence.With("the licence is of no tenant: %v", err)
	}
	res := &registryv1.PutLicenceResponse{}
	err = s.change(ctx, func(ctx context.Context, ch change) error {
		// One licence of a tenant at a time: its serial is to be the greatest.
		t, err := ch.lock(ctx, tenant.String())
		if err != nil {
			return err
		}
		newest, err := ch.q.NewestLicence(ctx, tenant)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
		case err != nil:
			return fmt.Errorf("read the newest licence: %w", err)
		case bytes.Equal(newest.File, req.GetFile()):
			res.Licence, err = s.issued(ctx, newest)
			return err
		case newest.Serial >= l.GetSerial():
			return errSerial.With("%s has a licence with serial %d, and this one has %d: issue it anew (fleet licence issue)", t.Slug, newest.Serial, l.GetSerial())
		}
		row, err := ch.q.InsertLicence(ctx, store.InsertLicenceParams{TenantID: tenant, Serial: l.GetSerial(), File: req.GetFile(), Actor: ch.actor, Reason: req.GetReason()})
		if err != nil {
			return fmt.Errorf("keep the licence: %w", err)
		}
		if res.Licence, err = s.issued(ctx, row); err != nil {
			return err
		}
		return ch.log(ctx, "registry.licence.put", tenant.String(), fmt.Sprintf("%s, serial %d, plan %s, until %s: %s",
			l.GetId(), l.GetSerial(), l.GetPlan(), l.GetValidUntil().AsTime().Format("2006-01-02"), req.GetReason()))
	})
	if err != nil {
		return nil, err
	}
	s.heard.forget(tenant)
	return res, nil
}

// issued is a row as the API shows it.
func (s *licences) issued(ctx context.Context, row store.Licence) (*registryv1.IssuedLicence, error) {
	l, err := s.Licences.Open(ctx, row.File)
	if err != nil {
		return nil, fmt.Errorf("read licence %d of %s: %w", row.Serial, row.TenantID, err)
	}
	return &registryv1.IssuedLicence{Licence: l, File: row.File, Actor: row.Actor, Reason: row.Reason, PutAt: timestamppb.New(row.PutAt)}, nil
}

// ListLicences pages through a tenant's licences.
func (s *licences) ListLicences(ctx context.Context, req *registryv1.ListLicencesRequest) (*registryv1.ListLicencesResponse, error) {
	before := int64(math.MaxInt64)
	if err := readPageToken(req.GetPageToken(), &before); err != nil {
		return nil, err
	}
	var res *registryv1.ListLicencesResponse
	err := s.DB.Service(ctx, func(ctx context.Context, tx pgx.Tx) error {
		q := store.New(tx)
		t, err := find(ctx, q, req.GetTenant())
		if err != nil {
			return err
		}
		res, err = s.list(ctx, q, t.ID, before, page.Size(req.GetPageSize()))
		return err
	})
	if err != nil {
		return nil, err
	}
	return res, nil
}

func (s *licences) list(ctx context.Context, q *store.Queries, tenant id.Tenant, before int64, size int32) (*registryv1.ListLicencesResponse, error) {
	res := &registryv1.ListLicencesResponse{}
	rows, err := q.ListLicences(ctx, store.ListLicencesParams{TenantID: tenant, Before: before, Size: size + 1})
	if err != nil {
		return nil, err
	}
	rows, res.NextPageToken = onePage(rows, size, func(l store.Licence) string { return pageToken(l.Serial) })
	for _, row := range rows {
		l, err := s.issued(ctx, row)
		if err != nil {
			// The others are shown all the same, and the next one can be issued beyond this one's serial.
			l = &registryv1.IssuedLicence{Licence: &registryv1.Licence{TenantId: row.TenantID.String(), Serial: row.Serial}, File: row.File, Actor: row.Actor,
				Reason: row.Reason, PutAt: timestamppb.New(row.PutAt), Refused: err.Error()}
		}
		res.Licences = append(res.Licences, l)
	}
	reports, err := licenceReports(ctx, q, []id.Tenant{tenant})
	if err != nil {
		return nil, err
	}
	res.Report = reports[tenant]
	used, err := q.NewestUsage(ctx, tenant)
	if errors.Is(err, pgx.ErrNoRows) {
		return res, nil
	}
	res.Usage, res.UsageAt = used.Note, timestamppb.New(used.HeardAt)
	return res, err
}

// licenceReports are what sets said of the licences that they hold, by tenant.
func licenceReports(ctx context.Context, q *store.Queries, tenants []id.Tenant) (map[id.Tenant]*registryv1.LicenceReport, error) {
	rows, err := q.LicenceReportsOf(ctx, tenants)
	if err != nil {
		return nil, fmt.Errorf("read what sets said of their licences: %w", err)
	}
	out := map[id.Tenant]*registryv1.LicenceReport{}
	for _, r := range rows {
		m := &registryv1.LicenceReport{Serial: r.Serial, State: licence.ParseState(r.State), ClockBehind: r.ClockBehind, Refused: r.Refused, ReportedAt: timestamppb.New(r.ChangedAt), NextSerial: r.NextSerial}
		if r.ValidUntil != nil {
			m.ValidUntil = timestamppb.New(*r.ValidUntil)
		}
		out[r.TenantID] = m
	}
	return out, nil
}

// heardLicences remembers what sets said, so that the same said again, every few seconds by every set, costs the database nothing.
type heardLicences struct {
	mu   sync.Mutex
	said map[id.Tenant]heardLicence
}

type heardLicence struct {
	report *registryv1.LicenceReport
	at     time.Time
}

// lookAgain is how long a set waits at most for a licence that another registry took.
const lookAgain = 30 * time.Second

// known says that a set said the same a moment ago, and holds the newest licence.
func (h *heardLicences) known(tenant id.Tenant, r *registryv1.LicenceReport) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	last, ok := h.said[tenant]
	return ok && time.Since(last.at) < lookAgain && proto.Equal(last.report, r)
}

func (h *heardLicences) keep(tenant id.Tenant, r *registryv1.LicenceReport) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.said[tenant] = heardLicence{r, time.Now()}
}

// forget has the next report looked at: there is a new licence for it.
func (h *heardLicences) forget(tenant id.Tenant) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.said, tenant)
}

// licence takes what a set says of its licence and of its use, and hands it a later licence where there is one.
func (s *reports) licence(ctx context.Context, who workload.Identity, req *registryv1.ReportRequest, res *registryv1.ReportResponse) error {
	res.Now = timestamppb.Now()
	l := req.GetLicence()
	if l == nil {
		return nil // a set of a release that knows no licences
	}
	if req.GetUsage() == nil && s.heard.known(who.Tenant, l) {
		return nil
	}
	used, err := s.usage(ctx, who, req.GetUsage())
	if err != nil {
		slog.ErrorContext(ctx, "a report of use was refused", "alarm", "usage_refused", "tenant", who.Tenant.String(), "error", err)
	}
	err = s.DB.Service(ctx, func(ctx context.Context, tx pgx.Tx) error {
		q := store.New(tx)
		p := store.PutLicenceReportParams{TenantID: who.Tenant, Serial: l.GetSerial(), State: licence.StateWord(l.GetState()), ClockBehind: l.GetClockBehind(), Refused: l.GetRefused(), NextSerial: l.GetNextSerial()}
		if l.GetValidUntil().IsValid() {
			at := l.GetValidUntil().AsTime()
			p.ValidUntil = &at
		}
		if err := q.PutLicenceReport(ctx, p); err != nil {
			return fmt.Errorf("write what the set says of its licence: %w", err)
		}
		if used != nil {
			kept, err := q.KeepUsage(ctx, *used)
			if err != nil {
				return fmt.Errorf("keep the report of use: %w", err)
			}
			res.UsageKept = kept
		}
		file, err := q.LicenceAfter(ctx, store.LicenceAfterParams{TenantID: who.Tenant, Serial: max(l.GetSerial(), l.GetNextSerial())})
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return fmt.Errorf("look for a later licence: %w", err)
		}
		res.Licence = file
		return nil
	})
	// A set that was just handed one says so next time, whatever else it says.
	if err == nil && len(res.GetLicence()) == 0 {
		s.heard.keep(who.Tenant, l)
	}
	return err
}

// usagePace is at least how long after one report of use another one of the same tenant is kept. Sets make one an hour.
const usagePace = 30 * time.Minute

// usage verifies a report of use with the key of the tenant's log: the one that the witness knows, where it knows one.
func (s *reports) usage(ctx context.Context, who workload.Identity, u *registryv1.UsageReport) (*store.KeepUsageParams, error) {
	if u == nil {
		return nil, nil //nolint:nilnil // nothing was said
	}
	known := ""
	err := s.DB.Service(ctx, func(ctx context.Context, tx pgx.Tx) error {
		var err error
		if known, err = store.New(tx).VerifierKey(ctx, who.Tenant); errors.Is(err, pgx.ErrNoRows) {
			known, err = "", nil
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if known != "" && known != u.GetVerifierKey() {
		return nil, errors.New("it is signed with another key than the tenant's log")
	}
	v, err := tlog.NewVerifier(u.GetVerifierKey())
	if err != nil {
		return nil, err
	}
	r, err := usage.Open(who.Plane, who.Tenant, u.GetNote(), v)
	if err != nil {
		return nil, err
	}
	return &store.KeepUsageParams{TenantID: who.Tenant, Until: r.Until, Note: u.GetNote(), PaceSeconds: usagePace.Seconds()}, nil
}
