// Package connectortest is what every connector must pass, whatever it reads: it may be stopped after any record and go on, it ends
// a slice soon when asked to, what it emits fits the proto's bounds and names nothing that it didn't emit, and it says of every
// scope either that it read all of it or what it could not read. It relies on the system standing still while it is read.
package connectortest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	"a3os.app/services/discoveryworker/internal/connector"
)

// Bounds of what a connector does after it was told that a slice is due.
const (
	// maxEmitsWhenDue is how many times it may still hand over records.
	maxEmitsWhenDue = 2
	// maxRecordsASlice is how many records it may hand over between two looks at Due.
	maxRecordsASlice = 20000
	// maxCheckpoints is how many of the checkpoints are gone on from.
	maxCheckpoints = 25
)

// Recorder is a sink that keeps what it is given.
type Recorder struct {
	// Records in the order in which they came.
	Records []*discoveryv1.Record
	// Completed are the scopes declared complete.
	Completed map[string]bool
	// Gaps by scope.
	Gaps map[string][]string
	// AlwaysDue makes every slice due at once.
	AlwaysDue bool
	// Fail, if set, is what Emit answers.
	Fail error

	sinceAsked, emitsWhenDue int
	toldDue                  bool
	unruly                   []string
}

// NewRecorder makes an empty one.
func NewRecorder() *Recorder {
	return &Recorder{Completed: map[string]bool{}, Gaps: map[string][]string{}}
}

// Emit implements connector.Sink.
func (r *Recorder) Emit(ctx context.Context, records ...*discoveryv1.Record) error {
	if r.Fail != nil {
		return r.Fail
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, one := range records {
		// A copy, since the connector may use the slice and the messages again.
		r.Records = append(r.Records, proto.CloneOf(one))
	}
	if r.sinceAsked += len(records); r.sinceAsked > maxRecordsASlice {
		r.unruly = append(r.unruly, fmt.Sprintf("%d records without asking whether the slice is due", r.sinceAsked))
	}
	if r.toldDue {
		if r.emitsWhenDue++; r.emitsWhenDue > maxEmitsWhenDue {
			r.unruly = append(r.unruly, fmt.Sprintf("%d times Emit after the slice was due", r.emitsWhenDue))
		}
	}
	return nil
}

// Complete implements connector.Sink.
func (r *Recorder) Complete(scope string) { r.Completed[scope] = true }

// Gap implements connector.Sink.
func (r *Recorder) Gap(scope, reason string) { r.Gaps[scope] = append(r.Gaps[scope], reason) }

// Progress implements connector.Sink.
func (r *Recorder) Progress(string) {}

// Due implements connector.Sink.
func (r *Recorder) Due() bool {
	r.sinceAsked = 0
	r.toldDue = r.toldDue || r.AlwaysDue
	return r.AlwaysDue
}

// ReadAll reads from a checkpoint (nil at the start) to the end without a slice ever being due.
func ReadAll(t *testing.T, c connector.Connector, source connector.Source, checkpoint []byte) *Recorder {
	t.Helper()
	sink := NewRecorder()
	for {
		next, err := c.Read(t.Context(), source, checkpoint, sink)
		if err != nil {
			t.Fatalf("Read: %v", err)
		}
		if next == nil {
			return sink
		}
		checkpoint = next
	}
}

// Test runs the suite on a connector and a source that it can read.
func Test(t *testing.T, c connector.Connector, source connector.Source) {
	t.Helper()
	whole := ReadAll(t, c, source, nil)
	if len(whole.Records) == 0 {
		t.Fatal("nothing was emitted: the suite needs a source with something in it")
	}
	t.Run("EveryRecordFitsTheProto", func(t *testing.T) { valid(t, whole) })
	t.Run("NothingIsEmittedTwice", func(t *testing.T) { once(t, whole) })
	t.Run("WhatIsNamedWasEmitted", func(t *testing.T) { named(t, whole) })
	t.Run("EveryScopeIsCompleteOrHasAGap", func(t *testing.T) { scopes(t, whole) })
	t.Run("ASecondReadSaysTheSame", func(t *testing.T) {
		same(t, set(whole.Records), set(ReadAll(t, c, source, nil).Records))
	})
	t.Run("DueEndsTheSliceAndResumingLosesNothing", func(t *testing.T) { sliced(t, c, source, whole) })
	t.Run("AnErrorOfTheSinkEndsTheRead", func(t *testing.T) {
		sink := NewRecorder()
		sink.Fail = errors.New("the receiver is gone")
		if _, err := c.Read(t.Context(), source, nil, sink); !errors.Is(err, sink.Fail) {
			t.Errorf("Read answered %v, want the sink's error", err)
		}
		if len(sink.Completed) > 0 {
			t.Errorf("scopes were declared complete though nothing could be handed over: %v", sink.Completed)
		}
	})
	t.Run("ACancelledReadFails", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := c.Read(ctx, source, nil, NewRecorder()); err == nil {
			t.Error("Read answered no error though its context was cancelled")
		}
	})
	t.Run("AForeignCheckpointIsRefusedForGood", func(t *testing.T) {
		_, err := c.Read(t.Context(), source, []byte("not a checkpoint"), NewRecorder())
		if _, permanent := errors.AsType[*connector.PermanentError](err); !permanent {
			t.Errorf("Read answered %v, want a permanent error", err)
		}
	})
}

