package operate

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
)

// confirmWithin is how long the set may take to say itself that it runs the release.
const confirmWithin = 2 * time.Minute

// confirm returns when each component of the set itself says that it runs the release, healthy, and said so since it was started with
// it. What it said before the change counts for nothing. Where the registry was away meanwhile, nobody could say anything: ErrAway.
func (w *work) confirm(ctx context.Context) error {
	within, cancel := context.WithTimeout(ctx, confirmWithin)
	defer cancel()
	missing, err := w.awaitWord(within)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case within.Err() == nil:
		return err
	}
	silent := fmt.Errorf("the set did not say within %s that it runs %s: %s", confirmWithin, w.release, strings.Join(missing, "; "))
	if errors.Is(err, ErrAway) {
		return fmt.Errorf("%w, for a while at least: %w", ErrAway, silent)
	}
	return silent
}

// awaitWord is confirm for as long as the context lasts. When that ends it answers what was missing when it was known last, and ErrAway besides
// where the registry was away meanwhile.
func (w *work) awaitWord(ctx context.Context) (missing []string, err error) {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	tenants := registryv1.NewTenantServiceClient(w.Conn)
	missing = []string{"nobody could be asked"}
	var away error
	for {
		asked := time.Now()
		res, err := tenants.GetTenant(ctx, &registryv1.GetTenantRequest{Tenant: w.set.Tenant.String()})
		if errors.Is(err, ErrAway) || time.Since(asked) >= tooSlow {
			away = ErrAway
		}
		switch {
		case err == nil:
			if missing, err = w.unconfirmed(ctx, res.GetStatus()); len(missing) == 0 || err != nil {
				return missing, err
			}
		// What was asked too late to be answered says nothing: what was missing before is. Who is asked may find that out a moment before we do.
		case fault.KindOf(fault.FromRPC(err)) != fault.DeadlineExceeded:
			missing = []string{fault.FromRPC(err).Error()}
		}
		select {
		case <-ctx.Done():
			return missing, errors.Join(ctx.Err(), away)
		case <-tick.C:
		}
	}
}

// unconfirmed says of each component what is missing. Since when one runs is asked of the platform, which may be a cloud's that counts calls, once all
// have said that they run the release.
func (w *work) unconfirmed(ctx context.Context, status *registryv1.TenantStatus) ([]string, error) {
	said := map[string]*registryv1.ComponentReport{}
	for _, r := range status.GetReports() {
		said[r.GetName()] = r
	}
	if missing := w.unsaid(said); len(missing) > 0 {
		return missing, nil
	}
	running, err := w.Platform.Components(ctx, w.set)
	if err != nil {
		return []string{"all say so, and the platform did not say what runs"}, err
	}
	since := map[string]time.Time{}
	for _, c := range running {
		if c.Release == w.release.String() {
			since[c.Name] = c.Since
		}
	}
	var missing []string
	for _, c := range w.set.Blueprint.Components {
		switch started := since[c.Name]; {
		case started.IsZero():
			missing = append(missing, c.Name+" does not run it")
		case said[c.Name].GetReportedAt().AsTime().Before(started):
			missing = append(missing, c.Name+" has not said anything since it was started")
		}
	}
	return missing, nil
}

// unsaid says of each component what it hasn't said.
func (w *work) unsaid(said map[string]*registryv1.ComponentReport) []string {
	var missing []string
	for _, c := range w.set.Blueprint.Components {
		switch r := said[c.Name]; {
		case r == nil:
			missing = append(missing, c.Name+" has not said anything")
		case r.GetRelease() != w.release.String():
			missing = append(missing, fmt.Sprintf("%s says that it runs %s", c.Name, r.GetRelease()))
		case r.GetHealth() != registryv1.Health_HEALTH_SERVING:
			missing = append(missing, c.Name+" says that it does not serve")
		}
	}
	return missing
}
