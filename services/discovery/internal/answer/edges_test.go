package answer_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"

	"a3os.app/libs/access"
	"a3os.app/libs/access/accesstest"
	"a3os.app/libs/id"
	"a3os.app/services/discovery/internal/answer"
	"a3os.app/services/discovery/internal/discoverytest"
	"a3os.app/services/discovery/internal/store"
)

// inWorkspace are the edges of a workspace, each question in a transaction of its own.
type inWorkspace struct {
	env       *discoverytest.Env
	workspace id.Workspace
}

func ask[K, V any](e inWorkspace, ctx context.Context, keys []K, question func(access.Edges, context.Context, []K) ([]V, error)) (out []V, err error) {
	err = e.env.DB.ReadWorkspace(e.env.In(ctx, e.workspace), func(ctx context.Context, tx pgx.Tx) (err error) {
		out, err = question(answer.NewEdges(store.New(tx), nil), ctx, keys)
		return err
	})
	return out, err
}

func (e inWorkspace) GrantsFrom(ctx context.Context, k []id.Resource) ([]access.Grant, error) {
	return ask(e, ctx, k, access.Edges.GrantsFrom)
}

func (e inWorkspace) GrantsTo(ctx context.Context, k []id.Entitlement) ([]access.Grant, error) {
	return ask(e, ctx, k, access.Edges.GrantsTo)
}

func (e inWorkspace) ExpansionsFrom(ctx context.Context, k []id.Entitlement) ([]access.Expansion, error) {
	return ask(e, ctx, k, access.Edges.ExpansionsFrom)
}

func (e inWorkspace) ExpansionsTo(ctx context.Context, k []id.Entitlement) ([]access.Expansion, error) {
	return ask(e, ctx, k, access.Edges.ExpansionsTo)
}

func (e inWorkspace) Entitlements(ctx context.Context, k []id.Entitlement) ([]access.Entitlement, error) {
	return ask(e, ctx, k, access.Edges.Entitlements)
}

func (e inWorkspace) EntitlementsOn(ctx context.Context, k []id.Resource) ([]access.Entitlement, error) {
	return ask(e, ctx, k, access.Edges.EntitlementsOn)
}

// TestRowsAnswerAsMemoryDoes runs the conformance suite on what a run published, beside the same graph in another workspace.
func TestRowsAnswerAsMemoryDoes(t *testing.T) {
	t.Parallel()
	env := discoverytest.New(t)
	accesstest.TestEdges(t, func(t *testing.T, integration id.Integration, records []*discoveryv1.Record) access.Edges {
		own, other := id.NewWorkspace(), id.NewWorkspace()
		for _, w := range []id.Workspace{own, other} {
			env.Run(t, w, integration, discoverytest.Slice{Records: records, Completed: []string{"test"}})
		}
		return inWorkspace{env: env, workspace: own}
	})
}
