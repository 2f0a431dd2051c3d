package systemtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/aws/aws-sdk-go-v2/aws"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"google.golang.org/protobuf/proto"

	auditv1 "a3os.app/proto/gen/go/a3os/audit/v1"
	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	"a3os.app/proto/gen/go/a3os/discovery/v1/discoveryv1connect"
	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"
	queuev1 "a3os.app/proto/gen/go/a3os/queue/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/ministacktest"
	"a3os.app/libs/queue"
	"a3os.app/libs/queue/queuetest"
	"a3os.app/libs/queue/sqs"
)

// toldMore puts a script in the place of the plane's one program, which tells a component what a test wrote down for it, and then is that
// program: a platform of this machine has no queue of SQS to tell it of. What runs goes on as it is until it is started again.
func (p *plane) toldMore(t *testing.T) (tell func(component, script string)) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(p.home, "releases", "*", "accessos"))
	if err != nil || len(found) != 1 {
		t.Fatalf("the plane keeps %v: %v", found, err)
	}
	const executable, readable = 0o755, 0o644
	dir, script := filepath.Dir(found[0]), "#!/bin/sh\nif [ -r '%[1]s.'\"$1\" ]; then . '%[1]s.'\"$1\"; fi\nexec '%[1]s.real' \"$@\"\n"
	put := func(name, text string, mode os.FileMode) {
		t.Helper()
		// Each appears whole, for the supervisor may look at any time.
		whole := filepath.Join(dir, "new")
		if err := errors.Join(os.WriteFile(whole, []byte(text), mode), os.Rename(whole, filepath.Join(dir, name))); err != nil { //nolint:gosec // for each user that a service runs as
			t.Fatal(err)
		}
	}
	if err := os.Link(found[0], found[0]+".real"); err != nil {
		t.Fatal(err)
	}
	put("accessos", fmt.Sprintf(script, found[0]), executable)
	return func(component, text string) {
		t.Helper()
		put("accessos."+component, text, readable)
	}
}

