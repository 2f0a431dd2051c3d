package command

import (
	"context"

	"github.com/spf13/cobra"

	"a3os.app/libs/fault"
	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"
	"a3os.app/proto/gen/go/a3os/iam/v1/iamv1connect"
	"a3os.app/tools/internal/show"
)

const (
	workspaceRolePrefix = "WORKSPACE_ROLE_"
	tenantRolePrefix    = "TENANT_ROLE_"
	userStatePrefix     = "USER_STATE_"
)

func (a *app) workspaceGroup() *cobra.Command {
	list := &cobra.Command{
		Use: "list", Short: "List the workspaces you may see",
		Long:    "list shows the workspaces that you are a member of; a tenant's admins and auditors see all of them.",
		Example: `  a3 workspace list`,
		Args:    exactly(),
		RunE: a.doing(func(ctx context.Context, _ []string) error {
			t, err := a.open()
			if err != nil {
				return err
			}
			all, err := t.workspaces(ctx)
			if err != nil {
				return err
			}
			return a.answer(all, func() error {
				table := show.NewTable("name", "workspace", "owner", "your role", "created")
				for _, w := range all.GetWorkspaces() {
					table.Row(w.GetName(), w.GetId(), owner(w), word(w.GetYourRole(), workspaceRolePrefix), show.Time(w.GetCreatedAt()))
				}
				return a.list(table, "there is no workspace that you may see: an admin makes one with `a3 workspace create`")
			})
		}),
	}
	var ownerName string
	create := &cobra.Command{
		Use: "create NAME", Short: "Make a workspace (tenant admins)",
		Example: `  a3 workspace create payroll
  a3 workspace create payroll --owner carol@acme.example`,
		Args: exactly("NAME"),
		RunE: a.doing(func(ctx context.Context, args []string) error { return a.createWorkspace(ctx, args[0], ownerName) }),
	}
	create.Flags().StringVar(&ownerName, "owner", "", "its owner, by address or id; you, when not given")
	get := &cobra.Command{
		Use: "get [WORKSPACE]", Short: "Show one workspace",
		Example: `  a3 workspace get
  a3 workspace get payroll`,
		Args: cobra.MaximumNArgs(1),
		RunE: a.doing(func(ctx context.Context, args []string) error {
			if len(args) == 1 {
				a.workspace = args[0]
			}
			return a.getWorkspace(ctx)
		}),
	}
	return group("workspace", "Scopes of daily work", list, a.creates(create), get, a.creates(a.transfer()))
}

func owner(w *iamv1.Workspace) string {
	if e := w.GetOwnerEmail(); e != "" {
		return e
	}
	return w.GetOwnerUserId()
}

func (a *app) showWorkspace(w *iamv1.Workspace) error {
	return a.answer(w, func() error {
		return show.Facts(a.Out, "name", w.GetName(), "workspace", w.GetId(), "owner", owner(w),
			"your role", word(w.GetYourRole(), workspaceRolePrefix), "created", show.Time(w.GetCreatedAt()))
	})
}

func (a *app) createWorkspace(ctx context.Context, name, ownerName string) error {
	t, err := a.open()
	if err != nil {
		return err
	}
	req := &iamv1.CreateWorkspaceRequest{Name: name}
	if ownerName != "" {
		if req.OwnerUserId, err = t.findUser(ctx, ownerName); err != nil {
			return err
		}
	}
	w, err := create(ctx, a, across(t, iamv1connect.NewWorkspaceWriteServiceClient).CreateWorkspace, req)
	if err != nil {
		return err
	}
	return a.showWorkspace(w)
}

// getWorkspace asks as a member, and where the caller is none, as somebody who may see the list.
func (a *app) getWorkspace(ctx context.Context) error {
	t, err := a.enter(ctx)
	if err != nil {
		return err
	}
	w, err := ask(ctx, within(t, iamv1connect.NewWorkspaceServiceClient).GetWorkspace, &iamv1.GetWorkspaceRequest{})
	if fault.KindOf(err) == fault.PermissionDenied {
		if listed, lerr := t.lookUpWorkspace(ctx, t.workspace); lerr == nil {
			w, err = listed, nil
		}
	}
	if err != nil {
		return err
	}
	return a.showWorkspace(w)
}

func (a *app) transfer() *cobra.Command {
	var from, to, reason string
	c := &cobra.Command{
		Use: "transfer WORKSPACE --to USER --reason TEXT", Short: "Give a workspace to another owner, on the record (tenant admins)",
		Long: `transfer makes somebody else the owner of a workspace. It takes effect at once, and only if the owner is still the one that was read
before, or the one in --from; the former owner stays as a workspace admin. The reason, 10 to 500 characters, is kept in the audit log.`,
		Example: `  a3 workspace transfer payroll --to dave@acme.example --reason "Carol left the company on 1 November"`,
		Args:    exactly("WORKSPACE"),
		RunE: a.doing(func(ctx context.Context, args []string) error {
			t, err := a.open()
			if err != nil {
				return err
			}
			w, err := t.lookUpWorkspace(ctx, args[0])
			if err != nil {
				return err
			}
			expected := w.GetOwnerUserId()
			if from != "" {
				if expected, err = t.findUser(ctx, from); err != nil {
					return err
				}
			}
			a.again = " --from " + expected
			user, err := t.findUser(ctx, to)
			if err != nil {
				return err
			}
			res, err := create(ctx, a, across(t, iamv1connect.NewAdminWorkspaceServiceClient).TransferWorkspaceOwner, &iamv1.TransferWorkspaceOwnerRequest{
				WorkspaceId: w.GetId(), ExpectedOwnerUserId: expected, ToUserId: user, Reason: reason,
			})
			if err != nil {
				return err
			}
			return a.answer(res, func() error {
				before := res.GetPreviousOwnerUserId()
				if before == w.GetOwnerUserId() {
					before = owner(w)
				}
				return show.Facts(a.Out, "workspace", res.GetWorkspace().GetName(), "owner", owner(res.GetWorkspace()), "owner before", before,
					"transfer", res.GetTransferId(), "at", show.Time(res.GetTransferredAt()))
			})
		}),
	}
	c.Flags().StringVar(&to, "to", "", "the owner to be, by address or id")
	c.Flags().StringVar(&from, "from", "", "the owner that it must still have, by address or id; the present one, when not given")
	c.Flags().StringVar(&reason, "reason", "", "why, 10 to 500 characters")
	_ = c.MarkFlagRequired("to")
	_ = c.MarkFlagRequired("reason")
	return c
}