func valid(t *testing.T, whole *Recorder) {
	for _, r := range whole.Records {
		if err := protovalidate.Validate(r); err != nil {
			t.Errorf("%v: %v", r, err)
		}
	}
	for scope, reasons := range whole.Gaps {
		for _, reason := range reasons {
			if err := protovalidate.Validate(&discoveryv1.Gap{Scope: scope, Reason: reason}); err != nil {
				t.Errorf("gap %q of %q: %v", reason, scope, err)
			}
		}
	}
}

func once(t *testing.T, whole *Recorder) {
	seen := map[string]bool{}
	for _, r := range whole.Records {
		key := r.GetScope() + "\x00" + identity(r)
		if seen[key] {
			t.Errorf("emitted twice: %v", r)
		}
		seen[key] = true
	}
}

func named(t *testing.T, whole *Recorder) {
	resources, entitlements := map[string]bool{}, map[string]bool{}
	for _, r := range whole.Records {
		switch {
		case r.GetResource() != nil:
			resources[resourceKey(&discoveryv1.ResourceRef{Type: r.GetResource().GetType(), ExternalId: r.GetResource().GetExternalId()})] = true
		case r.GetEntitlement() != nil:
			entitlements[entitlementKey(r.GetEntitlement().GetResource(), r.GetEntitlement().GetName())] = true
		}
	}
	for _, r := range whole.Records {
		var refs []*discoveryv1.ResourceRef
		var held []*discoveryv1.EntitlementRef
		switch {
		case r.GetResource().GetParent() != nil:
			refs = append(refs, r.GetResource().GetParent())
		case r.GetEntitlement() != nil:
			refs = append(refs, r.GetEntitlement().GetResource())
		case r.GetGrant() != nil:
			refs = append(refs, r.GetGrant().GetPrincipal())
			held = append(held, r.GetGrant().GetEntitlement())
		case r.GetExpansion() != nil:
			held = append(held, r.GetExpansion().GetFrom(), r.GetExpansion().GetTo())
		}
		for _, ref := range refs {
			if !resources[resourceKey(ref)] {
				t.Errorf("%v names the resource %v, which wasn't emitted", r, ref)
			}
		}
		for _, ref := range held {
			if !entitlements[entitlementKey(ref.GetResource(), ref.GetName())] {
				t.Errorf("%v names the entitlement %v, which wasn't emitted", r, ref)
			}
		}
	}
}

func scopes(t *testing.T, whole *Recorder) {
	all := maps.Clone(whole.Completed)
	for scope := range whole.Gaps {
		all[scope] = true
	}
	for _, r := range whole.Records {
		all[r.GetScope()] = true
	}
	for scope := range all {
		if complete, gaps := whole.Completed[scope], len(whole.Gaps[scope]) > 0; complete == gaps {
			t.Errorf("scope %q: complete is %t, gaps are %q", scope, complete, whole.Gaps[scope])
		}
	}
}

