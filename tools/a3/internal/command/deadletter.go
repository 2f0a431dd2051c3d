package command

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	"a3os.app/proto/gen/go/a3os/discovery/v1/discoveryv1connect"
	"a3os.app/tools/internal/show"
)

const (
	letterStatePrefix = "DEAD_LETTER_STATE_"
	letterCausePrefix = "DEAD_LETTER_CAUSE_"
)

func (a *app) deadLetterGroup() *cobra.Command {
	var state string
	var limit int
	list := &cobra.Command{
		Use: "list", Short: "List messages that are not delivered any more, newest first",
		Long: `list shows messages that the queue's worker refused, or gave up after their tries. A tenant's admins and auditors see them, and that they
looked is on the record.`,
		Example: `  a3 dead-letter list
  a3 dead-letter list --state waiting --limit 0`,
		Args: exactly(),
		RunE: a.doing(func(ctx context.Context, _ []string) error { return a.listLetters(ctx, state, limit) }),
	}
	states := words(letterStatePrefix, discoveryv1.DeadLetterState_value)
	list.Flags().StringVar(&state, "state", "", "only those in this state: "+strings.Join(states, ", "))
	list.Flags().IntVar(&limit, "limit", 50, "at most this many; 0 for all")
	complete(list, "state", func(string) []string { return states })
	get := &cobra.Command{
		Use: "show LETTER", Short: "Show one, without what nobody vouches for",
		Long: `show shows why a message was given up, and what its envelope says where its signature is good. Of everything else it shows size and
digest alone: bytes that nobody signed are nobody's word.`,
		Example: `  a3 dead-letter show dlt_01h455vb4pex5vsknk084sn02q`,
		Args:    exactly("LETTER"),
		RunE: a.doing(func(ctx context.Context, args []string) error {
			return a.showLetter(func(t *tenant) (*discoveryv1.DeadLetter, error) {
				return ask(ctx, across(t, discoveryv1connect.NewDeadLetterServiceClient).GetDeadLetter, &discoveryv1.GetDeadLetterRequest{DeadLetterId: args[0]})
			})
		}),
	}
	var why string
	retry := &cobra.Command{
		Use: "retry LETTER", Short: "Put the message back on the queue",
		Long: `retry verifies the message anew and puts it back as it was signed. One that was forged or has expired can't come back, nor one whose run
is over. Retried again, it stays retried.`,
		Example: `  a3 dead-letter retry dlt_01h455vb4pex5vsknk084sn02q --reason "the signing key was rolled out again"`,
		Args:    exactly("LETTER"),
		RunE: a.doing(func(ctx context.Context, args []string) error {
			return a.showLetter(func(t *tenant) (*discoveryv1.DeadLetter, error) {
				return ask(ctx, across(t, discoveryv1connect.NewAdminDeadLetterServiceClient).RetryDeadLetter, &discoveryv1.RetryDeadLetterRequest{DeadLetterId: args[0], Reason: why})
			})
		}),
	}
	drop := &cobra.Command{
		Use: "drop LETTER", Short: "Throw the message away; that it was there stays on the record",
		Example: `  a3 dead-letter drop dlt_01h455vb4pex5vsknk084sn02q --reason "planted by the penetration test"`,
		Args:    exactly("LETTER"),
		RunE: a.doing(func(ctx context.Context, args []string) error {
			return a.showLetter(func(t *tenant) (*discoveryv1.DeadLetter, error) {
				return ask(ctx, across(t, discoveryv1connect.NewAdminDeadLetterServiceClient).DropDeadLetter, &discoveryv1.DropDeadLetterRequest{DeadLetterId: args[0], Reason: why})
			})
		}),
	}
	for _, c := range []*cobra.Command{retry, drop} {
		c.Flags().StringVar(&why, "reason", "", "why, 10–500 characters, kept on the record")
		// It fails only for a flag that isn't there.
		_ = c.MarkFlagRequired("reason")
	}
	return group("dead-letter", "Messages of the queue that are not delivered any more", list, get, retry, drop)
}

