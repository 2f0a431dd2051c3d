// Package discoverytest runs discovery's domain on a tenant's real database for tests: runs with the real roles, queue and envelopes, and
// a worker that is the test itself. The one thing made up is integrations, another service: it answers every integration it is asked for.
package discoverytest

import (
	"context"
	"encoding/json"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/jackc/pgx/v5/pgxpool"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"
	queuev1 "a3os.app/proto/gen/go/a3os/queue/v1"

	"a3os.app/libs/id"
	"a3os.app/libs/page"
	"a3os.app/libs/pg"
	"a3os.app/libs/queue"
	queuepg "a3os.app/libs/queue/postgres"
	"a3os.app/libs/scope"
	"a3os.app/libs/scope/scopetest"
	"a3os.app/services/discovery/internal/runs"
	"a3os.app/services/migrate/migratetest"
)

const (
	plane = "dev"
	// batch is how many records a message of the stream has at most, as a worker's.
	batch = 2000
)

// Env is a discovery on a tenant's database.
type Env struct {
	*migratetest.Tenant
	// Runs is what is tested.
	Runs *runs.Runs
	// DB is the pool of role discovery, Wide that of discovery_tenant, Super that of the superuser, who sees everything.
	DB, Wide *pg.DB
	Super    *pgxpool.Pool
	Pages    *page.Sealer
	Signer   *queue.Signer
	Verifier *queue.Verifier
	Sources  *Sources
}

// New makes a discovery on a database of its own. Its record is not drained, so its inbox takes events for longer.
func New(t testing.TB) *Env {
	t.Helper()
	e := &Env{Tenant: migratetest.New(t), Sources: &Sources{}}
	e.Exec(t, "UPDATE audit.settings SET max_backlog_age = '1 day'")
	e.DB, e.Wide, e.Super = e.Open(t, "discovery"), e.Open(t, "discovery_tenant"), e.Pool(t)
	key, err := queue.NewSigningKey()
	must(t, err)
	e.Signer, err = queue.NewSigner(queue.SignerConfig{Key: key, Plane: plane, Tenant: e.ID, Issuer: "discovery"})
	must(t, err)
	e.Verifier, err = queue.NewVerifier(queue.VerifierConfig{Keys: key.Public(), Plane: plane, Tenant: e.ID, Issuer: "discovery"})
	must(t, err)
	e.Pages, err = page.NewSealer([]byte("a secret of the test's own"))
	must(t, err)
	e.Runs = e.Over(t, e.DB)
	return e
}

// Over is runs over another pool of role discovery.
func (e *Env) Over(t testing.TB, db *pg.DB) *runs.Runs {
	t.Helper()
	inserter, err := queuepg.NewInserter("queue")
	must(t, err)
	return runs.New(runs.Config{Tenant: e.ID, DB: db, Wide: e.Wide, Signer: e.Signer, Verifier: e.Verifier, Queue: inserter, Sources: e.Sources,
		Licence: e.Licence(t, db)})
}

// In is ctx in the scope of a user in a workspace.
func (e *Env) In(ctx context.Context, w id.Workspace) context.Context {
	return scopetest.With(ctx, scope.Scope{Plane: plane, Tenant: e.ID, Workspace: w, Principal: scope.Principal(id.NewUser().String())})
}

// Start asks for a run.
func (e *Env) Start(t testing.TB, w id.Workspace, i id.Integration) *discoveryv1.Run {
	t.Helper()
	run, err := e.Runs.Start(e.In(t.Context(), w), &discoveryv1.StartRunRequest{IntegrationId: i.String()})
	must(t, err)
	return run
}

// Job is ctx as a worker has it that took the run's newest job from the queue.
func (e *Env) Job(t testing.TB, run string) context.Context {
	t.Helper()
	rows, err := e.Super.Query(t.Context(), "SELECT args FROM queue.river_job ORDER BY id DESC")
	must(t, err)
	defer rows.Close()
	for rows.Next() {
		var raw []byte
		must(t, rows.Scan(&raw))
		var job struct{ Envelope, Payload []byte }
		must(t, json.Unmarshal(raw, &job))
		v, err := e.Verifier.Verify(job.Envelope, job.Payload)
		must(t, err)
		if !isFor(t, v, run) {
			continue
		}
		ctx, err := queue.InScope(t.Context(), v, "discovery-worker")
		must(t, err)
		return ctx
	}
	must(t, rows.Err())
	t.Fatalf("the queue has no job of run %s", run)
	return nil
}

// Put stages records as an attempt at the slice of ctx.
func (e *Env) Put(ctx context.Context, attempt uint32, records ...*discoveryv1.Record) error {
	stream, err := e.Runs.Open(ctx)
	if err != nil {
		return err
	}
	for len(records) > 0 {
		n := min(len(records), batch)
		if err := stream.Put(ctx, attempt, records[:n]); err != nil {
			return err
		}
		records = records[n:]
	}
	return nil
}

