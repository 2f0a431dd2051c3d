package command

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/tools/fleet/internal/plan"
)

const planHelp = `plan says what a change will do, stores that, and prints it with its hash; nothing is done. Tenants are chosen by name (--tenant) or by a
label that they have (--label ring=canary, or --wave canary for the same); nothing chooses all of them. A plan is carried out as it stands
or not at all: fleet apply HASH looks at the world again, and names what is no longer as the plan says.`

// planKinds are the kinds of plans, in the order of a set's life.
var planKinds = []struct {
	kind    registryv1.OperationKind
	short   string
	example string
}{
	{registryv1.OperationKind_OPERATION_KIND_PROVISION, "Plan a new tenant", `  fleet plan provision --tenant initech --name "Initech" --reason "order 4711, signed today"`},
	{registryv1.OperationKind_OPERATION_KIND_UPGRADE, "Plan a later release", `  fleet plan upgrade --label ring=canary --release 1.4.0 --reason "release 1.4.0, first ring"`},
	{registryv1.OperationKind_OPERATION_KIND_DOWNGRADE, "Plan an earlier release; the database stays as it is", `  fleet plan downgrade --tenant acme --release 1.3.2 --reason "1.4.0 loses sign-ins, case 4712"`},
	{registryv1.OperationKind_OPERATION_KIND_SUSPEND, "Plan to stop a set; nothing is lost", `  fleet plan suspend --tenant acme --reason "asked for by the customer, case 4713"`},
	{registryv1.OperationKind_OPERATION_KIND_RESUME, "Plan to start a suspended set", `  fleet plan resume --tenant acme --reason "asked for by the customer, case 4713"`},
	{registryv1.OperationKind_OPERATION_KIND_OFFBOARD, "Plan to export, destroy and remove a set; this can't be undone", `  fleet plan offboard --tenant acme --reason "contract ended, case 4714"
  fleet plan offboard --tenant acme --wait 336h --reason "contract ended, case 4714, they asked for two weeks"`},
}

func (a *app) planCommand() *cobra.Command {
	var commands []*cobra.Command
	for _, k := range planKinds {
		commands = append(commands, a.planKind(k.kind, k.short, k.example))
	}
	commands = append(commands, a.planRestore())
	list := &cobra.Command{Use: "list", Short: "List the plans that can still be carried out, the newest first", Args: exactly(), RunE: a.planList}
	show := &cobra.Command{Use: "show HASH", Short: "Show a plan, by its hash or the beginning of it", Args: exactly("HASH"),
		RunE: func(c *cobra.Command, args []string) error {
			p, err := a.plane()
			if err != nil {
				return err
			}
			stored, read, err := p.StoredPlan(c.Context(), args[0])
			if err != nil {
				return err
			}
			return a.plan(stored, read)
		}}
	g := group("plan", "Say what a change will do, before it is done", append(commands, list, show)...)
	g.Long = planHelp
	return g
}

func (a *app) planKind(kind registryv1.OperationKind, short, example string) *cobra.Command {
	r := plan.Request{Kind: kind}
	var tier string
	var accepted, labels []string
	chosen := "(--tenant TENANT | --label NAME=VALUE | --wave RING)…"
	if kind == registryv1.OperationKind_OPERATION_KIND_PROVISION {
		chosen = "--tenant SLUG…"
	}
	c := &cobra.Command{Use: plan.Kind(kind) + " " + chosen + " --reason TEXT", Short: short, Long: short + ".\n\n" + planHelp, Example: example, Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			var err error
			if r.Tier, err = tierOf("--tier", tier); err != nil {
				return err
			}
			for _, word := range accepted {
				t, err := tierOf("--accept-tier", word)
				if err != nil {
					return err
				}
				r.AcceptedTiers = append(r.AcceptedTiers, t)
			}
			if r.Labels, _, err = labelChanges(labels, false); err != nil {
				return err
			}
			return a.planMake(c, r)
		}}
	f := c.Flags()
	f.StringArrayVar(&r.Selection.Tenants, "tenant", nil, "slug or id of a tenant; can be given several times")
	f.StringVar(&r.Reason, "reason", "", "why, 10 to 500 characters; it stays with the operation")
	_ = c.MarkFlagRequired("reason")
	provision := kind == registryv1.OperationKind_OPERATION_KIND_PROVISION
	if provision {
		f.StringVar(&r.DisplayName, "name", "", "name shown; the slug when empty")
		f.StringVar(&tier, "tier", "", "dedicated (a database server of its own) or database; the plane's own when empty")
		f.StringVar(&r.Account, "account", "", "account of AWS that the one new tenant has to itself, twelve digits; its tier is dedicated")
		f.StringVar(&r.CopyOf, "copy-of", "", "tenant, by slug or id, whose backups may be restored to the new one; it stays said")
		f.StringArrayVar(&accepted, "accept-tier", nil, "accept this tier by name where the plane's own is stricter: database")
		f.StringArrayVar(&labels, "set-label", nil, "label of the new tenant, name=value; can be given several times")
	} else {
		f.StringArrayVar(&r.Selection.Labels, "label", nil, "label that tenants have, name=value; can be given several times")
		f.StringArrayVar(&r.Selection.Waves, "wave", nil, "ring that tenants are in: canary, early or general; can be given several times")
	}
	if kind == registryv1.OperationKind_OPERATION_KIND_OFFBOARD {
		f.Var(waitFlag{&r.Wait}, "wait", "how long keys are kept after the export, and the operation can be given up: 720h; the plane's own when empty, 720h in prod and none in dev")
	}
	if provision || kind == registryv1.OperationKind_OPERATION_KIND_UPGRADE || kind == registryv1.OperationKind_OPERATION_KIND_DOWNGRADE {
		f.StringVar(&r.Release, "release", "", "version, or version@sha256:…; what was built beside this program when empty, on planes for development")
	}
	return c
}

