package command

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	auditv1 "a3os.app/proto/gen/go/a3os/audit/v1"
	"a3os.app/proto/gen/go/a3os/audit/v1/auditv1connect"
	"a3os.app/tools/internal/show"
)

const licenceStatePrefix = "LICENCE_STATE_"

func (a *app) licenceGroup() *cobra.Command {
	var file bool
	showCommand := &cobra.Command{
		Use: "show", Short: "Show what the tenant has licensed, and until when (tenant admins and auditors)",
		Long: `show shows the licence that the tenant's own services hold and check by themselves. When it has ended, and its days of grace with it, what is
licensed can't be written any more. Reading, export, the audit log, signing in and taking access away go on in every state.

With --file the signed file itself is printed, to be verified elsewhere.`,
		Example: `  a3 licence show
  a3 licence show --file > licence.json`,
		Args: exactly(),
		RunE: a.doing(func(ctx context.Context, _ []string) error {
			t, err := a.open()
			if err != nil {
				return err
			}
			res, err := ask(ctx, across(t, auditv1connect.NewLicenceServiceClient).GetLicence, &auditv1.GetLicenceRequest{})
			if err != nil {
				return err
			}
			if file {
				_, err := fmt.Fprintln(a.Out, string(res.GetFile()))
				return err
			}
			return a.answer(res, func() error { return a.licence(res) })
		}),
	}
	showCommand.Flags().BoolVar(&file, "file", false, "print the signed file")
	return group("licence", "What the tenant has licensed", showCommand)
}

func (a *app) licence(res *auditv1.GetLicenceResponse) error {
	l := res.GetLicence()
	number := func(n int64) string {
		if n == 0 {
			return ""
		}
		return strconv.FormatInt(n, 10)
	}
	behind := ""
	if res.GetClockBehind() != nil {
		behind = "the clock is behind " + show.Time(res.GetClockBehind()) + ", which was seen: the licence is judged by that time until the clock is right"
	}
	return show.Facts(a.Out,
		"state", strings.ReplaceAll(word(res.GetState(), licenceStatePrefix), "_", " "), "since", show.Time(res.GetSince()), "", res.GetMessage(), "clock", behind,
		"licence", l.GetId(), "serial", number(l.GetSerial()), "plan", l.GetPlan(), "features", strings.Join(l.GetFeatures(), ", "),
		"systems", strings.Join(l.GetConnectors(), ", "), "seats", number(l.GetSeats()),
		"from", show.Time(l.GetValidFrom()), "until", show.Time(l.GetValidUntil()), "days of grace", number(int64(l.GetGraceDays())), "taken", show.Time(res.GetInstalledAt()))
}

func (a *app) usageGroup() *cobra.Command {
	showCommand := &cobra.Command{
		Use: "show", Short: "Show what the next report of use will say, before it is sent (tenant admins and auditors)",
		Long: `show prints what the control plane will be told of how much the tenant uses: numbers, in exactly these lines, as of now. Each report that was
sent is in the audit log: a3 audit list --action licence.usage_reported.`,
		Example: `  a3 usage show`,
		Args:    exactly(),
		RunE: a.doing(func(ctx context.Context, _ []string) error {
			t, err := a.open()
			if err != nil {
				return err
			}
			res, err := ask(ctx, across(t, auditv1connect.NewLicenceServiceClient).GetUsage, &auditv1.GetUsageRequest{})
			if err != nil {
				return err
			}
			return a.answer(res, func() error { return a.usage(res) })
		}),
	}
	return group("usage", "How much the tenant uses, and what is told of it", showCommand)
}

func (a *app) usage(res *auditv1.GetUsageResponse) error {
	var out strings.Builder
	for line := range strings.Lines(res.GetText()) {
		out.WriteString(show.Text(strings.TrimSuffix(line, "\n")) + "\n")
	}
	switch {
	case res.GetOff() != "":
		fmt.Fprintf(&out, "\nNothing is sent: %s.\n", show.Text(res.GetOff()))
	default:
		fmt.Fprintf(&out, "\nIt is sent next at %s, signed with the key of the audit log.\n", show.Time(res.GetNextAt()))
	}
	if res.GetLast() != "" {
		fmt.Fprintf(&out, "The last one was made at %s.\n", show.Time(res.GetLastAt()))
	}
	_, err := fmt.Fprint(a.Out, out.String())
	return err
}
