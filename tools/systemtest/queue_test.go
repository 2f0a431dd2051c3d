package systemtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	auditv1 "a3os.app/proto/gen/go/a3os/audit/v1"
	"a3os.app/proto/gen/go/a3os/audit/v1/auditv1connect"
	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	"a3os.app/proto/gen/go/a3os/discovery/v1/discoveryv1connect"
	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"
	queuev1 "a3os.app/proto/gen/go/a3os/queue/v1"

	"a3os.app/libs/config"
	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/queue"
	"a3os.app/libs/queue/queuetest"
)

// parties are who took over a tenant's discovery: they hold the key that signs its envelopes.
func (x *tenant) parties(t testing.TB) queuetest.Parties {
	t.Helper()
	raw, err := os.ReadFile(x.plane.environment(t, x.id+"/discovery")["A3_ENVELOPE_KEY_FILE"])
	if err != nil {
		t.Fatal(err)
	}
	key, err := queue.ParseSigningKey(config.NewSecret(strings.TrimSpace(string(raw))))
	if err != nil {
		t.Fatal(err)
	}
	tenantID, err := id.ParseTenant(x.id)
	if err != nil {
		t.Fatal(err)
	}
	p := queuetest.Parties{Plane: "dev", Tenant: tenantID, Key: key}
	if p.Signer, err = queue.NewSigner(queue.SignerConfig{Key: key, Plane: p.Plane, Tenant: tenantID, Issuer: "discovery"}); err != nil {
		t.Fatal(err)
	}
	return p
}

// plant puts bytes on a tenant's queue, with the password of the role that may. It answers the jobs' ids.
func (x *tenant) plant(t testing.TB, messages ...queue.Message) []int64 {
	t.Helper()
	conn := dial(t, x.roles(t)["discovery"])
	jobs := make([]int64, len(messages))
	for i, m := range messages {
		err := conn.QueryRow(t.Context(), `INSERT INTO queue.river_job (kind, args, max_attempts, metadata)
			VALUES ('a3os.message', jsonb_build_object('key', $1::text, 'envelope', encode($2, 'base64'), 'payload', encode($3, 'base64')), 25, '{}') RETURNING id`,
			id.NewMessage().String(), m.Envelope, m.Payload).Scan(&jobs[i])
		if err != nil {
			t.Fatal(err)
		}
	}
	return jobs
}

// letters are a tenant's dead letters by job, as a3 lists them.
func (x *tenant) letters(t testing.TB) map[int64]*discoveryv1.DeadLetter {
	t.Helper()
	all := &discoveryv1.ListDeadLettersResponse{}
	if err := protojson.Unmarshal([]byte(x.plane.a3(t, x.slug+"-admin", "-o", "json", "dead-letter", "list", "--limit", "0")), all); err != nil {
		t.Fatal(err)
	}
	out := map[int64]*discoveryv1.DeadLetter{}
	for _, l := range all.GetDeadLetters() {
		out[l.GetJobId()] = l
	}
	return out
}

// awaitLetters waits until each job has its letter.
func (x *tenant) awaitLetters(t testing.TB, jobs []int64) map[int64]*discoveryv1.DeadLetter {
	t.Helper()
	var got map[int64]*discoveryv1.DeadLetter
	within(t, time.Minute, func() error {
		got = x.letters(t)
		for _, job := range jobs {
			if got[job] == nil {
				return fmt.Errorf("job %d has no dead letter yet", job)
			}
		}
		return nil
	})
	return got
}

// recordedOf are the sealed events of an action, by target.
func (x *tenant) recordedOf(t testing.TB, action string) map[string]*auditv1.Event {
	t.Helper()
	out := map[string]*auditv1.Event{}
	audit := client(x.admin(t), "", auditv1connect.NewAuditServiceClient)
	for token := ""; ; {
		res := ask(t, audit.ListEvents, &auditv1.ListEventsRequest{PageSize: 500, PageToken: token, Action: action})
		for _, s := range res.GetEvents() {
			out[s.GetEvent().GetTarget()] = s.GetEvent()
		}
		if token = res.GetNextPageToken(); token == "" {
			return out
		}
	}
}

