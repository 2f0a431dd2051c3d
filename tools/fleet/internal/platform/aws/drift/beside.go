package drift

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation/types"

	"a3os.app/libs/queue/sqs"
)

// beside leaves of what CloudFormation found of a resource what belongs to the set and stands elsewhere: it takes a group's rules that are resources of the
// template's own for ones that somebody added to the group, and the mark that fleet puts on a queue for tags that somebody gave it.
// https://github.com/aws-cloudformation/cloudformation-coverage-roadmap/issues/1198
func (d *deployed) beside(r types.StackResourceDrift) []types.PropertyDifference {
	return slices.DeleteFunc(slices.Clone(r.PropertyDifferences), func(p types.PropertyDifference) bool {
		if p.DifferenceType != types.DifferenceTypeAdd {
			return false
		}
		path, _, _ := strings.Cut(strings.TrimPrefix(aws.ToString(p.PropertyPath), "/"), "/")
		var added map[string]any
		if err := json.Unmarshal([]byte(aws.ToString(p.ActualValue)), &added); err != nil {
			return false
		}
		switch {
		case aws.ToString(r.ResourceType) == "AWS::SQS::Queue" && path == "Tags":
			return strings.HasPrefix(fmt.Sprint(added["Key"]), sqs.TagMark)
		case aws.ToString(r.ResourceType) == groupType && (path == "SecurityGroupIngress" || path == "SecurityGroupEgress"):
			return d.ruleOf(aws.ToString(r.LogicalResourceId), "AWS::EC2::"+path, added)
		default:
			return false
		}
	})
}

const groupType = "AWS::EC2::SecurityGroup"

// ruleOf says whether a rule that a group has is, in all that it says, one that the template has as a resource of a kind.
func (d *deployed) ruleOf(group, kind string, has map[string]any) bool {
	for _, r := range d.template.Resources {
		wants, _ := d.value(r.Properties).(map[string]any)
		if r.Type != kind || wants["GroupId"] != any(d.physical[group]) {
			continue
		}
		is := true
		for key, value := range wants {
			is = is && (key == "GroupId" || fmt.Sprint(has[key]) == fmt.Sprint(value))
		}
		for key, value := range has {
			_, wanted := wants[key]
			// The account of a group that is let in stands in what is there, and not in the template.
			is = is && (wanted || key == "SourceSecurityGroupOwnerId" && value == any(d.account))
		}
		if is {
			return true
		}
	}
	return false
}
