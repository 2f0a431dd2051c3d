package command

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/licence"
	"a3os.app/tools/fleet/internal/plane"
	"a3os.app/tools/internal/show"
)

func (a *app) licenceCommand() *cobra.Command {
	key := &cobra.Command{Use: "key", Short: "Print the public keys that licences of this plane are verified with", Args: exactly(), RunE: a.licenceKey}
	show := &cobra.Command{Use: "show TENANT", Short: "Show a tenant's licences, what its set says of the one it holds, and how much it uses", Args: exactly("TENANT"),
		RunE: func(c *cobra.Command, args []string) error { return a.licenceShow(c, args[0]) }}
	var reason string
	install := &cobra.Command{Use: "install FILE --reason TEXT", Short: "Hand a licence that was signed elsewhere to its tenant's set", Args: exactly("FILE"),
		Long: `install hands a licence file to the set of the tenant that it names. It must be signed by the plane's own key, or by one that A3_LICENCE_KEYS
names, for this plane, with a serial greater than that of the tenant's licence before. The set takes it with its next report.`,
		RunE: func(c *cobra.Command, args []string) error { return a.licenceInstall(c, args[0], reason) }}
	install.Flags().StringVar(&reason, "reason", "", "why, 10 to 500 characters, for the plane's record")
	_ = install.MarkFlagRequired("reason")
	return group("licence", "What tenants have licensed", key, a.licenceIssueCommand(), install, show)
}

// dayOrTime reads a moment that somebody typed.
func dayOrTime(flag, said string) (time.Time, error) {
	if at, err := time.Parse(time.DateOnly, said); err == nil {
		return at, nil
	}
	at, err := time.Parse(time.RFC3339, said)
	if err != nil {
		return at, usageError{fmt.Errorf("%s is %q: it is a day, as 2027-06-30, or a time, as 2027-06-30T12:00:00Z", flag, said)}
	}
	return at, nil
}

func (a *app) licenceIssueCommand() *cobra.Command {
	var terms plane.LicenceTerms
	var days int
	var from, until, reason string
	var noUsage bool
	issue := &cobra.Command{Use: "issue TENANT --plan NAME --reason TEXT", Short: "Sign a licence with the plane's key, and hand it to the tenant's set", Args: exactly("TENANT"),
		Long: `issue signs a licence with the plane's own key. It takes the place of the tenant's licence before, whatever that said, once it
has begun to hold. The set takes it with its next
report and checks it by itself, offline. When it has ended, and the days of grace with it, what is licensed can't be written any more:
` + strings.Join(licence.Features(), ", ") + `. Reading, export, the audit log, signing in, and taking access away go on in every state.`,
		Example: `  fleet licence issue acme --plan team --seats 50 --days 365 --grace-days 14 --reason "Order 4711"`,
		RunE: func(c *cobra.Command, args []string) error {
			terms.ReportsUsage = !noUsage
			return a.licenceIssue(c, args[0], terms, days, from, until, reason)
		}}
	f := issue.Flags()
	f.StringVar(&terms.Plan, "plan", "", "name of the plan, for people")
	f.StringSliceVar(&terms.Features, "feature", nil, "features that may be used: "+strings.Join(licence.Features(), ", ")+"; all when empty")
	f.StringSliceVar(&terms.Connectors, "connector", []string{"*"}, "kinds of systems that may be connected: "+strings.Join(licence.Connectors(), ", ")+"; * for every one")
	const seats, year, grace = 25, 365, 14
	f.Int64Var(&terms.Seats, "seats", seats, "people who may be invited or in at once")
	f.IntVar(&days, "days", year, "how long it holds from then")
	f.StringVar(&from, "from", "", "from when it holds, as 2027-06-30 or 2027-06-30T12:00:00Z; until then the set goes by the one before (default now)")
	f.StringVar(&until, "until", "", "until when it holds instead, as 2027-06-30 or 2027-06-30T12:00:00Z")
	f.Int32Var(&terms.GraceDays, "grace-days", grace, "days after its end in which everything goes on, with a warning")
	f.BoolVar(&noUsage, "no-usage-reports", false, "the set reports nothing of its use")
	f.StringVar(&reason, "reason", "", "why, 10 to 500 characters, for the plane's record")
	_, _ = issue.MarkFlagRequired("plan"), issue.MarkFlagRequired("reason")
	return issue
}

