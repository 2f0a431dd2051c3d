package systemtest

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/release"
)

// Row F50, the registry's part: somebody who can write to the registry's database changes what it says of a release, or whose signature
// it has, after a plan was made. Nothing of it is applied, and no other plan can be made; with the row put back one can.
func TestReleaseChangedInTheRegistryIsNotApplied(t *testing.T) {
	full(t)
	key := read(t, filepath.Join(shared.home, "plane", "keys", "releases.secret"))
	own, err := release.NewSigner("dev", key)
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(filepath.Join(programs, "accessos"))
	if err != nil {
		t.Fatal(err)
	}
	sets, err := blueprint.AccessOS()
	if err != nil {
		t.Fatal(err)
	}
	manifest := &registryv1.ReleaseManifest{
		Plane: "dev", Version: "0.0.7", Blueprint: sets.Name, BlueprintDigest: sets.Digest,
		Artefacts: []*registryv1.Artefact{{Name: sets.Artefact, Digest: release.Digest(program), Size: int64(len(program)), MediaType: "application/vnd.a3os.program.v1.linux-amd64"}},
	}
	envelope, err := own.Sign(t.Context(), manifest)
	if err != nil {
		t.Fatal(err)
	}
	registered, err := registryv1.NewReleaseWriteServiceClient(shared.operator(t)).RegisterRelease(t.Context(), &registryv1.RegisterReleaseRequest{Envelope: envelope})
	if err != nil {
		t.Fatal(err)
	}
	name := registered.GetRelease().GetName()
	hash := shared.plan(t, upgrade, "globex", name)

	db := shared.superuser(t, "postgres", "registry")
	set := func(column string, to []byte) {
		t.Helper()
		if _, err := db.Exec(t.Context(), "UPDATE registry.releases SET "+column+" = $1 WHERE name = $2", to, name); err != nil {
			t.Fatal(err)
		}
	}
	payload := func(m *registryv1.ReleaseManifest) []byte {
		t.Helper()
		text, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	other := proto.CloneOf(manifest)
	other.Artefacts[0].Digest = release.Digest([]byte("what somebody would have run"))
	private, _, err := release.NewKey("dev")
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := release.NewSigner("dev", private)
	if err != nil {
		t.Fatal(err)
	}
	forged, err := stranger.Sign(t.Context(), manifest)
	if err != nil {
		t.Fatal(err)
	}
	before, refused := shared.pids(t), 0
	for _, c := range []struct {
		column      string
		good, wrong []byte
		says        string
	}{
		{"payload", payload(manifest), payload(other), "differs in artefacts"},
		{"envelope", envelope, forged, "no key that this plane trusts signed it"},
		{"envelope", envelope, bytes.Replace(envelope, []byte(`"sig":"`), []byte(`"sig":"AAAA`), 1), "no key that this plane trusts signed it"},
	} {
		set(c.column, c.wrong)
		for _, args := range [][]string{{"apply", hash}, {"plan", "upgrade", "--tenant", "acme", "--release", name, "--reason", "a test of signatures"}} {
			s := shared.fleet(t, args...)
			if s.code == 0 || !strings.Contains(s.err, c.says) || !strings.Contains(s.err, name) {
				t.Errorf("%s with another %s: %s\nit should say %q", args[0], c.column, s, c.says)
			}
			refused++
		}
		set(c.column, c.good)
	}
	shared.plan(t, upgrade, "acme", name)
	for process, pid := range shared.pids(t) {
		if before[process] != pid {
			t.Errorf("%s was restarted", process)
		}
	}
	t.Attr("row", fmt.Sprint("F50 ", refused))
}
