package stacktest

import (
	"fmt"
	"slices"
	"strings"
)

// nameless are actions of which AWS knows no resource: what is asked is about `*`, whatever it names, and says no tag of what it names. A policy that
// bounds one by an ARN or by aws:ResourceTag never allows it, and one that does so where the key exists doesn't bound it.
// https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html
var nameless = []string{
	"cloudformation:DescribeStackDriftDetectionStatus", "cloudformation:ListExports", "cloudformation:ValidateTemplate",
	"ec2:DescribeAccountAttributes", "ec2:DescribeAvailabilityZones", "ec2:DescribeInternetGateways", "ec2:DescribeRegions", "ec2:DescribeSecurityGroupRules", "ec2:DescribeSecurityGroups",
	"ec2:DescribeSubnets", "ec2:DescribeVpcs", "ecr:GetAuthorizationToken", "ecs:DeregisterTaskDefinition", "ecs:DescribeTaskDefinition", "ecs:ListTaskDefinitions", "kms:CreateKey", "kms:ListKeys",
	"logs:DescribeIndexPolicies", "logs:DescribeLogGroups", "logs:DescribeResourcePolicies", "route53:CreateHostedZone", "route53:ListHostedZonesByName", "s3:ListAllMyBuckets", "secretsmanager:ListSecrets",
	"elasticloadbalancing:DescribeListeners", "elasticloadbalancing:DescribeLoadBalancers", "elasticloadbalancing:DescribeTargetHealth",
	"servicediscovery:CreatePrivateDnsNamespace", "servicediscovery:ListNamespaces", "servicediscovery:ListServices", "servicediscovery:ListTagsForResource", "servicediscovery:TagResource",
	"servicediscovery:UntagResource", "servicequotas:GetAWSDefaultServiceQuota",
}

// asAsked is the request as AWS asks IAM about it.
func (r Request) asAsked() Request {
	for _, action := range nameless {
		if strings.EqualFold(action, r.Action) {
			r.Resource, r.ResourceTags = "*", nil
		}
	}
	return r
}

// beside are the faults of a statement that bounds what AWS asks of no resource by what is said of resources.
func (st Statement) beside() []string {
	var out []string
	for _, action := range st.Action {
		if !slices.Contains(nameless, action) {
			continue
		}
		if len(st.Resource) > 0 && !slices.Contains(st.Resource, "*") {
			out = append(out, fmt.Sprintf("never allows %s, of which AWS knows no resource: it is about %v", action, st.Resource))
		}
		for operator, keys := range st.Condition {
			for key, values := range keys {
				switch {
				case !strings.HasPrefix(key, "aws:ResourceTag/"), operator == "Null" && slices.Equal(values, []string{"true"}):
				case !strings.HasSuffix(operator, "IfExists"):
					out = append(out, fmt.Sprintf("never allows %s, of whose resource AWS says no tag", action))
				case !strings.Contains(action, ":Create"): // what is made has no tag of another's
					out = append(out, fmt.Sprintf("doesn't bound %s by a tag of its resource, which AWS doesn't say", action))
				}
			}
		}
	}
	return out
}
