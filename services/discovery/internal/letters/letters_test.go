package letters_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	auditv1 "a3os.app/proto/gen/go/a3os/audit/v1"
	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/queue"
	queuepg "a3os.app/libs/queue/postgres"
	"a3os.app/libs/queue/queuetest"
	"a3os.app/libs/queue/sqs"
	"a3os.app/libs/scope"
	"a3os.app/libs/scope/scopetest"
	"a3os.app/services/discovery/internal/discoverytest"
	"a3os.app/services/discovery/internal/letters"
)

const why = "the key was put back this morning"

// env is the letters of a tenant, and what an admin sees of them.
type env struct {
	*discoverytest.Env
	*letters.Letters
	admin context.Context //nolint:containedctx // the scope that every call of the test has
}

func newEnv(t *testing.T) env {
	t.Helper()
	e := discoverytest.New(t)
	inserter, err := queuepg.NewInserter("queue")
	must(t, err)
	admin := scopetest.With(t.Context(), scope.Scope{Plane: "dev", Tenant: e.ID, Principal: scope.Principal(id.NewUser().String())})
	return env{e, letters.New(letters.Config{Wide: e.Wide, Verifier: e.Verifier, Queue: inserter}), admin}
}

// overSQS has the tenant's messages go back over SQS.
func (e env) overSQS(t *testing.T) env {
	t.Helper()
	inserter, err := sqs.NewInserter("queue")
	must(t, err)
	return env{e.Env, letters.New(letters.Config{Wide: e.Wide, Verifier: e.Verifier, Queue: inserter}), e.admin}
}

// waiting is the message of a run's slice, taken off the queue as a worker that refuses it would.
func (e env) waiting(t *testing.T, job int64) (run *discoveryv1.Run, w id.Workspace, m queue.Message) {
	t.Helper()
	w = id.NewWorkspace()
	run = e.Start(t, w, id.NewIntegration())
	var raw []byte
	must(t, e.Super.QueryRow(t.Context(), "UPDATE queue.river_job SET state = 'cancelled', finalized_at = now() WHERE state = 'available' RETURNING args").Scan(&raw))
	must(t, json.Unmarshal(raw, &m))
	e.keep(t, job, m, discoveryv1.DeadLetterCause_DEAD_LETTER_CAUSE_FORGED)
	return run, w, m
}

func (e env) keep(t *testing.T, job int64, m queue.Message, cause discoveryv1.DeadLetterCause) {
	t.Helper()
	must(t, e.Keep(e.admin, &discoveryv1.ReportDeadLetterRequest{JobId: job, Attempt: 3, Reason: "no key with this id is believed here", Envelope: m.Envelope, Payload: m.Payload, Cause: cause}))
}

// newest is the letter that was kept last.
func (e env) newest(t *testing.T) *discoveryv1.DeadLetter {
	t.Helper()
	all, _, err := e.List(e.admin, 0, 0, 1)
	must(t, err)
	if len(all) != 1 {
		t.Fatal("there is no letter")
	}
	return all[0]
}

// events are the actions on the record, in order.
func (e env) events(t *testing.T) []*auditv1.Event {
	t.Helper()
	rows, err := e.Super.Query(t.Context(), "SELECT body FROM audit.inbox ORDER BY seq")
	must(t, err)
	defer rows.Close()
	var events []*auditv1.Event
	for rows.Next() {
		var body []byte
		must(t, rows.Scan(&body))
		ev := new(auditv1.Event)
		must(t, proto.Unmarshal(body, ev))
		if strings.HasPrefix(ev.GetAction(), "queue.") {
			events = append(events, ev)
		}
	}
	must(t, rows.Err())
	return events
}

func TestLetterIsKeptOnceAndOnTheRecord(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	for range 2 {
		e.keep(t, 7, queue.Message{Envelope: []byte("forged")}, discoveryv1.DeadLetterCause_DEAD_LETTER_CAUSE_FORGED)
	}
	e.keep(t, 8, queue.Message{}, discoveryv1.DeadLetterCause_DEAD_LETTER_CAUSE_GIVEN_UP)
	if n := e.Count(t, "SELECT count(*) FROM discovery.dead_letters"); n != 2 {
		t.Errorf("%d letters, want one of each job", n)
	}
	events := e.events(t)
	if len(events) != 2 || events[0].GetAction() != "queue.message.refused" || events[0].GetOutcome() != auditv1.Outcome_OUTCOME_DENIED ||
		events[1].GetAction() != "queue.message.given_up" || events[1].GetOutcome() != auditv1.Outcome_OUTCOME_FAILED {
		t.Errorf("on the record: %v", events)
	}
	// The letter and its event are one deed: a record that takes nothing keeps no letter.
	e.Exec(t, "ALTER TABLE audit.inbox RENAME TO gone")
	if err := e.Keep(e.admin, &discoveryv1.ReportDeadLetterRequest{JobId: 9, Reason: "x"}); err == nil {
		t.Error("a letter is kept without its event")
	}
	if n := e.Count(t, "SELECT count(*) FROM discovery.dead_letters"); n != 2 {
		t.Errorf("%d letters, want none more", n)
	}
}

