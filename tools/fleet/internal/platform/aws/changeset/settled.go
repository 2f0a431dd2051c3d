package changeset

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation/types"
)

// Settled is a stack of which no change is under way: one that somebody began, who may have been killed over it, is waited for. It is nil where
// there is none, and where nothing but a plan is of one. Errors: a stack that was never made whole, which CloudFormation changes no more.
func Settled(ctx context.Context, client *cloudformation.Client, stack string) (*types.Stack, error) {
	ctx, cancel := context.WithTimeout(ctx, executeWithin)
	defer cancel()
	for wait := soon; ; wait = min(2*wait, later) {
		out, err := client.DescribeStacks(ctx, &cloudformation.DescribeStacksInput{StackName: &stack})
		switch {
		case err != nil && strings.Contains(err.Error(), "does not exist"):
			return nil, nil //nolint:nilnil // none is an answer
		case err != nil:
			return nil, fmt.Errorf("look at stack %s: %w", stack, err)
		case len(out.Stacks) == 0:
			return nil, nil //nolint:nilnil // none is an answer
		}
		switch is := out.Stacks[0]; {
		case is.StackStatus == types.StackStatusReviewInProgress, is.StackStatus == types.StackStatusDeleteComplete:
			return nil, nil //nolint:nilnil // none is an answer
		case is.StackStatus == types.StackStatusCreateFailed, is.StackStatus == types.StackStatusRollbackComplete, is.StackStatus == types.StackStatusRollbackFailed:
			return nil, fmt.Errorf("stack %s could not be made (%s %s), and CloudFormation changes it no more: have it deleted (aws cloudformation delete-stack --stack-name %s), and run this again",
				stack, is.StackStatus, aws.ToString(is.StackStatusReason), stack)
		case !strings.HasSuffix(string(is.StackStatus), "_IN_PROGRESS"):
			return &is, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for the change of stack %s that is under way: %w", stack, context.Cause(ctx))
		case <-time.After(wait):
		}
	}
}
