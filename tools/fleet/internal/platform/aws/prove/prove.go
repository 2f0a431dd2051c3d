// Package prove has the doors of what a tenant's stack holds on AWS, for the proof of isolation: each is asked in a way that changes nothing even
// where the caller is let in, and AWS tells who is refused from what can't be done. It relies on its caller for a session of each role.
package prove

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	logstypes "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"

	"a3os.app/tools/fleet/internal/isolation"
	"a3os.app/tools/fleet/internal/platform/aws/stack"
)

// Walls of a set on AWS.
const (
	wallObjects  = "objects: S3"
	wallMessages = "messages: SQS"
	wallSecrets  = "secrets: Secrets Manager" //nolint:gosec // the name of a wall
	wallKeys     = "encryption: KMS"
	wallLogs     = "logs: CloudWatch"
	wallRoles    = "roles: STS"
)

// Stack is a tenant's that was deployed.
type Stack struct {
	// Tenant's id, and its slug.
	Tenant, Slug string
	stack.Holdings
	// QueueURL is where its queue is, Key the ARN of its key.
	QueueURL, Key string
	// Sessions are of its roles, by their ARNs.
	Sessions map[string]aws.Config
	// Provisioner looks at the key, which no task can but through AWS's services.
	Provisioner aws.Config
}

// named is how a report calls a role.
func named(r stack.HeldRole) string {
	if r.Starts {
		return r.Component + " (start)"
	}
	return r.Component + " (task)"
}

// Cloud has the doors of a stack, with their controls.
func (s Stack) Cloud() *isolation.Cloud {
	c := &isolation.Cloud{}
	for _, r := range s.Roles {
		c.Roles = append(c.Roles, isolation.CloudRole{Name: named(r), Session: s.Sessions[r.ARN]})
	}
	c.Doors = slices.Concat(s.objects(), s.messages(), s.started(), s.key(), s.roles())
	return c
}

// door is one whose control is the first of its holders.
func (s Stack) door(wall, at, what string, try func(ctx context.Context, cfg aws.Config) error, holders ...string) isolation.CloudDoor {
	d := isolation.CloudDoor{Wall: wall, At: at + " of " + s.Slug, What: what, Holders: holders}
	d.Try = func(ctx context.Context, session any) error {
		cfg, is := session.(aws.Config)
		if !is {
			return fmt.Errorf("the session is a %T", session)
		}
		return refused(try(ctx, cfg))
	}
	for _, r := range s.Roles {
		if len(holders) > 0 && named(r) == holders[0] {
			d.Control = isolation.CloudRole{Name: s.Slug + "'s own " + named(r), Session: s.Sessions[r.ARN]}
		}
	}
	return d
}

// refused tells a refusal of who called from all that AWS says of what was asked after it let the caller in.
func refused(err error) error {
	if err == nil {
		return nil
	}
	api, is := errors.AsType[smithy.APIError](err)
	if !is {
		return err
	}
	code := api.ErrorCode()
	switch {
	case strings.Contains(code, "AccessDenied"), code == "UnauthorizedOperation", code == "Forbidden":
		return fmt.Errorf("%w: %s", isolation.ErrCloudRefused, api.ErrorMessage())
	case slices.Contains(letIn, code):
		return nil
	}
	return err
}

// letIn is what AWS says to who may ask, of what is asked here on purpose: of objects, messages and streams that aren't there, a delay that
// can't be, a secret that has no value yet.
var letIn = []string{"NoSuchKey", "NotFound", "PreconditionFailed", "ReceiptHandleIsInvalid", "InvalidParameterValue", "InvalidParameterValueException", "ResourceNotFoundException"}

// nothing is what objects and streams are called that aren't there.
const nothing = "isolation-verify-asks-for-what-is-not-there"

func (s Stack) objects() []isolation.CloudDoor {
	client := func(cfg aws.Config) *s3.Client {
		return s3.NewFromConfig(cfg, func(o *s3.Options) { o.UsePathStyle = cfg.BaseEndpoint != nil })
	}
	var out []isolation.CloudDoor
	for _, b := range s.Buckets {
		key := s.Tenant + "/" + nothing
		out = append(out,
			s.door(wallObjects, "bucket "+b.Name, "list objects", func(ctx context.Context, cfg aws.Config) error {
				_, err := client(cfg).ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: &b.Name, Prefix: aws.String(s.Tenant + "/"), MaxKeys: aws.Int32(1)})
				return err
			}, slices.Concat(tasks(b.Writers), tasks(b.Readers))...),
			s.door(wallObjects, "bucket "+b.Name, "read an object", func(ctx context.Context, cfg aws.Config) error {
				_, err := client(cfg).GetObject(ctx, &s3.GetObjectInput{Bucket: &b.Name, Key: &key})
				return err
			}, slices.Concat(tasks(b.Writers), tasks(b.Readers))...),
			s.door(wallObjects, "bucket "+b.Name, "write over an object, if it is one that can't be", func(ctx context.Context, cfg aws.Config) error {
				_, err := client(cfg).PutObject(ctx, &s3.PutObjectInput{Bucket: &b.Name, Key: &key, Body: strings.NewReader(""), IfMatch: aws.String(`"00000000000000000000000000000000"`)})
				return err
			}, tasks(b.Writers)...))
	}
	return out
}

