package licensing

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/structpb"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/id"
	"a3os.app/libs/record"
	"a3os.app/libs/scope"
	"a3os.app/libs/tlog"
	"a3os.app/libs/usage"

	"a3os.app/services/audit/internal/store"
)

// Count asks a sibling for its numbers.
type Count func(ctx context.Context, since time.Time) (map[string]int64, error)

// Usage makes the set's reports of use.
type Usage struct {
	// Keeper knows the licence.
	Keeper *Keeper
	// Plane and Tenant of the set.
	Plane  string
	Tenant id.Tenant
	// Counts are the siblings that count, by name.
	Counts map[string]Count
	// Signer signs with the key of the tenant's log.
	Signer *tlog.Signer
	// Every is how often use is reported.
	Every time.Duration

	// waiting is a report that is on the record and was not handed over yet. recalled says that the last one of an earlier process was asked for.
	waiting  string
	recalled bool
}

// Next is what the next report will say.
type Next struct {
	// Report as it would be now.
	Report usage.Report
	// At is when it is sent; zero where none is.
	At time.Time
	// Off says why none is sent.
	Off string
	// Last is the last report, a signed note; empty where there was none. LastAt is when it was made.
	Last   string
	LastAt time.Time
}

// Next counts.
func (u *Usage) Next(ctx context.Context) (Next, error) {
	s, err := u.Keeper.Look(ctx)
	if err != nil {
		return Next{}, err
	}
	w, err := u.watch(ctx)
	if err != nil {
		return Next{}, err
	}
	n := Next{Last: w.UsageNote, Off: off(s)}
	now := u.Keeper.cfg.Now()
	since := u.reported(w, now)
	if w.UsageAt != nil {
		n.LastAt = *w.UsageAt
	}
	if n.Off == "" {
		n.At = later(now, since.Add(u.Every))
	}
	n.Report, err = u.count(ctx, s, since, now)
	return n, err
}

// reported is until when use was reported. A report of a time that is still to come was made by a clock that ran ahead: the next one waits for it no
// longer than for none, or nothing would be reported until that time.
func (u *Usage) reported(w store.AuditLicenceWatch, now time.Time) time.Time {
	if w.UsageAt == nil || w.UsageAt.After(now.Add(tolerance)) {
		return now.Add(-u.Every)
	}
	return *w.UsageAt
}

func (u *Usage) watch(ctx context.Context) (w store.AuditLicenceWatch, err error) {
	err = u.Keeper.cfg.DB.Service(ctx, func(ctx context.Context, tx pgx.Tx) error {
		w, err = store.New(tx).LicenceWatch(ctx)
		return err
	})
	return w, err
}

// off says why no use is reported.
func off(s Standing) string {
	switch {
	case s.Worth.Licence == nil:
		return "this tenant has no licence, and nothing is reported without one"
	case s.Worth.Licence.GetUsageReports() != registryv1.UsageReports_USAGE_REPORTS_ON:
		return "this tenant's licence says that nothing is reported"
	}
	return ""
}

func (u *Usage) count(ctx context.Context, s Standing, since, now time.Time) (usage.Report, error) {
	r := usage.Report{Plane: u.Plane, Tenant: u.Tenant, Serial: s.Worth.Licence.GetSerial(), Since: since, Until: now, Counts: map[string]int64{}}
	for name, count := range u.Counts {
		numbers, err := count(ctx, since)
		if err != nil {
			return r, fmt.Errorf("ask %s what is used: %w", name, err)
		}
		maps.Copy(r.Counts, numbers)
	}
	return r, nil
}

// Due answers the report that is to be handed over now; nil where none is. It is on the tenant's record before it is answered.
func (u *Usage) Due(ctx context.Context) (*registryv1.UsageReport, error) {
	if !u.recalled {
		if err := u.recall(ctx); err != nil {
			return nil, err
		}
	}
	if u.waiting == "" {
		n, err := u.dueNow(ctx)
		if err != nil || n == nil {
			return nil, err
		}
		if u.waiting, err = u.keep(ctx, n.Report); err != nil {
			return nil, err
		}
	}
	return &registryv1.UsageReport{Note: u.waiting, VerifierKey: u.Signer.Verifier().String()}, nil
}

// recall has the last report wait again, once after a start: the tenant's record says that it was sent, and nobody knows any more whether it was.
// The control plane keeps one that it has already as it is. It takes none that another key signed, which would keep all later ones from it.
func (u *Usage) recall(ctx context.Context) error {
	s, err := u.Keeper.Look(ctx)
	if err != nil || off(s) != "" {
		return err
	}
	w, err := u.watch(ctx)
	if err != nil {
		return err
	}
	if _, err := usage.Open(u.Plane, u.Tenant, w.UsageNote, u.Signer.Verifier()); err == nil {
		u.waiting = w.UsageNote
	}
	u.recalled = true
	return nil
}

// dueNow counts when a report is due, and not before; nil where none is.
func (u *Usage) dueNow(ctx context.Context) (*Next, error) {
	w, err := u.watch(ctx)
	if err != nil {
		return nil, err
	}
	if now := u.Keeper.cfg.Now(); now.Before(u.reported(w, now).Add(u.Every)) {
		return nil, nil //nolint:nilnil // none is due
	}
	n, err := u.Next(ctx)
	if err != nil || n.Off != "" {
		return nil, err
	}
	return &n, nil
}

// keep puts a report on the record, and remembers it.
func (u *Usage) keep(ctx context.Context, r usage.Report) (string, error) {
	text, err := r.Text()
	if err != nil {
		return "", err
	}
	note, err := usage.Sign(r, u.Signer)
	if err != nil {
		return "", err
	}
	err = u.Keeper.cfg.DB.Service(ctx, func(ctx context.Context, tx pgx.Tx) error {
		if err := store.New(tx).SetUsage(ctx, store.SetUsageParams{Note: note, At: &r.Until}); err != nil {
			return fmt.Errorf("keep the report of use: %w", err)
		}
		return record.AppendUnknown(ctx, tx, string(scope.Workload(self)),
			record.Event{Action: "licence.usage_reported", Target: u.Tenant.String(), After: &structpb.Struct{Fields: map[string]*structpb.Value{"text": structpb.NewStringValue(text)}}})
	})
	return note, err
}

// Kept says that the control plane has the report.
func (u *Usage) Kept() { u.waiting = "" }
