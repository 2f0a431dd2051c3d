package changeset

import (
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation/types"
)

// fate is whether another takes the place of a resource: not, or as it turns out when the change is carried out, or for certain.
type fate int

const (
	stays fate = iota
	mayGo
	goes
)

// causes are all changes of a change set, by the names of what they change: what becomes of one may follow from another's.
type causes map[string]types.ResourceChange

// of says whether another takes the place of a resource. What takes an attribute of a resource that is modified CloudFormation calls replaced
// conditionally, as the value could be another then; the ARN of what stays, and what a Ref to it answers, never is. With that no change of a key's policy
// is taken for the loss of the server that it encrypts.
// https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_ResourceChange.html
func (c causes) of(id string) fate { return c.follow(id, map[string]bool{}) }

func (c causes) follow(id string, asked map[string]bool) fate {
	r, is := c[id]
	if !is || asked[id] {
		return mayGo
	}
	asked[id] = true
	defer delete(asked, id)
	switch r.Action { //nolint:exhaustive // others change no resource
	case types.ChangeActionModify:
	case types.ChangeActionAdd, types.ChangeActionRemove:
		return goes // for what follows from it: there is another now, or none
	case types.ChangeActionDynamic:
		return mayGo
	default:
		return stays
	}
	switch r.Replacement {
	case types.ReplacementTrue:
		return goes
	case types.ReplacementConditional:
	case types.ReplacementFalse:
		return stays
	default:
		return stays
	}
	if len(r.Details) == 0 {
		return mayGo
	}
	out := stays
	for _, d := range r.Details {
		out = max(out, c.detail(d, asked))
	}
	return out
}

// detail is what follows from one detail of a change that CloudFormation calls conditional.
func (c causes) detail(d types.ResourceChangeDetail, asked map[string]bool) fate {
	if d.Target == nil {
		return mayGo
	}
	if d.Target.RequiresRecreation == types.RequiresRecreationNever || d.Target.Attribute != types.ResourceAttributeProperties {
		return stays // of a property alone something is made anew
	}
	always := d.Target.RequiresRecreation == types.RequiresRecreationAlways
	switch d.ChangeSource { //nolint:exhaustive // of others it isn't known
	case types.ChangeSourceResourceReference, types.ChangeSourceResourceAttribute:
		cause, attribute, _ := strings.Cut(aws.ToString(d.CausingEntity), ".")
		became := c.follow(cause, asked)
		switch {
		case became == stays && (attribute == "" || attribute == "Arn"):
			return stays
		case became == goes && always:
			return goes
		}
		return mayGo
	}
	if always && d.Evaluation == types.EvaluationTypeStatic {
		return goes
	}
	return mayGo
}
