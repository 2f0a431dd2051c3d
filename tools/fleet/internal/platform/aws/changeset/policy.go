package changeset

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation/types"
)

// kept are the types of resources that a stack's policy keeps from being replaced and deleted by an update: what is in them is nowhere else.
var kept = []string{"AWS::KMS::Key", "AWS::RDS::DBInstance", "AWS::S3::Bucket"}

// statement is one of a stack's policy.
// https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/protect-stack-resources.html
type statement struct {
	Effect, Principal, Resource string
	Action                      any
	Condition                   map[string]map[string][]string `json:",omitempty"`
}

// Policy is the stack policy that each stack has, JSON, whatever is in it: everything may be updated, and what is kept neither replaced nor deleted. Fleet puts it on
// those that it deploys, and administrators on theirs.
func Policy() ([]byte, error) {
	return json.Marshal(map[string][]statement{"Statement": {
		{Effect: "Allow", Action: "Update:*", Principal: "*", Resource: "*"},
		{Effect: "Deny", Action: []string{"Update:Replace", "Update:Delete"}, Principal: "*", Resource: "*", Condition: map[string]map[string][]string{"StringEquals": {"ResourceType": kept}}},
	}})
}

// protect puts a stack's policy on it, or back, and then has no single call take the stack away: one of which that is so has its policy, too.
func (d *Driver) protect(ctx context.Context, stack string) error {
	text, err := Policy()
	if err != nil {
		return err
	}
	if _, err := d.client.SetStackPolicy(ctx, &cloudformation.SetStackPolicyInput{StackName: &stack, StackPolicyBody: aws.String(string(text))}); err != nil {
		return fmt.Errorf("put its policy on stack %s: %w", stack, err)
	}
	if _, err := d.client.UpdateTerminationProtection(ctx, &cloudformation.UpdateTerminationProtectionInput{StackName: &stack, EnableTerminationProtection: aws.Bool(true)}); err != nil {
		return fmt.Errorf("protect stack %s: %w", stack, err)
	}
	return nil
}

// keeps has a stack be under its policy, which somebody may have lifted for another change, and the killed maker of the stack not have put on.
func (d *Driver) keeps(ctx context.Context, stack string) error {
	is, err := d.policyOf(ctx, stack)
	if err == nil && !slices.ContainsFunc(is, statement.denies) {
		err = d.protect(ctx, stack)
	}
	return err
}

// Lifted says whether somebody had a stack's policy deny nothing, so that a change which the plan calls denied may be made once.
func (d *Driver) Lifted(ctx context.Context, stack string) (bool, error) {
	is, err := d.policyOf(ctx, stack)
	return len(is) > 0 && !slices.ContainsFunc(is, statement.denies), err // one that was never put on nobody lifted
}

// policyOf are the statements of a stack's policy; none where it was never put on.
func (d *Driver) policyOf(ctx context.Context, stack string) ([]statement, error) {
	out, err := d.client.GetStackPolicy(ctx, &cloudformation.GetStackPolicyInput{StackName: &stack})
	if err != nil {
		return nil, fmt.Errorf("read the policy of stack %s: %w", stack, err)
	}
	text := aws.ToString(out.StackPolicyBody)
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	var is struct{ Statement []statement }
	if err := json.Unmarshal([]byte(text), &is); err != nil {
		return nil, fmt.Errorf("read the policy of stack %s: %w", stack, err)
	}
	return is.Statement, nil
}

func (s statement) denies() bool { return s.Effect == "Deny" }

// ErrLoses is a change that isn't carried out, since data would go with it.
var ErrLoses = errors.New("would lose what is in it")

// Denied says of a change that the stack's policy denies it, as far as that is known before it is carried out.
func (c Change) Denied() bool {
	return (c.Replaces || c.Action == string(types.ChangeActionRemove)) && slices.Contains(kept, c.Type)
}

// mayLose says of a change that the stack's policy alone keeps data from going with it, where that turns out so.
func (c Change) mayLose() bool { return c.MayReplace && slices.Contains(kept, c.Type) }

// Loses says of a change that data goes with it: what the policy denies, and a secret or a queue that another takes the place of, or may, for which
// no policy stands.
func (c Change) Loses() bool {
	return c.Denied() || (c.Replaces || c.MayReplace) && slices.Contains([]string{"AWS::SecretsManager::Secret", "AWS::SQS::Queue"}, c.Type)
}
