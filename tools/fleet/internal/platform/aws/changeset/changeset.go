// Package changeset plans and carries out a change of one stack: what CloudFormation would do is a change set with an id, which is looked at, and
// that very change set is executed. It promises that nothing is planned or executed with credentials of another account or Region than was meant.
package changeset

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"a3os.app/libs/failpoint"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/aws/session"
)

// mostBody is the largest template that goes in a call; a larger one is read from a bucket.
const mostBody = 51200

// Patience with CloudFormation: a database server takes a quarter of an hour to be made.
const (
	planWithin    = 10 * time.Minute
	executeWithin = time.Hour
	// It is asked soon, then less and less often, for a hundred stacks that change at once share the rate of its calls.
	soon, later = time.Second, 30 * time.Second
)

// Change is one thing that a change set does.
type Change struct {
	// Action is Add, Modify, Remove; Replaces says that what is there goes, with what it holds, and another takes its place, MayReplace that this
	// turns out when the change is carried out.
	Action, ID, Type     string
	Replaces, MayReplace bool
}

// String is a change in a plan's words. What destroys is shouted.
func (c Change) String() string {
	text := strings.ToLower(c.Action) + " " + c.Of()
	switch {
	case c.Replaces && c.Type == "AWS::ECS::TaskDefinition":
		// ECS keeps each revision: none goes.
		return "adds a revision of " + c.Of()
	case c.Replaces:
		return "REPLACES " + text
	case c.MayReplace:
		return "may replace " + text
	case c.Action == string(types.ChangeActionRemove):
		return "REMOVES " + text
	}
	return text
}

// Of is what is changed, as String ends.
func (c Change) Of() string { return c.ID + " (" + c.Type + ")" }

// Plan is a change set that waits.
type Plan struct {
	// ID of the change set, its ARN: what a plan's hash covers. Empty where there is nothing to change.
	ID      string
	Stack   string
	Changes []Change
	// Template is the SHA-256 of the template that the stack is to have, in hexadecimal.
	Template string
	// Unprotected is a stack that is there and that one call would take away: who made it was killed before it was protected.
	Unprotected bool
}

// Driver works on stacks of one account and Region.
type Driver struct {
	cfg    aws.Config
	client *cloudformation.Client
	// bucket keeps templates that are too large for a call.
	bucket string
}