func (s Stack) messages() []isolation.CloudDoor {
	if s.Queue == "" {
		return nil
	}
	const tooLong = 901
	return []isolation.CloudDoor{
		s.door(wallMessages, "queue", "send a message, delayed longer than can be", func(ctx context.Context, cfg aws.Config) error {
			_, err := sqs.NewFromConfig(cfg).SendMessage(ctx, &sqs.SendMessageInput{QueueUrl: &s.QueueURL, MessageBody: aws.String(nothing), DelaySeconds: tooLong})
			return err
		}, tasks(s.Senders)...),
		s.door(wallMessages, "queue", "delete a message that isn't there", func(ctx context.Context, cfg aws.Config) error {
			_, err := sqs.NewFromConfig(cfg).DeleteMessage(ctx, &sqs.DeleteMessageInput{QueueUrl: &s.QueueURL, ReceiptHandle: aws.String(nothing)})
			return err
		}, tasks(s.Receivers)...),
		s.door(wallMessages, "queue", "hide a message that isn't there", func(ctx context.Context, cfg aws.Config) error {
			_, err := sqs.NewFromConfig(cfg).ChangeMessageVisibility(ctx, &sqs.ChangeMessageVisibilityInput{QueueUrl: &s.QueueURL, ReceiptHandle: aws.String(nothing)})
			return err
		}, tasks(s.Receivers)...),
	}
}

// started are the doors of what ECS starts each component with.
func (s Stack) started() []isolation.CloudDoor {
	var out []isolation.CloudDoor
	for _, r := range s.Roles {
		if !r.Starts {
			continue
		}
		secret, log := s.Secrets[r.Component], s.Logs[r.Component]
		out = append(out,
			s.door(wallSecrets, "secret of "+r.Component, "read it", func(ctx context.Context, cfg aws.Config) error {
				_, err := secretsmanager.NewFromConfig(cfg).GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: &secret})
				return err
			}, named(r)),
			s.door(wallLogs, "log of "+r.Component, "write to a stream that isn't there", func(ctx context.Context, cfg aws.Config) error {
				_, err := cloudwatchlogs.NewFromConfig(cfg).PutLogEvents(ctx, &cloudwatchlogs.PutLogEventsInput{LogGroupName: &log, LogStreamName: aws.String(nothing),
					LogEvents: []logstypes.InputLogEvent{{Message: aws.String("x"), Timestamp: aws.Int64(1)}}})
				return err
			}, named(r)))
	}
	return out
}

// key is asked about by nobody but the provisioner: tasks use it through AWS's services alone.
func (s Stack) key() []isolation.CloudDoor {
	d := s.door(wallKeys, "key", "ask about it", func(ctx context.Context, cfg aws.Config) error {
		_, err := kms.NewFromConfig(cfg).DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: &s.Key})
		return err
	})
	d.Control = isolation.CloudRole{Name: "the provisioner", Session: s.Provisioner}
	return []isolation.CloudDoor{d}
}

// roles are taken by ECS for a task of the set, which its own session shows, and by nobody else.
func (s Stack) roles() []isolation.CloudDoor {
	var out []isolation.CloudDoor
	for _, r := range s.Roles {
		d := s.door(wallRoles, "role "+named(r), "take it", func(ctx context.Context, cfg aws.Config) error {
			client := sts.NewFromConfig(cfg)
			who, err := client.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
			if err != nil {
				return err
			}
			// Whose session it is has taken the role already.
			if strings.Contains(aws.ToString(who.Arn), ":assumed-role/"+r.ARN[strings.LastIndex(r.ARN, "/")+1:]+"/") {
				return nil
			}
			_, err = client.AssumeRole(ctx, &sts.AssumeRoleInput{RoleArn: &r.ARN, RoleSessionName: aws.String("isolation-verify")})
			return err
		}, named(r))
		out = append(out, d)
	}
	return out
}

// tasks are the task roles of components.
func tasks(components []string) []string {
	out := make([]string, 0, len(components))
	for _, c := range components {
		out = append(out, named(stack.HeldRole{Component: c}))
	}
	return out
}
