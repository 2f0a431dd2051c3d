package changeset

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation/types"

	"a3os.app/tools/fleet/internal/platform/aws/session"
)

// ErrStuck is a stack that CloudFormation changes no more until somebody has helped it.
var ErrStuck = errors.New("CloudFormation changes it no more")

// Changeable is a settled stack that can be changed. One whose last change could be neither made nor taken back is tried to be taken back once more,
// since what that stumbled over may be out of its way by now. Errors: [ErrStuck], with what to do.
func Changeable(ctx context.Context, client *cloudformation.Client, stack string) (*types.Stack, error) {
	is, err := Settled(ctx, client, stack)
	if err != nil || is == nil {
		return nil, err
	}
	if is.StackStatus == types.StackStatusUpdateRollbackFailed {
		if err := session.Fresh(ctx, client.Options().Credentials); err != nil {
			return nil, err
		}
		_, continueErr := client.ContinueUpdateRollback(ctx, &cloudformation.ContinueUpdateRollbackInput{StackName: &stack})
		if is, err = Settled(ctx, client, stack); err != nil || is == nil {
			return nil, errors.Join(err, continueErr)
		}
		if is.StackStatus == types.StackStatusUpdateRollbackFailed {
			return nil, errors.Join(fmt.Errorf("the last change of stack %s failed and could not be taken back (%s %s), and %w: put right what that names and run this again; what can't be, an administrator leaves as it is (aws cloudformation continue-update-rollback --stack-name %s --resources-to-skip …)",
				stack, is.StackStatus, aws.ToString(is.StackStatusReason), ErrStuck, stack), continueErr)
		}
	}
	switch is.StackStatus { //nolint:exhaustive // of the others each can be changed
	case types.StackStatusCreateFailed, types.StackStatusRollbackComplete, types.StackStatusRollbackFailed:
		return nil, fmt.Errorf("stack %s could not be made (%s %s), and %w: have it deleted (aws cloudformation delete-stack --stack-name %s), and run this again",
			stack, is.StackStatus, aws.ToString(is.StackStatusReason), ErrStuck, stack)
	case types.StackStatusDeleteFailed:
		return nil, fmt.Errorf("stack %s was to be deleted, which failed (%s), and %w: where its tenant leaves, go on with fleet operation resume", stack, aws.ToString(is.StackStatusReason), ErrStuck)
	}
	return is, nil
}

// Makeable is Changeable for who makes the stack where there is none. One whose first making failed and was taken back never was a whole one and holds
// nothing, for what outlives a stack doesn't outlive its making: it is deleted, so that the stack can be made.
func Makeable(ctx context.Context, client *cloudformation.Client, stack string) (*types.Stack, error) {
	is, err := Settled(ctx, client, stack)
	if err != nil || is == nil {
		return nil, err
	}
	if is.StackStatus == types.StackStatusRollbackComplete {
		if _, err := client.DeleteStack(ctx, &cloudformation.DeleteStackInput{StackName: &stack}); err != nil {
			return nil, fmt.Errorf("delete stack %s, whose making failed (%s): %w", stack, aws.ToString(is.StackStatusReason), err)
		}
	}
	return Changeable(ctx, client, stack)
}

// Settled is a stack of which no change is under way, however the last one ended: one that somebody began, who may have been killed over it, is
// waited for. It is nil where there is none, and where nothing but a plan is of one.
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
