package systemtest

import (
	"context"
	"errors"
	"fmt"
	"testing"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	"a3os.app/proto/gen/go/a3os/discovery/v1/discoveryv1connect"
	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"
	"a3os.app/proto/gen/go/a3os/iam/v1/iamv1connect"
	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"
	"a3os.app/proto/gen/go/a3os/integrations/v1/integrationsv1connect"

	"a3os.app/libs/fault"
)

// Row A55, on a running plane: audit stands still until the record is behind its bound, which is set to two seconds. Deeds of every
// service are unavailable, and nothing of them is there; reads go on; when audit does, so do deeds.
func TestDeedsAreRefusedAndReadsGoOnWhileTheRecordIsBehind(t *testing.T) {
	full(t)
	x := globex()
	admin := x.admin(t)
	owner := x.invite(t)
	w := x.workspace(t, owner).GetId()
	system := owner.upload(t, w, people(10))
	owner.discover(t, w, system.GetId())
	conn := shared.superuser(t, "postgres", x.id)
	bound := func(age string) {
		t.Helper()
		if _, err := conn.Exec(context.WithoutCancel(t.Context()), "UPDATE audit.settings SET max_backlog_age = $1::interval", age); err != nil {
			t.Fatal(err)
		}
	}
	there := func() (rows string) {
		t.Helper()
		const q = `SELECT concat_ws(' ', (SELECT count(*) FROM iam.users), (SELECT count(*) FROM iam.workspaces),
			(SELECT count(*) FROM integrations.integrations), (SELECT count(*) FROM discovery.runs))`
		if err := conn.QueryRow(t.Context(), q).Scan(&rows); err != nil {
			t.Fatal(err)
		}
		return rows
	}
	deeds := map[string]func() error{
		"invite": func() error {
			_, err := try(t, client(admin, "", iamv1connect.NewUserWriteServiceClient).InviteUser, &iamv1.InviteUserRequest{Email: name("late") + "@example.com", DisplayName: "late"})
			return err
		},
		"make a workspace": func() error {
			_, err := try(t, client(admin, "", iamv1connect.NewWorkspaceWriteServiceClient).CreateWorkspace, &iamv1.CreateWorkspaceRequest{Name: name("late"), OwnerUserId: owner.id})
			return err
		},
		"connect a system": func() error {
			_, err := try(t, client(owner, w, integrationsv1connect.NewIntegrationWriteServiceClient).CreateIntegration,
				&integrationsv1.CreateIntegrationRequest{Name: name("late"), Settings: csvSettings()})
			return err
		},
		"run discovery": func() error {
			_, err := try(t, client(owner, w, discoveryv1connect.NewRunWriteServiceClient).StartRun, &discoveryv1.StartRunRequest{IntegrationId: system.GetId()})
			return err
		},
	}
	reads := map[string]func() error{
		"list workspaces": func() error {
			_, err := try(t, client(admin, "", iamv1connect.NewWorkspaceServiceClient).ListWorkspaces, &iamv1.ListWorkspacesRequest{})
			return err
		},
		"list systems": func() error {
			_, err := try(t, client(owner, w, integrationsv1connect.NewIntegrationServiceClient).ListIntegrations, &integrationsv1.ListIntegrationsRequest{})
			return err
		},
		"list runs": func() error {
			_, err := try(t, client(owner, w, discoveryv1connect.NewRunServiceClient).ListRuns, &discoveryv1.ListRunsRequest{})
			return err
		},
		"list grants": func() error {
			_, err := try(t, client(owner, w, discoveryv1connect.NewAccessServiceClient).ListGrants, &discoveryv1.ListGrantsRequest{})
			return err
		},
	}
	bound("2 seconds")
	t.Cleanup(func() { bound("60 seconds") })
	resume := x.pause(t, "audit")
	within(t, backWithin, func() error {
		if err := deeds["invite"](); fault.KindOf(err) != fault.Unavailable {
			return fmt.Errorf("with nobody to seal, a deed is answered: %w", errors.Join(errors.New("done, or otherwise"), err))
		}
		return nil
	})
	before, cases := there(), 0
	for range 3 {
		for what, do := range deeds {
			if err := do(); fault.KindOf(err) != fault.Unavailable {
				t.Errorf("to %s is answered %v", what, err)
			}
			cases++
		}
		for what, do := range reads {
			if err := do(); err != nil {
				t.Errorf("to %s: %v", what, err)
			}
			cases++
		}
	}
	if after := there(); after != before {
		t.Errorf("users, workspaces, systems and runs were %s, and are %s after deeds that were refused", before, after)
	}
	resume()
	for what, do := range deeds {
		within(t, backWithin, func() error {
			if err := do(); err != nil {
				return fmt.Errorf("to %s, with audit back: %w", what, err)
			}
			return nil
		})
	}
	held(t, cases, "A55")
}
