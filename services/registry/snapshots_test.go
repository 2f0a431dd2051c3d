package registry_test

import (
	"testing"

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
