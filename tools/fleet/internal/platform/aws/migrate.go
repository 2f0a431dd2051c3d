package aws

import (
	"context"
	"fmt"
	"strings"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/aws/stack"
)

// migrate runs the migration of a release to its end. The stack is still that of the release before: its definition of the task is taken with
// the new release's image and what its blueprint tells the program, as roles that are new, for as long as it runs.
func (t *tenant) migrate(ctx context.Context, r platform.Release) error {
	image, _, err := t.image(ctx, t.set.Blueprint, r)
	if err != nil {
		return err
	}
	command, environ, err := stack.Migrating(t.input(stack.Input{Release: r}))
	if err != nil {
		return err
	}
	_, code, err := t.run(ctx, oneOff{component: stack.Migration, command: command, environ: environ, image: image, unheard: true})
	if err == nil && code != 0 {
		err = t.why(ctx, stack.Migration, fmt.Sprintf("ended with %d", code))
	}
	return err
}

// network is where a component that logs in to the database stands: the migration does no more than that.
func (t *tenant) network(ctx context.Context) (*types.NetworkConfiguration, error) {
	services, err := t.services(ctx)
	if err != nil {
		return nil, err
	}
	for _, c := range t.set.Blueprint.Components {
		if s, there := services[c.Name]; there && len(c.Needs.Database) > 0 && !c.Needs.Outside {
			return s.NetworkConfiguration, nil
		}
	}
	return nil, fmt.Errorf("no service of %s says where in the network its database is reached from", t.id)
}

func reasons(failures []types.Failure) string {
	var out []string
	for _, f := range failures {
		out = append(out, sdk.ToString(f.Reason)+" "+sdk.ToString(f.Detail))
	}
	return strings.Join(out, "; ")
}
