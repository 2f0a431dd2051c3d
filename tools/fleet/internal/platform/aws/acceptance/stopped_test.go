package acceptance_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	kmstypes "github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"a3os.app/libs/ministacktest"
	"a3os.app/tools/fleet/internal/platform/aws/acceptance"
)

// door stands before the emulator, which makes each change in no time, and has what AWS takes its time for take some: the change of a stack that is there is under way
// for a while, in which CloudFormation refuses to delete it; and so is the making of one, where a test says so, which has no key before. Nor does KMS, as there, take a key that waits for its deletion for one to delete.
type door struct {
	*ministacktest.Server
	to *ministacktest.Server
	// watch is told of each call once the emulator has done it, and may answer it; refuse before that.
	watch, refuse func(w http.ResponseWriter, c call) bool

	mu    sync.Mutex
	calls map[string]int
	// underWay is what a stack is once more said to be; made are the stacks that are there. The slow-th change is slow, also where it makes a stack.
	underWay map[string]string
	made     map[string]bool
	slow     int
}

// call is one that the door saw. What it does the emulator has done by then; watch may answer it in the emulator's place.
type call struct {
	// of is the stack or the key that it is about, key the caller's.
	operation, of, key string
	nth                int
	form               url.Values
	answer             *httptest.ResponseRecorder
}

func before(t *testing.T, server *ministacktest.Server, watch func(w http.ResponseWriter, c call) bool) *door {
	t.Helper()
	d := &door{to: server, watch: watch, calls: map[string]int{}, underWay: map[string]string{}, made: map[string]bool{}}
	d.Server = server.Behind(t, d.answers)
	return d
}

var keyOfCaller = regexp.MustCompile(`Credential=([^/]+)/[^/]+/[^/]+/([^/]+)/`)

// answers is for ministacktest's Behind. A call goes on to the emulator whether who made it still listens or not, as one does that was cut off.
func (d *door) answers(w http.ResponseWriter, r *http.Request) bool {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return false
	}
	form, _ := url.ParseQuery(string(body))
	who := append(keyOfCaller.FindStringSubmatch(r.Header.Get("Authorization")), "", "", "")
	c := call{operation: form.Get("Action"), of: form.Get("StackName"), key: who[1], form: form}
	if _, name, is := strings.Cut(r.Header.Get("X-Amz-Target"), "."); is {
		var about struct{ KeyId string } //nolint:revive // as KMS spells it
		_ = json.Unmarshal(body, &about)
		c.operation, c.of = name, about.KeyId
	} else if c.operation == "" {
		c.operation = who[2] + " " + r.Method + " " + strings.TrimSuffix(r.URL.RawQuery, "=")
	}
	d.mu.Lock()
	d.calls[c.operation]++
	c.nth = d.calls[c.operation]
	d.mu.Unlock()
	if d.isUnderWay(w, c) || d.isGivenUp(r.Context(), w, c) || d.refuse != nil && d.refuse(w, c) {
		return true
	}
	c.answer = d.forward(r, body)
	d.mu.Lock()
	if c.operation == "ExecuteChangeSet" && c.answer.Code == http.StatusOK {
		switch {
		case d.made[c.of]:
			d.underWay[c.of] = "UPDATE_IN_PROGRESS"
		case c.nth == d.slow:
			d.underWay[c.of] = "CREATE_IN_PROGRESS"
		}
		d.made[c.of] = true
	}
	d.mu.Unlock()
	if d.watch != nil && d.watch(w, c) {
		return true
	}
	for name, values := range c.answer.Header() {
		w.Header()[name] = values
	}
	w.WriteHeader(c.answer.Code)
	_, _ = w.Write(c.answer.Body.Bytes())
	return true
}

// isUnderWay answers as CloudFormation does for a stack that is changed.
func (d *door) isUnderWay(w http.ResponseWriter, c call) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	is := d.underWay[c.of]
	if is == "" {
		return false
	}
	switch c.operation {
	case "DescribeStacks":
		delete(d.underWay, c.of)
		w.Header().Set("Content-Type", "text/xml")
		_, _ = fmt.Fprintf(w, `<DescribeStacksResponse><DescribeStacksResult><Stacks><member><StackName>%s</StackName><CreationTime>2026-01-01T00:00:00Z</CreationTime><StackStatus>%s</StackStatus></member></Stacks></DescribeStacksResult></DescribeStacksResponse>`, c.of, is)
	case "DeleteStack":
		refuse(w, http.StatusBadRequest, "ValidationError", "Stack ["+c.of+"] cannot be deleted while in status "+is)
	case "DescribeStackResource":
		refuse(w, http.StatusBadRequest, "ValidationError", "Resource Key does not exist for stack "+c.of)
	default:
		return false
	}
	return true
}

