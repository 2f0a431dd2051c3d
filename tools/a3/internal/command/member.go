package command

import (
	"context"
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"
	"a3os.app/proto/gen/go/a3os/iam/v1/iamv1connect"
	"a3os.app/tools/internal/show"
)

func (a *app) memberGroup() *cobra.Command {
	list := &cobra.Command{
		Use: "list", Short: "List who is in the workspace",
		Example: `  a3 member list --workspace payroll`,
		Args:    exactly(),
		RunE: a.doing(func(ctx context.Context, _ []string) error {
			t, err := a.enter(ctx)
			if err != nil {
				return err
			}
			all, err := t.members(ctx)
			if err != nil {
				return err
			}
			return a.answer(all, func() error {
				table := show.NewTable("who", "role", "principal", "since")
				for _, m := range all.GetMembers() {
					table.Row(m.GetDisplayName(), word(m.GetRole(), workspaceRolePrefix), m.GetPrincipalId(), show.Time(m.GetAddedAt()))
				}
				return a.list(table, "the workspace has no members")
			})
		}),
	}
	var asRole string
	add := &cobra.Command{
		Use: "add USER --role ROLE", Short: "Let a user or service account of the tenant into the workspace",
		Example: `  a3 member add dave@acme.example --role viewer
  a3 member add svc_01h455vb4pex5vsknk084sn02q --role member`,
		Args: exactly("USER"),
		RunE: a.doing(func(ctx context.Context, args []string) error {
			r, err := memberRole(asRole)
			if err != nil {
				return err
			}
			t, err := a.enter(ctx)
			if err != nil {
				return err
			}
			m, err := create(ctx, a, within(t, iamv1connect.NewMemberWriteServiceClient).AddMember,
				&iamv1.AddMemberRequest{Principal: args[0], Role: r})
			return a.showMember(m, err)
		}),
	}
	a.roleFlag(add, &asRole)
	remove := &cobra.Command{
		Use: "remove USER", Short: "Take a member out of the workspace, within 5 seconds",
		Example: `  a3 member remove dave@acme.example`,
		Args:    exactly("USER"),
		RunE: a.doing(func(ctx context.Context, args []string) error {
			t, err := a.enter(ctx)
			if err != nil {
				return err
			}
			p, err := t.findMember(ctx, args[0])
			if err != nil {
				return err
			}
			res, err := ask(ctx, within(t, iamv1connect.NewMemberWriteServiceClient).RemoveMember, &iamv1.RemoveMemberRequest{PrincipalId: p})
			if err != nil {
				return err
			}
			return a.answer(res, func() error {
				a.print("%s is no longer a member", show.Text(args[0]))
				return nil
			})
		}),
	}
	var toRole string
	setRole := &cobra.Command{
		Use: "set-role USER --role ROLE", Short: "Change what a member may do",
		Example: `  a3 member set-role dave@acme.example --role admin`,
		Args:    exactly("USER"),
		RunE: a.doing(func(ctx context.Context, args []string) error {
			r, err := memberRole(toRole)
			if err != nil {
				return err
			}
			t, err := a.enter(ctx)
			if err != nil {
				return err
			}
			p, err := t.findMember(ctx, args[0])
			if err != nil {
				return err
			}
			m, err := ask(ctx, within(t, iamv1connect.NewMemberWriteServiceClient).SetMemberRole,
				&iamv1.SetMemberRoleRequest{PrincipalId: p, Role: r})
			return a.showMember(m, err)
		}),
	}
	a.roleFlag(setRole, &toRole)
	return group("member", "Who is in a workspace", list, a.creates(add), remove, setRole)
}

// roleFlag is a role below owner: ownership is transferred.
func (a *app) roleFlag(c *cobra.Command, into *string) {
	c.Flags().StringVar(into, "role", "", "admin, member (runs discovery) or viewer (reads)")
	_ = c.MarkFlagRequired("role")
	complete(c, "role", func(string) []string { return words(workspaceRolePrefix, iamv1.WorkspaceRole_value)[1:] })
}

func memberRole(word string) (iamv1.WorkspaceRole, error) {
	n, err := role(word, workspaceRolePrefix, iamv1.WorkspaceRole_value)
	if iamv1.WorkspaceRole(n) == iamv1.WorkspaceRole_WORKSPACE_ROLE_OWNER {
		return 0, usage(errors.New("a workspace has one owner: a tenant admin changes it with `a3 workspace transfer`"))
	}
	return iamv1.WorkspaceRole(n), err
}

func (a *app) showMember(m *iamv1.Member, err error) error {
	if err != nil {
		return err
	}
	return a.answer(m, func() error {
		a.print("%s is %s", show.Text(m.GetDisplayName()), word(m.GetRole(), workspaceRolePrefix))
		return nil
	})
}

func (t *tenant) members(ctx context.Context) (*iamv1.ListMembersResponse, error) {
	c := within(t, iamv1connect.NewMemberServiceClient)
	return whole(0, func(size int32, token string) (*iamv1.ListMembersResponse, error) {
		return ask(ctx, c.ListMembers, &iamv1.ListMembersRequest{PageSize: size, PageToken: token})
	}, func(r *iamv1.ListMembersResponse) (*[]*iamv1.Member, *string) { return &r.Members, &r.NextPageToken })
}

// findMember is a member of the workspace by id, address or name.
func (t *tenant) findMember(ctx context.Context, name string) (string, error) {
	if _, err := id.ParseUser(name); err == nil {
		return name, nil
	}
	if _, err := id.ParseServiceAccount(name); err == nil {
		return name, nil
	}
	all, err := t.members(ctx)
	if err != nil {
		return "", err
	}
	for _, m := range all.GetMembers() {
		if strings.EqualFold(m.GetDisplayName(), name) {
			return m.GetPrincipalId(), nil
		}
	}
	return "", fault.New(fault.NotFound, "%q is no member of the workspace: look at `a3 member list`", name)
}
