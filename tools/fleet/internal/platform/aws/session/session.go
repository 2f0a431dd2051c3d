// Package session is how fleet is somebody at AWS: by what the SDK finds in its environment, so long as it ends by itself. A long-lived key is
// refused, since it works for whoever finds it, for as long as nobody notices.
package session

import (
	"context"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
)

// longLived is how the ids of keys begin that don't end by themselves.
const longLived = "AKIA"

// Load finds credentials for a Region. An endpoint of one's own is what the SDK reads from AWS_ENDPOINT_URL.
func Load(ctx context.Context, region string) (aws.Config, error) {
	cfg, err := config.LoadDefaultConfig(ctx, config.WithRegion(region))
	if err != nil {
		return cfg, fmt.Errorf("load the configuration of AWS: %w", err)
	}
	got, err := cfg.Credentials.Retrieve(ctx)
	if err != nil {
		return cfg, fmt.Errorf("find credentials of AWS: %w: log in as a role, as with aws sso login or aws sts assume-role", err)
	}
	if strings.HasPrefix(got.AccessKeyID, longLived) || got.SessionToken == "" {
		return cfg, fmt.Errorf("the credentials of AWS (from %s) are a long-lived key, which fleet doesn't use: log in as a role, as with aws sso login or aws sts assume-role", got.Source)
	}
	return cfg, nil
}