// isGivenUp answers as KMS does for a key that waits for its deletion.
func (d *door) isGivenUp(ctx context.Context, w http.ResponseWriter, c call) bool {
	if c.operation != "ScheduleKeyDeletion" {
		return false
	}
	is, err := kms.NewFromConfig(d.to.Root()).DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: &c.of})
	if err != nil || is.KeyMetadata.KeyState != kmstypes.KeyStatePendingDeletion {
		return false
	}
	refuse(w, http.StatusBadRequest, "KMSInvalidStateException", c.of+" is pending deletion.")
	return true
}

// refuse answers as services of AWS do, in each of their languages.
func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("X-Amzn-Errortype", code)
	w.Header().Set("Content-Type", "text/xml")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, `<ErrorResponse><Error><Type>Sender</Type><Code>%s</Code><Message>%s</Message></Error></ErrorResponse>`, code, message)
}

func (d *door) forward(r *http.Request, body []byte) *httptest.ResponseRecorder {
	out := httptest.NewRecorder()
	on, err := http.NewRequestWithContext(context.WithoutCancel(r.Context()), r.Method, d.to.URL+r.URL.RequestURI(), bytes.NewReader(body))
	if err != nil {
		out.Code = http.StatusInternalServerError
		return out
	}
	on.Header, on.Host = r.Header, r.Host
	res, err := http.DefaultTransport.RoundTrip(on)
	if err != nil {
		out.Code = http.StatusBadGateway
		return out
	}
	defer res.Body.Close()
	for name, values := range res.Header {
		out.Header()[name] = values
	}
	out.Code = res.StatusCode
	_, _ = io.Copy(out.Body, res.Body)
	return out
}

// left are all that costs and that has a run's names or tags, as root sees it.
func left(t *testing.T, server *ministacktest.Server) (out []string) {
	t.Helper()
	out = stacks(t, server)
	buckets, err := s3.NewFromConfig(server.Root(), func(o *s3.Options) { o.UsePathStyle = true }).ListBuckets(t.Context(), &s3.ListBucketsInput{})
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range buckets.Buckets {
		out = append(out, *b.Name)
	}
	roles, err := iam.NewFromConfig(server.Root()).ListRoles(t.Context(), &iam.ListRolesInput{})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range roles.Roles {
		if *r.Path != "/" {
			out = append(out, *r.RoleName)
		}
	}
	return append(out, keys(t, server)...)
}

// keys are those that nobody gave up.
func keys(t *testing.T, server *ministacktest.Server) (out []string) {
	t.Helper()
	client := kms.NewFromConfig(server.Root())
	listed, err := client.ListKeys(t.Context(), &kms.ListKeysInput{})
	if err != nil || listed.Truncated {
		t.Fatal(err)
	}
	for _, k := range listed.Keys {
		is, err := client.DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: k.KeyId})
		if err != nil {
			t.Fatal(err)
		}
		if is.KeyMetadata.KeyState != kmstypes.KeyStatePendingDeletion && is.KeyMetadata.KeyManager == kmstypes.KeyManagerTypeCustomer {
			out = append(out, *k.KeyId)
		}
	}
	return out
}

