package stack

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
)

// aheadOf are the types of what has to be there before a set's change: a component's secret is filled in then, a program that migrates is run, and what
// carries a mark is marked.
var aheadOf = []string{"AWS::ECS::TaskDefinition", "AWS::S3::Bucket", "AWS::SQS::Queue"}

// custodianID is the role of a set's custodian in its template.
var custodianID = keeperID(Custodian)

// deployedTemplate is a template as it is read back. What it holds is written again as it was read.
type deployedTemplate struct {
	Version     string         `json:"AWSTemplateFormatVersion"`
	Description string         `json:"Description,omitempty"`
	Parameters  map[string]any `json:"Parameters,omitempty"`
	Resources   map[string]any `json:"Resources"`
	Outputs     map[string]any `json:"Outputs,omitempty"`
}

// Ahead is the template that a stack was deployed with, with what the next one has besides: components, of which nothing is to run in next, stores and a
// queue. What there is stays as it is, but that the custodian of the set's stores may put the marks of those that are new, for which the key lets in more, and
// nobody less. It is nil where the next template has nothing of that kind. Errors: that the next one isn't JSON.
func Ahead(deployed, next []byte) ([]byte, error) {
	var is, then deployedTemplate
	if err := json.Unmarshal(next, &then); err != nil {
		return nil, fmt.Errorf("read a stack's template: %w", err)
	}
	if json.Unmarshal(deployed, &is) != nil {
		return nil, nil //nolint:nilerr // it isn't fleet's, and is put right by the next one alone
	}
	ahead := false
	for id, r := range then.Resources {
		if _, there := is.Resources[id]; !there {
			ahead = ahead || slices.Contains(aheadOf, typeOf(r))
		}
	}
	if is.marksLess(then) {
		ahead = true
		for id, policies := range map[string]string{keyID: "KeyPolicy", custodianID: "Policies"} {
			is.widen(then, id, policies)
		}
	}
	if !ahead {
		return nil, nil
	}
	for _, part := range []struct{ is, then *map[string]any }{{&is.Parameters, &then.Parameters}, {&is.Resources, &then.Resources}, {&is.Outputs, &then.Outputs}} {
		all := map[string]any{}
		maps.Copy(all, *part.then)
		maps.Copy(all, *part.is) // what is there stays
		*part.is = all
	}
	text, err := json.Marshal(is)
	if err != nil {
		return nil, fmt.Errorf("write a stack's template: %w", err)
	}
	return text, nil
}

// marksLess says whether the custodian of the next template may put a mark that this one's may not.
func (t deployedTemplate) marksLess(next deployedTemplate) bool {
	var may []string
	for _, p := range listOf(property(t.Resources[custodianID], "Policies")) {
		may = append(may, sids(p)...)
	}
	for _, p := range listOf(property(next.Resources[custodianID], "Policies")) {
		if slices.ContainsFunc(sids(p), func(sid string) bool { return !slices.Contains(may, sid) }) {
			return true
		}
	}
	return false
}

// widen has a policy of a resource that is in both templates say what either says.
func (t deployedTemplate) widen(next deployedTemplate, id, name string) {
	is, there := t.Resources[id].(map[string]any)
	properties, whole := is["Properties"].(map[string]any)
	if !there || !whole {
		return
	}
	properties[name] = both(properties[name], property(next.Resources[id], name))
}

// both is what either of two policies lets in: statements are told apart by their names, and of one that is in both each list has what it has in either.
func both(a, b any) any {
	switch next := b.(type) {
	case nil:
		return a
	case map[string]any:
		is, same := a.(map[string]any)
		if !same {
			return b
		}
		out := maps.Clone(is)
		for name, value := range next {
			out[name] = both(is[name], value)
		}
		return out
	case []any:
		out := slices.Clone(listOf(a))
		for _, x := range next {
			i := slices.IndexFunc(out, func(y any) bool { return reflect.DeepEqual(x, y) || nameOf(x) != "" && nameOf(x) == nameOf(y) })
			if i < 0 {
				out = append(out, x)
			} else {
				out[i] = both(out[i], x)
			}
		}
		return out
	}
	if is, list := a.([]any); list {
		return both(is, []any{b})
	}
	return b
}

// nameOf is what a statement, or a policy of a role, is told apart by; empty for what has no name.
func nameOf(x any) string {
	fields, _ := x.(map[string]any)
	for _, field := range []string{"Sid", "PolicyName"} {
		if name, is := fields[field].(string); is {
			return name
		}
	}
	return ""
}

// sids are the names of the statements of a role's policy.
func sids(policy any) (out []string) {
	fields, _ := policy.(map[string]any)
	document, _ := fields["PolicyDocument"].(map[string]any)
	for _, st := range listOf(document["Statement"]) {
		out = append(out, nameOf(st))
	}
	return out
}

func typeOf(resource any) string {
	fields, _ := resource.(map[string]any)
	of, _ := fields["Type"].(string)
	return of
}

func property(resource any, name string) any {
	fields, _ := resource.(map[string]any)
	properties, _ := fields["Properties"].(map[string]any)
	return properties[name]
}

// listOf is a list, one of one where it is a text, or none.
func listOf(x any) []any {
	switch x := x.(type) {
	case []any:
		return x
	case nil:
		return nil
	}
	return []any{x}
}
