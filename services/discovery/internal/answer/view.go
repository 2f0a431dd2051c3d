package answer

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5/pgtype"
	"google.golang.org/protobuf/types/known/timestamppb"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"

	"a3os.app/libs/id"
	"a3os.app/services/discovery/internal/store"
)

// views are resources as they are shown, by id.
type views map[id.Resource]*discoveryv1.ResourceView

// of is the view of a resource. One that grants name and no run ever described has its id alone.
func (v views) of(r id.Resource) *discoveryv1.ResourceView {
	if view, known := v[r]; known {
		return view
	}
	return &discoveryv1.ResourceView{Id: r.String()}
}

// views reads resources as they are shown at the question's time.
func (q *question) views(ctx context.Context, resources []id.Resource) (views, error) {
	rows, err := inBatches(resources, func(ids []pgtype.UUID) ([]store.ResourcesByIDRow, error) {
		return q.q.ResourcesByID(ctx, store.ResourcesByIDParams{Ids: ids, At: q.at})
	})
	if err != nil {
		return nil, fmt.Errorf("read resources: %w", err)
	}
	persons, err := inBatches(resources, func(ids []pgtype.UUID) ([]store.PersonsOfRow, error) {
		return q.q.PersonsOf(ctx, store.PersonsOfParams{Ids: ids, At: q.at})
	})
	if err != nil {
		return nil, fmt.Errorf("read the persons of accounts: %w", err)
	}
	out := make(views, len(rows))
	for _, r := range rows {
		v := &discoveryv1.ResourceView{
			Id: r.ID.String(), IntegrationId: r.IntegrationID.String(), IntegrationName: q.names[r.IntegrationID],
			Type: r.Type, ExternalId: r.ExternalID, DisplayName: r.DisplayName, Account: r.Account, Since: timestamppb.New(r.Since),
		}
		if err := json.Unmarshal(r.Attributes, &v.Attributes); err != nil {
			return nil, fmt.Errorf("read the attributes of %s: %w", r.ID, err)
		}
		out[r.ID] = v
	}
	for _, p := range persons {
		if v, known := out[p.AccountID]; known {
			v.Person = &discoveryv1.Person{Id: p.ID.String(), DisplayName: p.DisplayName, JoinedBy: p.Rule}
		}
	}
	return out, nil
}

// entitlement is what an entitlement is called, and on what.
type entitlement struct {
	name     string
	resource id.Resource
}

func (q *question) entitlements(ctx context.Context, ids []id.Entitlement) (map[id.Entitlement]entitlement, error) {
	rows, err := inBatches(ids, func(ids []pgtype.UUID) ([]store.EntitlementsByIDRow, error) { return q.q.EntitlementsByID(ctx, ids) })
	if err != nil {
		return nil, fmt.Errorf("read entitlements: %w", err)
	}
	out := make(map[id.Entitlement]entitlement, len(rows))
	for _, r := range rows {
		out[r.ID] = entitlement{name: r.Name, resource: r.ResourceID}
	}
	return out, nil
}
