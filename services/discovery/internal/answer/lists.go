package answer

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/page"
	"a3os.app/services/discovery/internal/runs"
	"a3os.app/services/discovery/internal/store"
)

// Resources pages through resources by type and by words of their name or id.
func (a *Answers) Resources(ctx context.Context, req *discoveryv1.ListResourcesRequest) (*discoveryv1.ListResourcesResponse, error) {
	const method = "ListResources"
	if strings.ContainsRune(req.GetSearch(), 0) {
		return nil, fault.New(fault.InvalidArgument, "search holds a zero byte, which no name has")
	}
	filter := []any{req.GetType(), req.GetSearch(), req.GetAccountsOnly(), req.GetAsOf().AsTime()}
	var from place[id.Resource]
	if err := a.pages.Open(ctx, method, filter, req.GetPageToken(), &from); err != nil {
		return nil, err
	}
	size := page.Size(req.GetPageSize())
	var res *discoveryv1.ListResourcesResponse
	var found []id.Resource
	var at *time.Time
	err := a.ask(ctx, req.GetAsOf(), from.At, func(ctx context.Context, q *question) (err error) {
		at = q.at
		found, err = q.q.ListResources(ctx, store.ListResourcesParams{After: uuid(from.After), Type: orNull(req.GetType()),
			AccountsOnly: req.GetAccountsOnly(), Search: orNull(req.GetSearch()), At: q.at, Most: size + 1})
		if err != nil {
			return fmt.Errorf("list resources: %w", err)
		}
		v, err := q.views(ctx, found)
		if err != nil {
			return err
		}
		res = &discoveryv1.ListResourcesResponse{Completeness: q.completeness}
		for _, r := range found[:min(len(found), int(size))] {
			res.Resources = append(res.Resources, v.of(r))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(found) > int(size) {
		if res.NextPageToken, err = a.pages.Seal(ctx, method, filter, place[id.Resource]{At: at, After: found[size-1]}); err != nil {
			return nil, err
		}
	}
	return res, nil
}

// Grants pages through the grants that stand, as the systems have them.
func (a *Answers) Grants(ctx context.Context, req *discoveryv1.ListGrantsRequest) (*discoveryv1.ListGrantsResponse, error) {
	const method = "ListGrants"
	type grantPlace struct {
		Integration id.Integration `json:"integration"`
		Grant       id.Grant       `json:"grant"`
	}
	var integration id.Integration
	if err := integration.UnmarshalText([]byte(req.GetIntegrationId())); err != nil {
		return nil, fault.New(fault.InvalidArgument, "integration_id: %v", err)
	}
	filter := []any{integration, req.GetAsOf().AsTime()}
	from := place[grantPlace]{After: grantPlace{Integration: integration}}
	if err := a.pages.Open(ctx, method, filter, req.GetPageToken(), &from); err != nil {
		return nil, err
	}
	size := page.Size(req.GetPageSize())
	var res *discoveryv1.ListGrantsResponse
	var rows []store.ListGrantsRow
	var at *time.Time
	err := a.ask(ctx, req.GetAsOf(), from.At, func(ctx context.Context, q *question) (err error) {
		at = q.at
		rows, err = q.q.ListGrants(ctx, store.ListGrantsParams{AfterIntegration: uuid(from.After.Integration), After: uuid(from.After.Grant),
			LastIntegration: uuid(integration), At: q.at, Most: size + 1})
		if err != nil {
			return fmt.Errorf("list grants: %w", err)
		}
		res = &discoveryv1.ListGrantsResponse{Completeness: q.completeness}
		grants := make([]grant, 0, size)
		for _, r := range rows[:min(len(rows), int(size))] {
			grants = append(grants, grant{id: r.ID, principal: r.PrincipalID, entitlement: r.EntitlementID, reason: r.Reason,
				grantable: r.Grantable, since: r.Since, until: r.Until})
		}
		res.Grants, err = q.grants(ctx, grants)
		return err
	})
	if err != nil {
		return nil, err
	}
	if len(rows) > int(size) {
		last := rows[size-1]
		if res.NextPageToken, err = a.pages.Seal(ctx, method, filter, place[grantPlace]{At: at, After: grantPlace{last.IntegrationID, last.ID}}); err != nil {
			return nil, err
		}
	}
	return res, nil
}

// Changes answers which grants came and went between two published runs of an integration.
func (a *Answers) Changes(ctx context.Context, req *discoveryv1.ListChangesRequest) (*discoveryv1.ListChangesResponse, error) {
	const method = "ListChanges"
	type changePlace struct {
		Grant id.Grant   `json:"grant"`
		Since *time.Time `json:"since"`
	}
	filter := []any{req.GetFromRunId(), req.GetToRunId()}
	var after changePlace
	if err := a.pages.Open(ctx, method, filter, req.GetPageToken(), &after); err != nil {
		return nil, err
	}
	size := page.Size(req.GetPageSize())
	var res *discoveryv1.ListChangesResponse
	var rows []store.ListChangesRow
	err := a.ask(ctx, nil, nil, func(ctx context.Context, q *question) error {
		from, to, err := q.between(ctx, req)
		if err != nil {
			return err
		}
		rows, err = q.q.ListChanges(ctx, store.ListChangesParams{FromAt: from, Integration: to.IntegrationID, ToAt: *to.FinishedAt,
			After: uuid(after.Grant), AfterSince: after.Since, Most: size + 1})
		if err != nil {
			return fmt.Errorf("list changes: %w", err)
		}
		some := rows[:min(len(rows), int(size))]
		grants := make([]grant, len(some))
		for i, r := range some {
			grants[i] = grant{id: r.ID, principal: r.PrincipalID, entitlement: r.EntitlementID, reason: r.Reason,
				grantable: r.Grantable, since: r.Since, until: r.Until}
		}
		shown, err := q.grants(ctx, grants)
		if err != nil {
			return err
		}
		res = &discoveryv1.ListChangesResponse{}
		for i, r := range some {
			res.Changes = append(res.Changes, &discoveryv1.Change{Grant: shown[i], Added: r.Added})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(rows) > int(size) {
		last := rows[size-1]
		if res.NextPageToken, err = a.pages.Seal(ctx, method, filter, changePlace{last.ID, &last.Since}); err != nil {
			return nil, err
		}
	}
	return res, nil
}

// between finds the two runs: when the earlier was published (nil: before everything), and the later.
func (q *question) between(ctx context.Context, req *discoveryv1.ListChangesRequest) (*time.Time, store.Run, error) {
	to, err := q.published(ctx, req.GetToRunId())
	if err != nil {
		return nil, store.Run{}, err
	}
	if req.GetFromRunId() == "" {
		return nil, to, nil
	}
	from, err := q.published(ctx, req.GetFromRunId())
	if err != nil {
		return nil, store.Run{}, err
	}
	if from.IntegrationID != to.IntegrationID {
		return nil, store.Run{}, fault.New(fault.InvalidArgument, "the two runs are of different integrations: name two of one")
	}
	if !from.FinishedAt.Before(*to.FinishedAt) {
		return nil, store.Run{}, fault.New(fault.InvalidArgument, "from_run_id is not the earlier of the two runs: exchange them")
	}
	return from.FinishedAt, to, nil
}

func (q *question) published(ctx context.Context, text string) (store.Run, error) {
	run, err := id.ParseRun(text)
	if err != nil {
		return store.Run{}, runs.ErrNoRun
	}
	row, err := q.q.GetRun(ctx, run)
	if errors.Is(err, pgx.ErrNoRows) {
		return store.Run{}, runs.ErrNoRun
	}
	if err != nil {
		return store.Run{}, fmt.Errorf("read a run: %w", err)
	}
	if row.State != "complete" && row.State != "partial" || row.FinishedAt == nil {
		return store.Run{}, fault.New(fault.FailedPrecondition, "the run %s published nothing (it is %s): name one that did", row.ID, row.State)
	}
	return row, nil
}

// grant is a row of history.
type grant struct {
	id          id.Grant
	principal   id.Resource
	entitlement id.Entitlement
	reason      string
	grantable   bool
	since       time.Time
	until       *time.Time
}

// grants are rows as they are shown.
func (q *question) grants(ctx context.Context, rows []grant) ([]*discoveryv1.GrantView, error) {
	of := make([]id.Entitlement, len(rows))
	show := make([]id.Resource, 0, 2*len(rows))
	for i, r := range rows {
		of[i] = r.entitlement
		show = append(show, r.principal)
	}
	names, err := q.entitlements(ctx, of)
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		show = append(show, n.resource)
	}
	v, err := q.views(ctx, show)
	if err != nil {
		return nil, err
	}
	out := make([]*discoveryv1.GrantView, len(rows))
	for i, r := range rows {
		e := names[r.entitlement]
		out[i] = &discoveryv1.GrantView{Id: r.id.String(), Principal: v.of(r.principal), Entitlement: e.name, Resource: v.of(e.resource),
			Reason: r.reason, Grantable: r.grantable, Since: timestamppb.New(r.since)}
		if r.until != nil {
			out[i].Until = timestamppb.New(*r.until)
		}
	}
	return out, nil
}

func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
