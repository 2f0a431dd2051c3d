package server

import (
	"encoding/json"
	"strings"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/services/registry/internal/store"
)

// Columns hold an enum's name in lower case without its prefix: TENANT_STATE_ACTIVE is `active`.
const (
	statePrefix = "TENANT_STATE_"
	tierPrefix  = "ISOLATION_TIER_"
	kindPrefix  = "OPERATION_KIND_"
	opPrefix    = "OPERATION_STATE_"
	stepPrefix  = "STEP_STATE_"
)

func word(prefix string, e protoreflect.Enum) string {
	v := e.Descriptor().Values().ByNumber(e.Number())
	if v == nil {
		return ""
	}
	return strings.ToLower(strings.TrimPrefix(string(v.Name()), prefix))
}

func stateWord(s registryv1.TenantState) string { return word(statePrefix, s) }

func number(prefix, word string, values map[string]int32) int32 {
	return values[prefix+strings.ToUpper(word)]
}

func tenantOf(t store.Tenant) *registryv1.Tenant {
	return &registryv1.Tenant{
		Id: t.ID.String(), Slug: t.Slug, DisplayName: t.DisplayName,
		State:         registryv1.TenantState(number(statePrefix, t.State, registryv1.TenantState_value)),
		IsolationTier: registryv1.IsolationTier(number(tierPrefix, t.IsolationTier, registryv1.IsolationTier_value)),
		Region:        t.Region, CreatedAt: timeOf(t.CreatedAt), Labels: labelsOf(t), Account: t.Account, CopyOf: t.CopyOf.String(),
	}
}

// labelsOf are a tenant's labels. The column is an object of strings: nobody else writes it.
func labelsOf(t store.Tenant) map[string]string {
	labels := map[string]string{}
	if json.Unmarshal(t.Labels, &labels) != nil || len(labels) == 0 {
		return nil
	}
	return labels
}

func operationOf(o store.Operation, steps []store.OperationStep) *registryv1.Operation {
	out := &registryv1.Operation{
		Id: o.ID.String(), TenantId: o.TenantID.String(), PlanHash: o.PlanHash, PlanTarget: o.PlanTarget, Actor: o.Actor, Reason: o.Reason,
		Kind:        registryv1.OperationKind(number(kindPrefix, o.Kind, registryv1.OperationKind_value)),
		State:       registryv1.OperationState(number(opPrefix, o.State, registryv1.OperationState_value)),
		ReleaseFrom: o.ReleaseFrom, ReleaseTo: o.ReleaseTo, Lease: leaseOf(o), CreatedAt: timeOf(o.CreatedAt), EndedAt: timeOrNone(o.EndedAt),
		RolloutId: o.RolloutID.String(), AbortReason: o.AbortReason, AbortedBy: o.AbortedBy,
	}
	for _, s := range steps {
		out.Steps = append(out.Steps, &registryv1.Step{
			Name: s.Name, State: registryv1.StepState(number(stepPrefix, s.State, registryv1.StepState_value)), Attempts: s.Attempts,
			BegunAt: timeOrNone(s.BegunAt), EndedAt: timeOrNone(s.EndedAt), Detail: s.Detail,
		})
		if s.Name == stepExport && s.State == stepDone && s.EndedAt != nil && o.WaitSeconds > 0 {
			out.WaitsUntil = timeOf(s.EndedAt.Add(time.Duration(o.WaitSeconds * float64(time.Second))))
		}
	}
	return out
}

// leaseOf is who works on an operation, or did last; nil where nobody ever did.
func leaseOf(o store.Operation) *registryv1.Lease {
	if o.LeaseFence == 0 {
		return nil
	}
	return &registryv1.Lease{Holder: o.LeaseHolder, Place: o.LeasePlace, Fence: o.LeaseFence, ExpiresAt: timeOrNone(o.LeaseExpiresAt)}
}

func timeOrNone(t *time.Time) *timestamppb.Timestamp {
	if t == nil {
		return nil
	}
	return timeOf(*t)
}

func componentOf(c store.Component) *registryv1.Component {
	return &registryv1.Component{Name: c.Name, Address: c.Address, PathPrefixes: c.PathPrefixes}
}

func databaseOf(s store.ServiceSet) *registryv1.DatabasePlace {
	if s.DatabaseServer == nil || s.DatabaseName == nil {
		return nil
	}
	return &registryv1.DatabasePlace{Server: *s.DatabaseServer, Name: *s.DatabaseName}
}

func timeOf(t time.Time) *timestamppb.Timestamp { return timestamppb.New(t) }
