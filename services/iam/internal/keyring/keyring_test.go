package keyring_test

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"sync"
	"testing"
	"time"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"

	"a3os.app/libs/config"
	"a3os.app/libs/id"

	"a3os.app/services/iam/internal/iamtest"
	"a3os.app/services/iam/internal/keyring"
)

func TestKeysOutliveARestartAndRestSealed(t *testing.T) {
	e := iamtest.New(t)
	again, err := keyring.Open(t.Context(), e.TenantDB, e.Tenant, e.KEK, e.Clock.Now)
	if err != nil {
		t.Fatal(err)
	}
	if again.Signer().KeyID != e.Keys.Signer().KeyID || !again.Signer().Key.Equal(e.Keys.Signer().Key) {
		t.Error("a restart signs with another key")
	}
	var sealed []byte
	if err := e.Super.QueryRow(t.Context(), "SELECT sealed FROM iam.signing_keys WHERE state = 'current'").Scan(&sealed); err != nil {
		t.Fatal(err)
	}
	if private := e.Keys.Signer().Key.D.Bytes(); bytes.Contains(sealed, private) { //nolint:staticcheck // the secret itself is what must not be there
		t.Error("the private key rests in clear")
	}
}

func TestSealedKeyIsWorthNothingElsewhere(t *testing.T) {
	e := iamtest.New(t)
	other := kek(t, rand.Text()[:16]+rand.Text()[:16])
	if _, err := keyring.Open(t.Context(), e.TenantDB, e.Tenant, other, e.Clock.Now); err == nil {
		t.Error("it opens with another key-encryption key")
	}
	if _, err := keyring.Open(t.Context(), e.TenantDB, id.NewTenant(), e.KEK, e.Clock.Now); err == nil {
		t.Error("it opens for another tenant")
	}
	e.DB.Exec(t, "UPDATE iam.signing_keys SET sealed = (SELECT sealed FROM iam.signing_keys WHERE state = 'next') WHERE state = 'current'")
	if _, err := keyring.Open(t.Context(), e.TenantDB, e.Tenant, e.KEK, e.Clock.Now); err == nil {
		t.Error("it opens under another key's id")
	}
}

func TestRotationFailsNoTokenThatLives(t *testing.T) {
	e := iamtest.New(t)
	old := e.Refresh(t, e.Session(t, e.Admin)).AccessToken
	was := e.Keys.Signer().KeyID
	published := map[string]bool{}
	for _, k := range e.Keys.KeySet().Keys {
		published[k.KeyID] = true
	}
	e.Clock.Advance(keyring.PublishBefore)
	if _, err := rotate(e, t.Context(), false); err != nil {
		t.Fatal(err)
	}
	now := e.Keys.Signer().KeyID
	if now == was || !published[now] {
		t.Errorf("signs with %s, published before were %v: verifiers must know the next key", now, published)
	}
	e.Claims(t, old)
	e.Claims(t, e.Refresh(t, e.Session(t, e.Admin)).AccessToken)
	if n := len(e.Keys.KeySet().Keys); n != 3 {
		t.Errorf("%d keys are published, want previous, current and next", n)
	}
	e.Clock.Advance(16 * time.Minute)
	if err := e.Keys.Maintain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Keys.Key(t.Context(), was); err == nil {
		t.Error("a key that nothing living was signed with is still published")
	}
	e.Clock.Advance(keyring.RotateEvery)
	if err := e.Keys.Maintain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if e.Keys.Signer().KeyID == now {
		t.Error("the key was not rotated when its time had come")
	}
	if events := e.Events(t, "iam.signing_keys.rotated"); len(events) != 1 || events[0].GetActor() != "workload:iam" || events[0].GetTarget() != e.Keys.Signer().KeyID {
		t.Errorf("the record has %v of the rotation that nobody asked for", events)
	}
}

func TestTwoProcessesThatStartAtOnceHaveOneKey(t *testing.T) {
	e := iamtest.New(t)
	e.DB.Exec(t, "DELETE FROM iam.signing_keys")
	var mu sync.Mutex
	kids := map[string]bool{}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			r, err := keyring.Open(t.Context(), e.TenantDB, e.Tenant, e.KEK, e.Clock.Now)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			kids[r.Signer().KeyID] = true
		})
	}
	wg.Wait()
	if len(kids) != 1 {
		t.Errorf("they sign with %v", kids)
	}
}

func TestKeyEncryptionKeyIsReadInBothForms(t *testing.T) {
	raw := make([]byte, 32)
	_, _ = rand.Read(raw)
	handle, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := insecurecleartextkeyset.Write(handle, keyset.NewJSONWriter(&text)); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"base64": base64.StdEncoding.EncodeToString(raw), "base64url": base64.RawURLEncoding.EncodeToString(raw), "keyset": text.String(),
	} {
		c, err := keyring.NewKEK(config.NewSecret(text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		sealed, err := c.EncryptWithContext(t.Context(), []byte("x"), nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := c.DecryptWithContext(t.Context(), sealed, nil); err != nil || string(got) != "x" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	for _, bad := range []string{"", "short", base64.StdEncoding.EncodeToString(raw[:16]), "{}", `{"primaryKeyId":1}`} {
		if _, err := keyring.NewKEK(config.NewSecret(bad)); err == nil || (bad != "" && bytes.Contains([]byte(err.Error()), []byte(bad)) && len(bad) > 5) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
