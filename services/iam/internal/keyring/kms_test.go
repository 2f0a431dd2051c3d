package keyring_test

import (
	"encoding/binary"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/tink-crypto/tink-go/v2/tink"

	"a3os.app/libs/awskms"
	"a3os.app/libs/id"
	"a3os.app/libs/ministacktest"

	"a3os.app/services/iam/internal/iamtest"
	"a3os.app/services/iam/internal/keyring"
)

// kmsKey is a key of KMS's, and a role that may use it.
func kmsKey(t *testing.T, server *ministacktest.Server, role string) (arn string, cfg aws.Config) {
	t.Helper()
	made, err := kms.NewFromConfig(server.Root()).CreateKey(t.Context(), &kms.CreateKeyInput{})
	if err != nil {
		t.Fatal(err)
	}
	arn = *made.KeyMetadata.Arn
	return arn, server.Role(t, role, ministacktest.Statement{Effect: "Allow", Action: []string{"kms:Encrypt", "kms:Decrypt"}, Resource: []string{arn}})
}

func underKMS(t *testing.T, cfg aws.Config, arn string, tenant id.Tenant) tink.AEADWithContext {
	t.Helper()
	key, err := awskms.New(cfg, awskms.Scheme+arn, tenant, "signing-keys")
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// A tenant's signing keys go over to KMS at a restart, and from one key of KMS's to the next in two, without a new signing key; then the first
// may be gone. KMS is asked when something is new, and not whenever somebody looks. Fault F28: it throttles while iam starts.
func TestSigningKeysRestUnderKMS(t *testing.T) {
	server := ministacktest.Start(t)
	e := iamtest.New(t)
	signs := e.Keys.Signer().KeyID
	var asked, throttle atomic.Int64
	behind := server.Behind(t, func(w http.ResponseWriter, _ *http.Request) bool {
		asked.Add(1)
		if throttle.Add(-1) < 0 {
			return false
		}
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write([]byte(`{"__type":"ThrottlingException","message":"Rate exceeded"}`))
		return true
	})
	arn, role := kmsKey(t, server, "iam-task")
	next, nextRole := kmsKey(t, server, "iam-task-next")
	first, second := underKMS(t, behind.As(role), arn, e.Tenant), underKMS(t, server.As(nextRole), next, e.Tenant)
	open := func(k *keyring.KEK) *keyring.Ring {
		t.Helper()
		r, err := keyring.Open(t.Context(), e.TenantDB, e.Tenant, k, e.Clock.Now)
		if err != nil {
			t.Fatal(err)
		}
		if r.Signer().KeyID != signs {
			t.Errorf("%s signs now, and not %s", r.Signer().KeyID, signs)
		}
		return r
	}
	throttle.Store(2)
	ring := open(e.KEK.Under(first))
	// The SDK alone unwraps what each key rests under, with the tenant's name.
	rows, err := e.Super.Query(t.Context(), "SELECT sealed FROM iam.signing_keys WHERE state <> 'previous'")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	n := 0
	for ; rows.Next(); n++ {
		var sealed []byte
		if err := rows.Scan(&sealed); err != nil {
			t.Fatal(err)
		}
		size := binary.BigEndian.Uint32(sealed)
		if uint64(size) > uint64(len(sealed)-4) {
			t.Fatal("a key does not rest in an envelope")
		}
		if _, err := kms.NewFromConfig(role).Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: sealed[4 : 4+size], EncryptionContext: map[string]string{"tenant": e.Tenant.String(), "purpose": "signing-keys"}}); err != nil {
			t.Error(err)
		}
	}
	if n != 2 || rows.Err() != nil {
		t.Fatalf("%d keys, %v", n, rows.Err())
	}
	before := asked.Load()
	for range 3 {
		if err := ring.Maintain(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if asked.Load() != before {
		t.Errorf("KMS was asked %d times by who only looks", asked.Load()-before)
	}
	// What was given at first no longer opens anything by itself.
	if _, err := keyring.Open(t.Context(), e.TenantDB, e.Tenant, e.KEK, e.Clock.Now); err == nil || !strings.Contains(err.Error(), "check A3_KEK and A3_KMS_KEY") {
		t.Errorf("without KMS: %v", err)
	}
	open(e.KEK.Under(second, first))
	open(e.KEK.Under(second))
	t.Attr("row", "F28 1")
}

// A role that may not use the key, and one that may with a key of another tenant's: iam does not start, and says which it is.
func TestKMSThatSaysNoIsToldFromAnotherTenantsKeys(t *testing.T) {
	server := ministacktest.Start(t)
	e := iamtest.New(t)
	arn, role := kmsKey(t, server, "iam-task")
	_, other := kmsKey(t, server, "iam-task-of-another")
	if _, err := keyring.Open(t.Context(), e.TenantDB, e.Tenant, e.KEK.Under(underKMS(t, role, arn, e.Tenant)), e.Clock.Now); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		key  tink.AEADWithContext
		want string
	}{
		"another's role":   {underKMS(t, other, arn, e.Tenant), "AccessDenied"},
		"another's tenant": {underKMS(t, role, arn, id.NewTenant()), "belongs to another tenant"},
	} {
		_, err := keyring.Open(t.Context(), e.TenantDB, e.Tenant, e.KEK.Under(c.key), e.Clock.Now)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}