// Whoever stops a run, at whichever point, leaves nothing: a change that is under way is waited for, a stack of which nothing but a plan is goes, and keys are given up.
func TestStoppedRunLeavesNothing(t *testing.T) {
	server := ministacktest.Start(t)
	for _, at := range []struct {
		operation string
		nth       int
	}{
		{"CreateChangeSet", 1}, {"ExecuteChangeSet", 1}, {"ExecuteChangeSet", 2}, {"AssumeRole", 1}, {"AssumeRole", 2}, {"CreateChangeSet", 3}, {"ExecuteChangeSet", 4}, {"ExecuteChangeSet", 5},
		{"UpdateAssumeRolePolicy", 1}, {"ListRoles", 1}, {"DetectStackDrift", 1}, {"s3 DELETE policy", 1}, {"DeleteRolePermissionsBoundary", 1},
	} {
		t.Run(fmt.Sprint(at.operation, at.nth), func(t *testing.T) {
			ctx, stop := context.WithCancelCause(t.Context())
			stopped := errors.New("somebody stopped it")
			d := before(t, server, func(_ http.ResponseWriter, c call) bool {
				if c.operation == at.operation && c.nth == at.nth {
					stop(stopped)
				}
				return false
			})
			if at.operation == "ExecuteChangeSet" {
				d.slow = at.nth
			}
			if late := false; at.operation == "ListRoles" {
				// A change that begins after everybody looked, as one whose call was cut off may.
				d.refuse = func(w http.ResponseWriter, c call) bool {
					if c.operation != "DeleteStack" || late {
						return false
					}
					late = true
					refuse(w, http.StatusBadRequest, "ValidationError", "Stack ["+c.of+"] cannot be deleted while in status UPDATE_IN_PROGRESS")
					return true
				}
			}
			o, out := options(t, server)
			o.Config, o.Yes = d.As(o.Config), ministacktest.Account
			err := acceptance.Run(ctx, o)
			if ctx.Err() == nil {
				t.Fatalf("it was never at this point: %v\n%s", err, out)
			}
			if !errors.Is(err, stopped) || strings.Contains(err.Error(), "left") {
				t.Errorf("it ends with %v", err)
			}
			if !strings.Contains(out.String(), "removed: nothing is left") || strings.Contains(out.String(), "FAILED  to remove") {
				t.Errorf("it says %s", out)
			}
			if is := left(t, server); len(is) > 0 {
				t.Fatalf("%q are left\n%s", is, out)
			}
		})
	}
}

// A run whose session ends in the midst of it, as one that is killed, leaves what it made, and names it with the command that removes it. The next run makes nothing, and names
// that command as well, which removes it all, once the account's number is typed: also what somebody took away in part by hand.
func TestWhatAKilledRunLeftIsRemoved(t *testing.T) {
	server := ministacktest.Start(t)
	for _, until := range []int{1, 2, 4} {
		over := false
		d := before(t, server, func(w http.ResponseWriter, c call) bool {
			if over = over || c.operation == "ExecuteChangeSet" && c.nth == until; over {
				refuse(w, http.StatusForbidden, "ExpiredToken", "The security token included in the request is expired")
			}
			return over
		})
		o, out := options(t, server)
		o.Yes = ministacktest.Account
		killed := o
		killed.Config = d.As(o.Config)
		err := acceptance.Run(t.Context(), killed)
		const command = "fleet aws acceptance --remove --region " + ministacktest.Region
		made := stacks(t, server)
		for _, want := range append(made, command) {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("what is left is told without %s: %v\n%s", want, err, out)
			}
		}
		if len(made) == 0 || !strings.Contains(out.String(), command) {
			t.Fatalf("%q were made; it said %s", made, out)
		}
		there := left(t, server)
		err = acceptance.Run(t.Context(), o)
		for _, want := range append(stacks(t, server), command, "nothing was made") {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("the next run says nothing of %s: %v", want, err)
			}
		}
		for yes, want := range map[string]string{"": "consent beforehand", "210987654321": "--yes is for account 210987654321"} {
			o := o
			o.Yes = yes
			if err := acceptance.Remove(t.Context(), o); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "nothing was removed") {
				t.Errorf("without consent: %v, want %q", err, want)
			}
		}
		if is := left(t, server); !slices.Equal(is, there) {
			t.Fatalf("there were %q, and without consent there are %q", there, is)
		}
		// Its key and its bucket outlive a stack that somebody deletes by hand.
		switch until {
		case 1:
			deleteByHand(t, server, "a3-accept-plane")
		case 4:
			deleteByHand(t, server, made[slices.IndexFunc(made, func(name string) bool { return strings.Contains(name, "-tnt-") })])
		}
		out.Reset()
		if err := acceptance.Remove(t.Context(), o); err != nil || !strings.Contains(out.String(), "removed: nothing is left") {
			t.Errorf("it is removed: %v\n%s", err, out)
		}
		if is := left(t, server); len(is) > 0 {
			t.Fatalf("%q are left\n%s", is, out)
		}
		out.Reset()
		if err := acceptance.Remove(t.Context(), o); err != nil || !strings.Contains(out.String(), "Nothing of a run is there") {
			t.Errorf("where nothing is there: %v\n%s", err, out)
		}
	}
}

