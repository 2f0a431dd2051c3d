package drift

import (
	"fmt"
	"strings"
)

// exportPrefix tells what other stacks export from parameters.
const exportPrefix = "export "

// unknown stands for what a function comes out as that isn't known here: what holds one isn't compared.
type unknown struct{}

// value puts in the place of functions what they come out as.
func (d *deployed) value(v any) any {
	switch v := v.(type) {
	case map[string]any:
		if len(v) == 1 {
			for name, argument := range v {
				if name == "Ref" || strings.HasPrefix(name, "Fn::") {
					return d.function(name, argument)
				}
			}
		}
		out := map[string]any{}
		for k, e := range v {
			out[k] = d.value(e)
		}
		return out
	case []any:
		out := make([]any, 0, len(v))
		for _, e := range v {
			out = append(out, d.value(e))
		}
		return out
	default:
		return v
	}
}

func (d *deployed) function(name string, argument any) any {
	switch name {
	case "Ref":
		return d.reference(fmt.Sprint(argument))
	case "Fn::GetAtt":
		parts, _ := argument.([]any)
		if len(parts) != 2 {
			return unknown{}
		}
		return d.attribute(fmt.Sprint(parts[0]), fmt.Sprint(parts[1]))
	case "Fn::ImportValue":
		return d.lookUp(exportPrefix + fmt.Sprint(argument))
	case "Fn::Sub":
		return d.filled(fmt.Sprint(argument))
	default:
		return unknown{}
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
