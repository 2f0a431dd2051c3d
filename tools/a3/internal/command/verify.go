package command

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"a3os.app/libs/fault"
	"a3os.app/libs/tlog"
	auditv1 "a3os.app/proto/gen/go/a3os/audit/v1"
	"a3os.app/proto/gen/go/a3os/audit/v1/auditv1connect"
	"a3os.app/tools/a3/internal/witness"
	"a3os.app/tools/internal/show"
)

func (a *app) verifyCommand() *cobra.Command {
	var key, from string
	var checkpoints []string
	c := &cobra.Command{
		Use: "verify", Short: "Prove that the log is whole, and grew from what it was when last verified",
		Long: `verify reads the whole log, computes its tree anew and compares it with every signed checkpoint, and with the one that it remembers from
the last time in $A3_HOME/audit. It fails, naming the first entry or interval that is wrong, if anything was changed, removed, moved,
put in or cut off. The log's key is trusted when it is first seen, unless --verifier-key says which to trust.

With --from it verifies what "a3 audit export" wrote, without asking anybody: it needs no profile and no network. Give it --checkpoint
files that were kept earlier, as the witness's or another export's, to see that the log grew from those.`,
		Example: `  a3 audit verify
  a3 audit verify --verifier-key "$(cat acme-log.vkey)"
  a3 audit verify --from acme-audit --checkpoint last-quarter/checkpoint`,
		Args: exactly(),
		RunE: a.doing(func(ctx context.Context, _ []string) error {
			kept, err := readCheckpoints(checkpoints)
			if err != nil {
				return err
			}
			if from != "" {
				return a.verifyExport(ctx, from, key, kept)
			}
			return a.verify(ctx, key, kept)
		}),
	}
	c.Flags().StringVar(&key, "verifier-key", "", "key that the log must be signed with")
	c.Flags().StringVar(&from, "from", "", "export to verify instead of the tenant's log: its directory, or its .zip")
	c.Flags().StringArrayVar(&checkpoints, "checkpoint", nil, "file with an earlier checkpoint that the log must have grown from; may be given several times")
	return c
}

// verdict is the outcome of a verification, for programs.
type verdict struct {
	Whole       bool      `json:"whole"`
	Entries     uint64    `json:"entries"`
	Checkpoints int       `json:"checkpoints"`
	Origin      string    `json:"origin"`
	Checkpoint  string    `json:"checkpoint"`
	VerifierKey string    `json:"verifier_key"`
	Findings    []finding `json:"findings"`
}

type finding struct {
	Kind    tlog.Kind `json:"kind"`
	From    uint64    `json:"from"`
	To      uint64    `json:"to"`
	EventID string    `json:"event_id"`
	Text    string    `json:"text"`
}

func (a *app) verify(ctx context.Context, demanded string, kept []string) error {
	t, err := a.open()
	if err != nil {
		return err
	}
	file := witness.File(t.store.Home(), t.profile.Name)
	memory, err := witness.Recall(file)
	if err != nil {
		return err
	}
	client := across(t, auditv1connect.NewLogServiceClient)
	now, err := ask(ctx, client.GetCheckpoint, &auditv1.GetCheckpointRequest{})
	if errors.Is(err, tlog.ErrEmpty) && len(kept) == 0 && (memory == nil || memory.Checkpoint == "") {
		return a.emptyLog()
	}
	if err != nil && !errors.Is(err, tlog.ErrEmpty) {
		return err
	}
	verifier, err := trusted(memory, file, demanded, now.GetVerifierKey())
	if err != nil {
		return err
	}
	if memory != nil {
		kept = append(kept, memory.Checkpoint)
	}
	report, err := tlog.Verify(ctx, tlog.Remote(client), verifier, kept...)
	if err != nil {
		return err
	}
	if report.Whole() {
		if err := witness.Remember(file, witness.Memory{VerifierKey: verifier.String(), Checkpoint: report.Newest.Note}); err != nil {
			return err
		}
	}
	return a.verdict(report, verifier, memory, file)
}

// trusted is the key to verify with: the one that was demanded, else the one remembered, else the one the log shows. The log showing
// another one is an error of its own, since everything after it would be one.
func trusted(memory *witness.Memory, file, demanded, shown string) (*tlog.Verifier, error) {
	want := demanded
	if want == "" && memory != nil {
		want = memory.VerifierKey
	}
	if want == "" {
		want = shown
	}
	if shown != "" && shown != want {
		return nil, fault.New(fault.FailedPrecondition, "the log is signed with another key than the one to trust (%s instead of %s): unless its operator announced that, it was replaced (to trust it all the same, remove what is remembered: %s)", shown, want, file)
	}
	if memory != nil && memory.VerifierKey != want {
		return nil, fault.New(fault.FailedPrecondition, "the key in --verifier-key is not the one that this profile has trusted so far (%s)", memory.VerifierKey)
	}
	return tlog.NewVerifier(want)
}

func (a *app) emptyLog() error {
	if a.json() {
		return show.JSON(a.Out, verdict{Whole: true, Findings: []finding{}})
	}
	a.print("the log is empty: nothing was sealed yet")
	return nil
}

func (a *app) verdict(report *tlog.Report, verifier *tlog.Verifier, before *witness.Memory, file string) error {
	if err := a.showVerdict(report, verifier); err != nil {
		return err
	}
	if report.Whole() {
		if before == nil && !a.json() {
			a.print("first time: its key is trusted from now on (%s), and its checkpoint remembered in %s", verifier, file)
		}
		return nil
	}
	return fmt.Errorf("the audit log is not whole (%s from entry %d on): keep %s, which has the last checkpoint that held, and find out who can write to the log's database%s",
		report.Findings[0].Kind, report.Findings[0].From, file, maybeRestored(report, file))
}

// maybeRestored says what else a log that is whole in itself, and not the one remembered, can be. Only people can tell the two apart: the
// event says what was restored, and whoever could forge the log could forge the event.
func maybeRestored(report *tlog.Report, file string) string {
	switch report.Findings[0].Kind {
	case tlog.LogTruncated, tlog.HistoryReplaced:
	default:
		return ""
	}
	return fmt.Sprintf(". Or the tenant's operator restored it from a backup: they can say so, `a3 audit list --action iam.set.restored` shows as of when, and the log is trusted anew when %s is moved away", file)
}

func (a *app) showVerdict(report *tlog.Report, verifier *tlog.Verifier) error {
	if a.json() {
		v := verdict{
			Whole: report.Whole(), Entries: report.Entries, Checkpoints: report.Checkpoints, Origin: verifier.Origin(),
			Checkpoint: report.Newest.Note, VerifierKey: verifier.String(), Findings: []finding{},
		}
		for _, f := range report.Findings {
			v.Findings = append(v.Findings, finding(f))
		}
		return show.JSON(a.Out, v)
	}
	if report.Whole() {
		a.print("whole: %s, held against %s of %s", show.Count(int64(report.Entries), "entry", "entries"), show.Count(int64(report.Checkpoints), "checkpoint"), verifier.Origin()) //nolint:gosec // a log of 2^63 entries is not read
		return nil
	}
	for _, f := range report.Findings {
		a.print("%s: %s", f.Kind, show.Text(f.Text))
	}
	return nil
}
