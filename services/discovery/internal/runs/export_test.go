package runs

import (
	"context"

	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"
)

// StartDue is what Schedule does with each integration that is due.
func StartDue(ctx context.Context, r *Runs, due *integrationsv1.Due) error {
	return r.startDue(ctx, due)
}
