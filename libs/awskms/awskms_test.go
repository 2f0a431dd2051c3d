package awskms_test

import (
	"context"
	"encoding/binary"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/tink-crypto/tink-go/v2/tink"

	"a3os.app/libs/awskms"
	"a3os.app/libs/id"
	"a3os.app/libs/ministacktest"
)

const purpose = "signing-keys"

// tenant is a tenant with a key, and a role that may use it as iam's does.
type tenant struct {
	id   id.Tenant
	arn  string
	role aws.Config
}

func newTenant(t *testing.T, server *ministacktest.Server) tenant {
	t.Helper()
	made, err := kms.NewFromConfig(server.Root()).CreateKey(t.Context(), &kms.CreateKeyInput{})
	if err != nil {
		t.Fatal(err)
	}
	who := id.NewTenant()
	key := *made.KeyMetadata.Arn
	role := server.Role(t, who.String()+"-iam-task", ministacktest.Statement{Effect: "Allow", Action: []string{"kms:Encrypt", "kms:Decrypt"}, Resource: []string{key}})
	return tenant{id: who, arn: key, role: role}
}

func (o tenant) key(t *testing.T, cfg aws.Config) tink.AEADWithContext {
	t.Helper()
	k, err := awskms.New(cfg, awskms.Scheme+o.arn, o.id, purpose)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// What rests under the key opens again, and is wrapped as the SDK alone unwraps it: with the tenant and the purpose, and not without.
func TestEnvelopeIsOneThatKMSAloneUnwraps(t *testing.T) {
	server := ministacktest.Start(t)
	o := newTenant(t, server)
	key := o.key(t, o.role)
	sealed, err := key.EncryptWithContext(t.Context(), []byte("a signing key"), []byte("kid"))
	if err != nil || strings.Contains(string(sealed), "a signing key") {
		t.Fatalf("%q, %v", sealed, err)
	}
	if got, err := key.DecryptWithContext(t.Context(), sealed, []byte("kid")); err != nil || string(got) != "a signing key" {
		t.Errorf("it opens to %q, %v", got, err)
	}
	if _, err := key.DecryptWithContext(t.Context(), sealed, []byte("another kid")); !errors.Is(err, awskms.ErrNotUnder) {
		t.Errorf("bound to something else: %v", err)
	}
	sealed[len(sealed)-1] ^= 1
	if _, err := key.DecryptWithContext(t.Context(), sealed, []byte("kid")); !errors.Is(err, awskms.ErrNotUnder) {
		t.Errorf("changed: %v", err)
	}
	// https://developers.google.com/tink/wire-format#envelope_encryption
	n := binary.BigEndian.Uint32(sealed)
	wrapped := sealed[4 : 4+n]
	client := kms.NewFromConfig(o.role)
	for what, c := range map[string]struct {
		context map[string]string
		good    bool
	}{
		"tenant and purpose": {map[string]string{"tenant": o.id.String(), "purpose": purpose}, true},
		"no context":         {nil, false},
		"another tenant":     {map[string]string{"tenant": id.NewTenant().String(), "purpose": purpose}, false},
		"another purpose":    {map[string]string{"tenant": o.id.String(), "purpose": "x"}, false},
	} {
		out, err := client.Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: wrapped, EncryptionContext: c.context})
		if (err == nil) != c.good || err == nil && (len(out.Plaintext) < 32 || *out.KeyId != o.arn) {
			t.Errorf("the SDK alone, with %s: %v", what, err)
		}
	}
}

// Neither another tenant's role nor the same key under another tenant's name opens it, and the first is told apart from the second.
func TestNothingOfAnotherTenantOpens(t *testing.T) {
	server := ministacktest.Start(t)
	a, b := newTenant(t, server), newTenant(t, server)
	sealed, err := a.key(t, a.role).EncryptWithContext(t.Context(), []byte("a's"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.key(t, b.role).DecryptWithContext(t.Context(), sealed, nil); err == nil || errors.Is(err, awskms.ErrNotUnder) || !strings.Contains(err.Error(), "AccessDenied") {
		t.Errorf("b's role with a's key: %v", err)
	}
	if _, err := a.key(t, b.role).EncryptWithContext(t.Context(), []byte("b's"), nil); err == nil || !strings.Contains(err.Error(), "AccessDenied") {
		t.Errorf("b's role encrypts under a's key: %v", err)
	}
	if _, err := b.key(t, b.role).DecryptWithContext(t.Context(), sealed, nil); !errors.Is(err, awskms.ErrNotUnder) {
		t.Errorf("a's under b's key: %v", err)
	}
	for what, other := range map[string]struct {
		who     id.Tenant
		purpose string
	}{"another tenant": {b.id, purpose}, "another purpose": {a.id, "x"}} {
		same, err := awskms.New(a.role, awskms.Scheme+a.arn, other.who, other.purpose)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := same.DecryptWithContext(t.Context(), sealed, nil); !errors.Is(err, awskms.ErrNotUnder) {
			t.Errorf("%s, with a's own role and key: %v", what, err)
		}
	}
}

// Fault F28 at KMS: a key service that throttles is asked again; one that goes on throttling is not taken for one that says no.
func TestThrottledKeyIsWaitedFor(t *testing.T) {
	server := ministacktest.Start(t)
	o := newTenant(t, server)
	var throttle, asked atomic.Int64
	behind := server.Behind(t, func(w http.ResponseWriter, _ *http.Request) bool {
		asked.Add(1)
		if throttle.Add(-1) < 0 {
			return false
		}
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write([]byte(`{"__type":"ThrottlingException","message":"You have exceeded the rate at which you may call KMS"}`))
		return true
	})
	key := o.key(t, behind.As(o.role))
	throttle.Store(2)
	sealed, err := key.EncryptWithContext(t.Context(), []byte("x"), nil)
	if err != nil || asked.Load() != 3 {
		t.Fatalf("asked %d times: %v", asked.Load(), err)
	}
	throttle.Store(2)
	if got, err := key.DecryptWithContext(t.Context(), sealed, nil); err != nil || string(got) != "x" {
		t.Errorf("it opens to %q, %v", got, err)
	}
	throttle.Store(1 << 20)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := key.DecryptWithContext(ctx, sealed, nil); err == nil || errors.Is(err, awskms.ErrNotUnder) {
		t.Errorf("throttled for good: %v", err)
	}
	t.Attr("row", "F28 3")
}

func TestPlacesThatAreNoKeysAreRefused(t *testing.T) {
	for _, bad := range []string{"", "arn:aws:kms:eu-central-1:123456789012:key/x", "awskms://", "awskms://key/x", "awskms://arn:aws:s3:::bucket",
		"awskms://arn:aws:kms:eu-central-1:123456789012:alias/x"} {
		if _, err := awskms.New(aws.Config{}, bad, id.NewTenant(), purpose); err == nil {
			t.Errorf("%q is taken for a key's place", bad)
		}
	}
	good := "awskms://arn:aws:kms:eu-west-1:123456789012:key/0b3f2a4e-0000-4000-8000-000000000000"
	if region, err := awskms.Region(good); err != nil || region != "eu-west-1" {
		t.Error(region, err)
	}
	if _, err := awskms.New(aws.Config{}, good, id.Tenant{}, purpose); err == nil {
		t.Error("a key for nobody")
	}
}
