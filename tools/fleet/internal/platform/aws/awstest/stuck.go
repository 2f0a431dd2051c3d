package awstest

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

// Stuck answers for one stack as CloudFormation does after it could not take a change back, for which the emulator has to fail twice: it changes
// nothing, and goes on with that when it is told to, which helps, or not. It stands before the emulator, which answers all else.
type Stuck struct {
	Stack string
	Helps bool
	// Continued is how often it was told to go on.
	Continued int
}

// Answers is for ministacktest's Behind.
func (s *Stuck) Answers(w http.ResponseWriter, r *http.Request) bool {
	body, err := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	form, formErr := url.ParseQuery(string(body))
	if err != nil || formErr != nil || form.Get("StackName") != s.Stack || s.Helps && s.Continued > 0 {
		return false
	}
	w.Header().Set("Content-Type", "text/xml")
	const space = `xmlns="http://cloudformation.amazonaws.com/doc/2010-05-15/"`
	switch form.Get("Action") {
	case "DescribeStacks":
		_, _ = fmt.Fprintf(w, `<DescribeStacksResponse %s><DescribeStacksResult><Stacks><member><StackName>%s</StackName><CreationTime>2026-01-01T00:00:00Z</CreationTime><StackStatus>UPDATE_ROLLBACK_FAILED</StackStatus><StackStatusReason>The following resource(s) failed to update: [Database].</StackStatusReason></member></Stacks></DescribeStacksResult></DescribeStacksResponse>`, space, s.Stack)
	case "ContinueUpdateRollback":
		s.Continued++
		_, _ = fmt.Fprintf(w, `<ContinueUpdateRollbackResponse %s><ContinueUpdateRollbackResult></ContinueUpdateRollbackResult></ContinueUpdateRollbackResponse>`, space)
	case "CreateChangeSet":
		w.WriteHeader(http.StatusBadRequest)
		_, _ = fmt.Fprintf(w, `<ErrorResponse %s><Error><Type>Sender</Type><Code>ValidationError</Code><Message>Stack:%s is in UPDATE_ROLLBACK_FAILED state and can not be updated.</Message></Error></ErrorResponse>`, space, s.Stack)
	default:
		return false
	}
	return true
}
