package drift

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	kmstypes "github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"

	"a3os.app/tools/fleet/internal/platform"
)

// looker looks at resources of a type.
type looker func(ctx context.Context, id string, r resource) ([]found, error)

// look looks at everything that says who may what, and what runs.
func (d *deployed) look(ctx context.Context) ([]found, error) {
	roles := &roles{deployed: d, client: iam.NewFromConfig(d.cfg)}
	services := &services{deployed: d, client: ecs.NewFromConfig(d.cfg)}
	lookers := map[string]looker{
		"AWS::IAM::Role": roles.look, "AWS::ECS::Service": services.look, "AWS::S3::Bucket": d.bucket, "AWS::S3::BucketPolicy": d.bucketPolicy,
		"AWS::SQS::QueuePolicy": d.queuePolicy, "AWS::KMS::Key": d.key, "AWS::SecretsManager::ResourcePolicy": d.secretPolicy,
	}
	var all []found
	for _, id := range slices.Sorted(maps.Keys(d.template.Resources)) {
		r := d.template.Resources[id]
		see, is := lookers[r.Type]
		if !is || d.physical[id] == "" {
			continue // what isn't there is named by its absence from the stack
		}
		did, err := see(ctx, id, r)
		switch {
		case gone(err):
			all = append(all, d.say(id, "%s (%s) was deleted", id, r.Type))
		case err != nil:
			return nil, fmt.Errorf("look at %s of stack %s: %w", id, d.stack, err)
		}
		all = append(all, did...)
	}
	return all, nil
}

// gone says that AWS knows no such thing.
func gone(err error) bool {
	api, is := errors.AsType[smithy.APIError](err)
	if !is {
		return false
	}
	code := strings.ToLower(api.ErrorCode())
	return strings.Contains(code, "nosuch") || strings.Contains(code, "notfound") || strings.Contains(code, "nonexistent") || strings.Contains(code, "doesnotexist")
}

// policyOf compares a resource's own policy, and puts it back.
func (d *deployed) policyOf(id, what string, want any, have string, put func(ctx context.Context, policy string) error) []found {
	want = d.value(want)
	parts := differs(want, have)
	if len(parts) == 0 {
		return nil
	}
	f := found{Difference: platform.Difference{Resource: id, Reason: fmt.Sprintf("%s isn't the release's: %s", what, strings.Join(parts, "; "))}}
	if !holdsUnknown(want) {
		f.mend = func(ctx context.Context) error { return put(ctx, text(want)) }
	}
	return []found{f}
}

func (d *deployed) buckets() *s3.Client {
	return s3.NewFromConfig(d.cfg, func(o *s3.Options) { o.UsePathStyle = d.cfg.BaseEndpoint != nil })
}

func (d *deployed) bucketPolicy(ctx context.Context, id string, r resource) ([]found, error) {
	bucket := fmt.Sprint(d.value(r.Properties["Bucket"]))
	have := ""
	out, err := d.buckets().GetBucketPolicy(ctx, &s3.GetBucketPolicyInput{Bucket: &bucket})
	if api, is := errors.AsType[smithy.APIError](err); is && api.ErrorCode() == "NoSuchBucketPolicy" {
		err = nil
	} else if err == nil {
		have = aws.ToString(out.Policy)
	}
	if err != nil {
		return nil, err
	}
	return d.policyOf(id, "the policy of bucket "+bucket, r.Properties["PolicyDocument"], have, func(ctx context.Context, policy string) error {
		_, err := d.buckets().PutBucketPolicy(ctx, &s3.PutBucketPolicyInput{Bucket: &bucket, Policy: &policy})
		return err
	}), nil
}

