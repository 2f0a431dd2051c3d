package changeset_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation/types"

	"a3os.app/libs/id"
	"a3os.app/tools/fleet/internal/platform/aws/awstest"
	"a3os.app/tools/fleet/internal/platform/aws/changeset"
)

// Who is killed over a change leaves it under way, and a stack that is made unprotected. The next one waits for its end, has nothing to change, and
// protects the stack.
func TestChangeThatWasBegunIsWaitedForAndItsStackProtected(t *testing.T) {
	server, d := awstest.Account(t)
	tenant := id.NewTenant()
	name, template := awstest.Place.StackOf(tenant.String()), awstest.Tenant(t, tenant, false)
	p, err := d.Make(t.Context(), name, template, awstest.Parameters)
	if err != nil {
		t.Fatal(err)
	}
	client := cloudformation.NewFromConfig(server.Root())
	is := func() types.Stack {
		t.Helper()
		out, err := client.DescribeStacks(t.Context(), &cloudformation.DescribeStacksInput{StackName: &name})
		if err != nil {
			t.Fatal(err)
		}
		return out.Stacks[0]
	}
	if _, err := client.ExecuteChangeSet(t.Context(), &cloudformation.ExecuteChangeSetInput{ChangeSetName: &p.ID, StackName: &name}); err != nil {
		t.Fatal(err)
	}
	underWay := &unfinished{stack: name, left: 2}
	d, err = changeset.Open(t.Context(), server.Behind(t, underWay.answers).As(server.Root()), awstest.Where, awstest.Place.Templates())
	if err != nil {
		t.Fatal(err)
	}
	again, err := d.Make(t.Context(), name, template, awstest.Parameters)
	if err != nil || again.ID != "" || !again.Unprotected {
		t.Fatalf("planned beside a change that was under way: %+v, %v", again, err)
	}
	if now := is(); now.StackStatus != types.StackStatusCreateComplete || sdk.ToBool(now.EnableTerminationProtection) {
		t.Errorf("before it is protected the stack is %s, protected %v", now.StackStatus, sdk.ToBool(now.EnableTerminationProtection))
	}
	if underWay.left > 0 {
		t.Errorf("nobody looked whether a change is under way: %d answers are left", underWay.left)
	}
	if err := d.Execute(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	policy, err := client.GetStackPolicy(t.Context(), &cloudformation.GetStackPolicyInput{StackName: &name})
	if err != nil || !strings.Contains(sdk.ToString(policy.StackPolicyBody), "Deny") || !sdk.ToBool(is().EnableTerminationProtection) {
		t.Errorf("the stack is protected %v by the policy %q: %v", sdk.ToBool(is().EnableTerminationProtection), sdk.ToString(policy.StackPolicyBody), err)
	}
	if last, err := d.Make(t.Context(), name, template, awstest.Parameters); err != nil || last.ID != "" || last.Unprotected {
		t.Errorf("there is something left to do: %+v, %v", last, err)
	}
}

// unfinished answers for a while as CloudFormation does while a stack is made, which takes the emulator no time: it says so, and plans nothing.
type unfinished struct {
	stack string
	left  int
}

func (u *unfinished) answers(w http.ResponseWriter, r *http.Request) bool {
	body, err := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	form, formErr := url.ParseQuery(string(body))
	if err != nil || formErr != nil || u.left == 0 || form.Get("StackName") != u.stack {
		return false
	}
	w.Header().Set("Content-Type", "text/xml")
	switch form.Get("Action") {
	case "DescribeStacks":
		u.left--
		_, _ = fmt.Fprintf(w, `<DescribeStacksResponse xmlns="http://cloudformation.amazonaws.com/doc/2010-05-15/"><DescribeStacksResult><Stacks><member><StackName>%s</StackName><CreationTime>2026-01-01T00:00:00Z</CreationTime><StackStatus>CREATE_IN_PROGRESS</StackStatus></member></Stacks></DescribeStacksResult></DescribeStacksResponse>`, u.stack)
	case "CreateChangeSet":
		w.WriteHeader(http.StatusBadRequest)
		_, _ = fmt.Fprintf(w, `<ErrorResponse xmlns="http://cloudformation.amazonaws.com/doc/2010-05-15/"><Error><Type>Sender</Type><Code>ValidationError</Code><Message>Stack:%s is in CREATE_IN_PROGRESS state and can not be updated.</Message></Error></ErrorResponse>`, u.stack)
	default:
		return false
	}
	return true
}

// A stack whose last change could not be taken back is taken back once more before it is changed, and where that doesn't help it is said what does. One that
// is to be deleted needs no help.
func TestStackThatCouldNotBeTakenBackIsHelpedOrNamed(t *testing.T) {
	server, d := awstest.Account(t)
	tenant := id.NewTenant()
	name, template := awstest.Place.StackOf(tenant.String()), awstest.Tenant(t, tenant, false)
	awstest.Change(t, d, name, template, awstest.Parameters)
	for helps, want := range map[bool]string{true: "", false: "aws cloudformation continue-update-rollback --stack-name " + name + " --resources-to-skip"} {
		stuck := &awstest.Stuck{Stack: name, Helps: helps}
		cfg := server.Behind(t, stuck.Answers).As(server.Root())
		d, err := changeset.Open(t.Context(), cfg, awstest.Where, awstest.Place.Templates())
		if err != nil {
			t.Fatal(err)
		}
		is, err := changeset.Settled(t.Context(), cloudformation.NewFromConfig(cfg), name)
		if err != nil || is.StackStatus != types.StackStatusUpdateRollbackFailed {
			t.Fatalf("it is %v, %v", is, err)
		}
		p, err := d.Make(t.Context(), name, template, awstest.Parameters)
		if helps && (err != nil || p.ID != "") || !helps && (!errors.Is(err, changeset.ErrStuck) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "[Database]")) {
			t.Errorf("where to go on helps (%t) its change is planned as %v, %v", helps, p, err)
		}
		if stuck.Continued != 1 {
			t.Errorf("it was gone on with %d times", stuck.Continued)
		}
	}
}

