// Package runs is the life of a discovery run: asked for, read slice by slice by a worker, staged, published as one change of the
// workspace's history. It promises that a worker that is late changes nothing (fencing by attempt), that what isn't sealed doesn't
// count, and that a run is published whole or not at all. It relies on the envelope for which run and slice a worker speaks of, and on
// the queue for delivering every slice at least once.
package runs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"
	queuev1 "a3os.app/proto/gen/go/a3os/queue/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/pg"
	"a3os.app/libs/queue"
	"a3os.app/libs/record"
	"a3os.app/libs/scope"
	"a3os.app/services/discovery/internal/store"
)

const (
	// KindSlice is the kind of the messages that workers take.
	KindSlice = "discovery.slice"
	// kindOwn is the kind of the envelopes that discovery makes for its own work on a run; no queue carries one.
	kindOwn = "discovery.own"
	// sliceTTL is how long a slice may wait for a worker.
	sliceTTL = 24 * time.Hour
	// SliceTries bounds how often a slice is tried before its run fails.
	SliceTries = 5
	service    = "discovery"
)

// Declared errors.
var (
	// ErrNoRun is the answer for every id that names no run of the workspace.
	ErrNoRun = fault.Declare(fault.NotFound, "NO_RUN", "there is no such run")
	// ErrFenced is returned to a worker whose slice another attempt has claimed, or whose run has ended.
	ErrFenced = fault.Declare(fault.Aborted, "FENCED", "another attempt has taken this slice over, or the run has ended: stop")
	// ErrStagedCount is returned when what was staged isn't what the worker says it sent.
	ErrStagedCount = fault.Declare(fault.Aborted, "STAGED_COUNT", "what arrived is not what was sent: try the slice again")
)

// Sources answers what a run reads; it is the client of integrations.
type Sources interface {
	GetRunSource(ctx context.Context, req *connect.Request[integrationsv1.GetRunSourceRequest]) (*connect.Response[integrationsv1.GetRunSourceResponse], error)
	ReportRun(ctx context.Context, req *connect.Request[integrationsv1.ReportRunRequest]) (*connect.Response[integrationsv1.ReportRunResponse], error)
}

// Config is what Runs needs.
type Config struct {
	// Tenant is whose runs these are.
	Tenant id.Tenant
	// DB is the pool of the service's own role, Wide that of its second one, which looks out over workspaces.
	DB, Wide *pg.DB
	// Signer makes the envelopes of slices, Verifier believes them.
	Signer   *queue.Signer
	Verifier *queue.Verifier
	// Queue takes slices.
	Queue queue.Inserter
	// Sources is integrations.
	Sources Sources
	// Licence says whether runs may be started: by schedule, which no chain sees.
	Licence interface {
		Allows(ctx context.Context, feature string) error
	}
}

// Runs is the runs of a tenant.
type Runs struct {
	cfg Config
	// sealed wakes the publisher.
	sealed chan struct{}
}

// New makes Runs.
func New(cfg Config) *Runs { return &Runs{cfg: cfg, sealed: make(chan struct{}, 1)} }

// Start asks for a run of an integration. While one is under way that one is answered.
func (r *Runs) Start(ctx context.Context, req *discoveryv1.StartRunRequest) (*discoveryv1.Run, error) {
	s, err := scope.InWorkspace(ctx)
	if err != nil {
		return nil, err
	}
	integration, err := id.ParseIntegration(req.GetIntegrationId())
	if err != nil {
		return nil, fault.New(fault.InvalidArgument, "integration_id: %v", err)
	}
	source, err := r.source(ctx, integration)
	if err != nil {
		return nil, err
	}
	return pg.Deed(ctx, r.cfg.DB.Workspace, req, func(ctx context.Context, tx pgx.Tx) (*discoveryv1.Run, error) {
		run, err := r.begin(ctx, tx, s, string(s.Principal), source, nil)
		if err != nil {
			return nil, err
		}
		return View(run)
	})
}

func (r *Runs) source(ctx context.Context, integration id.Integration) (*integrationsv1.Source, error) {
	res, err := r.cfg.Sources.GetRunSource(ctx, connect.NewRequest(&integrationsv1.GetRunSourceRequest{IntegrationId: integration.String()}))
	if err != nil {
		return nil, fault.FromRPC(err)
	}
	return res.Msg.GetSource(), nil
}