func TestNothingIsShownButWhatAGoodSignatureVouchesFor(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	own := queuetest.Parties{Plane: "dev", Tenant: e.ID, Signer: e.Signer, Verifier: e.Verifier}
	stranger := queuetest.NewParties(t, e.ID, "dev")
	good, forged, expired := own.Message(t), stranger.Message(t), own.MessageOf(t, queuetest.Kind, time.Nanosecond)
	exchanged := queue.Message{Envelope: good.Envelope, Payload: forged.Payload}
	for i, tc := range []struct {
		name            string
		m               queue.Message
		said, believed  bool
		payload         bool
		sayNothingAbout []string
	}{
		{name: "good", m: good, said: true, believed: true, payload: true},
		{name: "forged", m: forged, sayNothingAbout: []string{forged.ID.String()}},
		{name: "expired", m: expired, said: true},
		{name: "payload exchanged", m: exchanged, said: true},
		{name: "text", m: queue.Message{Envelope: []byte("hunter2"), Payload: []byte("hunter3")}, sayNothingAbout: []string{"hunter"}},
	} {
		e.keep(t, int64(i+1), tc.m, discoveryv1.DeadLetterCause_DEAD_LETTER_CAUSE_FORGED)
		l := e.newest(t)
		if (l.GetMessage() != nil) != tc.said || l.GetBelieved() != tc.believed || (l.GetMessage().GetRunId() != "") != tc.payload {
			t.Errorf("%s is shown as %v", tc.name, l)
		}
		for _, word := range tc.sayNothingAbout {
			if strings.Contains(l.String(), word) || strings.Contains(e.events(t)[i].String(), word) {
				t.Errorf("%s: the letter or its event shows %q", tc.name, word)
			}
		}
		if _, err := protojson.Marshal(l); err != nil {
			t.Errorf("%s can't be written as JSON: %v", tc.name, err)
		}
		if l.GetEnvelopeBytes() != int64(len(tc.m.Envelope)) || l.GetPayloadBytes() != int64(len(tc.m.Payload)) || len(l.GetDigest()) != 64 {
			t.Errorf("%s is shown as %v", tc.name, l)
		}
	}
}

// Whatever a message says under a good signature, its letter can be shown and recorded.
func TestEveryLetterCanBeShown(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	p := queuetest.NewParties(t, e.ID, "dev")
	l := letters.New(letters.Config{Wide: e.Wide, Verifier: p.Verifier})
	for i, bad := range queuetest.BadMessages(t, p) {
		if bad.Want == nil {
			continue
		}
		must(t, l.Keep(e.admin, &discoveryv1.ReportDeadLetterRequest{JobId: int64(i + 1), Reason: "x", Envelope: bad.Envelope, Payload: bad.Payload}))
	}
	all, _, err := l.List(e.admin, 0, 0, 500)
	must(t, err)
	for _, letter := range all {
		if _, err := protojson.Marshal(letter); err != nil {
			t.Errorf("%v: %v", letter, err)
		}
	}
	for _, ev := range e.events(t) {
		if len(ev.GetAfter().GetFields()) == 0 {
			t.Errorf("the event of %s doesn't say what was refused", ev.GetTarget())
		}
	}
}

