package systemtest

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

// Rows F16, in short, and F17: promise 8. The registry is stopped as it is, so that it takes connections and never answers, which is
// worse than being gone; what starts meanwhile has nothing but what it kept.
func TestPlaneServesWithoutItsRegistry(t *testing.T) {
	full(t)
	owner := acme().invite(t)
	w := acme().workspace(t, owner).GetId()
	resume := shared.pause(t, "plane/registry")
	l := newLoad(t, owner, w)
	l.healed(t, "the registry stopped")
	const a = 3 * time.Second
	quiet(t, l, a)
	// Cold starts: of the gateway, and of each service of a set.
	targets := []string{"plane/gateway"}
	for component := range acme().addresses {
		targets = append(targets, acme().id+"/"+component)
	}
	for _, target := range targets {
		before := shared.pids(t)[target]
		kill(t, before)
		within(t, backWithin, func() error {
			now, err := shared.process(t.Context(), target)
			if err == nil && (now.PID == before || now.State != "serving") {
				err = fmt.Errorf("%s is %s without the registry: %s", target, now.State, now.LastExit)
			}
			return err
		})
	}
	l.healed(t, "everything was started without the registry")
	quiet(t, l, a)
	newcomer := acme().invite(t) // the issuer needs no registry either
	if token := newcomer.token(t, ""); token == "" {
		t.Error("nobody new gets in")
	}
	resume()
	l.stop(t)
	within(t, backWithin, func() error {
		s, err := shared.command(t.Context(), "fleet", "tenant", "list")
		if err == nil && s.code != 0 {
			err = errors.New(s.String())
		}
		return err
	})
}

// quiet sees that for a while every request is answered.
func quiet(t *testing.T, l *load, d time.Duration) {
	t.Helper()
	reads, writes := l.progress()
	end := time.Now().Add(d)
	within(t, d+backWithin, func() error {
		if time.Now().Before(end) {
			return errors.New("the while is not over")
		}
		return nil
	})
	r, w := l.progress()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.errors) > 0 || r == reads || w == writes {
		t.Errorf("of %d reads and %d writes, there failed %v", r-reads, w-writes, l.errors)
	}
	clear(l.errors)
}
