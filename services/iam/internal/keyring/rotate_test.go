package keyring_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"

	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"

	"a3os.app/libs/config"

	"a3os.app/services/iam/internal/iamtest"
	"a3os.app/services/iam/internal/keyring"
)

// kek is a key-encryption key of as many raw keys, the one that seals first.
func kek(t *testing.T, raw ...string) *keyring.KEK {
	t.Helper()
	var text string
	for _, r := range raw {
		text += base64.StdEncoding.EncodeToString([]byte(r)) + "\n"
	}
	k, err := keyring.NewKEK(config.NewSecret(text))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func rotate(e *iamtest.Env, ctx context.Context, emergency bool) (*iamv1.SigningKeySet, error) {
	var set *iamv1.SigningKeySet
	err := e.TenantDB.Service(ctx, func(ctx context.Context, tx pgx.Tx) error {
		var err error
		set, err = e.Keys.Rotate(ctx, tx, emergency)
		return err
	})
	return set, errors.Join(err, e.Keys.Maintain(ctx))
}

func TestKeyThatNotEverybodyKnowsDoesNotSign(t *testing.T) {
	e := iamtest.New(t)
	was := e.Keys.Signer().KeyID
	if _, err := rotate(e, t.Context(), false); !errors.Is(err, keyring.ErrTooSoon) {
		t.Fatalf("a key that was just published signs: %v", err)
	}
	e.Clock.Advance(keyring.PublishBefore)
	if _, err := rotate(e, t.Context(), false); err != nil || e.Keys.Signer().KeyID == was {
		t.Fatalf("after %s: %v", keyring.PublishBefore, err)
	}
	// The database's clock says when the key after it was made, and the test's is ahead: it has been published for no time at all.
	e.DB.Exec(t, "UPDATE iam.signing_keys SET created_at = $1 WHERE state = 'next'", e.Clock.Now())
	if _, err := rotate(e, t.Context(), false); !errors.Is(err, keyring.ErrTooSoon) {
		t.Errorf("a second rotation at once: %v", err)
	}
}

func TestEmergencyLeavesNoKeyOfBefore(t *testing.T) {
	e := iamtest.New(t)
	refresh := e.Session(t, e.Admin)
	in := e.Refresh(t, refresh)
	e.Claims(t, in.AccessToken)
	e.Clock.Advance(keyring.PublishBefore)
	if _, err := rotate(e, t.Context(), false); err != nil { // so that there is a previous key as well
		t.Fatal(err)
	}
	before := e.Keys.IDs()
	set, err := rotate(e, t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	if len(before) != 3 || len(set.GetSigningKeys()) != 2 {
		t.Errorf("%d keys before, %d after", len(before), len(set.GetSigningKeys()))
	}
	for _, id := range before {
		if _, err := e.Keys.Key(t.Context(), id); err == nil {
			t.Errorf("key %s is still published", id)
		}
	}
	if _, err := e.OAuth.Verifier().Verify(t.Context(), in.AccessToken); err == nil {
		t.Error("a token of before verifies, from the cache")
	}
	again := e.Refresh(t, in.RefreshToken)
	if again.Status != 200 {
		t.Fatalf("the session ended: %+v", again)
	}
	e.Claims(t, again.AccessToken)
}

func TestSecondProcessTakesUpAnEmergencyRotation(t *testing.T) {
	e := iamtest.New(t)
	second, err := keyring.Open(t.Context(), e.TenantDB, e.Tenant, e.KEK, e.Clock.Now)
	if err != nil {
		t.Fatal(err)
	}
	generation := second.Generation()
	if _, err := rotate(e, t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if err := second.Maintain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if second.Signer().KeyID != e.Keys.Signer().KeyID || second.Generation() == generation {
		t.Error("the second process signs with a key that was dropped, or believes what it verified with one")
	}
}

// The key-encryption key is changed in two restarts, and what a service signed in between stays good.
func TestKeyEncryptionKeyIsChangedWithoutANewSigningKey(t *testing.T) {
	const old, next = "the key of last year, 32 bytes. ", "the key of this year, 32 bytes. "
	e := iamtest.New(t)
	e.DB.Exec(t, "DELETE FROM iam.signing_keys")
	open := func(k *keyring.KEK) (*keyring.Ring, error) {
		return keyring.Open(t.Context(), e.TenantDB, e.Tenant, k, e.Clock.Now)
	}
	first, err := open(kek(t, old))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := open(kek(t, next)); err == nil {
		t.Fatal("the new key opens what rests under the old one: it is no test")
	}
	for _, k := range []*keyring.KEK{kek(t, next, old), kek(t, next)} {
		ring, err := open(k)
		if err != nil {
			t.Fatal(err)
		}
		if ring.Signer().KeyID != first.Signer().KeyID || !ring.Signer().Key.Equal(first.Signer().Key) {
			t.Error("the signing key changed with the key-encryption key")
		}
	}
	if _, err := open(kek(t, old)); err == nil {
		t.Error("the old key-encryption key still opens the signing keys")
	}
	e.Clock.Advance(keyring.RotateEvery + time.Minute)
	ring, err := open(kek(t, next))
	if err != nil || ring.Signer().KeyID == first.Signer().KeyID {
		t.Errorf("the key that was next did not come over: %v", err)
	}
}

func TestTinkKeysetSealsAgainUnderItsPrimaryKey(t *testing.T) {
	e := iamtest.New(t)
	e.DB.Exec(t, "DELETE FROM iam.signing_keys")
	manager := keyset.NewManager()
	add := func() (*keyring.KEK, uint32) {
		id, err := manager.Add(aead.AES256GCMKeyTemplate())
		if err != nil {
			t.Fatal(err)
		}
		if err := manager.SetPrimary(id); err != nil {
			t.Fatal(err)
		}
		return read(t, manager), id
	}
	both, old := add()
	if _, err := keyring.Open(t.Context(), e.TenantDB, e.Tenant, both, e.Clock.Now); err != nil {
		t.Fatal(err)
	}
	both, _ = add()
	if _, err := keyring.Open(t.Context(), e.TenantDB, e.Tenant, both, e.Clock.Now); err != nil {
		t.Fatal(err)
	}
	if err := manager.Delete(old); err != nil {
		t.Fatal(err)
	}
	if _, err := keyring.Open(t.Context(), e.TenantDB, e.Tenant, read(t, manager), e.Clock.Now); err != nil {
		t.Errorf("without the old key the signing keys don't open: %v", err)
	}
}

func read(t *testing.T, manager *keyset.Manager) *keyring.KEK {
	t.Helper()
	handle, err := manager.Handle()
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := insecurecleartextkeyset.Write(handle, keyset.NewJSONWriter(&text)); err != nil {
		t.Fatal(err)
	}
	k, err := keyring.NewKEK(config.NewSecret(text.String()))
	if err != nil {
		t.Fatal(err)
	}
	return k
}
