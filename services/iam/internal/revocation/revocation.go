// Package revocation tells the set's services which tokens are void. It promises that what it hands on is in the order of commit and
// without gaps (the issuer hands sequence numbers out under one row's lock), that a new revocation reaches every stream of this
// process as soon as it is committed and those of another process within half a second, that the same holds for the issuer's signing
// keys, and that a heartbeat is sent only while the database was read a moment ago: silence means that nobody knows. All streams share
// one poll.
package revocation

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/pg"

	"a3os.app/services/iam/internal/store"
)

const (
	// pollEvery is how soon a revocation of another process of this issuer is seen.
	pollEvery = 500 * time.Millisecond
	// beatEvery is half of what the API promises.
	beatEvery = time.Second
	// staleAfter is when a feed that can't read its database stops being believed.
	staleAfter = 3 * time.Second
	// keepFor is longer than any token lives that was issued before a revocation.
	keepFor = 15 * time.Minute
)

// Keys are the issuer's signing keys as this process knows them.
type Keys interface {
	// IDs of all published keys, sorted.
	IDs() []string
	// Maintain takes up what another process changed.
	Maintain(ctx context.Context) error
}

// Feed is the tenant's revocations as this process knows them. It is safe for concurrent use.
type Feed struct {
	db   *pg.DB
	keys Keys
	wake chan struct{}

	mu      sync.Mutex
	recent  []store.Revocation
	head    int64
	read    time.Time
	changed chan struct{}
}

// NewFeed makes a feed over role_iam_tenant's database. It knows nothing until Run runs.
func NewFeed(db *pg.DB, keys Keys) *Feed {
	return &Feed{db: db, keys: keys, wake: make(chan struct{}, 1), changed: make(chan struct{})}
}

// Wake has the feed look now: something was just committed.
func (f *Feed) Wake() {
	select {
	case f.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// Run reads the database until ctx ends. It answers the error of the context.
func (f *Feed) Run(ctx context.Context) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		if err := f.poll(ctx); err != nil && ctx.Err() == nil {
			slog.WarnContext(ctx, "revocations can't be read, their streams fall silent", "error", err)
		}
		select {
		case <-tick.C:
		case <-f.wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (f *Feed) poll(ctx context.Context) error {
	f.mu.Lock()
	after := f.head
	f.mu.Unlock()
	began := time.Now()
	var head int64
	var rows []store.Revocation
	var keyIDs []string
	err := f.db.Service(ctx, func(ctx context.Context, tx pgx.Tx) error {
		var err error
		if keyIDs, err = store.New(tx).SigningKeyIDs(ctx); err != nil {
			return err
		}
		// The head first: a revocation committed in between is then sent twice and never missed.
		if head, err = store.New(tx).RevocationHead(ctx); err != nil || head == after {
			return err
		}
		rows, err = store.New(tx).RevocationsAfter(ctx, after)
		return err
	})
	if err != nil {
		return err
	}
	slices.Sort(keyIDs)
	if !slices.Equal(keyIDs, f.keys.IDs()) {
		if err := f.keys.Maintain(ctx); err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.read = began
	f.head = head
	for _, r := range rows {
		f.head = max(f.head, r.Sequence)
	}
	f.recent = append(f.recent, rows...)
	f.forget(began)
	close(f.changed)
	f.changed = make(chan struct{})
	return nil
}

// forget drops what can't matter any more.
func (f *Feed) forget(now time.Time) {
	i := 0
	for i < len(f.recent) && now.Sub(f.recent[i].CreatedAt) > keepFor {
		i++
	}
	if i > 0 {
		f.recent = append([]store.Revocation(nil), f.recent[i:]...)
	}
}

// since is what came after a sequence number, what the newest one is, and when to look again.
func (f *Feed) since(after int64) (rows []store.Revocation, head int64, read time.Time, changed <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, r := range f.recent {
		if r.Sequence > after {
			rows = f.recent[i:]
			break
		}
	}
	return rows, f.head, f.read, f.changed
}

// Watch sends every revocation after a sequence number that may still matter, then each new one, and a heartbeat at least every 2 s,
// until ctx ends or send fails. It fails with Unavailable when the database can't be read.
func (f *Feed) Watch(ctx context.Context, after int64, send func(*iamv1.WatchRevocationsResponse) error) error {
	var sent time.Time
	var told []string
	silence := time.NewTimer(staleAfter)
	defer silence.Stop()
	for {
		rows, head, read, changed := f.since(after)
		fresh := !read.IsZero() && time.Since(read) < staleAfter
		keyIDs := f.keys.IDs()
		if fresh && (len(rows) > 0 || !slices.Equal(keyIDs, told) || time.Since(sent) >= beatEvery) {
			m := &iamv1.WatchRevocationsResponse{HeadSequence: head, KeyIds: keyIDs}
			for _, r := range rows {
				m.Revocations = append(m.Revocations, message(r))
			}
			if err := send(m); err != nil {
				return fmt.Errorf("send revocations: %w", err)
			}
			sent, told = time.Now(), keyIDs
			after = max(after, head)
		}
		if !silence.Stop() {
			select {
			case <-silence.C:
			default:
			}
		}
		silence.Reset(staleAfter)
		select {
		case <-changed:
		case <-silence.C:
			return fault.New(fault.Unavailable, "the issuer can't read its revocations now; open the stream again")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func message(r store.Revocation) *iamv1.Revocation {
	return &iamv1.Revocation{
		Sequence: r.Sequence, PrincipalId: r.Principal, SessionId: r.SessionID.String(), WorkspaceId: r.WorkspaceID.String(),
	}
}
