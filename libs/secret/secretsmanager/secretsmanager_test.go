package secretsmanager_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"a3os.app/libs/binding"
	"a3os.app/libs/binding/bindingtest"
	"a3os.app/libs/config"
	"a3os.app/libs/id"
	"a3os.app/libs/ministacktest"
	"a3os.app/libs/secret"
	"a3os.app/libs/secret/secretsmanager"
	"a3os.app/libs/secret/secrettest"
)

// tenant is a tenant with a store, and roles that may what who writes and who reads may.
type tenant struct {
	id          id.Tenant
	where       string
	keys        secret.Keys
	write, read aws.Config
}

func newTenant(t *testing.T, server *ministacktest.Server) tenant {
	t.Helper()
	keys, err := secret.NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	o := tenant{id: id.NewTenant(), keys: keys}
	o.where = "secretsmanager://tenant/" + o.id.String() + "/store/secrets"
	if changed, err := secretsmanager.Create(t.Context(), server.Root(), o.where, bindingtest.Signer(t), o.id, keys.Public); err != nil || !changed {
		t.Fatal(changed, err)
	}
	arn := "arn:aws:secretsmanager:" + ministacktest.Region + ":" + ministacktest.Account + ":secret:tenant/" + o.id.String() + "/store/secrets/"
	o.write = server.Role(t, o.id.String()+"-write",
		ministacktest.Statement{Effect: "Allow", Action: []string{"secretsmanager:CreateSecret", "secretsmanager:PutSecretValue", "secretsmanager:DeleteSecret", "secretsmanager:TagResource"}, Resource: []string{arn + "*"}},
		ministacktest.Statement{Effect: "Allow", Action: []string{"secretsmanager:GetSecretValue"}, Resource: []string{arn + "MARK-??????"}})
	o.read = server.Role(t, o.id.String()+"-read", ministacktest.Statement{Effect: "Allow", Action: []string{"secretsmanager:GetSecretValue"}, Resource: []string{arn + "*"}})
	return o
}

func (o tenant) writer(t *testing.T, cfg aws.Config) *secretsmanager.Writer {
	t.Helper()
	w, err := secretsmanager.OpenWriter(t.Context(), cfg, o.where, bindingtest.Owner(t, o.id), o.keys.Public)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func (o tenant) reader(t *testing.T, cfg aws.Config) *secretsmanager.Reader {
	t.Helper()
	r, err := secretsmanager.OpenReader(t.Context(), cfg, o.where, bindingtest.Owner(t, o.id), o.keys.Private)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestSecretsManager(t *testing.T) {
	server := ministacktest.Start(t)
	secrettest.Run(t, func(t *testing.T) secrettest.Store {
		o := newTenant(t, server)
		return secrettest.Store{Tenant: o.id, Writer: o.writer(t, o.write), Reader: o.reader(t, o.read)}
	})
}

func TestStoreOfAnotherTenantIsNotOpened(t *testing.T) {
	server := ministacktest.Start(t)
	a, b := newTenant(t, server), newTenant(t, server)
	path := secrettest.PathOf(a.id)
	if err := a.writer(t, a.write).Put(t.Context(), path, config.NewSecret("a's")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := a.reader(t, a.read).Get(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	for what, cfg := range map[string]aws.Config{"reads": b.read, "writes": b.write} {
		if _, err := secretsmanager.OpenReader(t.Context(), cfg, a.where, bindingtest.Owner(t, a.id), a.keys.Private); err == nil || !strings.Contains(err.Error(), "AccessDenied") {
			t.Errorf("the role that %s another's opens the store: %v", what, err)
		}
	}
	// Who writes can't read, whatever key it has.
	if _, _, err := a.reader(t, a.write).Get(t.Context(), path); err == nil || !strings.Contains(err.Error(), "AccessDenied") {
		t.Errorf("who writes reads: %v", err)
	}
	if _, err := secretsmanager.OpenReader(t.Context(), a.read, a.where, bindingtest.Owner(t, b.id), a.keys.Private); err == nil {
		t.Error("the place of another was opened by name")
	}
	if _, err := secretsmanager.OpenReader(t.Context(), a.read, a.where, bindingtest.Owner(t, a.id), b.keys.Private); !errors.Is(err, binding.ErrForeign) && err == nil {
		t.Errorf("a store that is sealed to another key: %v", err)
	}
}

// Fault F28: Secrets Manager throttles. What was read once is read all the same, what wasn't is waited for, and a rotation is noticed as soon
// as the store answers.
func TestThrottledStoreIsReadFromMemoryAndWaitedFor(t *testing.T) {
	server := ministacktest.Start(t)
	o := newTenant(t, server)
	var throttle atomic.Int64
	var asked atomic.Int64
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
	w, r := o.writer(t, o.write), o.reader(t, behind.As(o.read))
	known, fresh := secrettest.PathOf(o.id), secrettest.PathOf(o.id)
	for _, p := range []secret.Path{known, fresh} {
		if err := w.Put(t.Context(), p, config.NewSecret("first")); err != nil {
			t.Fatal(err)
		}
	}
	get := func(p secret.Path, want string) {
		t.Helper()
		if v, _, err := r.Get(t.Context(), p); err != nil || v.Reveal() != want {
			t.Errorf("read %q, %v, want %q", v.Reveal(), err, want)
		}
	}
	get(known, "first")
	if err := w.Put(t.Context(), known, config.NewSecret("second")); err != nil {
		t.Fatal(err)
	}
	const always = 1 << 20
	throttle.Store(always)
	before := asked.Load()
	get(known, "first")
	if n := asked.Load() - before; n != 3 {
		t.Errorf("a store that throttles was asked %d times, want 3", n)
	}
	throttle.Store(2)
	get(fresh, "first")
	throttle.Store(0)
	get(known, "second")
	// What is gone, and what may not be read any more, is not read from memory.
	if err := w.Delete(t.Context(), known); err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.Get(t.Context(), known); !errors.Is(err, secret.ErrNotFound) {
		t.Errorf("a credential that was taken away: %v", err)
	}
	throttle.Store(always)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if v, _, err := r.Get(ctx, known); err == nil {
		t.Errorf("it was read from memory as %q", v.Reveal())
	}
	t.Attr("row", "F28 4")
}
