// Package enginetest gives tests a Docker engine of their own, in a network namespace of its own: nothing of it is seen by the machine's
// own engine, packet filter or interfaces, and all of it is gone when the test's process ends.
package enginetest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/client"
)

// inside is set in a process that Main started in the namespace.
const inside = "A3TEST_NETWORK"

// Suite is a package's tests: a *testing.M, or what brings up what they share besides.
type Suite interface{ Run() (code int) }

// Main runs a package's tests beside an engine of their own. Where there can be none the tests run all the same, and skip with Need. more are further options of unshare, as --mount.
func Main(m Suite, more ...string) {
	if os.Getenv(inside) == "" && Missing() == "" {
		// The whole process moves: what it dials and listens on is in the namespace.
		args := slices.Concat([]string{"unshare", "--net"}, more, []string{"--", os.Args[0]}, os.Args[1:])
		path, err := exec.LookPath("unshare")
		if err == nil {
			err = syscall.Exec(path, args, append(os.Environ(), inside+"=1")) //nolint:gosec // this program itself
		}
		fmt.Fprintln(os.Stderr, "the tests can't have a network of their own:", err)
		os.Exit(1)
	}
	os.Exit(run(m))
}

func run(m Suite) int {
	if os.Getenv(inside) == "" {
		return m.Run()
	}
	stop, err := start()
	if err != nil {
		fmt.Fprintln(os.Stderr, "the tests can't have an engine:", err)
		return 1
	}
	defer stop()
	return m.Run()
}

// Missing says why there can be no engine here; empty where there can.
func Missing() string {
	if os.Geteuid() != 0 {
		return "only root can start a Docker engine"
	}
	for _, tool := range []string{"dockerd", "iptables", "ip", "unshare"} {
		if _, err := exec.LookPath(tool); err != nil {
			return "there is no " + tool + " on this machine"
		}
	}
	return ""
}

// Need skips a test that has no engine.
func Need(t testing.TB) {
	t.Helper()
	if why := Missing(); why != "" {
		t.Skip(why)
	}
}

// start starts an engine and returns when it answers.
func start() (stop func(), err error) {
	dir, err := os.MkdirTemp("", "a3-engine-")
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(dir, "docker.sock")
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil { //nolint:noctx // it returns at once
		return nil, fmt.Errorf("bring up the loopback interface: %w: %s", err, out)
	}
	cmd := exec.Command("dockerd", "--data-root", filepath.Join(dir, "data"), "--exec-root", filepath.Join(dir, "exec"), //nolint:noctx,gosec // it ends with this process
		"--host", "unix://"+socket, "--pidfile", filepath.Join(dir, "pid"), "--bridge", "none", "--default-address-pool", "base=10.201.0.0/16,size=28")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	stop = func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		const patience = 30 * time.Second
		select {
		case <-ended:
		case <-time.After(patience):
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			<-ended
		}
		_ = os.RemoveAll(dir)
	}
	if err := os.Setenv("DOCKER_HOST", "unix://"+socket); err != nil {
		return nil, err
	}
	const most = time.Minute
	ctx, cancel := context.WithTimeout(context.Background(), most)
	defer cancel()
	docker, err := client.NewClientWithOpts(client.FromEnv)
	if err != nil {
		return nil, err
	}
	defer docker.Close()
	for {
		if _, err := docker.Ping(ctx); err == nil {
			return stop, nil
		}
		select {
		case <-ended:
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
			continue
		}
		said, _ := os.ReadFile(log.Name())
		stop()
		return nil, fmt.Errorf("dockerd does not answer: %s", said)
	}
}
