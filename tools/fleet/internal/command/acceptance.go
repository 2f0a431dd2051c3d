package command

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"a3os.app/deploy/aws"
	"a3os.app/tools/fleet/internal/platform/aws/acceptance"
	"a3os.app/tools/fleet/internal/platform/aws/session"
)

const acceptanceHelp = `Prove in an account of AWS what no emulator shows. It says which account that is, what it will make and what that costs at most, and makes
nothing until the account's number is typed, or was given with --yes. What it makes has names that begin with a3-accept-, and is removed at
its end, also where a point isn't proven, somebody types ctrl-C or the terminal is closed. docs/aws.md lists the points.

Log in as an administrator's role. It takes about half an hour, and as long as its session at AWS lasts it removes what it made: where that ends before, or it is killed, --remove
does, once it was consented to in the same manner.

  fleet aws acceptance --region eu-central-1 --administrator arn:aws:iam::123456789012:role/administrator --prefix-list pl-…
  fleet aws acceptance --remove --region eu-central-1`

// acceptanceFlags are what it is run with, as it is typed.
type acceptanceFlags struct {
	region, administrator, prefixList, yes, prices string
	remove                                         bool
}

func (a *app) acceptanceCommand() *cobra.Command {
	var f acceptanceFlags
	c := &cobra.Command{Use: "acceptance", Short: "Prove in your account what no emulator shows, and remove it", Long: acceptanceHelp, Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error { return a.awsAcceptance(c.Context(), f) }}
	c.Flags().StringVar(&f.region, "region", "", "Region")
	c.Flags().StringVar(&f.administrator, "administrator", "", "ARN of the administrator's role that you are logged in as")
	c.Flags().StringVar(&f.prefixList, "prefix-list", "", "S3's managed prefix list in the Region, pl-…")
	c.Flags().StringVar(&f.yes, "yes", "", "number of the account in which it is made, or removed, without being asked")
	c.Flags().StringVar(&f.prices, "prices", "", "table of prices to use instead of the one that comes along")
	c.Flags().BoolVar(&f.remove, "remove", false, "prove nothing, and remove what a run left that was killed, or whose session ended")
	_ = c.MarkFlagRequired("region")
	return c
}

func (a *app) awsAcceptance(ctx context.Context, f acceptanceFlags) error {
	if !f.remove {
		for _, flag := range []struct{ name, value, form string }{
			{"administrator", f.administrator, "the role that you are logged in as, arn:aws:iam::…:role/…"}, {"prefix-list", f.prefixList, "S3's in the Region, pl-…; docs/aws.md says how it is found"},
		} {
			if flag.value == "" {
				return usageError{fmt.Errorf("--%s is missing: name %s", flag.name, flag.form)}
			}
		}
	}
	prices, err := table("prices", f.prices, "prices.csv", aws.PricesCSV, aws.ParsePrices)
	if err != nil {
		return err
	}
	cfg, err := session.Load(ctx, f.region)
	if err != nil {
		return err
	}
	// Where nobody reads any more what it says, as when ctrl-C ends tee as well, it is not to be killed for saying it, but to remove what it made.
	signal.Ignore(syscall.SIGPIPE)
	do := acceptance.Run
	if f.remove {
		do = acceptance.Remove
	}
	return do(ctx, acceptance.Options{Config: cfg, Administrator: f.administrator, PrefixList: f.prefixList, Yes: f.yes, In: os.Stdin, Terminal: typed(os.Stdin), Out: a.out, Prices: prices})
}

// typed says that somebody can sit at the other end of a file; where nobody does, nothing is typed, and nothing is made.
func typed(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
