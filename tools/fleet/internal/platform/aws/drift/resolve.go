package drift

import (
	"fmt"
	"strings"

	"a3os.app/tools/fleet/internal/platform/aws/intrinsic"
)

// exportPrefix tells what other stacks export from parameters.
const exportPrefix = "export "

// unknown stands for what a function comes out as that isn't known here: what holds one isn't compared.
type unknown struct{}

// value puts in the place of functions what they come out as.
func (d *deployed) value(v any) any { return intrinsic.Resolve(v, d.function) }

func (d *deployed) function(name string, argument any) (any, bool) {
	switch name {
	case "Ref":
		return d.reference(fmt.Sprint(argument)), true
	case "Fn::GetAtt":
		parts, _ := argument.([]any)
		if len(parts) != 2 {
			return unknown{}, true
		}
		return d.attribute(fmt.Sprint(parts[0]), fmt.Sprint(parts[1])), true
	case "Fn::ImportValue":
		return d.lookUp(exportPrefix + fmt.Sprint(argument)), true
	case "Fn::Sub":
		return d.filled(fmt.Sprint(argument)), true
	default:
		return unknown{}, strings.HasPrefix(name, "Fn::")
	}
}

func (d *deployed) reference(id string) any {
	if p, is := d.physical[id]; is {
		return p
	}
	return d.lookUp(id)
}

func (d *deployed) lookUp(name string) any {
	if v, is := d.known[name]; is {
		return v
	}
	return unknown{}
}

// filled puts in a text what it mentions.
func (d *deployed) filled(text string) any {
	var out strings.Builder
	for {
		before, rest, found := strings.Cut(text, "${")
		out.WriteString(before)
		if !found {
			return out.String()
		}
		name, after, _ := strings.Cut(rest, "}")
		var v any
		if id, attribute, is := strings.Cut(name, "."); is {
			v = d.attribute(id, attribute)
		} else {
			v = d.reference(name)
		}
		said, is := v.(string)
		if !is {
			return unknown{}
		}
		out.WriteString(said)
		text = after
	}
}

// attribute is one of a resource's, of those that policies and services name.
func (d *deployed) attribute(id, name string) any {
	r, physical := d.template.Resources[id], d.physical[id]
	said := func(key string) string { text, _ := r.Properties[key].(string); return text }
	regional := func(service, resource string) string {
		return "arn:aws:" + service + ":" + d.cfg.Region + ":" + d.account + ":" + resource
	}
	switch {
	case r.Type == "AWS::EC2::SecurityGroup" && name == "GroupId":
		return physical
	case name != "Arn" || physical == "":
		return unknown{}
	}
	switch r.Type {
	case "AWS::IAM::Role":
		return "arn:aws:iam::" + d.account + ":role" + said("Path") + said("RoleName")
	case "AWS::KMS::Key":
		return regional("kms", "key/"+physical)
	case "AWS::SQS::Queue":
		return regional("sqs", said("QueueName"))
	case "AWS::ServiceDiscovery::Service":
		return regional("servicediscovery", "service/"+physical)
	case "AWS::S3::Bucket":
		return "arn:aws:s3:::" + physical
	default:
		return unknown{}
	}
}

// accountOf is the account that an ARN names.
func accountOf(arn string) string {
	parts := strings.Split(arn, ":")
	const account = 4
	if len(parts) <= account {
		return ""
	}
	return parts[account]
}
