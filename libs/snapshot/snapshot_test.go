package snapshot_test

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/dsse"
	"a3os.app/libs/id"
	"a3os.app/libs/snapshot"
)

// key is made from a fixed seed, so that corpora of the fuzz target stay good.
func key(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed([]byte(strings.Repeat(string(rune(seed)), ed25519.SeedSize)))
}

func public(k ed25519.PrivateKey) ed25519.PublicKey { return k.Public().(ed25519.PublicKey) }

func route(slug string) *registryv1.Route {
	return &registryv1.Route{
		Slug: slug, TenantId: id.NewTenant().String(), CaCertificatesPem: "-----BEGIN CERTIFICATE-----",
		Components: []*registryv1.Component{{Name: "iam", Address: "127.0.0.1:4001", PathPrefixes: []string{"/a3os.iam.v1."}}},
	}
}

func good() *registryv1.Snapshot {
	return &registryv1.Snapshot{Plane: "dev", Version: 7, Routes: []*registryv1.Route{route("acme"), route("globex")}}
}

// rawSign signs bytes that Sign would refuse, as a broken or hostile signer with the right key would.
func rawSign(t *testing.T, k ed25519.PrivateKey, raw []byte) *registryv1.SignedSnapshot {
	t.Helper()
	return &registryv1.SignedSnapshot{Snapshot: raw, KeyId: snapshot.KeyID(public(k)), Signature: ed25519.Sign(k, dsse.PAE(snapshot.PayloadType, raw))}
}

