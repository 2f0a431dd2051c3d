package systemtest

import (
	"context"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/reflect/protoreflect"

	"a3os.app/libs/apilint"
	"a3os.app/libs/authz"
	"a3os.app/libs/id"
	"a3os.app/libs/rpc/rpcclient"
	auditv1 "a3os.app/proto/gen/go/a3os/audit/v1"
	"a3os.app/proto/gen/go/a3os/audit/v1/auditv1connect"
	authzv1 "a3os.app/proto/gen/go/a3os/authz/v1"
	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"
	"a3os.app/proto/gen/go/a3os/iam/v1/iamv1connect"
	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"
	"a3os.app/proto/gen/go/a3os/integrations/v1/integrationsv1connect"
)

var actionForm = regexp.MustCompile(`^[a-z]+(\.[a-z_]+)+$`)

// lacks is what an event should say and doesn't, by what it is about. Every producer fills what it knows: who and for whom, what, how
// it ended; for what was asked from outside also from where, under which request and trace; and for a change how things were.
func lacks(s *auditv1.SealedEvent) []string {
	e := s.GetEvent()
	var missing []string
	need := func(what string, has bool) {
		if !has {
			missing = append(missing, what)
		}
	}
	_, err := id.ParseEvent(e.GetId())
	need("id", err == nil)
	need("action", actionForm.MatchString(e.GetAction()))
	need("actor", e.GetActor() != "")
	need("outcome", e.GetOutcome() != auditv1.Outcome_OUTCOME_UNSPECIFIED)
	need("time", s.GetRecordedAt().IsValid() && s.GetRecordedAt().GetSeconds() > 0)
	need("producer", s.GetProducer() != "")
	if e.GetActor() == "unknown" {
		need("source_address", e.GetSourceAddress() != "")
		need("count", e.GetAfter().GetFields()["count"].GetNumberValue() > 0)
		return missing // counted by source and minute: there is no one request, trace or target
	}
	need("target", e.GetTarget() != "")
	workload := strings.HasPrefix(e.GetActor(), "workload:")
	if !workload {
		need("source_address", e.GetSourceAddress() != "")
		need("request_id", e.GetRequestId() != "")
		need("trace_id", e.GetTraceId() != "")
	}
	for prefix := range map[string]bool{"discovery.": true, "integrations.": true, "iam.member.": true} {
		if strings.HasPrefix(e.GetAction(), prefix) {
			need("workspace_id", e.GetWorkspaceId() != "" || ofTheTenant(e.GetTarget()))
		}
	}
	verb := e.GetAction()[strings.LastIndexByte(e.GetAction(), '.')+1:]
	switch verb {
	case "created", "invited", "added", "started", "read":
		need("after", e.GetAfter() != nil || strings.HasPrefix(e.GetAction(), "iam.session."))
	case "removed", "deleted":
		need("before", e.GetBefore() != nil)
	case "role_changed", "updated", "deactivated", "reactivated", "published", "owner_transferred", "cancelled":
		need("before", e.GetBefore() != nil)
		need("after", e.GetAfter() != nil)
	}
	if strings.HasSuffix(verb, "transferred") || verb == "deactivated" || verb == "reactivated" {
		need("reason", e.GetReason() != "")
	}
	if verb == "owner_transferred" {
		need("transfer_id", e.GetTransferId() != "")
	}
	return missing
}

// ofTheTenant says that a procedure is one of the whole tenant, whose calls are in no workspace.
func ofTheTenant(procedure string) bool {
	return slices.ContainsFunc(apilint.Ours(), func(m protoreflect.MethodDescriptor) bool {
		r, err := authz.RuleOf(m)
		return err == nil && r.Procedure == procedure && r.GetLevel() == authzv1.Level_LEVEL_TENANT
	})
}

// attempt is what the record of a tenant that was probed must say: who did it, as far as can be known, and how it was refused.
type attempt struct{ action, actor string }

// attempts are those that tests made, by tenant and attempt: the rows that they played.
var attempts = struct {
	sync.Mutex
	of map[string]map[attempt]string
}{of: map[string]map[attempt]string{}}

// probed says that a test tried something at the tenant, which must be on its record by the time that all tests have run: what is
// counted by the minute is on it then too. Nobody who can be named is "unknown".
func (x *tenant) probed(action, actor string, rows ...string) {
	attempts.Lock()
	defer attempts.Unlock()
	if attempts.of[x.slug] == nil {
		attempts.of[x.slug] = map[attempt]string{}
	}
	key := attempt{action, actor}
	attempts.of[x.slug][key] = strings.TrimPrefix(attempts.of[x.slug][key]+", "+strings.Join(rows, ", "), ", ")
}

