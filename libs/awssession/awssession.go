// Package awssession loads the credentials that a process calls AWS with: what the SDK finds in its environment (a task's role, a login), so long as
// they end by themselves. A long-lived key is refused, since it works for whoever finds it, for as long as nobody notices, and so is whatever else is
// no session of a role: keys that an emulator takes for its root, too. Credentials are looked at each time that they are renewed.
package awssession

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
)

// How ids of keys begin: those of people and programs that don't end by themselves, and those that STS made for a session.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html#identifiers-unique-ids
const (
	longLived = "AKIA"
	temporary = "ASIA"
)

// ErrLongLived says that credentials are no session's of a role.
var ErrLongLived = errors.New("the credentials of AWS are a long-lived key, which isn't used: run as a role, as a task of ECS does, or log in as one, as with aws sso login or aws sts assume-role")

// Plain says whether an endpoint of AWS's may be without TLS, as an emulator's is.
type Plain bool

// PlainToo has an endpoint be one without TLS, too.
const PlainToo Plain = true

// Of is what a plane allows: an emulator is for `dev` alone.
func Of(plane string) Plain { return plane == "dev" }

// Load finds credentials for a Region; where it is empty, the environment's own (AWS_REGION). An endpoint of one's own is what the SDK reads
// from AWS_ENDPOINT_URL. Errors: [ErrLongLived].
func Load(ctx context.Context, region string, plain Plain) (aws.Config, error) {
	var with []func(*config.LoadOptions) error
	if region != "" {
		with = append(with, config.WithRegion(region))
	}
	cfg, err := config.LoadDefaultConfig(ctx, with...)
	if err != nil {
		return cfg, fmt.Errorf("load the configuration of AWS: %w", err)
	}
	if cfg.Region == "" {
		return cfg, errors.New("no Region of AWS is named: say it in AWS_REGION")
	}
	if err := endpoints(cfg, plain); err != nil {
		return cfg, err
	}
	cfg.Credentials = aws.NewCredentialsCache(checked{cfg.Credentials})
	if _, err := cfg.Credentials.Retrieve(ctx); err != nil {
		if errors.Is(err, ErrLongLived) {
			return cfg, err
		}
		return cfg, fmt.Errorf("find credentials of AWS: %w: run as a role, or log in as one", err)
	}
	return cfg, nil
}

// checked refuses what is no session's, whenever credentials are renewed.
type checked struct{ aws.CredentialsProvider }

// Retrieve implements aws.CredentialsProvider.
func (c checked) Retrieve(ctx context.Context) (aws.Credentials, error) {
	got, err := c.CredentialsProvider.Retrieve(ctx)
	if err != nil {
		return aws.Credentials{}, err
	}
	if err := Check(got); err != nil {
		return aws.Credentials{}, err
	}
	return got, nil
}

// Check refuses credentials that are no session's of a role, without saying what they are. Errors: [ErrLongLived].
func Check(c aws.Credentials) error {
	if !strings.HasPrefix(c.AccessKeyID, temporary) || c.SessionToken == "" {
		from := c.Source
		if from == "" {
			from = "the configuration"
		}
		return fmt.Errorf("%w (they come from %s)", ErrLongLived, from)
	}
	return nil
}

// RefuseKeys refuses an environment with a long-lived key in it, used or not: a process that works with nothing of AWS's has no business
// holding one either. Errors: [ErrLongLived].
func RefuseKeys(environ []string) error {
	for _, kv := range environ {
		if name, value, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "AWS_") && strings.HasPrefix(value, longLived) {
			return fmt.Errorf("%w (it is in the variable %s: take it out)", ErrLongLived, name)
		}
	}
	return nil
}

// endpoints refuses those without TLS, by which credentials and data would go in the clear.
func endpoints(cfg aws.Config, plain Plain) error {
	if plain {
		return nil
	}
	said := map[string]string{"the configuration": aws.ToString(cfg.BaseEndpoint)}
	for _, kv := range os.Environ() {
		if name, value, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "AWS_ENDPOINT_URL") {
			said[name] = value
		}
	}
	for where, text := range said {
		if text == "" {
			continue
		}
		if u, err := url.Parse(text); err != nil || u.Scheme != "https" {
			return fmt.Errorf("an endpoint of AWS (from %s) is without TLS, which only a plane dev may use: name one of https, or none", where)
		}
	}
	return nil
}