// Rows Q28, Q30 and Q32, by somebody who may write to the queue, and for some of them holds the key too: dead letters, each with its
// event, which none of the ways of an admin brings back.
func TestHostileMessagesBecomeDeadLettersThatNobodyRevives(t *testing.T) {
	full(t)
	t.Parallel()
	p := globex().parties(t)
	elsewhere, sizes := 0, 0
	var messages []queue.Message
	workspace := id.NewWorkspace()
	for _, body := range []*queuev1.SlicePayload{
		{RunId: id.NewRun().String(), WorkspaceId: id.NewWorkspace().String(), TenantId: p.Tenant.String()},
		{RunId: id.NewRun().String(), WorkspaceId: workspace.String(), TenantId: acme().id},
	} {
		raw, err := proto.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		messages = append(messages, queue.Message{Envelope: queuetest.SignBlindly(t, p, workspace, raw), Payload: raw})
		elsewhere++
	}
	for i, bad := range queuetest.BadMessages(t, p) {
		switch {
		case strings.Contains(bad.Name, "nested") || strings.Contains(bad.Name, "claimed"):
			sizes++
		case (bad.Name == "cut" || bad.Name == "bit flipped") && i%4 > 0:
			continue // libs/queue plays each
		}
		messages = append(messages, queue.Message{Envelope: bad.Envelope, Payload: bad.Payload})
	}
	worker := shared.pids(t)[globex().id+"/discovery-worker"]
	jobs := globex().plant(t, messages...)
	letters := globex().awaitLetters(t, jobs)
	var recorded map[string]*auditv1.Event
	within(t, time.Minute, func() error {
		recorded = globex().recordedOf(t, "queue.message.refused")
		for _, job := range jobs {
			if recorded[letters[job].GetId()] == nil {
				return fmt.Errorf("that job %d was refused is not sealed yet", job)
			}
		}
		return nil
	})
	for i, job := range jobs {
		l := letters[job]
		if l.GetState() != discoveryv1.DeadLetterState_DEAD_LETTER_STATE_WAITING || l.GetCause() == discoveryv1.DeadLetterCause_DEAD_LETTER_CAUSE_GIVEN_UP || l.GetReason() == "" {
			t.Errorf("letter %d is %v", i, l)
		}
		if e := recorded[l.GetId()]; e.GetOutcome() != auditv1.Outcome_OUTCOME_DENIED || e.GetReason() == "" {
			t.Errorf("the event of letter %d is %v", i, e)
		}
	}
	// By the API, in turn; by a3, two of them.
	admin := client(globex().admin(t), "", discoveryv1connect.NewAdminDeadLetterServiceClient)
	for i, job := range jobs {
		l := letters[job].GetId()
		if s := refused(t, fault.FailedPrecondition, admin.RetryDeadLetter, &discoveryv1.RetryDeadLetterRequest{DeadLetterId: l, Reason: "to see whether it comes back"}); !strings.Contains(s, "can't be retried") {
			t.Errorf("letter %d: %s", i, s)
		}
	}
	first, second := letters[jobs[0]].GetId(), letters[jobs[len(jobs)-1]].GetId()
	if s := shared.tryA3(t, "globex-admin", "dead-letter", "retry", first, "--reason", "to see whether it comes back"); s.code != 1 || !strings.Contains(s.err, "can't be retried") {
		t.Errorf("a3 dead-letter retry: %s", s)
	}
	if s := shared.tryA3(t, "globex-admin", "dead-letter", "show", second); s.code != 0 || !strings.Contains(s.out, "believed") {
		t.Errorf("a3 dead-letter show: %s", s)
	}
	for range 2 {
		if s := shared.tryA3(t, "globex-admin", "dead-letter", "drop", second, "--reason", "planted by a test"); s.code != 0 || !strings.Contains(s.out, "dropped") {
			t.Errorf("a3 dead-letter drop: %s", s)
		}
	}
	if s := shared.tryA3(t, "globex-admin", "dead-letter", "show", "dlt_01h455vb4pex5vsknk084sn02q"); s.code != 4 {
		t.Errorf("a letter that never was: %s", s)
	}
	if s := shared.tryA3(t, "acme-member", "dead-letter", "list"); s.code != 3 {
		t.Errorf("a member lists dead letters: %s", s)
	}
	within(t, time.Minute, func() error {
		if len(globex().recordedOf(t, "queue.dead_letter.retry_refused")) < len(jobs) || globex().recordedOf(t, "queue.dead_letter.dropped")[second] == nil {
			return errors.New("the record doesn't have every refusal and the drop yet")
		}
		return nil
	})
	if now := shared.pids(t)[globex().id+"/discovery-worker"]; now != worker {
		t.Error("the worker ended of it")
	}
	for row, n := range map[string]int{"Q28": elsewhere, "Q30": len(jobs) - elsewhere - sizes, "Q32": sizes} {
		t.Attr("row", fmt.Sprintf("%s %d", row, n))
	}
}

