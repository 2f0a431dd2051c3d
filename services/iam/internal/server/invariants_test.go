package server_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"

	"connectrpc.com/connect"
	"pgregory.net/rapid"

	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"

	"a3os.app/libs/authz"
	"a3os.app/libs/fault"
	"a3os.app/libs/id"

	"a3os.app/services/iam/internal/iamtest"
)

// heads are what must never be missing, asked of the database itself: each workspace has one owner, who is the member that the workspace
// names and is active, and the tenant has an active admin.
var heads = map[string]string{
	"workspaces without exactly one owner among their members": `SELECT count(*) FROM iam.workspaces w
		WHERE (SELECT count(*) FROM iam.members m WHERE m.workspace_id = w.id AND m.role = 'owner') <> 1`,
	"workspaces whose owner is another member than the one they name": `SELECT count(*) FROM iam.workspaces w
		WHERE NOT EXISTS (SELECT FROM iam.members m WHERE m.workspace_id = w.id AND m.role = 'owner' AND m.user_id = w.owner_user_id)`,
	"workspaces whose owner is not active":     `SELECT count(*) FROM iam.workspaces w JOIN iam.users u ON u.id = w.owner_user_id WHERE u.state <> 'active'`,
	"tenants without an admin who can sign in": `SELECT (count(*) = 0)::int FROM iam.users WHERE tenant_role = 'admin' AND state = 'active'`,
	"deactivated users who are members":        `SELECT count(*) FROM iam.members m JOIN iam.users u ON u.id = m.user_id WHERE u.state = 'deactivated'`,
	"gaps in the order of revocations":         `SELECT (SELECT sequence FROM iam.revocation_head) - count(*) FROM iam.revocations`,
}

// company is an iam that is played with.
type company struct {
	*testing.T
	e          *iamtest.Env
	mu         sync.Mutex
	users      []id.User
	workspaces []id.Workspace
	accounts   []id.ServiceAccount
	names      int
}

func (c *company) name(what string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.names++
	return fmt.Sprintf("%s%d", what, c.names)
}

// moves are everything that can happen to who may do what. Each takes three numbers, which choose whom it happens to.
var moves = map[string]func(c *company, a, b, d int) error{
	"invite": func(c *company, a, _, d int) error {
		email := c.name("user") + "@example.com"
		res, err := c.e.Users.InviteUser(c.e.AsAdmin(c), connect.NewRequest(&iamv1.InviteUserRequest{Email: email, DisplayName: email, TenantRole: iamv1.TenantRole(a % 3)}))
		if err != nil {
			return err
		}
		u, err := id.ParseUser(res.Msg.GetUser().GetId())
		c.mu.Lock()
		c.users = append(c.users, u)
		c.mu.Unlock()
		if err != nil || d%4 == 0 {
			return err
		}
		// Past the limit on codes, which is not what is tried here.
		c.e.DB.Exec(c, "UPDATE iam.users SET state = 'active' WHERE id = $1", u)
		return nil
	},
	"deactivate": func(c *company, a, _, _ int) error {
		_, err := c.e.Users.DeactivateUser(c.e.AsAdmin(c), connect.NewRequest(&iamv1.DeactivateUserRequest{UserId: c.user(a).String()}))
		return err
	},
	"set tenant role": func(c *company, a, b, _ int) error {
		_, err := c.e.Users.SetTenantRole(c.e.AsAdmin(c), connect.NewRequest(&iamv1.SetTenantRoleRequest{UserId: c.user(a).String(), TenantRole: iamv1.TenantRole(b % 3)}))
		return err
	},
	"create workspace": func(c *company, a, _, _ int) error {
		res, err := c.e.Workspaces.CreateWorkspace(c.e.AsAdmin(c), connect.NewRequest(&iamv1.CreateWorkspaceRequest{Name: c.name("workspace"), OwnerUserId: c.user(a).String()}))
		if err != nil {
			return err
		}
		w, err := id.ParseWorkspace(res.Msg.GetId())
		c.mu.Lock()
		defer c.mu.Unlock()
		c.workspaces = append(c.workspaces, w)
		return err
	},
	"transfer": func(c *company, a, b, d int) error {
		w := c.workspace(a)
		from := c.user(b)
		if d%3 > 0 { // mostly from the true owner, or nearly all would be refused
			if err := c.e.Super.QueryRow(c.Context(), "SELECT owner_user_id FROM iam.workspaces WHERE id = $1", w).Scan(&from); err != nil {
				return nil //nolint:nilerr // there is no workspace yet
			}
		}
		_, err := transfer(c.e.AsAdmin(c), c.e, w, from, c.user(d))
		return err
	},
	"add member": func(c *company, a, b, d int) error {
		principal := c.user(b).String()
		if d%3 == 0 && len(c.accounts) > 0 {
			principal = c.accounts[b%len(c.accounts)].String()
		}
		_, err := c.e.Members.AddMember(c.inside(a), connect.NewRequest(&iamv1.AddMemberRequest{Principal: principal, Role: iamv1.WorkspaceRole(d % 5)}))
		return err
	},
	"remove member": func(c *company, a, b, _ int) error {
		_, err := c.e.Members.RemoveMember(c.inside(a), connect.NewRequest(&iamv1.RemoveMemberRequest{PrincipalId: c.user(b).String()}))
		return err
	},
	"set member role": func(c *company, a, b, d int) error {
		_, err := c.e.Members.SetMemberRole(c.inside(a), connect.NewRequest(&iamv1.SetMemberRoleRequest{PrincipalId: c.user(b).String(), Role: iamv1.WorkspaceRole(d % 5)}))
		return err
	},
	"delete service account": func(c *company, a, _, _ int) error {
		c.mu.Lock()
		account := c.accounts[a%len(c.accounts)]
		c.mu.Unlock()
		_, err := c.e.Accounts.DeleteServiceAccount(c.e.AsAdmin(c), connect.NewRequest(&iamv1.DeleteServiceAccountRequest{ServiceAccountId: account.String()}))
		return err
	},
}

