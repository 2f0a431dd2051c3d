package server

import (
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
		Region:        t.Region, CreatedAt: timeOf(t.CreatedAt),
	}
}

func componentOf(c store.Component) *registryv1.Component {
	return &registryv1.Component{Name: c.Name, Address: c.Address, PathPrefixes: c.PathPrefixes}
}

func timeOf(t time.Time) *timestamppb.Timestamp { return timestamppb.New(t) }
