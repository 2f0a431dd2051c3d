// Package stacktest reads CloudFormation templates back and says what is wrong with them: which statement reaches another tenant's resource,
// what is open to more than it has to be. It evaluates policies as IAM documents it
// (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html), from the text of the template alone, and shares
// nothing with the package that renders them. It is no AWS: what a service does besides, it doesn't know.
package stacktest

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"a3os.app/tools/fleet/internal/platform/aws/intrinsic"
)

// Place is where a template is deployed: what functions in it come out as.
type Place struct{ Account, Region string }

// Stack is a template that was read.
type Stack struct {
	Place     Place
	Resources map[string]Resource
}

// Resource is one resource of a stack, its functions resolved.
type Resource struct {
	ID, Type       string
	Properties     map[string]any
	DeletionPolicy string
	// ARN is what policies know it by; empty where none does.
	ARN string
	// Tags of it.
	Tags map[string]string
}

// Read reads a template.
func Read(text []byte, at Place) (*Stack, error) {
	var read struct {
		Resources map[string]struct {
			Type           string
			Properties     map[string]any
			DeletionPolicy string
		}
	}
	if err := json.Unmarshal(text, &read); err != nil {
		return nil, fmt.Errorf("read the template: %w", err)
	}
	s := &Stack{Place: at, Resources: map[string]Resource{}}
	// Names are given in the template, so that ARNs come first and functions after.
	for id, r := range read.Resources {
		s.Resources[id] = Resource{ID: id, Type: r.Type, DeletionPolicy: r.DeletionPolicy, ARN: at.arn(id, r.Type, r.Properties), Properties: r.Properties}
	}
	for id, r := range s.Resources {
		r.Properties, _ = s.resolve(r.Properties).(map[string]any)
		r.Tags = map[string]string{}
		for _, t := range list(r.Properties["Tags"]) {
			r.Tags[field(t, "Key")] = field(t, "Value")
		}
		s.Resources[id] = r
	}
	return s, nil
}

// arn is what AWS calls a resource whose name the template gives; what AWS names itself, has its id in the template, which is as good.
func (at Place) arn(id, kind string, properties map[string]any) string {
	name := func(key string) string { text, _ := properties[key].(string); return text }
	regional := func(service, resource string) string {
		return "arn:aws:" + service + ":" + at.Region + ":" + at.Account + ":" + resource
	}
	switch kind {
	case "AWS::IAM::Role":
		return "arn:aws:iam::" + at.Account + ":role" + name("Path") + name("RoleName")
	case "AWS::IAM::ManagedPolicy":
		return "arn:aws:iam::" + at.Account + ":policy" + name("Path") + name("ManagedPolicyName")
	case "AWS::S3::Bucket":
		return "arn:aws:s3:::" + name("BucketName")
	case "AWS::SQS::Queue":
		return regional("sqs", name("QueueName"))
	case "AWS::SecretsManager::Secret":
		return regional("secretsmanager", "secret:"+name("Name")+"-AbCdEf")
	case "AWS::KMS::Key":
		tenant := ""
		for _, t := range list(properties["Tags"]) {
			if field(t, "Key") == "tenant" {
				tenant = "-of-" + field(t, "Value")
			}
		}
		return regional("kms", "key/"+strings.ToLower(id)+tenant)
	case "AWS::Logs::LogGroup":
		return regional("logs", "log-group:"+name("LogGroupName"))
	default:
		return ""
	}
}

// resolve puts in the place of functions what they come out as.
func (s *Stack) resolve(v any) any { return intrinsic.Resolve(v, s.function) }

func (s *Stack) function(name string, argument any) (any, bool) {
	switch name {
	case "Ref":
		id, _ := argument.(string)
		if r := s.Resources[id]; slices.Contains([]string{"AWS::SecretsManager::Secret", "AWS::KMS::Key", "AWS::IAM::ManagedPolicy"}, r.Type) {
			return r.ARN, true
		}
		return id, true
	case "Fn::GetAtt":
		parts := list(argument)
		return s.attribute(fmt.Sprint(parts[0]), fmt.Sprint(parts[1])), true
	case "Fn::ImportValue":
		return fmt.Sprint("import ", argument), true
	case "Fn::Sub":
		return mentioned.ReplaceAllStringFunc(fmt.Sprint(argument), func(text string) string {
			part := mentioned.FindStringSubmatch(text)
			if _, is := s.Resources[part[1]]; !is {
				return text
			}
			return s.attribute(part[1], part[2])
		}), true
	case "Fn::Join":
		parts := list(argument)
		var out []string
		for _, p := range list(s.resolve(parts[1])) {
			out = append(out, fmt.Sprint(p))
		}
		return strings.Join(out, fmt.Sprint(parts[0])), true
	case "Fn::Select", "Fn::GetAZs":
		return name, true
	default:
		return nil, false
	}
}

// mentioned is an attribute of a resource within a text.
var mentioned = regexp.MustCompile(`\$\{(\w+)\.(\w+)\}`)

// attribute is an ARN where it is known; any other has a name of its own.
func (s *Stack) attribute(id, name string) string {
	if r := s.Resources[id]; r.ARN != "" && name == "Arn" {
		return r.ARN
	}
	return id + "." + name
}

// of are the resources of a type, in the order of their ids.
func (s *Stack) of(kind string) []Resource {
	var out []Resource
	for _, id := range slices.Sorted(maps.Keys(s.Resources)) {
		if s.Resources[id].Type == kind {
			out = append(out, s.Resources[id])
		}
	}
	return out
}

// list is a value that may stand alone where many may.
func list(v any) []any {
	switch v := v.(type) {
	case nil:
		return nil
	case []any:
		return v
	default:
		return []any{v}
	}
}

func field(v any, name string) string {
	m, _ := v.(map[string]any)
	text, _ := m[name].(string)
	return text
}

// at walks into a value by names.
func at(v any, names ...string) any {
	for _, n := range names {
		m, _ := v.(map[string]any)
		v = m[n]
	}
	return v
}
