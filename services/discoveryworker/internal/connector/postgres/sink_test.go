package postgres

import (
	"context"
	"io"
	"math/rand/v2"
	"testing"

	"buf.build/go/protovalidate"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"
	"a3os.app/services/discoveryworker/internal/connector"
)

// collected is a sink that keeps everything.
type collected struct {
	records  []*discoveryv1.Record
	complete []string
	gaps     map[string]string
	words    []string
	due      func() bool
	emit     func(count int) error
}

func (c *collected) Emit(_ context.Context, records ...*discoveryv1.Record) error {
	c.records = append(c.records, records...)
	if c.emit != nil {
		return c.emit(len(c.records))
	}
	return nil
}

func (c *collected) Complete(scope string) { c.complete = append(c.complete, scope) }

func (c *collected) Gap(scope, reason string) {
	if c.gaps == nil {
		c.gaps = map[string]string{}
	}
	c.gaps[scope] = reason
}

func (c *collected) Progress(words string) { c.words = append(c.words, words) }

func (c *collected) Due() bool { return c.due != nil && c.due() }

func testSource(settings *integrationsv1.Settings, password string) connector.Source {
	return connector.Source{
		Name: "orders", Settings: settings,
		Secret:  func(context.Context) (string, error) { return password, nil },
		Content: func(context.Context) (io.ReadCloser, error) { return nil, io.EOF },
	}
}

// readAll reads slice by slice, each ending where chance says.
func readAll(t *testing.T, c connector.Connector, source connector.Source, rng *rand.Rand) []*discoveryv1.Record {
	t.Helper()
	sink := &collected{due: func() bool { return rng.IntN(20) == 0 }}
	var checkpoint []byte
	for {
		next, err := c.Read(t.Context(), source, checkpoint, sink)
		if err != nil {
			t.Fatal(err)
		}
		if next == nil {
			break
		}
		checkpoint = next
	}
	if len(sink.gaps) > 0 {
		t.Fatalf("gaps: %v", sink.gaps)
	}
	checkRecords(t, sink.records)
	return sink.records
}

// checkRecords holds the records against what every receiver may rely on: the proto's rules, each thing once, and no edge to
// something that was not emitted.
func checkRecords(t *testing.T, records []*discoveryv1.Record) {
	t.Helper()
	seen := map[string]bool{}
	resources, entitlements := map[string]bool{}, map[string]bool{}
	on := func(r *discoveryv1.ResourceRef) string { return r.GetType() + "\x00" + r.GetExternalId() }
	of := func(e *discoveryv1.EntitlementRef) string { return on(e.GetResource()) + "\x00" + e.GetName() }
	once := func(key string) {
		if seen[key] {
			t.Fatalf("emitted twice: %q", key)
		}
		seen[key] = true
	}
	for _, r := range records {
		if err := protovalidate.Validate(r); err != nil {
			t.Fatalf("%v: %v", r, err)
		}
		switch k := r.GetKind().(type) {
		case *discoveryv1.Record_Resource:
			key := k.Resource.GetType() + "\x00" + k.Resource.GetExternalId()
			once("resource " + key)
			resources[key] = true
		case *discoveryv1.Record_Entitlement:
			key := on(k.Entitlement.GetResource()) + "\x00" + k.Entitlement.GetName()
			once("entitlement " + key)
			entitlements[key] = true
		case *discoveryv1.Record_Grant:
			once("grant " + on(k.Grant.GetPrincipal()) + "\x00" + of(k.Grant.GetEntitlement()))
		case *discoveryv1.Record_Expansion:
			once("expansion " + of(k.Expansion.GetFrom()) + "\x00" + of(k.Expansion.GetTo()))
		}
	}
	for _, r := range records {
		switch k := r.GetKind().(type) {
		case *discoveryv1.Record_Resource:
			if p := k.Resource.GetParent(); p != nil && !resources[on(p)] {
				t.Fatalf("the parent was not emitted: %v", r)
			}
		case *discoveryv1.Record_Entitlement:
			if !resources[on(k.Entitlement.GetResource())] {
				t.Fatalf("the resource was not emitted: %v", r)
			}
		case *discoveryv1.Record_Grant:
			if !resources[on(k.Grant.GetPrincipal())] || !entitlements[of(k.Grant.GetEntitlement())] {
				t.Fatalf("an end was not emitted: %v", r)
			}
		case *discoveryv1.Record_Expansion:
			if !entitlements[of(k.Expansion.GetFrom())] || !entitlements[of(k.Expansion.GetTo())] {
				t.Fatalf("an end was not emitted: %v", r)
			}
		}
	}
}
