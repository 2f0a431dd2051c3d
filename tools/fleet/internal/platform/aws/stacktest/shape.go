package stacktest

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// kept is the policy of what outlives its stack, and doesn't stay where the stack was never whole, in the way of the next.
const kept = "RetainExceptOnCreate"

// storage looks at how what keeps data keeps it.
func storage(s *Stack) ([]string, error) {
	var found []string
	say := func(r Resource, text string) { found = append(found, r.ID+" "+text) }
	keys := s.of("AWS::KMS::Key")
	under := func(v any) bool { return slices.ContainsFunc(keys, func(k Resource) bool { return v == k.ARN }) }
	for _, r := range keys {
		if r.DeletionPolicy != kept || r.Properties["EnableKeyRotation"] != true {
			say(r, "goes with its stack, or is never rotated")
		}
	}
	for _, r := range s.of("AWS::S3::Bucket") {
		for _, p := range []string{"BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets"} {
			if at(r.Properties, "PublicAccessBlockConfiguration", p) != true {
				say(r, "doesn't say "+p)
			}
		}
		rules := list(at(r.Properties, "BucketEncryption", "ServerSideEncryptionConfiguration"))
		if len(rules) != 1 || !under(at(rules[0], "ServerSideEncryptionByDefault", "KMSMasterKeyID")) {
			say(r, "is not encrypted under the set's key")
		}
		if owners := list(at(r.Properties, "OwnershipControls", "Rules")); len(owners) != 1 || field(owners[0], "ObjectOwnership") != "BucketOwnerEnforced" {
			say(r, "has access lists")
		}
		if r.DeletionPolicy != kept {
			say(r, "goes with its stack, or is in the way of the next one where making the first failed")
		}
	}
	for kind, property := range map[string]string{"AWS::SQS::Queue": "KmsMasterKeyId", "AWS::SecretsManager::Secret": "KmsKeyId", "AWS::Logs::LogGroup": "KmsKeyId", "AWS::RDS::DBInstance": "KmsKeyId"} {
		for _, r := range s.of(kind) {
			if !under(r.Properties[property]) {
				say(r, "is not encrypted under the set's key")
			}
		}
	}
	for _, r := range s.of("AWS::Logs::LogGroup") {
		if r.Properties["RetentionInDays"] == nil {
			say(r, "is kept for ever")
		}
	}
	for _, r := range s.of("AWS::SecretsManager::Secret") {
		if r.Properties["SecretString"] != nil || r.Properties["GenerateSecretString"] != nil {
			say(r, "has its value in the template")
		}
	}
	for _, r := range s.of("AWS::RDS::DBInstance") {
		p := r.Properties
		if p["PubliclyAccessible"] != false || p["StorageEncrypted"] != true || p["DeletionProtection"] != true || p["MasterUserPassword"] != nil || r.DeletionPolicy != "Snapshot" {
			say(r, "is public, not encrypted, not protected, or has its password in the template")
		}
	}
	return found, nil
}

// inside is the plane's network, of which no address is the internet's.
var inside = regexp.MustCompile(`^10\.`)

// networks looks at who may come in. The internet reaches one group, at the port of HTTPS.
func networks(s *Stack) ([]string, error) {
	var found []string
	look := func(id string, rule any) {
		from := field(rule, "CidrIp") + field(rule, "CidrIpv6")
		port := fmt.Sprint(at(rule, "FromPort"), "-", at(rule, "ToPort"))
		switch {
		case field(rule, "IpProtocol") != "tcp":
			found = append(found, id+" lets in "+field(rule, "IpProtocol"))
		case from == "" || inside.MatchString(from):
		case id == "Balancer" && port == "443-443":
		default:
			found = append(found, fmt.Sprintf("%s lets %s in at %s", id, from, port))
		}
	}
	for _, r := range s.of("AWS::EC2::SecurityGroup") {
		if len(list(r.Properties["SecurityGroupEgress"])) == 0 {
			found = append(found, r.ID+" says nothing of ways out, and so has every one")
		}
		for _, rule := range list(r.Properties["SecurityGroupIngress"]) {
			look(r.ID, rule)
		}
	}
	for _, r := range s.of("AWS::EC2::SecurityGroupIngress") {
		look(r.ID, r.Properties)
	}
	for _, r := range s.of("AWS::EC2::Subnet") {
		if r.Properties["MapPublicIpOnLaunch"] != false {
			found = append(found, r.ID+" gives addresses of the internet")
		}
	}
	return append(found, s.fronts()...), nil
}

