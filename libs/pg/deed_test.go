package pg_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"

	"a3os.app/libs/id"
	"a3os.app/libs/internal/idemctx"
	"a3os.app/libs/pg"
	"a3os.app/libs/scope"
)

const invite = "/a3os.iam.v1.UserWriteService/InviteUser"

func keyed(ctx context.Context, method, key string) context.Context {
	return idemctx.With(ctx, idemctx.Key{Method: method, Value: key})
}

// deed counts up once and answers a user that no other run of it would.
func deed(ctx context.Context, db *pg.DB, req proto.Message) (*iamv1.InviteUserResponse, error) {
	return pg.Deed(ctx, db.Tenant, req, func(ctx context.Context, tx pgx.Tx) (*iamv1.InviteUserResponse, error) {
		if err := inTx("UPDATE app.counters SET count = count + 1 WHERE id = 1")(ctx, tx); err != nil {
			return nil, err
		}
		return &iamv1.InviteUserResponse{User: &iamv1.User{Id: id.NewUser().String()}, SetupCode: "c4nary-setup-code",
			SetupCodeExpiresAt: timestamppb.Now()}, nil
	})
}

func effects(t *testing.T, b base) int64 {
	t.Helper()
	var n int64
	if err := b.Pool(t).QueryRow(t.Context(), "SELECT count FROM app.counters WHERE id = 1").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestSameKeyAnswersTheFirstResultWithoutItsSecrets(t *testing.T) {
	t.Parallel()
	b := newThings(t)
	db := open(t, b.iam, 2)
	ctx := keyed(in(t.Context(), id.Workspace{}), invite, "k-1")
	req := &iamv1.InviteUserRequest{Email: "a@example.org", DisplayName: "A"}
	first, err := deed(ctx, db, req)
	if err != nil || first.GetSetupCode() == "" {
		t.Fatalf("first: %v, %v", first, err)
	}
	again, err := deed(ctx, db, proto.CloneOf(req))
	if err != nil {
		t.Fatal(err)
	}
	if again.GetSetupCode() != "" {
		t.Error("the repeated call answers the secret")
	}
	first.SetupCode = ""
	if !proto.Equal(first, again) {
		t.Errorf("answered %v, first %v", again, first)
	}
	if n := effects(t, b); n != 1 {
		t.Errorf("%d effects, want 1", n)
	}
	var kept, secret int
	err = b.Pool(t).QueryRow(t.Context(), `SELECT count(*), count(*) FILTER (WHERE
		position('c4nary'::bytea IN response) > 0 OR k::text LIKE '%c4nary%') FROM a3.idempotency_keys k`).Scan(&kept, &secret)
	if err != nil || kept != 1 || secret != 0 {
		t.Errorf("%d keys are kept, %d with the secret, %v", kept, secret, err)
	}
}

func TestSameKeyAtOnceHasOneEffect(t *testing.T) {
	t.Parallel()
	b := newThings(t)
	db := open(t, b.iam, 20)
	ctx := keyed(in(t.Context(), id.NewWorkspace()), invite, "k-1")
	var answers sync.Map
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			res, err := deed(ctx, db, &iamv1.InviteUserRequest{Email: "a@example.org"})
			if err != nil {
				t.Error(err)
				return
			}
			answers.Store(res.GetUser().GetId()+res.GetSetupCodeExpiresAt().String(), true)
		})
	}
	all.Wait()
	different := 0
	answers.Range(func(any, any) bool { different++; return true })
	if n := effects(t, b); n != 1 || different != 1 {
		t.Errorf("%d effects and %d different answers, want one of each", n, different)
	}
}

func TestSameKeyForAnotherRequestIsRefused(t *testing.T) {
	t.Parallel()
	b := newThings(t)
	db := open(t, b.iam, 1)
	ctx := keyed(in(t.Context(), id.Workspace{}), invite, "k-1")
	if _, err := deed(ctx, db, &iamv1.InviteUserRequest{Email: "a@example.org"}); err != nil {
		t.Fatal(err)
	}
	for _, req := range []*iamv1.InviteUserRequest{{Email: "b@example.org"}, {}, {Email: "a@example.org", DisplayName: "A"}} {
		res, err := deed(ctx, db, req)
		if !errors.Is(err, pg.ErrKeyReused) || code(err) != connect.CodeInvalidArgument || res != nil {
			t.Errorf("%v: %v, %v", req, res, err)
		}
	}
	if n := effects(t, b); n != 1 {
		t.Errorf("%d effects, want 1", n)
	}
}