func marshal(t *testing.T, s *registryv1.Snapshot) []byte {
	t.Helper()
	raw, err := proto.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func sign(t *testing.T, s *registryv1.Snapshot) *registryv1.SignedSnapshot {
	t.Helper()
	signer, err := snapshot.NewSigner("dev", key('k'))
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign(s)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func verifier(t testing.TB) *snapshot.Verifier {
	t.Helper()
	v, err := snapshot.NewVerifier("dev", public(key('k')))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestSignedSnapshotIsAcceptedAndComesBackEqual(t *testing.T) {
	want := good()
	got, err := verifier(t).Verify(sign(t, want), want.GetVersion())
	if err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestSameSnapshotIsSignedToTheSameBytesByEveryProcess(t *testing.T) {
	s := good()
	if a, b := sign(t, s), sign(t, proto.CloneOf(s)); !proto.Equal(a, b) {
		t.Error("two signers with one key signed one snapshot differently")
	}
}

// Attacks C46 and C47.
func TestBadSnapshotIsRefusedByName(t *testing.T) {
	cases := map[string]struct {
		have   int64
		signed func(t *testing.T) *registryv1.SignedSnapshot
		want   error
	}{
		"nil":   {signed: func(*testing.T) *registryv1.SignedSnapshot { return nil }, want: snapshot.ErrKey},
		"empty": {signed: func(*testing.T) *registryv1.SignedSnapshot { return &registryv1.SignedSnapshot{} }, want: snapshot.ErrKey},
		"unknown key": {want: snapshot.ErrKey, signed: func(t *testing.T) *registryv1.SignedSnapshot {
			return rawSign(t, key('x'), marshal(t, good()))
		}},
		"another key under the known id": {want: snapshot.ErrSignature, signed: func(t *testing.T) *registryv1.SignedSnapshot {
			s := rawSign(t, key('x'), marshal(t, good()))
			s.KeyId = snapshot.KeyID(public(key('k')))
			return s
		}},
		"truncated": {want: snapshot.ErrSignature, signed: func(t *testing.T) *registryv1.SignedSnapshot {
			s := sign(t, good())
			s.Snapshot = s.GetSnapshot()[:len(s.GetSnapshot())-1]
			return s
		}},
		"signature cut": {want: snapshot.ErrSignature, signed: func(t *testing.T) *registryv1.SignedSnapshot {
			s := sign(t, good())
			s.Signature = s.GetSignature()[:63]
			return s
		}},
		"signed without the payload type": {want: snapshot.ErrSignature, signed: func(t *testing.T) *registryv1.SignedSnapshot {
			s := sign(t, good())
			s.Signature = ed25519.Sign(key('k'), s.GetSnapshot())
			return s
		}},
		"another plane": {want: snapshot.ErrPlane, signed: func(t *testing.T) *registryv1.SignedSnapshot {
			s := good()
			s.Plane = "prod"
			return rawSign(t, key('k'), marshal(t, s))
		}},
		"older": {have: 8, want: snapshot.ErrOlder, signed: func(t *testing.T) *registryv1.SignedSnapshot { return sign(t, good()) }},
		"too large": {want: snapshot.ErrTooLarge, signed: func(t *testing.T) *registryv1.SignedSnapshot {
			return rawSign(t, key('k'), make([]byte, snapshot.MaxBytes+1))
		}},
		"not a snapshot": {want: snapshot.ErrMalformed, signed: func(t *testing.T) *registryv1.SignedSnapshot {
			return rawSign(t, key('k'), []byte{0xff, 0xff})
		}},
		"no version": {want: snapshot.ErrMalformed, signed: changed(func(s *registryv1.Snapshot) { s.Version = 0 })},
		"slug twice": {want: snapshot.ErrMalformed, signed: changed(func(s *registryv1.Snapshot) { s.Routes[1].Slug = "acme" })},
		"tenant twice": {want: snapshot.ErrMalformed, signed: changed(func(s *registryv1.Snapshot) {
			s.Routes[1].TenantId = s.GetRoutes()[0].GetTenantId()
		})},
		"slug with a dot":      {want: snapshot.ErrMalformed, signed: changed(func(s *registryv1.Snapshot) { s.Routes[0].Slug = "a.b" })},
		"no tenant":            {want: snapshot.ErrMalformed, signed: changed(func(s *registryv1.Snapshot) { s.Routes[0].TenantId = "" })},
		"no authority":         {want: snapshot.ErrMalformed, signed: changed(func(s *registryv1.Snapshot) { s.Routes[0].CaCertificatesPem = "" })},
		"address without port": {want: snapshot.ErrMalformed, signed: changed(func(s *registryv1.Snapshot) { s.Routes[0].Components[0].Address = "127.0.0.1" })},
		"relative path prefix": {want: snapshot.ErrMalformed, signed: changed(func(s *registryv1.Snapshot) { s.Routes[0].Components[0].PathPrefixes = []string{"x"} })},
	}
	v := verifier(t)
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := v.Verify(c.signed(t), c.have)
			if !errors.Is(err, c.want) || got != nil {
				t.Errorf("got %v, %v; want %v", got, err, c.want)
			}
		})
	}
	t.Attr("row", "C46 1")
	t.Attr("row", fmt.Sprintf("C47 %d", len(cases)-1))
}

func changed(change func(*registryv1.Snapshot)) func(t *testing.T) *registryv1.SignedSnapshot {
	return func(t *testing.T) *registryv1.SignedSnapshot {
		s := good()
		change(s)
		return rawSign(t, key('k'), marshal(t, s))
	}
}

// Attack C47.
func TestEveryFlippedBitIsNoticed(t *testing.T) {
	v, signed := verifier(t), sign(t, good())
	for i := range signed.GetSnapshot() {
		for bit := range 8 {
			signed.Snapshot[i] ^= 1 << bit
			if _, err := v.Verify(signed, 0); !errors.Is(err, snapshot.ErrSignature) {
				t.Fatalf("bit %d of octet %d flipped: %v", bit, i, err)
			}
			signed.Snapshot[i] ^= 1 << bit
		}
	}
	t.Attr("row", fmt.Sprintf("C47 %d", 8*len(signed.GetSnapshot())))
}

func TestSignerSignsItsOwnPlaneOnly(t *testing.T) {
	signer, err := snapshot.NewSigner("prod", key('k'))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := signer.Sign(good()); !errors.Is(err, snapshot.ErrPlane) {
		t.Errorf("signing another plane's snapshot: %v", err)
	}
}

func TestKeysSurviveTheirText(t *testing.T) {
	text, err := snapshot.FormatPrivateKey(key('k'))
	if err != nil {
		t.Fatal(err)
	}
	private, err := snapshot.ParsePrivateKey(text)
	if err != nil || !private.Equal(key('k')) {
		t.Errorf("the private key came back as another: %v", err)
	}
	pub, err := snapshot.ParsePublicKey(snapshot.FormatPublicKey(public(key('k'))))
	if err != nil || !pub.Equal(public(key('k'))) {
		t.Errorf("the public key came back as another: %v", err)
	}
	for _, bad := range []string{"", "AAAA", "not base64!"} {
		if _, err := snapshot.ParsePublicKey(bad); err == nil {
			t.Errorf("%q was read as a key", bad)
		}
	}
}

// FuzzVerify looks for a panic, and for anything accepted that the signer did not sign.
func FuzzVerify(f *testing.F) {
	v := verifier(f)
	signer, err := snapshot.NewSigner("dev", key('k'))
	if err != nil {
		f.Fatal(err)
	}
	signed, err := signer.Sign(&registryv1.Snapshot{Plane: "dev", Version: 1})
	if err != nil {
		f.Fatal(err)
	}
	seed, err := proto.Marshal(signed)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed, false)
	f.Add(signed.GetSnapshot(), true)
	f.Add([]byte{0x22, 0x02, 0x0a, 0x00}, true)
	f.Fuzz(func(t *testing.T, raw []byte, resign bool) {
		s := &registryv1.SignedSnapshot{}
		if resign { // raw is a snapshot: the decoder behind the signature is tried too
			s = &registryv1.SignedSnapshot{Snapshot: raw, KeyId: signed.GetKeyId(), Signature: ed25519.Sign(key('k'), dsse.PAE(snapshot.PayloadType, raw))}
		} else if proto.Unmarshal(raw, s) != nil {
			return
		}
		got, err := v.Verify(s, 1)
		if err == nil && !resign && string(s.GetSnapshot()) != string(signed.GetSnapshot()) {
			t.Errorf("accepted what was never signed: %v", got)
		}
		if err == nil && got.GetPlane() != "dev" {
			t.Errorf("accepted a snapshot of plane %q", got.GetPlane())
		}
	})
}