// Open checks that the credentials are of the account and Region that are meant.
func Open(ctx context.Context, cfg aws.Config, want platform.Where, bucket string) (*Driver, error) {
	got, err := Where(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if got != want {
		return nil, fmt.Errorf("the credentials are of account %s in %s, and the plan is for account %s in %s: log in as the provisioner there", got.Account, got.Region, want.Account, want.Region)
	}
	return &Driver{cfg: cfg, client: cloudformation.NewFromConfig(cfg), bucket: bucket}, nil
}

// Where is where credentials work, as AWS says it.
func Where(ctx context.Context, cfg aws.Config) (platform.Where, error) {
	who, err := sts.NewFromConfig(cfg).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil {
		return platform.Where{}, fmt.Errorf("ask AWS whose the credentials are: %w", err)
	}
	return platform.Where{Account: aws.ToString(who.Account), Region: cfg.Region}, nil
}

// Make has CloudFormation say what a template would change of a stack, which need not be there yet.
func (d *Driver) Make(ctx context.Context, stack string, template []byte, parameters map[string]string) (*Plan, error) {
	// CloudFormation plans nothing beside a change that is under way.
	is, err := Changeable(ctx, d.client, stack)
	if err != nil {
		return nil, err
	}
	kind := types.ChangeSetTypeCreate
	if is != nil {
		kind = types.ChangeSetTypeUpdate
	}
	sum := sha256.Sum256(template)
	in := &cloudformation.CreateChangeSetInput{StackName: &stack, ChangeSetName: aws.String("a3-" + hex.EncodeToString(sum[:8]) + "-" + strings.ToLower(rand.Text())), ChangeSetType: kind,
		Capabilities: []types.Capability{types.CapabilityCapabilityNamedIam}}
	for _, name := range slices.Sorted(maps.Keys(parameters)) {
		in.Parameters = append(in.Parameters, types.Parameter{ParameterKey: &name, ParameterValue: aws.String(parameters[name])})
	}
	if len(template) <= mostBody {
		in.TemplateBody = aws.String(string(template))
	} else if in.TemplateURL, err = d.keep(ctx, stack, hex.EncodeToString(sum[:]), template); err != nil {
		return nil, err
	}
	made, err := d.client.CreateChangeSet(ctx, in)
	if err != nil {
		return nil, fmt.Errorf("plan the change of stack %s: %w", stack, err)
	}
	p, err := d.described(ctx, stack, aws.ToString(made.Id))
	if p != nil {
		p.Template, p.Unprotected = hex.EncodeToString(sum[:]), is != nil && !aws.ToBool(is.EnableTerminationProtection)
	}
	return p, err
}

// Deployed is the template that a stack has, as it was deployed, and what its parameters are; a change that is under way is waited for. Errors: [ErrStuck],
// and where there is no such stack.
func (d *Driver) Deployed(ctx context.Context, stack string) (template []byte, parameters map[string]string, err error) {
	is, err := Changeable(ctx, d.client, stack)
	if err != nil {
		return nil, nil, err
	}
	if is == nil {
		return nil, nil, fmt.Errorf("stack %s is not there", stack)
	}
	out, err := d.client.GetTemplate(ctx, &cloudformation.GetTemplateInput{StackName: &stack, TemplateStage: types.TemplateStageOriginal})
	if err != nil {
		return nil, nil, fmt.Errorf("read what stack %s was deployed with: %w", stack, err)
	}
	parameters = map[string]string{}
	for _, p := range is.Parameters {
		parameters[aws.ToString(p.ParameterKey)] = aws.ToString(p.ParameterValue)
	}
	return []byte(aws.ToString(out.TemplateBody)), parameters, nil
}

// kind says whether a stack is made or changed. One whose first change set was never executed is there, and still to be made.
func (d *Driver) kind(ctx context.Context, stack string) (types.ChangeSetType, error) {
	out, err := d.client.DescribeStacks(ctx, &cloudformation.DescribeStacksInput{StackName: &stack})
	switch {
	case err != nil && strings.Contains(err.Error(), "does not exist"):
		return types.ChangeSetTypeCreate, nil
	case err != nil:
		return "", fmt.Errorf("look at stack %s: %w", stack, err)
	case len(out.Stacks) == 0 || out.Stacks[0].StackStatus == types.StackStatusReviewInProgress:
		return types.ChangeSetTypeCreate, nil
	}
	return types.ChangeSetTypeUpdate, nil
}

// keep puts a template into the bucket under its digest, below its stack's name, and answers where CloudFormation reads it.
func (d *Driver) keep(ctx context.Context, stack, digest string, template []byte) (*string, error) {
	client := s3.NewFromConfig(d.cfg, func(o *s3.Options) { o.UsePathStyle = d.cfg.BaseEndpoint != nil })
	if d.bucket == "" {
		return nil, fmt.Errorf("the template of stack %s has %d bytes, a call takes %d: name the plane's bucket for templates, which its stack makes", stack, len(template), mostBody)
	}
	key := stack + "/" + digest + ".json"
	in := &s3.PutObjectInput{Bucket: &d.bucket, Key: &key, Body: bytes.NewReader(template), ContentType: aws.String("application/json"), ChecksumAlgorithm: s3types.ChecksumAlgorithmSha256}
	if _, err := client.PutObject(ctx, in); err != nil {
		return nil, fmt.Errorf("keep the template of stack %s in bucket %s: %w", stack, d.bucket, err)
	}
	at := "https://" + d.bucket + ".s3." + d.cfg.Region + ".amazonaws.com/" + key
	if d.cfg.BaseEndpoint != nil {
		at = *d.cfg.BaseEndpoint + "/" + d.bucket + "/" + key
	}
	return &at, nil
}

func (d *Driver) described(ctx context.Context, stack, id string) (*Plan, error) {
	input := &cloudformation.DescribeChangeSetInput{ChangeSetName: &id, StackName: &stack}
	waitErr := cloudformation.NewChangeSetCreateCompleteWaiter(d.client, func(o *cloudformation.ChangeSetCreateCompleteWaiterOptions) { o.MinDelay, o.MaxDelay = soon, later }).Wait(ctx, input, planWithin)
	out, err := d.client.DescribeChangeSet(ctx, input)
	if err != nil {
		return nil, fmt.Errorf("read the change set of stack %s: %w", stack, errors.Join(err, waitErr))
	}
	if waitErr != nil {
		reason := aws.ToString(out.StatusReason)
		if strings.Contains(reason, "didn't contain changes") || strings.Contains(reason, "No updates") {
			_, err := d.client.DeleteChangeSet(ctx, &cloudformation.DeleteChangeSetInput{ChangeSetName: &id, StackName: &stack})
			return &Plan{Stack: stack}, err
		}
		return nil, fmt.Errorf("CloudFormation can't plan the change of stack %s: %s", stack, withNext(reason))
	}
	p, all := &Plan{ID: id, Stack: stack}, causes{}
	for {
		for _, c := range out.Changes {
			if r := c.ResourceChange; r != nil {
				p.Changes = append(p.Changes, Change{Action: string(r.Action), ID: aws.ToString(r.LogicalResourceId), Type: aws.ToString(r.ResourceType)})
				all[aws.ToString(r.LogicalResourceId)] = *r
			}
		}
		if out.NextToken == nil {
			// What one change causes may stand on another page.
			for i, c := range p.Changes {
				if c.Action == string(types.ChangeActionModify) {
					became := all.of(c.ID)
					p.Changes[i].Replaces, p.Changes[i].MayReplace = became == goes, became == mayGo
				}
			}
			return p, nil
		}
		input.NextToken = out.NextToken
		if out, err = d.client.DescribeChangeSet(ctx, input); err != nil {
			return nil, fmt.Errorf("read the change set of stack %s: %w", stack, err)
		}
	}
}

// Execute carries out the change set that was planned, and returns when the stack is what it says, and protected. A stack that was changed
// meanwhile has made the change set void, and CloudFormation says so.
func (d *Driver) Execute(ctx context.Context, p *Plan) error {
	if p.ID == "" {
		if p.Unprotected {
			return d.protect(ctx, p.Stack)
		}
		return nil
	}
	kind, err := d.kind(ctx, p.Stack)
	if err != nil {
		return err
	}
	if err := failpoint.Here("fleet.stack.planned"); err != nil {
		return err
	}
	if slices.ContainsFunc(p.Changes, Change.mayLose) {
		// CloudFormation finds out while it carries the change out, and asks the policy then.
		if err := d.keeps(ctx, p.Stack); err != nil {
			return err
		}
	}
	if err := session.Fresh(ctx, d.cfg.Credentials); err != nil {
		return err
	}
	if _, err := d.client.ExecuteChangeSet(ctx, &cloudformation.ExecuteChangeSetInput{ChangeSetName: &p.ID, StackName: &p.Stack}); err != nil && !d.begun(ctx, p) {
		return fmt.Errorf("change stack %s: %w: plan it anew", p.Stack, err)
	}
	if err := failpoint.Here("fleet.stack.begun"); err != nil {
		return err
	}
	in := &cloudformation.DescribeStacksInput{StackName: &p.Stack}
	if kind == types.ChangeSetTypeCreate {
		err = cloudformation.NewStackCreateCompleteWaiter(d.client, func(o *cloudformation.StackCreateCompleteWaiterOptions) { o.MinDelay, o.MaxDelay = soon, later }).Wait(ctx, in, executeWithin)
	} else {
		err = cloudformation.NewStackUpdateCompleteWaiter(d.client, func(o *cloudformation.StackUpdateCompleteWaiterOptions) { o.MinDelay, o.MaxDelay = soon, later }).Wait(ctx, in, executeWithin)
	}
	if err != nil {
		return fmt.Errorf("change stack %s: %w", p.Stack, errors.Join(err, d.why(ctx, p.Stack)))
	}
	if err := failpoint.Here("fleet.stack.changed"); err != nil {
		return err
	}
	return d.protect(ctx, p.Stack)
}

// begun says that this very change set is carried out: a call whose answer was lost is made again, and is then refused.
func (d *Driver) begun(ctx context.Context, p *Plan) bool {
	out, err := d.client.DescribeChangeSet(ctx, &cloudformation.DescribeChangeSetInput{ChangeSetName: &p.ID, StackName: &p.Stack})
	return err == nil && (out.ExecutionStatus == types.ExecutionStatusExecuteInProgress || out.ExecutionStatus == types.ExecutionStatusExecuteComplete)
}

// why is what failed first.
func (d *Driver) why(ctx context.Context, stack string) error {
	out, err := d.client.DescribeStackEvents(ctx, &cloudformation.DescribeStackEventsInput{StackName: &stack})
	if err != nil {
		return err
	}
	for _, e := range slices.Backward(out.StackEvents) {
		if strings.HasSuffix(string(e.ResourceStatus), "FAILED") {
			if strings.Contains(aws.ToString(e.ResourceStatusReason), "stack policy") {
				return fmt.Errorf("%s (%s) %w: %s", aws.ToString(e.LogicalResourceId), aws.ToString(e.ResourceType), ErrLoses, aws.ToString(e.ResourceStatusReason))
			}
			return fmt.Errorf("%s (%s): %s", aws.ToString(e.LogicalResourceId), aws.ToString(e.ResourceType), withNext(aws.ToString(e.ResourceStatusReason)))
		}
	}
	return nil
}

// withNext is a reason of CloudFormation's with what to do about it, where it names what the plane's stack of an earlier release doesn't have.
func withNext(reason string) string {
	if strings.Contains(reason, "xport") && (strings.Contains(reason, "No export named") || strings.Contains(reason, "not found")) {
		return reason + ": the plane's stack is of an earlier release; have administrators deploy this one's first (fleet aws render), and run this again"
	}
	return reason
}
