package command

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"
	"a3os.app/proto/gen/go/a3os/integrations/v1/integrationsv1connect"
	"a3os.app/tools/internal/show"
)

// reachWithin is how long a system may take to answer a test, and content to be uploaded.
const reachWithin = time.Minute

func (a *app) integrationGroup() *cobra.Command {
	list := &cobra.Command{
		Use: "list", Short: "List the systems that the workspace is connected to",
		Example: `  a3 integration list`,
		Args:    exactly(),
		RunE: a.doing(func(ctx context.Context, _ []string) error {
			t, err := a.enter(ctx)
			if err != nil {
				return err
			}
			all, err := t.integrations(ctx)
			if err != nil {
				return err
			}
			return a.answer(all, func() error {
				table := show.NewTable("name", "connector", "system", "schedule", "last run", "at", "integration")
				for _, i := range all.GetIntegrations() {
					l := i.GetLastRun()
					table.Row(i.GetName(), i.GetConnector(), system(i.GetSettings()), schedule(i), word(l.GetState(), runStatePrefix), show.Time(l.GetFinishedAt()), i.GetId())
				}
				return a.list(table, "no system is connected yet: connect one with `a3 integration add`")
			})
		}),
	}
	get := &cobra.Command{
		Use: "get INTEGRATION", Short: "Show one connection",
		Example: `  a3 integration get shop-db`,
		Args:    exactly("INTEGRATION"),
		RunE: a.doing(func(ctx context.Context, args []string) error {
			t, i, err := a.integration(ctx, args[0])
			if err != nil {
				return err
			}
			res, err := ask(ctx, within(t, integrationsv1connect.NewIntegrationServiceClient).GetIntegration, &integrationsv1.GetIntegrationRequest{IntegrationId: i})
			if err != nil {
				return err
			}
			return a.showIntegration(res)
		}),
	}
	test := &cobra.Command{
		Use: "test INTEGRATION", Short: "Reach the system with the stored settings and secret",
		Long:    "test has the tenant's worker reach the system, and says what happened. It fails when the system can't be read.",
		Example: `  a3 integration test shop-db`,
		Args:    exactly("INTEGRATION"),
		RunE:    a.doing(func(ctx context.Context, args []string) error { return a.testIntegration(ctx, args[0]) }),
	}
	remove := &cobra.Command{
		Use: "remove INTEGRATION", Short: "Remove a connection, its secret and its content; what it found stays in the history",
		Example: `  a3 integration remove shop-db`,
		Args:    exactly("INTEGRATION"),
		RunE: a.doing(func(ctx context.Context, args []string) error {
			t, i, err := a.integration(ctx, args[0])
			if err != nil {
				return err
			}
			res, err := ask(ctx, within(t, integrationsv1connect.NewIntegrationWriteServiceClient).DeleteIntegration, &integrationsv1.DeleteIntegrationRequest{IntegrationId: i})
			if err != nil {
				return err
			}
			return a.answer(res, func() error {
				a.print("%s is removed", show.Text(args[0]))
				return nil
			})
		}),
	}
	return group("integration", "Systems whose access is discovered", list, a.creates(a.addIntegration()), test, get, remove)
}

// integration readies the workspace and finds an integration in it.
func (a *app) integration(ctx context.Context, name string) (*tenant, string, error) {
	t, err := a.enter(ctx)
	if err != nil {
		return nil, "", err
	}
	i, err := t.findIntegration(ctx, name)
	return t, i, err
}

func (t *tenant) integrations(ctx context.Context) (*integrationsv1.ListIntegrationsResponse, error) {
	c := within(t, integrationsv1connect.NewIntegrationServiceClient)
	return whole(0, func(size int32, token string) (*integrationsv1.ListIntegrationsResponse, error) {
		return ask(ctx, c.ListIntegrations, &integrationsv1.ListIntegrationsRequest{PageSize: size, PageToken: token})
	}, func(r *integrationsv1.ListIntegrationsResponse) (*[]*integrationsv1.Integration, *string) {
		return &r.Integrations, &r.NextPageToken
	})
}

// findIntegration is the id of an integration by id or name.
func (t *tenant) findIntegration(ctx context.Context, name string) (string, error) {
	if _, err := id.ParseIntegration(name); err == nil {
		return name, nil
	}
	all, err := t.integrations(ctx)
	if err != nil {
		return "", err
	}
	for _, i := range all.GetIntegrations() {
		if i.GetName() == name {
			return i.GetId(), nil
		}
	}
	return "", fault.New(fault.NotFound, "there is no integration %q in the workspace: look at `a3 integration list`", name)
}

// system is what an integration connects to, in words.
func system(s *integrationsv1.Settings) string {
	switch c := s.GetConnector().(type) {
	case *integrationsv1.Settings_Postgres:
		p := c.Postgres
		return fmt.Sprintf("%s@%s:%d/%s (%s)", p.GetUser(), p.GetHost(), p.GetPort(), p.GetDatabase(), p.GetSslMode())
	case *integrationsv1.Settings_Unix:
		if h := c.Unix.GetHostName(); h != "" {
			return h
		}
		return "the worker's machine"
	case *integrationsv1.Settings_Csv:
		return c.Csv.GetSystemName()
	}
	return ""
}

func schedule(i *integrationsv1.Integration) string {
	if d := i.GetSchedule().AsDuration(); d > 0 {
		return "every " + show.Span(d)
	}
	return "when asked"
}

func (a *app) showIntegration(i *integrationsv1.Integration) error {
	return a.answer(i, func() error {
		secret, content, last := "none", "", ""
		if i.GetHasSecret() {
			secret = "stored"
		}
		if n := i.GetContentSize(); n > 0 {
			content = show.Count(n, "byte")
		}
		if l := i.GetLastRun(); l != nil {
			last = fmt.Sprintf("%s at %s (%s)", word(l.GetState(), runStatePrefix), show.Time(l.GetFinishedAt()), l.GetRunId())
		}
		var columns []string
		for _, c := range i.GetSettings().GetCsv().GetColumns() {
			columns = append(columns, c.GetHeader()+"="+word(c.GetField(), csvFieldPrefix))
		}
		return show.Facts(a.Out, "name", i.GetName(), "integration", i.GetId(), "connector", i.GetConnector(), "system", system(i.GetSettings()),
			"columns", strings.Join(columns, ", "), "secret", secret, "content", content, "schedule", schedule(i), "last run", last,
			"created", show.Time(i.GetCreatedAt()))
	})
}

func (a *app) testIntegration(ctx context.Context, name string) error {
	t, i, err := a.integration(ctx, name)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, reachWithin)
	defer cancel()
	res, err := ask(ctx, within(t, integrationsv1connect.NewIntegrationWriteServiceClient).TestIntegration, &integrationsv1.TestIntegrationRequest{IntegrationId: i})
	if err != nil {
		return err
	}
	err = a.answer(res, func() error {
		if res.GetOk() {
			a.print("ok: %s", show.Text(res.GetMessage()))
		}
		for _, m := range res.GetMissing() {
			a.print("can't be read: %s", show.Text(m))
		}
		return nil
	})
	if err == nil && !res.GetOk() {
		return errors.New(res.GetMessage())
	}
	return err
}
