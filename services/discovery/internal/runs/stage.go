package runs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"

	"a3os.app/libs/access"
	"a3os.app/libs/failpoint"
	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/services/discovery/internal/store"
)

// SQLSTATE codes of text that PostgreSQL can't hold (PostgreSQL, appendix A).
const (
	characterNotInRepertoire = "22021"
	untranslatableCharacter  = "22P05"
)

// Stream takes the records of one claimed slice.
type Stream struct {
	runs        *Runs
	claim       claim
	integration id.Integration
	staged      int64
}

// Open opens a stream for the presented slice.
func (r *Runs) Open(ctx context.Context) (*Stream, error) {
	c, err := presented(ctx)
	if err != nil {
		return nil, err
	}
	s := &Stream{runs: r, claim: c}
	err = r.cfg.DB.ReadWorkspace(ctx, func(ctx context.Context, tx pgx.Tx) error {
		row, err := store.New(tx).GetRun(ctx, c.run)
		if errors.Is(err, pgx.ErrNoRows) {
			return ErrNoRun
		}
		if err != nil {
			return fmt.Errorf("read the run: %w", err)
		}
		s.integration = row.IntegrationID
		return nil
	})
	return s, err
}

// Staged counts what the stream has staged.
func (s *Stream) Staged() int64 { return s.staged }

// Put stages records for an attempt, by COPY, in one transaction. What is staged counts only when its slice is sealed by the attempt.
func (s *Stream) Put(ctx context.Context, attempt uint32, records []*discoveryv1.Record) error {
	b := batch{run: s.claim.run, slice: s.claim.slice, attempt: int32(attempt), integration: s.integration} //nolint:gosec // bounded by the queue's tries
	for _, rec := range records {
		if err := b.add(rec); err != nil {
			return err
		}
	}
	err := s.runs.cfg.DB.Workspace(ctx, func(ctx context.Context, tx pgx.Tx) error {
		row, err := store.New(tx).ShareRun(ctx, s.claim.run)
		if errors.Is(err, pgx.ErrNoRows) {
			return ErrNoRun
		}
		if err != nil {
			return fmt.Errorf("read the run: %w", err)
		}
		if row.State != "running" || row.Slice != b.slice || row.Attempt != b.attempt {
			return ErrFenced
		}
		if err := b.copy(ctx, tx); err != nil {
			return err
		}
		return failpoint.Here("discovery.stage.before-commit")
	})
	if err == nil {
		err = failpoint.Here("discovery.stage.committed")
	}
	if err != nil {
		return err
	}
	s.staged += int64(len(records))
	return nil
}

// batch is rows for the staging tables.
type batch struct {
	run            id.Run
	slice, attempt int32
	integration    id.Integration

	resources, entitlements, grants, expansions [][]any
}

func (b *batch) add(rec *discoveryv1.Record) error {
	scope := rec.GetScope()
	switch k := rec.GetKind().(type) {
	case *discoveryv1.Record_Resource:
		attributes, err := json.Marshal(orEmptyMap(k.Resource.GetAttributes()))
		if err != nil {
			return fmt.Errorf("encode attributes: %w", err)
		}
		var parent any
		if p := k.Resource.GetParent(); p != nil {
			parent = access.ResourceID(b.integration, p.GetType(), p.GetExternalId()).Bytes()
		}
		b.resources = append(b.resources, []any{b.run, b.slice, b.attempt,
			access.ResourceID(b.integration, k.Resource.GetType(), k.Resource.GetExternalId()).Bytes(), k.Resource.GetType(),
			k.Resource.GetExternalId(), k.Resource.GetDisplayName(), parent, attributes, k.Resource.GetAccount(), scope})
	case *discoveryv1.Record_Entitlement:
		res := b.resource(k.Entitlement.GetResource())
		b.entitlements = append(b.entitlements, []any{b.run, b.slice, b.attempt,
			access.EntitlementID(res, k.Entitlement.GetName()).Bytes(), res.Bytes(), k.Entitlement.GetName(),
			int16(k.Entitlement.GetPurpose()), k.Entitlement.GetDescription(), scope}) //nolint:gosec // an enum of four values
	case *discoveryv1.Record_Grant:
		principal, entitlement := b.resource(k.Grant.GetPrincipal()), b.entitlement(k.Grant.GetEntitlement())
		b.grants = append(b.grants, []any{b.run, b.slice, b.attempt, access.GrantID(principal, entitlement).Bytes(),
			principal.Bytes(), entitlement.Bytes(), k.Grant.GetReason(), k.Grant.GetGrantable(), k.Grant.GetNotInherited(), scope})
	case *discoveryv1.Record_Expansion:
		from, to := b.entitlement(k.Expansion.GetFrom()), b.entitlement(k.Expansion.GetTo())
		b.expansions = append(b.expansions, []any{b.run, b.slice, b.attempt, from.Bytes(), to.Bytes(),
			k.Expansion.GetAssumption(), k.Expansion.GetReason(), scope})
	default:
		return fault.New(fault.InvalidArgument, "a record of an unknown kind")
	}
	return nil
}

func (b *batch) resource(r *discoveryv1.ResourceRef) id.Resource {
	return access.ResourceID(b.integration, r.GetType(), r.GetExternalId())
}

func (b *batch) entitlement(e *discoveryv1.EntitlementRef) id.Entitlement {
	return access.EntitlementID(b.resource(e.GetResource()), e.GetName())
}

func (b *batch) copy(ctx context.Context, tx pgx.Tx) error {
	for _, t := range []struct {
		table   string
		columns []string
		rows    [][]any
	}{
		{"staged_resources", []string{"id", "type", "external_id", "display_name", "parent_id", "attributes", "account", "scope"}, b.resources},
		{"staged_entitlements", []string{"id", "resource_id", "name", "purpose", "description", "scope"}, b.entitlements},
		{"staged_grants", []string{"id", "principal_id", "entitlement_id", "reason", "grantable", "not_inherited", "scope"}, b.grants},
		{"staged_expansions", []string{"from_id", "to_id", "assumption", "reason", "scope"}, b.expansions},
	} {
		if len(t.rows) == 0 {
			continue
		}
		columns := append([]string{"run_id", "slice", "attempt"}, t.columns...)
		if _, err := tx.CopyFrom(ctx, pgx.Identifier{"discovery", t.table}, columns, pgx.CopyFromRows(t.rows)); err != nil {
			if pe, ok := errors.AsType[*pgconn.PgError](err); ok && (pe.Code == characterNotInRepertoire || pe.Code == untranslatableCharacter) {
				return fault.Wrap(fault.InvalidArgument, err, "a record holds a zero byte, which no text of the database can")
			}
			return fmt.Errorf("stage into %s: %w", t.table, err)
		}
	}
	return nil
}

func orEmptyMap(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}
