package command

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	auditv1 "a3os.app/proto/gen/go/a3os/audit/v1"
	"a3os.app/proto/gen/go/a3os/audit/v1/auditv1connect"
	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"
	"a3os.app/proto/gen/go/a3os/iam/v1/iamv1connect"
	"a3os.app/tools/internal/show"
)

const (
	outcomePrefix = "OUTCOME_"
	auditRead     = "audit.read"
)

// auditFilter is which events to list.
type auditFilter struct {
	action, actor, target, since, until, outcome string
	limit                                        int
}

func (a *app) auditGroup() *cobra.Command {
	var f auditFilter
	list := &cobra.Command{
		Use: "list", Short: "List what happened, newest first",
		Long: `list shows sealed events. A tenant's admins and auditors see all of the tenant's, or with --workspace one workspace's; others see those
of their workspace, if they may.`,
		Example: `  a3 audit list
  a3 audit list --action iam.workspace. --since 24h
  a3 audit list --actor carol@acme.example --outcome denied`,
		Args: exactly(),
		RunE: a.doing(func(ctx context.Context, _ []string) error { return a.listEvents(ctx, f) }),
	}
	flags := list.Flags()
	flags.StringVar(&f.action, "action", "", "only this action; one that ends in a dot stands for all that begin with it")
	flags.StringVar(&f.actor, "actor", "", "only what this user (address or id), service account or workload did")
	flags.StringVar(&f.target, "target", "", "only what was done to this id")
	flags.StringVar(&f.since, "since", "", "not before this time: 2026-11-01, 2026-11-01T09:30:00Z, or an age: 24h")
	flags.StringVar(&f.until, "until", "", "before this time")
	flags.StringVar(&f.outcome, "outcome", "", "only what succeeded, was denied, or failed")
	flags.IntVar(&f.limit, "limit", 50, "at most this many; 0 for all")
	complete(list, "outcome", func(string) []string { return words(outcomePrefix, auditv1.Outcome_value) })
	return group("audit", "What happened, in a log that shows tampering", list, a.verifyCommand(), a.exportCommand(), a.proveCommand())
}

func (a *app) listEvents(ctx context.Context, f auditFilter) error {
	req := &auditv1.ListEventsRequest{Action: f.action, Actor: f.actor, Target: f.target}
	var err error
	if req.Since, err = a.instant("--since", f.since); err != nil {
		return err
	}
	if req.Until, err = a.instant("--until", f.until); err != nil {
		return err
	}
	if f.outcome != "" {
		n, ok := auditv1.Outcome_value[outcomePrefix+strings.ToUpper(f.outcome)]
		if !ok || n == 0 {
			return usage(fmt.Errorf("--outcome %q: use %s", f.outcome, strings.Join(words(outcomePrefix, auditv1.Outcome_value), ", ")))
		}
		req.Outcome = auditv1.Outcome(n)
	}
	t, err := a.auditor(ctx)
	if err != nil {
		return err
	}
	if strings.Contains(f.actor, "@") {
		if req.Actor, err = t.findUser(ctx, f.actor); err != nil {
			return err
		}
	}
	client := within(t, auditv1connect.NewAuditServiceClient)
	all, err := whole(f.limit, func(size int32, token string) (*auditv1.ListEventsResponse, error) {
		req.PageSize, req.PageToken = size, token
		return ask(ctx, client.ListEvents, req)
	}, func(r *auditv1.ListEventsResponse) (*[]*auditv1.SealedEvent, *string) {
		return &r.Events, &r.NextPageToken
	})
	if err != nil {
		return err
	}
	return a.answer(all, func() error {
		table := show.NewTable("entry", "at", "action", "actor", "target", "outcome", "reason")
		for _, s := range all.GetEvents() {
			e := s.GetEvent()
			actor := e.GetActor()
			if o := e.GetOnBehalfOf(); o != "" {
				actor += " for " + o
			}
			table.Row(fmt.Sprint(s.GetIndex()), show.Time(s.GetRecordedAt()), e.GetAction(), actor, e.GetTarget(), word(e.GetOutcome(), outcomePrefix), e.GetReason())
		}
		a.more(all.GetNextPageToken())
		if n := all.GetBacklog(); n > 0 {
			a.say("%s recorded and not yet sealed", show.Count(n, "event is", "events are"))
		}
		return a.list(table, "no event matches")
	})
}

// auditor readies the profile for the whole log where it may read that, and for its workspace's part where not.
func (a *app) auditor(ctx context.Context) (*tenant, error) {
	if a.workspace != "" {
		return a.enter(ctx)
	}
	t, err := a.open()
	if err != nil {
		return nil, err
	}
	self, err := ask(ctx, across(t, iamv1connect.NewIdentityServiceClient).GetSelf, &iamv1.GetSelfRequest{})
	if err != nil {
		return nil, err
	}
	if slices.Contains(self.GetPermissions(), auditRead) {
		return t, nil
	}
	return a.enter(ctx)
}