// started is a run whose first slice was enqueued, and its message.
func (w *person) started(t testing.TB, workspace, integration string) (*discoveryv1.Run, queue.Message) {
	t.Helper()
	run := ask(t, client(w, workspace, discoveryv1connect.NewRunWriteServiceClient).StartRun, &discoveryv1.StartRunRequest{IntegrationId: integration})
	var raw []byte
	if err := w.tenant.plane.superuser(t, "postgres", w.tenant.id).QueryRow(t.Context(),
		"SELECT args FROM queue.river_job WHERE args->>'key' = $1", run.GetId()+"/0/0").Scan(&raw); err != nil {
		t.Fatal(err)
	}
	var m queue.Message
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	return run, m
}

// Row Q29: the message of a run that is going on, a hundred times.
func TestOneMessageOnTheQueueAHundredTimesHasOneEffect(t *testing.T) {
	full(t)
	t.Parallel()
	const copies, rows = 100, 20_000
	owner := globex().invite(t)
	w := globex().workspace(t, owner).GetId()
	calm, flooded := owner.upload(t, w, people(rows)), owner.upload(t, w, people(rows))
	owner.discover(t, w, calm.GetId())
	run, m := owner.started(t, w, flooded.GetId())
	jobs := globex().plant(t, slices.Repeat([]queue.Message{m}, copies)...)
	if done := owner.await(t, w, run.GetId()); done.GetState() != integrationsv1.RunState_RUN_STATE_COMPLETE || done.GetCounts().GetGrants() != rows {
		t.Fatalf("the run ended as %s with %d grants: %s", done.GetState(), done.GetCounts().GetGrants(), done.GetError())
	}
	conn := globex().plane.superuser(t, "postgres", globex().id)
	within(t, time.Minute, func() error {
		var left int
		if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM queue.river_job WHERE id = ANY($1) AND state <> 'completed'", jobs).Scan(&left); err != nil || left > 0 {
			return errors.Join(err, fmt.Errorf("%d of the copies are not over", left))
		}
		return nil
	})
	samePublished(t, globex(), calm.GetId(), flooded.GetId())
	var sealed int
	if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM discovery.slices WHERE run_id = $1 AND slice = 0", uuidOf(t, run.GetId())).Scan(&sealed); err != nil || sealed != 1 {
		t.Errorf("the slice was sealed %d times, %v", sealed, err)
	}
	within(t, time.Minute, func() error {
		if globex().recordedOf(t, "discovery.run.published")[run.GetId()] == nil {
			return errors.New("that it was published is not sealed yet")
		}
		return nil
	})
	t.Attr("row", fmt.Sprintf("Q29 %d", copies))
}