func TestRetriedMessageIsWorkedOnOnceMore(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	run, w, m := e.waiting(t, 11)
	letter := e.newest(t).GetId()
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			l, err := e.Retry(e.admin, letter, why)
			if err != nil || l.GetState() != discoveryv1.DeadLetterState_DEAD_LETTER_STATE_RETRIED || l.GetSettledReason() != why || l.GetSettledBy() == "" {
				t.Errorf("retried as %v, %v", l, err)
			}
		})
	}
	wg.Wait()
	var args, metadata []byte
	must(t, e.Super.QueryRow(t.Context(), "SELECT args, metadata FROM queue.river_job WHERE state = 'available'").Scan(&args, &metadata))
	var job queue.Message
	must(t, json.Unmarshal(args, &job))
	if string(job.Envelope) != string(m.Envelope) || string(job.Payload) != string(m.Payload) || !strings.Contains(string(metadata), `"a3_before": 3`) {
		t.Errorf("on the queue is %s %s, want the message as it was, whose attempts go on", args, metadata)
	}
	if n := e.Count(t, "SELECT count(*) FROM queue.river_job WHERE state = 'available'"); n != 1 {
		t.Errorf("%d jobs, want one", n)
	}
	e.Read(t, run.GetId(), discoverytest.Slice{})
	e.Publish(t, w, run.GetId())
	if _, err := e.Drop(e.admin, letter, why); fault.KindOf(err) != fault.FailedPrecondition {
		t.Errorf("a letter that was retried is dropped: %v", err)
	}
	events := e.events(t)
	if len(events) != 2 || events[1].GetAction() != "queue.dead_letter.retried" || events[1].GetReason() != why || events[1].GetTarget() != letter || events[1].GetWorkspaceId() != w.String() {
		t.Errorf("on the record: %v", events)
	}
}

// Over SQS it is the same: the job that a worker finds has the message as it was signed, and its attempts go on.
func TestRetriedMessageIsWorkedOnOnceMoreOverSQS(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	_, _, m := e.waiting(t, 11)
	letter := e.newest(t).GetId()
	over := e.overSQS(t)
	for range 2 {
		if l, err := over.Retry(e.admin, letter, why); err != nil || l.GetState() != discoveryv1.DeadLetterState_DEAD_LETTER_STATE_RETRIED {
			t.Errorf("retried as %v, %v", l, err)
		}
	}
	var job queue.Message
	var before, jobs int
	must(t, e.Super.QueryRow(t.Context(), "SELECT envelope, payload, before, (SELECT count(*) FROM queue.sqs_jobs) FROM queue.sqs_jobs WHERE key = $1", "dead-letter/"+letter).
		Scan(&job.Envelope, &job.Payload, &before, &jobs))
	if string(job.Envelope) != string(m.Envelope) || string(job.Payload) != string(m.Payload) || before != 3 || jobs != 1 {
		t.Errorf("%d jobs, of which one begins after attempt %d, want the message as it was, whose attempts go on", jobs, before)
	}
	if _, err := over.Drop(e.admin, letter, why); fault.KindOf(err) != fault.FailedPrecondition {
		t.Errorf("a letter that was retried is dropped: %v", err)
	}
	if events := e.events(t); len(events) != 2 || events[1].GetAction() != "queue.dead_letter.retried" || events[1].GetTarget() != letter {
		t.Errorf("on the record: %v", events)
	}
}

func TestMessageThatCanNotBeBelievedIsNeverRevived(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	own := queuetest.Parties{Plane: "dev", Tenant: e.ID, Signer: e.Signer, Verifier: e.Verifier}
	stranger := queuetest.NewParties(t, e.ID, "dev")
	good := own.Message(t)
	for i, m := range []queue.Message{
		stranger.Message(t), own.MessageOf(t, queuetest.Kind, time.Nanosecond), {Envelope: good.Envelope, Payload: own.Message(t).Payload},
		{}, {Envelope: []byte("noise")}, {Envelope: good.Envelope[:len(good.Envelope)-1], Payload: good.Payload},
	} {
		e.keep(t, int64(i+1), m, discoveryv1.DeadLetterCause_DEAD_LETTER_CAUSE_FORGED)
		letter := e.newest(t).GetId()
		_, err := e.Retry(e.admin, letter, why)
		if fault.KindOf(err) != fault.FailedPrecondition || !strings.Contains(err.Error(), "can't be retried, drop it") {
			t.Errorf("message %d: %v", i, err)
		}
		events := e.events(t)
		if last := events[len(events)-1]; last.GetAction() != "queue.dead_letter.retry_refused" || last.GetOutcome() != auditv1.Outcome_OUTCOME_DENIED || last.GetTarget() != letter {
			t.Errorf("message %d: on the record is %v", i, last)
		}
		dropped, err := e.Drop(e.admin, letter, why)
		if err != nil || dropped.GetState() != discoveryv1.DeadLetterState_DEAD_LETTER_STATE_DROPPED || dropped.GetEnvelopeBytes() != 0 {
			t.Errorf("message %d: dropped as %v, %v", i, dropped, err)
		}
	}
	if n := e.Count(t, "SELECT count(*) FROM queue.river_job"); n != 0 {
		t.Errorf("%d jobs, want none", n)
	}
	if _, err := e.Retry(e.admin, id.NewDeadLetter().String(), why); fault.KindOf(err) != fault.NotFound {
		t.Errorf("a letter that never was: %v", err)
	}
}

