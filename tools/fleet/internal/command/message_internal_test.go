package command

import (
	"errors"
	"fmt"
	"testing"

	"a3os.app/libs/fault"
)

// Of several things that are wrong each is a line, and of none the cause is shown that a service kept for its log.
func TestEachOfSeveralErrorsIsALine(t *testing.T) {
	of := func(tenant string) error {
		return fmt.Errorf("tenant %s: %w", tenant, fault.Wrap(fault.Unavailable, errors.New("dial 10.0.0.1"), "the registry is away: try again"))
	}
	if got, want := message(errors.Join(of("acme"), of("globex"))), "tenant acme: the registry is away: try again\ntenant globex: the registry is away: try again"; got != want {
		t.Errorf("it is shown as %q, want %q", got, want)
	}
	if got, want := message(fmt.Errorf("%w, and %w", errors.New("one"), errors.New("other"))), "one, and other"; got != want {
		t.Errorf("a sentence of two is shown as %q, want %q", got, want)
	}
}