func (a *app) listLetters(ctx context.Context, state string, limit int) error {
	var in int32
	if state != "" {
		var known bool
		if in, known = discoveryv1.DeadLetterState_value[letterStatePrefix+strings.ToUpper(state)]; !known || in == 0 {
			return usage(fmt.Errorf("%q is no state: use %s", state, strings.Join(words(letterStatePrefix, discoveryv1.DeadLetterState_value), ", ")))
		}
	}
	t, err := a.open()
	if err != nil {
		return err
	}
	letters := across(t, discoveryv1connect.NewDeadLetterServiceClient)
	all, err := whole(limit, func(size int32, token string) (*discoveryv1.ListDeadLettersResponse, error) {
		return ask(ctx, letters.ListDeadLetters, &discoveryv1.ListDeadLettersRequest{PageSize: size, PageToken: token, State: discoveryv1.DeadLetterState(in)})
	}, func(r *discoveryv1.ListDeadLettersResponse) (*[]*discoveryv1.DeadLetter, *string) {
		return &r.DeadLetters, &r.NextPageToken
	})
	if err != nil {
		return err
	}
	return a.answer(all, func() error {
		table := show.NewTable("letter", "when", "state", "cause", "kind", "workspace", "reason")
		for _, l := range all.GetDeadLetters() {
			m := l.GetMessage()
			table.Row(l.GetId(), show.Time(l.GetCreatedAt()), word(l.GetState(), letterStatePrefix), cause(l), m.GetKind(), m.GetWorkspaceId(), l.GetReason())
		}
		a.more(all.GetNextPageToken())
		return a.list(table, "there are no dead letters")
	})
}

// showLetter shows a letter as it stands after what was done.
func (a *app) showLetter(do func(t *tenant) (*discoveryv1.DeadLetter, error)) error {
	t, err := a.open()
	if err != nil {
		return err
	}
	l, err := do(t)
	if err != nil {
		return err
	}
	return a.answer(l, func() error {
		m := l.GetMessage()
		slice := ""
		if m.GetRunId() != "" {
			slice = fmt.Sprint(m.GetSlice())
		}
		return show.Facts(a.Out, "letter", l.GetId(), "state", word(l.GetState(), letterStatePrefix), "cause", cause(l), "reason", l.GetReason(),
			"when", show.Time(l.GetCreatedAt()), "job", fmt.Sprintf("%d, attempt %d", l.GetJobId(), l.GetAttempt()),
			"bytes", fmt.Sprintf("%d of envelope, %d of payload, SHA-256 %s", l.GetEnvelopeBytes(), l.GetPayloadBytes(), l.GetDigest()),
			"message", m.GetId(), "kind", m.GetKind(), "workspace", m.GetWorkspaceId(), "issuer", m.GetIssuer(), "on behalf of", m.GetOnBehalfOf(),
			"issued", show.Time(m.GetIssuedAt()), "expires", show.Time(m.GetExpiresAt()), "run", m.GetRunId(), "slice", slice, "believed", belief(l),
			"settled", show.Time(l.GetSettledAt()), "by", l.GetSettledBy(), "because", l.GetSettledReason())
	})
}

// belief says whether the message could come back.
func belief(l *discoveryv1.DeadLetter) string {
	switch {
	case l.GetState() == discoveryv1.DeadLetterState_DEAD_LETTER_STATE_DROPPED:
		return ""
	case l.GetBelieved():
		return "yes, by the keys and the time of now"
	case l.GetMessage() != nil:
		return "no: it was signed by a key of the tenant, and something else is wrong"
	}
	return "no: nobody vouches for it"
}

func cause(l *discoveryv1.DeadLetter) string {
	return strings.ReplaceAll(word(l.GetCause(), letterCausePrefix), "_", " ")
}
