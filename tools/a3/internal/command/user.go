package command

import (
	"context"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"
	"a3os.app/proto/gen/go/a3os/iam/v1/iamv1connect"
	"a3os.app/tools/internal/show"
)

func (a *app) userGroup() *cobra.Command {
	var limit int
	list := &cobra.Command{
		Use: "list", Short: "List the tenant's users (tenant admins and auditors)",
		Example: `  a3 user list`,
		Args:    exactly(),
		RunE: a.doing(func(ctx context.Context, _ []string) error {
			t, err := a.open()
			if err != nil {
				return err
			}
			all, err := t.users(ctx, limit)
			if err != nil {
				return err
			}
			return a.answer(all, func() error {
				table := show.NewTable("address", "name", "state", "tenant role", "user", "invited")
				for _, u := range all.GetUsers() {
					table.Row(u.GetEmail(), u.GetDisplayName(), word(u.GetState(), userStatePrefix), word(u.GetTenantRole(), tenantRolePrefix), u.GetId(), show.Time(u.GetCreatedAt()))
				}
				a.more(all.GetNextPageToken())
				return a.list(table, "the tenant has no users")
			})
		}),
	}
	list.Flags().IntVar(&limit, "limit", 0, "at most this many; 0 for all")
	var name, asRole string
	invite := &cobra.Command{
		Use: "invite ADDRESS", Short: "Invite a user and print the one-time setup code to hand over (tenant admins)",
		Long: `invite makes a user, or a new code for one who has not come in yet. The code works once, for 15 minutes, and is shown only now: hand
it over by a way that you trust. The invited person uses it with "a3 login --url URL --setup-code -".`,
		Example: `  a3 user invite dave@acme.example --name "Dave Doe"
  a3 user invite erin@acme.example --tenant-role auditor`,
		Args: exactly("ADDRESS"),
		RunE: a.doing(func(ctx context.Context, args []string) error {
			r, err := tenantRole(asRole)
			if err != nil {
				return err
			}
			if name == "" {
				name, _, _ = strings.Cut(args[0], "@")
			}
			t, err := a.open()
			if err != nil {
				return err
			}
			res, err := create(ctx, a, across(t, iamv1connect.NewUserWriteServiceClient).InviteUser,
				&iamv1.InviteUserRequest{Email: args[0], DisplayName: name, TenantRole: r})
			if err != nil {
				return err
			}
			return a.answer(res, func() error {
				return show.Facts(a.Out, "user", res.GetUser().GetEmail(), "id", res.GetUser().GetId(),
					"tenant role", word(res.GetUser().GetTenantRole(), tenantRolePrefix), "setup code", res.GetSetupCode(),
					"works until", show.Time(res.GetSetupCodeExpiresAt()), "to be used with", "a3 login --url "+t.profile.URL+" --setup-code -")
			})
		}),
	}
	invite.Flags().StringVar(&name, "name", "", "name to show; what stands before the @, when not given")
	tenantRoleFlag(invite, &asRole)
	var reason string
	deactivate := &cobra.Command{
		Use: "deactivate USER", Short: "End a user's sessions and memberships (tenant admins)",
		Long: `deactivate shuts a user out within 5 seconds. It is refused for an owner of workspaces, with the list of what to transfer first, and for
the last tenant admin.`,
		Example: `  a3 user deactivate dave@acme.example --reason "Left on 1 November"`,
		Args:    exactly("USER"),
		RunE: a.doing(func(ctx context.Context, args []string) error {
			t, err := a.open()
			if err != nil {
				return err
			}
			user, err := t.findUser(ctx, args[0])
			if err != nil {
				return err
			}
			u, err := ask(ctx, across(t, iamv1connect.NewUserWriteServiceClient).DeactivateUser, &iamv1.DeactivateUserRequest{UserId: user, Reason: reason})
			if err != nil {
				return err
			}
			return a.answer(u, func() error {
				a.print("%s is %s", show.Text(u.GetEmail()), word(u.GetState(), userStatePrefix))
				return nil
			})
		}),
	}
	deactivate.Flags().StringVar(&reason, "reason", "", "why, for the record")
	return group("user", "People of the tenant", list, a.creates(invite), a.creates(a.reinvite()), deactivate)
}

func (a *app) reinvite() *cobra.Command {
	var reason string
	var endSessions bool
	c := &cobra.Command{
		Use: "reinvite USER --reason TEXT", Short: "Print a new one-time setup code for somebody who can't sign in any more (tenant admins)",
		Long: `reinvite makes a new setup code for a user who is active or invited, with all they have: for somebody who signed out, lost their laptop
or whose session ended because its token was used twice. Codes before it stop working. The code works once, for 15 minutes, and whoever
uses it is signed in as that user: see that you give it to nobody else. The reason, 10 to 500 characters, is kept in the audit log. With
--end-sessions what they have open ends within 5 seconds: do that where a device is in somebody else's hands.

If you are the tenant's last admin and have no session left, an operator lets you in with "fleet tenant recover-admin".`,
		Example: `  a3 user reinvite dave@acme.example --reason "New laptop, identity checked by phone"
  a3 user reinvite dave@acme.example --reason "Laptop stolen in Lyon, case 4711" --end-sessions`,
		Args: exactly("USER"),
		RunE: a.doing(func(ctx context.Context, args []string) error {
			t, err := a.open()
			if err != nil {
				return err
			}
			user, err := t.findUser(ctx, args[0])
			if err != nil {
				return err
			}
			res, err := create(ctx, a, across(t, iamv1connect.NewAdminUserServiceClient).ReissueSetupCode,
				&iamv1.ReissueSetupCodeRequest{UserId: user, Reason: reason, EndSessions: endSessions})
			if err != nil {
				return err
			}
			return a.answer(res, func() error {
				facts := []string{"user", res.GetUser().GetEmail(), "id", res.GetUser().GetId(), "setup code", res.GetSetupCode(),
					"works until", show.Time(res.GetSetupCodeExpiresAt()), "to be used with", "a3 login --url " + t.profile.URL + " --setup-code -"}
				if endSessions {
					facts = append(facts, "sessions ended", strconv.Itoa(int(res.GetEndedSessions())))
				}
				return show.Facts(a.Out, facts...)
			})
		}),
	}
	c.Flags().StringVar(&reason, "reason", "", "why, 10 to 500 characters")
	c.Flags().BoolVar(&endSessions, "end-sessions", false, "end what the user has open")
	_ = c.MarkFlagRequired("reason")
	return c
}

func tenantRoleFlag(c *cobra.Command, into *string) {
	c.Flags().StringVar(into, "tenant-role", "", "admin or auditor; none, when not given")
	complete(c, "tenant-role", func(string) []string { return words(tenantRolePrefix, iamv1.TenantRole_value) })
}

func tenantRole(word string) (iamv1.TenantRole, error) {
	if word == "" {
		return iamv1.TenantRole_TENANT_ROLE_UNSPECIFIED, nil
	}
	n, err := role(word, tenantRolePrefix, iamv1.TenantRole_value)
	return iamv1.TenantRole(n), err
}