// Row F2: SIGKILL strikes when the run is published and PostgreSQL has not taken the acknowledgement, which the test holds up.
func TestWorkerKilledBeforeItsAcknowledgementHasOneEffect(t *testing.T) {
	full(t)
	const rows = 2000
	owner := globex().invite(t)
	w := globex().workspace(t, owner).GetId()
	calm, killed := owner.upload(t, w, people(rows)), owner.upload(t, w, people(rows))
	owner.discover(t, w, calm.GetId())
	conn, gate := globex().plane.superuser(t, "postgres", globex().id), globex().plane.superuser(t, "postgres", globex().id)
	exec := func(sql string) {
		t.Helper()
		if _, err := conn.Exec(background(t), sql); err != nil {
			t.Fatal(err)
		}
	}
	exec(`CREATE FUNCTION public.hold() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock_shared(4711); RETURN NEW; END $$`)
	exec(`CREATE TRIGGER hold BEFORE UPDATE ON queue.river_job FOR EACH ROW WHEN (NEW.state = 'completed') EXECUTE FUNCTION public.hold()`)
	defer exec("DROP FUNCTION public.hold() CASCADE")
	if _, err := gate.Exec(t.Context(), "SELECT pg_advisory_lock(4711)"); err != nil {
		t.Fatal(err)
	}
	run, _ := owner.started(t, w, killed.GetId())
	if done := owner.await(t, w, run.GetId()); done.GetState() != integrationsv1.RunState_RUN_STATE_COMPLETE {
		t.Fatalf("the run ended as %s: %s", done.GetState(), done.GetError())
	}
	const heldUp = "FROM pg_stat_activity WHERE wait_event = 'advisory' AND usename LIKE '%worker' AND datname = current_database()"
	attempts := func() (n int, state string) {
		t.Helper()
		if err := conn.QueryRow(t.Context(), "SELECT attempt, state::text FROM queue.river_job WHERE args->>'key' = $1", run.GetId()+"/0/0").Scan(&n, &state); err != nil {
			t.Fatal(err)
		}
		return n, state
	}
	if n, state := attempts(); n != 1 || state != "running" {
		t.Fatalf("the job is %s after %d attempts: its acknowledgement was to be held up", state, n)
	}
	within(t, time.Minute, func() error {
		if len(column(t, conn, "SELECT pid::text "+heldUp)) == 0 {
			return errors.New("the acknowledgement is not held up yet")
		}
		return nil
	})
	kill(t, shared.pids(t)[globex().id+"/discovery-worker"])
	// PostgreSQL would go on with what a process that is gone has asked for: so it ends as a connection that was cut.
	exec("SELECT pg_terminate_backend(pid) " + heldUp)
	if _, err := gate.Exec(t.Context(), "SELECT pg_advisory_unlock(4711)"); err != nil {
		t.Fatal(err)
	}
	within(t, time.Minute, func() error {
		if n, state := attempts(); n < 2 || state != "completed" {
			return fmt.Errorf("the job is %s after %d attempts", state, n)
		}
		return nil
	})
	samePublished(t, globex(), calm.GetId(), killed.GetId())
	if again := ask(t, client(owner, w, discoveryv1connect.NewRunServiceClient).GetRun, &discoveryv1.GetRunRequest{RunId: run.GetId()}); again.GetCounts().GetGrants() != rows || again.GetSlices() == 0 {
		t.Errorf("after the second delivery the run is %v", again)
	}
	t.Attr("row", "F2 1")
}

// A letter that can't be handed over, since discovery hangs, is offered until it is kept.
func TestDeadLetterOutlivesADiscoveryThatHangs(t *testing.T) {
	full(t)
	process := shared.pids(t)[globex().id+"/discovery"]
	if err := syscall.Kill(process, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	running := false
	resume := func() {
		if !running {
			running = true
			_ = syscall.Kill(process, syscall.SIGCONT)
		}
	}
	defer resume()
	jobs := globex().plant(t, queue.Message{Envelope: []byte("forged")})
	conn := globex().plane.superuser(t, "postgres", globex().id)
	within(t, time.Minute, func() error {
		var state string
		var tried bool
		if err := conn.QueryRow(t.Context(), "SELECT state::text, attempted_at IS NOT NULL FROM queue.river_job WHERE id = $1", jobs[0]).Scan(&state, &tried); err != nil {
			return err
		}
		if !tried || state == "running" {
			return fmt.Errorf("the job is %s: its letter was not offered in vain yet", state)
		}
		if state == "cancelled" || state == "completed" {
			t.Fatalf("the job is %s, and nobody has its letter", state)
		}
		return nil
	})
	resume()
	globex().awaitLetters(t, jobs)
}
