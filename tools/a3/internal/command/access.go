package command

import (
	"context"
	"fmt"
	"regexp"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	"a3os.app/proto/gen/go/a3os/discovery/v1/discoveryv1connect"
	"a3os.app/tools/internal/show"
)

// question is what all access commands can be told.
type question struct {
	asOf        string
	entitlement string
	limit       int
}

func (a *app) accessGroup() *cobra.Command {
	return group("access", "Who has access to what, and why", a.accessList(), a.accessWho(), a.accessWhy(), a.accessShow())
}

// asking gives an access command its flags.
func (q *question) asking(c *cobra.Command, limit int, entitlement bool) *cobra.Command {
	c.Flags().StringVar(&q.asOf, "as-of", "", "answer as of this time: 2026-11-01, 2026-11-01T09:30:00Z, or as an age: 36h")
	c.Flags().IntVar(&q.limit, "limit", limit, "at most this many; 0 for all")
	if entitlement {
		c.Flags().StringVarP(&q.entitlement, "entitlement", "e", "", "only this entitlement, as SELECT")
	}
	c.PreRunE = func(*cobra.Command, []string) error {
		if q.limit < 0 {
			return fmt.Errorf("--limit is %d: it is a number of rows, or 0 for all", q.limit)
		}
		return nil
	}
	return c
}

// aType is what a type of resource looks like.
var aType = regexp.MustCompile(`^[a-z][a-z0-9_]{0,39}$`)

func (a *app) accessList() *cobra.Command {
	var q question
	var kind, search string
	var accounts bool
	c := &cobra.Command{
		Use: "list", Short: "List what was found: accounts, groups, tables, apps",
		Example: `  a3 access list --type table
  a3 access list --search payroll
  a3 access list --accounts`,
		Args: exactly(),
		RunE: a.doing(func(ctx context.Context, _ []string) error {
			if kind != "" && !aType.MatchString(kind) {
				return usage(fmt.Errorf("--type %q is no type: types are lower-case words, as table or ssh_key", kind))
			}
			asOf, err := a.instant("--as-of", q.asOf)
			if err != nil {
				return err
			}
			t, err := a.enter(ctx)
			if err != nil {
				return err
			}
			client := within(t, discoveryv1connect.NewAccessServiceClient)
			all, err := whole(q.limit, func(size int32, token string) (*discoveryv1.ListResourcesResponse, error) {
				return ask(ctx, client.ListResources, &discoveryv1.ListResourcesRequest{
					PageSize: size, PageToken: token, Type: kind, Search: search, AccountsOnly: accounts, AsOf: asOf,
				})
			}, func(r *discoveryv1.ListResourcesResponse) (*[]*discoveryv1.ResourceView, *string) {
				return &r.Resources, &r.NextPageToken
			})
			if err != nil {
				return err
			}
			return a.answer(all, func() error { return a.showResources(all) })
		}),
	}
	c.Flags().StringVar(&kind, "type", "", "only this type: user, group, role, table, app, …")
	c.Flags().StringVar(&search, "search", "", "only what has this in its name or id")
	c.Flags().BoolVar(&accounts, "accounts", false, "only accounts")
	return q.asking(c, 200, false)
}

func (a *app) showResources(all *discoveryv1.ListResourcesResponse) error {
	table := show.NewTable("system", "type", "id", "name", "person", "since")
	for _, r := range all.GetResources() {
		table.Row(r.GetIntegrationName(), r.GetType(), r.GetExternalId(), r.GetDisplayName()+standing(r), r.GetPerson().GetDisplayName(), show.Time(r.GetSince()))
	}
	table.Sort()
	a.more(all.GetNextPageToken())
	if err := a.list(table, "nothing like that was found"); err != nil {
		return err
	}
	a.footer(all.GetCompleteness())
	return nil
}