// bucket sees that nobody opened it to the public.
func (d *deployed) bucket(ctx context.Context, id string, r resource) ([]found, error) {
	bucket := d.physical[id]
	out, err := d.buckets().GetPublicAccessBlock(ctx, &s3.GetPublicAccessBlockInput{Bucket: &bucket})
	var have s3types.PublicAccessBlockConfiguration
	if api, is := errors.AsType[smithy.APIError](err); is && api.ErrorCode() == "NoSuchPublicAccessBlockConfiguration" {
		err = nil
	} else if err == nil && out.PublicAccessBlockConfiguration != nil {
		have = *out.PublicAccessBlockConfiguration
	}
	if err != nil || r.Properties["PublicAccessBlockConfiguration"] == nil {
		return nil, err
	}
	closed := true
	for _, is := range []*bool{have.BlockPublicAcls, have.BlockPublicPolicy, have.IgnorePublicAcls, have.RestrictPublicBuckets} {
		closed = closed && aws.ToBool(is)
	}
	if closed {
		return nil, nil
	}
	return []found{{Difference: platform.Difference{Resource: id, Reason: "bucket " + bucket + " can be made public: its block of public access was changed"}, mend: func(ctx context.Context) error {
		yes := aws.Bool(true)
		_, err := d.buckets().PutPublicAccessBlock(ctx, &s3.PutPublicAccessBlockInput{Bucket: &bucket,
			PublicAccessBlockConfiguration: &s3types.PublicAccessBlockConfiguration{BlockPublicAcls: yes, BlockPublicPolicy: yes, IgnorePublicAcls: yes, RestrictPublicBuckets: yes}})
		return err
	}}}, nil
}

func (d *deployed) queuePolicy(ctx context.Context, id string, r resource) ([]found, error) {
	client := sqs.NewFromConfig(d.cfg)
	queues, _ := d.value(r.Properties["Queues"]).([]any)
	var all []found
	for _, q := range queues {
		url := fmt.Sprint(q)
		name := url[strings.LastIndex(url, "/")+1:]
		out, err := client.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: &url, AttributeNames: []sqstypes.QueueAttributeName{sqstypes.QueueAttributeNamePolicy}})
		if err != nil {
			return nil, err
		}
		all = append(all, d.policyOf(id, "the policy of queue "+name, r.Properties["PolicyDocument"], out.Attributes[string(sqstypes.QueueAttributeNamePolicy)],
			func(ctx context.Context, policy string) error {
				_, err := client.SetQueueAttributes(ctx, &sqs.SetQueueAttributesInput{QueueUrl: &url, Attributes: map[string]string{string(sqstypes.QueueAttributeNamePolicy): policy}})
				return err
			})...)
	}
	return all, nil
}

func (d *deployed) key(ctx context.Context, id string, r resource) ([]found, error) {
	client, key := kms.NewFromConfig(d.cfg), d.physical[id]
	about, err := client.DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: &key})
	if err != nil {
		return nil, err
	}
	if state := about.KeyMetadata.KeyState; state != kmstypes.KeyStateEnabled {
		return []found{{Difference: platform.Difference{Resource: id, Reason: fmt.Sprintf("key %s is %s, and nothing of the set can be read without it", key, state),
			Next: "aws kms cancel-key-deletion, aws kms enable-key: find out first who did it"}}}, nil
	}
	out, err := client.GetKeyPolicy(ctx, &kms.GetKeyPolicyInput{KeyId: &key, PolicyName: aws.String("default")})
	if err != nil {
		return nil, err
	}
	return d.policyOf(id, "the policy of key "+key, r.Properties["KeyPolicy"], aws.ToString(out.Policy), func(ctx context.Context, policy string) error {
		_, err := client.PutKeyPolicy(ctx, &kms.PutKeyPolicyInput{KeyId: &key, PolicyName: aws.String("default"), Policy: &policy})
		return err
	}), nil
}

func (d *deployed) secretPolicy(ctx context.Context, id string, r resource) ([]found, error) {
	client, secret := secretsmanager.NewFromConfig(d.cfg), fmt.Sprint(d.value(r.Properties["SecretId"]))
	out, err := client.GetResourcePolicy(ctx, &secretsmanager.GetResourcePolicyInput{SecretId: &secret})
	if err != nil {
		return nil, err
	}
	return d.policyOf(id, "the policy of secret "+aws.ToString(out.Name), r.Properties["ResourcePolicy"], aws.ToString(out.ResourcePolicy), func(ctx context.Context, policy string) error {
		_, err := client.PutResourcePolicy(ctx, &secretsmanager.PutResourcePolicyInput{SecretId: &secret, ResourcePolicy: &policy, BlockPublicPolicy: aws.Bool(true)})
		return err
	}), nil
}
