package session_test

import (
	"strings"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/ministacktest"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/aws/awstest"
	"a3os.app/tools/fleet/internal/platform/aws/session"
	"a3os.app/tools/fleet/internal/platform/aws/stack"
)

// The machine that fleet works from becomes the provisioner with nobody there, by the role that the plane's stack names as its; a machine of another role
// doesn't, and is told what to log in as. Names of sessions are what the emulator doesn't ask about.
func TestMachineBecomesTheProvisioner(t *testing.T) {
	server, d := awstest.Account(t)
	b, err := blueprint.Plane()
	if err != nil {
		t.Fatal(err)
	}
	made, err := stack.Plane(stack.Input{Place: awstest.Place, Release: awstest.Release(t), Image: awstest.Digest, Set: platform.Set{Blueprint: b}, First: true})
	if err != nil {
		t.Fatal(err)
	}
	become := ministacktest.Statement{Effect: "Allow", Action: []string{"sts:AssumeRole", "sts:SetSourceIdentity"}, Resource: []string{"*"}}
	machine, stranger := server.Role(t, "machine", become), server.Role(t, "stranger", become)
	if _, err := session.AsProvisioner(t.Context(), machine, awstest.Place, stack.Machine); err == nil {
		t.Error("a machine becomes the provisioner of a plane that names none")
	}
	awstest.Change(t, d, awstest.Place.PlaneStack(), awstest.Emulated(t, made, false), map[string]string{"AdministratorRole": "arn:aws:iam::" + ministacktest.Account + ":role/administrator",
		"MachineRole": "arn:aws:iam::" + ministacktest.Account + ":role/machine"})
	cfg, err := session.AsProvisioner(t.Context(), machine, awstest.Place, stack.Machine)
	if err != nil {
		t.Fatal(err)
	}
	lastsAnHour(t, cfg)
	who, err := sts.NewFromConfig(cfg).GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{})
	if err != nil || !strings.Contains(sdk.ToString(who.Arn), "a3-dev-provisioner/"+stack.Machine) {
		t.Errorf("it is %v; %v", who, err)
	}
	if _, err := session.AsProvisioner(t.Context(), stranger, awstest.Place, stack.Machine); err == nil || !strings.Contains(err.Error(), "the one of MachineRole") {
		t.Errorf("a machine of another role: %v", err)
	}
}
