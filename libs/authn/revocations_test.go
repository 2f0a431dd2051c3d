package authn_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	authzv1 "a3os.app/proto/gen/go/a3os/authz/v1"
	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"

	"a3os.app/libs/authn"
	"a3os.app/libs/id"
	"a3os.app/libs/scope"
)

var (
	alice, bob     = id.NewUser().String(), id.NewUser().String()
	monday, friday = id.NewSession(), id.NewSession()
	sales, ops     = id.NewWorkspace(), id.NewWorkspace()
)

func revoke(sequence int64, principal, session, workspace string) *iamv1.Revocation {
	return &iamv1.Revocation{Sequence: sequence, PrincipalId: principal, SessionId: session, WorkspaceId: workspace}
}

func claims(principal string, s id.Session, w id.Workspace, revision int64) authn.Claims {
	return authn.Claims{Principal: scope.Principal(principal), Session: s, Workspace: w, Revision: revision}
}

func TestRevocationEndsWhatItNamesAndNothingElse(t *testing.T) {
	mine := claims(alice, monday, sales, 5)
	for name, c := range map[string]struct {
		revoked *iamv1.Revocation
		token   authn.Claims
		ends    bool
	}{
		"the principal":                    {revoke(6, alice, "", ""), mine, true},
		"the principal, tenant-wide token": {revoke(6, alice, "", ""), claims(alice, monday, id.Workspace{}, 5), true},
		"the principal, no session":        {revoke(6, alice, "", ""), claims(alice, id.Session{}, sales, 5), true},
		"its session":                      {revoke(6, alice, monday.String(), ""), mine, true},
		"its session, tenant-wide token":   {revoke(6, alice, monday.String(), ""), claims(alice, monday, id.Workspace{}, 5), true},
		"its membership":                   {revoke(6, alice, "", sales.String()), mine, true},
		"its session's membership":         {revoke(6, alice, monday.String(), sales.String()), mine, true},
		"another principal":                {revoke(6, bob, "", ""), mine, false},
		"another session":                  {revoke(6, alice, friday.String(), ""), mine, false},
		"another membership":               {revoke(6, alice, "", ops.String()), mine, false},
		"a membership, tenant-wide token":  {revoke(6, alice, "", sales.String()), claims(alice, monday, id.Workspace{}, 5), false},
		"its session's other membership":   {revoke(6, alice, monday.String(), ops.String()), mine, false},
		"another session's membership":     {revoke(6, alice, friday.String(), sales.String()), mine, false},
		"same session of another":          {revoke(6, bob, monday.String(), sales.String()), mine, false},
		"a session, token without one":     {revoke(6, alice, monday.String(), ""), claims(alice, id.Session{}, sales, 5), false},
		"at its issue":                     {revoke(5, alice, "", ""), mine, false},
		"before its issue":                 {revoke(4, alice, "", ""), mine, false},
	} {
		r := authn.NewRevocations(nil)
		r.Apply([]*iamv1.Revocation{c.revoked}, c.revoked.GetSequence())
		if err := r.Check(c.token); errors.Is(err, authn.ErrRevoked) != c.ends || (err != nil) != c.ends {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestGreatestSequenceHoldsHoweverItIsTold(t *testing.T) {
	one, two, three := revoke(1, alice, "", ""), revoke(2, alice, "", ""), revoke(3, alice, "", "")
	for name, told := range map[string][][]*iamv1.Revocation{
		"in order":     {{one}, {two}, {three}},
		"at once":      {{one, two, three}},
		"backwards":    {{three}, {two}, {one}},
		"mixed":        {{two, three, one}},
		"again":        {{one, two, three}, {one}, {three}, {one, two}},
		"in one, back": {{three, one}},
	} {
		r := authn.NewRevocations(nil)
		for _, v := range told {
			r.Apply(v, 0)
		}
		if r.Head() != 3 {
			t.Errorf("%s: head is %d, want 3", name, r.Head())
		}
		if err := r.Check(claims(alice, monday, sales, 2)); err == nil {
			t.Errorf("%s: a token from before the last revocation is believed", name)
		}
		if err := r.Check(claims(alice, monday, sales, 3)); err != nil {
			t.Errorf("%s: a token from after the last revocation: %v", name, err)
		}
	}
}

func TestHeadNeverGoesBack(t *testing.T) {
	r := authn.NewRevocations(nil)
	r.Apply(nil, 9)
	r.Apply(nil, 3)
	r.Apply([]*iamv1.Revocation{revoke(4, alice, "", "")}, 4)
	if r.Head() != 9 {
		t.Errorf("head is %d, want 9", r.Head())
	}
}

func TestRevocationIsKeptForAsLongAsATokenFromBeforeItLives(t *testing.T) {
	now := newClock()
	r := authn.NewRevocations(now.Now)
	r.Apply([]*iamv1.Revocation{revoke(1, alice, "", "")}, 1)
	token := claims(alice, monday, sales, 0)
	for range 100 { // hundred others, each of which has the old ones looked through
		now.advance(authn.MaxLifetime / 100)
		r.Apply([]*iamv1.Revocation{revoke(2, bob, "", "")}, 2)
		if err := r.Check(token); err == nil {
			t.Fatal("the revocation was forgotten while a token from before it lives")
		}
	}
	now.advance(2 * time.Minute)
	r.Apply([]*iamv1.Revocation{revoke(3, bob, "", "")}, 3)
	if err := r.Check(token); err != nil {
		t.Errorf("kept for longer than any token lives: memory would grow with each revocation (%v)", err)
	}
	if err := r.Check(claims(bob, monday, sales, 2)); err == nil {
		t.Error("the newest was forgotten with it")
	}
}

func TestSilentIssuerStopsWritesBeforeReads(t *testing.T) {
	const read, write, admin = authzv1.Effect_EFFECT_READ, authzv1.Effect_EFFECT_WRITE, authzv1.Effect_EFFECT_ADMIN
	now := newClock()
	r := authn.NewRevocations(now.Now)
	check := func(when string, want map[authzv1.Effect]bool) {
		t.Helper()
		for effect, fresh := range want {
			if err := r.Fresh(effect); (err == nil) != fresh || err != nil && !errors.Is(err, authn.ErrIssuerSilent) {
				t.Errorf("%s, %s: %v", when, effect, err)
			}
		}
	}
	check("nothing heard ever", map[authzv1.Effect]bool{read: false, write: false, admin: false, authzv1.Effect_EFFECT_UNSPECIFIED: false})
	r.Apply(nil, 0)
	check("just heard", map[authzv1.Effect]bool{read: true, write: true, admin: true})
	now.advance(10 * time.Second)
	check("after 10 s", map[authzv1.Effect]bool{read: true, write: true, admin: true})
	now.advance(time.Millisecond)
	check("after more than 10 s", map[authzv1.Effect]bool{read: true, write: false, admin: false, authzv1.Effect_EFFECT_UNSPECIFIED: false, 99: false})
	now.advance(50*time.Second - time.Millisecond)
	check("after 60 s", map[authzv1.Effect]bool{read: true, write: false, admin: false})
	now.advance(time.Millisecond)
	check("after more than 60 s", map[authzv1.Effect]bool{read: false, write: false, admin: false})
	r.Apply(nil, 0) // a heartbeat
	check("heard again", map[authzv1.Effect]bool{read: true, write: true, admin: true})
}

func TestOpenStreamsLookAgainAtEachRevocation(t *testing.T) {
	r := authn.NewRevocations(nil)
	told := func(c <-chan struct{}) bool {
		select {
		case <-c:
			return true
		default:
			return false
		}
	}
	before := r.Changed()
	r.Apply(nil, 1)
	if told(before) {
		t.Error("a heartbeat has every stream look again")
	}
	r.Apply([]*iamv1.Revocation{revoke(2, alice, "", "")}, 2)
	if !told(before) {
		t.Error("a revocation has nobody look again")
	}
	if told(r.Changed()) {
		t.Error("the next change is told before it came")
	}
}

func TestFollowerResumesAfterTheLastSequence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := authn.NewRevocations(nil)
		ctx, stop := context.WithCancel(t.Context())
		var opened []int64
		var at []time.Time
		r.Follow(ctx, func(ctx context.Context, after int64, apply func([]*iamv1.Revocation, int64)) error {
			opened, at = append(opened, after), append(at, time.Now())
			switch len(opened) {
			case 1:
				apply([]*iamv1.Revocation{revoke(7, alice, "", "")}, 7)
			case 2:
				apply(nil, 9) // a heartbeat tells of numbers without revocations
			case 3: // breaks at once
			case 4:
				stop()
			}
			return errors.New("the stream broke")
		})
		if got := fmt.Sprint(opened); got != "[0 7 9 9]" {
			t.Errorf("streams were opened after %s, want [0 7 9 9]", got)
		}
		for i := range 3 {
			if wait := at[i+1].Sub(at[i]); wait < 50*time.Millisecond || wait > 300*time.Millisecond {
				t.Errorf("stream %d was opened again after %s", i+2, wait)
			}
		}
		if err := r.Check(claims(alice, monday, sales, 0)); err == nil {
			t.Error("what the stream said has no effect")
		}
	})
}

func TestFollowerBacksOffAndEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := authn.NewRevocations(nil)
		ctx, stop := context.WithTimeout(t.Context(), 10*time.Minute)
		defer stop()
		opened := 0
		var last time.Time
		var longest time.Duration
		begun := time.Now()
		r.Follow(ctx, func(context.Context, int64, func([]*iamv1.Revocation, int64)) error {
			if opened++; opened > 1 {
				longest = max(longest, time.Since(last))
			}
			last = time.Now()
			return errAway
		})
		if took := time.Since(begun); took != 10*time.Minute {
			t.Errorf("it ended after %s, its context after 10m", took)
		}
		// About one a second, for the back-off is drawn from all of 2 s.
		if opened < 300 || opened > 1200 || longest > 2100*time.Millisecond || longest < time.Second {
			t.Errorf("%d streams opened in 10 minutes, at most %s apart", opened, longest)
		}
		if err := r.Fresh(authzv1.Effect_EFFECT_READ); err == nil {
			t.Error("a stream that broke without a word counts as word of the issuer")
		}
	})
}

func TestFollowerEndsInTheMiddleOfItsStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := authn.NewRevocations(nil)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			r.Follow(ctx, func(ctx context.Context, _ int64, _ func([]*iamv1.Revocation, int64)) error {
				<-ctx.Done()
				return ctx.Err()
			})
			close(ended)
		}()
		synctest.Wait()
		stop()
		<-ended
	})
}

// Whoever starts beside the issuer hears of it as soon as it is there; asks that often for no longer than a set takes to start, and never again.
func TestFollowerThatStartsBesideTheIssuerHearsOfItAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := authn.NewRevocations(nil)
		ctx, stop := context.WithTimeout(t.Context(), time.Minute)
		defer stop()
		const there = 400 * time.Millisecond
		began := time.Now()
		var opened atomic.Int64
		go r.Follow(ctx, func(_ context.Context, _ int64, apply func([]*iamv1.Revocation, int64)) error {
			opened.Add(1)
			if time.Since(began) < there {
				return errAway
			}
			apply(nil, 1)
			return errAway
		})
		<-r.Heard()
		if late := time.Since(began) - there; late > 20*time.Millisecond {
			t.Errorf("it heard of the issuer %s after that was there", late)
		}
		before := opened.Load()
		time.Sleep(200 * time.Millisecond) //nolint:forbidigo // the bubble's clock: nobody waits
		if now := opened.Load(); now > before+4 {
			t.Errorf("once it had heard of the issuer it asked %d times in 200 ms", now-before)
		}
	})
}
