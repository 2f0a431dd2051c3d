package awstest

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// Planned answers for one stack what its change sets do, as CloudFormation describes it, whatever template they are of. None of them is there to be
// carried out. It stands before the emulator, which answers all else.
type Planned struct {
	Stack string
	// Changes are what each change set does.
	Changes []PlannedChange
	// Pages says that each change is a page of its own.
	Pages bool
}

// PlannedChange is the modification of a resource. Cause, where there is one, is what another property's value comes from, as `Key.Arn`, by which the
// whole property Property is to be another.
type PlannedChange struct {
	ID, Type, Replacement                         string
	Property, Recreation, Evaluation, From, Cause string
}

// Answers is for ministacktest's Behind.
func (p *Planned) Answers(w http.ResponseWriter, r *http.Request) bool {
	body, err := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	form, formErr := url.ParseQuery(string(body))
	if err != nil || formErr != nil || form.Get("StackName") != p.Stack {
		return false
	}
	const space = `xmlns="http://cloudformation.amazonaws.com/doc/2010-05-15/"`
	switch form.Get("Action") {
	case "CreateChangeSet":
		w.Header().Set("Content-Type", "text/xml")
		_, _ = fmt.Fprintf(w, `<CreateChangeSetResponse %s><CreateChangeSetResult><Id>arn:aws:cloudformation:eu-central-1:123456789012:changeSet/x/1</Id></CreateChangeSetResult></CreateChangeSetResponse>`, space)
	case "DescribeChangeSet":
		w.Header().Set("Content-Type", "text/xml")
		p.describe(w, form, space)
	default:
		return false
	}
	return true
}

func (p *Planned) describe(w io.Writer, form url.Values, space string) {
	from, upTo, next := 0, len(p.Changes), ""
	if p.Pages {
		_, _ = fmt.Sscan(form.Get("NextToken"), &from)
		if upTo = from + 1; upTo < len(p.Changes) {
			next = fmt.Sprintf("<NextToken>%d</NextToken>", upTo)
		}
	}
	var text strings.Builder
	for _, c := range p.Changes[from:upTo] {
		cause := ""
		if c.Cause != "" {
			cause = "<CausingEntity>" + c.Cause + "</CausingEntity>"
		}
		fmt.Fprintf(&text, `<member><Type>Resource</Type><ResourceChange><Action>Modify</Action><LogicalResourceId>%s</LogicalResourceId><PhysicalResourceId>x</PhysicalResourceId><ResourceType>%s</ResourceType>`+
			`<Replacement>%s</Replacement><Scope><member>Properties</member></Scope><Details><member><Target><Attribute>Properties</Attribute><Name>%s</Name><RequiresRecreation>%s</RequiresRecreation></Target>`+
			`<Evaluation>%s</Evaluation><ChangeSource>%s</ChangeSource>%s</member></Details></ResourceChange></member>`, c.ID, c.Type, c.Replacement, c.Property, c.Recreation, c.Evaluation, c.From, cause)
	}
	_, _ = fmt.Fprintf(w, `<DescribeChangeSetResponse %s><DescribeChangeSetResult><ChangeSetId>%s</ChangeSetId><StackName>%s</StackName>`+
		`<Status>CREATE_COMPLETE</Status><ExecutionStatus>AVAILABLE</ExecutionStatus><Changes>%s</Changes>%s</DescribeChangeSetResult></DescribeChangeSetResponse>`, space, form.Get("ChangeSetName"), p.Stack, text.String(), next)
}

// KeyAndServer are the changes of a set's key and of the server that is encrypted under it, as CloudFormation describes them where a template changes the
// key alone: the server takes the key's ARN, so that it may be another, whatever is changed of the key.
func KeyAndServer(keyReplaced bool) []PlannedChange {
	key := PlannedChange{ID: "Key", Type: "AWS::KMS::Key", Replacement: "False", Property: "KeyPolicy", Recreation: "Never", Evaluation: "Static", From: "DirectModification"}
	if keyReplaced {
		key.Replacement, key.Property, key.Recreation = "True", "KeySpec", "Always"
	}
	return []PlannedChange{
		{ID: "Database", Type: "AWS::RDS::DBInstance", Replacement: "Conditional", Property: "KmsKeyId", Recreation: "Always", Evaluation: "Dynamic", From: "ResourceAttribute", Cause: "Key.Arn"},
		key,
	}
}