func (c *company) user(n int) id.User {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.users[n%len(c.users)]
}

func (c *company) workspace(n int) id.Workspace {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.workspaces) == 0 {
		return id.NewWorkspace()
	}
	return c.workspaces[n%len(c.workspaces)]
}

func (c *company) inside(n int) context.Context {
	return c.e.Ctx(c, c.e.Admin.String(), c.workspace(n), authz.WorkspaceAdmin)
}

// ours says whether an error is one that a caller may act on; anything else is a fault of iam's.
func ours(err error) bool {
	switch fault.KindOf(err) {
	case fault.NotFound, fault.AlreadyExists, fault.InvalidArgument, fault.FailedPrecondition:
		return true
	}
	return false
}

func newCompany(t *testing.T) *company {
	c := &company{T: t, e: iamtest.New(t)}
	c.users = []id.User{c.e.Admin}
	for range 3 {
		c.accounts = append(c.accounts, c.e.Account(t, c.name("robot"), 0).ID)
		c.users = append(c.users, c.e.User(t, c.name("founder")+"@example.com", ""))
		c.workspaces = append(c.workspaces, c.e.Workspace(t, c.name("workspace"), c.e.Admin))
	}
	return c
}

func (c *company) check(fatalf func(format string, args ...any)) {
	for what, sql := range heads {
		if n := c.e.Int(c, sql); n != 0 {
			fatalf("%s: %d", what, n)
		}
	}
}

func TestWhateverHappensWorkspacesHaveAnOwnerAndTheTenantAnAdmin(t *testing.T) {
	c := newCompany(t)
	names := slices.Sorted(maps.Keys(moves))
	done := map[string]int{}
	play := func(r *rapid.T) {
		number := rapid.IntRange(0, 1000)
		for range rapid.IntRange(1, 12).Draw(r, "moves") {
			what := rapid.SampledFrom(names).Draw(r, "what")
			err := moves[what](c, number.Draw(r, "a"), number.Draw(r, "b"), number.Draw(r, "d"))
			switch {
			case err == nil:
				done[what]++
			case !ours(err):
				r.Fatalf("%s: %v", what, err)
			}
			c.check(r.Fatalf)
		}
	}
	// Chance may leave a move out of one round, or let it meet refusals alone; of many rounds hardly.
	const mostRounds = 20
	for range mostRounds {
		rapid.Check(t, play)
		if len(done) == len(names) {
			break
		}
	}
	for _, what := range names {
		if done[what] == 0 {
			t.Errorf("%s never succeeded: the test tried nothing of it", what)
		}
	}
}

func TestWhateverHappensAtOnceWorkspacesHaveAnOwnerAndTheTenantAnAdmin(t *testing.T) {
	c := newCompany(t)
	names := slices.Sorted(maps.Keys(moves))
	rapid.Check(t, func(r *rapid.T) {
		number := rapid.IntRange(0, 1000)
		var wg sync.WaitGroup
		for range 6 {
			what := rapid.SampledFrom(names).Draw(r, "what")
			a, b, d := number.Draw(r, "a"), number.Draw(r, "b"), number.Draw(r, "d")
			wg.Go(func() {
				if err := moves[what](c, a, b, d); err != nil && !ours(err) {
					t.Errorf("%s: %v", what, err)
				}
			})
		}
		wg.Wait()
		c.check(r.Fatalf)
	})
}
