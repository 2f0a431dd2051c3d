package aws_test

import (
	"context"
	"slices"
	"testing"
)

// What a component needs no more it is given until the change of its stack came to its end: tasks of before, and those that CloudFormation goes back to, are
// started with it. It is taken back by who goes on, and comes again on the way back.
func TestWhatIsNeededNoMoreIsGivenUntilTheChangeIsDone(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	bring := func() {
		t.Helper()
		if err := w.fetch(ctx, w.set); err != nil {
			t.Fatal(err)
		}
		if err := w.start(ctx, w.set); err != nil {
			t.Fatal(err)
		}
	}
	given := func(when string, want bool) {
		t.Helper()
		if keys := w.keys("discovery"); slices.Contains(keys, "key-discovery-pages") != want || !slices.Contains(keys, "key-envelope") {
			t.Errorf("%s discovery is given %q", when, keys)
		}
	}
	bring()
	given("before", true)
	w.set.Blueprint = w.blueprint("keys: [discovery-pages, envelope]", "keys: [envelope]", "      A3_PAGE_KEY_FILE: '{{.KeyFile \"discovery-pages\"}}'\n      A3_ENVELOPE_KEY_FILE", "      A3_ENVELOPE_KEY_FILE")
	w.cutOff("ExecuteChangeSet", "", func(ctx context.Context) error { return w.start(ctx, w.set) })
	given("cut off before its stack is changed", true)
	bring()
	given("afterwards", false)
	w.set.Blueprint = w.Tenants
	bring()
	given("gone back", true)
}