// begin inserts a run with its first slice, or answers the one that is under way.
func (r *Runs) begin(ctx context.Context, tx pgx.Tx, s scope.Scope, by string, source *integrationsv1.Source, due *time.Time) (store.Run, error) {
	integration, err := id.ParseIntegration(source.GetIntegrationId())
	if err != nil {
		return store.Run{}, fmt.Errorf("integrations answered a source without an id: %w", err)
	}
	raw, err := proto.Marshal(source)
	if err != nil {
		return store.Run{}, fmt.Errorf("encode the source: %w", err)
	}
	q := store.New(tx)
	retired, err := q.IsRetired(ctx, integration)
	if err != nil {
		return store.Run{}, fmt.Errorf("look whether the integration was removed: %w", err)
	}
	if retired {
		return store.Run{}, ErrRetired
	}
	run, err := q.InsertRun(ctx, store.InsertRunParams{ID: id.NewRun(), IntegrationID: integration, IntegrationName: source.GetName(),
		Connector: connectorOf(source.GetSettings()), StartedBy: by, DueAt: due, Source: raw, TransferID: s.Transfer})
	if errors.Is(err, pgx.ErrNoRows) {
		under, uerr := q.RunUnderWay(ctx, integration)
		if errors.Is(uerr, pgx.ErrNoRows) {
			return store.Run{}, fault.New(fault.Aborted, "a run of this integration ended just now; try again")
		}
		return under, uerr
	}
	if err != nil {
		return store.Run{}, fmt.Errorf("insert the run: %w", err)
	}
	if err := r.enqueue(ctx, tx, s.Tenant, run); err != nil {
		return store.Run{}, err
	}
	view, err := View(run)
	if err != nil {
		return store.Run{}, err
	}
	return run, record.Append(ctx, tx, record.Event{Action: "discovery.run.started", Target: run.ID.String(), After: view})
}

// enqueue puts the run's present slice on the queue, in the transaction that made it present.
func (r *Runs) enqueue(ctx context.Context, tx pgx.Tx, tenant id.Tenant, run store.Run) error {
	m, err := r.cfg.Signer.Sign(&queuev1.SlicePayload{RunId: run.ID.String(), IntegrationId: run.IntegrationID.String(),
		Slice: uint32(run.Slice), WorkspaceId: run.WorkspaceID.String(), TenantId: tenant.String()}, //nolint:gosec // counts slices from 0
		run.WorkspaceID, KindSlice, run.StartedBy, sliceTTL)
	if err != nil {
		return fmt.Errorf("sign slice %d: %w", run.Slice, err)
	}
	key := fmt.Sprintf("%s/%d/%d", run.ID, run.Restarts, run.Slice)
	if err := r.cfg.Queue.InsertTx(ctx, tx, m, queue.InsertOpts{UniqueKey: key, MaxTries: SliceTries}); err != nil {
		return fmt.Errorf("enqueue slice %d: %w", run.Slice, err)
	}
	return nil
}

// Cancel stops a run: what it staged is dropped, and nothing of it is published. A run that has ended stays as it is.
func (r *Runs) Cancel(ctx context.Context, req *discoveryv1.CancelRunRequest) (*discoveryv1.Run, error) {
	run, err := id.ParseRun(req.GetRunId())
	if err != nil {
		return nil, ErrNoRun
	}
	return pg.Deed(ctx, r.cfg.DB.Workspace, req, func(ctx context.Context, tx pgx.Tx) (*discoveryv1.Run, error) {
		row, err := lock(ctx, tx, run)
		if err != nil {
			return nil, err
		}
		if ended(row.State) || row.State == "publishing" {
			return View(row)
		}
		return r.end(ctx, tx, row, "cancelled", "")
	})
}

// end ends a run that publishes nothing.
func (r *Runs) end(ctx context.Context, tx pgx.Tx, row store.Run, state, why string) (*discoveryv1.Run, error) {
	before, err := View(row)
	if err != nil {
		return nil, err
	}
	q := store.New(tx)
	if row, err = q.EndRun(ctx, store.EndRunParams{ID: row.ID, State: state, Error: why}); err != nil {
		return nil, fmt.Errorf("end the run: %w", err)
	}
	if err := dropStaged(ctx, q, row.ID); err != nil {
		return nil, err
	}
	view, err := View(row)
	if err != nil {
		return nil, err
	}
	r.wake()
	event := record.Event{Action: "discovery.run." + state, Target: row.ID.String(), Before: recorded(before), After: recorded(view)}
	if state != "cancelled" { // which rests on the right of who cancels
		event.Transfer = row.TransferID
	}
	return view, record.Append(ctx, tx, event)
}

// Get answers one run.
func (r *Runs) Get(ctx context.Context, runID string) (*discoveryv1.Run, error) {
	run, err := id.ParseRun(runID)
	if err != nil {
		return nil, ErrNoRun
	}
	var view *discoveryv1.Run
	err = r.cfg.DB.ReadWorkspace(ctx, func(ctx context.Context, tx pgx.Tx) error {
		row, err := store.New(tx).GetRun(ctx, run)
		if errors.Is(err, pgx.ErrNoRows) {
			return ErrNoRun
		}
		if err != nil {
			return fmt.Errorf("read the run: %w", err)
		}
		view, err = View(row)
		return err
	})
	return view, err
}