func (a *app) accessWho() *cobra.Command {
	var q question
	c := &cobra.Command{
		Use: "who RESOURCE", Short: "Show the people and accounts that have access to a resource",
		Long: `who answers which accounts, and whose, have access to a resource, and how: granted to the account itself (direct), through groups,
roles and what they entail (via 2 steps), or only after the account acts, as by SET ROLE or sudo (by acting).

RESOURCE is an id (res_…), or a name that only one thing goes by; type:name and system/type:name tell things of one name apart.`,
		Example: `  a3 access who app.public.orders
  a3 access who table:app.public.orders --entitlement SELECT
  a3 access who hr/app:Payroll --as-of 2026-10-01`,
		Args: exactly("RESOURCE"),
		RunE: a.doing(func(ctx context.Context, args []string) error {
			asOf, err := a.instant("--as-of", q.asOf)
			if err != nil {
				return err
			}
			t, err := a.enter(ctx)
			if err != nil {
				return err
			}
			client := within(t, discoveryv1connect.NewAccessServiceClient)
			all, err := whole(q.limit, func(size int32, token string) (*discoveryv1.ListHoldersResponse, error) {
				return ask(ctx, client.ListHolders, &discoveryv1.ListHoldersRequest{
					Resource: args[0], Entitlement: q.entitlement, AsOf: asOf, PageSize: size, PageToken: token,
				})
			}, func(r *discoveryv1.ListHoldersResponse) (*[]*discoveryv1.Holder, *string) {
				return &r.Holders, &r.NextPageToken
			})
			if err != nil {
				return err
			}
			return a.answer(all, func() error { return a.showHolders(all, q.entitlement) })
		}),
	}
	return q.asking(c, 0, true)
}

func (a *app) accessWhy() *cobra.Command {
	var q question
	c := &cobra.Command{
		Use: "why PRINCIPAL RESOURCE", Short: "Explain how somebody has access: every path, shortest first",
		Long: `why prints every path from a principal to a resource, shortest first, with what the system itself says of each step.

PRINCIPAL is an account, a person (per_…), an address or a name; RESOURCE as in "a3 access who".`,
		Example: `  a3 access why alice app.public.orders
  a3 access why alice@acme.example table:app.public.orders --entitlement SELECT`,
		Args: exactly("PRINCIPAL", "RESOURCE"),
		RunE: a.doing(func(ctx context.Context, args []string) error {
			asOf, err := a.instant("--as-of", q.asOf)
			if err != nil {
				return err
			}
			t, err := a.enter(ctx)
			if err != nil {
				return err
			}
			const most = 1000
			if q.limit <= 0 || q.limit > most {
				q.limit = most
			}
			ctx, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			res, err := ask(ctx, within(t, discoveryv1connect.NewAccessServiceClient).ExplainAccess, &discoveryv1.ExplainAccessRequest{
				Principal: args[0], Resource: args[1], Entitlement: q.entitlement, AsOf: asOf, MaxPaths: int32(q.limit), //nolint:gosec // at most 1000
			})
			if err != nil {
				return err
			}
			return a.answer(res, func() error { return a.showPaths(res, args[0], q.entitlement) })
		}),
	}
	return q.asking(c, 100, true)
}

func (a *app) accessShow() *cobra.Command {
	var q question
	c := &cobra.Command{
		Use: "show PRINCIPAL", Short: "Show everything that somebody has access to",
		Long:    `show answers everything that an account, or a person with all accounts, reaches, and how. PRINCIPAL is as in "a3 access why".`,
		Example: `  a3 access show alice@acme.example`,
		Args:    exactly("PRINCIPAL"),
		RunE: a.doing(func(ctx context.Context, args []string) error {
			asOf, err := a.instant("--as-of", q.asOf)
			if err != nil {
				return err
			}
			t, err := a.enter(ctx)
			if err != nil {
				return err
			}
			client := within(t, discoveryv1connect.NewAccessServiceClient)
			all, err := whole(q.limit, func(size int32, token string) (*discoveryv1.ListAccessResponse, error) {
				return ask(ctx, client.ListAccess, &discoveryv1.ListAccessRequest{Principal: args[0], AsOf: asOf, PageSize: size, PageToken: token})
			}, func(r *discoveryv1.ListAccessResponse) (*[]*discoveryv1.Reach, *string) {
				return &r.Reaches, &r.NextPageToken
			})
			if err != nil {
				return err
			}
			return a.answer(all, func() error { return a.showReaches(all, args[0]) })
		}),
	}
	return q.asking(c, 0, false)
}

// instant reads a time of a flag: RFC 3339, a day (from its start, in the reader's zone), or an age. Empty is no time.
func (a *app) instant(flag, s string) (*timestamppb.Timestamp, error) {
	if s == "" {
		return nil, nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return timestamppb.New(t), nil
	}
	if t, err := time.ParseInLocation(time.DateOnly, s, time.Local); err == nil {
		return timestamppb.New(t), nil
	}
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return timestamppb.New(a.now().Add(-d)), nil
	}
	return nil, usage(fmt.Errorf("%s %q is no time: write 2026-11-01, 2026-11-01T09:30:00Z, or an age as 36h", flag, s))
}
