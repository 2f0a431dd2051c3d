package release_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/dsse"
	"a3os.app/libs/release"
)

func manifest(change ...func(*registryv1.ReleaseManifest)) *registryv1.ReleaseManifest {
	m := &registryv1.ReleaseManifest{
		Plane: "dev", Version: "1.2.0", Blueprint: "accessos", BlueprintDigest: release.Digest([]byte("blueprint")),
		Artefacts:  []*registryv1.Artefact{{Name: "accessos", Digest: release.Digest([]byte("program")), Size: 7, MediaType: "application/vnd.a3os.program.v1.linux-amd64"}},
		Migrations: []*registryv1.Migration{{Name: "iam/00001_iam", Digest: release.Digest([]byte("CREATE TABLE"))}},
	}
	for _, c := range change {
		c(m)
	}
	return m
}

type key struct {
	signer *release.Signer
	public string
}

func newKey(t *testing.T, plane string) key {
	t.Helper()
	private, public, err := release.NewKey(plane)
	if err != nil {
		t.Fatal(err)
	}
	s, err := release.NewSigner(plane, private)
	if err != nil {
		t.Fatal(err)
	}
	return key{signer: s, public: public}
}

func (k key) sign(t *testing.T, m *registryv1.ReleaseManifest) []byte {
	t.Helper()
	signed, err := k.signer.Sign(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func trusting(t *testing.T, plane string, keys ...key) *release.Verifier {
	t.Helper()
	var texts []string
	for _, k := range keys {
		texts = append(texts, k.public)
	}
	v, err := release.NewVerifier(plane, strings.Join(texts, ","))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestSignedReleaseOpensAsItWasSigned(t *testing.T) {
	old, k := newKey(t, "dev"), newKey(t, "dev")
	o, err := trusting(t, "dev", old, k).Open(t.Context(), k.sign(t, manifest()))
	if err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(o.Manifest, manifest()) || o.Name.String() != "1.2.0@"+release.Digest([]byte("program")) || len(o.KeyIDs) != 1 {
		t.Errorf("opened %v, %s, keys %q", o.Manifest, o.Name, o.KeyIDs)
	}
}

// Row F50, at the signature: what nobody who is trusted signed, or signed as something else, is no release.
func TestReleaseThatNobodyTrustedSignedIsRefused(t *testing.T) {
	k, stranger, prod := newKey(t, "dev"), newKey(t, "dev"), newKey(t, "prod")
	good := k.sign(t, manifest())
	// edit changes an envelope that was signed.
	edit := func(change func(e *dsse.Envelope)) []byte {
		var e dsse.Envelope
		if err := json.Unmarshal(good, &e); err != nil {
			t.Fatal(err)
		}
		change(&e)
		text, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	other, err := proto.Marshal(manifest(func(m *registryv1.ReleaseManifest) { m.Artefacts[0].Digest = release.Digest([]byte("another")) }))
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		envelope []byte
		keys     []key
		plane    string
		want     error
	}{
		"signed by a stranger":     {stranger.sign(t, manifest()), []key{k}, "dev", release.ErrUnsigned},
		"of another plane":         {prod.sign(t, manifest(func(m *registryv1.ReleaseManifest) { m.Plane = "prod" })), []key{k}, "dev", release.ErrUnsigned},
		"no key is trusted":        {good, nil, "dev", release.ErrUnsigned},
		"signature taken off":      {edit(func(e *dsse.Envelope) { e.Signatures = nil }), []key{k}, "dev", release.ErrUnsigned},
		"signature of another":     {edit(func(e *dsse.Envelope) { e.Signatures[0].Sig = base64.StdEncoding.EncodeToString(make([]byte, 64)) }), []key{k}, "dev", release.ErrUnsigned},
		"stranger under a good id": {edit(func(e *dsse.Envelope) { e.Payload = base64.StdEncoding.EncodeToString(other) }), []key{k}, "dev", release.ErrUnsigned},
		"of another type":          {edit(func(e *dsse.Envelope) { e.PayloadType = "application/vnd.a3os.snapshot.v1" }), []key{k}, "dev", release.ErrMalformed},
		"cut short":                {good[:len(good)-20], []key{k}, "dev", release.ErrMalformed},
		"nothing":                  {nil, []key{k}, "dev", release.ErrMalformed},
		"id of the key is taken away": {edit(func(e *dsse.Envelope) {
			e.Signatures[0].KeyID = ""
			e.Payload = base64.StdEncoding.EncodeToString(other)
		}), []key{k}, "dev", release.ErrUnsigned},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if o, err := trusting(t, c.plane, c.keys...).Open(t.Context(), c.envelope); !errors.Is(err, c.want) {
				t.Errorf("got %v, %v, want %v", o, err, c.want)
			}
		})
	}
	t.Attr("row", fmt.Sprintf("F50 %d", len(cases)))
}

func TestKeyOfAnotherPlaneIsNoKey(t *testing.T) {
	private, public, err := release.NewKey("prod")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := release.NewSigner("dev", private); err == nil {
		t.Error("the key of prod signs for dev")
	}
	if _, err := release.NewVerifier("dev", public); err == nil {
		t.Error("dev trusts the key of prod")
	}
}

// Row F50: a tag names whatever it was moved to last.
func TestReleaseIsNamedByItsDigestAlone(t *testing.T) {
	full := "1.2.0@sha256:" + strings.Repeat("ab", 32)
	n, err := release.ParseName(full)
	if err != nil || n.String() != full {
		t.Fatalf("got %v, %v", n, err)
	}
	bad := []string{"", "1.2.0", "latest", "1.2.0@", "1.2.0@sha256:abcd", "1.2.0@" + strings.Repeat("ab", 32), "v1.2.0@sha256:" + strings.Repeat("ab", 32),
		"1.2@sha256:" + strings.Repeat("ab", 32), "1.2.0+x@sha256:" + strings.Repeat("ab", 32), "@sha256:" + strings.Repeat("ab", 32),
		"1.2.0@sha256:" + strings.Repeat("AB", 32), "1.2.0@sha512:" + strings.Repeat("ab", 32), full + " "}
	for _, text := range bad {
		if n, err := release.ParseName(text); err == nil {
			t.Errorf("%q is read as %v", text, n)
		}
	}
	if _, err := release.ParseName("1.2.0"); !errors.Is(err, release.ErrByTag) {
		t.Errorf("got %v, want %v", err, release.ErrByTag)
	}
	t.Attr("row", fmt.Sprintf("F50 %d", len(bad)))
}

func TestReleaseThatIsNotWholeIsNotSigned(t *testing.T) {
	k := newKey(t, "dev")
	for name, change := range map[string]func(*registryv1.ReleaseManifest){
		"no artefact":               func(m *registryv1.ReleaseManifest) { m.Artefacts = nil },
		"artefact twice":            func(m *registryv1.ReleaseManifest) { m.Artefacts = append(m.Artefacts, m.Artefacts[0]) },
		"migration twice":           func(m *registryv1.ReleaseManifest) { m.Migrations = append(m.Migrations, m.Migrations[0]) },
		"short digest":              func(m *registryv1.ReleaseManifest) { m.Artefacts[0].Digest = "sha256:ab" },
		"no version":                func(m *registryv1.ReleaseManifest) { m.Version = "" },
		"build metadata":            func(m *registryv1.ReleaseManifest) { m.Version = "1.2.0+x" },
		"minimum is later":          func(m *registryv1.ReleaseManifest) { m.MinimumVersion = "1.3.0" },
		"compatible with the later": func(m *registryv1.ReleaseManifest) { m.OldestCompatible = "2.0.0" },
		"minimum is none":           func(m *registryv1.ReleaseManifest) { m.MinimumVersion = "early" },
		"another plane":             func(m *registryv1.ReleaseManifest) { m.Plane = "prod" },
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := k.signer.Sign(t.Context(), manifest(change)); err == nil {
				t.Error("it is signed")
			}
		})
	}
}

