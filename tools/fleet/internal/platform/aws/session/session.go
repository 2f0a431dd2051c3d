// Package session is how fleet is somebody at AWS: as what the SDK finds in an operator's environment.
package session

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"

	"a3os.app/libs/awssession"
)

// Load finds credentials for a Region. An endpoint that an operator's own environment names is believed, an emulator's too. Errors: [awssession.ErrLongLived].
func Load(ctx context.Context, region string) (aws.Config, error) {
	return awssession.Load(ctx, region, awssession.PlainToo)
}