// fronts looks at load balancers that the internet reaches: who is behind one sees whose calls they are, and is there for each zone's clients.
func (s *Stack) fronts() (found []string) {
	for _, r := range s.of("AWS::ElasticLoadBalancingV2::LoadBalancer") {
		if r.Properties["Scheme"] != "internet-facing" {
			continue
		}
		if !on(r.Properties["LoadBalancerAttributes"], "load_balancing.cross_zone.enabled") {
			found = append(found, r.ID+" has clients of a zone go nowhere while nothing of that zone is behind it")
		}
		for _, l := range s.of("AWS::ElasticLoadBalancingV2::Listener") {
			for _, action := range list(l.Properties["DefaultActions"]) {
				g := field(action, "TargetGroupArn")
				if l.Properties["LoadBalancerArn"] == r.ID && !on(s.Resources[g].Properties["TargetGroupAttributes"], "preserve_client_ip.enabled") {
					found = append(found, g+" hides the addresses of clients")
				}
			}
		}
	}
	return found
}

// on says of attributes that one of them is true.
func on(attributes any, key string) bool {
	return slices.ContainsFunc(list(attributes), func(a any) bool { return field(a, "Key") == key && field(a, "Value") == "true" })
}

var (
	byDigest = regexp.MustCompile(`@sha256:[0-9a-f]{64}$`)
	numeric  = regexp.MustCompile(`^[1-9][0-9]*:[1-9][0-9]*$`)
)

// secretOfASet is one of the stack, or one that the plane's stack exports.
var secretOfASet = regexp.MustCompile(`^(arn:aws:secretsmanager:|import a3-[a-z0-9]+-[A-Za-z]+Secret:)`)

// tasks looks at what runs.
func tasks(s *Stack) ([]string, error) {
	var found []string
	for _, r := range s.of("AWS::ECS::TaskDefinition") {
		for _, c := range list(r.Properties["ContainerDefinitions"]) {
			say := func(text string) { found = append(found, r.ID+", container "+field(c, "Name")+": "+text) }
			if !byDigest.MatchString(field(c, "Image")) {
				say("its image is not named by digest")
			}
			if !numeric.MatchString(field(c, "User")) {
				say("it runs as root, or as whom the image says")
			}
			if at(c, "ReadonlyRootFilesystem") != true || at(c, "Privileged") == true || !slices.Contains(list(at(c, "LinuxParameters", "Capabilities", "Drop")), any("ALL")) {
				say("it can write to its root, or has power over its machine")
			}
			if field(at(c, "LogConfiguration"), "LogDriver") == "" {
				say("its log goes nowhere")
			}
			for _, e := range list(at(c, "Environment")) {
				if v := field(e, "Value"); strings.Contains(v, "://") && strings.Contains(v, "@") || strings.Contains(v, "PRIVATE") {
					say(field(e, "Name") + " holds a secret")
				}
			}
			for _, secret := range list(at(c, "Secrets")) {
				if field(c, "Name") != "place-files" || !secretOfASet.MatchString(field(secret, "ValueFrom")) {
					say(field(secret, "Name") + " is in its environment")
				}
			}
		}
	}
	for _, r := range s.of("AWS::ECS::Service") {
		breaker := at(r.Properties, "DeploymentConfiguration", "DeploymentCircuitBreaker")
		switch {
		case at(r.Properties, "NetworkConfiguration", "AwsvpcConfiguration", "AssignPublicIp") != "DISABLED":
			found = append(found, r.ID+" has addresses of the internet")
		case at(breaker, "Enable") != true || at(breaker, "Rollback") != true:
			found = append(found, r.ID+" doesn't take back what does not come up")
		case r.Properties["EnableExecuteCommand"] != false:
			found = append(found, r.ID+" lets commands be run in its tasks")
		}
	}
	return found, nil
}
