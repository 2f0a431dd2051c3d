package server

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
	"a3os.app/services/registry/internal/store"
)

// ring is the label that says how early a tenant gets a release; rings are its values, the earliest first.
const ring = "ring"

var rings = []string{"canary", "early", "general"}

const mostLabels = 32

func checkLabels(labels map[string]string) error {
	if len(labels) > mostLabels {
		return fault.New(fault.InvalidArgument, "a tenant has at most %d labels", mostLabels)
	}
	if v, ok := labels[ring]; ok && !slices.Contains(rings, v) {
		return fault.New(fault.InvalidArgument, "the label ring is %q: it is canary, early or general", v)
	}
	return nil
}

func encodeLabels(labels map[string]string) ([]byte, error) {
	if len(labels) == 0 {
		return []byte("{}"), nil
	}
	return json.Marshal(labels)
}

// SetTenantLabels sets and removes labels. To set what is there already changes nothing.
func (s *tenantWrites) SetTenantLabels(ctx context.Context, req *registryv1.SetTenantLabelsRequest) (*registryv1.SetTenantLabelsResponse, error) {
	res := &registryv1.SetTenantLabelsResponse{}
	err := s.change(ctx, func(ctx context.Context, ch change) error {
		t, err := ch.lock(ctx, req.GetTenantId())
		if err != nil {
			return err
		}
		labels := map[string]string{}
		maps.Copy(labels, labelsOf(t))
		for _, name := range req.GetRemove() {
			delete(labels, name)
		}
		for name, value := range req.GetSet() {
			if slices.Contains(req.GetRemove(), name) {
				return fault.New(fault.InvalidArgument, "the label %s is set and removed", name)
			}
			labels[name] = value
		}
		if err := checkLabels(labels); err != nil {
			return err
		}
		if maps.Equal(labels, labelsOf(t)) {
			res.Tenant, err = tenantNow(ctx, ch.q, t)
			return err
		}
		encoded, err := encodeLabels(labels)
		if err != nil {
			return err
		}
		if t, err = ch.q.SetTenantLabels(ctx, store.SetTenantLabelsParams{ID: t.ID, Labels: encoded}); err != nil {
			return fmt.Errorf("set the labels: %w", err)
		}
		if res.Tenant, err = tenantNow(ctx, ch.q, t); err != nil {
			return err
		}
		return ch.log(ctx, "registry.tenant.labelled", t.ID.String(), detail(req))
	})
	if err != nil {
		return nil, err
	}
	return res, nil
}
