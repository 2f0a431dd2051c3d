package changeset

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation/types"
	"github.com/aws/smithy-go"
)

// ErrGone is a change set that can't be carried out: its stack was changed since, or somebody deleted it, or it failed.
var ErrGone = errors.New("can't be carried out any more")

// Standing says whether a change set waits to be carried out, or is being or was carried out. Errors: [ErrGone], with why.
func (d *Driver) Standing(ctx context.Context, stack, id string) (begun bool, err error) {
	out, err := d.client.DescribeChangeSet(ctx, &cloudformation.DescribeChangeSetInput{ChangeSetName: &id, StackName: &stack})
	var api smithy.APIError
	if errors.As(err, &api) && (strings.HasPrefix(api.ErrorCode(), "ChangeSetNotFound") || strings.Contains(api.ErrorMessage(), "does not exist")) {
		return false, gone(stack, id, "it isn't there, as when the stack was changed since")
	}
	if err != nil {
		return false, fmt.Errorf("read the change set of stack %s: %w", stack, err)
	}
	switch out.ExecutionStatus {
	case types.ExecutionStatusAvailable:
		return false, nil
	case types.ExecutionStatusExecuteInProgress, types.ExecutionStatusExecuteComplete:
		return true, nil
	case types.ExecutionStatusExecuteFailed:
		return false, gone(stack, id, "it was carried out and failed")
	case types.ExecutionStatusUnavailable, types.ExecutionStatusObsolete:
	}
	return false, gone(stack, id, strings.TrimSpace(fmt.Sprintf("CloudFormation calls it %s %s", out.ExecutionStatus, aws.ToString(out.StatusReason))))
}

func gone(stack, id, why string) error {
	return fmt.Errorf("change set %s of stack %s, which the plan names, %w: %s; nothing was changed, make the plan anew", id, stack, ErrGone, why)
}

// Discard deletes a change set that nobody is to carry out.
func (d *Driver) Discard(ctx context.Context, p *Plan) error {
	if p.ID == "" {
		return nil
	}
	if _, err := d.client.DeleteChangeSet(ctx, &cloudformation.DeleteChangeSetInput{ChangeSetName: &p.ID, StackName: &p.Stack}); err != nil {
		return fmt.Errorf("delete the change set %s: %w", p.ID, err)
	}
	return nil
}
