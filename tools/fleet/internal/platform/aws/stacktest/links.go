package stacktest

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// byNumber is an account, or one role of it.
var byNumber = regexp.MustCompile(`^arn:aws:iam::[0-9]{12}:(root|role/[^*?]+)$`)

// links looks at what other accounts reach by endpoint services: whom each lets in is said by number, and nothing else leads to the load balancer
// behind it. An endpoint says at which ports whom it lets in.
func links(s *Stack) ([]string, error) {
	var found []string
	named := map[any]bool{}
	for _, r := range s.of("AWS::EC2::VPCEndpointServicePermissions") {
		principals := list(r.Properties["AllowedPrincipals"])
		for _, p := range principals {
			if !byNumber.MatchString(fmt.Sprint(p)) {
				found = append(found, fmt.Sprintf("%s lets %v in, which is no account by its number", r.ID, p))
			}
		}
		named[r.Properties["ServiceId"]] = len(principals) > 0
	}
	for _, r := range s.of("AWS::EC2::VPCEndpointService") {
		if !named[r.ID] && r.Properties["AcceptanceRequired"] != true {
			found = append(found, r.ID+" names nobody, and asks nobody whom it lets in")
		}
		for _, balancer := range list(r.Properties["NetworkLoadBalancerArns"]) {
			found = append(found, s.behindAService(fmt.Sprint(balancer))...)
		}
	}
	for _, r := range s.of("AWS::EC2::VPCEndpoint") {
		// Those for services of AWS have a policy, which is looked at as such.
		if r.Properties["VpcEndpointType"] == "Interface" && r.Properties["PolicyDocument"] == nil {
			for _, group := range list(r.Properties["SecurityGroupIds"]) {
				found = append(found, s.namesWhomItLetsIn(fmt.Sprint(group))...)
			}
		}
	}
	return found, nil
}

// behindAService looks at a load balancer that nobody of its own network is to reach.
func (s *Stack) behindAService(balancer string) []string {
	var found []string
	r := s.Resources[balancer]
	groups := list(r.Properties["SecurityGroups"])
	if r.Properties["Scheme"] != "internal" || len(groups) == 0 {
		found = append(found, balancer+" has addresses of the internet, or no group that closes it")
	}
	for _, group := range groups {
		if len(s.letIn(fmt.Sprint(group))) > 0 {
			found = append(found, fmt.Sprintf("%v of %s lets somebody in besides whom the endpoint service does", group, balancer))
		}
	}
	return found
}

func (s *Stack) namesWhomItLetsIn(group string) []string {
	rules := s.letIn(group)
	if len(rules) == 0 || slices.ContainsFunc(rules, func(rule any) bool {
		return field(rule, "SourceSecurityGroupId") == "" || at(rule, "FromPort") == nil || at(rule, "FromPort") != at(rule, "ToPort")
	}) {
		return []string{group + " doesn't name the group and the one port of each that it lets in"}
	}
	return nil
}

// letIn are the rules by which a group lets in, its own and those that stand by themselves.
func (s *Stack) letIn(group string) []any {
	id := groupOf(group)
	out := slices.Clone(list(s.Resources[id].Properties["SecurityGroupIngress"]))
	for _, r := range s.of("AWS::EC2::SecurityGroupIngress") {
		if groupOf(fmt.Sprint(r.Properties["GroupId"])) == id {
			out = append(out, r.Properties)
		}
	}
	return out
}

// groupOf is the resource that a group's id is of, by reference or by attribute.
func groupOf(id string) string { return strings.TrimSuffix(id, ".GroupId") }
