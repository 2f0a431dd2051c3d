package registry_test

import (
	"slices"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"
)

func TestEveryRegistryProcessShowsAChangeAndSignsTheSameBytes(t *testing.T) {
	h := newHarness(t)
	one, _ := h.start()
	two, _ := h.start()
	a, b := h.watch(h.as(one, "gateway")), h.watch(h.as(two, "gateway"))
	h.create(h.as(one, "operator"), "acme")
	h.create(h.as(two, "operator"), "globex")
	a.until("acme", "globex")
	b.until("acme", "globex")
	if x, y := h.fetch(one), h.fetch(two); !proto.Equal(x, y) {
		t.Error("two processes signed one version differently")
	}
}

// fetch is the signed snapshot as it comes over the wire.
func (h *harness) fetch(addr string) *registryv1.SignedSnapshot {
	h.t.Helper()
	stream, err := registryv1.NewSnapshotServiceClient(h.as(addr, "gateway")).WatchSnapshot(h.t.Context(), &registryv1.WatchSnapshotRequest{})
	if err != nil {
		h.t.Fatal(err)
	}
	res, err := stream.Recv()
	if err != nil {
		h.t.Fatal(err)
	}
	return res.GetSnapshot()
}

func TestVersionsGrowAcrossARestartAndAnOlderDatabase(t *testing.T) {
	h := newHarness(t)
	addr, stop := h.start()
	h.create(h.as(addr, "operator"), "acme")
	before := h.version()
	stop()
	// A backup of long ago is restored: its version is lower than what gateways hold.
	h.db.Exec(t, "UPDATE registry.snapshots SET version = 1")
	addr, _ = h.start()
	h.create(h.as(addr, "operator"), "globex")
	if after := h.version(); after <= before {
		t.Errorf("version %d after %d: gateways would refuse it", after, before)
	}
}

func TestChangesGoOnBeingShownAfterTheListeningConnectionIsLost(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	operator := h.as(addr, "operator")
	gateway := h.watch(h.as(addr, "gateway"))
	h.create(operator, "acme")
	gateway.until("acme")
	h.db.Exec(t, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND query LIKE 'LISTEN%'")
	h.create(operator, "globex")
	gateway.until("acme", "globex")
}

// A gateway that takes changes gets what changed and nothing else, also for what it missed while it was away.
func TestGatewayThatTakesChangesGetsWhatChanged(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	operator := h.as(addr, "operator")
	h.create(operator, "acme")
	h.watch(h.as(addr, "gateway")).until("acme")
	whole, _ := h.verified(h.next(h.changes(addr, 0)), 0)
	globex := h.create(operator, "globex")
	h.watch(h.as(addr, "gateway")).until("acme", "globex")
	h.setState(registryv1.NewTenantWriteServiceClient(operator), globex, registryv1.TenantState_TENANT_STATE_SUSPENDED)
	h.watch(h.as(addr, "gateway")).until("acme")

	stream := h.changes(addr, whole.GetVersion())
	var routes, removed []string
	for version := whole.GetVersion(); len(removed) == 0; {
		_, c := h.verified(h.next(stream), version)
		if c == nil {
			t.Fatalf("after version %d came all of it", version)
		}
		for _, r := range c.GetRoutes() {
			routes = append(routes, r.GetSlug())
		}
		removed, version = c.GetRemovedTenantIds(), c.GetVersion()
	}
	if !slices.Contains(routes, "globex") || slices.Contains(routes, "acme") || !slices.Equal(removed, []string{globex.id.String()}) {
		t.Errorf("changed were %q, removed %q; want globex alone", routes, removed)
	}
	// One that holds what was never published, and one that takes no changes, get all of it.
	if whole, _ := h.verified(h.next(h.changes(addr, 1)), 1); whole == nil {
		t.Error("a gateway with an unknown version got a change")
	}
}

// verified is what a registry sent to a gateway that holds a version: all of it, or a change.
func (h *harness) verified(res *registryv1.WatchSnapshotResponse, have int64) (whole *registryv1.Snapshot, change *registryv1.SnapshotChange) {
	h.t.Helper()
	var err error
	if res.GetChange() == nil {
		whole, err = h.verifier.Verify(res.GetSnapshot(), have)
	} else {
		change, err = h.verifier.VerifyChange(res.GetChange(), have)
	}
	if err != nil {
		h.t.Fatal(err)
	}
	return whole, change
}

func (h *harness) changes(addr string, have int64) grpc.ServerStreamingClient[registryv1.WatchSnapshotResponse] {
	h.t.Helper()
	stream, err := registryv1.NewSnapshotServiceClient(h.as(addr, "gateway")).WatchSnapshot(h.t.Context(), &registryv1.WatchSnapshotRequest{HaveVersion: have, TakesChanges: true})
	if err != nil {
		h.t.Fatal(err)
	}
	return stream
}

func (h *harness) next(stream grpc.ServerStreamingClient[registryv1.WatchSnapshotResponse]) *registryv1.WatchSnapshotResponse {
	h.t.Helper()
	res, err := stream.Recv()
	if err != nil {
		h.t.Fatal(err)
	}
	return res
}
