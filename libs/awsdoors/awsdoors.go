// Package awsdoors asks doors of AWS, one thing each of something that a tenant has there, in a way that changes nothing even where the caller
// is let in. It tells who is refused from what can't be done, and from not knowing. It is asked as whoever the caller is: a proof of isolation
// has tasks ask with the roles that are theirs.
package awsdoors

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	logstypes "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
	"golang.org/x/sync/errgroup"
)

// Ask is what is asked.
type Ask string

// What can be asked, of what a door names.
const (
	// Of a bucket, below a prefix: what is there; an object that isn't; to write over one that can't be.
	ListObjects Ask = "list-objects"
	ReadObject  Ask = "read-object"
	WriteObject Ask = "write-object"
	// Of a queue by its URL: to send a message, delayed longer than can be; to delete or hide one that isn't there.
	SendMessage   Ask = "send-message"
	DeleteMessage Ask = "delete-message"
	HideMessage   Ask = "hide-message"
	// Of a secret by its name.
	ReadSecret Ask = "read-secret" //nolint:gosec // what is asked, and no secret
	// Of a group of logs: to write to a stream that isn't there.
	WriteLog Ask = "write-log"
	// Of a key by its ARN.
	LookAtKey Ask = "look-at-key"
	// Of a role by its ARN. Whose session it is has taken it already.
	TakeRole Ask = "take-role"
)

// Door is one thing that can be asked of something.
type Door struct {
	Ask Ask    `json:"ask"`
	Of  string `json:"of"`
	// Prefix of objects.
	Prefix string `json:"prefix,omitempty"`
}

// ErrRefused says that AWS refused a call for who called.
var ErrRefused = errors.New("refused")

// nothing is what objects and streams are called that aren't there.
const nothing = "isolation-verify-asks-for-what-is-not-there"

// tooLong is a second more than SQS delays a message.
const tooLong = 901

// Try asks a door: nil where the caller is let in, ErrRefused where it is refused, another error where neither is known.
func Try(ctx context.Context, cfg aws.Config, d Door) error {
	objects := func() *s3.Client {
		return s3.NewFromConfig(cfg, func(o *s3.Options) { o.UsePathStyle = cfg.BaseEndpoint != nil })
	}
	key := d.Prefix + nothing
	var err error
	switch d.Ask {
	case ListObjects:
		_, err = objects().ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: &d.Of, Prefix: &d.Prefix, MaxKeys: aws.Int32(1)})
	case ReadObject:
		_, err = objects().GetObject(ctx, &s3.GetObjectInput{Bucket: &d.Of, Key: &key})
	case WriteObject:
		_, err = objects().PutObject(ctx, &s3.PutObjectInput{Bucket: &d.Of, Key: &key, Body: strings.NewReader(""), IfMatch: aws.String(`"00000000000000000000000000000000"`)})
	case SendMessage:
		_, err = sqs.NewFromConfig(cfg).SendMessage(ctx, &sqs.SendMessageInput{QueueUrl: &d.Of, MessageBody: aws.String(nothing), DelaySeconds: tooLong})
	case DeleteMessage:
		_, err = sqs.NewFromConfig(cfg).DeleteMessage(ctx, &sqs.DeleteMessageInput{QueueUrl: &d.Of, ReceiptHandle: aws.String(nothing)})
	case HideMessage:
		_, err = sqs.NewFromConfig(cfg).ChangeMessageVisibility(ctx, &sqs.ChangeMessageVisibilityInput{QueueUrl: &d.Of, ReceiptHandle: aws.String(nothing)})
	case ReadSecret:
		_, err = secretsmanager.NewFromConfig(cfg).GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: &d.Of})
	case WriteLog:
		_, err = cloudwatchlogs.NewFromConfig(cfg).PutLogEvents(ctx, &cloudwatchlogs.PutLogEventsInput{LogGroupName: &d.Of, LogStreamName: aws.String(nothing),
			LogEvents: []logstypes.InputLogEvent{{Message: aws.String("x"), Timestamp: aws.Int64(1)}}})
	case LookAtKey:
		_, err = kms.NewFromConfig(cfg).DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: &d.Of})
	case TakeRole:
		err = takeRole(ctx, sts.NewFromConfig(cfg), d.Of)
	default:
		return fmt.Errorf("nobody knows how to ask %q", d.Ask)
	}
	return refused(err)
}

func takeRole(ctx context.Context, client *sts.Client, role string) error {
	who, err := client.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil {
		return err
	}
	if strings.Contains(aws.ToString(who.Arn), ":assumed-role/"+role[strings.LastIndex(role, "/")+1:]+"/") {
		return nil
	}
	_, err = client.AssumeRole(ctx, &sts.AssumeRoleInput{RoleArn: &role, RoleSessionName: aws.String("isolation-verify")})
	return err
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
		return fmt.Errorf("%w: %s", ErrRefused, api.ErrorMessage())
	case slices.Contains(letIn, code):
		return nil
	}
	return err
}

// letIn is what AWS says to who may ask, of what is asked here on purpose: of objects, messages and streams that aren't there, a delay that
// can't be, a secret that has no value yet.
var letIn = []string{"NoSuchKey", "NotFound", "PreconditionFailed", "ReceiptHandleIsInvalid", "InvalidParameterValue", "InvalidParameterValueException", "ResourceNotFoundException"}

// Outcome is what came of a door.
type Outcome string

// The outcomes.
const (
	LetIn   Outcome = "let in"
	Refused Outcome = "refused"
	Unclear Outcome = "unclear"
)

// Answer is what a door said to somebody, as one line tells it.
type Answer struct {
	// Number of the door, from nothing.
	Number  int     `json:"number"`
	Outcome Outcome `json:"outcome"`
	Said    string  `json:"said,omitempty"`
}

// Figures of asking many doors.
const (
	atOnce   = 8
	tries    = 3
	doorTime = 15 * time.Second
)

// TryAll asks all doors, and writes a line of JSON for each as its answer comes: an Answer.
func TryAll(ctx context.Context, cfg aws.Config, doors []Door, w io.Writer) error {
	lines := make(chan Answer)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	written := make(chan error, 1)
	go func() {
		var fault error
		out := json.NewEncoder(w)
		for a := range lines {
			fault = errors.Join(fault, out.Encode(a))
		}
		written <- fault
	}()
	for i, d := range doors {
		g.Go(func() error {
			lines <- answerOf(i, patiently(ctx, cfg, d))
			return nil
		})
	}
	err := g.Wait()
	close(lines)
	return errors.Join(err, <-written)
}

// patiently asks again where nothing is known: what is busy says nothing of who may.
func patiently(ctx context.Context, cfg aws.Config, d Door) (err error) {
	for range tries {
		within, cancel := context.WithTimeout(ctx, doorTime)
		err = Try(within, cfg, d)
		cancel()
		if err == nil || errors.Is(err, ErrRefused) || ctx.Err() != nil {
			return err
		}
	}
	return err
}

func answerOf(number int, err error) Answer {
	switch {
	case err == nil:
		return Answer{Number: number, Outcome: LetIn}
	case errors.Is(err, ErrRefused):
		return Answer{Number: number, Outcome: Refused, Said: err.Error()}
	}
	return Answer{Number: number, Outcome: Unclear, Said: err.Error()}
}

// Err is an answer as Try gives it.
func (a Answer) Err() error {
	switch a.Outcome {
	case LetIn:
		return nil
	case Refused:
		return fmt.Errorf("%w: %s", ErrRefused, strings.TrimPrefix(a.Said, ErrRefused.Error()+": "))
	case Unclear:
	}
	return errors.New(a.Said)
}
