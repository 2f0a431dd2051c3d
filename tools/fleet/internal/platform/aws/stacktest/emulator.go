package stacktest

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// notMade are the types of resources that MiniStack's CloudFormation doesn't make.
var notMade = []string{"AWS::EC2::EIP", "AWS::EC2::NatGateway", "AWS::EC2::Route", "AWS::EC2::SecurityGroupIngress", "AWS::EC2::SecurityGroupEgress", "AWS::SecretsManager::ResourcePolicy",
	"AWS::EC2::VPCEndpointService", "AWS::EC2::VPCEndpointServicePermissions", "AWS::Route53::RecordSet"}

// notKnown are keys of conditions that the emulator has no value for.
var notKnown = []string{"aws:PrincipalIsAWSService", "aws:ResourceOrgID", "sts:SourceIdentity", "aws:MultiFactorAuthPresent", "kms:ScheduleKeyDeletionPendingWindowInDays"}

// Emulated is a template as MiniStack 1.5.33 can carry it out so that its policies mean there what they mean at AWS. The emulator doesn't make
// some resources; it doesn't know whether a service of AWS's calls, so that a denial that asks would never hold, nor organizations, nor who
// stands behind a session, nor what a call of KMS says that it is for, nor a request's tags where a value names them; and it calls a principal by its session, where AWS says the role. It is
// called without TLS: unless tls says so, that isn't denied.
func Emulated(text []byte, tls bool) ([]byte, error) {
	var template map[string]any
	if err := json.Unmarshal(text, &template); err != nil {
		return nil, fmt.Errorf("read the template: %w", err)
	}
	resources, _ := template["Resources"].(map[string]any)
	forget(template["Outputs"], `"AvailabilityZoneId"]}`)
	forget(template["Outputs"], `"MasterUserSecret.SecretArn"]}`)
	for id, r := range resources {
		kind, _ := at(r, "Type").(string)
		if at(r, "DeletionPolicy") == kept {
			r.(map[string]any)["DeletionPolicy"] = "Retain" // which it knows
		}
		if slices.Contains(notMade, kind) {
			delete(resources, id)
			forget(template["Outputs"], `{"Ref":"`+id+`"}`)
		}
		documents := []any{at(r, "Properties", "PolicyDocument"), at(r, "Properties", "KeyPolicy"), at(r, "Properties", "AssumeRolePolicyDocument")}
		for _, p := range list(at(r, "Properties", "Policies")) {
			documents = append(documents, at(p, "PolicyDocument"))
		}
		for _, d := range documents {
			document, is := d.(map[string]any)
			if !is {
				continue
			}
			statements := slices.DeleteFunc(list(document["Statement"]), func(st any) bool {
				// Which key a writer names it doesn't tell its policies: for it, nobody names any.
				return !tls && field(st, "Sid") == "OnlyOverTLS" || field(st, "Sid") == "OnlyUnderAKeyByName"
			})
			for _, st := range statements {
				emulate(at(st, "Condition"))
				withGroups(st)
			}
			document["Statement"] = statements
		}
	}
	return json.Marshal(template)
}

// forget has outputs that name what the emulator doesn't make, or doesn't know of what it makes, say so in its place.
func forget(outputs any, function string) {
	all, _ := outputs.(map[string]any)
	for _, o := range all {
		of, _ := o.(map[string]any)
		if text, err := json.Marshal(of["Value"]); err == nil && strings.Contains(string(text), function) {
			of["Value"] = "not known to the emulator"
		}
	}
}

// aboutEverything says of an action that the emulator asks about every resource alone.
func aboutEverything(action any) bool {
	service, _, _ := strings.Cut(fmt.Sprint(action), ":")
	return service == "iam" || service == "sts" || service == "ecs"
}

// withGroups names the groups of log streams as well, about which the emulator asks where AWS asks about streams.
func withGroups(st any) {
	fields, _ := st.(map[string]any)
	if field(st, "Effect") == "Allow" && fields["Resource"] != nil && slices.ContainsFunc(list(fields["Action"]), aboutEverything) {
		fields["Resource"] = "*"
	}
	for _, r := range list(fields["Resource"]) {
		if group, is := strings.CutSuffix(fmt.Sprint(r), ":log-stream:*"); is {
			fields["Resource"] = append(list(fields["Resource"]), group)
		}
	}
}

func emulate(condition any) {
	conditions, _ := condition.(map[string]any)
	for operator, keys := range conditions {
		asked, _ := keys.(map[string]any)
		maps.DeleteFunc(asked, func(key string, value any) bool {
			return slices.Contains(notKnown, key) || strings.HasPrefix(key, "kms:EncryptionContext:") || strings.Contains(fmt.Sprint(value), "${aws:RequestTag/")
		})
		if len(asked) == 0 {
			delete(conditions, operator)
		}
		if roles, is := asked["aws:PrincipalArn"]; is {
			sessions := make([]any, 0, len(list(roles)))
			for _, r := range list(roles) {
				sessions = append(sessions, session(r))
			}
			asked["aws:PrincipalArn"] = sessions
		}
	}
}

// session is every session of a role, where a text names one, or a parameter.
func session(role any) any {
	if parameter, is := at(role, "Ref").(string); is {
		after := map[string]any{"Fn::Select": []any{1, map[string]any{"Fn::Split": []any{":role/", map[string]any{"Ref": parameter}}}}}
		return map[string]any{"Fn::Join": []any{"", []any{"arn:aws:sts::*:assumed-role/", after, "/*"}}}
	}
	arn, _ := role.(string)
	before, name, is := strings.Cut(arn, ":role/")
	if !is {
		return role
	}
	return strings.Replace(before, ":iam:", ":sts:", 1) + ":assumed-role/" + name[strings.LastIndex(name, "/")+1:] + "/*"
}