func (a *app) planRestore() *cobra.Command {
	r := plan.Request{Kind: registryv1.OperationKind_OPERATION_KIND_RESTORE, Restore: &plan.Restore{}}
	var to string
	const short = "Plan to put a tenant's set back to what it was when a backup was taken; what was written since is given up"
	c := &cobra.Command{Use: "restore --from BACKUP --to TENANT [--replace] --reason TEXT", Short: short, Args: exactly(),
		Long: short + `.

The plan names that very backup, by the digest of its signed manifest, and is refused where another one is under its name then. It restores once; one
that was interrupted is gone on with by fleet apply HASH, run again. Where the set's backup key is gone, who applies it names the file of the recovery key.
The plane's own registry is restored without a plan, for it holds them: see fleet restore --help.

` + planHelp,
		Example: `  fleet plan restore --from 20260901T030000Z-k3f9q2 --to acme --replace --reason "Case 4711: the disk of the database was lost"`,
		RunE: func(c *cobra.Command, _ []string) error {
			r.Selection.Tenants = []string{to}
			return a.planMake(c, r)
		}}
	f := c.Flags()
	f.StringVar(&r.Restore.From, "from", "", "backup: its directory, or its name as fleet backup list shows it")
	f.StringVar(&to, "to", "", "tenant, by slug or id: the backup's own, or one that was made to be a copy of that")
	f.BoolVar(&r.Restore.Replace, "replace", false, "stop the set where it runs, and give up what it has")
	f.StringVar(&r.Restore.RecoveryKey, "recovery-key", "", "file of the recovery key, where the key that signed the backup's manifest was made anew since; who applies the plan names it again")
	f.StringVar(&r.Reason, "reason", "", "why, 10 to 500 characters, for the tenant's own record")
	for _, name := range []string{"from", "to", "reason"} {
		_ = c.MarkFlagRequired(name)
	}
	return c
}

// waitFlag is a duration that nobody need give.
type waitFlag struct{ to **time.Duration }

func (w waitFlag) Set(text string) error {
	d, err := time.ParseDuration(text)
	*w.to = &d
	return err
}

func (w waitFlag) String() string { return "" }

func (w waitFlag) Type() string { return "duration" }

func tierOf(flag, word string) (registryv1.IsolationTier, error) {
	if word == "" {
		return registryv1.IsolationTier_ISOLATION_TIER_UNSPECIFIED, nil
	}
	t, ok := registryv1.IsolationTier_value["ISOLATION_TIER_"+strings.ToUpper(word)]
	if !ok || t == 0 {
		return 0, usageError{fmt.Errorf("%s is %q: it is dedicated or database", flag, word)}
	}
	return registryv1.IsolationTier(t), nil
}

func (a *app) planMake(c *cobra.Command, r plan.Request) error {
	p, err := a.plane()
	if err != nil {
		return err
	}
	stored, made, err := p.Plan(c.Context(), r)
	if err != nil {
		return err
	}
	a.leftOut(made)
	return a.plan(stored, made.Plan)
}

