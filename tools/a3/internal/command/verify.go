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
	"a3os.app/tools/a3/internal/show"
	"a3os.app/tools/a3/internal/witness"
)

func (a *app) verifyCommand() *cobra.Command {
	var key string
	c := &cobra.Command{
		Use: "verify", Short: "Prove that the log is whole, and grew from what it was when last verified",
		Long: `verify reads the whole log, computes its tree anew and compares it with every signed checkpoint, and with the one that it remembers from
the last time in $A3_HOME/audit. It fails, naming the first entry or interval that is wrong, if anything was changed, removed, moved,
put in or cut off. The log's key is trusted when it is first seen, unless --verifier-key says which to trust.`,
		Example: `  a3 audit verify
  a3 audit verify --verifier-key "$(cat acme-log.vkey)"`,
		Args: exactly(),
		RunE: a.doing(func(ctx context.Context, _ []string) error { return a.verify(ctx, key) }),
	}
	c.Flags().StringVar(&key, "verifier-key", "", "key that the log must be signed with")
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

func (a *app) verify(ctx context.Context, demanded string) error {
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
	if errors.Is(err, tlog.ErrEmpty) && (memory == nil || memory.Checkpoint == "") {
		return a.emptyLog()
	}
	if err != nil && !errors.Is(err, tlog.ErrEmpty) {
		return err
	}
	verifier, err := trusted(memory, file, demanded, now.GetVerifierKey())
	if err != nil {
		return err
	}
	remembered := ""
	if memory != nil {
		remembered = memory.Checkpoint
	}
	report, err := tlog.Verify(ctx, tlog.Remote(client), verifier, remembered)
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
	v := verdict{
		Whole: report.Whole(), Entries: report.Entries, Checkpoints: report.Checkpoints, Origin: verifier.Origin(),
		Checkpoint: report.Newest.Note, VerifierKey: verifier.String(), Findings: []finding{},
	}
	for _, f := range report.Findings {
		v.Findings = append(v.Findings, finding(f))
	}
	if a.json() {
		if err := show.JSON(a.Out, v); err != nil {
			return err
		}
	} else if v.Whole {
		a.print("whole: %s, held against %s of %s", show.Count(int64(v.Entries), "entry", "entries"), show.Count(int64(v.Checkpoints), "checkpoint"), v.Origin) //nolint:gosec // a log of 2^63 entries is not read
		if before == nil {
			a.print("first time: its key is trusted from now on (%s), and its checkpoint remembered in %s", v.VerifierKey, file)
		}
	} else {
		for _, f := range v.Findings {
			a.print("%s: %s", f.Kind, show.Text(f.Text))
		}
	}
	if v.Whole {
		return nil
	}
	return fmt.Errorf("the audit log is not whole (%s from entry %d on): keep %s, which has the last checkpoint that held, and find out who can write to the log's database",
		v.Findings[0].Kind, v.Findings[0].From, file)
}
