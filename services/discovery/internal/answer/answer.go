// Package answer answers access questions about the caller's workspace: who has access, to what, why, since when, and what changed.
// It promises that an answer follows from the published history by the rules of libs/access, as it stands now or as it stood at a
// time; that it is read in one snapshot; and that it says how complete and how old the data behind it is. It relies on runs for what is
// published, and on row-level security under its queries.
package answer

import (
	"context"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/page"
	"a3os.app/libs/pg"
	"a3os.app/services/discovery/internal/store"
)

// Declared errors.
var (
	// ErrNoResource is the answer for every id that names no resource of the workspace.
	ErrNoResource = fault.Declare(fault.NotFound, "NO_RESOURCE", "there is no such resource")
	// ErrNoPerson is the answer for every id that names no person of the workspace.
	ErrNoPerson = fault.Declare(fault.NotFound, "NO_PERSON", "there is no such person")
	// ErrAmbiguous is returned where a name names several things.
	ErrAmbiguous = fault.Declare(fault.FailedPrecondition, "AMBIGUOUS_NAME", "that names several things")
	// ErrNoEntitlement is returned where a resource has no entitlement of the name that was asked for.
	ErrNoEntitlement = fault.Declare(fault.NotFound, "NO_ENTITLEMENT", "the resource has no such entitlement")
)

// ahead is how far a caller's clock may be ahead of ours.
const ahead = time.Minute

// Sources says which integrations there are; it is the client of integrations.
type Sources interface {
	ListSources(ctx context.Context, req *connect.Request[integrationsv1.ListSourcesRequest]) (*connect.Response[integrationsv1.ListSourcesResponse], error)
}

// Answers answers questions of callers in a workspace.
type Answers struct {
	db      *pg.DB
	pages   *page.Sealer
	sources asked
	kept    kept
	memory  memory
}

// New makes Answers over the pool of the service's own role.
func New(db *pg.DB, pages *page.Sealer, sources Sources) *Answers {
	return &Answers{db: db, pages: pages, sources: asked{client: sources}}
}

// question is one question, asked in one snapshot, about one time.
type question struct {
	q *store.Queries
	// at is the publication that the answer stands on, and asked the time asked about; nil means that there is none, and now.
	at, asked *time.Time
	// names are the integrations by name.
	names integrations
	// completeness goes with the answer.
	completeness *discoveryv1.Completeness
}

// place is where a page begins, in the answer as of a publication: all pages of an answer stand on the one that the first stood on.
type place[T any] struct {
	At    *time.Time `json:"at,omitempty"`
	After T          `json:"after"`
}

// ask opens a question about a time. Where the answer was begun on a publication before (pinned), it goes on with that one.
func (a *Answers) ask(ctx context.Context, asOf *timestamppb.Timestamp, pinned *time.Time, fn func(ctx context.Context, q *question) error) error {
	asked, err := when(asOf)
	if err != nil {
		return err
	}
	known := a.sources.list(ctx)
	return a.db.ReadWorkspace(ctx, func(ctx context.Context, tx pgx.Tx) error {
		q := &question{q: store.New(tx), at: pinned, asked: asked}
		if q.at == nil {
			if q.at, err = q.publication(ctx); err != nil {
				return err
			}
		}
		if err := q.readCompleteness(ctx, known); err != nil {
			return err
		}
		return fn(ctx, q)
	})
}

// publication is the time asked about, or that of the newest change of the history, whichever is earlier: what follows from the history up
// to that time never changes. Nil where there is no history.
func (q *question) publication(ctx context.Context) (*time.Time, error) {
	changed, err := q.q.LastChangedAt(ctx)
	if err != nil {
		return nil, fmt.Errorf("look for the newest publication: %w", err)
	}
	if changed.Unix() <= 0 {
		return q.asked, nil
	}
	if q.asked != nil && q.asked.Before(changed) {
		return q.asked, nil
	}
	return &changed, nil
}

// when reads as_of. A time to come can't be answered for.
func when(asOf *timestamppb.Timestamp) (*time.Time, error) {
	if asOf == nil {
		return nil, nil //nolint:nilnil // no time means now
	}
	if err := asOf.CheckValid(); err != nil {
		return nil, fault.New(fault.InvalidArgument, "as_of is not a time")
	}
	at := asOf.AsTime()
	now := time.Now()
	if at.After(now.Add(ahead)) {
		return nil, fault.New(fault.InvalidArgument, "as_of lies in the future: leave it out to ask about now")
	}
	if at.After(now) {
		return nil, nil //nolint:nilnil // as above
	}
	return &at, nil
}
