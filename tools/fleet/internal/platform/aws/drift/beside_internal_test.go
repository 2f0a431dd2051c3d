package drift

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation/types"
)

const groups = `{"Resources":{
"Peers":{"Type":"AWS::EC2::SecurityGroup","Properties":{"SecurityGroupEgress":[{"IpProtocol":"tcp","FromPort":443,"ToPort":443,"DestinationPrefixListId":"pl-1"}]}},
"Other":{"Type":"AWS::EC2::SecurityGroup","Properties":{}},
"PeersIn":{"Type":"AWS::EC2::SecurityGroupIngress","Properties":{"GroupId":{"Ref":"Peers"},"IpProtocol":"tcp","FromPort":7443,"ToPort":7443,"SourceSecurityGroupId":{"Ref":"Peers"},"Description":"The set itself"}},
"PeersOut":{"Type":"AWS::EC2::SecurityGroupEgress","Properties":{"GroupId":{"Fn::GetAtt":["Peers","GroupId"]},"IpProtocol":"tcp","FromPort":7443,"ToPort":7443,"DestinationSecurityGroupId":{"Ref":"Peers"},"Description":"The set itself"}},
"Queue":{"Type":"AWS::SQS::Queue","Properties":{}}}}`

// A rule that another resource of the template makes of a group, and the mark of a queue, are no differences; a rule that says anything else, of another
// group or the other way, and any other tag are. The emulator's detection knows neither.
func TestWhatStandsElsewhereInTheTemplateIsNoDifference(t *testing.T) {
	d := &deployed{stack: "a3-dev-tnt-a", account: "123456789012", physical: map[string]string{"Peers": "sg-1", "Other": "sg-2", "Queue": "q"}, known: map[string]string{}}
	if err := json.Unmarshal([]byte(groups), &d.template); err != nil {
		t.Fatal(err)
	}
	const in = `{"IpProtocol":"tcp","FromPort":7443,"ToPort":7443,"SourceSecurityGroupId":"sg-1","SourceSecurityGroupOwnerId":"123456789012","Description":"The set itself"}`
	const out = `{"IpProtocol":"tcp","FromPort":7443,"ToPort":7443,"DestinationSecurityGroupId":"sg-1","Description":"The set itself"}`
	for name, c := range map[string]struct {
		id, kind, path, actual string
		difference             types.DifferenceType
		named                  bool
	}{
		"a way in of the template's":           {"Peers", groupType, "/SecurityGroupIngress/0", in, types.DifferenceTypeAdd, false},
		"a way out of the template's":          {"Peers", groupType, "/SecurityGroupEgress/1", out, types.DifferenceTypeAdd, false},
		"a way out to everywhere":              {"Peers", groupType, "/SecurityGroupEgress/1", `{"IpProtocol":"tcp","FromPort":7443,"ToPort":7443,"CidrIp":"0.0.0.0/0"}`, types.DifferenceTypeAdd, true},
		"a way out to everywhere besides":      {"Peers", groupType, "/SecurityGroupEgress/1", strings.Replace(out, "{", `{"CidrIp":"0.0.0.0/0",`, 1), types.DifferenceTypeAdd, true},
		"a way in at more ports":               {"Peers", groupType, "/SecurityGroupIngress/0", strings.Replace(in, `"ToPort":7443`, `"ToPort":65535`, 1), types.DifferenceTypeAdd, true},
		"a way in from another account":        {"Peers", groupType, "/SecurityGroupIngress/0", strings.Replace(in, "123456789012", "210987654321", 1), types.DifferenceTypeAdd, true},
		"the same way into another group":      {"Other", groupType, "/SecurityGroupIngress/0", in, types.DifferenceTypeAdd, true},
		"a way in as it is out":                {"Peers", groupType, "/SecurityGroupIngress/0", out, types.DifferenceTypeAdd, true},
		"a way of the group's own that's gone": {"Peers", groupType, "/SecurityGroupEgress/0", "null", types.DifferenceTypeRemove, true},
		"a queue's mark":                       {"Queue", "AWS::SQS::Queue", "/Tags/2", `{"Key":"a3-mark-1","Value":"x"}`, types.DifferenceTypeAdd, false},
		"a queue's mark in the place of a tag": {"Queue", "AWS::SQS::Queue", "/Tags/0", `{"Key":"a3-mark-1","Value":"x"}`, types.DifferenceTypeNotEqual, true},
		"a queue's other tag":                  {"Queue", "AWS::SQS::Queue", "/Tags/2", `{"Key":"tenant","Value":"tnt_b"}`, types.DifferenceTypeAdd, true},
		"a mark of what has none":              {"Peers", groupType, "/Tags/2", `{"Key":"a3-mark-1","Value":"x"}`, types.DifferenceTypeAdd, true},
	} {
		found, is := d.theirs(types.StackResourceDrift{LogicalResourceId: &c.id, ResourceType: &c.kind, StackResourceDriftStatus: types.StackResourceDriftStatusModified, PropertyDifferences: []types.PropertyDifference{
			{PropertyPath: &c.path, ActualValue: &c.actual, ExpectedValue: aws.String("null"), DifferenceType: c.difference}}})
		if is != c.named {
			t.Errorf("%s: it is named %t: %s", name, is, found.Reason)
		}
	}
	// What is left out of a resource doesn't hide what else differs of it.
	found, is := d.theirs(types.StackResourceDrift{LogicalResourceId: aws.String("Peers"), ResourceType: aws.String(groupType), StackResourceDriftStatus: types.StackResourceDriftStatusModified, PropertyDifferences: []types.PropertyDifference{
		{PropertyPath: aws.String("/SecurityGroupEgress/1"), ActualValue: aws.String(out), DifferenceType: types.DifferenceTypeAdd},
		{PropertyPath: aws.String("/GroupDescription"), ActualValue: aws.String("x"), ExpectedValue: aws.String("y"), DifferenceType: types.DifferenceTypeNotEqual}}})
	if !is || strings.Contains(found.Reason, "7443") || !strings.Contains(found.Reason, "/GroupDescription is x") {
		t.Errorf("%t, %s", is, found.Reason)
	}
	if _, is := d.theirs(types.StackResourceDrift{LogicalResourceId: aws.String("Peers"), StackResourceDriftStatus: types.StackResourceDriftStatusDeleted}); !is {
		t.Error("what was deleted is not named")
	}
}