// FuzzOpen looks for a panic, and for anything accepted that was not signed.
func FuzzOpen(f *testing.F) {
	private, public, err := release.NewKey("dev")
	if err != nil {
		f.Fatal(err)
	}
	s, err := release.NewSigner("dev", private)
	if err != nil {
		f.Fatal(err)
	}
	v, err := release.NewVerifier("dev", public)
	if err != nil {
		f.Fatal(err)
	}
	good, err := s.Sign(f.Context(), manifest())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, envelope []byte) {
		if o, err := v.Open(t.Context(), envelope); err == nil && !proto.Equal(o.Manifest, manifest()) {
			t.Errorf("accepted what was never signed: %v", o.Manifest)
		}
	})
}

func TestAReleaseSaysFromWhereAndHowFarBack(t *testing.T) {
	m := manifest(func(m *registryv1.ReleaseManifest) {
		m.Version, m.MinimumVersion, m.OldestCompatible = "1.4.0", "1.2.0", "1.3.0"
	})
	for version, want := range map[string]struct{ up, down bool }{
		"1.1.9": {false, false}, "1.2.0-rc.1": {false, false}, "1.2.0": {false, false}, "1.2.9": {false, false}, "1.3.0": {true, true}, "1.4.0-rc.1": {true, true},
		"1.4.0": {true, true}, "1.4.1": {false, false}, release.Development: {false, false},
	} {
		n := release.Name{Version: version}
		if got := release.CanUpgrade(n, m) == nil; got != want.up {
			t.Errorf("from %s: may be upgraded %v, want %v", version, got, want.up)
		}
		if got := release.CanDowngrade(m, n) == nil; got != want.down {
			t.Errorf("back to %s: may go back %v, want %v", version, got, want.down)
		}
	}
}