// Slice is what one slice of a run finds.
type Slice struct {
	Records   []*discoveryv1.Record
	Completed []string
	Gaps      []*discoveryv1.Gap
}

// Read does all slices of a run as a worker would, up to the last seal: the run then waits to be published.
func (e *Env) Read(t testing.TB, run string, slices ...Slice) {
	t.Helper()
	for n, s := range slices {
		ctx := e.Job(t, run)
		_, err := e.Runs.BeginSlice(ctx, 1, 1)
		must(t, err)
		must(t, e.Put(ctx, 1, s.Records...))
		_, err = e.Runs.Seal(ctx, &discoveryv1.SealSliceRequest{Attempt: 1, Records: int64(len(s.Records)), Checkpoint: []byte{byte(n)},
			Last: n == len(slices)-1, CompletedScopes: s.Completed, Gaps: s.Gaps})
		must(t, err)
	}
}

// Run runs an integration from asked for to published and answers the run.
func (e *Env) Run(t testing.TB, w id.Workspace, i id.Integration, slices ...Slice) *discoveryv1.Run {
	t.Helper()
	run := e.Start(t, w, i)
	e.Read(t, run.GetId(), slices...)
	e.Publish(t, w, run.GetId())
	return e.Get(t, w, run.GetId())
}

// Publish publishes a run that was sealed.
func (e *Env) Publish(t testing.TB, w id.Workspace, run string) {
	t.Helper()
	r, err := id.ParseRun(run)
	must(t, err)
	must(t, e.Runs.PublishRun(e.In(t.Context(), w), r))
}

// Get answers a run.
func (e *Env) Get(t testing.TB, w id.Workspace, run string) *discoveryv1.Run {
	t.Helper()
	r, err := e.Runs.Get(e.In(t.Context(), w), run)
	must(t, err)
	return r
}

// Count answers the one number that a query of the superuser gives.
func (e *Env) Count(t testing.TB, sql string, args ...any) int {
	t.Helper()
	var n int
	must(t, e.Super.QueryRow(t.Context(), sql, args...).Scan(&n))
	return n
}

// Sources is integrations, made up: every integration it is asked for is a CSV of that name, and it keeps what it is told.
type Sources struct {
	mu   sync.Mutex
	told []*integrationsv1.ReportRunRequest
	// Names are the names of integrations that are not called by their id.
	Names map[id.Integration]string
	// Known are the integrations that it lists beside; Away is why it answers no list.
	Known []*integrationsv1.KnownSource
	Away  error
}

// ListSources implements answer.Sources.
func (s *Sources) ListSources(context.Context, *connect.Request[integrationsv1.ListSourcesRequest]) (*connect.Response[integrationsv1.ListSourcesResponse], error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Away != nil {
		return nil, s.Away
	}
	return connect.NewResponse(&integrationsv1.ListSourcesResponse{Sources: s.Known}), nil
}

// GetRunSource implements runs.Sources.
func (s *Sources) GetRunSource(_ context.Context, req *connect.Request[integrationsv1.GetRunSourceRequest]) (*connect.Response[integrationsv1.GetRunSourceResponse], error) {
	i, err := id.ParseIntegration(req.Msg.GetIntegrationId())
	if err != nil {
		return nil, err
	}
	name, named := s.Names[i]
	if !named {
		name = i.String()
	}
	return connect.NewResponse(&integrationsv1.GetRunSourceResponse{Source: &integrationsv1.Source{IntegrationId: i.String(), Name: name,
		Settings: &integrationsv1.Settings{Connector: &integrationsv1.Settings_Csv{Csv: &integrationsv1.CsvSettings{}}}}}), nil
}

// ReportRun implements runs.Sources.
func (s *Sources) ReportRun(_ context.Context, req *connect.Request[integrationsv1.ReportRunRequest]) (*connect.Response[integrationsv1.ReportRunResponse], error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = append(s.told, req.Msg)
	return connect.NewResponse(&integrationsv1.ReportRunResponse{}), nil
}

// Told is what was reported so far.
func (s *Sources) Told() []*integrationsv1.ReportRunRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*integrationsv1.ReportRunRequest(nil), s.told...)
}

// Eventually waits until ok answers true.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	const most, every = 20 * time.Second, 10 * time.Millisecond
	end := time.NewTimer(most)
	defer end.Stop()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-end.C:
			t.Fatalf("%s: not within %s", what, most)
		}
	}
}

func isFor(t testing.TB, v queue.Verified, run string) bool {
	t.Helper()
	var p queuev1.SlicePayload
	must(t, v.Decode(&p))
	return p.GetRunId() == run
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
