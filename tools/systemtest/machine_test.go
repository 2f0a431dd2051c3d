package systemtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	"a3os.app/proto/gen/go/a3os/discovery/v1/discoveryv1connect"
	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"
	"a3os.app/proto/gen/go/a3os/iam/v1/iamv1connect"
)

// Where root starts the plane, what only root may read of the machine is read, by a process that can do that and nothing else, for the
// tenant that may know it and nobody else.
func TestMachineIsReadWholeByAProcessThatCanDoNothingElse(t *testing.T) {
	t.Parallel()
	units := shared.pids(t)
	pid, ok := units[acme().id+"/machine-reader"]
	if !ok {
		t.Skip("no machine reader is kept here: the plane is not started as root, or the kernel has no Landlock")
	}
	if _, other := units[globex().id+"/machine-reader"]; other {
		t.Error("globex has a machine reader, and may not read this machine")
	}
	if line := regexp.MustCompile(`(?m)^acme\s+this-machine\s+unix.*$`).FindString(shared.first.out); !strings.HasSuffix(line, "complete") {
		t.Errorf("the machine was not read whole: %q, %q", line, machineGaps(t))
	}
	network, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		t.Fatal(err)
	}
	if own, err := os.Readlink("/proc/self/ns/net"); err != nil || own == network {
		t.Errorf("it shares the network of this machine: %v", err)
	}
	for name, value := range shared.environment(t, acme().id+"/machine-reader") {
		// The bound of its memory is the supervisor's word to its runtime, and says nothing of anybody.
		if !strings.HasPrefix(name, "A3_MACHINE_") && name != "GOMEMLIMIT" {
			t.Errorf("it is told %s=%s", name, value)
		}
	}
	// A sibling, the other tenant's worker, and the reader's own user walk to the socket in vain.
	socket := acme().file("machine", "socket")
	for _, unit := range []string{acme().id + "/iam", globex().id + "/discovery-worker"} {
		uid, groups := shared.idsOf(t, unit)
		cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", `test -e "$0"`, socket)
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid, Groups: groups}}
		if err := cmd.Run(); err == nil {
			t.Errorf("%s can walk to %s", unit, filepath.Base(socket))
		}
	}
}

// machineGaps are what the newest run of the machine names.
func machineGaps(t *testing.T) (gaps []string) {
	admin := acme().admin(t)
	for _, w := range ask(t, client(admin, "", iamv1connect.NewWorkspaceServiceClient).ListWorkspaces, &iamv1.ListWorkspacesRequest{}).GetWorkspaces() {
		if w.GetOwnerUserId() != admin.id {
			continue
		}
		for _, r := range ask(t, client(admin, w.GetId(), discoveryv1connect.NewRunServiceClient).ListRuns, &discoveryv1.ListRunsRequest{}).GetRuns() {
			for _, g := range r.GetGaps() {
				gaps = append(gaps, g.GetReason())
			}
		}
	}
	return gaps
}
