package stack

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	elb "github.com/awslabs/goformation/v7/cloudformation/elasticloadbalancingv2"
	"github.com/awslabs/goformation/v7/cloudformation/rds"
	"github.com/awslabs/goformation/v7/cloudformation/tags"
	"github.com/awslabs/goformation/v7/intrinsics"
)

// Template is a CloudFormation template. Its resources are goformation's types; goformation's own type of a template is not used, since it
// links the types of all of AWS.
type Template struct {
	Version     string               `json:"AWSTemplateFormatVersion"`
	Description string               `json:"Description"`
	Parameters  map[string]Parameter `json:"Parameters,omitempty"`
	Resources   map[string]Resource  `json:"Resources"`
	Outputs     map[string]Output    `json:"Outputs,omitempty"`
}

// Parameter is what a change set says when it is made.
type Parameter struct {
	Type           string  `json:"Type"`
	Description    string  `json:"Description"`
	Default        *string `json:"Default,omitempty"`
	AllowedPattern string  `json:"AllowedPattern,omitempty"`
}

// Output is what a stack tells of itself; one with an Export can be named by other stacks of the account and Region.
type Output struct {
	Description string  `json:"Description,omitempty"`
	Value       string  `json:"Value"`
	Export      *Export `json:"Export,omitempty"`
}

// Export is the name of an output for other stacks.
type Export struct {
	Name string `json:"Name"`
}

// Resource is one resource of a template.
type Resource interface {
	// AWSCloudFormationType is its type, as CloudFormation writes it.
	AWSCloudFormationType() string
}

// JSON writes the template, without spaces, which are half of it. The same stack has the same bytes: names are in order.
func (t *Template) JSON() ([]byte, error) {
	text, err := json.Marshal(t)
	if err != nil {
		return nil, fmt.Errorf("write the template: %w", err)
	}
	// It puts functions in the place of those that function wrote.
	text, err = intrinsics.ProcessJSON(text, nil)
	if err != nil {
		return nil, fmt.Errorf("write the template: %w", err)
	}
	var out bytes.Buffer
	if err := json.Compact(&out, text); err != nil {
		return nil, fmt.Errorf("write the template: %w", err)
	}
	return out.Bytes(), nil
}

// add has a resource be in the template under an id, and answers the id. Two resources of one id are a fault of this package.
func (t *Template) add(id string, r Resource) string {
	if _, twice := t.Resources[id]; twice {
		panic(fmt.Sprintf("stack: two resources are called %s", id))
	}
	t.Resources[id] = r
	return id
}

// finally has resources that are protected from being deleted be made one after the other, when all else is there that doesn't need them: a creation
// that fails CloudFormation takes back, and what it then can't delete is in the way of the next one, by its name.
func (t *Template) finally(protected ...string) error {
	protected = slices.DeleteFunc(protected, func(id string) bool { return t.Resources[id] == nil })
	for i, id := range protected {
		needs, err := t.needs()
		if err != nil {
			return err
		}
		// What needs one that comes later comes later itself.
		later := map[string]bool{}
		for _, p := range protected[i:] {
			later[p] = true
		}
		for grown := true; grown; {
			grown = false
			for of, needed := range needs {
				if !later[of] && slices.ContainsFunc(needed, func(n string) bool { return later[n] }) {
					later[of], grown = true, true
				}
			}
		}
		// The others stand behind those that none of them needs.
		var last []string
		for of := range t.Resources {
			if !later[of] && !slices.Contains(needs[id], of) && !needed(needs, of, func(by string) bool { return !later[by] || by == id }) {
				last = append(last, of)
			}
		}
		slices.Sort(last)
		switch r := t.Resources[id].(type) {
		case *rds.DBInstance:
			r.AWSCloudFormationDependsOn = last
		case *elb.LoadBalancer:
			r.AWSCloudFormationDependsOn = last
		default:
			return fmt.Errorf("%s is a %s, which nobody said how to make last", id, r.AWSCloudFormationType())
		}
	}
	return nil
}

// needed says whether any of some resources needs a resource.
func needed(needs map[string][]string, id string, some func(string) bool) bool {
	for by, all := range needs {
		if some(by) && slices.Contains(all, id) {
			return true
		}
	}
	return false
}

// needs are the resources that each one names: CloudFormation makes those first.
func (t *Template) needs() (map[string][]string, error) {
	text, err := t.JSON()
	if err != nil {
		return nil, err
	}
	var read struct{ Resources map[string]any }
	if err := json.Unmarshal(text, &read); err != nil {
		return nil, fmt.Errorf("read the template: %w", err)
	}
	out := map[string][]string{}
	for id, r := range read.Resources {
		named(r, func(name string) {
			if t.Resources[name] != nil && !slices.Contains(out[id], name) {
				out[id] = append(out[id], name)
			}
		})
	}
	return out, nil
}

// named finds the names that functions are given, and those that a resource waits for.
func named(v any, tell func(name string)) {
	switch v := v.(type) {
	case []any:
		for _, x := range v {
			named(x, tell)
		}
	case map[string]any:
		for key, x := range v {
			named(x, tell)
			switch list, many := x.([]any); {
			case key == "Ref":
				tell(fmt.Sprint(x))
			case key == "Fn::GetAtt" && many:
				tell(fmt.Sprint(list[0]))
			case key == "Fn::Sub":
				for _, part := range strings.Split(fmt.Sprint(x), "${")[1:] {
					name, _, _ := strings.Cut(part, "}")
					name, _, _ = strings.Cut(name, ".")
					tell(name)
				}
			case key == "DependsOn" && many:
				for _, name := range list {
					tell(fmt.Sprint(name))
				}
			case key == "DependsOn":
				tell(fmt.Sprint(x))
			}
		}
	}
}

// parameter has the template ask for a text, and answers its place in texts that fill reads.
func (t *Template) parameter(id, description string, standard *string) string {
	t.Parameters[id] = Parameter{Type: "String", Description: description, Default: standard}
	return "${" + id + "}"
}

// function writes one of CloudFormation's functions as a text, in the form of goformation's: its fields are texts, where CloudFormation
// takes a function as well.
func function(name string, argument any) string {
	text, err := json.Marshal(map[string]any{name: argument})
	if err != nil {
		panic(fmt.Sprintf("stack: write %s: %v", name, err)) // what is passed is texts
	}
	return base64.StdEncoding.EncodeToString(text)
}

func ref(id string) string             { return function("Ref", id) }
func attribute(id, name string) string { return function("Fn::GetAtt", []string{id, name}) }

// imported is an output of the plane's stack.
func (p Place) imported(name string) string { return function("Fn::ImportValue", p.export(name)) }

func (p Place) export(name string) string { return p.cluster() + "-" + name }

// fill has CloudFormation fill in the parameters that a text mentions.
func fill(text string) string {
	if !strings.Contains(text, "${") {
		return text
	}
	return function("Fn::Sub", text)
}

// tagged are the tags of all that is a set's.
func (s *set) tags() []tags.Tag {
	out := []tags.Tag{{Key: "plane", Value: s.place.Plane}}
	if s.tenant != "" {
		out = append(out, tags.Tag{Key: "tenant", Value: s.tenant})
	}
	return out
}

// logical is a name in the form of CloudFormation's ids: `discovery-worker` is DiscoveryWorker.
func logical(parts ...string) string {
	var out strings.Builder
	for _, part := range parts {
		for word := range strings.FieldsFuncSeq(part, func(r rune) bool { return r == '-' || r == '_' }) {
			out.WriteString(strings.ToUpper(word[:1]) + word[1:])
		}
	}
	return out.String()
}
