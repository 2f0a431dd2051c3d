package revocation_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/jackc/pgx/v5"

	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"

	"a3os.app/libs/authn"
	"a3os.app/libs/authz"
	"a3os.app/libs/fault"
	"a3os.app/libs/id"

	"a3os.app/services/iam/internal/iamtest"
	"a3os.app/services/iam/internal/keyring"
	"a3os.app/services/iam/internal/revocation"
	"a3os.app/services/iam/internal/store"
)

// watch is an open stream whose messages come on a channel.
func watch(t *testing.T, feed *revocation.Feed, after int64) <-chan *iamv1.WatchRevocationsResponse {
	t.Helper()
	messages := make(chan *iamv1.WatchRevocationsResponse, 1024)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(messages)
		_ = feed.Watch(ctx, after, func(m *iamv1.WatchRevocationsResponse) error { messages <- m; return nil })
	})
	t.Cleanup(func() { stop(); wg.Wait() })
	return messages
}

// until reads messages until one satisfies ok.
func until(t *testing.T, messages <-chan *iamv1.WatchRevocationsResponse, within time.Duration, ok func(*iamv1.WatchRevocationsResponse) bool) {
	t.Helper()
	deadline := time.After(within)
	for {
		select {
		case m, open := <-messages:
			if !open {
				t.Fatal("the stream ended")
			}
			if ok(m) {
				return
			}
		case <-deadline:
			t.Fatalf("nothing within %s", within)
		}
	}
}

func revoke(t *testing.T, e *iamtest.Env, principal string) {
	t.Helper()
	err := e.TenantDB.Service(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
		return store.New(tx).Revoke(ctx, store.RevokeParams{Principal: principal})
	})
	if err != nil {
		t.Error(err)
	}
}

func TestRevocationReachesAnOpenStreamAtOnce(t *testing.T) {
	e := iamtest.New(t)
	ada := e.User(t, "ada@example.com", "")
	w := e.Workspace(t, "Research", e.Admin)
	e.Member(t, w, ada.String(), iamv1.WorkspaceRole_WORKSPACE_ROLE_ADMIN)
	token := e.Exchange(t, e.Refresh(t, e.Session(t, ada)).AccessToken, w).AccessToken
	claims := e.Claims(t, token)
	messages := watch(t, e.Feed, 0)
	until(t, messages, 5*time.Second, func(*iamv1.WatchRevocationsResponse) bool { return true })

	// What every other service of the set does with the stream.
	known := authn.NewRevocations(nil)
	if err := known.Check(claims); err != nil {
		t.Fatalf("before: %v", err)
	}
	began := time.Now()
	ctx := e.Ctx(t, e.Admin.String(), w, authz.WorkspaceOwner)
	if _, err := e.Members.RemoveMember(ctx, connect.NewRequest(&iamv1.RemoveMemberRequest{PrincipalId: ada.String()})); err != nil {
		t.Fatal(err)
	}
	committed := time.Since(began)
	until(t, messages, 5*time.Second, func(m *iamv1.WatchRevocationsResponse) bool {
		known.Apply(m.GetRevocations(), m.GetHeadSequence())
		return known.Check(claims) != nil
	})
	t.Logf("committed after %s, refused after %s", committed, time.Since(began))

	// Back again, and with the new token in.
	e.Member(t, w, ada.String(), iamv1.WorkspaceRole_WORKSPACE_ROLE_VIEWER)
	anew := e.Claims(t, e.Exchange(t, e.Refresh(t, e.Session(t, ada)).AccessToken, w).AccessToken)
	if err := known.Check(anew); err != nil {
		t.Errorf("a token issued after the revocation is refused: %v", err)
	}
	if err := known.Check(claims); !errors.Is(err, authn.ErrRevoked) {
		t.Errorf("the old token is good again: %v", err)
	}
}

func TestStreamOfAnotherProcessSeesItSoon(t *testing.T) {
	e := iamtest.New(t)
	// A second process of the same issuer: nobody wakes its feed.
	second := revocation.NewFeed(e.TenantDB, e.Keys)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = second.Run(ctx) })
	t.Cleanup(func() { stop(); wg.Wait() })
	messages := watch(t, second, 0)
	until(t, messages, 5*time.Second, func(*iamv1.WatchRevocationsResponse) bool { return true })
	user := id.NewUser().String()
	revoke(t, e, user)
	until(t, messages, 3*time.Second, func(m *iamv1.WatchRevocationsResponse) bool {
		return slices.ContainsFunc(m.GetRevocations(), func(r *iamv1.Revocation) bool { return r.GetPrincipalId() == user })
	})
}