func deleteByHand(t *testing.T, server *ministacktest.Server, name string) {
	t.Helper()
	client := cloudformation.NewFromConfig(server.Root())
	_, err := client.UpdateTerminationProtection(t.Context(), &cloudformation.UpdateTerminationProtectionInput{StackName: &name, EnableTerminationProtection: sdk.Bool(false)})
	if err == nil {
		_, err = client.DeleteStack(t.Context(), &cloudformation.DeleteStackInput{StackName: &name})
	}
	if err == nil {
		err = cloudformation.NewStackDeleteCompleteWaiter(client).Wait(t.Context(), &cloudformation.DescribeStacksInput{StackName: &name}, time.Minute)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// What can't be removed is named, each by its name, and what the rest of it stands on stays with it: the plane's stack for what is a tenant's, whose key nobody else gives up.
func TestWhatCanNotBeRemovedIsNamed(t *testing.T) {
	server := ministacktest.Start(t)
	for operation, kind := range map[string]string{"DeleteStack": "stack", "ScheduleKeyDeletion": "key"} {
		refused := ""
		d := before(t, server, nil)
		d.refuse = func(w http.ResponseWriter, c call) bool {
			if c.operation == operation && (refused == "" || refused == c.of) {
				refused = c.of
				refuse(w, http.StatusForbidden, "AccessDeniedException", "not authorized")
				return true
			}
			return false
		}
		o, out := options(t, server)
		o.Yes, o.Patience = ministacktest.Account, time.Second
		behind := o
		behind.Config = d.As(o.Config)
		err := acceptance.Run(t.Context(), behind)
		for _, want := range []string{kind + " " + refused + " is left: ", "stack a3-accept-plane is left: it stays", "remove it with fleet aws acceptance --remove"} {
			if err == nil || refused == "" || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: what is left is told without %q: %v\n%s", operation, want, err, out)
			}
		}
		if there := stacks(t, server); !slices.Contains(there, "a3-accept-plane") || strings.Contains(out.String(), "nothing is left") {
			t.Errorf("%s: %q are left, and it says %s", operation, there, out)
		}
		if err := acceptance.Remove(t.Context(), o); err != nil {
			t.Error(err)
		}
		if is := left(t, server); len(is) > 0 {
			t.Fatalf("%q are left\n%s", is, out)
		}
	}
}

// Where a stack can't be made CloudFormation takes it back with its key. The run fails by that alone, for nothing is left.
func TestStackThatCanNotBeMadeLeavesNothing(t *testing.T) {
	server := ministacktest.Start(t)
	for name, of := range map[string]string{"the plane's": "What stacks are tried on", "a tenant's": "of tenant tnt_"} {
		o, out := options(t, server)
		o.Yes = ministacktest.Account
		emulated := o.Emulated
		o.Emulated = func(text []byte) ([]byte, error) {
			text, err := emulated(text)
			var template map[string]any
			if err = errors.Join(err, json.Unmarshal(text, &template)); err != nil || !strings.Contains(fmt.Sprint(template["Description"]), of) {
				return text, err
			}
			resources := template["Resources"].(map[string]any)
			// As RetainExceptOnCreate has it, which the emulator doesn't know.
			resources["Key"].(map[string]any)["DeletionPolicy"] = "Delete"
			resources["Broken"] = map[string]any{"Type": "AWS::IAM::Role", "DependsOn": "Key", "Properties": map[string]any{"AssumeRolePolicyDocument": map[string]any{
				"Statement": []any{map[string]any{"Effect": "Allow", "NotPrincipal": map[string]string{"AWS": "*"}, "Action": "sts:AssumeRole"}}}}}
			return json.Marshal(template)
		}
		o.Config = before(t, server, func(w http.ResponseWriter, c call) bool { return namesItsKey(t, server, w, c) }).As(o.Config)
		err := acceptance.Run(t.Context(), o)
		if err == nil || !strings.Contains(err.Error(), "nothing else can be") || strings.Contains(err.Error(), "left") {
			t.Errorf("%s: it ends with %v\n%s", name, err, out)
		}
		if !strings.Contains(out.String(), "removed: nothing is left") {
			t.Errorf("%s: it says %s", name, out)
		}
		if is := left(t, server); len(is) > 0 {
			t.Fatalf("%s: %q are left\n%s", name, is, out)
		}
	}
}

// namesItsKey answers as CloudFormation does for a stack that it took back: it still names the key that it deleted.
func namesItsKey(t *testing.T, server *ministacktest.Server, w http.ResponseWriter, c call) bool {
	t.Helper()
	if c.operation != "DescribeStackResource" || c.answer.Code == http.StatusOK {
		return false
	}
	client := kms.NewFromConfig(server.Root())
	listed, err := client.ListKeys(t.Context(), &kms.ListKeysInput{})
	if err != nil {
		t.Error(err)
		return false
	}
	for _, k := range listed.Keys {
		tags, err := client.ListResourceTags(t.Context(), &kms.ListResourceTagsInput{KeyId: k.KeyId})
		if err != nil {
			t.Error(err)
			return false
		}
		of := "plane"
		for _, tag := range tags.Tags {
			if *tag.TagKey == "tenant" {
				of = strings.ReplaceAll(*tag.TagValue, "_", "-")
			}
		}
		if strings.HasSuffix(c.of, "-"+of) {
			w.Header().Set("Content-Type", "text/xml")
			_, _ = fmt.Fprintf(w, `<DescribeStackResourceResponse><DescribeStackResourceResult><StackResourceDetail><LogicalResourceId>Key</LogicalResourceId><PhysicalResourceId>%s</PhysicalResourceId><ResourceStatus>DELETE_COMPLETE</ResourceStatus></StackResourceDetail></DescribeStackResourceResult></DescribeStackResourceResponse>`, *k.KeyId)
			return true
		}
	}
	return false
}

// CloudFormation deletes a stack in the session that asked for it, and can't renew it: each deletion begins in one that was just taken, where the one before wouldn't last. The roles
// of the run are taken for an hour, which is as long as AWS lets them be.
func TestStacksAreDeletedInSessionsThatLast(t *testing.T) {
	server := ministacktest.Start(t)
	by, deleted := map[string]string{}, 0
	d := before(t, server, func(_ http.ResponseWriter, c call) bool {
		switch c.operation {
		case "AssumeRole":
			if c.form.Get("Policy") == "" && c.form.Get("DurationSeconds") != "3600" {
				t.Errorf("%s is taken for %q seconds", c.form.Get("RoleArn"), c.form.Get("DurationSeconds"))
			}
			// It was taken a while ago.
			ends := regexp.MustCompile(`<Expiration>[^<]*<`).ReplaceAllString(c.answer.Body.String(), "<Expiration>"+time.Now().Add(20*time.Minute).UTC().Format(time.RFC3339)+"<")
			c.answer.Body = bytes.NewBufferString(ends)
			c.answer.Header().Del("Content-Length")
		case "UpdateTerminationProtection":
			by[c.of] = c.key
		case "DeleteStack":
			if deleted++; by[c.of] == "" || by[c.of] == c.key {
				t.Errorf("stack %s is deleted in the session that had it be deletable", c.of)
			}
		}
		return false
	})
	o, out := options(t, server)
	first := d.As(o.Config).Credentials
	o.Config = d.As(o.Config)
	o.Config.Credentials = sdk.NewCredentialsCache(sdk.CredentialsProviderFunc(func(ctx context.Context) (sdk.Credentials, error) {
		keys, err := first.Retrieve(ctx)
		keys.CanExpire, keys.Expires = true, time.Now().Add(20*time.Minute)
		again, _ := options(t, server)
		first = again.Config.Credentials
		return keys, err
	}))
	o.Yes = ministacktest.Account
	if err := acceptance.Run(t.Context(), o); strings.Contains(fmt.Sprint(err), "left") || deleted != 4 {
		t.Errorf("%d stacks were deleted, and it ends with %v\n%s", deleted, err, out)
	}
}

// Where nobody reads any more what it says, as after a connection broke that was no terminal's, nobody knows that it goes on: it stops, and removes what it made.
func TestRunThatNobodyReadsStops(t *testing.T) {
	server := ministacktest.Start(t)
	o, out := options(t, server)
	o.Yes, o.Out = ministacktest.Account, closing{out, "STS takes"}
	err := acceptance.Run(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), "nobody reads") || !strings.Contains(err.Error(), io.ErrClosedPipe.Error()) || strings.Contains(err.Error(), "not proven") {
		t.Errorf("it ends with %v\n%s", err, out)
	}
	if is := left(t, server); len(is) > 0 {
		t.Errorf("%q are left\n%s", is, out)
	}
}

// closing is a pipe whose other end is closed once something was said.
type closing struct {
	to   *bytes.Buffer
	once string
}

func (c closing) Write(p []byte) (int, error) {
	if strings.Contains(c.to.String(), c.once) {
		return 0, io.ErrClosedPipe
	}
	return c.to.Write(p)
}
