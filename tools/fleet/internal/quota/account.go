package quota

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/servicequotas"
	"github.com/aws/aws-sdk-go-v2/service/servicequotas/types"
)

// Answer is one limit beside what an account has of it.
type Answer struct {
	Limit
	// Granted is what the account has; 0 where Service Quotas doesn't know the quota, and Asked is false.
	Granted float64 `json:"granted,omitempty"`
	Asked   bool    `json:"asked"`
	// CarriesGranted is how many tenants that is enough for, Enough whether for all of the plan's.
	CarriesGranted int  `json:"carries_tenants_as_granted,omitempty"`
	Enough         bool `json:"enough"`
}

// codes are what Service Quotas calls services, where it is not what the table does.
var codes = map[string]string{"cloudmap": "AWSCloudMap", "cloudwatch": "monitoring"}

// global are services whose quotas are the account's in all Regions, and are told in one.
var global = map[string]bool{"iam": true, "route53": true, "s3": true}

const globalRegion = "us-east-1"

// Check asks Service Quotas what the account has of each limit. A limit without a code, or one that Service Quotas doesn't know in the Region, is
// held against its default, and says that nobody was asked. Being throttled is waited for, as the SDK does.
func (p *Plan) Check(ctx context.Context, cfg aws.Config) ([]Answer, error) {
	regional := servicequotas.NewFromConfig(cfg)
	everywhere := servicequotas.NewFromConfig(cfg, func(o *servicequotas.Options) { o.Region = globalRegion })
	var out []Answer
	for _, l := range p.Limits {
		client := regional
		if global[l.Service] {
			client = everywhere
		}
		a := Answer{Limit: l, CarriesGranted: l.Carries, Enough: !l.Met}
		if l.Code != "" {
			value, known, err := granted(ctx, client, l)
			if err != nil {
				return nil, err
			}
			if known {
				a.Asked, a.Granted = true, value
				a.CarriesGranted = max(0, int(math.Floor((value-l.Plane-l.Changing)/l.PerTenant)))
				a.Enough = a.CarriesGranted >= p.Tenants
			}
		}
		out = append(out, a)
	}
	return out, nil
}

// granted is what the account has of a quota: what was applied to it, or what AWS gives everybody.
func granted(ctx context.Context, client *servicequotas.Client, l Limit) (value float64, known bool, err error) {
	service := l.Service
	if code, ok := codes[service]; ok {
		service = code
	}
	var missing *types.NoSuchResourceException
	applied, err := client.GetServiceQuota(ctx, &servicequotas.GetServiceQuotaInput{ServiceCode: &service, QuotaCode: &l.Code})
	if err == nil && applied.Quota != nil && applied.Quota.Value != nil {
		return *applied.Quota.Value, true, nil
	}
	if err != nil && !errors.As(err, &missing) {
		return 0, false, fmt.Errorf("ask Service Quotas for %s of %s: %w", l.Code, service, err)
	}
	standard, err := client.GetAWSDefaultServiceQuota(ctx, &servicequotas.GetAWSDefaultServiceQuotaInput{ServiceCode: &service, QuotaCode: &l.Code})
	switch {
	case errors.As(err, &missing):
		return 0, false, nil
	case err != nil:
		return 0, false, fmt.Errorf("ask Service Quotas for the default of %s of %s: %w", l.Code, service, err)
	case standard.Quota == nil || standard.Quota.Value == nil:
		return 0, false, nil
	}
	return *standard.Quota.Value, true, nil
}