// List answers runs, newest first, before a run (zero: from the newest), of one integration (zero: of all).
func (r *Runs) List(ctx context.Context, integration id.Integration, before id.Run, most int32) ([]*discoveryv1.Run, error) {
	var views []*discoveryv1.Run
	err := r.cfg.DB.ReadWorkspace(ctx, func(ctx context.Context, tx pgx.Tx) error {
		views = nil
		i, _ := integration.UUIDValue()
		b, _ := before.UUIDValue()
		rows, err := store.New(tx).ListRuns(ctx, store.ListRunsParams{IntegrationID: i, Before: b, Most: most})
		if err != nil {
			return fmt.Errorf("list runs: %w", err)
		}
		for _, row := range rows {
			v, err := View(row)
			if err != nil {
				return err
			}
			views = append(views, v)
		}
		return nil
	})
	return views, err
}

func lock(ctx context.Context, tx pgx.Tx, run id.Run) (store.Run, error) {
	row, err := store.New(tx).LockRun(ctx, run)
	if errors.Is(err, pgx.ErrNoRows) {
		return store.Run{}, ErrNoRun
	}
	if err != nil {
		return store.Run{}, fmt.Errorf("lock the run: %w", err)
	}
	return row, nil
}

func ended(state string) bool {
	switch state {
	case "complete", "partial", "failed", "cancelled":
		return true
	}
	return false
}

var states = map[string]integrationsv1.RunState{
	"queued":     integrationsv1.RunState_RUN_STATE_QUEUED,
	"running":    integrationsv1.RunState_RUN_STATE_RUNNING,
	"publishing": integrationsv1.RunState_RUN_STATE_RUNNING,
	"complete":   integrationsv1.RunState_RUN_STATE_COMPLETE,
	"partial":    integrationsv1.RunState_RUN_STATE_PARTIAL,
	"failed":     integrationsv1.RunState_RUN_STATE_FAILED,
	"cancelled":  integrationsv1.RunState_RUN_STATE_CANCELLED,
}

// View is a run as it is shown.
func View(row store.Run) (*discoveryv1.Run, error) {
	gaps, err := readGaps(row.Gaps)
	if err != nil {
		return nil, err
	}
	v := &discoveryv1.Run{
		Id: row.ID.String(), IntegrationId: row.IntegrationID.String(), IntegrationName: row.IntegrationName, Connector: row.Connector,
		State: states[row.State], CreatedAt: timestamppb.New(row.CreatedAt), StartedBy: row.StartedBy,
		Counts: &discoveryv1.Counts{Accounts: row.Accounts, Groups: row.Groups, Resources: row.Resources,
			Entitlements: row.Entitlements, Grants: row.Grants},
		Gaps: gaps, Error: row.Error, Slices: uint32(row.Slice), Progress: row.Progress, //nolint:gosec // counts slices from 0
		GrantsAdded: row.GrantsAdded, GrantsRemoved: row.GrantsRemoved,
	}
	if row.StartedAt != nil {
		v.StartedAt = timestamppb.New(*row.StartedAt)
	}
	if row.FinishedAt != nil {
		v.FinishedAt = timestamppb.New(*row.FinishedAt)
	}
	return v, nil
}

// recorded is a run as the record has it: an event has room for some gaps, and the run has them all.
func recorded(v *discoveryv1.Run) *discoveryv1.Run {
	const most = 20
	if len(v.GetGaps()) <= most {
		return v
	}
	short := proto.CloneOf(v)
	short.Gaps = append(short.Gaps[:most:most], &discoveryv1.Gap{Scope: "…", Reason: fmt.Sprintf("and %d more", len(v.GetGaps())-most)})
	return short
}

// gap is a Gap as the table keeps it.
type gap struct {
	Scope  string `json:"scope"`
	Reason string `json:"reason"`
}

func readGaps(raw []byte) ([]*discoveryv1.Gap, error) {
	var gs []gap
	if err := json.Unmarshal(raw, &gs); err != nil {
		return nil, fmt.Errorf("read the run's gaps: %w", err)
	}
	out := make([]*discoveryv1.Gap, len(gs))
	for i, g := range gs {
		out[i] = &discoveryv1.Gap{Scope: g.Scope, Reason: g.Reason}
	}
	return out, nil
}

func connectorOf(s *integrationsv1.Settings) string {
	switch s.GetConnector().(type) {
	case *integrationsv1.Settings_Postgres:
		return "postgres"
	case *integrationsv1.Settings_Unix:
		return "unix"
	case *integrationsv1.Settings_Csv:
		return "csv"
	}
	return "unknown"
}

// wake tells the publisher that there is something to do; it looks by itself as well.
func (r *Runs) wake() {
	select {
	case r.sealed <- struct{}{}:
	default:
	}
}
