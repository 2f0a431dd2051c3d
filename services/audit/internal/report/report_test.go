package report_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"
	setv1 "a3os.app/proto/gen/go/a3os/set/v1"
	"a3os.app/proto/gen/go/a3os/set/v1/setv1connect"

	"a3os.app/libs/tlog"

	"a3os.app/services/audit/internal/audittest"
	"a3os.app/services/audit/internal/ledger"
	"a3os.app/services/audit/internal/report"
	"a3os.app/services/audit/internal/seal"
)

// witness is a registry that knows nothing but to follow a log.
type witness struct {
	registryv1.UnimplementedReportServiceServer
	verifier *tlog.Verifier

	mu      sync.Mutex
	held    tlog.Checkpoint
	last    *registryv1.ReportRequest
	refused error
	away    bool
	asked   int
	// leaves has it be away after the first report.
	leaves bool
	// pace in seconds that it asks for; 2 where it is 0.
	pace int32
}

func (w *witness) Report(_ context.Context, req *registryv1.ReportRequest) (*registryv1.ReportResponse, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked++
	if w.away {
		return nil, status.Error(codes.Unavailable, "away")
	}
	w.last, w.refused = req, nil
	if req.GetCheckpoint() != "" {
		next, err := w.verifier.Open(req.GetCheckpoint())
		if err == nil && w.held.Size > 0 {
			err = tlog.CheckGrowth(w.held, next, req.GetConsistencyProof())
		}
		if err != nil {
			w.refused = err
			return nil, status.Error(codes.FailedPrecondition, err.Error())
		}
		w.held = next
	}
	w.away = w.leaves
	return &registryv1.ReportResponse{WitnessedSize: int64(w.held.Size), NextReportSeconds: cmp.Or(w.pace, 2)}, nil
}

type harness struct {
	db       *audittest.Database
	sealer   *seal.Sealer
	witness  *witness
	reporter *report.Reporter
}

func start(t *testing.T, components ...report.Component) *harness {
	t.Helper()
	h := &harness{db: audittest.New(t)}
	signer := audittest.Signer(t)
	db := h.db.DB(t)
	h.sealer = seal.New(db, signer)
	h.witness = &witness{verifier: signer.Verifier()}
	srv := grpc.NewServer()
	registryv1.RegisterReportServiceServer(srv, h.witness)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	served.Go(func() { _ = srv.Serve(l) })
	t.Cleanup(func() { srv.Stop(); served.Wait() })
	// Mutual TLS is the connection's affair, and tested with it.
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	h.reporter = report.New(registryv1.NewReportServiceClient(conn), &report.Link{}, ledger.New(db.Service), signer.Verifier(), components)
	return h
}