// Rows F1 and F2 over SQS, with real processes and real signals: a run whose slices SQS carries, with each service's own role there. The
// worker is killed in the middle, and discovery too, and what is published is what a run over the database's own queue publishes. Rows Q28 and
// Q30, over SQS, see below.
func TestRunOverSQSIsKilledAndPublishesTheSame(t *testing.T) {
	full(t)
	t.Parallel()
	server := ministacktest.Start(t)
	p := planeIn(t, walkable(t), "A3_TENANTS=acme")
	if err := p.up(t.Context()); err != nil {
		t.Fatal(err)
	}
	x := p.tenants["acme"]
	owner := x.admin(t)
	w := x.workspace(t, owner).GetId()
	const rows = 60_000
	content := people(rows)
	calm, killed := owner.upload(t, w, content), owner.upload(t, w, content)
	owner.discover(t, w, calm.GetId())

	x.queueOfSQS(t, server, p.toldMore(t))
	discovery, worker := x.id+"/discovery", x.id+"/discovery-worker"
	for _, process := range []string{discovery, worker} {
		p.restarted(t, process)
	}
	jobs := p.superuser(t, "postgres", x.id)
	count := func(what string) (n int) {
		t.Helper()
		if err := jobs.QueryRow(t.Context(), what).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := count("SELECT count(*) FROM queue.river_job")
	starts, runs := client(owner, w, discoveryv1connect.NewRunWriteServiceClient), client(owner, w, discoveryv1connect.NewRunServiceClient)
	var run *discoveryv1.Run
	within(t, time.Minute, func() error {
		res, err := starts.StartRun(t.Context(), connect.NewRequest(&discoveryv1.StartRunRequest{IntegrationId: killed.GetId()}))
		if err == nil {
			run = res.Msg
		}
		return err
	})
	within(t, time.Minute, func() error {
		if count("SELECT count(*) FROM discovery.staged_grants") == 0 {
			return errors.New("nothing is staged yet")
		}
		return nil
	})
	p.restarted(t, worker)
	p.restarted(t, discovery)
	within(t, 2*time.Minute, func() error {
		now, err := runs.GetRun(t.Context(), connect.NewRequest(&discoveryv1.GetRunRequest{RunId: run.GetId()}))
		if err == nil && now.Msg.GetState() != integrationsv1.RunState_RUN_STATE_COMPLETE {
			err = fmt.Errorf("the run is %s %s", now.Msg.GetState(), now.Msg.GetError())
		}
		return err
	})
	samePublished(t, x, calm.GetId(), killed.GetId())
	if n := count("SELECT count(*) FROM queue.river_job"); n != before {
		t.Errorf("%d jobs went by the database's own queue", n-before)
	}
	if n := count("SELECT max(attempt) FROM queue.sqs_jobs"); n < 2 {
		t.Errorf("no slice was delivered again: nothing was killed in the middle")
	}
	x.refusesOverSQS(t, server)
}

// refusesOverSQS has somebody who may write to the tenant's queue, and for some of it holds the key, put messages there that nobody enqueued.
// Rows Q28 and Q30, over SQS: each is a dead letter with its event, which an admin sees, brings back in no way, and throws away.
func (x *tenant) refusesOverSQS(t *testing.T, server *ministacktest.Server) {
	t.Helper()
	p, root := x.parties(t), awssqs.NewFromConfig(server.Root())
	workspace := id.NewWorkspace()
	raw, err := proto.Marshal(&queuev1.SlicePayload{RunId: id.NewRun().String(), WorkspaceId: id.NewWorkspace().String(), TenantId: x.id})
	if err != nil {
		t.Fatal(err)
	}
	messages := []queue.Message{{Envelope: queuetest.SignBlindly(t, p, workspace, raw), Payload: raw}, p.Message(t)}
	for i, bad := range queuetest.BadMessages(t, p) {
		if (bad.Name == "cut" || bad.Name == "bit flipped") && i%4 > 0 || len(bad.Envelope)+len(bad.Payload) > queue.MostEnvelope {
			continue // libs/queue plays each
		}
		messages = append(messages, queue.Message{Envelope: bad.Envelope, Payload: bad.Payload})
	}
	url := x.queueURL(t, server)
	for _, m := range messages {
		text, err := json.Marshal(map[string]any{"key": id.NewMessage().String(), "envelope": m.Envelope, "payload": m.Payload})
		if err == nil {
			_, err = root.SendMessage(t.Context(), &awssqs.SendMessageInput{QueueUrl: &url, MessageBody: aws.String(string(text))})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	var letters map[int64]*discoveryv1.DeadLetter
	var recorded map[string]*auditv1.Event
	within(t, time.Minute, func() error {
		if letters = x.letters(t); len(letters) < len(messages) {
			return fmt.Errorf("of %d messages %d are dead letters", len(messages), len(letters))
		}
		recorded = x.recordedOf(t, "queue.message.refused")
		for _, l := range letters {
			if recorded[l.GetId()] == nil {
				return fmt.Errorf("that %s was refused is not sealed yet", l.GetId())
			}
		}
		return nil
	})
	admin := client(x.admin(t), "", discoveryv1connect.NewAdminDeadLetterServiceClient)
	for _, l := range letters {
		if l.GetReason() == "" || recorded[l.GetId()].GetOutcome() != auditv1.Outcome_OUTCOME_DENIED {
			t.Errorf("the letter is %v", l)
		}
		if s := refused(t, fault.FailedPrecondition, admin.RetryDeadLetter, &discoveryv1.RetryDeadLetterRequest{DeadLetterId: l.GetId(), Reason: "to see whether it comes back"}); !strings.Contains(s, "can't be retried") {
			t.Errorf("%v comes back: %s", l, s)
		}
		if s := x.plane.tryA3(t, x.slug+"-admin", "dead-letter", "drop", l.GetId(), "--reason", "planted by a test"); s.code != 0 || !strings.Contains(s.out, "dropped") {
			t.Errorf("a3 dead-letter drop: %s", s)
		}
	}
	within(t, time.Minute, func() error {
		if no, gone := len(x.recordedOf(t, "queue.dead_letter.retry_refused")), len(x.recordedOf(t, "queue.dead_letter.dropped")); no < len(letters) || gone < len(letters) {
			return fmt.Errorf("of %d letters the record has %d refusals to retry and %d drops", len(letters), no, gone)
		}
		return nil
	})
	t.Attr("row", "Q28 1")
	t.Attr("row", fmt.Sprintf("Q30 %d", len(letters)-1))
}

// queueURL is where the tenant's queue is.
func (x *tenant) queueURL(t *testing.T, server *ministacktest.Server) string {
	t.Helper()
	out, err := awssqs.NewFromConfig(server.Root()).GetQueueUrl(t.Context(), &awssqs.GetQueueUrlInput{QueueName: aws.String(x.id + "-queue")})
	if err != nil {
		t.Fatal(err)
	}
	return aws.ToString(out.QueueUrl)
}

// queueOfSQS makes the tenant's queue, its mark and the roles that its services call it as, and tells them.
func (x *tenant) queueOfSQS(t *testing.T, server *ministacktest.Server, tell func(component, script string)) {
	t.Helper()
	tenantID, err := id.ParseTenant(x.id)
	if err != nil {
		t.Fatal(err)
	}
	name := x.id + "-queue"
	out, err := awssqs.NewFromConfig(server.Root()).CreateQueue(t.Context(), &awssqs.CreateQueueInput{QueueName: &name})
	if err != nil {
		t.Fatal(err)
	}
	url := aws.ToString(out.QueueUrl)
	if _, err := sqs.Mark(t.Context(), server.Root(), url, x.plane.signer(t), tenantID); err != nil {
		t.Fatal(err)
	}
	for component, actions := range map[string][]string{
		"discovery":        {"sqs:SendMessage", "sqs:ListQueueTags"},
		"discovery-worker": {"sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility", "sqs:ListQueueTags"},
	} {
		role := server.Role(t, x.id+"-"+component, ministacktest.Statement{Effect: "Allow", Action: actions,
			Resource: []string{"arn:aws:sqs:" + ministacktest.Region + ":" + ministacktest.Account + ":" + name}})
		c, err := role.Credentials.Retrieve(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var env strings.Builder
		for variable, value := range map[string]string{
			"A3_QUEUE": url, "AWS_REGION": ministacktest.Region, "AWS_ENDPOINT_URL": server.URL, "AWS_EC2_METADATA_DISABLED": "true",
			"AWS_ACCESS_KEY_ID": c.AccessKeyID, "AWS_SECRET_ACCESS_KEY": c.SecretAccessKey, "AWS_SESSION_TOKEN": c.SessionToken,
		} {
			fmt.Fprintf(&env, "export %s='%s'\n", variable, value)
		}
		tell(component, env.String())
	}
}
