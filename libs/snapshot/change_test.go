package snapshot_test

import (
	"crypto/ed25519"
	"errors"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/dsse"
	"a3os.app/libs/id"
	"a3os.app/libs/snapshot"
)

func change() *registryv1.SnapshotChange {
	return &registryv1.SnapshotChange{Plane: "dev", FromVersion: 7, Version: 9, Routes: []*registryv1.Route{route("acme")}, RemovedTenantIds: []string{id.NewTenant().String()}}
}

// rawSignChange signs what SignChange would refuse.
func rawSignChange(t testing.TB, k ed25519.PrivateKey, c *registryv1.SnapshotChange) *registryv1.SignedSnapshotChange {
	t.Helper()
	raw, err := proto.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return &registryv1.SignedSnapshotChange{Change: raw, KeyId: snapshot.KeyID(public(k)), Signature: ed25519.Sign(k, dsse.PAE(snapshot.ChangePayloadType, raw))}
}

func TestSignedChangeIsAcceptedByWhoeverHoldsWhatItChanges(t *testing.T) {
	signer, err := snapshot.NewSigner("dev", key('k'))
	if err != nil {
		t.Fatal(err)
	}
	want := change()
	signed, err := signer.SignChange(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := verifier(t).VerifyChange(signed, 7)
	if err != nil || !proto.Equal(got, want) {
		t.Fatalf("got %v, %v", got, err)
	}
	for have, wants := range map[int64]error{0: snapshot.ErrGap, 6: snapshot.ErrGap, 8: snapshot.ErrGap, 9: snapshot.ErrOlder, 10: snapshot.ErrOlder} {
		if _, err := verifier(t).VerifyChange(signed, have); !errors.Is(err, wants) {
			t.Errorf("held at %d it is met with %v, want %v", have, err, wants)
		}
	}
}

// Attack rows C46 and C47, for changes.
func TestBadChangeIsRefused(t *testing.T) {
	good := rawSignChange(t, key('k'), change())
	for name, c := range map[string]struct {
		signed *registryv1.SignedSnapshotChange
		want   error
	}{
		"nothing":             {&registryv1.SignedSnapshotChange{}, snapshot.ErrKey},
		"unknown key":         {rawSignChange(t, key('x'), change()), snapshot.ErrKey},
		"cut short":           {&registryv1.SignedSnapshotChange{Change: good.GetChange()[:20], KeyId: good.GetKeyId(), Signature: good.GetSignature()}, snapshot.ErrSignature},
		"another's signature": {&registryv1.SignedSnapshotChange{Change: good.GetChange(), KeyId: good.GetKeyId(), Signature: ed25519.Sign(key('x'), dsse.PAE(snapshot.ChangePayloadType, good.GetChange()))}, snapshot.ErrSignature},
		"signed as a snapshot": {&registryv1.SignedSnapshotChange{Change: good.GetChange(), KeyId: good.GetKeyId(), Signature: ed25519.Sign(key('k'), dsse.PAE(snapshot.PayloadType, good.GetChange()))},
			snapshot.ErrSignature},
		"too large":                 {&registryv1.SignedSnapshotChange{Change: []byte(strings.Repeat("x", snapshot.MaxBytes+1)), KeyId: good.GetKeyId(), Signature: good.GetSignature()}, snapshot.ErrTooLarge},
		"other plane":               {rawSignChange(t, key('k'), with(func(c *registryv1.SnapshotChange) { c.Plane = "prod" })), snapshot.ErrPlane},
		"from nothing":              {rawSignChange(t, key('k'), with(func(c *registryv1.SnapshotChange) { c.FromVersion = 0 })), snapshot.ErrMalformed},
		"leads back":                {rawSignChange(t, key('k'), with(func(c *registryv1.SnapshotChange) { c.Version = 7 })), snapshot.ErrMalformed},
		"slug twice":                {rawSignChange(t, key('k'), with(func(c *registryv1.SnapshotChange) { c.Routes = append(c.Routes, route("acme")) })), snapshot.ErrMalformed},
		"slug that is no label":     {rawSignChange(t, key('k'), with(func(c *registryv1.SnapshotChange) { c.Routes[0].Slug = "a.b" })), snapshot.ErrMalformed},
		"removed and changed":       {rawSignChange(t, key('k'), with(func(c *registryv1.SnapshotChange) { c.RemovedTenantIds[0] = c.GetRoutes()[0].GetTenantId() })), snapshot.ErrMalformed},
		"removed that is no tenant": {rawSignChange(t, key('k'), with(func(c *registryv1.SnapshotChange) { c.RemovedTenantIds[0] = "acme" })), snapshot.ErrMalformed},
	} {
		if _, err := verifier(t).VerifyChange(c.signed, 7); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
	signer, err := snapshot.NewSigner("dev", key('k'))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := signer.SignChange(with(func(c *registryv1.SnapshotChange) { c.Plane = "prod" })); !errors.Is(err, snapshot.ErrPlane) {
		t.Errorf("a change of another plane is signed: %v", err)
	}
	if _, err := verifier(t).Verify(&registryv1.SignedSnapshot{Snapshot: good.GetChange(), KeyId: good.GetKeyId(), Signature: good.GetSignature()}, 0); !errors.Is(err, snapshot.ErrSignature) {
		t.Errorf("a change reads as a snapshot: %v", err)
	}
}

func with(do func(*registryv1.SnapshotChange)) *registryv1.SnapshotChange {
	c := change()
	do(c)
	return c
}

// FuzzVerifyChange gives the reader any bytes, signed: what it takes can be signed again.
func FuzzVerifyChange(f *testing.F) {
	good := rawSignChange(f, key('k'), change()).GetChange()
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add([]byte{})
	signer, err := snapshot.NewSigner("dev", key('k'))
	if err != nil {
		f.Fatal(err)
	}
	v := verifier(f)
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := v.VerifyChange(&registryv1.SignedSnapshotChange{Change: raw, KeyId: snapshot.KeyID(public(key('k'))), Signature: ed25519.Sign(key('k'), dsse.PAE(snapshot.ChangePayloadType, raw))}, 7)
		if err != nil {
			if len(err.Error()) > 2000 {
				t.Fatalf("%d bytes are refused with %d", len(raw), len(err.Error()))
			}
			return
		}
		if _, err := signer.SignChange(got); err != nil {
			t.Fatalf("what was taken can't be signed: %v", err)
		}
	})
}