func (h *harness) seal(t *testing.T, n int) {
	t.Helper()
	conn := h.db.As(t, "role_iam")
	for range n {
		audittest.Put(t, conn, audittest.Event("a", "b"))
	}
	if err := h.sealer.Round(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestWitnessFollowsTheLogByItsProofs(t *testing.T) {
	h := start(t)
	if next, err := h.reporter.Once(t.Context()); err != nil || next != 2*time.Second {
		t.Fatalf("the first report: %v, %v", next, err)
	}
	for i, n := range []int{3, 0, 4, 300} {
		before := h.witness.held.Size
		if n > 0 {
			h.seal(t, n)
		}
		if _, err := h.reporter.Once(t.Context()); err != nil {
			t.Fatalf("report %d: %v", i, err)
		}
		if h.witness.held.Size != before+uint64(n) {
			t.Errorf("report %d: the witness holds %d, want %d", i, h.witness.held.Size, before+uint64(n))
		}
		if told := h.witness.last.GetCheckpoint() != ""; told != (n > 0) {
			t.Errorf("report %d carries a checkpoint: %v, the log grew by %d", i, told, n)
		}
	}
}

// Row A54: an old checkpoint restored with a log cut short to it is whole in itself, and the witness that saw a later one shows it.
func TestWitnessSeesALogThatWasCutShort(t *testing.T) {
	h := start(t)
	h.seal(t, 5)
	for range 2 {
		if _, err := h.reporter.Once(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	h.seal(t, 5)
	if _, err := h.reporter.Once(t.Context()); err != nil || h.witness.held.Size != 10 {
		t.Fatalf("the witness holds %d: %v", h.witness.held.Size, err)
	}
	h.db.Unlock(t)
	for _, sql := range []string{"DELETE FROM audit.checkpoints WHERE size > 5", "DELETE FROM audit.entries WHERE idx >= 5"} {
		if _, err := h.db.As(t, "owner").Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := h.reporter.Once(t.Context()); err == nil {
		t.Error("the reporter says nothing")
	}
	if h.witness.refused == nil || h.witness.held.Size != 10 {
		t.Errorf("the witness took it: %v, holds %d", h.witness.refused, h.witness.held.Size)
	}
	t.Attr("row", "A54 1")
}

func TestReportGoesOnWhenTheRegistryIsBack(t *testing.T) {
	h := start(t)
	h.seal(t, 2)
	h.witness.away = true
	if _, err := h.reporter.Once(t.Context()); err == nil {
		t.Fatal("the registry was away, and the report says nothing")
	}
	h.seal(t, 2) // sealing does not care
	h.witness.away = false
	for range 2 {
		if _, err := h.reporter.Once(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if h.witness.held.Size != 4 {
		t.Errorf("the witness holds %d, want 4", h.witness.held.Size)
	}
}

func TestEachComponentIsReportedAsItIs(t *testing.T) {
	// A set's server, as far as its status goes.
	serve := func(serving bool, err error) string {
		mux := http.NewServeMux()
		mux.Handle(setv1connect.NewStatusServiceHandler(teller{&setv1.GetStatusResponse{Serving: serving, Release: "1.2.3",
			StartedAt: timestamppb.New(time.Unix(7, 0)), Figures: &setv1.Figures{Requests: 9}}, err}))
		s := httptest.NewServer(mux)
		t.Cleanup(s.Close)
		return s.URL
	}
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	hangs := make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-hangs:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(func() { close(hangs); slow.Close() })
	h := start(t,
		report.Sibling("well", http.DefaultClient, serve(true, nil)),
		report.Sibling("ill", http.DefaultClient, serve(false, nil)),
		report.Sibling("broken", http.DefaultClient, serve(true, errors.New("broken"))),
		report.Sibling("gone", http.DefaultClient, gone.URL),
		report.Sibling("slow", http.DefaultClient, slow.URL),
		report.Component{Name: "self", Ask: func(context.Context) report.State {
			return report.State{Health: registryv1.Health_HEALTH_SERVING, Release: "1.2.3", StartedAt: time.Unix(7, 0)}
		}})
	audittest.Put(t, h.db.As(t, "role_iam"), audittest.Event("a", "b"))
	if _, err := h.reporter.Once(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := map[string]registryv1.Health{
		"well": registryv1.Health_HEALTH_SERVING, "ill": registryv1.Health_HEALTH_NOT_SERVING, "broken": registryv1.Health_HEALTH_NOT_SERVING,
		"gone": registryv1.Health_HEALTH_UNREACHABLE, "slow": registryv1.Health_HEALTH_UNREACHABLE, "self": registryv1.Health_HEALTH_SERVING,
	}
	for _, c := range h.witness.last.GetComponents() {
		if c.GetHealth() != want[c.GetName()] {
			t.Errorf("%s is reported as %v, want %v", c.GetName(), c.GetHealth(), want[c.GetName()])
		}
		// What could not be asked, or fails, says nothing else.
		said := slices.Contains([]string{"well", "ill", "self"}, c.GetName())
		if said != (c.GetRelease() == "1.2.3") || said != c.GetStartedAt().IsValid() {
			t.Errorf("%s is reported with release %q, started %v", c.GetName(), c.GetRelease(), c.GetStartedAt())
		}
		if (c.GetName() == "well" || c.GetName() == "ill") && c.GetFigures().GetRequests() != 9 {
			t.Errorf("%s is reported with %v", c.GetName(), c.GetFigures())
		}
	}
	if l := h.witness.last; l.GetDatabaseBytes() < 1<<20 || l.GetDatabaseConnections() < 1 {
		t.Errorf("the database is reported with %d bytes and %d connections", l.GetDatabaseBytes(), l.GetDatabaseConnections())
	}
	if len(h.witness.last.GetComponents()) != len(want) || h.witness.last.GetAuditBacklog() != 1 {
		t.Errorf("%v", h.witness.last)
	}
}

type teller struct {
	says *setv1.GetStatusResponse
	err  error
}

func (t teller) GetStatus(context.Context, *connect.Request[setv1.GetStatusRequest]) (*connect.Response[setv1.GetStatusResponse], error) {
	return connect.NewResponse(t.says), t.err
}

func TestSetIsReportedAsSoonAsAllOfItServesAnew(t *testing.T) {
	var mu sync.Mutex
	health, release := registryv1.Health_HEALTH_SERVING, "1.0.0"
	become := func(h registryv1.Health, r string) { mu.Lock(); health, release = h, r; mu.Unlock() }
	h := start(t, report.Component{Name: "iam", Ask: func(context.Context) report.State {
		mu.Lock()
		defer mu.Unlock()
		return report.State{Health: health, Release: release}
	}})
	// Nothing but a change makes it report again within this test.
	h.witness.pace = 5 * 60
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = h.reporter.Run(ctx) })
	t.Cleanup(func() { stop(); running.Wait() })
	reports := func(want string) {
		t.Helper()
		deadline, tick := time.After(time.Minute), time.NewTicker(10*time.Millisecond)
		defer tick.Stop()
		for {
			h.witness.mu.Lock()
			last := h.witness.last
			h.witness.mu.Unlock()
			if last != nil && last.GetComponents()[0].GetRelease() == want && last.GetComponents()[0].GetHealth() == registryv1.Health_HEALTH_SERVING {
				return
			}
			select {
			case <-deadline:
				t.Fatalf("release %s is never reported; the last report is %v", want, last)
			case <-tick.C:
			}
		}
	}
	reports("1.0.0")
	become(registryv1.Health_HEALTH_NOT_SERVING, "2.0.0")
	become(registryv1.Health_HEALTH_SERVING, "2.0.0")
	reports("2.0.0")
	become(registryv1.Health_HEALTH_SERVING, "3.0.0")
	reports("3.0.0")
}

func TestRegistryThatIsAwayIsNotAskedMoreOftenForWhatChanges(t *testing.T) {
	var asks atomic.Int64
	h := start(t, report.Component{Name: "iam", Ask: func(context.Context) report.State {
		return report.State{Health: registryv1.Health_HEALTH_SERVING, Release: fmt.Sprint("1.0.", asks.Add(1))}
	}})
	h.witness.leaves, h.witness.pace = true, 5*60
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = h.reporter.Run(ctx) })
	t.Cleanup(func() { stop(); running.Wait() })
	count := func() int {
		h.witness.mu.Lock()
		defer h.witness.mu.Unlock()
		return h.witness.asked
	}
	// The first report is taken. The second, which tells of the change, is not, and from then on it asks every five seconds, less a fifth.
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for count() < 2 {
		<-tick.C
	}
	began := time.Now()
	const least = 3 * time.Second
	<-time.After(2 * time.Second)
	if n := count(); n > 2 && time.Since(began) < least {
		t.Errorf("a registry that went away was asked %d times in %s", n-2, time.Since(began))
	}
}