// checkAttempts looks for what was tried at the tenant.
func (x *tenant) checkAttempts(ctx context.Context, log auditv1connect.AuditServiceClient) error {
	const counted = 90 * time.Second // a minute, and a service's way to the log
	deadline := time.Now().Add(counted)
	for tried, rows := range attempts.of[x.slug] {
		for {
			req := &auditv1.ListEventsRequest{Action: tried.action, PageSize: 1, Outcome: auditv1.Outcome_OUTCOME_DENIED}
			if tried.actor != "unknown" {
				req.Actor = tried.actor
			}
			res, err := log.ListEvents(ctx, connect.NewRequest(req))
			if err != nil {
				return err
			}
			if len(res.Msg.GetEvents()) > 0 {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("%s was probed (%s), and no %s by %s is on its record", x.slug, rows, tried.action, tried.actor)
			}
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return nil
}

// checkRecord reads all that the tests have put on the record of a tenant, and says what any event lacks, by action, and which attempt
// left none.
func (x *tenant) checkRecord(ctx context.Context, w io.Writer) error {
	session, err := x.plane.store().Open(x.slug + "-admin")
	if err != nil {
		return err
	}
	log := rpcclient.ToTenant(session.API(""), x.url, session.TokenFor(""), auditv1connect.NewAuditServiceClient)
	if err := x.checkAttempts(ctx, log); err != nil {
		return err
	}
	bad, seen := map[string]string{}, map[string]int{}
	for token := ""; ; {
		res, err := log.ListEvents(ctx, connect.NewRequest(&auditv1.ListEventsRequest{PageSize: 500, PageToken: token}))
		if err != nil {
			return err
		}
		for _, s := range res.Msg.GetEvents() {
			seen[s.GetEvent().GetAction()]++
			for _, what := range lacks(s) {
				bad[s.GetEvent().GetAction()+" lacks "+what] = fmt.Sprintf("entry %d: %v", s.GetIndex(), s.GetEvent())
			}
		}
		if token = res.Msg.GetNextPageToken(); token == "" {
			break
		}
	}
	for _, what := range slices.Sorted(maps.Keys(bad)) {
		fmt.Fprintf(w, "%s: %s, as %s\n", x.slug, what, bad[what])
	}
	if len(bad) > 0 {
		return fmt.Errorf("events of %s don't say what their producers know (%d actions were seen)", x.slug, len(seen))
	}
	return nil
}

const callersTrace = "4bf92f3577b34da6a3ce929d0e0e4736"

// What is done through a transfer says so: the new owner's deeds, in every service, carry the transfer's id; and all of a call that
// came with a trace is in that trace.
func TestDeedsOfANewOwnerNameTheTransferTheyRestOn(t *testing.T) {
	full(t)
	t.Parallel()
	before, after := acme().invite(t), acme().invite(t)
	w := acme().workspace(t, before)
	admin := client(acme().admin(t), "", iamv1connect.NewAdminWorkspaceServiceClient)
	done := ask(t, admin.TransferWorkspaceOwner, &iamv1.TransferWorkspaceOwnerRequest{
		WorkspaceId: w.GetId(), ExpectedOwnerUserId: before.id, ToUserId: after.id, Reason: "the owner left, and somebody has to go on"})
	req := connect.NewRequest(&integrationsv1.CreateIntegrationRequest{Name: name("people"), Settings: csvSettings()})
	req.Header().Set("Traceparent", "00-"+callersTrace+"-00f067aa0ba902b7-00")
	made, err := client(after, w.GetId(), integrationsv1connect.NewIntegrationWriteServiceClient).CreateIntegration(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	third := acme().invite(t)
	ask(t, client(after, w.GetId(), iamv1connect.NewMemberWriteServiceClient).AddMember, &iamv1.AddMemberRequest{Principal: third.id, Role: iamv1.WorkspaceRole_WORKSPACE_ROLE_VIEWER})
	log := client(acme().admin(t), "", auditv1connect.NewAuditServiceClient)
	within(t, sealedWithin, func() error {
		mine := ask(t, log.ListEvents, &auditv1.ListEventsRequest{Actor: after.id}).GetEvents()
		seen := map[string]*auditv1.Event{}
		for _, s := range mine {
			seen[s.GetEvent().GetAction()] = s.GetEvent()
		}
		for _, action := range []string{"integrations.integration.created", "iam.member.added"} {
			e := seen[action]
			if e == nil {
				return fmt.Errorf("%s is not on the record", action)
			}
			if e.GetTransferId() != done.GetTransferId() {
				t.Errorf("%s rests on transfer %q, want %s", action, e.GetTransferId(), done.GetTransferId())
			}
		}
		if e := seen["integrations.integration.created"]; e.GetTraceId() != callersTrace || e.GetTarget() != made.Msg.GetId() {
			t.Errorf("the event of the call that was traced is %v", e)
		}
		return nil
	})
}