// A stack whose first making failed holds nothing: who makes it deletes it and makes it, and nobody else does. One that could not even be taken back is somebody's to look at.
func TestStackThatWasNeverWholeIsMadeAnew(t *testing.T) {
	server, _ := awstest.Account(t)
	tenant := id.NewTenant()
	name, template := awstest.Place.StackOf(tenant.String()), awstest.Tenant(t, tenant, false)
	for status, deleted := range map[types.StackStatus]int{types.StackStatusRollbackComplete: 1, types.StackStatusRollbackFailed: 0, types.StackStatusCreateFailed: 0} {
		left := &failed{stack: name, status: status}
		cfg := server.Behind(t, left.answers).As(server.Root())
		client := cloudformation.NewFromConfig(cfg)
		if is, err := changeset.Changeable(t.Context(), client, name); !errors.Is(err, changeset.ErrStuck) || left.deleted != 0 {
			t.Errorf("%s: who changes it is told %v, %v, and it was deleted %d times", status, is, err, left.deleted)
		}
		is, err := changeset.Makeable(t.Context(), client, name)
		if left.deleted != deleted || is != nil || (err == nil) != (deleted == 1) || err != nil && !errors.Is(err, changeset.ErrStuck) {
			t.Errorf("%s: it was deleted %d times, and is %v, %v", status, left.deleted, is, err)
		}
		if deleted == 0 {
			continue
		}
		d, err := changeset.Open(t.Context(), cfg, awstest.Where, awstest.Place.Templates())
		if err != nil {
			t.Fatal(err)
		}
		awstest.Change(t, d, name, template, awstest.Parameters)
	}
}

// failed answers for one stack as CloudFormation does whose making failed, which the emulator has no status for, until it is deleted.
type failed struct {
	stack   string
	status  types.StackStatus
	deleted int
}

func (f *failed) answers(w http.ResponseWriter, r *http.Request) bool {
	body, err := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	form, formErr := url.ParseQuery(string(body))
	if err != nil || formErr != nil || f.deleted > 0 || form.Get("StackName") != f.stack {
		return false
	}
	w.Header().Set("Content-Type", "text/xml")
	const space = `xmlns="http://cloudformation.amazonaws.com/doc/2010-05-15/"`
	switch form.Get("Action") {
	case "DescribeStacks":
		_, _ = fmt.Fprintf(w, `<DescribeStacksResponse %s><DescribeStacksResult><Stacks><member><StackName>%s</StackName><CreationTime>2026-01-01T00:00:00Z</CreationTime><StackStatus>%s</StackStatus></member></Stacks></DescribeStacksResult></DescribeStacksResponse>`, space, f.stack, f.status)
	case "DeleteStack":
		f.deleted++
		_, _ = fmt.Fprintf(w, `<DeleteStackResponse %s></DeleteStackResponse>`, space)
	default:
		return false
	}
	return true
}

// What changes a stack CloudFormation does in the session that asked for it: one that is about to end is taken anew first, and one that lasts is not.
func TestStackIsChangedInASessionThatLasts(t *testing.T) {
	server, _ := awstest.Account(t)
	for left, want := range map[time.Duration]int{6 * time.Minute: 2, 55 * time.Minute: 1} {
		tenant := id.NewTenant()
		cfg, taken := server.Root(), 0
		root := cfg.Credentials
		cfg.Credentials = sdk.NewCredentialsCache(sdk.CredentialsProviderFunc(func(ctx context.Context) (sdk.Credentials, error) {
			keys, err := root.Retrieve(ctx)
			keys.CanExpire, keys.Expires = true, time.Now().Add(left)
			if taken++; taken > 1 {
				keys.Expires = time.Now().Add(time.Hour)
			}
			return keys, err
		}))
		d, err := changeset.Open(t.Context(), cfg, awstest.Where, awstest.Place.Templates())
		if err != nil {
			t.Fatal(err)
		}
		p, err := d.Make(t.Context(), awstest.Place.StackOf(tenant.String()), awstest.Tenant(t, tenant, false), awstest.Parameters)
		if err != nil || taken != 1 {
			t.Fatalf("a session was taken %d times to plan: %v", taken, err)
		}
		if err := d.Execute(t.Context(), p); err != nil || taken != want {
			t.Errorf("with %s left a session was taken %d times, want %d: %v", left, taken, want, err)
		}
	}
}
