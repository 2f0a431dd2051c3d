package aws

import (
	"context"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
)

// session is who works on a tenant's set.
func (p *Platform) session(ctx context.Context, _ *tenant) (sdk.Config, error) { return p.config(ctx) }