// sliced reads in slices that are due at once, and goes on from every checkpoint, once in a slice and once to the end.
func sliced(t *testing.T, c connector.Connector, source connector.Source, whole *Recorder) {
	type part struct {
		checkpoint []byte
		records    []*discoveryv1.Record
	}
	var parts []part
	gaps, completed := map[string]bool{}, map[string]bool{}
	for checkpoint := []byte(nil); ; {
		sink := NewRecorder()
		sink.AlwaysDue = true
		next, err := c.Read(t.Context(), source, checkpoint, sink)
		if err != nil {
			t.Fatalf("Read from slice %d: %v", len(parts), err)
		}
		for _, words := range sink.unruly {
			t.Errorf("slice %d: %s", len(parts), words)
		}
		for scope := range sink.Gaps {
			gaps[scope] = true
		}
		maps.Copy(completed, sink.Completed)
		parts = append(parts, part{checkpoint, sink.Records})
		if next == nil {
			break
		}
		if len(parts) > len(whole.Records)+1000 {
			t.Fatalf("after %d slices there is no end: a slice must get on", len(parts))
		}
		checkpoint = next
	}
	t.Logf("%d records in %d slices", len(whole.Records), len(parts))
	var all []*discoveryv1.Record
	for _, s := range parts {
		all = append(all, s.records...)
	}
	same(t, set(whole.Records), set(all))
	if !maps.Equal(completed, whole.Completed) {
		t.Errorf("in slices these scopes are complete: %v, at once: %v", completed, whole.Completed)
	}
	for scope := range whole.Gaps {
		if !gaps[scope] {
			t.Errorf("in slices the gaps of %q are not named", scope)
		}
	}
	step := max(1, len(parts)/maxCheckpoints)
	for i := 1; i < len(parts); i += step {
		again := NewRecorder()
		again.AlwaysDue = true
		if _, err := c.Read(t.Context(), source, parts[i].checkpoint, again); err != nil {
			t.Fatalf("Read from checkpoint %d: %v", i, err)
		}
		same(t, set(parts[i].records), set(again.Records))
		var before []*discoveryv1.Record
		for _, s := range parts[:i] {
			before = append(before, s.records...)
		}
		rest := ReadAll(t, c, source, parts[i].checkpoint)
		same(t, set(whole.Records), set(append(before, rest.Records...)))
	}
}

// same compares two sets of records.
func same(t *testing.T, want, got map[string]*discoveryv1.Record) {
	t.Helper()
	differences := 0
	for _, k := range slices.Sorted(maps.Keys(want)) {
		if got[k] == nil {
			if differences++; differences <= 5 {
				t.Errorf("missing: %v", want[k])
			}
		}
	}
	for _, k := range slices.Sorted(maps.Keys(got)) {
		if want[k] == nil {
			if differences++; differences <= 5 {
				t.Errorf("too much: %v", got[k])
			}
		}
	}
	if differences > 5 {
		t.Errorf("and %d more differences", differences-5)
	}
}

// set is records by their whole content.
func set(records []*discoveryv1.Record) map[string]*discoveryv1.Record {
	out := make(map[string]*discoveryv1.Record, len(records))
	for _, r := range records {
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(r)
		if err != nil {
			b = []byte(err.Error())
		}
		out[string(b)] = r
	}
	return out
}

func resourceKey(r *discoveryv1.ResourceRef) string { return r.GetType() + "\x00" + r.GetExternalId() }

func entitlementKey(on *discoveryv1.ResourceRef, name string) string {
	return resourceKey(on) + "\x00" + name
}

// identity is what a record is about.
func identity(r *discoveryv1.Record) string {
	switch {
	case r.GetResource() != nil:
		return "resource\x00" + r.GetResource().GetType() + "\x00" + r.GetResource().GetExternalId()
	case r.GetEntitlement() != nil:
		return "entitlement\x00" + entitlementKey(r.GetEntitlement().GetResource(), r.GetEntitlement().GetName())
	case r.GetGrant() != nil:
		g := r.GetGrant()
		return "grant\x00" + resourceKey(g.GetPrincipal()) + "\x00" + entitlementKey(g.GetEntitlement().GetResource(), g.GetEntitlement().GetName())
	}
	x := r.GetExpansion()
	return "expansion\x00" + entitlementKey(x.GetFrom().GetResource(), x.GetFrom().GetName()) + "\x00" + entitlementKey(x.GetTo().GetResource(), x.GetTo().GetName())
}