// An emergency rotation that one process of the issuer made is the other's as well: it signs with the new key, and tells its streams.
func TestKeysThatAnotherProcessDroppedReachEveryStream(t *testing.T) {
	e := iamtest.New(t)
	ring, err := keyring.Open(t.Context(), e.TenantDB, e.Tenant, e.KEK, e.Clock.Now)
	if err != nil {
		t.Fatal(err)
	}
	second := revocation.NewFeed(e.TenantDB, ring)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = second.Run(ctx) })
	t.Cleanup(func() { stop(); wg.Wait() })
	messages := watch(t, second, 0)
	knows := func(m *iamv1.WatchRevocationsResponse) bool { return slices.Equal(m.GetKeyIds(), e.Keys.IDs()) }
	until(t, messages, 5*time.Second, knows)
	before := e.Keys.IDs()
	err = e.TenantDB.Service(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
		_, err := e.Keys.Rotate(ctx, tx, true)
		return err
	})
	if err := errors.Join(err, e.Keys.Maintain(t.Context())); err != nil {
		t.Fatal(err)
	}
	until(t, messages, 5*time.Second, knows)
	for _, id := range ring.IDs() {
		if slices.Contains(before, id) {
			t.Errorf("the second process still publishes %s", id)
		}
	}
	if ring.Signer().KeyID != e.Keys.Signer().KeyID {
		t.Error("the second process signs with another key")
	}
}

func TestNoRevocationIsMissedOrOutOfOrderHoweverManyCommitAtOnce(t *testing.T) {
	e := iamtest.New(t)
	const writers, each = 6, 30
	first := watch(t, e.Feed, 0)
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range each {
				revoke(t, e, id.NewUser().String())
				e.Feed.Wake()
			}
		})
	}
	check := func(messages <-chan *iamv1.WatchRevocationsResponse, after int64) {
		t.Helper()
		next := after
		until(t, messages, 20*time.Second, func(m *iamv1.WatchRevocationsResponse) bool {
			for _, r := range m.GetRevocations() {
				if next++; r.GetSequence() != next {
					t.Fatalf("got %d after %d", r.GetSequence(), next-1)
				}
			}
			if m.GetHeadSequence() < next {
				t.Fatalf("the head is %d, and %d was sent", m.GetHeadSequence(), next)
			}
			return next == writers*each
		})
	}
	check(first, 0)
	wg.Wait()
	check(watch(t, e.Feed, 0), 0)
	check(watch(t, e.Feed, 100), 100)
}

func TestHeartbeatComesWithinTwoSecondsAndOnlyWhileTheDatabaseAnswers(t *testing.T) {
	e := iamtest.New(t)
	messages := watch(t, e.Feed, 0)
	for range 3 {
		until(t, messages, 2*time.Second, func(m *iamv1.WatchRevocationsResponse) bool { return len(m.GetRevocations()) == 0 })
	}
	broken := revocation.NewFeed(e.TenantDB, e.Keys)
	ctx, stop := context.WithTimeout(t.Context(), 10*time.Second)
	defer stop()
	err := broken.Watch(ctx, 0, func(m *iamv1.WatchRevocationsResponse) error {
		t.Errorf("a feed that has read nothing says %v", m)
		return nil
	})
	if fault.KindOf(err) != fault.Unavailable {
		t.Errorf("ended with %v", err)
	}
	e.DB.Exec(t, "ALTER TABLE iam.revocation_head RENAME TO away")
	silent := time.After(10 * time.Second)
	for {
		select {
		case _, open := <-messages:
			if !open {
				return
			}
		case <-silent:
			t.Fatal("the stream goes on without its database")
		}
	}
}

func TestOnlyWhatMayStillMatterIsSent(t *testing.T) {
	e := iamtest.New(t)
	revoke(t, e, "usr_old")
	e.DB.Exec(t, "UPDATE iam.revocations SET created_at = now() - interval '20 minutes'")
	revoke(t, e, "usr_new")
	fresh := revocation.NewFeed(e.TenantDB, e.Keys)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = fresh.Run(ctx) })
	t.Cleanup(func() { stop(); wg.Wait() })
	until(t, watch(t, fresh, 0), 5*time.Second, func(m *iamv1.WatchRevocationsResponse) bool {
		if len(m.GetRevocations()) != 1 || m.GetRevocations()[0].GetPrincipalId() != "usr_new" || m.GetHeadSequence() != 2 {
			t.Errorf("sent %v", m)
		}
		return true
	})
}
