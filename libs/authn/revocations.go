package authn

import (
	"context"
	"log/slog"
	"maps"
	"math/rand/v2"
	"sync"
	"time"

	authzv1 "a3os.app/proto/gen/go/a3os/authz/v1"
	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"

	"a3os.app/libs/fault"
)

// How long work goes on without word from the issuer, by what it does.
const (
	writesWithin = 10 * time.Second
	readsWithin  = 60 * time.Second
	// keepFor is longer than any token lives that was issued before a revocation.
	keepFor = MaxLifetime + time.Minute
)

// ErrIssuerSilent is returned when revocations are too old for what the call would do.
var ErrIssuerSilent = fault.Declare(fault.Unavailable, "ISSUER_SILENT",
	"the tenant's issuer has not been heard of, so it can't be known who was removed; try again shortly")

// Revocations is what a service knows of revoked tokens. It is safe for concurrent use.
type Revocations struct {
	now func() time.Time

	mu sync.RWMutex
	// entries are by principal first: of all callers, few have any.
	entries map[string]map[revoked]entry
	head    int64
	heard   time.Time
	changed chan struct{}
	// first is closed by the issuer's first word.
	first     chan struct{}
	firstOnce sync.Once
}

// revoked is what of a principal was revoked: a session, a membership, or with neither everything.
type revoked struct{ session, workspace string }

type entry struct {
	sequence int64
	at       time.Time
}

// NewRevocations makes an empty set that has heard nothing yet. A nil now is the machine's clock.
func NewRevocations(now func() time.Time) *Revocations {
	if now == nil {
		now = time.Now
	}
	return &Revocations{now: now, entries: map[string]map[revoked]entry{}, changed: make(chan struct{}), first: make(chan struct{})}
}

// Apply takes in what the issuer said just now. Said twice, or out of order, the greatest sequence number holds.
func (r *Revocations) Apply(revocations []*iamv1.Revocation, head int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	for _, v := range revocations {
		of := r.entries[v.GetPrincipalId()]
		if of == nil {
			of = map[revoked]entry{}
			r.entries[v.GetPrincipalId()] = of
		}
		k := revoked{v.GetSessionId(), v.GetWorkspaceId()}
		if e := of[k]; v.GetSequence() >= e.sequence {
			of[k] = entry{v.GetSequence(), now}
		}
		head = max(head, v.GetSequence())
	}
	r.head, r.heard = max(r.head, head), now
	r.firstOnce.Do(func() { close(r.first) })
	if len(revocations) == 0 {
		return
	}
	for p, of := range r.entries {
		maps.DeleteFunc(of, func(_ revoked, e entry) bool { return now.Sub(e.at) > keepFor })
		if len(of) == 0 {
			delete(r.entries, p)
		}
	}
	close(r.changed)
	r.changed = make(chan struct{})
}

// Check fails with ErrRevoked when a revocation names the token's principal, session or membership and came after its issue.
func (r *Revocations) Check(c Claims) error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	of, ok := r.entries[string(c.Principal)]
	if !ok {
		return nil
	}
	s, w := c.Session.String(), c.Workspace.String()
	for _, k := range [...]revoked{{"", ""}, {s, ""}, {"", w}, {s, w}} {
		if e, ok := of[k]; ok && e.sequence > c.Revision {
			return ErrRevoked
		}
	}
	return nil
}

// Fresh fails with ErrIssuerSilent when the issuer was last heard of too long ago for an effect.
func (r *Revocations) Fresh(effect authzv1.Effect) error {
	within := writesWithin
	if effect == authzv1.Effect_EFFECT_READ {
		within = readsWithin
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.heard.IsZero() || r.now().Sub(r.heard) > within {
		return ErrIssuerSilent
	}
	return nil
}

// Heard is closed when the issuer was heard of for the first time: before that every call is refused.
func (r *Revocations) Heard() <-chan struct{} { return r.first }

// LookAgain has open streams look again, as a revocation does: the issuer's keys changed.
func (r *Revocations) LookAgain() {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.changed)
	r.changed = make(chan struct{})
}

// Changed is closed at the next revocation, so that open streams look again.
func (r *Revocations) Changed() <-chan struct{} {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.changed
}

// Head is the newest sequence number heard of.
func (r *Revocations) Head() int64 {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.head
}

// Follow keeps the set up to date until ctx ends. watch opens the issuer's stream after a sequence number and calls apply for each
// message until the stream breaks; it is opened again with back-off and full jitter, at most 2 s apart. Whoever starts beside the issuer
// has not heard of it yet and asks again at once, for a while: it serves nobody before.
func (r *Revocations) Follow(ctx context.Context, watch func(ctx context.Context, after int64, apply func([]*iamv1.Revocation, int64)) error) {
	const least, most, soon, beside = 100 * time.Millisecond, 2 * time.Second, 10 * time.Millisecond, time.Second
	wait, began := least, time.Now()
	for ctx.Err() == nil {
		err := watch(ctx, r.Head(), func(v []*iamv1.Revocation, head int64) {
			wait = least
			r.Apply(v, head)
		})
		if ctx.Err() != nil {
			return
		}
		pause := rand.N(wait) + least/2 //nolint:gosec // jitter needs no secrecy
		if r.everHeard() || time.Since(began) >= beside {
			slog.WarnContext(ctx, "the issuer's revocation stream broke, opening it again", "error", err)
			wait = min(2*wait, most)
		} else {
			pause = soon + rand.N(soon) //nolint:gosec // jitter needs no secrecy
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
}

func (r *Revocations) everHeard() bool {
	select {
	case <-r.first:
		return true
	default:
		return false
	}
}