func TestKeyOfAnotherCallerIsAnotherDeed(t *testing.T) {
	t.Parallel()
	b := newThings(t)
	b.Exec(t, "GRANT USAGE ON SCHEMA app TO "+b.RoleName(b.integrations)+"; GRANT SELECT, UPDATE ON app.counters TO "+b.RoleName(b.integrations))
	iam, integrations := open(t, b.iam, 1), open(t, b.integrations, 1)
	alice, bob, w, v := scope.Principal(id.NewUser().String()), scope.Principal(id.NewUser().String()), id.NewWorkspace(), id.NewWorkspace()
	req := &iamv1.InviteUserRequest{Email: "a@example.org"}
	seen := map[string]string{}
	for _, c := range []struct {
		name      string
		db        *pg.DB
		principal scope.Principal
		workspace id.Workspace
		method    string
		key       string
	}{
		{"the first", iam, alice, w, invite, "k-1"},
		{"another key", iam, alice, w, invite, "k-2"},
		{"another principal", iam, bob, w, invite, "k-1"},
		{"another workspace", iam, alice, v, invite, "k-1"},
		{"no workspace", iam, alice, id.Workspace{}, invite, "k-1"},
		{"another method", iam, alice, w, invite + "2", "k-1"},
		{"another service", integrations, alice, w, invite, "k-1"},
	} {
		res, err := deed(keyed(as(t.Context(), c.principal, c.workspace), c.method, c.key), c.db, req)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if other, clash := seen[res.GetUser().GetId()]; clash {
			t.Errorf("%s answers what %s did", c.name, other)
		}
		seen[res.GetUser().GetId()] = c.name
	}
	if n := effects(t, b); n != 7 {
		t.Errorf("%d effects, want 7", n)
	}
	// Row-level security keeps the keys of one service from the others, who may all select from the table.
	var n int64
	if err := integrations.Service(t.Context(), count(&n, "SELECT count(*) FROM a3.idempotency_keys")); err != nil || n != 1 {
		t.Errorf("another service sees %d keys, %v", n, err)
	}
}

func TestDeedThatFailedLeavesNoKey(t *testing.T) {
	t.Parallel()
	b := newThings(t)
	db := open(t, b.iam, 1)
	ctx := keyed(in(t.Context(), id.Workspace{}), invite, "k-1")
	req := &iamv1.InviteUserRequest{Email: "a@example.org"}
	run := func(fn func(context.Context, pgx.Tx) error) (err error) {
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("panic: %v", p)
			}
		}()
		_, err = pg.Deed(ctx, db.Tenant, req, func(ctx context.Context, tx pgx.Tx) (*iamv1.InviteUserResponse, error) {
			if err := inTx("UPDATE app.counters SET count = count + 1 WHERE id = 1")(ctx, tx); err != nil {
				return nil, err
			}
			return &iamv1.InviteUserResponse{}, fn(ctx, tx)
		})
		return err
	}
	for name, fail := range map[string]func(context.Context, pgx.Tx) error{
		"error":    func(context.Context, pgx.Tx) error { return errHandler },
		"database": inTx("SELECT 1/0"),
		"panic":    func(context.Context, pgx.Tx) error { panic("handler") },
	} {
		if err := run(fail); err == nil {
			t.Errorf("%s: no error", name)
		}
		var kept int64
		if err := b.Pool(t).QueryRow(t.Context(), "SELECT count(*) FROM a3.idempotency_keys").Scan(&kept); err != nil || kept != 0 {
			t.Errorf("%s left %d keys, %v", name, kept, err)
		}
	}
	if _, err := deed(ctx, db, req); err != nil {
		t.Errorf("the key afterwards: %v", err)
	}
	if n := effects(t, b); n != 1 {
		t.Errorf("%d effects, want 1", n)
	}
}

func TestDeedThatLostAConflictHappensOnce(t *testing.T) {
	t.Parallel()
	b := newThings(t)
	db := open(t, b.iam, 1)
	var runs atomic.Int32
	_, err := pg.Deed(keyed(in(t.Context(), id.Workspace{}), invite, "k-1"), db.Tenant, &iamv1.InviteUserRequest{},
		func(ctx context.Context, tx pgx.Tx) (*iamv1.InviteUserResponse, error) {
			if err := inTx("UPDATE app.counters SET count = count + 1 WHERE id = 1")(ctx, tx); err != nil {
				return nil, err
			}
			if runs.Add(1) == 1 {
				return nil, inTx("DO $$ BEGIN RAISE EXCEPTION 'once' USING ERRCODE = 'deadlock_detected'; END $$")(ctx, tx)
			}
			return &iamv1.InviteUserResponse{}, nil
		})
	if n := effects(t, b); err != nil || runs.Load() != 2 || n != 1 {
		t.Errorf("%d runs, %d effects, %v", runs.Load(), n, err)
	}
}

func TestWithoutAKeyEachCallIsADeed(t *testing.T) {
	t.Parallel()
	b := newThings(t)
	db := open(t, b.iam, 1)
	for range 2 {
		if res, err := deed(in(t.Context(), id.Workspace{}), db, &iamv1.InviteUserRequest{}); err != nil || res.GetSetupCode() == "" {
			t.Errorf("%v, %v", res, err)
		}
	}
	if n := effects(t, b); n != 2 {
		t.Errorf("%d effects, want 2", n)
	}
}

func TestEmptyResultIsAFirstResultToo(t *testing.T) {
	t.Parallel()
	b := newThings(t)
	db := open(t, b.iam, 1)
	ctx := keyed(in(t.Context(), id.Workspace{}), invite, "k-1")
	runs := 0
	for range 2 {
		res, err := pg.Deed(ctx, db.Tenant, &iamv1.InviteUserRequest{}, func(context.Context, pgx.Tx) (*iamv1.InviteUserResponse, error) {
			runs++
			return &iamv1.InviteUserResponse{}, nil
		})
		if err != nil || res == nil {
			t.Errorf("%v, %v", res, err)
		}
	}
	if runs != 1 {
		t.Errorf("%d runs, want 1", runs)
	}
}
