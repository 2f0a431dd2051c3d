package registry_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/release"
)

// column reads one column of texts.
func column(t *testing.T, h *harness, sql string) []string {
	t.Helper()
	rows, err := h.db.Pool(t).Query(t.Context(), sql)
	if err != nil {
		t.Fatal(err)
	}
	out, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func releaseKey(t *testing.T, plane string) (signer *release.Signer, public string) {
	t.Helper()
	private, public, err := release.NewKey(plane)
	if err != nil {
		t.Fatal(err)
	}
	if signer, err = release.NewSigner(plane, private); err != nil {
		t.Fatal(err)
	}
	return signer, public
}

// manifest is a release whose one program is the text.
func manifest(plane, version, program string) *registryv1.ReleaseManifest {
	return &registryv1.ReleaseManifest{
		Plane: plane, Version: version, Blueprint: "accessos", BlueprintDigest: release.Digest([]byte("blueprint")),
		Artefacts: []*registryv1.Artefact{{Name: "accessos", Digest: release.Digest([]byte(program)), Size: 1, MediaType: "application/vnd.a3os.program.v1.linux-amd64"}},
	}
}

func sign(t *testing.T, s *release.Signer, m *registryv1.ReleaseManifest) []byte {
	t.Helper()
	envelope, err := s.Sign(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	return envelope
}

func TestReleaseIsKeptOnceAndAnswersByNameAndVersion(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	conn := h.as(addr, "operator")
	w, r := registryv1.NewReleaseWriteServiceClient(conn), registryv1.NewReleaseServiceClient(conn)
	envelope := sign(t, h.releaseSigner, manifest("dev", "1.2.0", "program"))
	var name string
	for range 2 {
		res, err := w.RegisterRelease(t.Context(), &registryv1.RegisterReleaseRequest{Envelope: envelope})
		if err != nil {
			t.Fatal(err)
		}
		name = res.GetRelease().GetName()
	}
	if want := "1.2.0@" + release.Digest([]byte("program")); name != want {
		t.Fatalf("it is named %s, want %s", name, want)
	}
	for _, by := range []string{name, "1.2.0"} {
		res, err := r.GetRelease(t.Context(), &registryv1.GetReleaseRequest{Name: by})
		if err != nil {
			t.Fatal(err)
		}
		if got := res.GetRelease(); got.GetName() != name || string(got.GetEnvelope()) != string(envelope) || !strings.HasSuffix(got.GetActor(), "/operator") ||
			!proto.Equal(got.GetManifest(), manifest("dev", "1.2.0", "program")) {
			t.Errorf("by %s: %v", by, got)
		}
	}
	logged := column(t, h, "SELECT action || ' ' || target FROM registry.operations_log WHERE action LIKE 'registry.release.%'")
	if len(logged) != 1 || logged[0] != "registry.release.registered "+name {
		t.Errorf("the operations log says %q", logged)
	}
	if _, err := r.GetRelease(t.Context(), &registryv1.GetReleaseRequest{Name: "9.9.9"}); fault.KindOf(fault.FromRPC(err)) != fault.NotFound {
		t.Errorf("a release that is not: %v", err)
	}
}

// The key that signed it is gone for good: registered once more it is what it was, signed by whom the plane trusts now. What is believed stays as it was signed.
func TestReleaseThatNobodyBelievesAnyMoreIsSignedAgain(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	former := sign(t, h.releaseSigner, manifest("dev", "1.2.0", "program"))
	register := func(addr string, envelope []byte) *registryv1.Release {
		t.Helper()
		res, err := registryv1.NewReleaseWriteServiceClient(h.as(addr, "operator")).RegisterRelease(t.Context(), &registryv1.RegisterReleaseRequest{Envelope: envelope})
		if err != nil {
			t.Fatal(err)
		}
		return res.GetRelease()
	}
	register(addr, former)
	signer, public := releaseKey(t, "dev")
	both := h.releaseKeys + "," + public
	h.releaseKeys = public
	addr, _ = h.start()
	again := sign(t, signer, manifest("dev", "1.2.0", "program"))
	if r := register(addr, again); string(r.GetEnvelope()) != string(again) {
		t.Errorf("it is still signed by %q", r.GetKeyIds())
	}
	want := []string{"registry.release.registered", "registry.release.signed_again"}
	if logged := column(t, h, "SELECT action FROM registry.operations_log WHERE action LIKE 'registry.release.%' ORDER BY id"); !slices.Equal(logged, want) {
		t.Errorf("the operations log says %q", logged)
	}
	h.releaseKeys = both
	addr, _ = h.start()
	if r := register(addr, former); string(r.GetEnvelope()) != string(again) {
		t.Errorf("one that is believed is signed by another: %q", r.GetKeyIds())
	}
}

// What was built and never released has one version, and each build is a release of its own.
func TestDevelopmentReleasesAreToldApartByTheirDigests(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	conn := h.as(addr, "operator")
	w, r := registryv1.NewReleaseWriteServiceClient(conn), registryv1.NewReleaseServiceClient(conn)
	names := map[string]bool{}
	for _, program := range []string{"one", "two", "three"} {
		res, err := w.RegisterRelease(t.Context(), &registryv1.RegisterReleaseRequest{Envelope: sign(t, h.releaseSigner, manifest("dev", release.Development, program))})
		if err != nil {
			t.Fatal(err)
		}
		names[res.GetRelease().GetName()] = true
	}
	if _, err := r.GetRelease(t.Context(), &registryv1.GetReleaseRequest{Name: release.Development}); fault.KindOf(fault.FromRPC(err)) != fault.FailedPrecondition {
		t.Errorf("which of three is meant: %v", err)
	}
	req := &registryv1.ListReleasesRequest{PageSize: 2}
	for pages := 0; ; pages++ {
		res, err := r.ListReleases(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range res.GetReleases() {
			delete(names, x.GetName())
		}
		if req.PageToken = res.GetNextPageToken(); req.GetPageToken() == "" {
			break
		}
		if pages > 3 {
			t.Fatal("the pages never end")
		}
	}
	if len(names) != 0 {
		t.Errorf("not listed: %v", names)
	}
}

// Row F50, at the registry: what isn't signed, isn't of this plane, or takes another's version is refused, and nothing is kept.
func TestRegistryRefusesReleasesThatItCannotBelieve(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	conn := h.as(addr, "operator")
	w := registryv1.NewReleaseWriteServiceClient(conn)
	if _, err := w.RegisterRelease(t.Context(), &registryv1.RegisterReleaseRequest{Envelope: sign(t, h.releaseSigner, manifest("dev", "1.0.0", "program"))}); err != nil {
		t.Fatal(err)
	}
	stranger, _ := releaseKey(t, "dev")
	prod, _ := releaseKey(t, "prod")
	later := manifest("dev", "1.0.0", "program")
	later.MinimumVersion = "0.9.0"
	cases := map[string]struct {
		envelope []byte
		want     fault.Kind
	}{
		"signed by a stranger":             {sign(t, stranger, manifest("dev", "1.1.0", "program")), fault.PermissionDenied},
		"made for prod":                    {sign(t, prod, manifest("prod", "1.1.0", "program")), fault.PermissionDenied},
		"another program, same version":    {sign(t, h.releaseSigner, manifest("dev", "1.0.0", "other")), fault.AlreadyExists},
		"same program, other content":      {sign(t, h.releaseSigner, later), fault.AlreadyExists},
		"no envelope":                      {[]byte("1.0.0"), fault.InvalidArgument},
		"manifest without a signature":     {[]byte(`{"payloadType":"application/vnd.a3os.release.v1","payload":"AAAA","signatures":[]}`), fault.PermissionDenied},
		"envelope of another kind of text": {[]byte(`{"payloadType":"application/vnd.a3os.isolation.v1+json","payload":"AAAA","signatures":[]}`), fault.InvalidArgument},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := w.RegisterRelease(t.Context(), &registryv1.RegisterReleaseRequest{Envelope: c.envelope})
			if got := fault.KindOf(fault.FromRPC(err)); err == nil || got != c.want {
				t.Errorf("got %v (%v), want %v", err, got, c.want)
			}
		})
	}
	if kept := column(t, h, "SELECT name FROM registry.releases"); len(kept) != 1 {
		t.Errorf("kept: %q", kept)
	}
	t.Attr("row", fmt.Sprintf("F50 %d", len(cases)))
}