func TestMessageWhoseWorkIsOverIsNotRetried(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	run, w, _ := e.waiting(t, 1)
	own := queuetest.Parties{Plane: "dev", Tenant: e.ID, Signer: e.Signer, Verifier: e.Verifier}
	_, err := e.Runs.Cancel(e.In(t.Context(), w), &discoveryv1.CancelRunRequest{RunId: run.GetId()})
	must(t, err)
	if _, err := e.Retry(e.admin, e.newest(t).GetId(), why); fault.KindOf(err) != fault.FailedPrecondition || !strings.Contains(err.Error(), "is cancelled") {
		t.Errorf("of a run that was cancelled: %v", err)
	}
	e.keep(t, 2, own.Message(t), discoveryv1.DeadLetterCause_DEAD_LETTER_CAUSE_GIVEN_UP)
	if _, err := e.Retry(e.admin, e.newest(t).GetId(), why); fault.KindOf(err) != fault.FailedPrecondition || !strings.Contains(err.Error(), "there is no run") {
		t.Errorf("of a run that never was: %v", err)
	}
	e.keep(t, 3, own.MessageOf(t, "discovery.own", time.Hour), discoveryv1.DeadLetterCause_DEAD_LETTER_CAUSE_MALFORMED)
	if _, err := e.Retry(e.admin, e.newest(t).GetId(), why); fault.KindOf(err) != fault.FailedPrecondition {
		t.Errorf("of a kind that no queue carries: %v", err)
	}
}

func TestLettersPage(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	for job := range int64(5) {
		e.keep(t, job+1, queue.Message{}, discoveryv1.DeadLetterCause_DEAD_LETTER_CAUSE_MALFORMED)
	}
	_, err := e.Drop(e.admin, e.newest(t).GetId(), why)
	must(t, err)
	var seen []int64
	for before := int64(0); ; {
		page, next, err := e.List(e.admin, discoveryv1.DeadLetterState_DEAD_LETTER_STATE_WAITING, before, 2)
		must(t, err)
		for _, l := range page {
			seen = append(seen, l.GetJobId())
		}
		if before = next; next == 0 {
			break
		}
	}
	if len(seen) != 4 || seen[0] != 4 || seen[3] != 1 {
		t.Errorf("pages hold jobs %v, want 4 to 1", seen)
	}
}

// Letters are bounded in number and age, those settled go first, and whatever goes is on the record or stays.
func TestLettersAreBounded(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	inserter, err := queuepg.NewInserter("queue")
	must(t, err)
	e.Letters = letters.New(letters.Config{Wide: e.Wide, Verifier: e.Verifier, Queue: inserter, Kept: 24 * time.Hour, Most: 4})
	const kept = 4
	for job := range int64(6) {
		e.keep(t, job+1, queue.Message{}, discoveryv1.DeadLetterCause_DEAD_LETTER_CAUSE_MALFORMED)
	}
	_, err = e.Drop(e.admin, e.newest(t).GetId(), why)
	must(t, err)
	jobs := func() string {
		var text string
		must(t, e.Super.QueryRow(t.Context(), "SELECT string_agg(job_id::text, ' ' ORDER BY id) FROM discovery.dead_letters").Scan(&text))
		return text
	}
	e.Exec(t, "ALTER TABLE audit.inbox RENAME TO gone")
	if err := e.PruneOnce(t.Context()); err == nil || jobs() != "1 2 3 4 5 6" {
		t.Errorf("without a record: %v, left are %s", err, jobs())
	}
	e.Exec(t, "ALTER TABLE audit.gone RENAME TO inbox")
	must(t, e.PruneOnce(t.Context()))
	if jobs() != "2 3 4 5" {
		t.Errorf("of six letters, the newest of them dropped, %d are to be kept; left are %s", kept, jobs())
	}
	e.Exec(t, "UPDATE discovery.dead_letters SET created_at = now() - interval '25 hours' WHERE job_id = 4")
	must(t, e.PruneOnce(t.Context()))
	must(t, e.PruneOnce(t.Context()))
	if jobs() != "2 3 5" {
		t.Errorf("of letters that are kept a day, 4 is older; left are %s", jobs())
	}
	var pruned []string
	for _, ev := range e.events(t) {
		if ev.GetAction() == "queue.dead_letters.pruned" {
			pruned = append(pruned, fmt.Sprint(ev.GetActor(), " ", ev.GetBefore().AsMap()))
		}
	}
	if got := strings.Join(pruned, "; "); got != "workload:discovery map[count:2 waiting:1]; workload:discovery map[count:1 waiting:1]" {
		t.Errorf("on the record: %s", got)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
