package command

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"a3os.app/libs/id"
	"a3os.app/libs/tlog"
	auditv1 "a3os.app/proto/gen/go/a3os/audit/v1"
	"a3os.app/proto/gen/go/a3os/audit/v1/auditv1connect"
	"a3os.app/tools/a3/internal/witness"
	"a3os.app/tools/internal/show"
)

func (a *app) proveCommand() *cobra.Command {
	return &cobra.Command{
		Use: "prove EVENT", Short: "Print a proof that an event is in the log",
		Long: `prove prints a proof that anyone can verify who has the log's key, now or in years, without asking anybody (C2SP tlog-proof). The event
itself, a serialized a3os.audit.v1.Leaf, is the proof's extra data; its hash by RFC 6962 is what the proof is about.`,
		Example: `  a3 audit prove evt_01h455vb4pex5vsknk084sn02q > transfer.tlog-proof`,
		Args:    exactly("EVENT"),
		RunE:    a.doing(func(ctx context.Context, args []string) error { return a.prove(ctx, args[0]) }),
	}
}

// proven is a proof, for programs.
type proven struct {
	EventID     string `json:"event_id"`
	Index       uint64 `json:"index"`
	Proof       string `json:"proof"`
	VerifierKey string `json:"verifier_key"`
}

func (a *app) prove(ctx context.Context, event string) error {
	if _, err := id.ParseEvent(event); err != nil {
		return usage(fmt.Errorf("EVENT: %w; `a3 audit list -o json` has the ids", err))
	}
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
	if err != nil {
		return err
	}
	verifier, err := trusted(memory, file, "", now.GetVerifierKey())
	if err != nil {
		return err
	}
	in, err := ask(ctx, client.GetInclusionProof, &auditv1.GetInclusionProofRequest{EventId: event})
	if err != nil {
		return err
	}
	p := tlog.Proof{Leaf: in.GetEvent().GetLeaf(), Index: uint64(in.GetEvent().GetIndex()), Hashes: in.GetHashes(), Checkpoint: in.GetCheckpoint()} //nolint:gosec // verified below
	if _, err := p.Verify(verifier); err != nil {
		return fmt.Errorf("the log's proof does not hold, run `a3 audit verify`: %w", err)
	}
	if _, found, err := tlog.ParseLeaf(p.Leaf); err != nil || found.GetId() != event {
		return fmt.Errorf("the log proved event %q instead of %s, run `a3 audit verify`", found.GetId(), event)
	}
	if a.json() {
		return show.JSON(a.Out, proven{EventID: event, Index: p.Index, Proof: string(p.Marshal()), VerifierKey: verifier.String()})
	}
	_, err = a.Out.Write(p.Marshal())
	return err
}
