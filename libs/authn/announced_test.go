package authn_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"a3os.app/libs/authn"
)

// A key that the issuer drops in an emergency falls at once, with what was verified with it, and also where the new set can't be had.
func TestDroppedKeyFallsAtOnceThoughNothingCanBeFetched(t *testing.T) {
	i := newIssuer(t, "k1", "k2")
	keys := i.remote()
	v := i.verifier(t, keys, authn.NewRevocations(i.clock.Now))
	stays, falls := i.token(t, "k1", nil), i.token(t, "k2", nil)
	for _, token := range []string{stays, falls} {
		if _, err := v.Verify(t.Context(), token); err != nil {
			t.Fatal(err)
		}
	}
	if keys.Announced([]string{"k1", "k2"}) || keys.Announced(nil) {
		t.Error("a key fell that the issuer still has")
	}
	i.set(func(i *issuer) { i.away = true })
	if !keys.Announced([]string{"k1"}) {
		t.Error("the dropped key was not noticed")
	}
	if _, err := v.Verify(t.Context(), falls); err == nil {
		t.Error("a token of the dropped key is believed, from the cache")
	}
	if _, err := v.Verify(t.Context(), stays); err != nil {
		t.Errorf("a token of the key that stays: %v", err)
	}
	if keys.Announced([]string{"k1"}) {
		t.Error("the same news dropped something twice")
	}
}

func TestNewKeyIsFetchedWhenItIsAnnounced(t *testing.T) {
	i := newIssuer(t, "k1")
	keys := i.remote()
	v := i.verifier(t, keys, authn.NewRevocations(i.clock.Now))
	if _, err := v.Verify(t.Context(), i.token(t, "k1", nil)); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); keys.Follow(ctx) }()
	t.Cleanup(func() { stop(); <-done })
	// An unknown id may be asked for at most once in a while, and that was just now: only the news brings the key.
	if _, err := keys.Key(t.Context(), "k2"); err == nil {
		t.Fatal("a key that nobody made")
	}
	i.set(func(i *issuer) { delete(i.keys, "k1") })
	i.add(t, "k2")
	token := i.token(t, "k2", nil)
	keys.Announced([]string{"k2"})
	within(t, 5*time.Second, func() error {
		_, err := v.Verify(t.Context(), token)
		return err
	})
	if _, err := keys.Key(t.Context(), "k1"); err == nil {
		t.Error("the key before lives on")
	}
}

// The issuer may be away when the first token comes: the keys are there since it was heard of.
func TestKeysAreHadBeforeTheFirstToken(t *testing.T) {
	i := newIssuer(t, "k1")
	keys := i.remote()
	v := i.verifier(t, keys, authn.NewRevocations(i.clock.Now))
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); keys.Follow(ctx) }()
	t.Cleanup(func() { stop(); <-done })
	if keys.Announced([]string{"k1"}) {
		t.Error("a key fell that nobody had")
	}
	within(t, 5*time.Second, func() error {
		if keys.Generation() == 0 {
			return errors.New("no keys yet")
		}
		return nil
	})
	i.set(func(i *issuer) { i.away = true })
	if _, err := v.Verify(t.Context(), i.token(t, "k1", nil)); err != nil {
		t.Errorf("the first token: %v", err)
	}
}

func within(t *testing.T, d time.Duration, check func() error) {
	t.Helper()
	deadline, tick := time.After(d), time.NewTicker(10*time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			t.Fatal(errors.Join(errors.New("not in time"), err))
		case <-tick.C:
		}
	}
}