func (a *app) licenceKey(*cobra.Command, []string) error {
	p, err := a.plane()
	if err != nil {
		return err
	}
	keys, err := p.LicenceKeys()
	if err != nil {
		return err
	}
	if a.format == "json" {
		return a.json(map[string][]string{"keys": strings.Split(keys, ",")})
	}
	_, err = fmt.Fprintln(a.out, strings.ReplaceAll(keys, ",", "\n"))
	return err
}

func (a *app) licenceIssue(c *cobra.Command, tenant string, terms plane.LicenceTerms, days int, from, until, reason string) error {
	var err error
	terms.From = time.Now()
	if from != "" {
		if terms.From, err = dayOrTime("--from", from); err != nil {
			return err
		}
	}
	if most := plane.LongestYears * 365; days < 1 || days > most {
		return usageError{fmt.Errorf("--days is %d: it is from 1 to %d", days, most)}
	}
	terms.Until = terms.From.AddDate(0, 0, days)
	if until != "" {
		if terms.Until, err = dayOrTime("--until", until); err != nil {
			return err
		}
	}
	p, err := a.plane()
	if err != nil {
		return err
	}
	l, err := p.IssueLicence(c.Context(), tenant, terms, reason)
	if err != nil {
		return err
	}
	return a.licences([]*registryv1.IssuedLicence{l})
}

func (a *app) licenceInstall(c *cobra.Command, file, reason string) error {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return usageError{fmt.Errorf("there is no file %s", file)}
	}
	if err != nil {
		return err
	}
	p, err := a.plane()
	if err != nil {
		return err
	}
	l, err := p.InstallLicence(c.Context(), text, reason)
	if err != nil {
		return err
	}
	return a.licences([]*registryv1.IssuedLicence{l})
}

func (a *app) licences(all []*registryv1.IssuedLicence) error {
	if a.format == "json" {
		return a.json(&registryv1.ListLicencesResponse{Licences: all})
	}
	return a.licenceTable(all)
}

func (a *app) licenceTable(all []*registryv1.IssuedLicence) error {
	var rows [][]string
	for _, i := range all {
		l := i.GetLicence()
		if i.GetRefused() != "" {
			rows = append(rows, []string{strconv.FormatInt(l.GetSerial(), 10), "not believed", "-", "-", "-", "-", "-", "-", i.GetReason()})
			continue
		}
		rows = append(rows, []string{strconv.FormatInt(l.GetSerial(), 10), l.GetPlan(), strings.Join(l.GetFeatures(), ","), strings.Join(l.GetConnectors(), ","),
			strconv.FormatInt(l.GetSeats(), 10), since(l.GetValidFrom()), since(l.GetValidUntil()), strconv.Itoa(int(l.GetGraceDays())), i.GetReason()})
	}
	return a.table([]string{"SERIAL", "PLAN", "FEATURES", "CONNECTORS", "SEATS", "FROM", "UNTIL", "GRACE", "REASON"}, rows)
}

func (a *app) licenceShow(c *cobra.Command, tenant string) error {
	p, err := a.plane()
	if err != nil {
		return err
	}
	res, err := p.Licences(c.Context(), tenant)
	if err != nil {
		return err
	}
	if a.format == "json" {
		return a.json(res)
	}
	if err := a.licenceTable(res.GetLicences()); err != nil {
		return err
	}
	_, _ = fmt.Fprintln(a.out, "\n"+show.Text(heldSentence(res.GetReport())))
	if res.GetUsage() != "" {
		_, _ = fmt.Fprintf(a.out, "\nIts newest report of use, heard %s:\n%s", since(res.GetUsageAt()), res.GetUsage())
	}
	return nil
}

// heldSentence says what a set says of its licence.
func heldSentence(r *registryv1.LicenceReport) string {
	if r == nil {
		return "Its set has not said which licence it holds."
	}
	text := fmt.Sprintf("Its set holds serial %d, %s, since %s.", r.GetSerial(), strings.ReplaceAll(licence.StateWord(r.GetState()), "_", " "), since(r.GetReportedAt()))
	if r.GetClockBehind() {
		text += " Its clock is behind a time that it has seen: put the clock right."
	}
	if r.GetRefused() != "" {
		text += " It refused the last one that it was handed: " + r.GetRefused() + "."
	}
	return text
}
