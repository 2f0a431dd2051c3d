package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"a3os.app/tools/fleet/internal/isolation"
	"a3os.app/tools/fleet/internal/plane"
	"a3os.app/tools/internal/show"
)

const verifyHelp = `Try, with each set's own credentials, every door of every other set, of the plane, and of its siblings: certificates and tokens at every
service, logins at every database, every table of a sibling's schema, the queue, stores, keys and files, reports in another's name, and
confused hosts at the gateway. Each has to be refused, and each has a control beside it: the same door with the right credential.

A signed report (JSON, DSSE with Ed25519) and a page to read are written. The exit code is 0 where everything was refused and every
control worked, and 1 otherwise. Nothing is changed.`

func (a *app) isolationCommand() *cobra.Command {
	var tenants []string
	var out, key string
	verify := &cobra.Command{Use: "verify", Short: "Try every door of every set with every other's credentials, and sign what came of it", Long: verifyHelp, Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error { return a.isolationVerify(c, tenants, out) }}
	verify.Flags().StringSliceVar(&tenants, "tenant", nil, "tenants to try, by slug or id; all when empty")
	verify.Flags().StringVar(&out, "out", "", "directory for the report; reports/ of the plane's home when empty")
	check := &cobra.Command{Use: "check REPORT", Short: "Verify a signed report offline, and show what it says", Args: exactly("REPORT"),
		RunE: func(c *cobra.Command, args []string) error { return a.isolationCheck(c.Context(), args[0], key) }}
	check.Flags().StringVar(&key, "key", "", "verifier key of the plane, or a file that holds it; this machine's own plane's when empty")
	return group("isolation", "Proof that tenants can't reach each other", verify, check)
}

// errNotIsolated ends a command whose report says so already.
var errNotIsolated = errors.New("isolation is not proven: see the report")

func (a *app) isolationVerify(c *cobra.Command, tenants []string, out string) error {
	p, err := a.plane()
	if err != nil {
		return err
	}
	proof, err := p.VerifyIsolation(c.Context(), tenants, out, plane.ProgressTo(reporter{a.errOut}.Note))
	if err != nil {
		return err
	}
	return a.isolationReport(proof.Report, proof.JSON, proof.HTML, proof.Key)
}

func (a *app) isolationCheck(ctx context.Context, file, key string) error {
	signed, err := os.ReadFile(file)
	if err != nil {
		return usageError{fmt.Errorf("read the report: %w", err)}
	}
	if text, err := os.ReadFile(key); err == nil {
		key = string(text)
	}
	if key == "" {
		p, err := a.plane()
		if err != nil {
			return err
		}
		if key, err = p.ProofVerifier(); err != nil {
			return err
		}
	}
	report, err := isolation.Open(ctx, signed, key)
	if err != nil {
		return err
	}
	return a.isolationReport(report, "", "", key)
}

func (a *app) isolationReport(r *isolation.Report, jsonFile, page, key string) error {
	if a.format == "json" {
		if err := a.json(r); err != nil {
			return err
		}
	} else if err := a.isolationTable(r, jsonFile, page, key); err != nil {
		return err
	}
	if !r.Held() {
		return errNotIsolated
	}
	return nil
}

func (a *app) isolationTable(r *isolation.Report, jsonFile, page, key string) error {
	_, _ = fmt.Fprintf(a.out, "%s\n\nplane %s, %d tenants, release %s, %s, took %s\n\n", r.Verdict(), r.Plane, len(r.Tenants), r.Release,
		r.Began.Format(time.RFC3339), r.Ended.Sub(r.Began).Round(100*time.Millisecond))
	var rows [][]string
	for _, w := range r.Walls {
		rows = append(rows, []string{w.Wall, strconv.Itoa(w.Attempts), strconv.Itoa(w.Refused), strconv.Itoa(w.Holes), strconv.Itoa(w.Unproven)})
	}
	if err := a.table([]string{"WALL", "ATTEMPTS", "REFUSED", "HOLES", "UNPROVEN"}, rows); err != nil {
		return err
	}
	for _, gap := range r.Gaps {
		_, _ = fmt.Fprintln(a.out, "\nNot shown:", gap)
	}
	const most = 20
	failures := r.Failures()
	for _, x := range failures[:min(len(failures), most)] {
		_, _ = fmt.Fprintf(a.out, "\n%s: %s at %s: %s\n  answer:  %s\n  control: %s: %s\n", x.Outcome, x.From, x.At, x.Attempt, show.Text(x.Answer), x.Control, show.Text(x.ControlAnswer))
	}
	if len(failures) > most {
		_, _ = fmt.Fprintf(a.out, "\n… and %d more in the report\n", len(failures)-most)
	}
	if jsonFile != "" {
		_, _ = fmt.Fprintf(a.out, "\nsigned report: %s\nto read:       %s\nverify with:   fleet isolation check %s --key '%s'\n", jsonFile, page, jsonFile, key)
	}
	return nil
}
