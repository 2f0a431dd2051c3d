// Package session loads the credentials that fleet calls AWS with, from an operator's environment, and takes the roles that it works in from there.
package session

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"

	"a3os.app/libs/awssession"
)

// A session of a role lasts as long as AWS lets one last that a role took, four times what STS gives who doesn't say, and is taken anew a while
// before it ends, so that no call which begins in it comes too late.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles.html#iam-term-role-chaining
const (
	lasts  = time.Hour
	before = 5 * time.Minute
)

// taken is a role in a session that begins now, and is taken anew as long as cfg's own lasts.
func taken(ctx context.Context, cfg aws.Config, role string, how func(*stscreds.AssumeRoleOptions)) (aws.Config, error) {
	out := cfg.Copy()
	out.Credentials = aws.NewCredentialsCache(stscreds.NewAssumeRoleProvider(sts.NewFromConfig(cfg), role, func(o *stscreds.AssumeRoleOptions) {
		o.Duration = lasts
		how(o)
	}), func(o *aws.CredentialsCacheOptions) { o.ExpiryWindow = before })
	_, err := out.Credentials.Retrieve(ctx)
	return out, err
}

// enough is how long a session lasts still in which a stack's change may begin: the longest, that of a server's making, is half an hour.
const enough = 45 * time.Minute

// Fresh has credentials last long enough for the change of a stack, which CloudFormation carries out with the very session that asked for it and can't renew.
// One that ends in the midst of it fails the change, and what takes that back.
// https://github.com/eksctl-io/eksctl/issues/7095
func Fresh(ctx context.Context, credentials aws.CredentialsProvider) error {
	cache, is := credentials.(*aws.CredentialsCache)
	if !is {
		return nil // whoever has no cache has a new session for each call, or one that nobody renews
	}
	keys, err := cache.Retrieve(ctx)
	if err != nil || !keys.CanExpire || time.Until(keys.Expires) >= enough {
		return err
	}
	cache.Invalidate()
	_, err = cache.Retrieve(ctx)
	return err
}

// Load finds credentials for a Region. An endpoint that an operator's own environment names is believed, an emulator's too. Errors: [awssession.ErrLongLived].
func Load(ctx context.Context, region string) (aws.Config, error) {
	cfg, err := awssession.Load(ctx, region, awssession.PlainToo)
	cfg.APIOptions = append(cfg.APIOptions, ended)
	return cfg, err
}

// ended is the middleware that says of a call which AWS refuses for credentials that ended what to do: that login is who runs fleet's to renew.
func ended(stack *middleware.Stack) error {
	return stack.Initialize.Add(middleware.InitializeMiddlewareFunc("a3.SessionEnded", func(ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler) (middleware.InitializeOutput, middleware.Metadata, error) {
		out, meta, err := next.HandleInitialize(ctx, in)
		if api, is := errors.AsType[smithy.APIError](err); is && slices.Contains([]string{"ExpiredToken", "ExpiredTokenException"}, api.ErrorCode()) {
			err = fmt.Errorf("the session at AWS ended: log in again, and go on with fleet operation resume, or with the same command: %w", err)
		}
		return out, meta, err
	}), middleware.Before)
}