// leftOut says whom a label chose, and the plan leaves out.
func (a *app) leftOut(made *plan.Made) {
	for _, why := range made.LeftOut {
		_, _ = fmt.Fprintf(a.errOut, "· left out: %s\n", why)
	}
}

// plan writes a plan: in words, or as JSON with the plan beside what the registry keeps of it.
func (a *app) plan(stored *registryv1.StoredPlan, p *registryv1.Plan) error {
	if a.format == "json" {
		return a.json(&registryv1.GetPlanResponse{Plan: stored, Read: p})
	}
	return plan.Page(a.out, stored, p)
}

func (a *app) planList(c *cobra.Command, _ []string) error {
	p, err := a.plane()
	if err != nil {
		return err
	}
	all, err := p.Plans(c.Context())
	if err != nil {
		return err
	}
	if a.format == "json" {
		return a.json(&registryv1.ListPlansResponse{Plans: all})
	}
	var rows [][]string
	for _, s := range all {
		read, err := plan.Open(s)
		if err != nil {
			return err
		}
		approved := "-"
		switch {
		case plan.Approved(s) != nil:
			approved = plan.Approved(s).GetActor()
		case s.GetNeedsApproval():
			approved = "needed"
		}
		rows = append(rows, []string{s.GetHash()[:len("sha256:")+16], plan.Kind(read.GetKind()), fmt.Sprint(len(read.GetTenants())),
			strings.Join(read.GetSelectors(), " "), s.GetActor(), approved, s.GetExpiresAt().AsTime().Format(time.RFC3339)})
	}
	return a.table([]string{"PLAN", "DOES", "TENANTS", "CHOSEN BY", "MADE BY", "APPROVED BY", "UNTIL"}, rows)
}

func (a *app) approveCommand() *cobra.Command {
	var reason string
	c := &cobra.Command{Use: "approve HASH --reason TEXT", Short: "Approve another operator's plan", Args: exactly("HASH"),
		Long: `approve is a second person's word for a plan: on a plane prod no plan is carried out without it, and who made the plan can't give it, nor can
anybody whose key the plane's machine holds. Read the plan first, with fleet plan show HASH. Who you are, A3_OPERATOR_DIR says: the directory
of your key, which fleet operator request made, on this machine or any other that reaches the registry.`,
		Example: `  A3_OPERATOR_DIR=~/a3-operator fleet approve sha256:9f2c41d07ab3 --reason "read it, the window is agreed with the customer"`,
		RunE: func(c *cobra.Command, args []string) error {
			p, err := a.plane()
			if err != nil {
				return err
			}
			stored, err := p.Approve(c.Context(), args[0], reason)
			if err != nil {
				return err
			}
			read, err := plan.Open(stored)
			if err != nil {
				return err
			}
			return a.plan(stored, read)
		}}
	c.Flags().StringVar(&reason, "reason", "", "why, 10 to 500 characters")
	_ = c.MarkFlagRequired("reason")
	return c
}

func (a *app) labelCommand() *cobra.Command {
	return &cobra.Command{Use: "label TENANT NAME=VALUE… NAME-…", Short: "Set labels of a tenant, and remove those that end with a hyphen",
		Long: `label sets what tenants are chosen by in plans. The label ring says how early a tenant gets a release: canary, early or general.`,
		Example: `  fleet tenant label acme ring=canary
  fleet tenant label acme region-eu=yes beta-`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) < 2 {
				return usageError{fmt.Errorf("it is called as: %s TENANT NAME=VALUE… NAME-…", c.CommandPath())}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			set, remove, err := labelChanges(args[1:], true)
			if err != nil {
				return err
			}
			p, err := a.plane()
			if err != nil {
				return err
			}
			status, err := p.Label(c.Context(), args[0], set, remove)
			if err != nil {
				return err
			}
			if a.format == "json" {
				return a.json(status)
			}
			return a.tenants([]*registryv1.TenantStatus{status}, p.Settings.URL)
		}}
}

// labelChanges reads `name=value` and, where it may be, `name-`.
func labelChanges(words []string, removes bool) (set map[string]string, remove []string, err error) {
	set = map[string]string{}
	for _, w := range words {
		if name, value, ok := strings.Cut(w, "="); ok && name != "" && value != "" {
			set[name] = value
			continue
		}
		name, ok := strings.CutSuffix(w, "-")
		if !ok || name == "" || !removes {
			return nil, nil, usageError{fmt.Errorf("%q is not a label: write name=value, or name- to remove one", w)}
		}
		remove = append(remove, name)
	}
	slices.Sort(remove)
	return set, remove, nil
}