// What a registry says of a release is what was signed, or it is refused with what differs.
func TestReleaseThatTheRegistryTellsOtherwiseIsRefused(t *testing.T) {
	k := newKey(t, "dev")
	signed := manifest()
	name, err := release.NameOf(signed)
	if err != nil {
		t.Fatal(err)
	}
	other := manifest(func(m *registryv1.ReleaseManifest) { m.Version = "1.3.0" })
	for what, c := range map[string]struct {
		change func(*registryv1.Release)
		why    error
		says   string
	}{
		"as it was signed":                {func(*registryv1.Release) {}, nil, ""},
		"another artefact":                {func(r *registryv1.Release) { r.Manifest.Artefacts[0].Digest = release.Digest([]byte("x")) }, release.ErrChanged, "differs in artefacts"},
		"a migration less, another floor": {func(r *registryv1.Release) { r.Manifest.Migrations, r.Manifest.MinimumVersion = nil, "1.0.0" }, release.ErrChanged, "migrations, minimum_version"},
		"the signature of another":        {func(r *registryv1.Release) { r.Envelope = k.sign(t, other) }, release.ErrChanged, "its signature is of 1.3.0@"},
		"signed by a stranger":            {func(r *registryv1.Release) { r.Envelope = newKey(t, "dev").sign(t, signed) }, release.ErrUnsigned, "no key that this plane trusts"},
		"no signature":                    {func(r *registryv1.Release) { r.Envelope = nil }, release.ErrMalformed, name.String()},
	} {
		r := &registryv1.Release{Name: name.String(), Manifest: proto.CloneOf(signed), Envelope: k.sign(t, signed)}
		c.change(r)
		err := trusting(t, "dev", k).Hold(t.Context(), r)
		if !errors.Is(err, c.why) || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %v that says %q", what, err, c.why, c.says)
		}
	}
}
